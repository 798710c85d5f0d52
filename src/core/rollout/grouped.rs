//! Each shard's Service is asked and any one member answers: an instant is served while all members of one Service hold
//! it and one of them stays.
//!
//! A member that comes back counts as one that may be asked, so a step looks at both what stays and what returns. Pods
//! first widen to the hull of their old window, their new one and the new one of the shard whose Service they are still
//! in, and only then narrow: then all members of a Service hold its new window whatever has moved already.

use super::segments::Segments;
use super::{Change, Ledger, Member, Place, Standing, hull};
use crate::core::window::Window;

/// Pods that an instant keeps where it has them and the plan wants them; fewer only when nothing else is left.
const REDUNDANT: u32 = 2;

/// One shard's Service.
#[derive(Clone, Debug)]
struct Group {
    /// Members that may be asked at some time during the step.
    asked: u32,
    /// Members that stay throughout.
    stay: u32,
    /// Members after the step.
    after: u32,
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
    /// As `groups`, before the step.
    before: Vec<Group>,
    /// For each segment, pods that serve it before the step.
    served: Vec<u32>,
    /// For each segment, pods that serve it when everything is as planned.
    wanted: Vec<u32>,
    /// The planned window of each shard.
    windows: Vec<Option<Window>>,
    /// Pods of the step, for the number that may be away together.
    away: Vec<u32>,
    /// For each segment, confirmed pods that hold it whatever their Service, before the step and of these those that stay.
    held: Vec<(u32, u32)>,
}

fn add(holds: &mut [u32], range: std::ops::Range<usize>) {
    holds[range].iter_mut().for_each(|count| *count += 1);
}

fn remove(holds: &mut [u32], range: std::ops::Range<usize>) {
    holds[range].iter_mut().for_each(|count| *count = count.saturating_sub(1));
}

impl Group {
    fn during(&self, segment: usize) -> u32 {
        if self.asked_hold[segment] == self.asked { self.stay } else { 0 }
    }

    fn afterwards(&self, segment: usize) -> u32 {
        if self.after_hold[segment] == self.after { self.after } else { 0 }
    }
}

impl<'a> Grouped<'a> {
    pub(super) fn new(members: &'a [Member], segments: Segments) -> Self {
        let count = members.iter().flat_map(|m| [m.published.shard, m.desired.shard]).max().map_or(0, |shard| shard as usize + 1);
        let empty = Group { asked: 0, stay: 0, after: 0, asked_hold: vec![0; segments.len()], after_hold: vec![0; segments.len()] };
        let mut groups = vec![empty.clone(); count];
        let mut planned = vec![empty; count];
        let mut windows = vec![None; count];
        for member in members {
            if member.standing == Standing::Confirmed {
                let held = segments.held(member.published.window);
                let group = &mut groups[member.published.shard as usize];
                (group.asked, group.stay, group.after) = (group.asked + 1, group.stay + 1, group.after + 1);
                add(&mut group.asked_hold, held.clone());
                add(&mut group.after_hold, held);
            }
            let group = &mut planned[member.desired.shard as usize];
            group.after += 1;
            add(&mut group.after_hold, segments.held(member.desired.window));
            windows[member.desired.shard as usize] = Some(member.desired.window);
        }
        let total = |groups: &[Group]| (0..segments.len()).map(|s| groups.iter().map(|group| group.afterwards(s)).sum()).collect();
        let (served, wanted) = (total(&groups), total(&planned));
        let away = vec![0; count];
        let held = (0..segments.len()).map(|s| groups.iter().map(|group| group.after_hold[s]).sum()).map(|held| (held, held)).collect();
        Self { members, before: groups.clone(), groups, segments, served, wanted, windows, away, held }
    }

    fn shift(&mut self, member: usize, to: &Place, back: bool) {
        let from = self.members[member].published;
        let (old, new) = (self.segments.held(from.window), self.segments.held(to.window));
        let confirmed = self.members[member].standing == Standing::Confirmed;
        let (leaving, arriving) = (from.shard as usize, to.shard as usize);
        if back {
            if confirmed {
                let group = &mut self.groups[leaving];
                (group.stay, group.after) = (group.stay + 1, group.after + 1);
                add(&mut group.after_hold, old.clone());
                self.held[old].iter_mut().for_each(|(_, stay)| *stay += 1);
                self.away[leaving] = self.away[leaving].saturating_sub(1);
            }
            let group = &mut self.groups[arriving];
            (group.asked, group.after) = (group.asked.saturating_sub(1), group.after.saturating_sub(1));
            remove(&mut group.asked_hold, new.clone());
            remove(&mut group.after_hold, new);
            return;
        }
        if confirmed {
            let group = &mut self.groups[leaving];
            (group.stay, group.after) = (group.stay.saturating_sub(1), group.after.saturating_sub(1));
            remove(&mut group.after_hold, old.clone());
            self.held[old].iter_mut().for_each(|(_, stay)| *stay = stay.saturating_sub(1));
            self.away[leaving] += 1;
        }
        let group = &mut self.groups[arriving];
        (group.asked, group.after) = (group.asked + 1, group.after + 1);
        add(&mut group.asked_hold, new.clone());
        add(&mut group.after_hold, new);
    }

    /// Whether who asks Services, and who asks every pod, both still find somebody.
    fn covered(&self, segment: usize) -> bool {
        let (held, stay) = self.held[segment];
        let by_pods = held == 0 || stay > 0;
        by_pods && (self.served[segment] == 0 || self.groups.iter().any(|group| group.during(segment) > 0))
    }

    fn redundant(&self, segment: usize, keep_two: bool) -> bool {
        let least = if keep_two { REDUNDANT } else { 1 }.min(self.served[segment]).min(self.wanted[segment]);
        least == 0 || self.groups.iter().map(|group| group.afterwards(segment)).sum::<u32>() >= least
    }
}

impl Ledger for Grouped<'_> {
    fn try_move(&mut self, member: usize, to: &Place, keep_two: bool) -> bool {
        // One member of a Service at a time, unless enough of them stay.
        let leaving = self.members[member].published.shard as usize;
        let full = self.members.iter().filter(|m| m.desired.shard == self.members[member].published.shard && !m.surplus).count();
        if self.away[leaving] > 0 && (self.groups[leaving].stay as usize) < full.max(1) + 1 {
            return false;
        }
        self.shift(member, to, false);
        let safe = (0..self.segments.len()).all(|segment| self.covered(segment) && self.redundant(segment, keep_two));
        if !safe {
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
        let group = &self.before[self.members[member].published.shard as usize];
        let lost = |segment: &usize| {
            let others: u32 = self.before.iter().map(|group| group.during(*segment)).sum();
            group.stay == 1 && others == group.during(*segment)
        };
        let mut gaps = self.segments.held(self.members[member].published.window).filter(lost).map(|segment| self.segments.ends(segment));
        let first = gaps.next()?;
        Some((first.0, gaps.next_back().unwrap_or(first).1))
    }

    fn reset(&mut self) {
        self.groups.clone_from(&self.before);
        self.away.iter_mut().for_each(|away| *away = 0);
        self.held.iter_mut().for_each(|(held, stay)| *stay = *held);
    }
}
