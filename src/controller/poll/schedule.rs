//! Schedules which pod is asked next, by the instants that it is given; it does no I/O. Sidecars and
//! queriers have a schedule each.
//!
//! Invariants: a pod is asked once at a time. At most [`CONCURRENT`] pods are asked at a time, and
//! sidecars that do not answer take at most [`FAILING`] of these places, so a hundred of them delay
//! no known pod; a pod that was never asked waits for others that never were. Each free place goes
//! to the namespace that has fewest, and the last ones only to a namespace that has hardly any: a
//! namespace with thousands of hanging pods delays only its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Pods asked at the same time.
pub(super) const CONCURRENT: usize = 16;
/// Of these, pods that are not expected to change soon.
const ORDINARY: usize = 12;
/// Of these, pods that did not answer last time.
const FAILING: usize = 4;
/// The last places, both of all and of the ordinary ones, go to namespaces that have fewer than this.
const LAST: usize = 2;
/// Pause before a pod that did not answer is asked again, doubling.
const BACK_OFF: Duration = Duration::from_secs(1);

/// A pod to ask. One that differs is due immediately.
pub(in crate::controller) trait Scheduled: Clone + PartialEq {
    fn uid(&self) -> &str;
    fn namespace(&self) -> &str;
}

/// Pauses after a request.
#[derive(Clone, Copy, Debug)]
pub(in crate::controller) struct Pauses {
    /// For a pod that is expected to change.
    pub(in crate::controller) closely: Duration,
    pub(in crate::controller) ordinary: Duration,
    /// The longest one after requests without an answer, which begin with [`BACK_OFF`].
    pub(in crate::controller) max_back_off: Duration,
    /// In any case.
    pub(in crate::controller) least: Duration,
}

/// A pod whose sidecar is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) statefulset: String,
    pub(super) name: String,
    pub(super) ip: IpAddr,
    /// Its `Ready` condition: a change makes the pod due.
    pub(super) ready: (bool, i64),
}

impl Scheduled for Target {
    fn uid(&self) -> &str {
        &self.uid
    }
    fn namespace(&self) -> &str {
        &self.namespace
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PollLane {
    Closely,
    Ordinary,
    Failing,
}

#[derive(Debug)]
struct ScheduledPod<T> {
    target: T,
    closely: bool,
    due: Instant,
    failures: u32,
    /// The lane it was taken from, while it is being asked.
    asking: Option<PollLane>,
}

impl<T> ScheduledPod<T> {
    fn lane(&self) -> PollLane {
        match (self.closely, self.failures > 0) {
            (true, false) => PollLane::Closely,
            // A rollout waits for it, so it is not queued behind all other failing pods.
            (true, true) | (false, false) => PollLane::Ordinary,
            (false, true) => PollLane::Failing,
        }
    }
}

#[derive(Debug)]
pub(in crate::controller) struct Schedule<T> {
    pods: BTreeMap<String, ScheduledPod<T>>,
    /// By lane and namespace: when a pod is due, and its UID.
    queues: [BTreeMap<String, BTreeSet<(Instant, String)>>; 3],
    asking: [usize; 3],
    /// Number of pods being asked, by namespace.
    asking_of: BTreeMap<String, usize>,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self {
            pods: BTreeMap::new(),
            queues: <[BTreeMap<_, _>; 3]>::default(),
            asking: [0; 3],
            asking_of: BTreeMap::new(),
        }
    }
}

impl<T: Scheduled> Schedule<T> {
    /// Adds or updates a pod. It is due immediately if it is new or changed, or if it is to be asked
    /// closely from now on.
    pub(in crate::controller) fn put(&mut self, target: T, closely: bool, now: Instant) {
        if self
            .pods
            .get(target.uid())
            .is_some_and(|pod| pod.target == target && pod.closely == closely)
        {
            return;
        }
        let uid = target.uid().to_owned();
        self.unqueue(&uid);
        match self.pods.get_mut(&uid) {
            None => {
                let pod = ScheduledPod {
                    target,
                    closely,
                    due: now,
                    failures: 0,
                    asking: None,
                };
                self.pods.insert(uid.clone(), pod);
            }
            Some(pod) => {
                if pod.target != target {
                    (pod.target, pod.failures, pod.due) = (target, 0, now);
                }
                if closely && !pod.closely && pod.failures == 0 {
                    pod.due = now;
                }
                pod.closely = closely;
            }
        }
        self.queue(&uid);
    }

    /// Removes all other pods.
    pub(in crate::controller) fn keep(&mut self, uids: &BTreeSet<String>) {
        let gone: Vec<String> = self
            .pods
            .keys()
            .filter(|uid| !uids.contains(*uid))
            .cloned()
            .collect();
        for uid in gone {
            self.unqueue(&uid);
            if let Some(pod) = self.pods.remove(&uid)
                && let Some(lane) = pod.asking
            {
                self.ended(lane, pod.target.namespace());
            }
        }
    }

