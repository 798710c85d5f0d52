//! The blocks of the simulated bucket: which pods load them, which fail to, and whether queriers
//! still find them.

use super::*;
use crate::core::agent::last_load::LastLoad;
use crate::core::agent::loaded::{BlockRef, LoadedBlocks};

/// A block of the bucket, and the pods that fail to load it until then.
#[derive(Clone, Debug)]
pub(in super::super) struct Bucketed {
    pub(in super::super) id: BlockRef,
    pub(in super::super) fails_on: BTreeSet<String>,
    pub(in super::super) until: u64,
    /// Whether every querier has found it.
    pub(in super::super) found: bool,
}

/// Thanos syncs with the bucket this often. Seconds.
const SYNC: u64 = 30;
impl World {
    /// A block of some days, so many days ago, that these pods fail to load for so many seconds.
    pub(in super::super) fn upload(
        &mut self,
        days_ago: i64,
        fails_on: impl IntoIterator<Item = String>,
        seconds: u64,
    ) {
        let max_time = self.now() - TimeDelta::days(days_ago);
        let id = BlockRef {
            ulid: format!("01BLOCK{:019}", self.blocks.len()),
            min_time: max_time - TimeDelta::days(2),
            max_time,
        };
        let until = self.at.saturating_add(seconds);
        self.blocks.push(Bucketed {
            id,
            fails_on: fails_on.into_iter().collect(),
            until,
            found: false,
        });
    }

    /// Whether thanos with this window loads the block.
    fn in_window(&self, block: usize, window: Window) -> bool {
        let (id, now) = (&self.blocks[block].id, self.now());
        id.max_time >= window.min.at(now) && id.min_time <= window.max.at(now)
    }

    pub(super) fn load(&self, pod: &mut Pod, restarted: bool) {
        let kept = if restarted {
            BTreeSet::new()
        } else {
            std::mem::take(&mut pod.loaded)
        };
        let fails = |block: usize| {
            self.at < self.blocks[block].until
                && self.blocks[block].fails_on.contains(&pod.facts.name)
        };
        let wanted = (0..self.blocks.len()).filter(|block| {
            pod.applied
                .is_some_and(|window| self.in_window(*block, window))
        });
        pod.loaded = wanted
            .filter(|block| kept.contains(block) || !fails(*block))
            .collect();
        pod.next_sync = self.at + SYNC;
    }

    pub(super) fn reported(&self, pod: &Pod) -> LoadedBlocks {
        let wanted = |block: &usize| {
            pod.applied
                .is_some_and(|window| self.in_window(*block, window))
        };
        let missing: Vec<BlockRef> = (0..self.blocks.len())
            .filter(|b| wanted(b) && !pod.loaded.contains(b))
            .map(|b| self.blocks[b].id.clone())
            .collect();
        let (loaded, lacks) = (pod.loaded.len() as u64, missing.len() as u64);
        LoadedBlocks {
            expected: loaded + lacks,
            loaded,
            missing_total: lacks,
            missing,
            last_sync_unix_seconds: self.now().timestamp(),
            bucket: None,
        }
    }

    /// The load of the window that the pod serves, or the one before while it loads.
    pub(super) fn last_load(&self, pod: &Pod) -> Option<LastLoad> {
        let before = match &pod.answer {
            PodAnswer::Status(status) => status.last_load,
            PodAnswer::Unreachable(_) => None,
        };
        let serves = pod.applied.filter(|_| pod.loading_until.is_none());
        let (Some(window), Some(millis)) = (serves, self.loads_take_millis) else {
            return before;
        };
        before
            .filter(|load| load.window == window)
            .or(Some(LastLoad {
                window,
                millis,
                blocks: Some(pod.loaded.len() as u64),
                blocks_new: Some(pod.loaded.len() as u64),
            }))
    }

    /// Whether a block that every querier has found before is still found by each.
    pub(in super::super) fn finds_blocks(&mut self) -> Result<(), String> {
        let now = self.now();
        for block in 0..self.blocks.len() {
            let id = &self.blocks[block].id;
            let instants = [1, 24, 47].map(|hours| id.min_time + TimeDelta::hours(hours));
            let has = |pod: &Pod, instant| {
                pod.loaded.contains(&block)
                    && pod.applied.is_some_and(|window| window.holds(instant, now))
            };
            let by = |querier: usize, instant| {
                self.pods
                    .values()
                    .any(|pod| pod.known_to[querier] && has(pod, instant))
            };
            let missed: Vec<_> = (0..3)
                .flat_map(|querier| instants.map(|instant| (querier, instant)))
                .filter(|(q, at)| !by(*q, *at))
                .collect();
            if self.blocks[block].found && !missed.is_empty() {
                return Err(format!(
                    "block {} is not found any more: {missed:?}; {}",
                    id.ulid, self.last.report.message
                ));
            }
            self.blocks[block].found |=
                missed.is_empty() && self.last.report.state == RolloutState::Settled;
        }
        Ok(())
    }
}
