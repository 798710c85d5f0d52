//! What a server knows of the labelled namespaces: one immutable value, replaced as a whole.
//!
//! Admission reads it without a lock and without a call to the API server. The watches that feed it are elsewhere; here
//! is only how an observed object becomes a plan, and that a bad edit keeps the last good one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::config::{Config, Sharding, unknown_annotations};
use super::entry::Entry;
use super::kept;
use super::max_unavailable::{AllAtOnce, MaxUnavailable, all_at_once};
use super::names;
use super::observed::{MapFacts, REPORT_BYTES, Selector};
use super::plan::Plan;
use super::printable::cut;
use super::reconcile::ABSENT_PODS;
use super::sidecar_spec::RenderedSidecar;

/// What is observed of a StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatefulSetFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.replicas`, Kubernetes' default 1 filled in.
    pub replicas: u32,
    /// `spec.ordinals.start`.
    pub ordinals_start: u32,
    /// Annotations of ours on its own metadata.
    pub annotations: BTreeMap<String, String>,
    /// Its UID: a recreated StatefulSet has another one.
    pub uid: String,
    /// `spec.selector`: which pods are its own.
    pub selector: Selector,
    /// Whether its controller has seen it as it is now.
    pub generation_observed: bool,
    /// The revision that new pods are made from.
    pub update_revision: String,
    /// Whether its pods may run `thanos store`, as far as the registration's words tell.
    pub store: bool,
    /// The port of its thanos' `--grpc-address`; `None` where that says none, and for Thanos' default.
    pub grpc_port: Option<u16>,
    /// Pods with a lower ordinal keep their revision; `None` when pods are only replaced as someone deletes them.
    pub partition: Option<u32>,
    /// How many pods a rolling update replaces at once, where it says so; `None` when pods are only replaced as someone deletes
    /// them.
    pub max_unavailable: Option<MaxUnavailable>,
    /// `spec.minReadySeconds`: how long a pod must have been Ready before the controller replaces the next one.
    pub min_ready_seconds: u32,
}

/// What admission needs of a StatefulSet.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its own sharding: the file's, overridden by its annotations.
    pub sharding: Sharding,
    /// The plan for its pods.
    pub plan: Plan,
    /// `spec.ordinals.start`.
    pub ordinals_start: u32,
    /// Whether it lets us replace time flags.
    pub replace_time_flags: bool,
    /// Whether it wants in-place reloads although a liveness probe may kill a long load.
    pub reload_despite_liveness: bool,
    /// What is wrong with its annotations; the sharding is then the last good one.
    pub problem: Option<String>,
    /// Whether annotations were refused that no good ones went before, as after a restart: which split is in force is then
    /// told by what is published alone, and the sharding here is only the file's.
    pub split_unknown: bool,
    /// The sidecar of its pods, written once.
    pub rendered: RenderedSidecar,
    facts: StatefulSetFacts,
}

/// The entries of one ConfigMap, by pod.
pub type Entries = HashMap<String, Entry>;

/// A ConfigMap of ours as it stands, read once.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// What stands there.
    pub facts: MapFacts,
    /// What of it can be read.
    pub entries: Entries,
}

type ByNamespace<T> = HashMap<String, HashMap<String, Arc<T>>>;

/// Everything that admission knows.
#[derive(Clone, Debug)]
pub struct Fleet {
    config: Arc<Config>,
    unknown: Arc<Known>,
    statefulsets: ByNamespace<Known>,
    configmaps: ByNamespace<Published>,
}

impl StatefulSetFacts {
    /// Whether both give the same plan: they differ at most in what only a rollout looks at.
    fn plans_like(&self, other: &Self) -> bool {
        // A field that is not named here counts as one that a plan depends on.
        let rollout_only = Self {
            uid: other.uid.clone(),
            selector: other.selector.clone(),
            generation_observed: other.generation_observed,
            update_revision: other.update_revision.clone(),
            partition: other.partition,
            max_unavailable: other.max_unavailable,
            min_ready_seconds: other.min_ready_seconds,
            store: other.store,
            grpc_port: other.grpc_port,
            ..self.clone()
        };
        rollout_only == *other
    }
}

