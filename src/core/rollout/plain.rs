//! Every pod is asked by every querier: an instant is served while one pod that holds it stays.

use super::cells::{Cells, Held};
use super::{Change, Ledger, Member, Place, Standing, hull};

/// Pods that an instant keeps where it has them and the plan wants them.
const REDUNDANT: u32 = 2;

/// Counts for one cell.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Confirmed pods that hold it, before the step.
    held: u32,
    /// Of these, pods that are away during the step.
    away: u32,
    /// Of those that hold it, pods that the plan cannot do without.
    needed: u32,
    /// Of those that are away, pods that the plan cannot do without.
    needed_away: u32,
    /// Pods of the step that hold it afterwards.
    back: u32,
    /// Pods that hold it when everything is as planned.
    wanted: u32,
    /// Replicas that the plan wants of the smallest shard here.
    full: u32,
}

/// Counts for all cells.
pub(super) struct Plain<'a> {
    members: &'a [Member],
    cells: Cells,
    counts: Vec<Count>,
    surplus_counts: bool,
}

impl Count {
    fn stay(self) -> u32 {
        self.held - self.away
    }

    /// Whether somebody stays, and as many as the plan wants if more than one is away. Pods that the plan could do without
    /// may be scaled away before the others are back, so they do not count beside those that it needs.
    fn covered(self, surplus_counts: bool) -> bool {
        let lasting = if self.needed == 0 {
            self.stay()
        } else {
            self.needed - self.needed_away
        };
        let stay = if surplus_counts { self.stay() } else { lasting };
        self.away == 0 || (stay >= 1 && (self.away == 1 || lasting >= self.full))
    }

    fn redundant(self) -> bool {
        self.stay() + self.back >= REDUNDANT.min(self.held).min(self.wanted)
    }
}

impl<'a> Plain<'a> {
    pub(super) fn new(members: &'a [Member], cells: Cells) -> Self {
        let mut counts = vec![
            Count {
                full: u32::MAX,
                ..Count::default()
            };
            cells.len()
        ];
        let shards = members
            .iter()
            .map(|member| member.desired.shard as usize + 1)
            .max()
            .unwrap_or(0);
        let mut replicas = vec![0_u32; shards];
        for member in members.iter().filter(|member| !member.surplus) {
            replicas[member.desired.shard as usize] += 1;
        }
        for (i, member) in members.iter().enumerate() {
            if member.standing == Standing::Confirmed {
                for cell in cells.held(i, member.published.window).iter() {
                    counts[cell].held += 1;
                    counts[cell].needed += u32::from(!member.surplus);
                }
            }
            let full = replicas[member.desired.shard as usize].max(1);
            for cell in cells.wanted(member.desired.window).iter() {
                counts[cell].wanted += 1;
                counts[cell].full = counts[cell].full.min(full);
            }
        }
        Self {
            members,
            cells,
            counts,
            surplus_counts: false,
        }
    }

    fn shift(&mut self, member: usize, to: &Place, back: bool) {
        let by = |number: &mut u32| {
            if back {
                *number = number.saturating_sub(1)
            } else {
                *number += 1
            }
        };
        let Member {
            published,
            surplus,
            standing,
            ..
        } = self.members[member];
        if standing == Standing::Confirmed {
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
        }
    }
}

impl Ledger for Plain<'_> {
    fn try_move(&mut self, member: usize, to: &Place, keep_two: bool) -> bool {
        self.shift(member, to, false);
        let touched = self
            .cells
            .held(member, self.members[member].published.window);
        let safe = touched
            .iter()
            .map(|cell| self.counts[cell])
            .all(|count| count.covered(self.surplus_counts) && (!keep_two || count.redundant()));
        if !safe {
            self.shift(member, to, true);
        }
        safe
    }

    fn trim(&mut self, moved: &mut Vec<Change>) {
        let held = |change: &Change, window| self.cells.held(change.member, window);
        let both = |change: &Change| {
            (
                held(change, self.members[change.member].published.window),
                held(change, change.to.window),
            )
        };
        let mut ranges: Vec<(Held, Held)> = moved.iter().map(both).collect();
        let mut from = 0;
        while let Some(cell) =
            (from..self.counts.len()).find(|cell| !self.counts[*cell].redundant())
        {
            // Somebody left, or it would be as redundant as before.
            let leaves = |(old, new): &(Held, Held)| old.contains(cell) && !new.contains(cell);
            let Some(at) = ranges.iter().rposition(leaves) else {
                return;
            };
            let (change, (_, new)) = (moved.remove(at), ranges.remove(at));
            self.shift(change.member, &change.to, true);
            // Only where it would have come back to there is less now.
            from = new.first().map_or(cell, |first| cell.min(first));
        }
    }

    fn detour(&self, member: usize) -> Option<Place> {
        let Member {
            published, desired, ..
        } = self.members[member];
        let window = hull(&[published.window, desired.window], self.cells.now());
        // Where the plan wants one pod, a detour only puts the gap off.
        let wanted_twice = self.counts[self.cells.segments(window)]
            .iter()
            .all(|count| count.wanted >= REDUNDANT);
        (wanted_twice && self.cells.segments(window) != self.cells.segments(published.window))
            .then_some(Place { window, ..desired })
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
            standing,
            ..
        } = self.members[member];
        let (held, comes_back) = (
            self.cells.held(member, published.window),
            self.cells.held(member, desired.window),
        );
        let alone = |cell: usize| {
            parts.contains(&cell) && self.counts[cell].held == 1 && !comes_back.contains(cell)
        };
        standing == Standing::Confirmed && held.iter().any(alone)
    }

    fn count_surplus(&mut self) {
        self.surplus_counts = true;
    }

    fn reset(&mut self) {
        self.counts
            .iter_mut()
            .for_each(|count| (count.away, count.needed_away, count.back) = (0, 0, 0));
    }
}
