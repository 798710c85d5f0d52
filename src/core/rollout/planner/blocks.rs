//! Which pods serve the blocks that some pod lacks.

use std::collections::BTreeMap;

use super::cells::{CellBlock, Cells};
use super::{Discovery, Member, MemberState, PlanTerms};

/// Returns the blocks that a pod which must move serves and another pod lacks.
pub(super) fn holding(
    members: &[Member],
    blocks: &[CellBlock],
    terms: &PlanTerms,
    open: &[usize],
) -> Vec<usize> {
    let serves = |i: usize, block: &CellBlock| {
        let member = &members[i];
        member.state == MemberState::Confirmed
            && !block.lacking.contains(&i)
            && block.is_in(member.published.window, terms.now)
    };
    (0..blocks.len())
        .filter(|b| open.iter().any(|i| serves(*i, &blocks[*b])))
        .collect()
}

/// Returns pairs of a member and a block: the member is the only confirmed pod that serves some part
/// of the block within the required range.
#[must_use]
pub fn single_holders(
    members: &[Member],
    blocks: &[CellBlock],
    terms: &PlanTerms,
) -> Vec<(usize, usize)> {
    if blocks.is_empty() {
        // The usual case.
        return Vec::new();
    }
    let cells = Cells::new(members, blocks, terms);
    let mut found = Vec::new();
    for (b, block) in blocks.iter().enumerate() {
        let confirmed = |(i, member): &(usize, &Member)| {
            member.state == MemberState::Confirmed
                && !block.lacking.contains(i)
                && block.is_in(member.published.window, terms.now)
        };
        let holders: Vec<_> = members
            .iter()
            .enumerate()
            .filter(confirmed)
            .map(|(i, m)| (i, cells.held(i, m.published.window)))
            .collect();
        for cell in cells.parts(b) {
            let mut holding = holders.iter().filter(|(_, held)| held.contains(cell));
            if let (Some((alone, _)), None) = (holding.next(), holding.next()) {
                found.push((*alone, b));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Returns for each block the least number of confirmed pods that serve any of its parts within the
/// required range; with shard Services, the least number of Services of which all confirmed members
/// do. `None` for a block outside that range.
#[must_use]
pub fn served_by(members: &[Member], blocks: &[CellBlock], terms: &PlanTerms) -> Vec<Option<u32>> {
    if blocks.is_empty() {
        return Vec::new();
    }
    let cells = Cells::new(members, blocks, terms);
    let confirmed = |(_, member): &(usize, &Member)| member.state == MemberState::Confirmed;
    let mut pods = vec![0_u32; cells.len()];
    let mut by_shard: BTreeMap<u32, (u32, BTreeMap<usize, u32>)> = BTreeMap::new();
    let parts = cells.all_parts();
    for (i, member) in members.iter().enumerate().filter(confirmed) {
        let (count, held) = by_shard.entry(member.published.shard).or_default();
        *count += 1;
        for cell in cells
            .held(i, member.published.window)
            .iter()
            .filter(|cell| parts.contains(cell))
        {
            pods[cell] += 1;
            *held.entry(cell).or_default() += 1;
        }
    }
    if terms.discovery == Discovery::ShardServices {
        pods.fill(0);
        for (count, held) in by_shard.values() {
            held.iter()
                .filter(|(_, holds)| *holds == count)
                .for_each(|(cell, _)| pods[*cell] += 1);
        }
    }
    (0..blocks.len())
        .map(|b| cells.parts(b).map(|cell| pods[cell]).min())
        .collect()
}
