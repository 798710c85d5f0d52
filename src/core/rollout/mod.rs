//! The next step of a rollout: which pods may change their windows now, so that no query notices.
//!
//! The model: a pod that is asked to change leaves discovery, and each querier learns of that, and of its return, after
//! any delay up to `discovery_delay`. So while a pod changes, and until it is *confirmed* again, it holds nothing.
//!
//! Invariants, property-tested in `rollout/tests/simulation.rs` against simulated queriers:
//! - an instant that confirmed pods hold is held by a confirmed pod that stays, during every step;
//! - so is each block that some pod lacks, by a confirmed pod that has loaded it; a block that no pod has loaded binds no pod;
//! - a step leaves no instant with fewer than two pods that had two, unless the target wants fewer; therefore a further
//!   step always exists, at worst through the hull of the old and the new window;
//! - a pod moves at most twice for one change of plan, and once where its direct move is safe;
//! - more than one pod of an instant is away only while as many stay as the plan wants there;
//! - those who stay are pods that the plan needs wherever that is possible: the others may be scaled away at any moment.
//!
//! The state is what is published and what is confirmed, nothing else: whoever leads next goes on from there.
//! Deliberately absent: clocks, the cluster, and the reasons to wait that the cluster gives (`core::reconcile`).

mod blocks;
mod cells;
mod coverage;
mod grouped;
mod plain;
mod profile;
mod rolled_back;
mod segments;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};

use super::window::Window;
pub use blocks::{served_by, single_holders};
pub use cells::Block;
use cells::Cells;
pub use coverage::{Range, coverage, holders, hull, joined};
pub use profile::profile;
use rolled_back::{can_leave, lost_for_good};

/// Where a pod stands or shall stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The shard's number, newest first.
    pub shard: u32,
    /// The replica's number within the shard.
    pub replica: u32,
    /// Its window.
    pub window: Window,
}

/// What is known of a pod's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It serves what is published, and every querier knows it.
    Confirmed,
    /// It is on its way, or cannot be asked: wait for it.
    Settling,
    /// It serves nothing, and will not by waiting: another window costs nothing.
    Broken,
    /// It gave up what is published and serves this instead: another window costs what it serves.
    Fallen(Window),
}

impl Standing {
    /// Whether nothing that is served now is lost when such a pod is given this window.
    #[must_use]
    pub fn loses_nothing_by(self, window: Window) -> bool {
        match self {
            Self::Broken => true,
            Self::Fallen(serves) => serves == window,
            Self::Confirmed | Self::Settling => false,
        }
    }
}

/// One pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What the ConfigMap says.
    pub published: Place,
    /// What the plan wants.
    pub desired: Place,
    /// Whether the plan could do without it.
    pub surplus: bool,
    /// What is known of it.
    pub standing: Standing,
}

/// How queriers find the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// Every pod is asked.
    Pods,
    /// Each shard's Service is asked, and any one of its members answers.
    ShardServices,
}

/// What holds for the whole StatefulSet.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The range that must stay covered.
    pub required: Window,
    /// How queriers find the pods.
    pub discovery: Discovery,
    /// Whether a gap may be made where no step avoids one.
    pub allow_gap: bool,
    /// Now; relative windows do not depend on it.
    pub now: DateTime<Utc>,
}

/// A pod's new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Position among the members.
    pub member: usize,
    /// What to publish.
    pub to: Place,
}

/// A range that nobody would hold for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Position of the pod that alone holds it.
    pub member: usize,
    /// Its older end.
    pub from: DateTime<Utc>,
    /// Its newer end.
    pub to: DateTime<Utc>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything is published as planned.
    Done,
    /// Publish these together; the next step starts when they are confirmed.
    Move {
        /// The changes, in order of the pods.
        changes: Vec<Change>,
        /// What is missing meanwhile, only with [`Terms::allow_gap`].
        gap: Option<Gap>,
    },
    /// These are on their way.
    Wait(Vec<usize>),
    /// Every further step would leave a gap.
    Blocked(Gap),
    /// A step would be safe but for these blocks: only pods that have to move serve them, and the pods that shall take over
    /// have not loaded them. By position.
    Held(Vec<usize>),
}

/// Bookkeeping of who holds what while a step is put together.
trait Ledger {
    /// Whether the member may go to `to` together with those already moved; it is moved if so.
    /// With `keep_two`, no instant is left with one pod that has two and should keep them.
    fn try_move(&mut self, member: usize, to: &Place, keep_two: bool) -> bool;
    /// Takes moves back until every instant keeps two pods that should.
    fn trim(&mut self, moved: &mut Vec<Change>);
    /// A window through which the member may go when its direct move is not possible.
    fn detour(&self, member: usize) -> Option<Place>;
    /// What nobody would hold if the member went away alone. To be asked before any move.
    fn gap(&self, member: usize) -> Option<(i64, i64)>;
    /// Whether this member alone serves a block that some pod lacks, and would not after its move.
    fn holds_block_alone(&self, member: usize) -> bool;
    /// From now on pods that the plan can do without count as staying, too.
    fn count_surplus(&mut self) {}
    /// From now on only those count who ask Services.
    fn services_only(&mut self) {}
    /// As before any move.
    fn reset(&mut self);
}

