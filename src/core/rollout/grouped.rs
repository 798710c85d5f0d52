//! Each shard's Service is asked and any one member answers: an instant is served while all members of one Service hold
//! it and one of them stays.
//!
//! A member that comes back counts as one that may be asked, so a step looks at both what stays and what returns. Pods
//! first widen to the hull of their old window, their new one and the new one of the shard whose Service they are still
//! in, and only then narrow: then all members of a Service hold its new window whatever has moved already.

use std::ops::Range;

use super::cells::{Cells, Held};
use super::{Change, Ledger, Member, Place, Standing, hull};
use crate::core::window::Window;

/// Pods that an instant keeps where it has them and the plan wants them; fewer only when nothing else is left.
const REDUNDANT: u32 = 2;

/// One shard's Service. Of the segments only those are kept that one of its members may ever hold: with thousands of
/// shards all segments for every Service would be hundreds of MiB. Parts of blocks that some pod lacks are few, and are all kept.
#[derive(Clone, Debug)]
struct Group {
    /// Members that may be asked at some time during the step.
    asked: u32,
    /// Members that stay throughout.
    stay: u32,
    /// Members after the step.
    after: u32,
    /// The segments that are kept.
    segments: Range<usize>,
    /// The parts of blocks.
    parts: Range<usize>,
    /// For each cell that is kept, how many of `asked` hold it.
    asked_hold: Vec<u32>,
    /// For each cell that is kept, how many of `after` hold it.
    after_hold: Vec<u32>,
}

/// All Services.
pub(super) struct Grouped<'a> {
    members: &'a [Member],
    cells: Cells,
    groups: Vec<Group>,
    /// For each cell, Services that serve it during the step.
    during: Vec<u32>,
    /// For each cell, pods that serve it after the step.
    after: Vec<u32>,
    /// For each cell, pods that serve it before the step.
    served: Vec<u32>,
    /// For each cell, pods that serve it when everything is as planned.
    wanted: Vec<u32>,
    /// For each cell, confirmed pods that hold it whatever their Service, before the step and of these those that stay.
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
    fn over(segments: Range<usize>, parts: Range<usize>) -> Self {
        let none = vec![0; segments.len() + parts.len()];
        Self {
            asked: 0,
            stay: 0,
            after: 0,
            segments,
            parts,
            asked_hold: none.clone(),
            after_hold: none,
        }
    }

    /// All cells that are kept.
    fn cells(&self) -> impl Iterator<Item = usize> + use<> {
        self.segments.clone().chain(self.parts.clone())
    }

    /// Where a cell is kept.
    fn index(&self, cell: usize) -> Option<usize> {
        if self.segments.contains(&cell) {
            Some(cell - self.segments.start)
        } else {
            self.parts
                .contains(&cell)
                .then(|| cell - self.parts.start + self.segments.len())
        }
    }

    fn hold(&mut self, asked: bool, held: &Held, back: bool) {
        for cell in held.iter() {
            let Some(index) = self.index(cell) else {
                continue;
            };
            let holds = if asked {
                &mut self.asked_hold
            } else {
                &mut self.after_hold
            };
            holds[index] = shifted(holds[index], back);
        }
    }

    fn during(&self, cell: usize) -> u32 {
        let hold = self.index(cell).map_or(0, |index| self.asked_hold[index]);
        if hold == self.asked { self.stay } else { 0 }
    }

    fn afterwards(&self, cell: usize) -> u32 {
        let hold = self.index(cell).map_or(0, |index| self.after_hold[index]);
        if hold == self.after { self.after } else { 0 }
    }
}

/// For each Service, from the first to the last segment that one of its members may ever hold.
fn kept_segments(
    members: &[Member],
    cells: &Cells,
    windows: &[Option<Window>],
) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = vec![0..0; windows.len()];
    for member in members {
        // What a detour may hold is the most.
        let all = [
            Some(member.published.window),
            Some(member.desired.window),
            windows[member.published.shard as usize],
        ];
        for held in all
            .into_iter()
            .flatten()
            .map(|window| cells.segments(window))
            .filter(|held| !held.is_empty())
        {
            for shard in [member.published.shard, member.desired.shard] {
                let range = &mut ranges[shard as usize];
                *range = if range.start == range.end {
                    held.clone()
                } else {
                    range.start.min(held.start)..range.end.max(held.end)
                };
            }
        }
    }
    ranges
}

/// One more, or one less.
fn shifted(count: u32, less: bool) -> u32 {
    if less {
        count.saturating_sub(1)
    } else {
        count + 1
    }
}

