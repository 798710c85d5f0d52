//! Who serves the blocks that some pod lacks.

use std::collections::BTreeMap;

use super::cells::{Block, Cells};
use super::{Discovery, Member, Standing, Terms};

/// Blocks that a pod which has to move serves, and some other pod lacks.
pub(super) fn holding(
    members: &[Member],
    blocks: &[Block],
    terms: &Terms,
    open: &[usize],
) -> Vec<usize> {
    let serves = |i: usize, block: &Block| {
        let member = &members[i];
        member.standing == Standing::Confirmed
            && !block.lacking.contains(&i)
            && block.is_in(member.published.window, terms.now)
    };
    (0..blocks.len())
        .filter(|b| open.iter().any(|i| serves(*i, &blocks[*b])))
        .collect()
}

/// For each block, the confirmed pod that alone serves a part of it within the required range, if there is one.
#[must_use]
pub fn single_holders(members: &[Member], blocks: &[Block], terms: &Terms) -> Vec<(usize, usize)> {
    if blocks.is_empty() {
        // As in nearly every reconcile.
        return Vec::new();
    }
    let cells = Cells::new(members, blocks, terms);
    let mut found = Vec::new();
    for (b, block) in blocks.iter().enumerate() {
        let confirmed = |(i, member): &(usize, &Member)| {
            member.standing == Standing::Confirmed
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

/// For each block, how many confirmed pods serve each of its parts within the required range, at the least; behind shard
/// Services, how many Services do by all of their confirmed members. `None` for a block outside of that range.
#[must_use]
pub fn served_by(members: &[Member], blocks: &[Block], terms: &Terms) -> Vec<Option<u32>> {
    if blocks.is_empty() {
        return Vec::new();
    }
    let cells = Cells::new(members, blocks, terms);
    let confirmed = |(_, member): &(usize, &Member)| member.standing == Standing::Confirmed;
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
