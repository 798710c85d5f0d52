//! For how long each pod has been ready, as this process saw it, by its own monotonic clock.
//!
//! Queriers learn of a pod some time after it became ready; whoever counts on that needs an interval that no other clock
//! can shorten. So time runs from the moment that *we* saw the pod ready, and anything that tells one readiness from the
//! next starts it again. Times that the cluster writes are compared with each other only, never with a clock of ours: a
//! clock that is minutes ahead would make a pod that has just become ready one that every querier knows. Replicas that do
//! not lead watch, too, so a new leader knows how long; one that has just started waits.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::core::agent_status::AgentStatus;
use crate::core::observed::PodFacts;

#[derive(Debug, Default)]
pub(super) struct Readiness {
    pods: BTreeMap<String, Observed>,
}

#[derive(Debug)]
struct Observed {
    /// As the pod's condition says.
    ready: bool,
    changed_unix_seconds: i64,
    /// As its sidecar says: whether its phase is a ready one, and its restarts in place.
    agent: Option<(bool, u64)>,
    since: Option<Instant>,
}

impl Readiness {
    /// A pod was observed.
    pub(super) fn observed(&mut self, pod: &PodFacts, now: Instant) {
        let ready = pod.ready && !pod.terminating;
        if let Some(known) = self.pods.get_mut(&pod.uid) {
            if known.ready != ready || known.changed_unix_seconds != pod.ready_changed_unix_seconds
            {
                (known.ready, known.changed_unix_seconds) = (ready, pod.ready_changed_unix_seconds);
                known.restart(now);
            }
            return;
        }
        let changed_unix_seconds = pod.ready_changed_unix_seconds;
        let known = Observed {
            ready,
            changed_unix_seconds,
            agent: None,
            since: ready.then_some(now),
        };
        self.pods.insert(pod.uid.clone(), known);
    }

    /// The pod's sidecar answered.
    pub(super) fn answered(&mut self, uid: &str, status: &AgentStatus, now: Instant) {
        let Some(known) = self.pods.get_mut(uid) else {
            return;
        };
        let agent = (status.phase.is_ready(), status.restarts);
        let before = known.agent.replace(agent);
        // The first answer says nothing of what was before, unless it says that the pod is not ready.
        if before.map_or(!agent.0, |before| before != agent) {
            known.restart(now);
        }
    }

    /// Nobody asks sidecars any more: from now on conditions alone tell. What was answered last of restarts still tells one
    /// readiness from the next, if somebody asks again.
    pub(super) fn no_longer_asked(&mut self, now: Instant) {
        for known in self.pods.values_mut() {
            if let Some((ready, _)) = known.agent.as_mut().filter(|(ready, _)| !ready) {
                *ready = true;
                known.restart(now);
            }
        }
    }

