//! Blocks that pods have not loaded, as their sidecars report them: what the planner must keep served, and what people see.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::{Expected, View};
use crate::core::agent_status::AgentStatus;
use crate::core::loaded::BlockRef;
use crate::core::report::{BlockReport, BlocksReport};
use crate::core::rollout::{self, Block, Member, Terms};
use crate::core::text::listed;

/// More blocks than this are not planned with one by one: the rollout waits until fewer are missing.
const MAX_BLOCKS: usize = 1_024;
/// Where gaps are allowed, a pod waits for at most this long until the block that it alone serves is loaded elsewhere.
const PATIENCE: Duration = Duration::from_hours(1);
/// Blocks that a report lists.
const MAX_LISTED: usize = 20;
/// Pods that a report names for one block.
const MAX_NAMED: usize = 5;

/// Blocks that some member lacks, newest first.
#[derive(Debug, Default)]
pub(super) struct Missing {
    blocks: Vec<Block>,
    ids: Vec<BlockRef>,
    /// Those that bind the planner.
    pub(super) binding: Vec<Block>,
    binding_ids: Vec<BlockRef>,
    /// Blocks beyond [`MAX_BLOCKS`].
    beyond: usize,
}

fn status<'a>(pod: &Expected<'a>) -> Option<&'a AgentStatus> {
    pod.view?.answer?.status()
}

