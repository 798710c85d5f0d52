//! The StatefulSets and published windows of the labelled namespaces: one immutable value, replaced
//! as a whole.
//!
//! Admission reads it without a lock and without a call to the API server. An invalid edit keeps the
//! last good sharding. Deliberately absent: the watches that feed it.

mod all_at_once;
pub mod container;
mod gateway;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub use self::all_at_once::{AllAtOnce, all_at_once};
pub use self::gateway::Gateway;
use crate::core::kube::statefulset::StatefulSetFacts;
use chrono::{DateTime, Utc};

use crate::core::config::Config;
use crate::core::kube::observed::MapFacts;
use crate::core::model::entry::{Entry, EntryError};
use crate::core::model::names;

/// Pods that do not exist yet and are planned for anyway, so that their windows are published
/// before they start. The number of existing pods is also rounded up to a multiple of this:
/// otherwise each pod of a scale-up would cost a write.
pub const MARGIN: u32 = 64;

/// The most pods that are planned for before they exist.
pub const ABSENT_PODS: u32 = 2 * MARGIN;

/// The entries of one ConfigMap, by pod.
pub type Entries = HashMap<String, Entry>;

/// A ConfigMap managed by timeshard. Each entry is parsed once; its text stays in `facts`, because
/// the entries of pods that are leaving are copied verbatim.
#[derive(Clone, Debug, Default)]
pub struct Published {
    pub facts: MapFacts,
    /// The entries that are valid.
    pub entries: Entries,
}

impl Published {
    #[must_use]
    pub fn new(facts: MapFacts, now: DateTime<Utc>) -> Self {
        let entries = parse_entries(&facts.data, now, |_, _| {});
        Self { facts, entries }
    }
}

/// Parses the data of a ConfigMap managed by timeshard. `unreadable` gets the key of each entry that
/// cannot be parsed, with the error; other keys are skipped.
pub fn parse_entries(
    data: &BTreeMap<String, String>,
    now: DateTime<Utc>,
    mut unreadable: impl FnMut(&str, &EntryError),
) -> Entries {
    let entry = |(key, text): (&String, &String)| {
        let pod = key.strip_suffix(".yaml")?.to_owned();
        match Entry::parse(text, now) {
            Ok(entry) => Some((pod, entry)),
            Err(error) => {
                unreadable(key, &error);
                None
            }
        }
    };
    data.iter().filter_map(entry).collect()
}

type ByNamespace<T> = HashMap<String, HashMap<String, Arc<T>>>;

#[derive(Clone, Debug)]
pub struct Gateways {
    config: Arc<Config>,
    /// Stands in for StatefulSets that are not observed yet.
    default: Arc<Gateway>,
    statefulsets: ByNamespace<Gateway>,
    configmaps: ByNamespace<Published>,
}

