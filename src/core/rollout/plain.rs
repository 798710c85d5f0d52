//! Every pod is asked by every querier: an instant is served while one pod that holds it stays.

use std::ops::Range;

use super::segments::Segments;
use super::{Change, Ledger, Member, Place, Standing, hull};

/// Pods that an instant keeps where it has them and the plan wants them.
const REDUNDANT: u32 = 2;

/// Counts for one segment.
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

/// Counts for all segments.
pub(super) struct Plain<'a> {
    members: &'a [Member],
    segments: Segments,
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
        let lasting = if self.needed == 0 { self.stay() } else { self.needed - self.needed_away };
        let stay = if surplus_counts { self.stay() } else { lasting };
        self.away == 0 || (stay >= 1 && (self.away == 1 || lasting >= self.full))
    }

    fn redundant(self) -> bool {
        self.stay() + self.back >= REDUNDANT.min(self.held).min(self.wanted)
    }
}

impl<'a> Plain<'a> {
    pub(super) fn new(members: &'a [Member], segments: Segments) -> Self {
        let mut counts = vec![Count { full: u32::MAX, ..Count::default() }; segments.len()];
        let shards = members.iter().map(|member| member.desired.shard as usize + 1).max().unwrap_or(0);
        let mut replicas = vec![0_u32; shards];
        for member in members.iter().filter(|member| !member.surplus) {
            replicas[member.desired.shard as usize] += 1;
        }
        for member in members {
            if member.standing == Standing::Confirmed {
                for count in &mut counts[segments.held(member.published.window)] {
                    count.held += 1;
                    count.needed += u32::from(!member.surplus);
                }
            }
            let full = replicas[member.desired.shard as usize].max(1);
            for count in &mut counts[segments.held(member.desired.window)] {
                count.wanted += 1;
                count.full = count.full.min(full);
            }
        }
        Self { members, segments, counts, surplus_counts: false }
    }

    fn shift(&mut self, member: usize, to: &Place, back: bool) {
        let by = |number: &mut u32| if back { *number = number.saturating_sub(1) } else { *number += 1 };
        let Member { published, surplus, standing, .. } = self.members[member];
        if standing == Standing::Confirmed {
            for count in &mut self.counts[self.segments.held(published.window)] {
                by(&mut count.away);
                if !surplus {
                    by(&mut count.needed_away);
                }
            }
        }
        let there = self.segments.held(to.window);
        self.counts[there].iter_mut().for_each(|count| by(&mut count.back));
    }
}

impl Ledger for Plain<'_> {
    fn try_move(&mut self, member: usize, to: &Place, keep_two: bool) -> bool {
        self.shift(member, to, false);
        let touched = self.segments.held(self.members[member].published.window);
        let safe = self.counts[touched].iter().all(|count| count.covered(self.surplus_counts) && (!keep_two || count.redundant()));
        if !safe {
            self.shift(member, to, true);
        }
        safe
    }

    fn trim(&mut self, moved: &mut Vec<Change>) {
        let held = |place: &Place| self.segments.held(place.window);
        let mut ranges: Vec<_> = moved.iter().map(|change| (held(&self.members[change.member].published), held(&change.to))).collect();
        let mut from = 0;
        while let Some(segment) = (from..self.counts.len()).find(|segment| !self.counts[*segment].redundant()) {
            // Somebody left, or it would be as redundant as before.
            let leaves = |(old, new): &(Range<usize>, Range<usize>)| old.contains(&segment) && !new.contains(&segment);
            let Some(at) = ranges.iter().rposition(leaves) else { return };
            let (change, (_, new)) = (moved.remove(at), ranges.remove(at));
            self.shift(change.member, &change.to, true);
            // Only where it would have come back to there is less now.
            from = segment.min(new.start);
        }
    }

    fn detour(&self, member: usize) -> Option<Place> {
        let Member { published, desired, .. } = self.members[member];
        let window = hull(&[published.window, desired.window], self.segments.now());
        // Where the plan wants one pod, a detour only puts the gap off.
        let wanted_twice = self.counts[self.segments.held(window)].iter().all(|count| count.wanted >= REDUNDANT);
        (wanted_twice && self.segments.held(window) != self.segments.held(published.window)).then_some(Place { window, ..desired })
    }

    fn gap(&self, member: usize) -> Option<(i64, i64)> {
        let alone = |segment: &usize| self.counts[*segment].held == 1;
        let mut gaps = self.segments.held(self.members[member].published.window).filter(alone).map(|segment| self.segments.ends(segment));
        let first = gaps.next()?;
        Some((first.0, gaps.next_back().unwrap_or(first).1))
    }

    fn count_surplus(&mut self) {
        self.surplus_counts = true;
    }

    fn reset(&mut self) {
        self.counts.iter_mut().for_each(|count| (count.away, count.needed_away, count.back) = (0, 0, 0));
    }
}