impl Known {
    /// What a StatefulSet that was observed so means; annotations that do not fit keep the meaning they had `before`.
    #[must_use]
    pub fn new(config: &Config, facts: StatefulSetFacts, before: Option<&Self>) -> Self {
        let last_good = before.filter(|known| !known.split_unknown);
        let annotations = || {
            facts
                .annotations
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
        };
        let (sharding, mut problem) = match config.sharding_for(annotations()) {
            Ok(sharding) => (sharding, None),
            Err(refusal) => {
                let last_good = last_good
                    .map_or_else(|| config.sharding.clone(), |known| known.sharding.clone());
                (last_good, Some(refusal.to_string()))
            }
        };
        let split_unknown = problem.is_some() && last_good.is_none();
        let is_true = |key: &str| {
            facts
                .annotations
                .get(key)
                .is_some_and(|value| value == "true")
        };
        let pods = match facts
            .annotations
            .get(names::TARGET_REPLICAS)
            .map(|text| text.parse::<u32>())
        {
            None => facts.replicas,
            // A target beyond what is there would plan for pods that do not exist.
            Some(Ok(target)) if target > 0 => target.min(facts.replicas),
            Some(_) => {
                // In characters.
                const LONGEST_VALUE: usize = 48;
                let key = names::TARGET_REPLICAS;
                let text = cut(
                    facts.annotations.get(key).map_or("", String::as_str),
                    LONGEST_VALUE,
                );
                let why = "write the number of pods to scale down to, at least 1";
                problem.get_or_insert_with(|| {
                    format!("annotation {key}: {text:?} is not accepted: {why}")
                });
                facts.replicas
            }
        };
        Self {
            // With 0 replicas there is nothing to plan for, yet the first pods of a scale-up may come before the new count
            // is seen: they get the windows of a full plan, never an empty one.
            plan: Plan::new(&sharding, Some(pods).filter(|pods| *pods > 0)),
            ordinals_start: facts.ordinals_start,
            replace_time_flags: is_true(names::REPLACE_TIME_FLAGS),
            reload_despite_liveness: is_true(names::RELOAD_DESPITE_LIVENESS),
            sharding,
            problem,
            split_unknown,
            rendered: RenderedSidecar::default(),
            facts,
        }
    }

    /// What its user should know: `CamelCase` reasons and sentences, most important first.
    #[must_use]
    pub fn remarks(&self) -> Vec<(&'static str, String)> {
        let notes = self
            .plan
            .notes()
            .iter()
            .map(|note| (note.reason(), note.to_string()));
        let unknown = unknown_annotations(self.facts.annotations.keys().map(String::as_str))
            .into_iter()
            .map(|said| ("UnknownAnnotation", said));
        let at_once = self
            .all_at_once()
            .map(|all| ("MaxUnavailable", all.sentence(&self.facts)));
        self.problem
            .iter()
            .map(|problem| ("InvalidAnnotation", problem.clone()))
            .chain(at_once)
            .chain(unknown)
            .chain(notes)
            .collect()
    }

    /// The replicas of a shard that a rolling update would replace together, if it would.
    #[must_use]
    pub fn all_at_once(&self) -> Option<AllAtOnce> {
        all_at_once(&self.facts, |index| self.plan.assign(index).shard)
    }

    /// What was observed.
    #[must_use]
    pub fn facts(&self) -> &StatefulSetFacts {
        &self.facts
    }

    /// What it takes in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// The sharding, the rendered sidecar, and what a leader remembers of it.
        const BASE_BYTES: usize = 8 * 1024;
        /// A shard in the plan and in what is said of it.
        const SHARD_BYTES: usize = 64;
        let facts = &self.facts;
        let texts = kept::bytes_of([
            &facts.namespace,
            &facts.name,
            &facts.uid,
            &facts.update_revision,
        ]);
        // Annotations stand there as text, and as what they mean.
        let own = texts + 2 * kept::bytes_of_map(&facts.annotations) + facts.selector.bytes();
        let absent = ABSENT_PODS.min(facts.replicas) as usize * REPORT_BYTES;
        BASE_BYTES + own + absent + SHARD_BYTES * self.plan.shards().len()
    }
}

impl Fleet {
    /// Nothing observed yet: every pod gets the file's defaults.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            unknown: Arc::new(unknown(&config)),
            config,
            statefulsets: HashMap::new(),
            configmaps: HashMap::new(),
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same, to be held.
    #[must_use]
    pub fn shared_config(&self) -> Arc<Config> {
        self.config.clone()
    }

    /// What is known of a StatefulSet; the defaults, with start 0, for one that was not observed yet.
    #[must_use]
    pub fn known(&self, namespace: &str, statefulset: &str) -> &Known {
        self.statefulsets
            .get(namespace)
            .and_then(|by_name| by_name.get(statefulset))
            .unwrap_or(&self.unknown)
    }

    /// What is known of a StatefulSet, if it was observed.
    #[must_use]
    pub fn get(&self, namespace: &str, statefulset: &str) -> Option<&Known> {
        self.statefulsets
            .get(namespace)?
            .get(statefulset)
            .map(AsRef::as_ref)
    }

    /// Every observed StatefulSet of a namespace.
    pub fn statefulsets_of(&self, namespace: &str) -> impl Iterator<Item = &Known> {
        self.statefulsets
            .get(namespace)
            .into_iter()
            .flat_map(|by_name| by_name.values().map(AsRef::as_ref))
    }

