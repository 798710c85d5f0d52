//! How much a server keeps of the cluster in memory: bounded by bytes for each namespace and in all.
//!
//! Whoever may create objects in a labelled namespace decides how many there are and how large; the API server bounds neither.
//! Invariants: what is kept never takes more than [`MAX_BYTES`]; a namespace that wants more than its share waits alone, whatever
//! the others do; what was known stays known when its next version is refused, and a version that takes no more than the one
//! before is never refused. Bytes are an estimate of heap, not of JSON. Deliberately absent: the objects themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::text::listed;

/// What is kept of one namespace. Bytes: 5,000 pods with their entries, which is what all of a cluster is planned to have.
pub const MAX_NAMESPACE_BYTES: usize = 20 * 1024 * 1024;
/// What is kept of all namespaces. Bytes: two fifths of the memory limit that deploy/base gives a server.
pub const MAX_BYTES: usize = 52 * 1024 * 1024;
/// Of these, what is left for namespaces that take no more than their equal share of it. Bytes.
const RESERVED_BYTES: usize = 16 * 1024 * 1024;
/// That is shared by at least so many.
const LEAST_SHARES: usize = 32;
/// Refused objects of a namespace that are remembered, to tell how many there are.
const MAX_REFUSED: usize = 1_000;
/// Refused objects that a sentence names.
const MAX_NAMED: usize = 5;
/// Characters of a name that a sentence repeats; Kubernetes allows 253.
const MAX_NAME_CHARS: usize = 80;

/// What a `String` or an entry of a map takes beside its text. Bytes.
pub const ENTRY_BYTES: usize = 64;

/// Kinds of objects that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A StatefulSet, with its plan.
    StatefulSet,
    /// A ConfigMap of ours, with its entries.
    ConfigMap,
    /// A pod of a StatefulSet.
    Pod,
    /// A `PodDisruptionBudget`.
    Budget,
    /// A Service.
    Service,
}

/// Why an object is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// What is read of it is larger than what is read of any object.
    TooLarge,
    /// Its namespace has too much already.
    TooMany,
}

/// Objects of a namespace that are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The namespace.
    pub namespace: String,
    /// How many; more than [`MAX_REFUSED`] are not counted.
    pub count: usize,
    /// A sentence that says which, why and what to do.
    pub sentence: String,
    /// A StatefulSet among them, by name.
    pub statefulset: Option<String>,
}

#[derive(Debug, Default)]
struct Account {
    bytes: usize,
    refused: BTreeMap<(Kind, String), Why>,
    /// Further refusals that are not remembered by name.
    told: BTreeSet<Why>,
}

/// What each namespace takes.
#[derive(Debug, Default)]
pub struct Ledger {
    namespaces: BTreeMap<String, Account>,
    bytes: usize,
}

impl Ledger {
    /// An object that takes `before` bytes is to take `after`; `Ok` if it may. An error says whether it is the first refusal of that
    /// kind in its namespace, which deserves a line in the log.
    ///
    /// # Errors
    /// Whether this is news.
    pub fn admit(
        &mut self,
        namespace: &str,
        (kind, name): (Kind, &str),
        before: usize,
        after: usize,
    ) -> Result<(), bool> {
        let share = RESERVED_BYTES / (self.namespaces.len() + 1).max(LEAST_SHARES);
        let (all, account) = (self.bytes, self.account(namespace));
        let own = (account.bytes + after).saturating_sub(before);
        let total = (all + after).saturating_sub(before);
        let fits = own <= MAX_NAMESPACE_BYTES
            && (total <= MAX_BYTES - RESERVED_BYTES || (own <= share && total <= MAX_BYTES));
        if after > before && !fits {
            return Err(self.refuse(namespace, (kind, name), Why::TooMany));
        }
        account.bytes = own;
        account.refused.remove(&(kind, name.to_owned()));
        self.bytes = total;
        Ok(())
    }

