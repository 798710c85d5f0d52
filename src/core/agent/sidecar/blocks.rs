//! What thanos has loaded, and whether to start it again before queriers use the pod.
//!
//! Invariants:
//! - the pod turns Ready only when it is decided for this start that thanos has loaded what it can.
//!   That is immediate if everything is loaded, if the state cannot be known, or if no retry is
//!   possible;
//! - thanos is started again only if the pod has been unready for as long as a drain takes, or was
//!   never Ready;
//! - blocks that the pod lacked when it last served are not waited for, and no pod is kept unready
//!   for longer than `load_retry`, counted from the first time that thanos was ready with a block
//!   missing;
//! - after the decision for a start, a block that goes missing is only reported.

use std::time::Duration;

use super::super::last_load::LastLoad;
use super::super::loaded::LoadedBlocks;
use super::super::loading::filter::{Counts, ReadingFilter};
use super::super::loading::reading::Reading;
use super::probe::{MAX_MISSES, MAX_PROBE_WAIT};
use super::{Sidecar, SidecarAction, Window};
use crate::core::agent::handoff::{
    BlockList, Inspect, LaunchOutcome, LaunchState, LaunchVerdict, ReloadMode,
};
use crate::core::model::names::CONTRACT;

/// Reported before the first list of a start.
pub const NOT_LISTED: &str = "the launcher has not listed thanos' data directory yet";
/// Reported while thanos does not serve.
pub const NOT_READY: &str = "thanos is not ready";
/// The first contract whose launchers list blocks and repeat incomplete starts.
const LISTS_SINCE: u32 = 2;
/// Thanos syncs again right after it is ready, which may load what the first sync missed. The
/// longest wait for this sync to begin.
const SECOND_SYNC: Duration = Duration::from_secs(5);
/// The longest wait for the launcher's list before the pod turns Ready.
const LIST_WAIT: Duration = Duration::from_secs(10);
/// The wait between the first and the second retry; doubles.
const RETRY_AGAIN: Duration = Duration::from_secs(5);

/// The retries of one window.
#[derive(Clone, Copy, Debug)]
struct Retry {
    window: Window,
    until: Duration,
    next: Duration,
    times: u32,
}

/// The state of the blocks of one start, and the retries.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    filter: ReadingFilter,
    /// Why the metrics cannot be read.
    unreadable: Option<String>,
    failures: u32,
    number: u64,
    asked: Option<(BlocksKey, Inspect)>,
    list: Option<(Inspect, BlockList)>,
    ready_since: Option<Duration>,
    asked_since: Duration,
    decided: bool,
    retry: Option<Retry>,
    repeated: Option<u64>,
    retries: u64,
    /// The report when the pod last served.
    lacked: Option<LoadedBlocks>,
}

/// A change requests another list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlocksKey {
    good_syncs: u64,
    counts: Counts,
    window: Window,
}

impl Blocks {
    /// `number` is that of the last request of an earlier sidecar.
    pub(super) fn new(number: u64, decided: bool) -> Self {
        Self {
            number,
            decided,
            ..Self::default()
        }
    }

    /// Resets the state for another start of thanos, except for the retries.
    pub(super) fn begin(&mut self, decided: bool) {
        let Self {
            number,
            retry,
            repeated,
            retries,
            lacked,
            ..
        } = std::mem::take(self);
        *self = Self {
            number,
            decided,
            retry,
            repeated,
            retries,
            lacked,
            ..Self::default()
        };
    }

    pub(super) fn take(&mut self, read: Option<Result<Reading, String>>) {
        match read {
            Some(Ok(reading)) => {
                self.filter.take(reading);
                (self.failures, self.unreadable) = (0, None);
            }
            Some(Err(why)) => {
                self.failures = self.failures.saturating_add(1);
                if self.filter.accepted().is_none() || self.failures >= MAX_MISSES {
                    self.unreadable = Some(why);
                }
            }
            None => {}
        }
    }

    /// Returns the longest wait for the next probe of a serving thanos.
    pub(super) fn probe_within(&self, check_interval: Duration) -> Duration {
        let at_rest = self.decided && (self.filter.is_at_rest() || self.unreadable.is_some());
        if at_rest {
            check_interval
        } else {
            check_interval.min(MAX_PROBE_WAIT)
        }
    }

    pub(super) const fn retries(&self) -> u64 {
        self.retries
    }

    fn named(&self) -> Option<&BlockList> {
        self.list.as_ref().map(|(_, list)| list)
    }

    /// Returns the list that answers the last request.
    fn answer(&self) -> Option<&BlockList> {
        self.named().filter(|list| {
            self.asked
                .is_some_and(|(_, asked)| asked.number == list.number)
        })
    }
}

