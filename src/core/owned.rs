//! Objects of ours that belong to a StatefulSet: whose they are, and what they are called.
//!
//! An object is ours by its label ([`super::names::MANAGED_BY_LABEL`]) and one StatefulSet's by its owner reference: a name
//! of up to 253 characters fits into no label. What such an object should say is not decided here.

use std::collections::{BTreeMap, BTreeSet};

use super::names;
use super::observed::{NamespaceFacts, PodFacts, Selector};

/// Longest name of most objects (RFC 1123 subdomain), in characters.
pub const SUBDOMAIN_CHARS: usize = 253;
/// Longest name of a Service (RFC 1035 label), in characters.
pub const LABEL_CHARS: usize = 63;

/// A StatefulSet, as an owner reference names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// A StatefulSet with an object for each shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardedSet {
    /// Whose the objects are.
    pub owner: Owner,
    /// `spec.selector`.
    pub selector: Selector,
    /// The shard that the ConfigMap gives each pod that there should be.
    pub published: BTreeMap<String, u32>,
    /// The port of its pods' gRPC, if it is not Thanos' default.
    pub grpc_port: Option<u16>,
}

impl ShardedSet {
    /// The pods that it owns.
    pub fn pods<'a>(&'a self, facts: &'a NamespaceFacts) -> impl Iterator<Item = &'a PodFacts> {
        facts
            .pods
            .values()
            .filter(|pod| pod.statefulset == self.owner.name)
    }

    /// The selector of one shard's pods.
    #[must_use]
    pub fn selector_of(&self, shard: u32) -> Selector {
        let mut selector = self.selector.clone();
        selector
            .labels
            .insert(names::SHARD_LABEL.to_owned(), shard.to_string());
        selector
    }

    /// Shards in use and how many pods each has or will have: a pod that exists counts where its label puts it, one that is
    /// missing where its entry will.
    #[must_use]
    pub fn shards(&self, facts: &NamespaceFacts) -> BTreeMap<u32, u32> {
        let mut shards: BTreeMap<u32, u32> =
            self.published.values().map(|shard| (*shard, 0)).collect();
        let mut there = BTreeSet::new();
        for pod in self.pods(facts) {
            if let Some(shard) = pod.shard() {
                there.insert(&pod.name);
                *shards.entry(shard).or_default() += 1;
            }
        }
        for (_, shard) in self
            .published
            .iter()
            .filter(|(pod, _)| !there.contains(pod))
        {
            *shards.entry(*shard).or_default() += 1;
        }
        shards
    }

    /// Whether an object of ours belongs to this StatefulSet: by its owner, or, where it has lost that, by its name.
    #[must_use]
    pub fn owns(&self, owner_uid: Option<&str>, name: &str, longest: usize) -> bool {
        match owner_uid {
            Some(uid) => uid == self.owner.uid,
            None => name
                .rsplit_once("-shard-")
                .and_then(|(_, shard)| shard.parse().ok())
                .is_some_and(|shard| shard_name(&self.owner.name, shard, longest) == name),
        }
    }
}

/// `<statefulset>-shard-<n>`, as a name that is at most `longest` characters long and, up to [`LABEL_CHARS`], also begins
/// with a letter and has no dot. Where that takes a change, a hash of the StatefulSet's name keeps two of them apart.
#[must_use]
pub fn shard_name(statefulset: &str, shard: u32, longest: usize) -> String {
    let suffix = format!("-shard-{shard}");
    let is_label = longest <= LABEL_CHARS;
    let fits = statefulset.len() + suffix.len() <= longest;
    let reads = !is_label
        || (statefulset.starts_with(|c: char| c.is_ascii_lowercase())
            && !statefulset.contains('.'));
    if fits && reads {
        return format!("{statefulset}{suffix}");
    }
    let hash = format!("-{:08x}", fnv1a(statefulset));
    let lead = if reads || statefulset.starts_with(|c: char| c.is_ascii_lowercase()) {
        ""
    } else {
        "s"
    };
    let room = longest.saturating_sub(suffix.len() + hash.len() + lead.len());
    let readable: String = statefulset
        .chars()
        .take(room)
        .map(|c| if is_label && c == '.' { '-' } else { c })
        .collect();
    format!(
        "{lead}{}{hash}{suffix}",
        readable.trim_end_matches(['-', '.'])
    )
}

