//! What thanos has loaded, and whether it is worth starting it again before queriers know the pod.
//!
//! Invariants:
//! - the pod turns Ready only when it is decided for this start that thanos has loaded what it can: at once where everything is
//!   loaded, or where that cannot be known or a retry is not possible;
//! - thanos is started again only when the pod has been unready for as long as a drain takes, or never was Ready;
//! - blocks that the pod lacked when it last served are not waited for, and no pod is kept unready for longer than `load_retry`,
//!   counted from the first time that thanos was ready with a block missing;
//! - once decided for a start, a block that goes missing later is reported and nothing else.

use std::time::Duration;

use super::super::loaded::LoadedBlocks;
use super::super::loading::judge::{Counts, Judge};
use super::super::loading::reading::Reading;
use super::super::names::CONTRACT;
use super::super::shared_files::{BlockList, Inspect, LaunchState, Outcome, ReloadMode, Verdict};
use super::{Action, MISSES_MOST, PROBE_MOST, Sidecar, Window};

/// Why nothing is told before the first list of a start.
pub const NOT_LISTED: &str = "the launcher has not listed thanos' data directory yet";
/// Why nothing is told while thanos does not serve.
pub const NOT_READY: &str = "thanos is not ready";
/// Launchers of this contract and later list blocks and start thanos again when it is incomplete.
const LISTS_SINCE: u32 = 2;
/// Thanos syncs a second time right after it is ready, which may heal the first one; if it does not begin, it is not awaited
/// for longer than this.
const SECOND_SYNC: Duration = Duration::from_secs(5);
/// How long the pod waits for the launcher's list before it turns Ready.
const LIST_WAIT: Duration = Duration::from_secs(10);
/// The second retry comes this long after the first; doubles.
const RETRY_AGAIN: Duration = Duration::from_secs(5);

/// The retries of one window.
#[derive(Clone, Copy, Debug)]
struct Retry {
    window: Window,
    until: Duration,
    next: Duration,
    times: u32,
}

/// What is known of the blocks of one start, and of the retries.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    judge: Judge,
    /// Why the metrics cannot be read, and how often in a row they could not.
    unreadable: Option<String>,
    failures: u32,
    number: u64,
    asked: Option<(Key, Inspect)>,
    list: Option<(Inspect, BlockList)>,
    /// Since when thanos is ready and since when its list is awaited.
    ready_since: Option<Duration>,
    asked_since: Duration,
    decided: bool,
    retry: Option<Retry>,
    repeated: Option<u64>,
    retries: u64,
    /// What the pod reported when it last served.
    lacked: Option<LoadedBlocks>,
}

/// A list is asked for again when one of these changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    good_syncs: u64,
    counts: Counts,
    window: Window,
}

impl Blocks {
    /// `number` is that of the last list that an earlier sidecar asked for.
    pub(super) fn new(number: u64, decided: bool) -> Self {
        Self {
            number,
            decided,
            ..Self::default()
        }
    }

    /// Another start of thanos: only what is about retries stays.
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
                self.judge.take(reading);
                (self.failures, self.unreadable) = (0, None);
            }
            Some(Err(why)) => {
                self.failures = self.failures.saturating_add(1);
                if self.judge.accepted().is_none() || self.failures >= MISSES_MOST {
                    self.unreadable = Some(why);
                }
            }
            None => {}
        }
    }

    /// The longest wait for the next look at a thanos that serves.
    pub(super) fn look_within(&self, check_interval: Duration) -> Duration {
        let at_rest = self.decided && (self.judge.is_at_rest() || self.unreadable.is_some());
        if at_rest {
            check_interval
        } else {
            check_interval.min(PROBE_MOST)
        }
    }

    pub(super) const fn retries(&self) -> u64 {
        self.retries
    }

    fn named(&self) -> Option<&BlockList> {
        self.list.as_ref().map(|(_, list)| list)
    }

    /// The list that answers the last question.
    fn answer(&self) -> Option<&BlockList> {
        self.named().filter(|list| {
            self.asked
                .is_some_and(|(_, asked)| asked.number == list.number)
        })
    }
}

impl Sidecar {
    /// Takes the launcher's list; what answers another question than the last one is ignored.
    pub fn set_blocks(&mut self, list: Option<BlockList>) {
        if let Some(list) = list
            && let Some((_, asked)) = self.blocks.asked
            && (list.number, list.launch) == (asked.number, asked.launch)
        {
            self.blocks.list = Some((asked, list));
        }
    }

