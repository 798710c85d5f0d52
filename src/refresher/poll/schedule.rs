//! Whom to ask next. Decides by the instants that it is given; asks nobody.
//!
//! Invariants: a pod is asked once at a time; at most [`CONCURRENT`] pods are, and sidecars that do not answer take at
//! most [`FAILING`] of these places, so that a hundred of them delay nobody whom we know. A pod that was never asked waits
//! for others that never were. Each free place goes to the namespace that has fewest, and the last ones only to one that has
//! hardly any: a namespace with thousands of pods that hang delays its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Pods asked at the same time.
pub(super) const CONCURRENT: usize = 16;
/// Of these, pods that are not expected to change at once.
const ORDINARY: usize = 12;
/// Of these, pods that did not answer last.
const FAILING: usize = 4;
/// The last places, of all and of the ordinary ones, are for namespaces that have fewer than this.
const LAST: usize = 2;
/// Between two questions to a pod that is expected to change.
pub(super) const CLOSELY: Duration = Duration::from_millis(500);
/// Before a pod that did not answer is asked again, doubling.
const BACK_OFF: Duration = Duration::from_secs(1);
/// The longest of these.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

/// A pod to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) statefulset: String,
    pub(super) name: String,
    pub(super) ip: IpAddr,
    /// Its `Ready` condition: when it changes, there is something to ask.
    pub(super) ready: (bool, i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Closely,
    Ordinary,
    Failing,
}

#[derive(Debug)]
struct Pod {
    target: Target,
    closely: bool,
    due: Instant,
    failures: u32,
    /// The lane that it was taken from, while it is asked.
    asking: Option<Lane>,
}

impl Pod {
    fn lane(&self) -> Lane {
        match (self.closely, self.failures > 0) {
            (true, false) => Lane::Closely,
            // One that is waited for is not put behind all others that fail.
            (true, true) | (false, false) => Lane::Ordinary,
            (false, true) => Lane::Failing,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Schedule {
    pods: BTreeMap<String, Pod>,
    /// By lane and namespace: when, whom.
    queues: [BTreeMap<String, BTreeSet<(Instant, String)>>; 3],
    asking: [usize; 3],
    /// How many are asked of each namespace.
    asking_of: BTreeMap<String, usize>,
}

impl Schedule {
    /// A pod is there; it is asked at once if it is new or changed. Otherwise it is asked soon if that is wanted now.
    pub(super) fn put(&mut self, target: Target, closely: bool, now: Instant) {
        if self
            .pods
            .get(&target.uid)
            .is_some_and(|pod| pod.target == target && pod.closely == closely)
        {
            return;
        }
        self.unqueue(&target.uid);
        let uid = target.uid.clone();
        match self.pods.get_mut(&uid) {
            None => {
                let pod = Pod {
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

    /// Only these pods are left; gives the UIDs of the others.
    pub(super) fn keep(&mut self, uids: &BTreeSet<String>) -> Vec<String> {
        let gone: Vec<String> = self
            .pods
            .keys()
            .filter(|uid| !uids.contains(*uid))
            .cloned()
            .collect();
        for uid in &gone {
            self.unqueue(uid);
            if let Some(pod) = self.pods.remove(uid)
                && let Some(lane) = pod.asking
            {
                self.ended(lane, &pod.target.namespace);
            }
        }
        gone
    }

    /// The next pod to ask now, if there is a place for it.
    pub(super) fn take(&mut self, now: Instant) -> Option<Target> {
        let due = |(lane, namespace, at): (Lane, &String, Instant)| {
            (at <= now).then(|| (self.of(namespace), lane, at, namespace.clone()))
        };
        // Who has fewest places, then lanes in their order.
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

    /// When the next pod may be taken, if nothing else happens.
    pub(super) fn next(&self) -> Option<Instant> {
        self.open().map(|(_, _, at)| at).min()
    }

    /// A pod that was taken has answered or not; `false` if it is no longer there.
    pub(super) fn done(
        &mut self,
        asked: &Target,
        answered: bool,
        interval: Duration,
        now: Instant,
    ) -> bool {
        let Some(pod) = self.pods.get_mut(&asked.uid) else {
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
            pod.due = now
                + match (answered, pod.closely) {
                    (false, _) => back_off(pod.failures),
                    (true, true) => CLOSELY,
                    (true, false) => interval,
                };
        }
        self.ended(lane, &asked.namespace);
        self.queue(&asked.uid);
        true
    }

    fn ended(&mut self, lane: Lane, namespace: &str) {
        self.asking[lane as usize] -= 1;
        if let Some(asking) = self.asking_of.get_mut(namespace) {
            *asking -= 1;
            if *asking == 0 {
                self.asking_of.remove(namespace);
            }
        }
    }

    /// Places that a namespace has.
    fn of(&self, namespace: &str) -> usize {
        self.asking_of.get(namespace).copied().unwrap_or(0)
    }

    /// The first pod of each lane and namespace that there is a place for, and when it is due.
    fn open(&self) -> impl Iterator<Item = (Lane, &String, Instant)> {
        let [closely, ordinary, failing] = self.asking;
        let nearly_full = closely + ordinary + failing + LAST >= CONCURRENT;
        let last_ordinary = ordinary + failing + LAST >= ORDINARY;
        self.open_lanes().flat_map(move |lane| {
            let may = move |namespace: &String| {
                !(nearly_full || last_ordinary && lane != Lane::Closely)
                    || self.of(namespace) < LAST
            };
            let queues = self.queues[lane as usize]
                .iter()
                .filter(move |(namespace, _)| may(namespace));
            queues.filter_map(move |(namespace, queue)| Some((lane, namespace, queue.first()?.0)))
        })
    }

    fn open_lanes(&self) -> impl Iterator<Item = Lane> {
        let [closely, ordinary, failing] = self.asking;
        let lanes = [
            (Lane::Closely, true),
            (Lane::Ordinary, ordinary + failing < ORDINARY),
            (
                Lane::Failing,
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
                .entry(pod.target.namespace.clone())
                .or_default();
            queue.insert((pod.due, uid.to_owned()));
        }
    }

    fn unqueue(&mut self, uid: &str) {
        if let Some(pod) = self.pods.get(uid) {
            let queues = &mut self.queues[pod.lane() as usize];
            if let Some(queue) = queues.get_mut(&pod.target.namespace) {
                queue.remove(&(pod.due, uid.to_owned()));
                if queue.is_empty() {
                    queues.remove(&pod.target.namespace);
                }
            }
        }
    }
}

fn back_off(failures: u32) -> Duration {
    BACK_OFF
        .saturating_mul(1 << failures.saturating_sub(1).min(5))
        .min(MAX_BACK_OFF)
}
