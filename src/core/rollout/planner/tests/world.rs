//! A simulated pod and each querier's knowledge of it, second by second.

use super::*;

pub(super) const DISCOVERY: u32 = 6;
pub(super) const DRAIN: u32 = 6;

#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) published: Slot,
    pub(super) applied: Window,
    pub(super) label: u32,
    pub(super) draining_until: Option<u32>,
    pub(super) loading_until: Option<u32>,
    pub(super) ready_since: u32,
    pub(super) moves: u32,
    /// For each querier, the label under which it queries the pod, and the changes that it will
    /// learn of, with their times.
    pub(super) believed: Vec<Option<u32>>,
    pub(super) updates: Vec<Vec<(u32, Option<u32>)>>,
}

impl Pod {
    pub(super) fn new(place: Slot, queriers: usize) -> Self {
        Self {
            published: place,
            applied: place.window,
            label: place.shard,
            draining_until: None,
            loading_until: None,
            ready_since: 0,
            moves: 0,
            believed: vec![Some(place.shard); queriers],
            updates: vec![Vec::new(); queriers],
        }
    }

    pub(super) fn ready(&self) -> bool {
        self.draining_until.is_none() && self.loading_until.is_none()
    }

    pub(super) fn confirmed(&self, at: u32) -> bool {
        self.ready() && self.applied == self.published.window && at >= self.ready_since + DISCOVERY
    }

    fn notify(&mut self, at: u32, updates: Option<u32>, random: &mut impl FnMut(u32) -> u32) {
        for queue in &mut self.updates {
            // Changes arrive in order.
            let earliest = queue.last().map_or(at, |(when, _)| *when);
            queue.push((earliest.max(at + random(DISCOVERY + 1)), updates));
        }
    }

    pub(super) fn publish(&mut self, at: u32, place: Slot, random: &mut impl FnMut(u32) -> u32) {
        self.published = place;
        if place.window != self.applied {
            self.moves += 1;
            self.draining_until = Some(at + DRAIN);
            self.notify(at, None, random);
        } else if place.shard != self.label {
            self.label = place.shard;
            self.notify(at, Some(place.shard), random);
            self.ready_since = at;
        }
    }

    pub(super) fn second(&mut self, at: u32, random: &mut impl FnMut(u32) -> u32) {
        if self.draining_until.is_some_and(|until| at > until) {
            self.draining_until = None;
            self.label = self.published.shard;
            self.loading_until = Some(at + 1 + random(20));
        }
        if self.loading_until.is_some_and(|until| at >= until) {
            self.loading_until = None;
            self.applied = self.published.window;
            self.ready_since = at;
            let label = self.label;
            self.notify(at, Some(label), random);
        }
        for (belief, queue) in self.believed.iter_mut().zip(&mut self.updates) {
            while queue.first().is_some_and(|(when, _)| *when <= at) {
                *belief = queue.remove(0).1;
            }
        }
    }
}

/// Whether a strict query by this querier gets a complete answer.
pub(super) fn answers(
    pods: &[Pod],
    querier: usize,
    required: (i64, i64),
    discovery: Discovery,
) -> Result<(), String> {
    let asked: Vec<(usize, u32)> = pods
        .iter()
        .enumerate()
        .filter_map(|(i, pod)| Some((i, pod.believed[querier]?)))
        .collect();
    if let Some((i, _)) = asked.iter().find(|(i, _)| pods[*i].loading_until.is_some()) {
        return Err(format!("pod {i} is asked while it restarts"));
    }
    let span = |window: Window| {
        let millis = |at: DateTime<Utc>| at.signed_duration_since(now()).num_milliseconds();
        (millis(window.min.at(now())), millis(window.max.at(now())))
    };
    // Certainly in the answer: each pod's window, or the range that all members of a Service have
    // in common.
    let mut spans: Vec<(i64, i64)> = match discovery {
        Discovery::Pods => asked.iter().map(|(i, _)| span(pods[*i].applied)).collect(),
        Discovery::ShardServices => {
            let mut common = std::collections::BTreeMap::new();
            for (i, group) in &asked {
                let (from, to) = span(pods[*i].applied);
                let slot = common.entry(*group).or_insert((from, to));
                *slot = (slot.0.max(from), slot.1.min(to));
            }
            common.into_values().collect()
        }
    };
    spans.sort_unstable();
    let mut reached = required.0;
    for (from, to) in spans {
        if from > reached {
            return Err(format!(
                "no pod is queried for {} h to {} h before now",
                -reached / 3_600_000,
                -from / 3_600_000
            ));
        }
        reached = reached.max(to);
    }
    if reached < required.1 {
        Err(format!(
            "no pod is queried for the last {} h",
            (required.1 - reached) / 3_600_000
        ))
    } else {
        Ok(())
    }
}

/// The pods as the planner sees them.
pub(super) fn members<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    targets: &[(Slot, bool)],
    at: u32,
) -> Vec<Member> {
    pods.zip(targets)
        .map(|(pod, (desired, surplus))| Member {
            published: pod.published,
            desired: *desired,
            surplus: *surplus,
            state: if pod.confirmed(at) {
                MemberState::Confirmed
            } else {
                MemberState::Settling
            },
            canary: false,
        })
        .collect()
}

/// Random numbers below the argument, deterministic by seed.
pub(super) fn random(seed: u64) -> impl FnMut(u32) -> u32 {
    let mut state = seed | 1;
    move |most: u32| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(state >> 33).unwrap_or(0) % most.max(1)
    }
}
