//! Memory limits for the server's copy of the cluster, per namespace and in total.
//!
//! Anyone who may create objects in a labelled namespace decides on their number and size; the API
//! server bounds neither. Invariants: the copy never takes more than [`MAX_BYTES`]; a namespace
//! beyond its share affects only itself; if a new version of an object is refused, the old one
//! stays; a version that is not larger than the old one is never refused. Bytes are an estimate of
//! heap, not of JSON. Deliberately absent: the objects.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::model::text::{listed, short_line};

/// Of one namespace: 5,000 pods with their entries, the design limit of a cluster.
pub const MAX_NAMESPACE_BYTES: usize = 20 * 1024 * 1024;
/// Of all namespaces: two fifths of the server's memory limit in deploy/base.
pub const MAX_BYTES: usize = 52 * 1024 * 1024;
/// The part of [`MAX_BYTES`] for namespaces that take no more than an equal share of it.
const RESERVED_BYTES: usize = 16 * 1024 * 1024;
/// Least number of shares of [`RESERVED_BYTES`].
const MIN_SHARES: usize = 32;
/// Refused objects of a namespace that are remembered by name.
const MAX_REFUSED: usize = 1_000;
/// Refused objects in a message.
const MAX_NAMED: usize = 5;
/// Characters of a name in a message; Kubernetes allows 253.
const MAX_NAME_CHARS: usize = 80;

/// Overhead of a map's entry of two texts: their 48 bytes in a node that is two thirds full, and two
/// allocations.
pub const ENTRY_BYTES: usize = 128;
/// Overhead of a text.
const TEXT_BYTES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptKind {
    /// With its plan.
    StatefulSet,
    /// With its entries.
    ConfigMap,
    Pod,
    /// `PodDisruptionBudget`.
    Budget,
    Service,
    /// A pod that runs `thanos query`.
    Querier,
}

/// Why an object is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// By itself.
    TooLarge,
    /// Its namespace is at its limit.
    TooMany,
}

/// The refused objects of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverBudget {
    pub namespace: String,
    /// At most [`MAX_REFUSED`].
    pub count: usize,
    /// Which objects, why, and what to do.
    pub sentence: String,
    /// A refused StatefulSet.
    pub statefulset: Option<String>,
}

#[derive(Debug, Default)]
struct NamespaceAccount {
    bytes: usize,
    refused: BTreeMap<(KeptKind, String), Why>,
    /// The reasons that were logged.
    logged: BTreeSet<Why>,
}

/// The memory that each namespace takes.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    namespaces: BTreeMap<String, NamespaceAccount>,
    bytes: usize,
}

impl MemoryLedger {
    /// Accounts for a new version of an object: `after` bytes instead of `before`.
    ///
    /// # Errors
    /// If the object is refused; true if its namespace had no refusal for this reason before, so
    /// that the caller logs it once.
    pub fn admit(
        &mut self,
        namespace: &str,
        (kind, name): (KeptKind, &str),
        before: usize,
        after: usize,
    ) -> Result<(), bool> {
        let share = RESERVED_BYTES / (self.namespaces.len() + 1).max(MIN_SHARES);
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

    /// Records a refused object. Returns whether its namespace had no refusal for this reason before.
    pub fn refuse(&mut self, namespace: &str, (kind, name): (KeptKind, &str), why: Why) -> bool {
        let account = self.account(namespace);
        if account.refused.len() < MAX_REFUSED {
            account.refused.insert((kind, name.to_owned()), why);
        }
        account.logged.insert(why)
    }

    /// Records that an object is deleted, or was never kept.
    pub fn release(&mut self, namespace: &str, (kind, name): (KeptKind, &str), bytes: usize) {
        let Some(account) = self.namespaces.get_mut(namespace) else {
            return;
        };
        account.refused.remove(&(kind, name.to_owned()));
        if account.refused.is_empty() {
            account.logged.clear();
        }
        account.bytes = account.bytes.saturating_sub(bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        if account.bytes == 0 && account.refused.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    /// Drops all objects of these kinds, which took this many bytes.
    pub fn forget(&mut self, namespace: &str, kinds: &[KeptKind], bytes: usize) {
        if let Some(account) = self.namespaces.get_mut(namespace) {
            account.refused.retain(|(kind, _), _| !kinds.contains(kind));
        }
        // No object has an empty name.
        self.release(namespace, (KeptKind::Pod, ""), bytes);
    }

    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the namespaces with refused objects.
    #[must_use]
    pub fn refused(&self) -> Vec<OverBudget> {
        let some = self
            .namespaces
            .iter()
            .filter(|(_, account)| !account.refused.is_empty());
        some.map(|(namespace, account)| account.report(namespace))
            .collect()
    }

    fn account(&mut self, namespace: &str) -> &mut NamespaceAccount {
        // Looked up first: the name is allocated once for a namespace.
        if !self.namespaces.contains_key(namespace) {
            self.namespaces
                .insert(namespace.to_owned(), NamespaceAccount::default());
        }
        self.namespaces.entry(namespace.to_owned()).or_default()
    }
}

impl NamespaceAccount {
    fn report(&self, namespace: &str) -> OverBudget {
        let mut parts = Vec::new();
        for why in [Why::TooMany, Why::TooLarge] {
            let names: Vec<String> = self
                .refused
                .iter()
                .filter(|(_, of)| **of == why)
                .map(|((kind, name), _)| format!("{kind} {}", short_line(name, MAX_NAME_CHARS)))
                .collect();
            if !names.is_empty() {
                parts.push(format!("{} ({why})", listed(&names, MAX_NAMED)));
            }
        }
        let statefulset = self
            .refused
            .keys()
            .find(|(kind, _)| *kind == KeptKind::StatefulSet)
            .map(|(_, name)| name.clone());
        let sentence = format!(
            "namespace {namespace}: not taken in: {}; their pods get windows by the configuration's defaults or the last known state; delete or shrink objects that are not needed, each is read again when it changes",
            parts.join("; ")
        );
        OverBudget {
            namespace: namespace.to_owned(),
            count: self.refused.len(),
            sentence,
            statefulset,
        }
    }
}

impl std::fmt::Display for KeptKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StatefulSet => "StatefulSet",
            Self::ConfigMap => "ConfigMap",
            Self::Pod => "pod",
            Self::Budget => "PodDisruptionBudget",
            Self::Service => "Service",
            Self::Querier => "querier",
        })
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge => f.write_str("larger than a server reads: labels, timeshard's annotations, selectors, commands and data count"),
            Self::TooMany => write!(f, "a namespace may take {} MiB of a server's memory", MAX_NAMESPACE_BYTES / 1024 / 1024),
        }
    }
}

