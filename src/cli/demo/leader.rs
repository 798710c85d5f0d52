//! The demo's leader: what a cluster's does, by the same decisions, over pods of this machine.
//!
//! [`decide`] says what to do; here it is observed (every sidecar's `GET /status`, asked again and again) and carried out,
//! on a ConfigMap in memory and on the pods' directories. Deliberately absent: any plan of its own, of steps or of their
//! order. What was served is checked here at each look, on what the sidecars answered, without [`decide`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::super::Failure;
use super::super::inject::Admitted;
use super::admission::Admission;
use super::change::DRAIN;
use super::machine::Machine;
use super::page::Page;
use super::pod::SERVING_LIMIT;
use super::tell::Teller;
use super::words::Injected;
use crate::adapters::clock;
use crate::core::config::Sharding;
use crate::core::entry::{self, Entry};
use crate::core::fleet::Entries;
use crate::core::names;
use crate::core::observed::{Answer, MapFacts, PodFacts};
use crate::core::reconcile::{Decision, PodView, View, decide};
use crate::core::report::{PodState, SetReport, State};
use crate::core::rollout;
use crate::core::window::Window;

/// The pause between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is known of a pod.
struct Seen {
    facts: PodFacts,
    answer: Option<Answer>,
    restarts: u64,
    ready_since: Option<Instant>,
    labelled: Instant,
    hurried: Option<Instant>,
}

/// What the looks found about the retention as a whole.
#[derive(Default)]
pub(super) struct Coverage {
    /// The range that must be served; `None` before there is anything to lose.
    pub(super) required: Option<Window>,
    /// Whether the configuration lets a rollout make a gap.
    pub(super) gap_allowed: bool,
    /// Looks at it.
    pub(super) looks: u32,
    /// Looks that found an instant which no ready pod served.
    pub(super) gaps: u32,
    /// The fewest ready pods that any instant had.
    pub(super) fewest: Option<u32>,
}

/// The leader.
#[derive(Default)]
pub(super) struct Leader {
    seen: BTreeMap<String, Seen>,
    map: Option<MapFacts>,
    pub(super) coverage: Coverage,
    pub(super) page: Option<Page>,
}

impl Coverage {
    /// Watches what holds under both of these.
    pub(super) fn require(&mut self, before: &Sharding, after: &Sharding) {
        self.required = Some(before.required_by_both(after));
        self.gap_allowed = after.allow_coverage_gap();
    }

    fn look<'a>(&mut self, seen: impl Iterator<Item = &'a Seen>) -> Result<(), Failure> {
        let Some(required) = self.required else {
            return Ok(());
        };
        let serves = |seen: &Seen| match &seen.answer {
            Some(Answer::Status(status)) if status.phase.is_ready() => status.applied,
            _ => None,
        };
        let windows: Vec<Window> = seen.filter_map(serves).collect();
        let (fewest, holes) = rollout::coverage(&windows, required, clock::now());
        self.looks += 1;
        self.fewest = Some(self.fewest.map_or(fewest, |before| before.min(fewest)));
        self.gaps += u32::from(!holes.is_empty());
        match holes.first() {
            Some((from, to)) if !self.gap_allowed => Err(Failure::Failed(format!(
                "no ready pod served {from} .. {to} for a moment: this must never happen"
            ))),
            _ => Ok(()),
        }
    }
}