    /// The wish for a list could not be written; it is written again.
    pub const fn failed_to_ask(&mut self) {
        self.blocks.asked = None;
    }

    /// How often thanos was started again because it had not loaded all its blocks.
    #[must_use]
    pub const fn load_retries(&self) -> u64 {
        self.blocks.retries()
    }

    /// Whether thanos serves, and may be started again because blocks are missing.
    pub(super) fn deciding(&self) -> bool {
        self.confirmed.is_some() && !self.blocks.decided
    }

    /// Whether the launcher lists blocks and repeats an incomplete start.
    fn has_launcher(&self) -> bool {
        self.record
            .as_ref()
            .is_some_and(|record| record.contract >= LISTS_SINCE)
    }

    pub(super) fn look_at_blocks(&mut self, now: Duration, actions: &mut Vec<Action>) {
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

    /// When the blocks need a step without any input.
    pub(super) fn blocks_wake(&self, now: Duration) -> Option<Duration> {
        let retry = self.blocks.retry.filter(|_| self.deciding())?;
        // What was due before `now` waits for a reading or a list, which wake by themselves.
        let next = self.free_at(retry);
        Some(if self.blocks.judge.is_certain() && next > now {
            next.min(retry.until)
        } else {
            retry.until
        })
    }

    /// Asks the launcher for a list when what it depends on has changed and thanos rests.
    fn ask(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let (Some(confirmed), Some(counts)) =
            (self.confirmed.as_ref(), self.blocks.judge.accepted())
        else {
            return;
        };
        let key = Key {
            good_syncs: self.blocks.judge.good_syncs(),
            counts,
            window: confirmed.applied,
        };
        if !self.has_launcher()
            || !self.blocks.judge.is_settled()
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
            synced_unix_seconds: self.blocks.judge.last_sync_unix_seconds(),
            missing: counts.missing(),
        };
        self.blocks.asked = Some((key, inspect));
        self.blocks.asked_since = now;
        actions.push(Action::Inspect(inspect));
    }

    /// Whether nothing is gained by starting thanos again, or asks for that.
    fn is_decided(&mut self, since: Duration, now: Duration, actions: &mut Vec<Action>) -> bool {
        let patience = self.settings.load_retry;
        let can_retry =
            self.has_launcher() && self.settings.reload == ReloadMode::Exec && !patience.is_zero();
        if !can_retry || self.blocks.unreadable.is_some() || self.blocks.judge.is_hopeless() {
            return true;
        }
        let Some(window) = self.record.as_ref().map(|record| record.window) else {
            return true;
        };
        let missing = match self.blocks.judge.accepted() {
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
        let synced_twice = self.blocks.judge.syncs() >= 2 || now >= since + SECOND_SYNC;
        if !self.blocks.judge.is_certain() || !synced_twice {
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

    /// When the next retry costs nothing: a thanos that ended by itself may still be known to queriers.
    fn free_at(&self, retry: Retry) -> Duration {
        self.drained_at()
            .map_or(retry.next, |drained| drained.max(retry.next))
    }

    fn repeat(&mut self, retry: Retry, now: Duration, actions: &mut Vec<Action>) {
        let launch = self.launch();
        let verdict = Verdict {
            launch,
            outcome: Outcome::Incomplete,
        };
        if self.judged == Some(verdict) {
            return;
        }
        self.judged = Some(verdict);
        actions.push(Action::Judge(verdict));
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

    /// The `blocks` of `/status`, or why nothing is known.
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
        let Some(counts) = self.blocks.judge.accepted() else {
            let pending = self
                .blocks
                .judge
                .pending()
                .ok_or("thanos' sync is under way, or its last one failed")?;
            let (expected, loaded, missing_total) =
                (pending.expected, pending.loaded, pending.missing());
            let last_sync_unix_seconds = self.blocks.judge.last_sync_unix_seconds();
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
                "; thanos has loaded {} of the {} blocks that it should have",
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
            last_sync_unix_seconds: self.blocks.judge.last_sync_unix_seconds(),
            bucket: named.map(|list| list.bucket),
        };
        // A list that was made while nothing was missing names what thanos filtered.
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