impl Sidecar {
    /// Takes the launcher's list; ignores answers to earlier requests.
    pub fn set_blocks(&mut self, list: Option<BlockList>) {
        if let Some(list) = list
            && let Some((_, asked)) = self.blocks.asked
            && (list.number, list.launch) == (asked.number, asked.launch)
        {
            self.blocks.list = Some((asked, list));
        }
    }

    /// Notes that the request for a list could not be written, to write it again.
    pub const fn failed_to_ask(&mut self) {
        self.blocks.asked = None;
    }

    /// Counts the restarts of thanos because blocks were missing.
    #[must_use]
    pub const fn load_retries(&self) -> u64 {
        self.blocks.retries()
    }

    /// Returns whether thanos serves and may still be started again because blocks are missing.
    pub(super) fn deciding(&self) -> bool {
        self.confirmed.is_some() && !self.blocks.decided
    }

    /// Returns whether the launcher lists blocks and repeats an incomplete start.
    fn has_launcher(&self) -> bool {
        self.record
            .as_ref()
            .is_some_and(|record| record.contract >= LISTS_SINCE)
    }

    pub(super) fn check_blocks(&mut self, now: Duration, actions: &mut Vec<SidecarAction>) {
        if self.phase.is_ready()
            && let Ok(blocks) = self.loaded()
        {
            self.blocks.lacked = Some(blocks);
        }
        if self.confirmed.is_none() || !self.runs() {
            return;
        }
        let since = *self.blocks.ready_since.get_or_insert(now);
        self.ask(now, actions);
        if !self.blocks.decided && self.is_decided(since, now, actions) {
            self.blocks.decided = true;
            self.blocks.retry = None;
        }
    }

    /// Returns when the blocks need a step without input.
    pub(super) fn blocks_wake(&self, now: Duration) -> Option<Duration> {
        let retry = self.blocks.retry.filter(|_| self.deciding())?;
        // Anything due before `now` waits for a reading or a list, which wake the sidecar.
        let next = self.free_at(retry);
        Some(if self.blocks.filter.is_certain() && next > now {
            next.min(retry.until)
        } else {
            retry.until
        })
    }

    /// Requests a list from the launcher when its inputs have changed and thanos is at rest.
    fn ask(&mut self, now: Duration, actions: &mut Vec<SidecarAction>) {
        let (Some(confirmed), Some(counts)) =
            (self.confirmed.as_ref(), self.blocks.filter.accepted())
        else {
            return;
        };
        let key = BlocksKey {
            good_syncs: self.blocks.filter.good_syncs(),
            counts,
            window: confirmed.applied,
        };
        if !self.has_launcher()
            || !self.blocks.filter.is_settled()
            || self.blocks.asked.is_some_and(|(asked, _)| asked == key)
        {
            return;
        }
        self.blocks.number += 1;
        let inspect = Inspect {
            contract: CONTRACT,
            number: self.blocks.number,
            launch: self.launch(),
            window: key.window,
            synced_unix_seconds: self.blocks.filter.last_sync_unix_seconds(),
            missing: counts.missing(),
        };
        self.blocks.asked = Some((key, inspect));
        self.blocks.asked_since = now;
        actions.push(SidecarAction::Inspect(inspect));
    }

    /// Returns whether another start of thanos would gain nothing; otherwise requests one when it
    /// is free.
    fn is_decided(
        &mut self,
        since: Duration,
        now: Duration,
        actions: &mut Vec<SidecarAction>,
    ) -> bool {
        let patience = self.settings.load_retry;
        let can_retry =
            self.has_launcher() && self.settings.reload == ReloadMode::Exec && !patience.is_zero();
        if !can_retry || self.blocks.unreadable.is_some() || self.blocks.filter.is_hopeless() {
            return true;
        }
        let Some(window) = self.record.as_ref().map(|record| record.window) else {
            return true;
        };
        let missing = match self.blocks.filter.accepted() {
            None => return now >= since + patience,
            Some(counts) => counts.missing(),
        };
        if missing == 0
            || self
                .blocks
                .lacked
                .as_ref()
                .is_some_and(LoadedBlocks::is_cut)
        {
            return true;
        }
        let fresh = Retry {
            window,
            until: now + patience,
            next: now,
            times: 0,
        };
        let retry = *self.blocks.retry.insert(
            self.blocks
                .retry
                .filter(|retry| retry.window == window)
                .unwrap_or(fresh),
        );
        if now >= retry.until {
            return true;
        }
        let synced_twice = self.blocks.filter.syncs() >= 2 || now >= since + SECOND_SYNC;
        if !self.blocks.filter.is_certain() || !synced_twice {
            return false;
        }
        let Some(list) = self.blocks.answer() else {
            return now >= self.blocks.asked_since + LIST_WAIT;
        };
        let lacked = |ulid: &str| {
            self.blocks
                .lacked
                .as_ref()
                .is_some_and(|lacked| lacked.missing.iter().any(|block| block.ulid == ulid))
        };
        let all_named = list.candidates_total == list.candidates.len() as u64;
        if list.unknown.is_some()
            || list.covered >= missing
            || (all_named && list.candidates.iter().all(|block| lacked(&block.ulid)))
        {
            return true;
        }
        if now >= self.free_at(retry) {
            self.repeat(retry, now, actions);
        }
        false
    }