    /// Takes the next pod that is due, if there is a place for it.
    pub(in crate::controller) fn take(&mut self, now: Instant) -> Option<T> {
        let due = |(lane, namespace, at): (PollLane, &String, Instant)| {
            (at <= now).then(|| (self.places_of(namespace), lane, at, namespace.clone()))
        };
        // The namespace with fewest places first, then lanes in their order.
        let (_, lane, _, namespace) = self.open().filter_map(due).min()?;
        let queue = self.queues[lane as usize].get_mut(&namespace)?;
        let (_, uid) = queue.pop_first()?;
        if queue.is_empty() {
            self.queues[lane as usize].remove(&namespace);
        }
        let pod = self.pods.get_mut(&uid)?;
        pod.asking = Some(lane);
        self.asking[lane as usize] += 1;
        *self.asking_of.entry(namespace).or_default() += 1;
        Some(pod.target.clone())
    }

    /// When the next pod may be taken, if nothing else changes.
    pub(in crate::controller) fn next(&self) -> Option<Instant> {
        self.open().map(|(_, _, at)| at).min()
    }

    /// Ends the request to a pod that was taken; `false` if the pod is gone.
    pub(in crate::controller) fn done(
        &mut self,
        asked: &T,
        answered: bool,
        pauses: Pauses,
        now: Instant,
    ) -> bool {
        let Some(pod) = self.pods.get_mut(asked.uid()) else {
            return false;
        };
        let Some(lane) = pod.asking.take() else {
            return false;
        };
        if pod.target == *asked {
            pod.failures = if answered {
                0
            } else {
                pod.failures.saturating_add(1)
            };
            let pause = match (answered, pod.closely) {
                (false, _) => back_off(pod.failures).min(pauses.max_back_off),
                (true, true) => pauses.closely,
                (true, false) => pauses.ordinary,
            };
            pod.due = now + pause.max(pauses.least);
        }
        self.ended(lane, asked.namespace());
        self.queue(asked.uid());
        true
    }

    fn ended(&mut self, lane: PollLane, namespace: &str) {
        self.asking[lane as usize] -= 1;
        if let Some(asking) = self.asking_of.get_mut(namespace) {
            *asking -= 1;
            if *asking == 0 {
                self.asking_of.remove(namespace);
            }
        }
    }

    /// Number of places that a namespace has.
    fn places_of(&self, namespace: &str) -> usize {
        self.asking_of.get(namespace).copied().unwrap_or(0)
    }

    /// Each lane and namespace with a free place, and when its first pod is due.
    fn open(&self) -> impl Iterator<Item = (PollLane, &String, Instant)> {
        let [closely, ordinary, failing] = self.asking;
        let nearly_full = closely + ordinary + failing + LAST >= CONCURRENT;
        let last_ordinary = ordinary + failing + LAST >= ORDINARY;
        self.open_lanes().flat_map(move |lane| {
            let may = move |namespace: &String| {
                !(nearly_full || last_ordinary && lane != PollLane::Closely)
                    || self.places_of(namespace) < LAST
            };
            let queues = self.queues[lane as usize]
                .iter()
                .filter(move |(namespace, _)| may(namespace));
            queues.filter_map(move |(namespace, queue)| Some((lane, namespace, queue.first()?.0)))
        })
    }

    fn open_lanes(&self) -> impl Iterator<Item = PollLane> {
        let [closely, ordinary, failing] = self.asking;
        let lanes = [
            (PollLane::Closely, true),
            (PollLane::Ordinary, ordinary + failing < ORDINARY),
            (
                PollLane::Failing,
                failing < FAILING && ordinary + failing < ORDINARY,
            ),
        ];
        let place = closely + ordinary + failing < CONCURRENT;
        lanes
            .into_iter()
            .filter(move |(_, open)| place && *open)
            .map(|(lane, _)| lane)
    }

    fn queue(&mut self, uid: &str) {
        if let Some(pod) = self.pods.get(uid).filter(|pod| pod.asking.is_none()) {
            let queue = self.queues[pod.lane() as usize]
                .entry(pod.target.namespace().to_owned())
                .or_default();
            queue.insert((pod.due, uid.to_owned()));
        }
    }

    fn unqueue(&mut self, uid: &str) {
        if let Some(pod) = self.pods.get(uid) {
            let queues = &mut self.queues[pod.lane() as usize];
            if let Some(queue) = queues.get_mut(pod.target.namespace()) {
                queue.remove(&(pod.due, uid.to_owned()));
                if queue.is_empty() {
                    queues.remove(pod.target.namespace());
                }
            }
        }
    }
}

fn back_off(failures: u32) -> Duration {
    BACK_OFF.saturating_mul(1 << failures.saturating_sub(1).min(5))
}