/// Estimates the memory of texts.
#[must_use]
pub fn bytes_of<'a>(texts: impl IntoIterator<Item = &'a String>) -> usize {
    texts.into_iter().map(|text| text.len() + TEXT_BYTES).sum()
}

/// Estimates the memory of labels, annotations or data.
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
    fn a_namespace_beyond_its_share_affects_only_itself() {
        let mut ledger = MemoryLedger::default();
        let taken = (0..100)
            .filter(|n| {
                ledger
                    .admit("loud", (KeptKind::ConfigMap, &format!("map-{n}")), 0, MIB)
                    .is_ok()
            })
            .count();
        assert_eq!(taken, MAX_NAMESPACE_BYTES / MIB);
        // A tenant of many namespaces.
        for namespace in 0..20 {
            for n in 0..20 {
                let _ = ledger.admit(
                    &format!("loud-{namespace}"),
                    (KeptKind::Pod, &n.to_string()),
                    0,
                    MIB,
                );
            }
        }
        assert!(ledger.bytes() <= MAX_BYTES);
        assert_eq!(
            ledger.admit("quiet", (KeptKind::StatefulSet, "store"), 0, MIB / 4),
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
    fn a_refused_version_keeps_the_old_one_and_memory_is_released() {
        let mut ledger = MemoryLedger::default();
        ledger
            .admit("ns", (KeptKind::StatefulSet, "a"), 0, 18 * MIB)
            .unwrap();
        assert_eq!(
            ledger.admit("ns", (KeptKind::StatefulSet, "b"), 0, 5 * MIB),
            Err(true),
            "the first is logged"
        );
        assert_eq!(
            ledger.admit("ns", (KeptKind::StatefulSet, "c"), 0, 5 * MIB),
            Err(false)
        );
        assert_eq!(
            ledger.admit("ns", (KeptKind::StatefulSet, "a"), 18 * MIB, 18 * MIB),
            Ok(())
        );
        assert_eq!(ledger.refused()[0].statefulset.as_deref(), Some("b"));
        ledger.release("ns", (KeptKind::StatefulSet, "a"), 18 * MIB);
        assert_eq!(
            ledger.admit("ns", (KeptKind::StatefulSet, "b"), 0, 5 * MIB),
            Ok(())
        );
        assert_eq!(ledger.refused()[0].count, 1);
        ledger.release("ns", (KeptKind::StatefulSet, "c"), 0);
        ledger.release("ns", (KeptKind::StatefulSet, "b"), 5 * MIB);
        assert!(ledger.refused().is_empty() && ledger.bytes() == 0 && ledger.namespaces.is_empty());
    }

    proptest! {
        #[test]
        fn the_bound_holds_whatever_comes(moves in prop::collection::vec((0_u8..12, 0_usize..8, 0_usize..(3 * MIB)), 0..400)) {
            let mut ledger = MemoryLedger::default();
            let mut kept = BTreeMap::<(u8, usize), usize>::new();
            for (namespace, object, bytes) in moves {
                let before = kept.get(&(namespace, object)).copied().unwrap_or(0);
                if ledger.admit(&namespace.to_string(), (KeptKind::Pod, &object.to_string()), before, bytes).is_ok() {
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
