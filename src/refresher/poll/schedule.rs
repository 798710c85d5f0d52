//! Whom to ask next. Decides by the instants that it is given; asks nobody.
//!
//! Invariants: a pod is asked once at a time; at most [`CONCURRENT`] pods are, and sidecars that do not answer take at
//! most [`FAILING`] of these places, so that a hundred of them delay nobody whom we know. A pod that was never asked waits
//! for others that never were.

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// By lane: when, whom.
    queues: [BTreeSet<(Instant, String)>; 3],
    asking: [usize; 3],
}

impl Schedule {
    /// A pod is there; it is asked at once if it is new or changed. Otherwise it is asked soon if that is wanted now.
    pub(super) fn put(&mut self, target: Target, closely: bool, now: Instant) {
        if self.pods.get(&target.uid).is_some_and(|pod| pod.target == target && pod.closely == closely) {
            return;
        }
        self.unqueue(&target.uid);
        let uid = target.uid.clone();
        match self.pods.get_mut(&uid) {
            None => {
                let pod = Pod { target, closely, due: now, failures: 0, asking: None };
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
        let gone: Vec<String> = self.pods.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        for uid in &gone {
            self.unqueue(uid);
            if let Some(lane) = self.pods.remove(uid).and_then(|pod| pod.asking) {
                self.asking[lane as usize] -= 1;
            }
        }
        gone
    }

    /// The next pod to ask now, if there is a place for it.
    pub(super) fn take(&mut self, now: Instant) -> Option<Target> {
        let lane = self.open_lanes().find(|lane| self.queues[*lane as usize].first().is_some_and(|(due, _)| *due <= now))?;
        let (_, uid) = self.queues[lane as usize].pop_first()?;
        let pod = self.pods.get_mut(&uid)?;
        pod.asking = Some(lane);
        self.asking[lane as usize] += 1;
        Some(pod.target.clone())
    }

    /// When the next pod may be taken, if nothing else happens.
    pub(super) fn next(&self) -> Option<Instant> {
        self.open_lanes().filter_map(|lane| self.queues[lane as usize].first().map(|(due, _)| *due)).min()
    }

    /// A pod that was taken has answered or not; `false` if it is no longer there.
    pub(super) fn done(&mut self, asked: &Target, answered: bool, interval: Duration, now: Instant) -> bool {
        let Some(pod) = self.pods.get_mut(&asked.uid) else { return false };
        let Some(lane) = pod.asking.take() else { return false };
        self.asking[lane as usize] -= 1;
        if pod.target == *asked {
            pod.failures = if answered { 0 } else { pod.failures.saturating_add(1) };
            pod.due = now
                + match (answered, pod.closely) {
                    (false, _) => back_off(pod.failures),
                    (true, true) => CLOSELY,
                    (true, false) => interval,
                };
        }
        self.queue(&asked.uid);
        true
    }

    fn open_lanes(&self) -> impl Iterator<Item = Lane> {
        let [closely, ordinary, failing] = self.asking;
        let lanes = [
            (Lane::Closely, true),
            (Lane::Ordinary, ordinary + failing < ORDINARY),
            (Lane::Failing, failing < FAILING && ordinary + failing < ORDINARY),
        ];
        let place = closely + ordinary + failing < CONCURRENT;
        lanes.into_iter().filter(move |(_, open)| place && *open).map(|(lane, _)| lane)
    }

    fn queue(&mut self, uid: &str) {
        if let Some(pod) = self.pods.get(uid).filter(|pod| pod.asking.is_none()) {
            self.queues[pod.lane() as usize].insert((pod.due, uid.to_owned()));
        }
    }

    fn unqueue(&mut self, uid: &str) {
        if let Some(pod) = self.pods.get(uid) {
            self.queues[pod.lane() as usize].remove(&(pod.due, uid.to_owned()));
        }
    }
}

fn back_off(failures: u32) -> Duration {
    BACK_OFF.saturating_mul(1 << failures.saturating_sub(1).min(5)).min(MAX_BACK_OFF)
}