/// Detours tried before one is chosen; bounds the work of a rare case.
const DETOURS_TRIED: usize = 64;
/// Moves tried for that, after all of these detours together: of thousands of pods only a few detours are looked at.
const MOVES_TRIED: usize = 20_000;

/// The next step from what is published and confirmed towards what is desired. `blocks` are those that some member lacks.
#[must_use]
pub fn next_step(members: &[Member], blocks: &[Block], terms: &Terms) -> Step {
    let open: Vec<usize> = (0..members.len())
        .filter(|i| members[*i].published != members[*i].desired)
        .collect();
    let settling: Vec<usize> = (0..members.len())
        .filter(|i| members[*i].standing == Standing::Settling)
        .collect();
    let direct = |i: usize| Change {
        member: i,
        to: members[i].desired,
    };
    let free = |i: &usize| {
        members[*i]
            .standing
            .loses_nothing_by(members[*i].desired.window)
    };
    let repairs: Vec<Change> = open.iter().copied().filter(free).map(direct).collect();
    if !repairs.is_empty() {
        return moves(repairs, None);
    }
    if !settling.is_empty() {
        return Step::Wait(settling);
    }
    if let Some(fallen) = open
        .iter()
        .copied()
        .find(|i| can_leave(members, *i, blocks, terms))
    {
        return moves(vec![direct(fallen)], None);
    }
    let waits = |i: &usize| matches!(members[*i].standing, Standing::Broken | Standing::Fallen(_));
    // One that gave up the window that is planned for it is waited for like one that is on its way: it tries again.
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
    let step = safe_moves(members, blocks, terms, &open);
    if blocks.is_empty() || matches!(step, Step::Move { gap: None, .. }) {
        return step;
    }
    let only_blocks_bind = match safe_moves(members, &[], terms, &open) {
        Step::Move { gap: None, .. } => true,
        // Where gaps are allowed, only a block keeps a pod from making one.
        _ => terms.allow_gap && matches!(step, Step::Blocked(_)),
    };
    if only_blocks_bind {
        Step::Held(blocks::holding(members, blocks, terms, &open))
    } else {
        step
    }
}

/// Moves from a state in which every pod is confirmed.
fn safe_moves(members: &[Member], blocks: &[Block], terms: &Terms, open: &[usize]) -> Step {
    let cells = Cells::new(members, blocks, terms);
    let direct = |i: usize| Change {
        member: i,
        to: members[i].desired,
    };
    match terms.discovery {
        Discovery::Pods => {
            // Numbers alone restart nothing and nobody is found by them.
            let renumbered = |i: &usize| members[*i].published.window == members[*i].desired.window;
            let (numbers, open): (Vec<usize>, Vec<usize>) =
                open.iter().copied().partition(renumbered);
            let numbers: Vec<Change> = numbers.into_iter().map(direct).collect();
            if open.is_empty() {
                moves(numbers, None)
            } else {
                choose(
                    members,
                    terms,
                    &open,
                    numbers,
                    &mut plain::Plain::new(members, cells),
                )
            }
        }
        Discovery::ShardServices => choose(
            members,
            terms,
            open,
            Vec::new(),
            &mut grouped::Grouped::new(members, cells),
        ),
    }
}

fn moves(mut changes: Vec<Change>, gap: Option<Gap>) -> Step {
    changes.sort_by_key(|change| change.member);
    Step::Move { changes, gap }
}

fn choose(
    members: &[Member],
    terms: &Terms,
    open: &[usize],
    mut first: Vec<Change>,
    ledger: &mut impl Ledger,
) -> Step {
    let mut order = open.to_vec();
    // Who widens only adds, and who narrows only takes away; in between, those that the plan can do without.
    order.sort_by_key(|i| {
        let member = &members[*i];
        let both = hull(&[member.published.window, member.desired.window], terms.now);
        let takes_away = if both == member.desired.window {
            0
        } else {
            1 + u8::from(both == member.published.window)
        };
        (takes_away, !member.surplus, *i)
    });
    let services = terms.discovery == Discovery::ShardServices;
    let mut step = if services {
        one_by_one(members, &order, ledger, true)
    } else {
        together(members, &order, ledger)
    };
    if step.is_empty() && !services {
        ledger.count_surplus();
        step = together(members, &order, ledger);
    }
    if step.is_empty() {
        step.extend(best_detour(members, &order, ledger));
        if services && let Some(chosen) = step.first().copied() {
            step.extend(other_detours(&order, chosen, ledger));
        }
    }
    if step.is_empty() && services {
        // Everybody is wide by now, so all members of a Service hold its planned window, and one that stays is enough.
        step = one_by_one(members, &order, ledger, false);
    }
    if step.is_empty() && services {
        // After a change of mind a wide pod may alone hold what its Service does not serve, so that nobody misses it there.
        ledger.services_only();
        step = one_by_one(members, &order, ledger, true);
    }
    first.extend(step);
    if !first.is_empty() {
        return moves(first, None);
    }
    ledger.reset();
    // A gap is allowed for as long as a restart takes; a block that only this pod has loaded would stay away.
    let leaves = |i: &&usize| !ledger.holds_block_alone(**i);
    let gaps = |i: &usize| ledger.gap(*i).map(|(from, to)| (to - from, *i, from, to));
    let free = order.iter().filter(leaves).filter_map(gaps).min();
    let least = free.or_else(|| order.iter().filter_map(gaps).min());
    let allowed = terms.allow_gap && (free.is_some() || least.is_none());
    // Without a gap there is nothing that stands in the way of the first; cannot happen, and then it is harmless.
    let (_, member, from, to) = least.unwrap_or((0, order[0], 0, 0));
    let at = |millis| terms.now + chrono::TimeDelta::milliseconds(millis);
    let gap = Gap {
        member,
        from: at(from),
        to: at(to),
    };
    if allowed {
        moves(
            vec![Change {
                member,
                to: members[member].desired,
            }],
            Some(gap),
        )
    } else {
        Step::Blocked(gap)
    }
}