impl<'a> Grouped<'a> {
    pub(super) fn new(members: &'a [Member], cells: Cells) -> Self {
        let count = members
            .iter()
            .flat_map(|m| [m.published.shard, m.desired.shard])
            .max()
            .map_or(0, |shard| shard as usize + 1);
        let (mut windows, mut replicas) = (vec![None; count], vec![0; count]);
        for member in members {
            windows[member.desired.shard as usize] = Some(member.desired.window);
            replicas[member.desired.shard as usize] += u32::from(!member.surplus);
        }
        let mut groups: Vec<Group> = kept_segments(members, &cells, &windows)
            .into_iter()
            .map(|segments| Group::over(segments, cells.all_parts()))
            .collect();
        let mut planned = groups.clone();
        let mut held_by_pods = vec![(0, 0); cells.len()];
        for (i, member) in members.iter().enumerate() {
            if member.standing == Standing::Confirmed {
                let held = cells.held(i, member.published.window);
                let group = &mut groups[member.published.shard as usize];
                (group.asked, group.stay, group.after) =
                    (group.asked + 1, group.stay + 1, group.after + 1);
                group.hold(true, &held, false);
                group.hold(false, &held, false);
                held.iter().for_each(|cell| {
                    held_by_pods[cell] = (held_by_pods[cell].0 + 1, held_by_pods[cell].1 + 1)
                });
            }
            let group = &mut planned[member.desired.shard as usize];
            group.after += 1;
            group.hold(false, &cells.wanted(member.desired.window), false);
        }
        let total = |groups: &[Group], of: fn(&Group, usize) -> u32| {
            let mut total = vec![0; cells.len()];
            for group in groups {
                group
                    .cells()
                    .for_each(|cell| total[cell] += of(group, cell));
            }
            total
        };
        let (served, wanted) = (
            total(&groups, Group::afterwards),
            total(&planned, Group::afterwards),
        );
        let during = total(&groups, |group, cell| u32::from(group.during(cell) > 0));
        let after = served.clone();
        let (away, moved, held) = (vec![0; count], Vec::new(), held_by_pods);
        Self {
            members,
            cells,
            groups,
            during,
            after,
            served,
            wanted,
            held,
            windows,
            replicas,
            away,
            moved,
            pods_too: true,
        }
    }

    /// Changes one Service, and the sums with it.
    fn change(&mut self, shard: usize, change: impl FnOnce(&mut Group)) {
        let group = &mut self.groups[shard];
        for cell in group.cells() {
            self.during[cell] -= u32::from(group.during(cell) > 0);
            self.after[cell] -= group.afterwards(cell);
        }
        change(group);
        for cell in group.cells() {
            self.during[cell] += u32::from(group.during(cell) > 0);
            self.after[cell] += group.afterwards(cell);
        }
    }

    fn shift(&mut self, member: usize, to: &Place, back: bool) {
        let from = self.members[member].published;
        let (old, new) = (
            self.cells.held(member, from.window),
            self.cells.held(member, to.window),
        );
        let (leaving, arriving) = (from.shard as usize, to.shard as usize);
        if self.members[member].standing == Standing::Confirmed {
            self.change(leaving, |group| {
                (group.stay, group.after) =
                    (shifted(group.stay, !back), shifted(group.after, !back));
                group.hold(false, &old, !back);
            });
            old.iter()
                .for_each(|cell| self.held[cell].1 = shifted(self.held[cell].1, !back));
            self.away[leaving] = shifted(self.away[leaving], back);
        }
        self.change(arriving, |group| {
            (group.asked, group.after) = (shifted(group.asked, back), shifted(group.after, back));
            group.hold(true, &new, back);
            group.hold(false, &new, back);
        });
    }

    /// Whether who asks Services, and who asks every pod, both still find somebody.
    fn covered(&self, cell: usize) -> bool {
        let (held, stay) = self.held[cell];
        (!self.pods_too || held == 0 || stay > 0)
            && (self.served[cell] == 0 || self.during[cell] > 0)
    }

    fn redundant(&self, cell: usize, keep_two: bool) -> bool {
        let least = if keep_two { REDUNDANT } else { 1 }
            .min(self.served[cell])
            .min(self.wanted[cell]);
        least == 0 || self.after[cell] >= least
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
            .flat_map(|shard| self.groups[shard].cells())
            .all(|cell| self.covered(cell) && self.redundant(cell, keep_two));
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
        let Member {
            published, desired, ..
        } = self.members[member];
        let mut windows = vec![published.window, desired.window];
        windows.extend(self.windows[published.shard as usize]);
        let window = hull(&windows, self.cells.now());
        (self.cells.segments(window) != self.cells.segments(published.window)).then_some(Place {
            window,
            ..published
        })
    }

    fn gap(&self, member: usize) -> Option<(i64, i64)> {
        let group = &self.groups[self.members[member].published.shard as usize];
        let lost = |segment: &usize| {
            group.stay == 1 && self.during[*segment] == u32::from(group.during(*segment) > 0)
        };
        let mut gaps = self
            .cells
            .segments(self.members[member].published.window)
            .filter(lost)
            .map(|segment| self.cells.ends(segment));
        let first = gaps.next()?;
        Some((first.0, gaps.next_back().unwrap_or(first).1))
    }

    fn holds_block_alone(&self, member: usize) -> bool {
        let Member {
            published,
            desired,
            standing,
            ..
        } = self.members[member];
        let group = &self.groups[published.shard as usize];
        let comes_back = self.cells.held(member, desired.window);
        let alone = |cell: usize| {
            group.stay == 1
                && group.during(cell) > 0
                && self.during[cell] == 1
                && !comes_back.contains(cell)
        };
        standing == Standing::Confirmed && self.cells.all_parts().any(alone)
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