    pub(super) fn forget(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    pub(super) fn ready_for(&self, uid: &str, now: Instant) -> Option<Duration> {
        let known = self.pods.get(uid)?;
        Some(now.saturating_duration_since(known.since?))
    }
}

impl Observed {
    fn restart(&mut self, now: Instant) {
        let ready = self.ready && self.agent.is_none_or(|(ready, _)| ready);
        self.since = ready.then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::agent_status::Phase;

    const MINUTE: Duration = Duration::from_mins(1);

    fn pod(ready: bool, changed_unix_seconds: i64) -> PodFacts {
        PodFacts {
            uid: "u".to_owned(),
            ready,
            ready_changed_unix_seconds: changed_unix_seconds,
            ..PodFacts::default()
        }
    }

    fn status(phase: Phase, restarts: u64) -> AgentStatus {
        let (pod, agent_version) = ("store-0".to_owned(), "0".to_owned());
        let (published, applied, shard, replica) = (None, None, None, None);
        AgentStatus {
            pod,
            shard,
            replica,
            phase,
            published,
            applied,
            verified: true,
            restarts,
            last_error: None,
            agent_version,
            contract: 1,
            ..AgentStatus::default()
        }
    }

    #[test]
    fn time_runs_from_when_we_saw_it_ready() {
        let (mut readiness, t0) = (Readiness::default(), Instant::now());
        assert_eq!(readiness.ready_for("u", t0), None);
        readiness.observed(&pod(false, 0), t0);
        assert_eq!(readiness.ready_for("u", t0 + MINUTE), None);
        readiness.observed(&pod(true, 1), t0 + MINUTE);
        readiness.observed(&pod(true, 1), t0 + 2 * MINUTE);
        assert_eq!(readiness.ready_for("u", t0 + 3 * MINUTE), Some(2 * MINUTE));
        // It was unready in between, and we were not told.
        readiness.observed(&pod(true, 9), t0 + 3 * MINUTE);
        assert_eq!(readiness.ready_for("u", t0 + 4 * MINUTE), Some(MINUTE));
        readiness.observed(
            &PodFacts {
                terminating: true,
                ..pod(true, 9)
            },
            t0 + 4 * MINUTE,
        );
        assert_eq!(readiness.ready_for("u", t0 + 5 * MINUTE), None);
        readiness.forget("u");
        readiness.observed(&pod(true, 9), t0 + 5 * MINUTE);
        assert_eq!(
            readiness.ready_for("u", t0 + 5 * MINUTE),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn the_sidecar_tells_one_readiness_from_the_next() {
        let (mut readiness, t0) = (Readiness::default(), Instant::now());
        readiness.observed(&pod(true, 1), t0);
        readiness.answered("u", &status(Phase::Serving, 3), t0 + MINUTE);
        assert_eq!(
            readiness.ready_for("u", t0 + MINUTE),
            Some(MINUTE),
            "the first answer is how it was all along"
        );
        readiness.answered("u", &status(Phase::Failed, 3), t0 + MINUTE);
        assert_eq!(
            readiness.ready_for("u", t0 + MINUTE),
            Some(MINUTE),
            "it is ready in either"
        );
        readiness.answered("u", &status(Phase::Serving, 4), t0 + 2 * MINUTE);
        assert_eq!(readiness.ready_for("u", t0 + 3 * MINUTE), Some(MINUTE));
        readiness.answered("u", &status(Phase::Draining, 4), t0 + 3 * MINUTE);
        assert_eq!(readiness.ready_for("u", t0 + 4 * MINUTE), None);
        // The condition follows a little later, in either direction; both have to agree.
        readiness.observed(&pod(false, 5), t0 + 4 * MINUTE);
        readiness.answered("u", &status(Phase::Serving, 5), t0 + 5 * MINUTE);
        assert_eq!(readiness.ready_for("u", t0 + 6 * MINUTE), None);
        readiness.observed(&pod(true, 6), t0 + 6 * MINUTE);
        assert_eq!(readiness.ready_for("u", t0 + 7 * MINUTE), Some(MINUTE));
    }

    #[test]
    fn no_clock_but_our_own_makes_a_pod_ready_for_longer() {
        // Ready since whenever its condition says, by a clock that may be ahead of ours, or behind.
        for changed in [0, 1_000, 1_795_000_000, i64::MAX] {
            let (mut readiness, t0) = (Readiness::default(), Instant::now());
            readiness.observed(&pod(true, changed), t0);
            assert_eq!(
                readiness.ready_for("u", t0),
                Some(Duration::ZERO),
                "{changed}"
            );
            readiness.observed(&pod(true, changed), t0 + MINUTE);
            assert_eq!(
                readiness.ready_for("u", t0 + MINUTE),
                Some(MINUTE),
                "{changed}"
            );
        }
    }

    /// A follower sees pods and asks nobody; when it leads, the first answer takes nothing away from a pod that is ready.
    #[test]
    fn what_a_follower_saw_counts_when_it_leads() {
        let (mut readiness, t0) = (Readiness::default(), Instant::now());
        readiness.observed(&pod(true, 1), t0);
        readiness.answered("u", &status(Phase::Serving, 3), t0 + 9 * MINUTE);
        assert_eq!(readiness.ready_for("u", t0 + 9 * MINUTE), Some(9 * MINUTE));
        // It no longer leads, and leads again later: thanos was restarted in between.
        readiness.answered("u", &status(Phase::Serving, 4), t0 + 20 * MINUTE);
        assert_eq!(readiness.ready_for("u", t0 + 21 * MINUTE), Some(MINUTE));
        let mut readiness = Readiness::default();
        readiness.observed(&pod(true, 1), t0);
        readiness.answered("u", &status(Phase::Restarting, 0), t0 + MINUTE);
        assert_eq!(readiness.ready_for("u", t0 + MINUTE), None);
        // Who no longer leads hears of no phase: the condition tells.
        readiness.no_longer_asked(t0 + 2 * MINUTE);
        assert_eq!(readiness.ready_for("u", t0 + 3 * MINUTE), Some(MINUTE));
        readiness.answered("u", &status(Phase::Serving, 0), t0 + 3 * MINUTE);
        assert_eq!(readiness.ready_for("u", t0 + 3 * MINUTE), Some(MINUTE));
        readiness.answered("u", &status(Phase::Serving, 1), t0 + 3 * MINUTE);
        assert_eq!(
            readiness.ready_for("u", t0 + 3 * MINUTE),
            Some(Duration::ZERO)
        );
    }
}
