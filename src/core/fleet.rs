//! What a server knows of the labelled namespaces: one immutable value, replaced as a whole.
//!
//! Admission reads it without a lock and without a call to the API server. The watches that feed it are elsewhere; here
//! is only how an observed object becomes a plan, and that a bad edit keeps the last good one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::config::{Config, Sharding, unknown_annotations};
use super::entry::Entry;
use super::max_unavailable::{AllAtOnce, MaxUnavailable, all_at_once};
use super::names;
use super::observed::Selector;
use super::plan::Plan;
use super::printable::cut;
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

type ByNamespace<T> = HashMap<String, HashMap<String, Arc<T>>>;

/// Everything that admission knows.
#[derive(Clone, Debug)]
pub struct Fleet {
    config: Arc<Config>,
    unknown: Arc<Known>,
    statefulsets: ByNamespace<Known>,
    configmaps: ByNamespace<Entries>,
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
        let annotations = || facts.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let (sharding, mut problem) = match config.sharding_for(annotations()) {
            Ok(sharding) => (sharding, None),
            Err(refusal) => {
                let last_good = last_good.map_or_else(|| config.sharding.clone(), |known| known.sharding.clone());
                (last_good, Some(refusal.to_string()))
            }
        };
        let split_unknown = problem.is_some() && last_good.is_none();
        let is_true = |key: &str| facts.annotations.get(key).is_some_and(|value| value == "true");
        let pods = match facts.annotations.get(names::TARGET_REPLICAS).map(|text| text.parse::<u32>()) {
            None => facts.replicas,
            // A target beyond what is there would plan for pods that do not exist.
            Some(Ok(target)) if target > 0 => target.min(facts.replicas),
            Some(_) => {
                // In characters.
                const LONGEST_VALUE: usize = 48;
                let text = cut(facts.annotations.get(names::TARGET_REPLICAS).map_or("", String::as_str), LONGEST_VALUE);
                problem.get_or_insert_with(|| {
                    format!(
                        "annotation {}: {text:?} is not accepted: write the number of pods to scale down to, at least 1",
                        names::TARGET_REPLICAS
                    )
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
        let notes = self.plan.notes().iter().map(|note| (note.reason(), note.to_string()));
        let unknown =
            unknown_annotations(self.facts.annotations.keys().map(String::as_str)).into_iter().map(|said| ("UnknownAnnotation", said));
        let at_once = self.all_at_once().map(|all| ("MaxUnavailable", all.sentence(&self.facts)));
        self.problem.iter().map(|problem| ("InvalidAnnotation", problem.clone())).chain(at_once).chain(unknown).chain(notes).collect()
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
}

impl Fleet {
    /// Nothing observed yet: every pod gets the file's defaults.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { unknown: Arc::new(unknown(&config)), config, statefulsets: HashMap::new(), configmaps: HashMap::new() }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is known of a StatefulSet; the defaults, with start 0, for one that was not observed yet.
    #[must_use]
    pub fn known(&self, namespace: &str, statefulset: &str) -> &Known {
        self.statefulsets.get(namespace).and_then(|by_name| by_name.get(statefulset)).unwrap_or(&self.unknown)
    }

    /// The published entry of a pod.
    #[must_use]
    pub fn published(&self, namespace: &str, statefulset: &str, pod: &str) -> Option<&Entry> {
        // Most requests come for namespaces without a ConfigMap of ours: no name is made for them.
        let by_name = self.configmaps.get(namespace).filter(|by_name| !by_name.is_empty())?;
        by_name.get(&self.config.operator.configmap_of(namespace, statefulset))?.get(pod)
    }

    /// Everything that is published for a StatefulSet's pods, once its ConfigMap was seen.
    #[must_use]
    pub fn entries(&self, namespace: &str, statefulset: &str) -> Option<&Entries> {
        self.configmaps.get(namespace)?.get(&self.config.operator.configmap_of(namespace, statefulset)).map(AsRef::as_ref)
    }

    /// Every observed StatefulSet.
    pub fn statefulsets(&self) -> impl Iterator<Item = &Known> {
        self.statefulsets.values().flat_map(|by_name| by_name.values().map(AsRef::as_ref))
    }

    /// Namespace and name of every StatefulSet that is not known as it was before: observed anew, planned anew, or gone.
    #[must_use]
    pub fn changed_since(&self, before: &Self) -> Vec<(String, String)> {
        fn not_in<'a>(one: &'a Fleet, other: &'a Fleet) -> impl Iterator<Item = (String, String)> + 'a {
            one.statefulsets.iter().flat_map(move |(namespace, by_name)| {
                let others = other.statefulsets.get(namespace);
                let same = move |name, known| others.and_then(|o| o.get(name)).is_some_and(|there| Arc::ptr_eq(there, known));
                let changed = by_name.iter().filter(move |(name, known)| !same(name.as_str(), known));
                changed.map(move |(name, _)| (namespace.clone(), name.clone()))
            })
        }
        let changed: BTreeSet<_> = not_in(self, before).chain(not_in(before, self)).collect();
        changed.into_iter().collect()
    }

    /// With another configuration; annotations that do not fit it keep their last good meaning.
    #[must_use]
    pub fn with_config(&self, config: Arc<Config>) -> Self {
        let mut next = Self { unknown: Arc::new(unknown(&config)), config, ..self.clone() };
        for known in next.statefulsets.values_mut().flat_map(HashMap::values_mut) {
            *known = Arc::new(Known::new(&next.config, known.facts.clone(), Some(known)));
        }
        next
    }

    /// With a StatefulSet as observed now; `None` when that changes nothing.
    #[must_use]
    pub fn with_statefulset(&self, facts: StatefulSetFacts) -> Option<Self> {
        let before = self.statefulsets.get(&facts.namespace).and_then(|by_name| by_name.get(&facts.name));
        if before.is_some_and(|known| known.facts == facts) {
            return None;
        }
        let (namespace, name) = (facts.namespace.clone(), facts.name.clone());
        let known = Arc::new(match before {
            // Its status changes with every pod; nothing is planned or rendered anew for that.
            Some(known) if known.facts.plans_like(&facts) => Known { facts, ..Known::clone(known) },
            _ => Known::new(&self.config, facts, before.map(AsRef::as_ref)),
        });
        let mut next = self.clone();
        next.statefulsets.entry(namespace).or_default().insert(name, known);
        Some(next)
    }

    /// Without a StatefulSet.
    #[must_use]
    pub fn without_statefulset(&self, namespace: &str, name: &str) -> Self {
        let mut next = self.clone();
        next.statefulsets.get_mut(namespace).and_then(|by_name| by_name.remove(name));
        next
    }

    /// With a ConfigMap as observed now.
    #[must_use]
    pub fn with_configmap(&self, namespace: &str, name: &str, entries: Entries) -> Self {
        let mut next = self.clone();
        next.configmaps.entry(namespace.to_owned()).or_default().insert(name.to_owned(), Arc::new(entries));
        next
    }

    /// Without a ConfigMap.
    #[must_use]
    pub fn without_configmap(&self, namespace: &str, name: &str) -> Self {
        let mut next = self.clone();
        next.configmaps.get_mut(namespace).and_then(|by_name| by_name.remove(name));
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
mod tests {
    use super::*;

    fn facts(replicas: u32, annotations: &[(&str, &str)]) -> StatefulSetFacts {
        let annotations = annotations.iter().map(|(key, value)| (format!("thanos-timeshard.io/{key}"), (*value).to_owned())).collect();
        StatefulSetFacts { namespace: "ns".to_owned(), name: "store".to_owned(), replicas, annotations, ..StatefulSetFacts::default() }
    }

    fn fleet() -> Fleet {
        Fleet::new(Arc::new(Config::default()))
    }

    #[test]
    fn an_unknown_statefulset_has_the_defaults() {
        let known = fleet();
        let known = known.known("ns", "store");
        assert_eq!((known.plan.shards().len(), known.ordinals_start), (3, 0));
    }

    #[test]
    fn a_bad_annotation_keeps_the_last_good_sharding() {
        let good = fleet().with_statefulset(facts(8, &[("total-shards", "4")])).unwrap();
        let bad = good.with_statefulset(facts(8, &[("total-shards", "many")])).unwrap();
        let known = bad.known("ns", "store");
        assert_eq!(known.sharding.total_shards(), Some(4));
        assert!(known.problem.as_ref().unwrap().contains("\"many\""), "{:?}", known.problem);
        let healed = bad.with_statefulset(facts(8, &[("total-shards", "2")])).unwrap();
        assert_eq!((healed.known("ns", "store").sharding.total_shards(), &healed.known("ns", "store").problem), (Some(2), &None));
    }

    #[test]
    fn after_a_restart_the_last_good_sharding_of_a_bad_annotation_is_not_known() {
        let fleet = fleet().with_statefulset(facts(8, &[("total-shards", "many")])).unwrap();
        let again = fleet.with_config(Arc::new(Config::default())).with_statefulset(facts(9, &[("total-shards", "many")])).unwrap();
        assert!(fleet.known("ns", "store").split_unknown && again.known("ns", "store").split_unknown);
        let good = again.with_statefulset(facts(9, &[("total-shards", "4")])).unwrap();
        let bad = good.with_statefulset(facts(9, &[("total-shards", "many")])).unwrap();
        assert!(!good.known("ns", "store").split_unknown && !bad.known("ns", "store").split_unknown);
    }

    #[test]
    fn a_misspelled_annotation_is_told() {
        let fleet = fleet().with_statefulset(facts(6, &[("total-shard", "4"), ("pause", "true")])).unwrap();
        let told = fleet.known("ns", "store").remarks();
        assert!(
            matches!(&told[..], [("UnknownAnnotation", said)] if said.ends_with("did you mean thanos-timeshard.io/total-shards?")),
            "{told:?}"
        );
    }

    #[test]
    fn a_rolling_update_that_takes_a_whole_shard_is_told() {
        let fleet = fleet().with_statefulset(facts(6, &[])).unwrap();
        assert_eq!(fleet.known("ns", "store").remarks(), []);
        let two = StatefulSetFacts { max_unavailable: Some(MaxUnavailable::Pods(2)), ..facts(6, &[]) };
        let told = fleet.with_statefulset(two).unwrap().known("ns", "store").remarks();
        assert!(matches!(&told[..], [("MaxUnavailable", said)] if said.contains("(store-0, store-1)")), "{told:?}");
    }

    #[test]
    fn what_did_not_change_changes_nothing() {
        let fleet = fleet().with_statefulset(facts(6, &[])).unwrap();
        assert!(fleet.with_statefulset(facts(6, &[])).is_none());
    }

    #[test]
    fn a_status_that_changes_costs_no_plan_and_is_seen() {
        let before = fleet().with_statefulset(facts(6, &[("total-shards", "many")])).unwrap();
        let status = StatefulSetFacts { update_revision: "store-2".to_owned(), ..facts(6, &[("total-shards", "many")]) };
        let after = before.with_statefulset(status.clone()).unwrap();
        let known = after.known("ns", "store");
        assert_eq!((known.facts(), &known.plan), (&status, &before.known("ns", "store").plan));
        assert_eq!(known.problem, before.known("ns", "store").problem);
        assert_eq!(after.changed_since(&before), [("ns".to_owned(), "store".to_owned())]);
        assert_eq!(after.changed_since(&after.clone()), []);
        assert_eq!(after.without_namespace("ns").changed_since(&after), [("ns".to_owned(), "store".to_owned())]);
    }

    #[test]
    fn the_target_is_planned_for_and_the_others_are_surplus() {
        let fleet = fleet().with_statefulset(facts(6, &[("target-replicas", "3")])).unwrap();
        let plan = &fleet.known("ns", "store").plan;
        assert_eq!((0..6).map(|i| plan.assign(i).shard).collect::<Vec<_>>(), [0, 1, 2, 0, 0, 0]);
        let beyond = fleet.with_statefulset(facts(6, &[("target-replicas", "60")])).unwrap();
        assert_eq!(beyond.known("ns", "store").plan, Plan::new(&Sharding::default(), Some(6)));
        let bad = fleet.with_statefulset(facts(6, &[("target-replicas", "-1")])).unwrap();
        assert!(bad.known("ns", "store").problem.is_some());
    }

    #[test]
    fn the_first_pods_of_a_set_scaled_from_zero_have_windows_with_data() {
        let fleet = fleet().with_statefulset(facts(0, &[("total-shards", "4")])).unwrap();
        let plan = &fleet.known("ns", "store").plan;
        assert_eq!((plan.shards().len(), plan.assign(6).shard), (4, 3));
    }

    #[test]
    fn an_unlabelled_namespace_is_forgotten() {
        let entry = Entry::parse("shard: 1\nmin_time: -2d\nmax_time: -1d\n", chrono::DateTime::UNIX_EPOCH).unwrap();
        let entries = HashMap::from([("store-0".to_owned(), entry)]);
        let fleet = fleet().with_statefulset(facts(9, &[])).unwrap().with_configmap("ns", "store-time-shards", entries);
        assert!(fleet.published("ns", "store", "store-0").is_some());
        assert!(fleet.published("ns", "store", "store-1").is_none());
        let without = fleet.without_namespace("ns");
        assert!(without.published("ns", "store", "store-0").is_none());
        assert_eq!(without.statefulsets().count(), 0);
    }

    #[test]
    fn another_configuration_replans() {
        let fleet = fleet().with_statefulset(facts(8, &[])).unwrap();
        let config = Config::parse("sharding: {total_shards: 4}", "c").unwrap();
        assert_eq!(fleet.with_config(Arc::new(config)).known("ns", "store").plan.shards().len(), 4);
    }
}