/// Direct moves, each of them safe with those before it.
fn one_by_one(
    members: &[Member],
    order: &[usize],
    ledger: &mut impl Ledger,
    keep_two: bool,
) -> Vec<Change> {
    ledger.reset();
    let fits = |i: &&usize| ledger.try_move(**i, &members[**i].desired, keep_two);
    order
        .iter()
        .filter(fits)
        .map(|i| Change {
            member: *i,
            to: members[*i].desired,
        })
        .collect()
}

/// As many direct moves as are safe together: pods that exchange their windows are, and one by one they are not. So
/// redundancy is looked at afterwards.
fn together(members: &[Member], order: &[usize], ledger: &mut impl Ledger) -> Vec<Change> {
    let mut step = one_by_one(members, order, ledger, false);
    ledger.trim(&mut step);
    if step.is_empty() {
        return one_by_one(members, order, ledger, true);
    }
    let mut taken = vec![false; members.len()];
    for change in &step {
        taken[change.member] = true;
    }
    for i in order.iter().filter(|i| !taken[**i]) {
        if ledger.try_move(*i, &members[*i].desired, true) {
            step.push(Change {
                member: *i,
                to: members[*i].desired,
            });
        }
    }
    step
}

/// The detour after which most direct moves are possible.
fn best_detour(members: &[Member], order: &[usize], ledger: &mut impl Ledger) -> Option<Change> {
    let mut best: Option<(usize, Change)> = None;
    let mut tried: Vec<(Place, Place)> = Vec::new();
    let most = DETOURS_TRIED.min(MOVES_TRIED / order.len().max(1)).max(1);
    for i in order {
        let member = &members[*i];
        // Pods of one shard that go the same way are alike.
        let alike = |pair: &(Place, Place)| {
            pair.0.shard == member.published.shard
                && pair.0.window == member.published.window
                && pair.1.window == member.desired.window
        };
        if tried.len() >= most || tried.iter().any(alike) {
            continue;
        }
        ledger.reset();
        let Some(to) = ledger.detour(*i) else {
            continue;
        };
        if !ledger.try_move(*i, &to, true) {
            continue;
        }
        tried.push((member.published, member.desired));
        let enabled = order
            .iter()
            .filter(|j| *j != i && ledger.try_move(**j, &members[**j].desired, true))
            .count();
        if best.as_ref().is_none_or(|(most, _)| enabled > *most) {
            best = Some((enabled, Change { member: *i, to }));
        }
    }
    best.map(|(_, change)| change)
}

/// Detours beside a chosen one: behind Services nearly all pods have to take one.
fn other_detours(order: &[usize], chosen: Change, ledger: &mut impl Ledger) -> Vec<Change> {
    ledger.reset();
    ledger.try_move(chosen.member, &chosen.to, true);
    let others = order.iter().filter(|i| **i != chosen.member);
    others
        .filter_map(|i| {
            let to = ledger.detour(*i)?;
            ledger
                .try_move(*i, &to, true)
                .then_some(Change { member: *i, to })
        })
        .collect()
}

/// All steps, as they are when every pod does what it is told. Ends early where a step is blocked, and gives the gap.
#[must_use]
pub fn preview(mut members: Vec<Member>, terms: &Terms) -> (Vec<Step>, Option<Gap>) {
    let mut steps = Vec::new();
    // Twice for each pod is the bound; a step moves at least one.
    for _ in 0..=members.len() * 2 {
        match next_step(&members, &[], terms) {
            Step::Move { changes, gap } => {
                for change in &changes {
                    members[change.member].published = change.to;
                }
                steps.push(Step::Move { changes, gap });
            }
            Step::Blocked(gap) => return (steps, Some(gap)),
            Step::Done | Step::Wait(_) | Step::Held(_) => break,
        }
    }
    (steps, None)
}