/// FNV-1a, 32 bits: the same in every version of the program, which the standard library's hashes do not promise.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_readable_where_it_fits() {
        assert_eq!(
            shard_name("thanos-store", 12, SUBDOMAIN_CHARS),
            "thanos-store-shard-12"
        );
        assert_eq!(
            shard_name("thanos-store", 12, LABEL_CHARS),
            "thanos-store-shard-12"
        );
        assert_eq!(
            shard_name("store.eu", 0, SUBDOMAIN_CHARS),
            "store.eu-shard-0"
        );
    }

    #[test]
    fn a_name_that_does_not_fit_is_shortened_to_one_that_kubernetes_takes() {
        for set in [
            "a".repeat(253),
            "7-stores".to_owned(),
            "store.eu".to_owned(),
            format!("{}.b", "a".repeat(50)),
            "9".repeat(63),
        ] {
            for (longest, shard) in [
                (LABEL_CHARS, 0),
                (LABEL_CHARS, u32::MAX),
                (SUBDOMAIN_CHARS, 10_000),
            ] {
                let name = shard_name(&set, shard, longest);
                assert!(name.len() <= longest, "{name}");
                assert_eq!(name, shard_name(&set, shard, longest));
                if longest == LABEL_CHARS {
                    assert!(
                        name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.contains('.'),
                        "{name}"
                    );
                }
                let other = shard_name(&format!("{set}b"), shard, longest);
                assert_ne!(name, other);
                let set = ShardedSet {
                    owner: Owner {
                        name: set.clone(),
                        uid: "u".to_owned(),
                    },
                    ..ShardedSet::default()
                };
                assert!(set.owns(None, &name, longest) && !set.owns(None, &other, longest));
            }
        }
    }

    #[test]
    fn an_object_belongs_to_its_owner_or_by_its_name() {
        let set = ShardedSet {
            owner: Owner {
                name: "store".to_owned(),
                uid: "u1".to_owned(),
            },
            ..ShardedSet::default()
        };
        for (owner, name, owns) in [
            (Some("u1"), "anything", true),
            (Some("u0"), "store-shard-1", false),
            (None, "store-shard-1", true),
            (None, "store-shard-01", false),
            (None, "store-shard-", false),
            (None, "other-shard-1", false),
        ] {
            assert_eq!(set.owns(owner, name, LABEL_CHARS), owns, "{owner:?} {name}");
        }
    }

    #[test]
    fn a_missing_pod_counts_where_it_will_come_back() {
        let pod = |name: &str, label: Option<&str>| PodFacts {
            name: name.to_owned(),
            statefulset: "store".to_owned(),
            shard_label: label.map(str::to_owned),
            ..PodFacts::default()
        };
        let mut facts = NamespaceFacts::default();
        for pod in [
            pod("store-0", Some("0")),
            pod("store-1", Some("2")),
            pod("store-5", None),
        ] {
            facts.pods.insert(pod.name.clone(), pod);
        }
        let published = [
            ("store-0", 0),
            ("store-1", 1),
            ("store-2", 1),
            ("store-3", 3),
        ];
        let set = ShardedSet {
            owner: Owner {
                name: "store".to_owned(),
                uid: "u".to_owned(),
            },
            published: published.map(|(pod, shard)| (pod.to_owned(), shard)).into(),
            ..ShardedSet::default()
        };
        assert_eq!(
            set.shards(&facts),
            BTreeMap::from([(0, 1), (1, 1), (2, 1), (3, 1)])
        );
    }
}
