//! Relay: a spare pod stands in for the only pod of a shard, so that this one restarts without a gap;
//! then the spare pod goes on to the next shard, and at last to its own place.
//!
//! Spare pods are those that the plan does not need. Such a pod takes the slot of the shard's only
//! pod, so it becomes one more replica of that shard: for budgets and labels it counts there, and it
//! loads nothing that a pod of this set did not load. It may restart as often as there are shards to
//! help.
//!
//! What keeps a spare pod free to go on: each instant that the plan wants keeps a *lasting* pod, one
//! that the plan needs and that is at its planned window already, or the one pod of an old shard that
//! goes last. So a shard's only pod leaves for its planned window only once lasting pods serve the
//! rest of its old one; where shards wait for each other in a circle, it takes the hull of both.

use std::collections::BTreeMap;

use super::cells::Cells;
use super::plain::Plain;
use super::rule::Reliance;
use super::search::Ledger as _;
use super::{Member, PlanTerms, Slot, WindowChange, open_windows};

/// Passes over the pods: a pod that arrives may free another one.
const MAX_PASSES: usize = 4;
/// Moves of spare pods that are tried.
const MAX_TRIES: usize = 20_000;

struct Relay<'a> {
    members: &'a [Member],
    cells: &'a Cells,
    terms: &'a PlanTerms,
    plain: Plain<'a>,
    /// For each member, whether it goes last of its old shard.
    last: Vec<bool>,
    /// For each member, whether it is a lasting pod now.
    lasts: Vec<bool>,
    /// For each cell, lasting pods.
    lasting: Vec<u32>,
    /// For each published window, pods that stay.
    staying: BTreeMap<(i64, i64), usize>,
    moved: Vec<bool>,
    /// The windows of pods that may leave now, by their ends: a spare pod with such a window stands
    /// in.
    busy: Vec<(i64, i64)>,
    step: Vec<WindowChange>,
    tries: usize,
}

/// Spare pods with the window of a pod that has not moved yet.
pub(super) fn standing_in(members: &[Member], cells: &Cells) -> Vec<usize> {
    let mut waiting: Vec<(i64, i64)> = open_windows(members)
        .into_iter()
        .filter(|i| !members[*i].surplus)
        .map(|i| cells.span(members[i].published.window))
        .collect();
    waiting.sort_unstable();
    (0..members.len())
        .filter(|i| {
            let member = &members[*i];
            let ends = cells.span(member.published.window);
            member.surplus && waiting.binary_search(&ends).is_ok()
        })
        .collect()
}

/// Whether there are spare pods, and pods that must move serve an instant with one replica.
pub(super) fn applies(members: &[Member], cells: &Cells, terms: &PlanTerms) -> bool {
    let plain = Plain::new(members, cells, terms, Reliance::Spares);
    let single = |i: usize| {
        cells
            .held(i, members[i].published.window)
            .iter()
            .any(|cell| {
                let count = plain.count(cell);
                count.held == 1 || count.full == 1
            })
    };
    members.iter().any(|member| member.surplus) && open_windows(members).into_iter().any(single)
}

/// Returns the next step; empty if spare pods do not help.
pub(super) fn step(members: &[Member], cells: &Cells, terms: &PlanTerms) -> Vec<WindowChange> {
    let mut relay = Relay::new(members, cells, terms);
    let mut needed = open_windows(members);
    needed.retain(|i| !members[*i].surplus);
    needed.sort_by_key(|i| (relay.last[*i], *i));
    for _ in 0..MAX_PASSES {
        let before = relay.step.len();
        for i in &needed {
            relay.leave(*i, members[*i].desired);
        }
        if relay.step.len() == before {
            break;
        }
    }
    needed.retain(|i| !relay.moved[*i]);
    relay.busy = relay.busy();
    for i in &needed {
        if relay.is_alone(*i) && relay.may_leave(*i, members[*i].desired) {
            relay.send(*i);
        }
    }
    if relay.step.is_empty() {
        relay.widen(&needed);
    }
    if needed.is_empty() {
        for i in open_windows(members) {
            relay.leave(i, members[i].desired);
        }
    }
    relay.step
}

impl<'a> Relay<'a> {
    fn new(members: &'a [Member], cells: &'a Cells, terms: &'a PlanTerms) -> Self {
        let span = |i: usize| cells.span(members[i].published.window);
        let mut goes_last: BTreeMap<(i64, i64), usize> = BTreeMap::new();
        let mut staying: BTreeMap<(i64, i64), usize> = BTreeMap::new();
        let order = |i: usize| (members[i].published.replica, i);
        for (i, member) in members.iter().enumerate() {
            *staying.entry(span(i)).or_default() += 1;
            if !member.surplus {
                let last = goes_last.entry(span(i)).or_insert(i);
                if order(i) < order(*last) {
                    *last = i;
                }
            }
        }
        let last: Vec<bool> = (0..members.len())
            .map(|i| goes_last.get(&span(i)) == Some(&i))
            .collect();
        let lasts: Vec<bool> = members
            .iter()
            .enumerate()
            .map(|(i, member)| {
                let settled = member.published.window == member.desired.window;
                !member.surplus && (settled || last[i])
            })
            .collect();
        let mut lasting = vec![0; cells.len()];
        for i in (0..members.len()).filter(|i| lasts[*i]) {
            let held = cells.held(i, members[i].published.window);
            held.iter().for_each(|cell| lasting[cell] += 1);
        }
        Self {
            members,
            cells,
            terms,
            plain: Plain::new(members, cells, terms, Reliance::Spares),
            last,
            lasts,
            lasting,
            staying,
            moved: vec![false; members.len()],
            busy: Vec::new(),
            step: Vec::new(),
            tries: 0,
        }
    }

