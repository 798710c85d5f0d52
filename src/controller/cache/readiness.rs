//! For how long each pod has been ready, as seen by this process on its own monotonic clock.
//!
//! Queriers discover a pod some time after it became ready, and a rollout waits for that. So time
//! runs from the moment when *this process* saw the pod ready, and any sign of an interruption
//! restarts it. Times written by the cluster are only compared with each other, never with the
//! local clock: a clock that is minutes ahead would make a pod that has just become ready look
//! discovered. Replicas that do not lead watch as well, so a new leader knows how long; a server
//! that has just started waits.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::core::agent::status::AgentStatus;
use crate::core::kube::observed::PodFacts;
use crate::core::rollout::reconcile::UnreadyTime;

#[derive(Debug, Default)]
pub(in crate::controller) struct Readiness {
    pods: BTreeMap<String, PodReadiness>,
}

#[derive(Debug)]
struct PodReadiness {
    /// The pod's condition.
    ready: bool,
    changed_unix_seconds: i64,
    /// The sidecar's answer: whether its phase is a ready one, and its restarts in place.
    agent: Option<(bool, u64)>,
    since: Option<Instant>,
    /// While it is not ready: since when, and whether it was when this process first saw it.
    unready: Option<(Instant, bool)>,
}

impl Readiness {
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
        let known = PodReadiness {
            ready,
            changed_unix_seconds,
            agent: None,
            since: ready.then_some(now),
            unready: (!ready).then_some((now, true)),
        };
        self.pods.insert(pod.uid.clone(), known);
    }

    pub(super) fn answered(&mut self, uid: &str, status: &AgentStatus, now: Instant) {
        let Some(known) = self.pods.get_mut(uid) else {
            return;
        };
        let agent = (status.phase.is_ready(), status.restarts);
        let before = known.agent.replace(agent);
        // The first answer shows no interruption, unless the pod is not ready by it.
        if before.map_or(!agent.0, |before| before != agent) {
            known.restart(now);
        }
    }

    /// Sidecars are no longer asked: from now on only conditions count. The last number of restarts
    /// is kept, to detect an interruption if they are asked again.
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

    pub(super) fn unready(&self, uid: &str, now: Instant) -> Option<UnreadyTime> {
        let (since, began_before) = self.pods.get(uid)?.unready?;
        Some(UnreadyTime {
            seen_for: now.saturating_duration_since(since),
            began_before,
        })
    }
}

impl PodReadiness {
    fn restart(&mut self, now: Instant) {
        let ready = self.ready && self.agent.is_none_or(|(ready, _)| ready);
        self.since = ready.then_some(now);
        self.unready = match self.unready {
            _ if ready => None,
            Some(unready) => Some(unready),
            None => Some((now, false)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::agent::status::Phase;

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
    fn time_runs_from_when_this_process_saw_it_ready() {
        let (mut readiness, t0) = (Readiness::default(), Instant::now());
        assert_eq!(readiness.ready_for("u", t0), None);
        readiness.observed(&pod(false, 0), t0);
        assert_eq!(readiness.ready_for("u", t0 + MINUTE), None);
        readiness.observed(&pod(true, 1), t0 + MINUTE);
        readiness.observed(&pod(true, 1), t0 + 2 * MINUTE);
        assert_eq!(readiness.ready_for("u", t0 + 3 * MINUTE), Some(2 * MINUTE));
        // It was unready in between, unseen.
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
    fn the_sidecar_shows_interruptions() {
        let (mut readiness, t0) = (Readiness::default(), Instant::now());
        readiness.observed(&pod(true, 1), t0);
        readiness.answered("u", &status(Phase::Serving, 3), t0 + MINUTE);
        assert_eq!(
            readiness.ready_for("u", t0 + MINUTE),
            Some(MINUTE),
            "the first answer shows no interruption"
        );
        readiness.answered("u", &status(Phase::Failed, 3), t0 + MINUTE);
        assert_eq!(
            readiness.ready_for("u", t0 + MINUTE),
            Some(MINUTE),
            "both phases are ready ones"
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
    fn no_other_clock_makes_a_pod_ready_for_longer() {
        // Its condition has a time from a clock that may be ahead or behind.
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

    /// A follower asks no sidecar; when it leads, the first answer does not restart the time of a
    /// ready pod.
    #[test]
    fn readiness_seen_by_a_follower_counts_when_it_leads() {
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
        // A process that no longer leads gets no phases: the condition counts.
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
