//! Pods whose thanos fails to load some blocks, and the oracle that queries each block.

use super::super::world::{Pod, members, random};
use super::*;

/// Queriers, each with its own delays.
const QUERIERS: usize = 3;
/// Thanos retries failed blocks after this many seconds.
const SYNC: u32 = 25;
/// Longer than any temporary fault.
const END: u32 = 4_000;

/// A block of the bucket, and the pods that cannot load it.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// Hours before now.
    pub(super) from: u32,
    pub(super) hours: u32,
    /// Pods that fail to load it, as bits by position.
    pub(super) fails_on: u32,
    /// Start of the fault, in steps of the rollout; 0 is the beginning.
    pub(super) after_step: u32,
    /// Duration of the fault in seconds; `None` is permanent.
    pub(super) lasts: Option<u32>,
}

/// A pod and what its thanos has loaded.
struct Store {
    pod: Pod,
    loaded: Vec<bool>,
    next_sync: u32,
}

struct World {
    stores: Vec<Store>,
    specs: Vec<Spec>,
    /// When each fault began.
    began: Vec<Option<u32>>,
    at: u32,
    discovery: Discovery,
}

impl World {
    /// Pods that have loaded all blocks that do not fail.
    fn new(places: &[(Slot, bool)], specs: &[Spec], discovery: Discovery) -> Self {
        let store = |(place, _): &(Slot, bool)| Store {
            pod: Pod::new(*place, QUERIERS),
            loaded: vec![false; specs.len()],
            next_sync: 1,
        };
        let stores = places.iter().map(store).collect();
        let began = specs
            .iter()
            .map(|spec| (spec.after_step == 0).then_some(0))
            .collect();
        let mut world = Self {
            stores,
            specs: specs.to_vec(),
            began,
            at: 0,
            discovery,
        };
        (0..world.stores.len()).for_each(|i| world.sync(i, true));
        world
    }

    /// Begins the faults that come with this step of the rollout.
    fn begin_faults(&mut self, step: u32) {
        for (spec, began) in self.specs.iter().zip(&mut self.began) {
            if spec.after_step == step && began.is_none() {
                *began = Some(self.at);
            }
        }
    }

    fn fails(&self, block: usize, pod: usize) -> bool {
        let spec = &self.specs[block];
        let now = self.began[block]
            .is_some_and(|began| spec.lasts.is_none_or(|lasts| self.at < began + lasts));
        now && spec.fails_on >> (pod % 32) & 1 == 1
    }

    fn range(&self, block: usize) -> TimeRange {
        let hours = |hours: u32| now() - chrono::TimeDelta::hours(i64::from(hours));
        let spec = &self.specs[block];
        (hours(spec.from + spec.hours), hours(spec.from))
    }

    fn in_window(&self, block: usize, window: Window) -> bool {
        let (from, to) = self.range(block);
        to >= window.min.at(now()) && from <= window.max.at(now())
    }

    /// Whether the pod's thanos retries before it turns Ready. With shard Services it retries for as
    /// long as the fault lasts: a querier may query any member alone, so a member that is Ready
    /// without a block fails queries immediately.
    fn is_retried(&self, pod: usize) -> bool {
        let fails = |block: usize| self.specs[block].lasts.is_some() && self.fails(block, pod);
        let window = self.stores[pod].pod.published.window;
        self.discovery == Discovery::ShardServices
            && (0..self.specs.len()).any(|block| fails(block) && self.in_window(block, window))
    }

    /// Loads the blocks in the window that do not fail; after a restart, all of them again.
    fn sync(&mut self, pod: usize, restarted: bool) {
        for block in 0..self.specs.len() {
            let kept = !restarted && self.stores[pod].loaded[block];
            let wanted = self.in_window(block, self.stores[pod].pod.applied);
            self.stores[pod].loaded[block] = wanted && (kept || !self.fails(block, pod));
        }
    }

    fn second(&mut self, random: &mut impl FnMut(u32) -> u32) {
        self.at += 1;
        for i in 0..self.stores.len() {
            let was_loading = self.stores[i].pod.loading_until.is_some();
            let draining = self.stores[i].pod.draining_until.is_some();
            let at = self.at;
            if was_loading && self.is_retried(i) {
                self.stores[i].pod.loading_until = Some(at + 1);
            }
            self.stores[i].pod.second(at, random);
            let loads = self.stores[i].pod.loading_until.is_some();
            if (was_loading || draining) && !loads && self.stores[i].pod.ready() {
                self.sync(i, true);
                self.stores[i].next_sync = at + 1 + random(SYNC);
            } else if at >= self.stores[i].next_sync && !loads {
                self.sync(i, false);
                self.stores[i].next_sync = at + SYNC;
            }
        }
    }