    fn full(&self) -> bool {
        self.step.len() >= self.terms.max_concurrent_restarts.max(1)
    }

    /// Whether no other pod with the same window stays.
    fn is_alone(&self, member: usize) -> bool {
        let ends = self.cells.span(self.members[member].published.window);
        self.staying.get(&ends) == Some(&1)
    }

    /// Whether lasting pods serve what a pod leaves behind.
    fn may_leave(&self, member: usize, to: Slot) -> bool {
        let (old, new) = (
            self.cells
                .held(member, self.members[member].published.window),
            self.cells.held(member, to.window),
        );
        let surplus = self.members[member].surplus;
        let remains = |cell: usize| {
            let others = self.lasting[cell] - u32::from(self.lasts[member]);
            let wanted = self.plain.count(cell).full > 0;
            others > 0 || !wanted || self.lasting[cell] == 0 || (new.contains(cell) && !surplus)
        };
        old.iter().all(remains)
    }

    /// Moves a pod if that is safe and leaves every spare pod free.
    fn leave(&mut self, member: usize, to: Slot) -> bool {
        if self.moved[member]
            || self.full()
            || !self.may_leave(member, to)
            || !self.plain.try_move(member, &to, true)
        {
            return false;
        }
        let from = self.members[member].published;
        if self.lasts[member] {
            let held = self.cells.held(member, from.window);
            held.iter().for_each(|cell| self.lasting[cell] -= 1);
        }
        self.lasts[member] = !self.members[member].surplus;
        if self.lasts[member] {
            let held = self.cells.held(member, to.window);
            held.iter().for_each(|cell| self.lasting[cell] += 1);
        }
        if let Some(staying) = self.staying.get_mut(&self.cells.span(from.window)) {
            *staying -= 1;
        }
        self.moved[member] = true;
        self.step.push(WindowChange { member, to });
        true
    }

    /// Sends a spare pod to stand in for this one.
    fn send(&mut self, member: usize) -> bool {
        let served = self
            .cells
            .held(member, self.members[member].published.window);
        let alone: Vec<usize> = served
            .iter()
            .filter(|cell| {
                let count = self.plain.count(*cell);
                count.stay() + count.back <= 1
            })
            .collect();
        // Nothing depends on this pod alone: it waits for a pod that arrives in this step, or because
        // replicas must stay, and a spare pod helps with neither.
        if alone.is_empty() {
            return false;
        }
        let next_to = self.next_to(member);
        for spare in (0..self.members.len()).filter(|i| self.members[*i].surplus) {
            let Member {
                published, desired, ..
            } = self.members[spare];
            if self.moved[spare]
                || self
                    .busy
                    .binary_search(&self.cells.span(published.window))
                    .is_ok()
                || self.tries > MAX_TRIES
            {
                continue;
            }
            self.tries += 1;
            let home = self.cells.held(spare, desired.window);
            // Its own place may be wide enough.
            let serves_at_home =
                published.window != desired.window && alone.iter().all(|cell| home.contains(*cell));
            let to = if serves_at_home { desired } else { next_to };
            let stands_in = self.cells.held(spare, to.window);
            if alone.iter().all(|cell| stands_in.contains(*cell)) && self.leave(spare, to) {
                return true;
            }
        }
        false
    }

    fn busy(&self) -> Vec<(i64, i64)> {
        let waits = |i: &usize| {
            let member = &self.members[*i];
            !member.surplus && !self.moved[*i] && self.may_leave(*i, member.desired)
        };
        let open = open_windows(self.members).into_iter().filter(waits);
        let mut busy: Vec<(i64, i64)> = open
            .map(|i| self.cells.span(self.members[i].published.window))
            .collect();
        busy.sort_unstable();
        busy
    }

    /// The slot of one more replica of a pod's old shard.
    fn next_to(&self, member: usize) -> Slot {
        let Slot { shard, window, .. } = self.members[member].published;
        let of_shard = self.members.iter().map(|member| member.published);
        let replicas = of_shard.filter(|slot| slot.shard == shard);
        Slot {
            shard,
            replica: replicas.map(|slot| slot.replica + 1).max().unwrap_or(0),
            window,
        }
    }

    /// Where shards wait for each other, one pod keeps its old window and loads the new one besides.
    fn widen(&mut self, waiting: &[usize]) {
        let wider = |relay: &Self, i: usize| {
            let to = relay.members[i].detour(relay.terms.now);
            let [before, after] =
                [relay.members[i].published, to].map(|slot| relay.cells.segments(slot.window));
            (before != after).then_some(to)
        };
        for i in waiting {
            if let Some(to) = wider(self, *i)
                && self.leave(*i, to)
            {
                return;
            }
        }
        for i in waiting {
            if wider(self, *i).is_some() && self.is_alone(*i) && self.send(*i) {
                return;
            }
        }
    }
}
