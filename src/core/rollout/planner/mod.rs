//! Plans the next step of a rollout: which pods may change their windows now without affecting any
//! query.
//!
//! The model: a pod that changes its window leaves discovery, and each querier learns of that, and
//! of its return, after any delay up to `discovery_delay`. So while a pod changes, and until it is
//! *confirmed* again, it counts as serving nothing.
//!
//! Invariants, property-tested in `planner/tests/simulation.rs` against simulated queriers:
//! - during every step, an instant that confirmed pods serve is served by confirmed pods that stay:
//!   all of its replicas but `max_unavailable`, and never fewer than one. Its replicas are the fewer
//!   of what the old and the new plan want there (`rule.rs`, `replicas.rs`);
//! - the same holds for each block that some pod lacks, with a confirmed pod that has loaded it; a
//!   block that no pod has loaded binds no pod;
//! - a step leaves no instant with fewer than two pods that had two, unless the target wants fewer.
//!   A further step therefore always exists, at worst through the hull of the old and the new
//!   window;
//! - a step restarts at most `max_concurrent_restarts` pods. Pods that serve nothing do not count:
//!   they get their planned window immediately, but behind a shard's Service only where it loses
//!   nothing by one more member;
//! - a pod moves at most twice for one change of plan. Only a spare pod that stands in for shards with
//!   one replica moves more often (`relay.rs`);
//! - the number of steps is the fewest, for small fleets (`tests/fewest.rs`), except with shard
//!   Services, missing blocks, pods that do not come back, and shards with one replica;
//! - a window that is larger than any before goes to one pod first (`canary.rs`), except with shard
//!   Services, and where only several such pods together are safe;
//! - the pods that stay are pods that the plan needs, wherever possible: surplus pods may be scaled
//!   away at any moment.
//!
//! The published entries and the confirmed pods are the only state: the next leader continues from
//! there. Deliberately absent: clocks, the cluster, and reasons to wait that come from the cluster
//! (`core::rollout::reconcile`).

mod alone;
mod blocks;
mod canary;
mod cells;
mod colouring;
mod coverage;
mod exact;
mod fewest;
mod grouped;
mod plain;
mod profile;
mod relay;
mod replicas;
mod rolled_back;
mod rule;
mod search;
mod segments;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};

use crate::core::config::Sharding;
use crate::core::model::entry::Entry;
use crate::core::model::window::Window;
pub use alone::left_alone;
pub use blocks::{served_by, single_holders};
pub use canary::mark_longer;
pub use cells::CellBlock;
use cells::Cells;
pub use coverage::{TimeRange, coverage, holders, hull, joined};
pub use profile::profile;
pub use rolled_back::can_leave;
use rolled_back::lost_for_good;
use search::{Ledger as _, choose};

/// A pod's current or planned shard, replica and window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The shard's number, newest first.
    pub shard: u32,
    /// The replica's number within the shard.
    pub replica: u32,
    pub window: Window,
}

impl From<Entry> for Slot {
    fn from(entry: Entry) -> Self {
        Self {
            shard: entry.shard,
            replica: entry.replica,
            window: entry.window,
        }
    }
}

/// The state of a pod, as far as a step depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// It serves its published window, and every querier knows it.
    Confirmed,
    /// It is on its way, or unreachable: wait for it.
    Settling,
    /// It serves nothing, and waiting does not help: another window loses nothing.
    Broken,
    /// It gave up its published window and serves this one instead: another window loses this one.
    RolledBack(Window),
}

impl MemberState {
    /// Whether moving such a pod to `window` loses nothing that is served now.
    #[must_use]
    pub fn loses_nothing_by(self, window: Window) -> bool {
        match self {
            Self::Broken => true,
            Self::RolledBack(serves) => serves == window,
            Self::Confirmed | Self::Settling => false,
        }
    }
}

/// A pod that takes part in the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The slot in the ConfigMap.
    pub published: Slot,
    /// The slot in the plan.
    pub desired: Slot,
    /// Whether the plan does not need the pod.
    pub surplus: bool,
    pub state: MemberState,
    /// Whether the planned window is larger than any that a pod of this set has loaded.
    pub canary: bool,
}

impl Member {
    /// A slot that serves the old and the planned window.
    fn detour(&self, now: DateTime<Utc>) -> Slot {
        Slot {
            window: hull(&[self.published.window, self.desired.window], now),
            ..self.desired
        }
    }
}

/// How queriers find the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// Queriers query every pod.
    Pods,
    /// Queriers query each shard's Service, and any one of its members answers.
    ShardServices,
}

/// The terms that hold for all pods of a StatefulSet.
#[derive(Clone, Copy, Debug)]
pub struct PlanTerms {
    /// The range that must stay covered.
    pub required: Window,
    pub discovery: Discovery,
    /// Whether a step may leave a gap if no step avoids one.
    pub allow_gap: bool,
    /// How many of an instant's replicas may be away at the same time; the last one always stays.
    pub max_unavailable: u32,
    /// How many pods one step restarts; at least one.
    pub max_concurrent_restarts: usize,
    /// Relative windows do not depend on it.
    pub now: DateTime<Utc>,
}

