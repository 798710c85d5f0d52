//! The demo's leader: executes the decisions of the cluster's leader on pods of this machine.
//!
//! [`decide`] is the real one. This module only observes (every sidecar's `GET /status`) and
//! executes, on a ConfigMap in memory and on the pods' directories. Deliberately absent: any plan of
//! its own, of steps or of their order.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::super::Failure;
use super::super::inject::Admitted;
use super::admission::Admission;
use super::change::DRAIN;
use super::coverage::{Coverage, SAMPLE_EVERY};
use super::localise::Injected;
use super::machine::Machine;
use super::narrator::Narrator;
use super::page::DemoPage;
use super::pod::SERVING_LIMIT;
use crate::adapters::clock;
use crate::core::gateways::Published;
use crate::core::kube::observed::{MapFacts, PodAnswer, PodFacts};
use crate::core::model::names;
use crate::core::rollout::queriers::QuerierMemory;
use crate::core::rollout::reconcile::{Decision, ReportedPod, View, decide};
use crate::core::rollout::report::{PodState, RolloutState, SetReport};

/// A pod as the leader observes it.
struct ObservedPod {
    facts: PodFacts,
    answer: Option<PodAnswer>,
    restarts: u64,
    ready_since: Option<Instant>,
    labelled: Instant,
    nudged: Option<Instant>,
}

#[derive(Default)]
pub(super) struct Leader {
    pods: BTreeMap<String, ObservedPod>,
    map: Option<Published>,
    pub(super) coverage: Coverage,
    pub(super) page: Option<DemoPage>,
}

impl Leader {
    /// Adds admitted pods, as the API server would report them.
    pub(super) fn add(&mut self, statefulset: &str, admitted: &[Admitted]) {
        for pod in admitted {
            let label = pod
                .pod
                .pointer("/metadata/labels")
                .and_then(|labels| labels.get(names::SHARD_LABEL)?.as_str());
            let facts = PodFacts {
                name: pod.name.clone(),
                uid: format!("demo-{}", pod.name),
                statefulset: statefulset.to_owned(),
                injected: Injected::of(&pod.pod).is_some(),
                store: true,
                shard_label: label.map(str::to_owned),
                ..PodFacts::default()
            };
            let observed = ObservedPod {
                facts,
                answer: None,
                restarts: 0,
                ready_since: None,
                labelled: Instant::now(),
                nudged: None,
            };
            self.pods.insert(pod.name.clone(), observed);
        }
    }

    /// The published ConfigMap.
    pub(super) fn data(&self) -> Option<&BTreeMap<String, String>> {
        self.map.as_ref().map(|map| &map.facts.data)
    }

    /// Reconciles until every pod is confirmed with its planned window, or the rollout must stop.
    pub(super) async fn settle(
        &mut self,
        machine: &mut Machine,
        admission: &Admission,
        narrator: &mut Narrator,
    ) -> Result<SetReport, Failure> {
        let mut progress = Instant::now();
        loop {
            machine.alive()?;
            self.poll(machine).await;
            self.coverage
                .sample(self.pods.values().filter_map(|pod| pod.answer.as_ref()))?;
            let decision = self.decide(admission);
            let report = &decision.report;
            if let Some(page) = &self.page {
                page.put(report);
            }
            if let Some(broken) = report.pods.iter().find(|pod| pod.state == PodState::Broken) {
                let why = broken.why.as_deref();
                return Err(
                    machine.failure(&broken.pod, why.unwrap_or("it does not serve its window"))
                );
            }
            if narrator.pods(report)? {
                progress = Instant::now();
            }
            if is_final(&decision) {
                return Ok(decision.report);
            }
            if self.apply(machine, admission, &decision, narrator)? {
                progress = Instant::now();
            }
            if progress.elapsed() > SERVING_LIMIT + DRAIN.to_std() {
                let waits = report
                    .pods
                    .iter()
                    .find(|pod| pod.state != PodState::Confirmed);
                return Err(machine.failure(waits.map_or("", |pod| &pod.pod), &report.message));
            }
            tokio::time::sleep(SAMPLE_EVERY).await;
        }
    }

    /// Polls every sidecar. Its answer is also the readiness probe's result.
    async fn poll(&mut self, machine: &Machine) {
        for (name, answer) in machine.poll().await {
            let Some(pod) = self.pods.get_mut(name) else {
                continue;
            };
            let (ready, restarts) = answer.as_ref().map_or((false, pod.restarts), |status| {
                (status.phase.is_ready(), status.restarts)
            });
            if pod.facts.ready != ready || pod.restarts != restarts {
                (pod.facts.ready, pod.restarts) = (ready, restarts);
                pod.ready_since = ready.then(Instant::now);
            }
            pod.answer = Some(answer.map_or_else(PodAnswer::Unreachable, |status| {
                PodAnswer::Status(Box::new(status))
            }));
        }
    }