impl Missing {
    /// Collects what the members' sidecars report. `at` are the members' positions among the expected pods.
    pub(super) fn collect(
        view: &View<'_>,
        expected: &[Expected<'_>],
        at: &[usize],
        terms: &Terms,
    ) -> Self {
        let mut lacking: BTreeMap<&BlockRef, BTreeSet<usize>> = BTreeMap::new();
        for (member, pod) in at.iter().enumerate() {
            for block in status(&expected[*pod])
                .and_then(|status| status.blocks.as_ref())
                .iter()
                .flat_map(|blocks| &blocks.missing)
            {
                lacking.entry(block).or_default().insert(member);
            }
        }
        let mut all: Vec<(&BlockRef, Block)> = lacking
            .into_iter()
            .map(|(id, lacking)| {
                (
                    id,
                    Block {
                        range: (id.min_time, id.max_time),
                        lacking,
                    },
                )
            })
            .filter(|(_, block)| {
                block.range.0 < block.range.1 && block.is_in(terms.required, terms.now)
            })
            .collect();
        all.sort_by_key(|(id, block)| (std::cmp::Reverse(block.range.1), &id.ulid));
        let beyond = all.len().saturating_sub(MAX_BLOCKS);
        all.truncate(MAX_BLOCKS);
        let patient = |id: &BlockRef| {
            !terms.allow_gap
                || view
                    .missing_for
                    .get(&id.ulid)
                    .is_none_or(|since| *since < PATIENCE)
        };
        let (binding_ids, binding) = all
            .iter()
            .filter(|(id, _)| patient(id))
            .map(|(id, block)| ((*id).clone(), block.clone()))
            .unzip();
        let (ids, blocks) = all
            .into_iter()
            .map(|(id, block)| (id.clone(), block))
            .unzip();
        Self {
            blocks,
            ids,
            binding,
            binding_ids,
            beyond,
        }
    }

    /// Why no step may be planned, if too much is missing for that.
    pub(super) fn too_many(&self) -> Option<String> {
        (self.beyond > 0).then(|| {
            format!(
                "waits until fewer blocks are missing: pods have not loaded {} blocks, and at most {MAX_BLOCKS} are planned with",
                self.beyond + MAX_BLOCKS
            )
        })
    }

    /// What the rollout waits for while only these blocks keep pods where they are.
    pub(super) fn held(
        &self,
        held: &[usize],
        members: &[Member],
        pods: &[&str],
        now: DateTime<Utc>,
    ) -> String {
        let Some((block, id)) = held
            .first()
            .and_then(|first| Some((self.binding.get(*first)?, self.binding_ids.get(*first)?)))
        else {
            return "waits for blocks to be loaded".to_owned();
        };
        let serves = |i: &usize| {
            !block.lacking.contains(i) && block.is_in(members[*i].published.window, now)
        };
        let holders: Vec<&str> = (0..members.len()).filter(serves).map(|i| pods[i]).collect();
        let lacking: Vec<&str> = block.lacking.iter().map(|i| pods[*i]).collect();
        let more = if held.len() > 1 {
            format!(" (and {} more blocks)", held.len() - 1)
        } else {
            String::new()
        };
        format!(
            "waits for {} to load block {}{more}; until then {} must keep serving it. Thanos tries again at its next sync (--sync-block-duration)",
            listed(&lacking, MAX_NAMED),
            shown(id),
            listed(&holders, MAX_NAMED)
        )
    }

    /// Pods that alone serve a block which another pod lacks.
    pub(super) fn single_holders(
        &self,
        members: &[Member],
        terms: &Terms,
    ) -> BTreeMap<usize, BTreeSet<String>> {
        let mut holders: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for (member, block) in rollout::single_holders(members, &self.binding, terms) {
            holders
                .entry(member)
                .or_default()
                .insert(self.binding_ids[block].ulid.clone());
        }
        holders
    }

    /// What the report says of blocks.
    pub(super) fn report(
        &self,
        view: &View<'_>,
        expected: &[Expected<'_>],
        members: &[Member],
        at: &[usize],
        terms: &Terms,
    ) -> BlocksReport {
        let mut report = BlocksReport::default();
        let served = rollout::served_by(members, &self.blocks, terms);
        for ((id, block), served) in self.ids.iter().zip(&self.blocks).zip(served) {
            let Some(served_by) = served else { continue };
            let since = view
                .missing_for
                .get(&id.ulid)
                .and_then(|since| TimeDelta::from_std(*since).ok())
                .unwrap_or_default();
            let block = BlockReport {
                ulid: id.ulid.clone(),
                from: time(id.min_time),
                to: time(id.max_time),
                missing_on: block
                    .lacking
                    .iter()
                    .take(MAX_NAMED)
                    .map(|i| expected[at[*i]].name.clone())
                    .collect(),
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
        let serving = expected
            .iter()
            .filter(|pod| pod.view.is_some_and(|seen| seen.facts.ready))
            .filter_map(status);
        for status in serving.filter(|status| status.applied.is_some()) {
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
        report.outside_windows = outside(expected);
        report
    }
}

/// Blocks that lie outside of every window: older than the oldest begins, or newer than the newest ends.
fn outside(expected: &[Expected<'_>]) -> Option<u64> {
    let serves =
        |status: &&AgentStatus| status.applied.is_some() && status.applied == status.published;
    let buckets = || {
        expected
            .iter()
            .filter_map(status)
            .filter(serves)
            .filter_map(|status| status.blocks.as_ref()?.bucket)
    };
    Some(buckets().map(|bucket| bucket.older).min()? + buckets().map(|bucket| bucket.newer).min()?)
}

/// A block as people look for it.
fn shown(id: &BlockRef) -> String {
    format!(
        "{} ({} .. {})",
        id.ulid,
        time(id.min_time),
        time(id.max_time)
    )
}

pub(super) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// What to add to a settled rollout's message while blocks are not loaded.
pub(super) fn addition(report: &BlocksReport) -> String {
    let first = |blocks: &[BlockReport]| {
        blocks.first().map_or_else(String::new, |block| {
            format!("{} ({} .. {})", block.ulid, block.from, block.to)
        })
    };
    match (report.unserved_total, report.missing_total) {
        (0, 0) => String::new(),
        (0, missing) => format!(
            "; {} not loaded everywhere, the newest {}",
            counted(missing),
            first(&report.missing)
        ),
        (unserved, _) => format!(
            "; {} served by no pod, the newest {}",
            counted(unserved),
            first(&report.unserved)
        ),
    }
}

fn counted(blocks: u32) -> String {
    if blocks == 1 {
        "1 block is".to_owned()
    } else {
        format!("{blocks} blocks are")
    }
}

/// What deserves an Event.
pub(super) fn notices(report: &BlocksReport) -> Vec<(&'static str, String)> {
    let mut notices = Vec::new();
    if let Some(block) = report.unserved.first() {
        let text = format!(
            "{} served by no pod, so queries miss their samples; the newest is {} ({} .. {}), which {} could not load: see the log of thanos there",
            counted(report.unserved_total),
            block.ulid,
            block.from,
            block.to,
            listed(&block.missing_on, MAX_NAMED)
        );
        notices.push(("BlocksUnserved", text));
    }
    if let Some(block) = report.missing.first() {
        let text = format!(
            "{} not loaded by every pod that should have it; the newest is {} ({} .. {}), which {} could not load: other pods serve it and are kept until it is loaded",
            counted(report.missing_total),
            block.ulid,
            block.from,
            block.to,
            listed(&block.missing_on, MAX_NAMED)
        );
        notices.push(("BlocksNotLoaded", text));
    }
    notices
}
