//! The objects that timeshard manages for each shard of a StatefulSet: names, owners and writes.
//!
//! The label [`crate::core::model::names::MANAGED_BY_LABEL`] marks an object as managed by
//! timeshard; its owner reference ties it to a StatefulSet, since a name of up to 253 characters
//! does not fit into a label. The content of these objects is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::kube::observed::{NamespaceFacts, PodFacts, Selector};
use crate::core::model::names;

/// Longest name of most objects (RFC 1123 subdomain), in characters.
pub const SUBDOMAIN_CHARS: usize = 253;
/// Longest name of a Service (RFC 1035 label), in characters.
pub const LABEL_CHARS: usize = 63;

/// A StatefulSet, as an owner reference names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub name: String,
    pub uid: String,
}

/// One object of a shard, as it should be.
pub trait ShardObject {
    fn name(&self) -> &str;
}

/// A write of one object. `resource_version` is the version that was observed: the API server
/// refuses the write if another client wrote in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectWrite<T> {
    /// No object of that name exists.
    Create(T),
    /// An object managed by timeshard differs.
    Replace { resource_version: String, object: T },
    /// An object managed by timeshard is not needed.
    Delete {
        name: String,
        resource_version: String,
    },
}

impl<T: ShardObject> ObjectWrite<T> {
    /// Name of the object to write.
    pub fn name(&self) -> &str {
        match self {
            Self::Create(object) | Self::Replace { object, .. } => object.name(),
            Self::Delete { name, .. } => name,
        }
    }
}

/// A StatefulSet with an object for each shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardedSet {
    pub owner: Owner,
    /// `spec.selector`.
    pub selector: Selector,
    /// The shard of each expected pod, by the ConfigMap.
    pub published: BTreeMap<String, u32>,
    /// The gRPC port of its pods, if it is not Thanos' default.
    pub grpc_port: Option<u16>,
}

impl ShardedSet {
    pub fn pods<'a>(&'a self, facts: &'a NamespaceFacts) -> impl Iterator<Item = &'a PodFacts> {
        facts
            .pods
            .values()
            .filter(|pod| pod.statefulset == self.owner.name)
    }

    #[must_use]
    pub fn selector_of(&self, shard: u32) -> Selector {
        let mut selector = self.selector.clone();
        selector
            .labels
            .insert(names::SHARD_LABEL.to_owned(), shard.to_string());
        selector
    }

    /// Returns the number of pods of each shard in use. An existing pod counts for the shard of its
    /// label, an absent one for the shard of its entry.
    #[must_use]
    pub fn shards(&self, facts: &NamespaceFacts) -> BTreeMap<u32, u32> {
        let mut shards: BTreeMap<u32, u32> =
            self.published.values().map(|shard| (*shard, 0)).collect();
        let mut existing = BTreeSet::new();
        for pod in self.pods(facts) {
            if let Some(shard) = pod.shard() {
                existing.insert(&pod.name);
                *shards.entry(shard).or_default() += 1;
            }
        }
        for (_, shard) in self
            .published
            .iter()
            .filter(|(pod, _)| !existing.contains(pod))
        {
            *shards.entry(*shard).or_default() += 1;
        }
        shards
    }

    /// Whether an object managed by timeshard belongs to this StatefulSet: by its owner reference,
    /// or, if it has lost that, by its name.
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

/// Returns `<statefulset>-shard-<n>`, shortened to at most `longest` characters. Up to
/// [`LABEL_CHARS`] it also begins with a letter and has no dot. A changed name contains a hash of
/// the StatefulSet's name, so that it stays unique.
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

/// FNV-1a, 32 bits. The standard library's hashes may change between versions of the program.
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
    fn an_absent_pod_counts_for_the_shard_of_its_entry() {
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