impl PlanTerms {
    /// The terms of a StatefulSet with this many pods.
    #[must_use]
    pub fn new(sharding: &Sharding, pods: usize, now: DateTime<Utc>) -> Self {
        Self {
            required: sharding.required(),
            discovery: if sharding.shard_services() {
                Discovery::ShardServices
            } else {
                Discovery::Pods
            },
            allow_gap: sharding.allow_coverage_gap(),
            max_unavailable: sharding.max_unavailable(),
            max_concurrent_restarts: sharding.max_concurrent_restarts(pods),
            now,
        }
    }
}

/// A pod's move to another slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowChange {
    /// Position among the members.
    pub member: usize,
    pub to: Slot,
}

/// A range that no pod would serve during a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Position of the pod that alone serves it.
    pub member: usize,
    /// Older end.
    pub from: DateTime<Utc>,
    /// Newer end.
    pub to: DateTime<Utc>,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All published slots are as planned.
    Done,
    /// Publish these changes together; the next step starts when they are confirmed.
    Move {
        /// Ordered by member.
        changes: Vec<WindowChange>,
        /// The range that no pod serves meanwhile, only with [`PlanTerms::allow_gap`].
        gap: Option<Gap>,
    },
    /// Wait for these members.
    Wait(Vec<usize>),
    /// Every further step would leave a gap.
    Blocked(Gap),
    /// Only these blocks, by position, make every step unsafe: only pods that must move serve them,
    /// and the pods that take over have not loaded them.
    Held(Vec<usize>),
}

/// Plans the next step from the published towards the desired slots. `blocks` are the blocks that
/// some member lacks.
#[must_use]
pub fn next_step(members: &[Member], blocks: &[CellBlock], terms: &PlanTerms) -> Step {
    let open: Vec<usize> = (0..members.len())
        .filter(|i| members[*i].published != members[*i].desired)
        .collect();
    let settling: Vec<usize> = (0..members.len())
        .filter(|i| members[*i].state == MemberState::Settling)
        .collect();
    let direct = |i: usize| direct(members, i);
    let free = |i: &usize| {
        members[*i]
            .state
            .loses_nothing_by(members[*i].desired.window)
    };
    let repairs: Vec<usize> = open.iter().copied().filter(free).collect();
    let repairs = joining(members, blocks, terms, &repairs);
    if !repairs.is_empty() {
        return moves(repairs, None);
    }
    if !settling.is_empty() {
        return Step::Wait(settling);
    }
    let left = |i: &usize| can_leave(members, *i, blocks, terms);
    if let Some(rolled_back) = open.iter().copied().find(left) {
        let change = joining(members, blocks, terms, &[rolled_back]);
        if !change.is_empty() {
            return moves(change, None);
        }
    }
    let waits = |i: &usize| {
        matches!(
            members[*i].state,
            MemberState::Broken | MemberState::RolledBack(_)
        )
    };
    // The step also waits for a pod that rolled back from its planned window: it tries again.
    let waiting: Vec<usize> = (0..members.len()).filter(waits).collect();
    if !waiting.is_empty() {
        let stuck = open
            .iter()
            .filter(|i| waiting.contains(i))
            .find_map(|i| lost_for_good(members, *i, terms));
        return match stuck {
            Some(gap) if terms.allow_gap => moves(vec![direct(gap.member)], Some(gap)),
            Some(gap) => Step::Blocked(gap),
            None => Step::Wait(waiting),
        };
    }
    if open.is_empty() {
        return Step::Done;
    }
    let step = safe_moves(members, blocks, terms, &open, Lookahead::NextStep);
    if blocks.is_empty() || matches!(step, Step::Move { gap: None, .. }) {
        return step;
    }
    let only_blocks_bind = match safe_moves(members, &[], terms, &open, Lookahead::NextStep) {
        Step::Move { gap: None, .. } => true,
        // If gaps are allowed, only a block forbids one.
        _ => terms.allow_gap && matches!(step, Step::Blocked(_)),
    };
    if only_blocks_bind {
        Step::Held(blocks::holding(members, blocks, terms, &open))
    } else {
        step
    }
}

/// The direct moves of pods that nothing is lost by. Behind a shard's Service any member may be
/// asked, so there a pod joins only if its window is what the other members serve, or more.
fn joining(
    members: &[Member],
    blocks: &[CellBlock],
    terms: &PlanTerms,
    pods: &[usize],
) -> Vec<WindowChange> {
    let mut pods = pods.to_vec();
    if terms.discovery == Discovery::ShardServices && !pods.is_empty() {
        let mut ledger = grouped::Grouped::new(members, Cells::new(members, blocks, terms));
        pods.retain(|i| ledger.try_move(*i, &members[*i].desired, false));
    }
    pods.into_iter().map(|i| direct(members, i)).collect()
}

