//! Blocks that pods have not loaded, as their sidecars report them: the planner must keep them
//! served, and users see them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::TimeDelta;

use super::context::{Context, Expected, Missing, rfc3339};
use super::messages::{self, MAX_NAMED};
use crate::core::agent::loaded::BlockRef;
use crate::core::agent::status::AgentStatus;
use crate::core::rollout::planner::{self, CellBlock};
use crate::core::rollout::report::{BlockReport, BlocksReport};

/// The planner is given at most this many blocks; while more are missing, the rollout waits.
const MAX_BLOCKS: usize = 1_024;
/// While gaps are allowed, a pod waits for at most this long until the block that it alone serves
/// is loaded elsewhere.
const PATIENCE: Duration = Duration::from_hours(1);
/// Blocks that a report lists.
const MAX_LISTED: usize = 20;

impl Missing {
    /// Collects the blocks that the members' sidecars report.
    pub(super) fn collect(context: &Context<'_>) -> Self {
        let (view, terms) = (context.view, &context.terms);
        let mut lacking: BTreeMap<&BlockRef, BTreeSet<usize>> = BTreeMap::new();
        for member in 0..context.members.len() {
            let status = context.pod(member).status();
            let blocks = status.and_then(|status| status.blocks.as_ref());
            for block in blocks.iter().flat_map(|blocks| &blocks.missing) {
                lacking.entry(block).or_default().insert(member);
            }
        }
        let block = |(id, lacking): (&BlockRef, BTreeSet<usize>)| {
            let range = (id.min_time, id.max_time);
            (id.clone(), CellBlock { range, lacking })
        };
        let mut all: Vec<(BlockRef, CellBlock)> = lacking
            .into_iter()
            .map(block)
            .filter(|(_, block)| {
                block.range.0 < block.range.1 && block.is_in(terms.required, terms.now)
            })
            .collect();
        all.sort_by(|(a, _), (b, _)| {
            (Reverse(a.max_time), &a.ulid).cmp(&(Reverse(b.max_time), &b.ulid))
        });
        let beyond = all.len().saturating_sub(MAX_BLOCKS);
        all.truncate(MAX_BLOCKS);
        let binds = |(id, _): &&(BlockRef, CellBlock)| {
            let since = view.missing_for.get(&id.ulid);
            !terms.allow_gap || since.is_none_or(|since| *since < PATIENCE)
        };
        let (binding_ids, binding) = all.iter().filter(binds).cloned().unzip();
        let (ids, blocks) = all.into_iter().unzip();
        Self {
            blocks,
            ids,
            binding,
            binding_ids,
            beyond,
        }
    }

    /// Why no step can be planned, if too many blocks are missing.
    pub(super) fn too_many(&self) -> Option<String> {
        (self.beyond > 0).then(|| messages::too_many_blocks(self.beyond + MAX_BLOCKS, MAX_BLOCKS))
    }

    /// What the rollout waits for while only the blocks `held` keep pods from moving.
    pub(super) fn held(&self, held: &[usize], context: &Context<'_>) -> String {
        let Some((block, id)) = held
            .first()
            .and_then(|first| Some((self.binding.get(*first)?, self.binding_ids.get(*first)?)))
        else {
            return "waits for blocks to be loaded".to_owned();
        };
        let name = |member: usize| context.pod(member).name.as_str();
        let serves = |i: &usize| {
            let window = context.members[*i].published.window;
            !block.lacking.contains(i) && block.is_in(window, context.terms.now)
        };
        let members = 0..context.members.len();
        let holders: Vec<&str> = members.filter(serves).map(name).collect();
        let lacking: Vec<&str> = block.lacking.iter().map(|i| name(*i)).collect();
        let (from, to) = (rfc3339(id.min_time), rfc3339(id.max_time));
        let block = format!("{} ({from} .. {to})", id.ulid);
        messages::waits_for_block(&lacking, &block, held.len(), &holders)
    }

    /// By member, the blocks that it alone serves and another pod lacks.
    pub(super) fn single_holders(
        &self,
        context: &Context<'_>,
    ) -> BTreeMap<usize, BTreeSet<String>> {
        let mut holders: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        let found = planner::single_holders(&context.members, &self.binding, &context.terms);
        for (member, block) in found {
            holders
                .entry(member)
                .or_default()
                .insert(self.binding_ids[block].ulid.clone());
        }
        holders
    }

    pub(super) fn report(&self, context: &Context<'_>) -> BlocksReport {
        let view = context.view;
        let mut report = BlocksReport::default();
        let served = planner::served_by(&context.members, &self.blocks, &context.terms);
        for ((id, block), served) in self.ids.iter().zip(&self.blocks).zip(served) {
            let Some(served_by) = served else { continue };
            let since = view
                .missing_for
                .get(&id.ulid)
                .and_then(|since| TimeDelta::from_std(*since).ok())
                .unwrap_or_default();
            let lacking = block.lacking.iter().take(MAX_NAMED);
            let block = BlockReport {
                ulid: id.ulid.clone(),
                from: rfc3339(id.min_time),
                to: rfc3339(id.max_time),
                missing_on: lacking.map(|i| context.pod(*i).name.clone()).collect(),
                served_by,
                since_unix_seconds: (view.now - since).timestamp(),
            };
            let (total, list) = if served_by == 0 {
                (&mut report.unserved_total, &mut report.unserved)
            } else {
                (&mut report.missing_total, &mut report.missing)
            };
            *total += 1;
            if list.len() < MAX_LISTED {
                list.push(block);
            }
        }
        report.missing_total = report
            .missing_total
            .saturating_add(u32::try_from(self.beyond).unwrap_or(u32::MAX));
        let serving = context.pods.iter().filter(|pod| pod.serves().is_some());
        for status in serving.filter_map(Expected::status) {
            match &status.blocks {
                Some(blocks) => {
                    report.known_pods += 1;
                    if let Some(bucket) = blocks.bucket {
                        report.bucket_total = report.bucket_total.max(Some(bucket.total));
                    }
                }
                None => report.unknown_pods += 1,
            }
        }
        report.outside_windows = outside(&context.pods);
        report
    }
}

/// Blocks outside every window: older than the oldest begins, or newer than the newest ends.
fn outside(pods: &[Expected<'_>]) -> Option<u64> {
    let serves =
        |status: &&AgentStatus| status.applied.is_some() && status.applied == status.published;
    let buckets = || {
        pods.iter()
            .filter_map(Expected::status)
            .filter(serves)
            .filter_map(|status| status.blocks.as_ref()?.bucket)
    };
    Some(buckets().map(|bucket| bucket.older).min()? + buckets().map(|bucket| bucket.newer).min()?)
}