    /// An object is not kept; whether that is the first of its kind in the namespace.
    pub fn refuse(&mut self, namespace: &str, (kind, name): (Kind, &str), why: Why) -> bool {
        let account = self.account(namespace);
        if account.refused.len() < MAX_REFUSED {
            account.refused.insert((kind, name.to_owned()), why);
        }
        account.told.insert(why)
    }

    /// An object that took so many bytes is gone, or was never kept.
    pub fn release(&mut self, namespace: &str, (kind, name): (Kind, &str), bytes: usize) {
        let Some(account) = self.namespaces.get_mut(namespace) else {
            return;
        };
        account.refused.remove(&(kind, name.to_owned()));
        if account.refused.is_empty() {
            account.told.clear();
        }
        account.bytes = account.bytes.saturating_sub(bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        if account.bytes == 0 && account.refused.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    /// Everything of these kinds is forgotten, which took so many bytes.
    pub fn forget(&mut self, namespace: &str, kinds: &[Kind], bytes: usize) {
        if let Some(account) = self.namespaces.get_mut(namespace) {
            account.refused.retain(|(kind, _), _| !kinds.contains(kind));
        }
        // No object is called so.
        self.release(namespace, (Kind::Pod, ""), bytes);
    }

    /// Bytes that are kept in all.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is refused in each namespace.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        let some = self
            .namespaces
            .iter()
            .filter(|(_, account)| !account.refused.is_empty());
        some.map(|(namespace, account)| account.report(namespace))
            .collect()
    }

    fn account(&mut self, namespace: &str) -> &mut Account {
        // Looked up first: a name is made once for a namespace.
        if !self.namespaces.contains_key(namespace) {
            self.namespaces
                .insert(namespace.to_owned(), Account::default());
        }
        self.namespaces.entry(namespace.to_owned()).or_default()
    }
}

impl Account {
    fn report(&self, namespace: &str) -> Refused {
        let mut parts = Vec::new();
        for why in [Why::TooMany, Why::TooLarge] {
            let names: Vec<String> = self
                .refused
                .iter()
                .filter(|(_, of)| **of == why)
                .map(|((kind, name), _)| format!("{kind} {}", short(name)))
                .collect();
            if !names.is_empty() {
                parts.push(format!("{} ({why})", listed(&names, MAX_NAMED)));
            }
        }
        let statefulset = self
            .refused
            .keys()
            .find(|(kind, _)| *kind == Kind::StatefulSet)
            .map(|(_, name)| name.clone());
        let sentence = format!(
            "namespace {namespace}: not taken in: {}; their pods get the windows of the configuration's defaults, or what was last known; delete or shrink what is not needed, each is looked at again when it changes",
            parts.join("; ")
        );
        Refused {
            namespace: namespace.to_owned(),
            count: self.refused.len(),
            sentence,
            statefulset,
        }
    }
}

fn short(name: &str) -> String {
    super::printable::short_line(name, MAX_NAME_CHARS)
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StatefulSet => "StatefulSet",
            Self::ConfigMap => "ConfigMap",
            Self::Pod => "pod",
            Self::Budget => "PodDisruptionBudget",
            Self::Service => "Service",
        })
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge => f.write_str("larger than a server reads: labels, annotations of ours, selectors, commands and data count"),
            Self::TooMany => write!(f, "a namespace may take {} MiB of a server's memory", MAX_NAMESPACE_BYTES / 1024 / 1024),
        }
    }
}

/// What texts take.
#[must_use]
pub fn bytes_of<'a>(texts: impl IntoIterator<Item = &'a String>) -> usize {
    texts
        .into_iter()
        .map(|text| text.len() + ENTRY_BYTES / 2)
        .sum()
}