/// How far ahead a step is planned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lookahead {
    /// A spare pod is sent only if it frees another pod.
    NextStep,
    None,
}

/// Plans a step from a state in which every pod is confirmed.
fn safe_moves(
    members: &[Member],
    blocks: &[CellBlock],
    terms: &PlanTerms,
    open: &[usize],
    lookahead: Lookahead,
) -> Step {
    let cells = Cells::new(members, blocks, terms);
    if terms.discovery == Discovery::ShardServices {
        let mut ledger = grouped::Grouped::new(members, cells);
        return choose(members, terms, open, Vec::new(), &mut ledger);
    }
    // A change of numbers alone restarts nothing, and queriers do not see it.
    let mut restart = open_windows(members);
    let renumbered = |i: &&usize| members[**i].published.window == members[**i].desired.window;
    let numbers = open.iter().filter(renumbered);
    let numbers: Vec<WindowChange> = numbers.map(|i| direct(members, *i)).collect();
    if restart.is_empty() {
        return moves(numbers, None);
    }
    let finish = fewest::fewest(members, &cells, terms).map(|finish| finish.first);
    let relayed = match finish {
        None if relay::applies(members, &cells, terms) => {
            let step = relay::step(members, &cells, terms);
            let frees = lookahead == Lookahead::None || frees(members, blocks, terms, &step);
            frees.then_some(step)
        }
        _ => None,
    };
    let relays = relayed.is_some();
    let chosen = finish.or(relayed).unwrap_or_default();
    let chosen = canary::first(members, &cells, terms, chosen, relays);
    if !chosen.is_empty() {
        return moves([numbers, chosen].concat(), None);
    }
    if relays {
        // A spare pod does not go before the pod that it stands in for.
        let standing_in = relay::standing_in(members, &cells);
        restart.retain(|i| !standing_in.contains(i));
    }
    let mut ledger = plain::Plain::new(members, &cells, terms, rule::Reliance::Needed);
    match choose(members, terms, &restart, numbers, &mut ledger) {
        Step::Move { changes, gap: None } => {
            moves(canary::only_one(members, &cells, terms, changes), None)
        }
        step => step,
    }
}

/// Whether a pod that the plan needs moves in this step or in the next one. A spare pod that frees
/// no other pod would go back and forth for ever.
fn frees(
    members: &[Member],
    blocks: &[CellBlock],
    terms: &PlanTerms,
    step: &[WindowChange],
) -> bool {
    let is_needed = |i: usize| !members[i].surplus;
    let waits = open_windows(members).into_iter().any(is_needed);
    if !waits || step.is_empty() || step.iter().any(|change| is_needed(change.member)) {
        return true;
    }
    let after = after(members, step);
    let open: Vec<usize> = (0..after.len())
        .filter(|i| after[*i].published != after[*i].desired)
        .collect();
    match safe_moves(&after, blocks, terms, &open, Lookahead::None) {
        Step::Move { changes, gap: None } => changes.iter().any(|change| {
            is_needed(change.member) && change.to.window != after[change.member].published.window
        }),
        _ => false,
    }
}

/// Members whose window is not the planned one.
fn open_windows(members: &[Member]) -> Vec<usize> {
    (0..members.len())
        .filter(|i| members[*i].published.window != members[*i].desired.window)
        .collect()
}

/// The members once these changes are confirmed.
fn after(members: &[Member], changes: &[WindowChange]) -> Vec<Member> {
    let mut after = members.to_vec();
    for change in changes {
        after[change.member].published = change.to;
    }
    after
}

/// A member's move to its planned slot.
fn direct(members: &[Member], member: usize) -> WindowChange {
    WindowChange {
        member,
        to: members[member].desired,
    }
}

fn moves(mut changes: Vec<WindowChange>, gap: Option<Gap>) -> Step {
    changes.sort_by_key(|change| change.member);
    Step::Move { changes, gap }
}

/// Returns all remaining steps, assuming that nothing fails. Ends early with the gap if a step is
/// blocked.
#[must_use]
pub fn preview(mut members: Vec<Member>, terms: &PlanTerms) -> (Vec<Step>, Option<Gap>) {
    let mut steps = Vec::new();
    // A pod moves at most twice, and a spare pod goes to each of them and home.
    for _ in 0..=members.len() * 4 {
        match next_step(&members, &[], terms) {
            Step::Move { changes, gap } => {
                for change in &changes {
                    members[change.member].published = change.to;
                    canary::clear(&mut members, change.to.window, terms);
                }
                steps.push(Step::Move { changes, gap });
            }
            Step::Blocked(gap) => return (steps, Some(gap)),
            Step::Done | Step::Wait(_) | Step::Held(_) => break,
        }
    }
    (steps, None)
}