    /// Returns when the next retry costs nothing: queriers may still use a thanos that ended by
    /// itself.
    fn free_at(&self, retry: Retry) -> Duration {
        self.drained_at()
            .filter(|_| !self.let_go)
            .map_or(retry.next, |drained| drained.max(retry.next))
    }

    fn repeat(&mut self, retry: Retry, now: Duration, actions: &mut Vec<SidecarAction>) {
        let launch = self.launch();
        let verdict = LaunchVerdict {
            launch,
            outcome: LaunchOutcome::Incomplete,
        };
        if self.verdict_given == Some(verdict) {
            return;
        }
        self.verdict_given = Some(verdict);
        actions.push(SidecarAction::Verdict(verdict));
        if self.blocks.repeated != Some(launch) {
            self.blocks.repeated = Some(launch);
            self.blocks.retries += 1;
            let wait = RETRY_AGAIN * 2_u32.pow(retry.times.min(16));
            self.blocks.retry = Some(Retry {
                next: now + wait,
                times: retry.times.saturating_add(1),
                ..retry
            });
        }
    }

    /// Returns the `last_load` of `/status`. Where the data directory does not show what is loaded,
    /// the number of blocks is thanos' own, while it runs.
    pub(super) fn last_load(&self) -> Option<LastLoad> {
        let load = self.record.as_ref()?.last_load?;
        let counts = self.blocks.filter.accepted().filter(|_| {
            let is_of_this_start = |window| self.running() == Some(window);
            self.confirmed.is_some() && is_of_this_start(load.window)
        });
        let blocks = load.blocks.or(counts.map(|counts| counts.loaded));
        Some(LastLoad { blocks, ..load })
    }

    /// Returns the `blocks` of `/status`, or why they are unknown.
    pub(super) fn loaded(&self) -> Result<LoadedBlocks, String> {
        if self.confirmed.is_none()
            || !self.runs()
            || self
                .record
                .as_ref()
                .is_some_and(|record| record.state != LaunchState::Started)
        {
            return Err(NOT_READY.to_owned());
        }
        if let Some(why) = &self.blocks.unreadable {
            return Err(format!("thanos' metrics cannot be read: {why}"));
        }
        let Some(counts) = self.blocks.filter.accepted() else {
            let pending = self
                .blocks
                .filter
                .pending()
                .ok_or("thanos' sync is under way, or its last one failed")?;
            let (expected, loaded, missing_total) =
                (pending.expected, pending.loaded, pending.missing());
            let last_sync_unix_seconds = self.blocks.filter.last_sync_unix_seconds();
            return Ok(LoadedBlocks {
                expected,
                loaded,
                missing_total,
                last_sync_unix_seconds,
                ..LoadedBlocks::default()
            });
        };
        let differs = if counts.missing() == 0 {
            String::new()
        } else {
            format!(
                "; thanos has loaded {} of the {} expected blocks",
                counts.loaded, counts.expected
            )
        };
        if !self.has_launcher() {
            return Err(format!(
                "the launcher is older than the sidecar and does not list blocks{differs}"
            ));
        }
        if let Some(why) = self.blocks.named().and_then(|list| list.unknown.as_ref()) {
            return Err(format!("{why}{differs}"));
        }
        let named = self.blocks.named();
        if counts.missing() == 0 && named.is_none() {
            return Err(NOT_LISTED.to_owned());
        }
        let mut blocks = LoadedBlocks {
            expected: counts.expected,
            loaded: counts.loaded,
            missing_total: counts.missing(),
            missing: Vec::new(),
            last_sync_unix_seconds: self.blocks.filter.last_sync_unix_seconds(),
            bucket: named.map(|list| list.bucket),
        };
        // A list made while nothing was missing contains filtered blocks.
        if let Some((_, list)) = self
            .blocks
            .list
            .as_ref()
            .filter(|(asked, _)| counts.missing() > 0 && asked.missing > 0)
        {
            blocks.missing_total = counts
                .missing()
                .saturating_sub(list.covered)
                .max(list.candidates_total);
            blocks.missing.clone_from(&list.candidates);
        }
        Ok(blocks)
    }
}