    fn decide(&self, admission: &Admission) -> Decision {
        let fleet = admission.observed.fleet.load();
        let pods = self.pods.iter().map(|(name, pod)| {
            let reported = ReportedPod {
                facts: &pod.facts,
                answer: pod.answer.as_ref(),
                ready_for: pod.ready_since.map(|at| at.elapsed()),
                unready: None,
                labelled_for: pod.labelled.elapsed(),
                confirmed_ago: None,
                drifts_for: None,
                nudged_ago: pod.nudged.map(|at| at.elapsed()),
            };
            (name.clone(), reported)
        });
        let keys = self.data().into_iter().flat_map(BTreeMap::keys);
        decide(&View {
            gateway: fleet.known(&admission.facts.namespace, &admission.facts.name),
            config: fleet.config(),
            map: self.map.as_ref(),
            written: self.map.as_ref(),
            own: &keys.cloned().collect(),
            pods: &pods.collect(),
            missing_for: &BTreeMap::new(),
            queriers: &[],
            querier_memory: &QuerierMemory::default(),
            taken_back: None,
            now: clock::now(),
        })
    }

    /// Executes a decision, in the order of a cluster's leader. Returns whether it published.
    fn apply(
        &mut self,
        machine: &mut Machine,
        admission: &Admission,
        decision: &Decision,
        narrator: &mut Narrator,
    ) -> Result<bool, Failure> {
        for (pod, shard) in &decision.relabel {
            if let Some(pod) = self.pods.get_mut(pod) {
                (pod.facts.shard_label, pod.labelled) = (Some(shard.to_string()), Instant::now());
            }
        }
        let data = if let Some(data) = &decision.upkeep {
            data
        } else if let Some((data, _)) = &decision.step {
            narrator.step(decision, data)?;
            data
        } else {
            let late = decision.nudge.iter().map(String::as_str).collect();
            self.sync(machine, &late)?;
            return Ok(false);
        };
        self.publish(machine, admission, data)?;
        Ok(true)
    }

    /// Stores the ConfigMap, as the API server; reports it to the webhook's cache; and projects it
    /// into the pods' volumes, as kubelet.
    fn publish(
        &mut self,
        machine: &mut Machine,
        admission: &Admission,
        data: &BTreeMap<String, String>,
    ) -> Result<(), Failure> {
        let facts = &admission.facts;
        let fleet = admission.observed.fleet.load();
        let operator = &fleet.config().operator;
        let name = operator.configmap_of(&facts.namespace, &facts.name);
        let map = MapFacts {
            name,
            owner_uid: Some(facts.uid.clone()),
            data: data.clone(),
            ..MapFacts::default()
        };
        let published = Published::new(map, clock::now());
        admission
            .observed
            .update(|fleet| Some(fleet.with_published(&facts.namespace, published.clone())));
        self.map = Some(published);
        let all: Vec<String> = self.pods.keys().cloned().collect();
        self.sync(machine, &all.iter().map(String::as_str).collect())
    }

    /// Projects the ConfigMap into these pods' volumes, as kubelet does.
    fn sync(&mut self, machine: &mut Machine, pods: &BTreeSet<&str>) -> Result<(), Failure> {
        let Some(map) = &self.map else { return Ok(()) };
        for pod in machine
            .pods
            .iter_mut()
            .filter(|pod| pods.contains(pod.name.as_str()))
        {
            pod.publish(&map.facts.data)?;
            if let Some(observed) = self.pods.get_mut(&pod.name) {
                observed.nudged = Some(Instant::now());
            }
        }
        Ok(())
    }
}

/// Whether nothing is left to do, or nothing may be done.
fn is_final(decision: &Decision) -> bool {
    let report = &decision.report;
    match report.state {
        // Before the first answers no step is open either, so every pod must be confirmed.
        RolloutState::Settled => {
            decision.upkeep.is_none()
                && decision.relabel.is_empty()
                && report
                    .pods
                    .iter()
                    .all(|pod| pod.state == PodState::Confirmed)
        }
        state => matches!(
            state,
            RolloutState::Blocked | RolloutState::Paused | RolloutState::Refused
        ),
    }
}