    /// Whether the queried pods, by label, return all samples of an instant of a block.
    fn answered(&self, asked: &[(usize, u32)], block: usize, instant: DateTime<Utc>) -> bool {
        let has = |i: usize| {
            self.stores[i].loaded[block] && self.stores[i].pod.applied.holds(instant, now())
        };
        match self.discovery {
            Discovery::Pods => asked.iter().any(|(i, _)| has(*i)),
            Discovery::ShardServices => asked.iter().any(|(_, label)| {
                asked
                    .iter()
                    .filter(|(_, other)| other == label)
                    .all(|(i, _)| has(*i))
            }),
        }
    }

    fn asked_by(&self, querier: usize) -> Vec<(usize, u32)> {
        self.stores
            .iter()
            .enumerate()
            .filter_map(|(i, store)| Some((i, store.pod.believed[querier]?)))
            .collect()
    }

    /// Some instants within a block that are not on a window's edge.
    fn instants(&self, block: usize, required: Window) -> Vec<DateTime<Utc>> {
        let (from, to) = self.range(block);
        let step = (to - from) / 7;
        let all = (0..7).map(|i| from + step * i + chrono::TimeDelta::seconds(7));
        all.filter(|instant| required.holds(*instant, now()) && *instant < to)
            .collect()
    }

    fn blocks(&self) -> Vec<CellBlock> {
        let lacks = |block: usize, i: usize| {
            let store = &self.stores[i];
            self.in_window(block, store.pod.applied) && !store.loaded[block]
        };
        let one = |block: usize| CellBlock {
            range: self.range(block),
            lacking: (0..self.stores.len())
                .filter(|i| lacks(block, *i))
                .collect(),
        };
        (0..self.specs.len())
            .map(one)
            .filter(|block| !block.lacking.is_empty())
            .collect()
    }
}

/// How a rollout ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    /// Only blocks that some pod never loads prevent steps.
    Held,
}

/// Runs a rollout second by second until it is done, or held permanently.
pub(super) fn simulate(
    divisions: &[Division; 2],
    discovery: Discovery,
    spare: u32,
    specs: &[Spec],
    seed: u64,
) -> Result<End, String> {
    let mut random = random(seed);
    let count = divisions.iter().map(Division::pods).max().unwrap_or(1) + spare;
    let plans = divisions.each_ref().map(|division| division.plan(count));
    let mut world = World::new(&places(&plans[0], count), specs, discovery);
    let mut oracle = Oracle::new(&world, &plans);
    let targets = places(&plans[1], count);
    let terms = PlanTerms {
        required: required(&plans[1]),
        discovery,
        allow_gap: false,
        max_unavailable: 1,
        max_concurrent_restarts: usize::MAX,
        now: now(),
    };
    let mut steps = 0;
    loop {
        world.second(&mut random);
        let at = world.at;
        oracle
            .query(&world)
            .map_err(|why| format!("second {at}, step {steps}: {why}"))?;
        let members = members(world.stores.iter().map(|store| &store.pod), &targets, at);
        match next_step(&members, &world.blocks(), &terms) {
            Step::Done => return Ok(End::Done),
            Step::Blocked(gap) => return Err(format!("blocked at step {steps}: {gap:?}")),
            Step::Held(blocks) if blocks.is_empty() => {
                return Err(format!("held by nothing at step {steps}"));
            }
            Step::Held(_) if at > END => return Ok(End::Held),
            Step::Held(_) | Step::Wait(_) => {}
            Step::Move { changes, .. } => {
                steps += 1;
                for change in changes {
                    world.stores[change.member]
                        .pod
                        .publish(at, change.to, &mut random);
                }
                world.begin_faults(steps);
            }
        }
        if steps > 40 * count || at > 2 * END {
            return Err(format!("it does not end: {steps} steps"));
        }
    }
}

/// Remembers the instants of each block that were served once: from then on every querier must find
/// them.
struct Oracle {
    instants: Vec<Vec<DateTime<Utc>>>,
    served: Vec<Vec<bool>>,
}

impl Oracle {
    fn new(world: &World, plans: &[Plan; 2]) -> Self {
        let both = required(&plans[0])
            .min
            .at(now())
            .max(required(&plans[1]).min.at(now()));
        let range = Window {
            min: Bound::Absolute(both),
            max: required(&plans[0]).max,
        };
        let instants: Vec<Vec<DateTime<Utc>>> = (0..world.specs.len())
            .map(|block| world.instants(block, range))
            .collect();
        let served = instants
            .iter()
            .map(|instants| vec![false; instants.len()])
            .collect();
        Self { instants, served }
    }

    fn query(&mut self, world: &World) -> Result<(), String> {
        for (block, instants) in self.instants.iter().enumerate() {
            for (i, instant) in instants.iter().enumerate() {
                let reached: Vec<bool> = (0..QUERIERS)
                    .map(|querier| world.answered(&world.asked_by(querier), block, *instant))
                    .collect();
                if self.served[block][i] && reached.contains(&false) {
                    return Err(format!(
                        "block {block} at {instant} is not found any more: {reached:?}"
                    ));
                }
                let settled = world
                    .stores
                    .iter()
                    .all(|store| store.pod.confirmed(world.at));
                self.served[block][i] |= settled && reached.iter().all(|reached| *reached);
            }
        }
        Ok(())
    }
}