impl Leader {
    /// Pods that the API server knows now.
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
            let seen = Seen {
                facts,
                answer: None,
                restarts: 0,
                ready_since: None,
                labelled: Instant::now(),
                hurried: None,
            };
            self.seen.insert(pod.name.clone(), seen);
        }
    }

    /// The ConfigMap as it is, for pods that are about to start.
    pub(super) fn data(&self) -> Option<&BTreeMap<String, String>> {
        self.map.as_ref().map(|map| &map.data)
    }

    /// Looks and acts until every pod is confirmed with its planned window, or nothing more may be done.
    pub(super) async fn settle(
        &mut self,
        machine: &mut Machine,
        admission: &Admission,
        teller: &mut Teller,
    ) -> Result<SetReport, Failure> {
        let mut progress = Instant::now();
        loop {
            machine.alive()?;
            self.ask(machine).await;
            self.coverage.look(self.seen.values())?;
            let decision = self.decide(admission);
            let report = &decision.report;
            if let Some(page) = &self.page {
                page.put(report);
            }
            if let Some(broken) = report.pods.iter().find(|pod| pod.state == PodState::Broken) {
                return Err(machine.failure(
                    &broken.pod,
                    broken
                        .why
                        .as_deref()
                        .unwrap_or("it does not serve its window"),
                ));
            }
            if teller.pods(report)? {
                progress = Instant::now();
            }
            // Before the first answers nothing is open either.
            let all = report
                .pods
                .iter()
                .all(|pod| pod.state == PodState::Confirmed);
            let rests = decision.upkeep.is_none() && decision.relabel.is_empty();
            match report.state {
                State::Settled if all && rests => return Ok(decision.report),
                State::Blocked | State::Paused | State::Refused => return Ok(decision.report),
                _ => {}
            }
            if self.carry_out(machine, admission, &decision, teller)? {
                progress = Instant::now();
            }
            if progress.elapsed() > SERVING_LIMIT + DRAIN.to_std() {
                let waits = report
                    .pods
                    .iter()
                    .find(|pod| pod.state != PodState::Confirmed);
                return Err(machine.failure(waits.map_or("", |pod| &pod.pod), &report.message));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What a sidecar answers is also what its readiness probe gets.
    async fn ask(&mut self, machine: &Machine) {
        for (name, answer) in machine.ask().await {
            let Some(seen) = self.seen.get_mut(name) else {
                continue;
            };
            let (ready, restarts) = answer.as_ref().map_or((false, seen.restarts), |status| {
                (status.phase.is_ready(), status.restarts)
            });
            if seen.facts.ready != ready || seen.restarts != restarts {
                (seen.facts.ready, seen.restarts) = (ready, restarts);
                seen.ready_since = ready.then(Instant::now);
            }
            seen.answer = Some(answer.map_or_else(Answer::Unreachable, |status| {
                Answer::Status(Box::new(status))
            }));
        }
    }

    fn decide(&self, admission: &Admission) -> Decision {
        let fleet = admission.observed.fleet.load();
        let pods = self.seen.iter().map(|(name, seen)| {
            let (ready_for, hurried_ago) = (
                seen.ready_since.map(|at| at.elapsed()),
                seen.hurried.map(|at| at.elapsed()),
            );
            let (facts, answer, labelled_for) =
                (&seen.facts, seen.answer.as_ref(), seen.labelled.elapsed());
            (
                name.clone(),
                PodView {
                    facts,
                    answer,
                    ready_for,
                    labelled_for,
                    drifts_for: None,
                    hurried_ago,
                },
            )
        });
        decide(&View {
            known: fleet.known(&admission.facts.namespace, &admission.facts.name),
            config: fleet.config(),
            map: self.map.as_ref(),
            written: self.data(),
            own: &self
                .data()
                .into_iter()
                .flat_map(BTreeMap::keys)
                .cloned()
                .collect(),
            pods: &pods.collect(),
            missing_for: &BTreeMap::new(),
            now: clock::now(),
        })
    }

    /// Does what was decided, in the order in which a cluster's leader does it. Whether there was anything to publish.
    fn carry_out(
        &mut self,
        machine: &mut Machine,
        admission: &Admission,
        decision: &Decision,
        teller: &mut Teller,
    ) -> Result<bool, Failure> {
        for (pod, shard) in &decision.relabel {
            if let Some(seen) = self.seen.get_mut(pod) {
                (seen.facts.shard_label, seen.labelled) = (Some(shard.to_string()), Instant::now());
            }
        }
        if let Some(data) = &decision.upkeep {
            self.publish(machine, admission, data)?;
            return Ok(true);
        }
        if let Some((data, _)) = &decision.step {
            teller.step(decision, data, self.coverage.required)?;
            self.publish(machine, admission, data)?;
            return Ok(true);
        }
        let late: BTreeSet<&str> = decision.hurry.iter().map(String::as_str).collect();
        self.sync(machine, &late)?;
        Ok(false)
    }

    /// The API server takes the ConfigMap, the webhook's watch sees it, and kubelet brings it to the pods.
    fn publish(
        &mut self,
        machine: &mut Machine,
        admission: &Admission,
        data: &BTreeMap<String, String>,
    ) -> Result<(), Failure> {
        let facts = &admission.facts;
        let name = admission
            .observed
            .fleet
            .load()
            .config()
            .operator
            .configmap_of(&facts.namespace, &facts.name);
        let pods = self.seen.keys().filter_map(|pod| {
            Some((
                pod.clone(),
                Entry::parse(data.get(&entry::key(pod))?, clock::now()).ok()?,
            ))
        });
        let entries: Entries = pods.collect();
        admission
            .observed
            .update(|fleet| Some(fleet.with_configmap(&facts.namespace, &name, entries)));
        self.map = Some(MapFacts {
            name,
            owner_uid: Some(facts.uid.clone()),
            data: data.clone(),
            ..MapFacts::default()
        });
        let all: Vec<String> = self.seen.keys().cloned().collect();
        self.sync(machine, &all.iter().map(String::as_str).collect())
    }

    /// Kubelet looks at the volumes of these pods.
    fn sync(&mut self, machine: &mut Machine, pods: &BTreeSet<&str>) -> Result<(), Failure> {
        let Some(map) = &self.map else { return Ok(()) };
        for pod in machine
            .pods
            .iter_mut()
            .filter(|pod| pods.contains(pod.name.as_str()))
        {
            pod.publish(&map.data)?;
            if let Some(seen) = self.seen.get_mut(&pod.name) {
                seen.hurried = Some(Instant::now());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::agent_status::{AgentStatus, Phase};

    fn pod(phase: Phase, window: &str) -> Seen {
        let (min, max) = window.split_once(" .. ").unwrap();
        let window = Window {
            min: min.parse().unwrap(),
            max: max.parse().unwrap(),
        };
        let status = AgentStatus {
            pod: "store-0".to_owned(),
            shard: None,
            replica: None,
            phase,
            published: None,
            applied: Some(window),
            verified: true,
            restarts: 0,
            last_error: None,
            agent_version: String::new(),
            contract: names::CONTRACT,
            ..AgentStatus::default()
        };
        let answer = Some(Answer::Status(Box::new(status)));
        Seen {
            facts: PodFacts::default(),
            answer,
            restarts: 0,
            ready_since: None,
            labelled: Instant::now(),
            hurried: None,
        }
    }

    #[test]
    fn a_look_fails_where_no_ready_pod_serves_an_instant() {
        let mut coverage = Coverage::default();
        coverage.look([].iter()).unwrap();
        coverage.require(&Sharding::default(), &Sharding::default());
        let newer = pod(Phase::Serving, "-100d .. 1d");
        coverage
            .look([&newer, &newer, &pod(Phase::Serving, "-370d .. -99d")].into_iter())
            .unwrap();
        assert_eq!(
            (coverage.looks, coverage.gaps, coverage.fewest),
            (1, 0, Some(1))
        );
        for older in [
            pod(Phase::Draining, "-370d .. -99d"),
            pod(Phase::Serving, "-370d .. -101d"),
            pod(Phase::Serving, "-369d .. -99d"),
        ] {
            coverage.look([&newer, &older].into_iter()).unwrap_err();
        }
        coverage.gap_allowed = true;
        coverage.look([&newer].into_iter()).unwrap();
        assert_eq!(
            (coverage.looks, coverage.gaps, coverage.fewest),
            (5, 4, Some(0))
        );
    }
}
