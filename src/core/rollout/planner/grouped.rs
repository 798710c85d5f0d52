//! The ledger for shard Services: queriers query each Service and any one member answers, so an
//! instant is served while all members of one Service serve it and one of them stays.
//!
//! A member that returns may be queried, so a step considers both the pods that stay and the pods
//! that return. Pods first widen to the hull of their old window, their new one and the new one of
//! the shard whose Service they are still in, and only then narrow: meanwhile all members of a
//! Service serve its new window, whichever pods have moved already.

use std::ops::Range;

use super::cells::{CellHolders, Cells};
use super::search::Ledger;
use super::{Member, MemberState, Slot, WindowChange, hull};
use crate::core::model::window::Window;

/// The number of pods that an instant keeps if it has them and the plan wants them; fewer only as a
/// last resort.
const REDUNDANT: u32 = 2;

/// One shard's Service. It keeps only the segments that one of its members may ever serve: with
/// thousands of shards, all segments for every Service would take hundreds of MiB. Parts of blocks
/// that some pod lacks are few, and all are kept.
#[derive(Clone, Debug)]
struct Group {
    /// Members that may be queried at some time during the step.
    asked: u32,
    /// Members that stay throughout.
    stay: u32,
    /// Members after the step.
    after: u32,
    /// The segments that are kept.
    segments: Range<usize>,
    /// The parts of blocks.
    parts: Range<usize>,
    /// For each cell that is kept, how many of `asked` serve it.
    asked_hold: Vec<u32>,
    /// For each cell that is kept, how many of `after` serve it.
    after_hold: Vec<u32>,
}

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
    /// For each cell, pods that serve it in the plan.
    wanted: Vec<u32>,
    /// For each cell, the confirmed pods of any Service that serve it before the step, and how many
    /// of these stay.
    held: Vec<(u32, u32)>,
    /// The planned window of each shard.
    windows: Vec<Option<Window>>,
    /// The planned replicas of each shard, without surplus pods.
    replicas: Vec<u32>,
    /// For each shard, pods that are away during the step.
    away: Vec<u32>,
    /// The step so far.
    moved: Vec<(usize, Slot)>,
    /// Whether queriers that query every pod count, too.
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

    /// Position of a cell among the kept ones.
    fn index(&self, cell: usize) -> Option<usize> {
        if self.segments.contains(&cell) {
            Some(cell - self.segments.start)
        } else {
            self.parts
                .contains(&cell)
                .then(|| cell - self.parts.start + self.segments.len())
        }
    }

    fn hold(&mut self, asked: bool, held: &CellHolders, back: bool) {
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
        self.index(cell)
            .map_or(0, |index| self.during_if(self.asked_hold[index]))
    }

    fn afterwards(&self, cell: usize) -> u32 {
        self.index(cell)
            .map_or(0, |index| self.afterwards_if(self.after_hold[index]))
    }

    /// Members that stay, if all that may be queried serve the cell: `hold` of them do.
    const fn during_if(&self, hold: u32) -> u32 {
        if hold == self.asked { self.stay } else { 0 }
    }

    const fn afterwards_if(&self, hold: u32) -> u32 {
        if hold == self.after { self.after } else { 0 }
    }

    /// For each cell that some member serves, whether this Service serves it during the step, and by
    /// how many pods afterwards. These are few of the kept cells.
    fn serves(&self) -> impl Iterator<Item = (usize, u32, u32)> {
        let holds = self.asked_hold.iter().zip(&self.after_hold);
        let held = holds
            .enumerate()
            .filter(|(_, (asked, after))| **asked + **after > 0);
        held.map(|(index, (asked, after))| {
            let during = u32::from(self.during_if(*asked) > 0);
            (self.cell(index), during, self.afterwards_if(*after))
        })
    }

    /// The cell at a position among the kept ones.
    const fn cell(&self, index: usize) -> usize {
        let segments = self.segments.end - self.segments.start;
        if index < segments {
            self.segments.start + index
        } else {
            self.parts.start + index - segments
        }
    }
}

/// Returns for each Service the range of segments that one of its members may ever serve.
fn kept_segments(
    members: &[Member],
    cells: &Cells,
    windows: &[Option<Window>],
) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = vec![0..0; windows.len()];
    for member in members {
        // A detour is the widest window.
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
            if member.state == MemberState::Confirmed {
                let held = cells.held(i, member.published.window);
                let group = &mut groups[member.published.shard as usize];
                (group.asked, group.stay, group.after) =
                    (group.asked + 1, group.stay + 1, group.after + 1);
                group.hold(true, &held, false);
                group.hold(false, &held, false);
                held.iter().for_each(|cell| {
                    held_by_pods[cell] = (held_by_pods[cell].0 + 1, held_by_pods[cell].1 + 1);
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

    /// Changes one Service and the totals.
    fn change(&mut self, shard: usize, change: impl FnOnce(&mut Group)) {
        let group = &mut self.groups[shard];
        for (cell, during, afterwards) in group.serves() {
            self.during[cell] -= during;
            self.after[cell] -= afterwards;
        }
        change(group);
        for (cell, during, afterwards) in group.serves() {
            self.during[cell] += during;
            self.after[cell] += afterwards;
        }
    }

    fn shift(&mut self, member: usize, to: &Slot, back: bool) {
        let from = self.members[member].published;
        let (old, new) = (
            self.cells.held(member, from.window),
            self.cells.held(member, to.window),
        );
        let (leaving, arriving) = (from.shard as usize, to.shard as usize);
        if self.members[member].state == MemberState::Confirmed {
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

    /// Whether queriers of Services and queriers of every pod still find the cell.
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
    fn try_move(&mut self, member: usize, to: &Slot, keep_two: bool) -> bool {
        // Members of a Service move one at a time, unless enough of them stay.
        let leaving = self.members[member].published.shard as usize;
        if self.away[leaving] > 0 && self.groups[leaving].stay < self.replicas[leaving].max(1) + 1 {
            return false;
        }
        self.shift(member, to, false);
        // Other cells did not change, and were safe before.
        let windows = [self.members[member].published.window, to.window]
            .map(|window| self.cells.held(member, window));
        let safe = |cell| self.covered(cell) && self.redundant(cell, keep_two);
        let safe = windows.iter().flat_map(CellHolders::iter).all(safe)
            && [leaving, to.shard as usize]
                .into_iter()
                .flat_map(|shard| self.groups[shard].serves())
                .all(|(cell, _, _)| safe(cell));
        if safe {
            self.moved.push((member, *to));
        } else {
            self.shift(member, to, true);
        }
        safe
    }

    fn trim(&mut self, _moved: &mut Vec<WindowChange>) {
        // `try_move` has checked the redundancy of every move.
    }

    fn detour(&self, member: usize) -> Option<Slot> {
        let Member {
            published, desired, ..
        } = self.members[member];
        let mut windows = vec![published.window, desired.window];
        windows.extend(self.windows[published.shard as usize]);
        let window = hull(&windows, self.cells.now());
        (self.cells.segments(window) != self.cells.segments(published.window)).then_some(Slot {
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
            state,
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
        state == MemberState::Confirmed && self.cells.all_parts().any(alone)
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
