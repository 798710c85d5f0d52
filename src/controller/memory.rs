//! What the leader remembers of one StatefulSet between reconciles.
//!
//! It saves requests, keeps messages from being repeated, and tells this leader's writes from other
//! clients'. A new leader starts without it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cache::ClusterCache;
use super::gathered::Gathered;
use super::turn::Turn;
use crate::core::config::Sharding;
use crate::core::gateways::Published;
use crate::core::kube::observed::PodFacts;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::rollout::queriers::{GrpcAddresses, ObservedQuerier, QuerierMemory};
use crate::core::rollout::reconcile::{ReportedPod, TakenBack, drifts};
use crate::core::rollout::report::{PodState, RolloutState, SetReport};

/// For how long this leader's write replaces what the watch shows.
pub(super) const MAX_STAND_IN: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct LeaderMemory {
    /// The ConfigMap as this leader found it or wrote it last. `None` after a write whose outcome
    /// is unknown; the stored object is then accepted as found until the next write.
    pub(super) written: Option<Arc<Published>>,
    /// Keys of the entries that this leader wrote.
    pub(super) own: BTreeSet<String>,
    pub(super) turn: Turn,
    /// The version that the last write replaced, and when: the watch may still show it.
    pub(super) replaced: Option<(String, Instant)>,
    /// Whether this leader has reconciled it before.
    pub(super) reconciled: bool,
    /// Failed reconciles in a row.
    pub(super) failures: u32,
    /// By UID, when kubelet was nudged to sync the pod, or could have begun to by itself.
    pub(super) nudged: HashMap<String, Instant>,
    /// By UID, the shard label, and since when the pod has had it.
    pub(super) labelled: HashMap<String, (Option<String>, Instant)>,
    /// By UID, when the pod was first called confirmed, if it has been ever since.
    pub(super) confirmed: HashMap<String, Instant>,
    /// By UID, since when the pod has drifted.
    pub(super) drifting: HashMap<String, Instant>,
    /// By ULID, since when some pod has not loaded the block.
    pub(super) missing: HashMap<String, Instant>,
    /// Events that were sent and still hold.
    pub(super) notified: BTreeMap<(&'static str, String), String>,
    /// Events that hold in this reconcile.
    pub(super) holding: BTreeMap<(&'static str, String), String>,
    /// Why the ConfigMap cannot be written.
    pub(super) refused: Option<String>,
    /// Which other request failed in this reconcile.
    pub(super) hindered: Option<String>,
    pub(super) state: Option<(RolloutState, String)>,
    /// The settings of the last report.
    pub(super) sharding: Option<Sharding>,
    pub(super) queriers: QuerierMemory,
    /// The moment that times in `queriers` are relative to.
    pub(super) began: Option<Instant>,
    /// The last step that a querier had taken back, and when.
    pub(super) taken_back: Option<(TakenBack, Instant)>,
}

impl LeaderMemory {
    /// How long ago kubelet was nudged to sync a pod, or could have begun to by itself.
    pub(super) fn nudged_ago(&self, uid: &str, now: Instant) -> Option<Duration> {
        self.nudged
            .get(uid)
            .map(|at| now.saturating_duration_since(*at))
    }

    /// Updates the memory from what was gathered. While the watch still shows the version that this
    /// leader has replaced, `gathered` gets the leader's own write instead.
    pub(super) fn catch_up(&mut self, gathered: &mut Gathered) {
        let version = gathered
            .map
            .as_ref()
            .map_or("", |map| map.facts.resource_version.as_str());
        match &self.replaced {
            Some((replaced, at)) if replaced == version && at.elapsed() < MAX_STAND_IN => {
                gathered.map.clone_from(&self.written);
            }
            _ => self.replaced = None,
        }
        if !self.reconciled {
            // From now on any other content was written by another client.
            (self.reconciled, self.written) = (true, gathered.map.clone());
        }
        if gathered.map.is_some() {
            // It has timeshard's label, perhaps again, even if nothing needs to be written.
            self.refused = None;
        }
        let pods = &gathered.facts.pods;
        let present: BTreeSet<&String> = pods.values().map(|pod| &pod.uid).collect();
        self.nudged.retain(|uid, _| present.contains(uid));
        self.labelled.retain(|uid, _| present.contains(uid));
        self.drifting.retain(|uid, _| present.contains(uid));
        self.note_missing(gathered);
        let entries = gathered.map.as_ref().map(|map| &map.entries);
        for pod in pods.values() {
            let entry = entries.and_then(|entries| entries.get(&pod.name));
            let answer = gathered.answers.get(&pod.uid).map(|(answer, _)| answer);
            if entry.is_some_and(|entry| drifts(pod, answer, entry)) {
                self.drifting
                    .entry(pod.uid.clone())
                    .or_insert_with(Instant::now);
            } else {
                self.drifting.remove(&pod.uid);
            }
            let since = self
                .labelled
                .entry(pod.uid.clone())
                .or_insert_with(|| (pod.shard_label.clone(), Instant::now()));
            if since.0 != pod.shard_label {
                *since = (pod.shard_label.clone(), Instant::now());
            }
        }
    }

    fn note_missing(&mut self, gathered: &Gathered) {
        let missing: BTreeSet<&String> = gathered
            .answers
            .values()
            .filter_map(|(answer, _)| answer.status()?.blocks.as_ref())
            .flat_map(|blocks| &blocks.missing)
            .map(|block| &block.ulid)
            .collect();
        keep_since(&mut self.missing, &missing, Instant::now());
    }

    /// Remembers which pods a decision calls confirmed.
    pub(super) fn note_confirmed(&mut self, report: &SetReport, gathered: &Gathered, now: Instant) {
        let confirmed: BTreeSet<&String> = report
            .pods
            .iter()
            .filter(|pod| pod.state == PodState::Confirmed)
            .filter_map(|pod| Some(&gathered.facts.pods.get(&pod.pod)?.uid))
            .collect();
        keep_since(&mut self.confirmed, &confirmed, now);
    }

    /// For how long each block has been missing on some pod.
    pub(super) fn missing_for(&self, now: Instant) -> BTreeMap<String, Duration> {
        self.missing
            .iter()
            .map(|(ulid, since)| (ulid.clone(), now.saturating_duration_since(*since)))
            .collect()
    }

    /// Takes the answers of the queriers that may use the StatefulSet's pods.
    pub(super) fn note_queriers(
        &mut self,
        queriers: &[ObservedQuerier],
        set: &StatefulSetFacts,
        gathered: &Gathered,
        now: Instant,
    ) {
        let began = *self.began.get_or_insert(now);
        let at = GrpcAddresses {
            namespace: &set.namespace,
            port: set.grpc_port,
        };
        let now = now.saturating_duration_since(began);
        self.queriers
            .observe(queriers, &gathered.facts.pods, at, now);
    }

    /// Notes that pods got back the windows that they run, each with the querier that kept it.
    pub(super) fn note_taken_back(&mut self, pods: &[(String, String)], now: Instant) {
        if let Some(taken_back) = TakenBack::note(self.taken_back(now).as_ref(), pods) {
            self.taken_back = Some((taken_back, now));
        }
    }

    /// The last step that was taken back. Forgotten once the rollout has settled.
    pub(super) fn taken_back(&self, now: Instant) -> Option<TakenBack> {
        let (last, at) = self.taken_back.as_ref()?;
        Some(TakenBack {
            ago: now.saturating_duration_since(*at),
            ..last.clone()
        })
    }

    /// The pods as a decision needs them, by name.
    pub(super) fn reported_pods<'a>(
        &self,
        gathered: &'a Gathered,
        cache: &ClusterCache,
        now: Instant,
    ) -> BTreeMap<String, ReportedPod<'a>> {
        let ago = |since: &Instant| now.saturating_duration_since(*since);
        let reported = |pod: &'a PodFacts| ReportedPod {
            facts: pod,
            answer: gathered.answers.get(&pod.uid).map(|(answer, _)| answer),
            ready_for: cache.ready_for(&pod.uid, now),
            unready: cache.unready(&pod.uid, now),
            labelled_for: self
                .labelled
                .get(&pod.uid)
                .map_or(Duration::ZERO, |(_, since)| ago(since)),
            confirmed_ago: self.confirmed.get(&pod.uid).map(ago),
            drifts_for: self.drifting.get(&pod.uid).map(ago),
            nudged_ago: self.nudged_ago(&pod.uid, now),
        };
        let pods = gathered.facts.pods.iter();
        pods.map(|(name, pod)| (name.clone(), reported(pod)))
            .collect()
    }

    /// The ConfigMap that the next write replaces: this leader's own last write while the watch
    /// does not show it yet.
    pub(super) fn current_map<'a>(&'a self, gathered: &'a Gathered) -> Option<&'a Arc<Published>> {
        self.written
            .as_ref()
            .filter(|_| self.replaced.is_some())
            .or(gathered.map.as_ref())
    }

    /// The shard that each pod's entry names.
    pub(super) fn published(&self, gathered: &Gathered) -> BTreeMap<String, u32> {
        let map = self.written.as_ref().or(gathered.map.as_ref());
        map.into_iter()
            .flat_map(|map| &map.entries)
            .map(|(pod, entry)| (pod.clone(), entry.shard))
            .collect()
    }
}

/// Updates since when keys have been present.
fn keep_since(known: &mut HashMap<String, Instant>, present: &BTreeSet<&String>, now: Instant) {
    known.retain(|key, _| present.contains(key));
    for key in present {
        if !known.contains_key(*key) {
            known.insert((*key).clone(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::core::kube::observed::NamespaceFacts;

    #[test]
    fn a_configmap_that_is_managed_again_is_no_longer_refused() {
        let mut memory = LeaderMemory {
            refused: Some("not managed".to_owned()),
            ..LeaderMemory::default()
        };
        let mut gathered = Gathered {
            configmap: String::new(),
            answers: HashMap::new(),
            map: None,
            facts: NamespaceFacts::default(),
        };
        memory.catch_up(&mut gathered);
        assert!(memory.refused.is_some());
        gathered.map = Some(Arc::default());
        memory.catch_up(&mut gathered);
        assert_eq!(memory.refused, None);
    }
}