    /// Every ConfigMap of ours that is kept of a namespace.
    pub fn configmaps_of(&self, namespace: &str) -> impl Iterator<Item = &Published> {
        self.configmaps
            .get(namespace)
            .into_iter()
            .flat_map(|by_name| by_name.values().map(AsRef::as_ref))
    }

    /// The published entry of a pod.
    #[must_use]
    pub fn published(&self, namespace: &str, statefulset: &str, pod: &str) -> Option<&Entry> {
        // Most requests come for namespaces without a ConfigMap of ours: no name is made for them.
        let by_name = self
            .configmaps
            .get(namespace)
            .filter(|by_name| !by_name.is_empty())?;
        by_name
            .get(&self.config.operator.configmap_of(namespace, statefulset))?
            .entries
            .get(pod)
    }

    /// Everything that is published for a StatefulSet's pods, once its ConfigMap was seen.
    #[must_use]
    pub fn entries(&self, namespace: &str, statefulset: &str) -> Option<&Entries> {
        self.configmap(
            namespace,
            &self.config.operator.configmap_of(namespace, statefulset),
        )
        .map(|map| &map.entries)
    }

    /// A ConfigMap of ours.
    #[must_use]
    pub fn configmap(&self, namespace: &str, name: &str) -> Option<&Published> {
        self.configmaps.get(namespace)?.get(name).map(AsRef::as_ref)
    }

    /// Whether a StatefulSet that is known has its windows in a ConfigMap of this name.
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

    /// Every observed StatefulSet.
    pub fn statefulsets(&self) -> impl Iterator<Item = &Known> {
        self.statefulsets
            .values()
            .flat_map(|by_name| by_name.values().map(AsRef::as_ref))
    }

    /// Namespace and name of every StatefulSet that is not known as it was before: observed anew, planned anew, published anew, or
    /// gone.
    #[must_use]
    pub fn changed_since(&self, before: &Self) -> Vec<(String, String)> {
        let mut changed: BTreeSet<(String, String)> =
            differ(&self.statefulsets, &before.statefulsets).collect();
        for (namespace, map) in differ(&self.configmaps, &before.configmaps) {
            let reads = |known: &&Known| {
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

    /// With another configuration; annotations that do not fit it keep their last good meaning.
    #[must_use]
    pub fn with_config(&self, config: Arc<Config>) -> Self {
        let mut next = Self {
            unknown: Arc::new(unknown(&config)),
            config,
            ..self.clone()
        };
        for known in next.statefulsets.values_mut().flat_map(HashMap::values_mut) {
            *known = Arc::new(Known::new(&next.config, known.facts.clone(), Some(known)));
        }
        next
    }

    /// With a StatefulSet as observed now; `None` when that changes nothing.
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
            // Its status changes with every pod; nothing is planned or rendered anew for that.
            Some(known) if known.facts.plans_like(&facts) => Known {
                facts,
                ..Known::clone(known)
            },
            _ => Known::new(&self.config, facts, before.map(AsRef::as_ref)),
        });
        let mut next = self.clone();
        next.statefulsets
            .entry(namespace)
            .or_default()
            .insert(name, known);
        Some(next)
    }

    /// Without a StatefulSet.
    #[must_use]
    pub fn without_statefulset(&self, namespace: &str, name: &str) -> Self {
        let mut next = self.clone();
        next.statefulsets
            .get_mut(namespace)
            .and_then(|by_name| by_name.remove(name));
        next
    }

    /// With what a ConfigMap publishes, whatever else it says.
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

    /// With a ConfigMap as observed now.
    #[must_use]
    pub fn with_published(&self, namespace: &str, published: Published) -> Self {
        let mut next = self.clone();
        next.configmaps
            .entry(namespace.to_owned())
            .or_default()
            .insert(published.facts.name.clone(), Arc::new(published));
        next
    }

    /// Without a ConfigMap.
    #[must_use]
    pub fn without_configmap(&self, namespace: &str, name: &str) -> Self {
        let mut next = self.clone();
        next.configmaps
            .get_mut(namespace)
            .and_then(|by_name| by_name.remove(name));
        next
    }

    /// Without everything in a namespace: it is no longer labelled.
    #[must_use]
    pub fn without_namespace(&self, namespace: &str) -> Self {
        let mut next = self.clone();
        next.statefulsets.remove(namespace);
        next.configmaps.remove(namespace);
        next
    }
}

/// Namespace and name of what is not the same value in both.
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

fn unknown(config: &Config) -> Known {
    Known {
        plan: Plan::new(&config.sharding, None),
        sharding: config.sharding.clone(),
        ordinals_start: 0,
        replace_time_flags: false,
        reload_despite_liveness: false,
        problem: None,
        split_unknown: false,
        rendered: RenderedSidecar::default(),
        facts: StatefulSetFacts::default(),
    }
}

#[cfg(test)]
mod tests;
