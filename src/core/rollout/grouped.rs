//! Each shard's Service is asked and any one member answers: an instant is served while all members of one Service hold
//! it and one of them stays.
//!
//! A member that comes back counts as one that may be asked, so a step looks at both what stays and what returns. Pods
//! first widen to the hull of their old window, their new one and the new one of the shard whose Service they are still
//! in, and only then narrow: then all members of a Service hold its new window whatever has moved already.

use std::ops::Range;

use super::segments::Segments;
use super::{Change, Ledger, Member, Place, Standing, hull};
use crate::core::window::Window;

/// Pods that an instant keeps where it has them and the plan wants them; fewer only when nothing else is left.
const REDUNDANT: u32 = 2;

/// One shard's Service. Of the segments only those are kept that one of its members may ever hold: with thousands of
/// shards all segments for every Service would be hundreds of MiB.
#[derive(Clone, Debug)]
struct Group {
    /// Members that may be asked at some time during the step.
    asked: u32,
    /// Members that stay throughout.
    stay: u32,
    /// Members after the step.
    after: u32,
    /// The first segment that is kept.
    first: usize,
    /// For each segment, how many of `asked` hold it.
    asked_hold: Vec<u32>,
    /// For each segment, how many of `after` hold it.
    after_hold: Vec<u32>,
}

/// All Services.
pub(super) struct Grouped<'a> {
    members: &'a [Member],
    segments: Segments,
    groups: Vec<Group>,
    /// For each segment, Services that serve it during the step.
    during: Vec<u32>,
    /// For each segment, pods that serve it after the step.
    after: Vec<u32>,
    /// For each segment, pods that serve it before the step.
    served: Vec<u32>,
    /// For each segment, pods that serve it when everything is as planned.
    wanted: Vec<u32>,
    /// For each segment, confirmed pods that hold it whatever their Service, before the step and of these those that stay.
    held: Vec<(u32, u32)>,
    /// The planned window of each shard.
    windows: Vec<Option<Window>>,
    /// The planned replicas of each shard, surplus ones left out.
    replicas: Vec<u32>,
    /// Pods of the step, for the number that may be away together.
    away: Vec<u32>,
    /// The step so far.
    moved: Vec<(usize, Place)>,
    /// Whether who asks every pod matters, too.
    pods_too: bool,
}

impl Group {
    fn over(range: Range<usize>) -> Self {
        let none = vec![0; range.len()];
        Self { asked: 0, stay: 0, after: 0, first: range.start, asked_hold: none.clone(), after_hold: none }
    }

    fn range(&self) -> Range<usize> {
        self.first..self.first + self.asked_hold.len()
    }

    /// The part of a range of segments that is kept, counted from the first one that is.
    fn kept(&self, range: &Range<usize>) -> Range<usize> {
        let within = |segment: usize| segment.clamp(self.first, self.range().end) - self.first;
        within(range.start)..within(range.end)
    }

    fn hold(&mut self, asked: bool, range: &Range<usize>, back: bool) {
        let kept = self.kept(range);
        let holds = if asked { &mut self.asked_hold } else { &mut self.after_hold };
        holds[kept].iter_mut().for_each(|count| *count = shifted(*count, back));
    }

    fn during(&self, segment: usize) -> u32 {
        let hold = segment.checked_sub(self.first).and_then(|i| self.asked_hold.get(i)).copied().unwrap_or(0);
        if hold == self.asked { self.stay } else { 0 }
    }

    fn afterwards(&self, segment: usize) -> u32 {
        let hold = segment.checked_sub(self.first).and_then(|i| self.after_hold.get(i)).copied().unwrap_or(0);
        if hold == self.after { self.after } else { 0 }
    }
}

/// One more, or one less.
fn shifted(count: u32, less: bool) -> u32 {
    if less { count.saturating_sub(1) } else { count + 1 }
}

impl<'a> Grouped<'a> {
    pub(super) fn new(members: &'a [Member], segments: Segments) -> Self {
        let count = members.iter().flat_map(|m| [m.published.shard, m.desired.shard]).max().map_or(0, |shard| shard as usize + 1);
        let (mut windows, mut replicas) = (vec![None; count], vec![0; count]);
        for member in members {
            windows[member.desired.shard as usize] = Some(member.desired.window);
            replicas[member.desired.shard as usize] += u32::from(!member.surplus);
        }
        let mut ranges: Vec<Range<usize>> = vec![0..0; count];
        for member in members {
            // What a detour may hold is the most.
            let all = [Some(member.published.window), Some(member.desired.window), windows[member.published.shard as usize]];
            for held in all.into_iter().flatten().map(|window| segments.held(window)).filter(|held| !held.is_empty()) {
                for shard in [member.published.shard, member.desired.shard] {
                    let range = &mut ranges[shard as usize];
                    *range = if range.start == range.end { held.clone() } else { range.start.min(held.start)..range.end.max(held.end) };
                }
            }
        }
        let mut groups: Vec<Group> = ranges.into_iter().map(Group::over).collect();
        let mut planned = groups.clone();
        let mut held_by_pods = vec![(0, 0); segments.len()];
        for member in members {
            if member.standing == Standing::Confirmed {
                let held = segments.held(member.published.window);
                let group = &mut groups[member.published.shard as usize];
                (group.asked, group.stay, group.after) = (group.asked + 1, group.stay + 1, group.after + 1);
                group.hold(true, &held, false);
                group.hold(false, &held, false);
                held_by_pods[held].iter_mut().for_each(|(held, stay)| (*held, *stay) = (*held + 1, *stay + 1));
            }
            let group = &mut planned[member.desired.shard as usize];
            group.after += 1;
            group.hold(false, &segments.held(member.desired.window), false);
        }
        let total = |groups: &[Group], of: fn(&Group, usize) -> u32| {
            let mut total = vec![0; segments.len()];
            for group in groups {
                group.range().for_each(|segment| total[segment] += of(group, segment));
            }
            total
        };
        let (served, wanted) = (total(&groups, Group::afterwards), total(&planned, Group::afterwards));
        let during = total(&groups, |group, segment| u32::from(group.during(segment) > 0));
        let after = served.clone();
        let (away, moved, held) = (vec![0; count], Vec::new(), held_by_pods);
        Self { members, segments, groups, during, after, served, wanted, held, windows, replicas, away, moved, pods_too: true }
    }