/// What labels, annotations or data take.
#[must_use]
pub fn bytes_of_map(map: &BTreeMap<String, String>) -> usize {
    map.iter()
        .map(|(key, value)| key.len() + value.len() + ENTRY_BYTES)
        .sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn who_takes_too_much_waits_alone() {
        let mut ledger = Ledger::default();
        let taken = (0..100)
            .filter(|n| {
                ledger
                    .admit("loud", (Kind::ConfigMap, &format!("map-{n}")), 0, MIB)
                    .is_ok()
            })
            .count();
        assert_eq!(taken, MAX_NAMESPACE_BYTES / MIB);
        // A tenant of many namespaces.
        for namespace in 0..20 {
            for n in 0..20 {
                let _ = ledger.admit(
                    &format!("loud-{namespace}"),
                    (Kind::Pod, &n.to_string()),
                    0,
                    MIB,
                );
            }
        }
        assert!(ledger.bytes() <= MAX_BYTES);
        assert_eq!(
            ledger.admit("quiet", (Kind::StatefulSet, "store"), 0, MIB / 4),
            Ok(()),
            "it is within its share"
        );
        let refused = ledger.refused();
        let loud = refused
            .iter()
            .find(|refused| refused.namespace == "loud")
            .unwrap();
        assert_eq!(loud.count, 100 - taken);
        assert!(
            loud.sentence.contains("ConfigMap map-20, ConfigMap map-21")
                && loud
                    .sentence
                    .contains("75 more (a namespace may take 20 MiB"),
            "{}",
            loud.sentence
        );
        assert!(refused.iter().all(|refused| refused.namespace != "quiet"));
    }

    #[test]
    fn what_is_known_stays_known_and_room_is_given_back() {
        let mut ledger = Ledger::default();
        ledger
            .admit("ns", (Kind::StatefulSet, "a"), 0, 18 * MIB)
            .unwrap();
        assert_eq!(
            ledger.admit("ns", (Kind::StatefulSet, "b"), 0, 5 * MIB),
            Err(true),
            "the first is news"
        );
        assert_eq!(
            ledger.admit("ns", (Kind::StatefulSet, "c"), 0, 5 * MIB),
            Err(false)
        );
        assert_eq!(
            ledger.admit("ns", (Kind::StatefulSet, "a"), 18 * MIB, 18 * MIB),
            Ok(())
        );
        assert_eq!(ledger.refused()[0].statefulset.as_deref(), Some("b"));
        ledger.release("ns", (Kind::StatefulSet, "a"), 18 * MIB);
        assert_eq!(
            ledger.admit("ns", (Kind::StatefulSet, "b"), 0, 5 * MIB),
            Ok(())
        );
        assert_eq!(ledger.refused()[0].count, 1);
        ledger.release("ns", (Kind::StatefulSet, "c"), 0);
        ledger.release("ns", (Kind::StatefulSet, "b"), 5 * MIB);
        assert!(ledger.refused().is_empty() && ledger.bytes() == 0 && ledger.namespaces.is_empty());
    }

    proptest! {
        #[test]
        fn the_bound_holds_whatever_comes(moves in prop::collection::vec((0_u8..12, 0_usize..8, 0_usize..(3 * MIB)), 0..400)) {
            let mut ledger = Ledger::default();
            let mut kept = BTreeMap::<(u8, usize), usize>::new();
            for (namespace, object, bytes) in moves {
                let before = kept.get(&(namespace, object)).copied().unwrap_or(0);
                if ledger.admit(&namespace.to_string(), (Kind::Pod, &object.to_string()), before, bytes).is_ok() {
                    kept.insert((namespace, object), bytes);
                }
                prop_assert_eq!(ledger.bytes(), kept.values().sum::<usize>());
                let of = |namespace: u8| kept.iter().filter(|((of, _), _)| *of == namespace).map(|(_, bytes)| bytes).sum::<usize>();
                prop_assert!((0..12).all(|namespace| of(namespace) <= MAX_NAMESPACE_BYTES));
                prop_assert!(ledger.bytes() <= MAX_BYTES, "{}", ledger.bytes());
            }
        }
    }
}
