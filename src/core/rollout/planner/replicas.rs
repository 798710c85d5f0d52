//! How many replicas each cell has, read from the published slots: the planner has no memory of the
//! plan before.
//!
//! Pods at their planned window are one layer, all others another. Within a layer, shards that
//! overlap count once, with the fewer of their pods: in a settled plan that is what the plan wants.
//! During a rollout the layers add up to what the old plan wanted, or more. A layer without the form
//! of a plan, for instance after a second change of plan, counts every pod.

use std::collections::BTreeMap;

use super::cells::Cells;
use super::{Member, MemberState};

/// The fewest and all pods of one layer on one cell.
#[derive(Clone, Copy, Default)]
struct Layer {
    least: Option<u32>,
    sum: u32,
}

impl Layer {
    fn add(&mut self, pods: u32) {
        if pods > 0 {
            self.least = Some(self.least.map_or(pods, |least| least.min(pods)));
            self.sum += pods;
        }
    }
}

/// Returns for each cell the replicas of all confirmed pods, and those of pods that are not surplus.
pub(super) fn replicas(members: &[Member], cells: &Cells) -> Vec<(u32, u32)> {
    let mut found = vec![(0, 0); cells.len()];
    for settled in [false, true] {
        let layer: Vec<usize> = (0..members.len())
            .filter(|i| {
                let member = &members[*i];
                member.state == MemberState::Confirmed
                    && (member.published.window == member.desired.window) == settled
            })
            .collect();
        let counts = count(members, &layer, cells);
        let as_plan = is_plan(members, &layer, cells);
        let number = |layer: Layer| {
            if as_plan {
                layer.least.unwrap_or(0)
            } else {
                layer.sum
            }
        };
        for (found, (all, needed)) in found.iter_mut().zip(counts) {
            found.0 += number(all);
            found.1 += number(needed);
        }
    }
    found
}

fn count(members: &[Member], layer: &[usize], cells: &Cells) -> Vec<(Layer, Layer)> {
    let mut by_window: BTreeMap<(i64, i64), Vec<usize>> = BTreeMap::new();
    for i in layer {
        let ends = cells.span(members[*i].published.window);
        by_window.entry(ends).or_default().push(*i);
    }
    let mut layers = vec![(Layer::default(), Layer::default()); cells.len()];
    let mut pods = vec![(0, 0); cells.len()];
    for group in by_window.values() {
        let held = |i: &usize| cells.held(*i, members[*i].published.window);
        for i in group {
            for cell in held(i).iter() {
                pods[cell].0 += 1;
                pods[cell].1 += u32::from(!members[*i].surplus);
            }
        }
        for cell in group
            .iter()
            .flat_map(|i| held(i).iter().collect::<Vec<_>>())
        {
            let (all, needed) = std::mem::take(&mut pods[cell]);
            layers[cell].0.add(all);
            layers[cell].1.add(needed);
        }
    }
    layers
}

/// Whether each shard has one window, and the windows are in the order of the shards.
fn is_plan(members: &[Member], layer: &[usize], cells: &Cells) -> bool {
    let mut windows: Vec<(u32, (i64, i64))> = layer
        .iter()
        .map(|i| {
            let slot = members[*i].published;
            (slot.shard, cells.span(slot.window))
        })
        .collect();
    windows.sort_unstable();
    windows.dedup();
    windows.windows(2).all(|pair| {
        let [
            (newer, (newer_from, newer_to)),
            (older, (older_from, older_to)),
        ] = *pair
        else {
            return true;
        };
        newer < older && older_from < newer_from && older_to < newer_to
    })
}