    /// Changes one Service, and the sums with it.
    fn change(&mut self, shard: usize, change: impl FnOnce(&mut Group)) {
        let group = &mut self.groups[shard];
        for segment in group.range() {
            self.during[segment] -= u32::from(group.during(segment) > 0);
            self.after[segment] -= group.afterwards(segment);
        }
        change(group);
        for segment in group.range() {
            self.during[segment] += u32::from(group.during(segment) > 0);
            self.after[segment] += group.afterwards(segment);
        }
    }

    fn shift(&mut self, member: usize, to: &Place, back: bool) {
        let from = self.members[member].published;
        let (old, new) = (self.segments.held(from.window), self.segments.held(to.window));
        let (leaving, arriving) = (from.shard as usize, to.shard as usize);
        if self.members[member].standing == Standing::Confirmed {
            self.change(leaving, |group| {
                (group.stay, group.after) = (shifted(group.stay, !back), shifted(group.after, !back));
                group.hold(false, &old, !back);
            });
            self.held[old].iter_mut().for_each(|(_, stay)| *stay = shifted(*stay, !back));
            self.away[leaving] = shifted(self.away[leaving], back);
        }
        self.change(arriving, |group| {
            (group.asked, group.after) = (shifted(group.asked, back), shifted(group.after, back));
            group.hold(true, &new, back);
            group.hold(false, &new, back);
        });
    }

    /// Whether who asks Services, and who asks every pod, both still find somebody.
    fn covered(&self, segment: usize) -> bool {
        let (held, stay) = self.held[segment];
        (!self.pods_too || held == 0 || stay > 0) && (self.served[segment] == 0 || self.during[segment] > 0)
    }

    fn redundant(&self, segment: usize, keep_two: bool) -> bool {
        let least = if keep_two { REDUNDANT } else { 1 }.min(self.served[segment]).min(self.wanted[segment]);
        least == 0 || self.after[segment] >= least
    }
}

impl Ledger for Grouped<'_> {
    fn try_move(&mut self, member: usize, to: &Place, keep_two: bool) -> bool {
        // One member of a Service at a time, unless enough of them stay.
        let leaving = self.members[member].published.shard as usize;
        if self.away[leaving] > 0 && self.groups[leaving].stay < self.replicas[leaving].max(1) + 1 {
            return false;
        }
        self.shift(member, to, false);
        // Elsewhere nothing has changed, and it was safe.
        let safe = [leaving, to.shard as usize]
            .into_iter()
            .flat_map(|shard| self.groups[shard].range())
            .all(|segment| self.covered(segment) && self.redundant(segment, keep_two));
        if safe {
            self.moved.push((member, *to));
        } else {
            self.shift(member, to, true);
        }
        safe
    }

    fn trim(&mut self, _moved: &mut Vec<Change>) {
        // Redundancy is looked at with every move here.
    }

    fn detour(&self, member: usize) -> Option<Place> {
        let Member { published, desired, .. } = self.members[member];
        let mut windows = vec![published.window, desired.window];
        windows.extend(self.windows[published.shard as usize]);
        let window = hull(&windows, self.segments.now());
        (self.segments.held(window) != self.segments.held(published.window)).then_some(Place { window, ..published })
    }

    fn gap(&self, member: usize) -> Option<(i64, i64)> {
        let group = &self.groups[self.members[member].published.shard as usize];
        let lost = |segment: &usize| group.stay == 1 && self.during[*segment] == u32::from(group.during(*segment) > 0);
        let mut gaps = self.segments.held(self.members[member].published.window).filter(lost).map(|segment| self.segments.ends(segment));
        let first = gaps.next()?;
        Some((first.0, gaps.next_back().unwrap_or(first).1))
    }

    fn services_only(&mut self) {
        self.pods_too = false;
    }

    fn reset(&mut self) {
        while let Some((member, to)) = self.moved.pop() {
            self.shift(member, &to, true);
        }
    }
}
