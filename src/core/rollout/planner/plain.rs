//! The ledger for queriers that query every pod: an instant is served while one of its pods stays.

use super::cells::{CellHolders, Cells};
use super::replicas::replicas;
use super::rule::{REDUNDANT, Reliance, ServerCount};
use super::search::Ledger;
use super::{Member, MemberState, PlanTerms, Slot, WindowChange, hull};

pub(super) struct Plain<'a> {
    members: &'a [Member],
    cells: &'a Cells,
    terms: &'a PlanTerms,
    counts: Vec<ServerCount>,
    reliance: Reliance,
}

impl<'a> Plain<'a> {
    pub(super) fn new(
        members: &'a [Member],
        cells: &'a Cells,
        terms: &'a PlanTerms,
        reliance: Reliance,
    ) -> Self {
        let mut counts = vec![ServerCount::default(); cells.len()];
        let shards = members
            .iter()
            .map(|member| member.desired.shard as usize + 1)
            .max()
            .unwrap_or(0);
        let mut planned = vec![0_u32; shards];
        for member in members.iter().filter(|member| !member.surplus) {
            planned[member.desired.shard as usize] += 1;
        }
        for (i, member) in members.iter().enumerate() {
            if member.state == MemberState::Confirmed {
                for cell in cells.held(i, member.published.window).iter() {
                    counts[cell].held += 1;
                    counts[cell].needed += u32::from(!member.surplus);
                }
            }
            let full = planned[member.desired.shard as usize].max(1);
            for cell in cells.wanted(member.desired.window).iter() {
                let count = &mut counts[cell];
                let smallest = if count.wanted == 0 { full } else { count.full };
                (count.wanted, count.full) = (count.wanted + 1, smallest.min(full));
            }
        }
        for (count, (all, needed)) in counts.iter_mut().zip(replicas(members, cells)) {
            (count.before, count.needed_before) = (all, needed);
        }
        Self {
            members,
            cells,
            terms,
            counts,
            reliance,
        }
    }

    pub(super) fn count(&self, cell: usize) -> ServerCount {
        self.counts[cell]
    }

    /// Makes the move without any check.
    pub(super) fn make(&mut self, change: &WindowChange) {
        self.shift(change.member, &change.to, false);
    }

    pub(super) fn revert(&mut self, change: &WindowChange) {
        self.shift(change.member, &change.to, true);
    }

    /// Whether enough pods stay of all that this member serves. Further moves never mend it.
    pub(super) fn covers(&self, member: usize) -> bool {
        let held = self
            .cells
            .held(member, self.members[member].published.window);
        held.iter()
            .all(|cell| self.counts[cell].covered(self.reliance, self.terms))
    }

    /// Whether these moves together with those before are a safe step. Takes them back.
    pub(super) fn is_safe(&mut self, changes: &[WindowChange]) -> bool {
        for change in changes {
            self.make(change);
        }
        let safe = changes
            .iter()
            .all(|change| self.covers(change.member) && self.keeps(change.member));
        for change in changes {
            self.revert(change);
        }
        safe
    }

    /// Whether enough pods serve all that this member serves after the moves so far.
    pub(super) fn keeps(&self, member: usize) -> bool {
        let held = self
            .cells
            .held(member, self.members[member].published.window);
        held.iter()
            .all(|cell| self.counts[cell].redundant(self.reliance, self.terms))
    }

    fn shift(&mut self, member: usize, to: &Slot, back: bool) {
        let by = |number: &mut u32| {
            if back {
                *number = number.saturating_sub(1);
            } else {
                *number += 1;
            }
        };
        let Member {
            published,
            surplus,
            state,
            ..
        } = self.members[member];
        if state == MemberState::Confirmed {
            for cell in self.cells.held(member, published.window).iter() {
                let count = &mut self.counts[cell];
                by(&mut count.away);
                if !surplus {
                    by(&mut count.needed_away);
                }
            }
        }
        for cell in self.cells.held(member, to.window).iter() {
            by(&mut self.counts[cell].back);
            if !surplus {
                by(&mut self.counts[cell].needed_back);
            }
        }
    }
}

impl Ledger for Plain<'_> {
    fn try_move(&mut self, member: usize, to: &Slot, keep_two: bool) -> bool {
        self.shift(member, to, false);
        let safe = self.covers(member) && (!keep_two || self.keeps(member));
        if !safe {
            self.shift(member, to, true);
        }
        safe
    }

    fn trim(&mut self, moved: &mut Vec<WindowChange>) {
        let held = |change: &WindowChange, window| self.cells.held(change.member, window);
        let both = |change: &WindowChange| {
            (
                held(change, self.members[change.member].published.window),
                held(change, change.to.window),
            )
        };
        let mut ranges: Vec<(CellHolders, CellHolders)> = moved.iter().map(both).collect();
        let mut from = 0;
        loop {
            let kept = |count: &ServerCount| count.redundant(self.reliance, self.terms);
            let covered = |count: &ServerCount| count.covered(self.reliance, self.terms);
            let wrong = |cell: &usize| {
                let count = &self.counts[*cell];
                !(kept(count) && covered(count))
            };
            let Some(cell) = (from..self.counts.len()).find(wrong) else {
                return;
            };
            // A move took this cell away, or it would be as before.
            let uncovered = !covered(&self.counts[cell]);
            let leaves = |(old, new): &(CellHolders, CellHolders)| {
                old.contains(cell) && (uncovered || !new.contains(cell))
            };
            let Some(at) = ranges.iter().rposition(leaves) else {
                return;
            };
            let (change, (_, new)) = (moved.remove(at), ranges.remove(at));
            self.shift(change.member, &change.to, true);
            // The revert lowers counts only within its new window.
            from = new.first().map_or(cell, |first| cell.min(first));
        }
    }

    fn detour(&self, member: usize) -> Option<Slot> {
        let Member {
            published, desired, ..
        } = self.members[member];
        let window = hull(&[published.window, desired.window], self.cells.now());
        // If the plan wants one pod, a detour only postpones the gap.
        let wanted_twice = self.counts[self.cells.segments(window)]
            .iter()
            .all(|count| count.wanted >= REDUNDANT);
        (wanted_twice && self.cells.segments(window) != self.cells.segments(published.window))
            .then_some(Slot { window, ..desired })
    }

    fn gap(&self, member: usize) -> Option<(i64, i64)> {
        let alone = |segment: &usize| self.counts[*segment].held == 1;
        let mut gaps = self
            .cells
            .segments(self.members[member].published.window)
            .filter(alone)
            .map(|segment| self.cells.ends(segment));
        let first = gaps.next()?;
        Some((first.0, gaps.next_back().unwrap_or(first).1))
    }

    fn holds_block_alone(&self, member: usize) -> bool {
        let parts = self.cells.all_parts();
        let Member {
            published,
            desired,
            state,
            ..
        } = self.members[member];
        let (held, comes_back) = (
            self.cells.held(member, published.window),
            self.cells.held(member, desired.window),
        );
        let alone = |cell: usize| {
            parts.contains(&cell) && self.counts[cell].held == 1 && !comes_back.contains(cell)
        };
        state == MemberState::Confirmed && held.iter().any(alone)
    }

    fn count_surplus(&mut self) {
        self.reliance = Reliance::Surplus;
    }

    fn reset(&mut self) {
        for count in &mut self.counts {
            (count.away, count.needed_away) = (0, 0);
            (count.back, count.needed_back) = (0, 0);
        }
    }
}