impl Gateways {
    /// Starts with nothing observed: every pod gets the file's defaults.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            default: Arc::new(default_gateway(&config)),
            config,
            statefulsets: HashMap::new(),
            configmaps: HashMap::new(),
        }
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    #[must_use]
    pub fn shared_config(&self) -> Arc<Config> {
        self.config.clone()
    }

    /// Returns a StatefulSet, or the file's defaults if it is not observed yet.
    #[must_use]
    pub fn known(&self, namespace: &str, statefulset: &str) -> &Gateway {
        self.statefulsets
            .get(namespace)
            .and_then(|by_name| by_name.get(statefulset))
            .unwrap_or(&self.default)
    }

    #[must_use]
    pub fn get(&self, namespace: &str, statefulset: &str) -> Option<&Gateway> {
        self.statefulsets
            .get(namespace)?
            .get(statefulset)
            .map(AsRef::as_ref)
    }

    pub fn statefulsets_of(&self, namespace: &str) -> impl Iterator<Item = &Gateway> {
        self.statefulsets
            .get(namespace)
            .into_iter()
            .flat_map(|by_name| by_name.values().map(AsRef::as_ref))
    }

    pub fn configmaps_of(&self, namespace: &str) -> impl Iterator<Item = &Published> {
        self.configmaps
            .get(namespace)
            .into_iter()
            .flat_map(|by_name| by_name.values().map(AsRef::as_ref))
    }

    /// Returns the published entry of a pod.
    #[must_use]
    pub fn published(&self, namespace: &str, statefulset: &str, pod: &str) -> Option<&Entry> {
        // Most requests are for namespaces without such a ConfigMap; skip building its name.
        let by_name = self
            .configmaps
            .get(namespace)
            .filter(|by_name| !by_name.is_empty())?;
        by_name
            .get(&self.config.operator.configmap_of(namespace, statefulset))?
            .entries
            .get(pod)
    }

    /// Returns the published entries of a StatefulSet, once its ConfigMap is observed.
    #[must_use]
    pub fn entries(&self, namespace: &str, statefulset: &str) -> Option<&Entries> {
        self.configmap(
            namespace,
            &self.config.operator.configmap_of(namespace, statefulset),
        )
        .map(|map| &map.entries)
    }

    #[must_use]
    pub fn configmap(&self, namespace: &str, name: &str) -> Option<&Arc<Published>> {
        self.configmaps.get(namespace)?.get(name)
    }

    /// Whether an observed StatefulSet has its windows in the ConfigMap of this name.
    #[must_use]
    pub fn reads_configmap(&self, namespace: &str, name: &str) -> bool {
        let operator = &self.config.operator;
        let sets = [
            Some(operator.statefulset_name.as_str()),
            name.strip_suffix(names::CONFIGMAP_SUFFIX),
        ];
        let known = |set: &&str| self.get(namespace, set).is_some();
        sets.into_iter()
            .flatten()
            .filter(known)
            .any(|set| operator.configmap_of(namespace, set) == name)
    }

    pub fn statefulsets(&self) -> impl Iterator<Item = &Gateway> {
        self.statefulsets
            .values()
            .flat_map(|by_name| by_name.values().map(AsRef::as_ref))
    }

    /// Returns namespace and name of every StatefulSet whose facts, plan or published entries differ
    /// from `before`, including deleted ones.
    #[must_use]
    pub fn changed_since(&self, before: &Self) -> Vec<(String, String)> {
        let mut changed: BTreeSet<(String, String)> =
            differ(&self.statefulsets, &before.statefulsets).collect();
        for (namespace, map) in differ(&self.configmaps, &before.configmaps) {
            let reads = |known: &&Gateway| {
                self.config
                    .operator
                    .configmap_of(&namespace, &known.facts.name)
                    == map
            };
            changed.extend(
                self.statefulsets_of(&namespace)
                    .filter(reads)
                    .map(|known| (namespace.clone(), known.facts.name.clone())),
            );
        }
        changed.into_iter().collect()
    }

    /// Replaces the configuration. Annotations that do not fit it keep their last good meaning.
    #[must_use]
    pub fn with_config(&self, config: Arc<Config>) -> Self {
        let mut next = Self {
            default: Arc::new(default_gateway(&config)),
            config,
            ..self.clone()
        };
        for known in next.statefulsets.values_mut().flat_map(HashMap::values_mut) {
            *known = Arc::new(Gateway::new(&next.config, known.facts.clone(), Some(known)));
        }
        next
    }

    /// Adds or replaces a StatefulSet; `None` if nothing changes.
    #[must_use]
    pub fn with_statefulset(&self, facts: StatefulSetFacts) -> Option<Self> {
        let before = self
            .statefulsets
            .get(&facts.namespace)
            .and_then(|by_name| by_name.get(&facts.name));
        if before.is_some_and(|known| known.facts == facts) {
            return None;
        }
        let (namespace, name) = (facts.namespace.clone(), facts.name.clone());
        let known = Arc::new(match before {
            // The status changes with every pod; that needs no new plan.
            Some(known) if known.facts.plans_like(&facts) => Gateway {
                facts,
                ..Gateway::clone(known)
            },
            _ => Gateway::new(&self.config, facts, before.map(AsRef::as_ref)),
        });
        let mut next = self.clone();
        next.statefulsets
            .entry(namespace)
            .or_default()
            .insert(name, known);
        Some(next)
    }

    #[must_use]
    pub fn without_statefulset(&self, namespace: &str, name: &str) -> Self {
        let mut next = self.clone();
        next.statefulsets
            .get_mut(namespace)
            .and_then(|by_name| by_name.remove(name));
        next
    }

    /// Adds or replaces the entries of a ConfigMap.
    #[must_use]
    pub fn with_configmap(&self, namespace: &str, name: &str, entries: Entries) -> Self {
        self.with_published(
            namespace,
            Published {
                facts: MapFacts {
                    name: name.to_owned(),
                    ..MapFacts::default()
                },
                entries,
            },
        )
    }

    #[must_use]
    pub fn with_published(&self, namespace: &str, published: Published) -> Self {
        let mut next = self.clone();
        next.configmaps
            .entry(namespace.to_owned())
            .or_default()
            .insert(published.facts.name.clone(), Arc::new(published));
        next
    }

    #[must_use]
    pub fn without_configmap(&self, namespace: &str, name: &str) -> Self {
        let mut next = self.clone();
        next.configmaps
            .get_mut(namespace)
            .and_then(|by_name| by_name.remove(name));
        next
    }

    /// Removes everything of a namespace that is no longer labelled.
    #[must_use]
    pub fn without_namespace(&self, namespace: &str) -> Self {
        let mut next = self.clone();
        next.statefulsets.remove(namespace);
        next.configmaps.remove(namespace);
        next
    }
}

/// Returns namespace and name of the values that are not identical in both.
fn differ<'a, T>(
    one: &'a ByNamespace<T>,
    other: &'a ByNamespace<T>,
) -> impl Iterator<Item = (String, String)> + 'a {
    fn not_in<'a, T>(
        one: &'a ByNamespace<T>,
        other: &'a ByNamespace<T>,
    ) -> impl Iterator<Item = (String, String)> + 'a {
        one.iter().flat_map(move |(namespace, by_name)| {
            let others = other.get(namespace);
            let same = move |name: &String, value| {
                others
                    .and_then(|o| o.get(name))
                    .is_some_and(|there| Arc::ptr_eq(there, value))
            };
            by_name
                .iter()
                .filter(move |(name, value)| !same(name, value))
                .map(move |(name, _)| (namespace.clone(), name.clone()))
        })
    }
    not_in(one, other).chain(not_in(other, one))
}

fn default_gateway(config: &Config) -> Gateway {
    Gateway::new(config, StatefulSetFacts::default(), None)
}

#[cfg(test)]
mod tests;
