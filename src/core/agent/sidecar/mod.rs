//! The sidecar's decisions: when to drain, when to order a window, what to report.
//!
//! In: the mounted entry, the files in the shared directory, and whether the last actions
//! succeeded, by the methods of this file. Out: the actions of [`Sidecar::step`] (`decide`), and
//! the report, [`Sidecar::status`]. Next for a window: `core/agent/sidecar/entries.rs`.
//!
//! Invariants:
//! - the published entry wins; without one, or with a bad one, the last good window stays;
//! - a window that differs from the running one is ordered only after the pod has been unready for
//!   the drain, except before the first start of thanos in this pod;
//! - `applied` is read from thanos itself or, if that is impossible, from the launcher's record
//!   (`verified: false`); flags that were read and differ never count as ready;
//! - only entries that the leader can have written count (`entries`); the drain of an order ends as
//!   soon as it is released;
//! - a thanos that could not load all its blocks is started again before the pod turns Ready
//!   (`blocks`);
//! - a window that was given up is tried again when the last good one has served for
//!   [`RETRY_FIRST`], doubling to [`MAX_RETRY_WAIT`], or immediately when the entry changes; a
//!   thanos that is still loading the last good window is not restarted.
//!
//! Times are relative to the sidecar's start and passed in. Deliberately absent: files, HTTP,
//! signals; they are [`SidecarAction`]s.

use std::time::Duration;

use super::handoff::{Inspect, LaunchRecord, LaunchState, LaunchVerdict, ReloadMode, WindowFile};
use super::status::{AgentStatus, Phase};
use crate::core::model::entry::Entry;
use crate::core::model::names::CONTRACT;
use crate::core::model::window::Window;

mod blocks;
mod decide;
mod entries;
mod probe;
#[cfg(test)]
mod tests;

pub use blocks::{NOT_LISTED, NOT_READY};
pub use entries::{EntryChange, UNNUMBERED_WAIT};
pub use probe::Probe;

use blocks::Blocks;
use entries::EntryTracker;
use probe::{Confirmed, PROBE_FIRST};

/// How long the last good window must serve before a window that was given up is tried again.
pub const RETRY_FIRST: Duration = Duration::from_mins(5);
/// The longest wait between two tries.
pub const MAX_RETRY_WAIT: Duration = Duration::from_hours(1);
/// How long a thanos may load the last good window before a retry restarts it, since it may hang.
pub const MAX_LOAD: Duration = Duration::from_hours(6);
/// The longest drain that an entry may request; more would leave the pod unready for good.
pub const MAX_DRAIN: Duration = Duration::from_hours(1);
/// The wait after a failed write.
const WRITE_RETRY: Duration = Duration::from_secs(1);

/// The pod's settings.
#[derive(Clone, Debug)]
pub struct DecisionSettings {
    pub pod: String,
    pub version: String,
    pub namespace: Option<String>,
    pub uid: Option<String>,
    pub reload: ReloadMode,
    /// How long to be unready before a change, unless the entry specifies a drain.
    pub drain: Duration,
    /// How long a start may take; zero: no limit.
    pub ready_timeout: Duration,
    /// How long thanos may take to act on a signal.
    pub signal_timeout: Duration,
    /// The interval between probes of a serving thanos.
    pub check_interval: Duration,
    /// How long a thanos that could not load all its blocks is started again before the pod turns
    /// Ready; zero: never.
    pub load_retry: Duration,
}

/// The files that an earlier sidecar and the launcher left in the shared directory.
#[derive(Clone, Debug, Default)]
pub struct SharedDirectory {
    pub record: Option<LaunchRecord>,
    pub file: Option<WindowFile>,
    /// The last request for a list of blocks.
    pub inspect: Option<Inspect>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SidecarAction {
    /// Replace the window file; report with [`Sidecar::wrote`] or [`Sidecar::failed_to_act`].
    Order(WindowFile),
    /// Replace the verdict file.
    Verdict(LaunchVerdict),
    /// Replace the window file by one without a new order; report likewise.
    Remember(WindowFile),
    /// Replace the request for a list of blocks; report a failed write with
    /// [`Sidecar::failed_to_ask`].
    Inspect(Inspect),
    Log(EntryChange),
    /// Signal thanos; report a failure with [`Sidecar::failed_to_act`].
    Signal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    Nothing,
    /// Write the window file; no restart is needed.
    Note,
    /// Drain, then order.
    Change,
    /// Ordered; the launcher has not acted yet.
    Pending,
    /// Given up until this time.
    Wait(Duration),
}

#[derive(Debug)]
pub struct Sidecar {
    settings: DecisionSettings,
    entries: EntryTracker,
    blocks: Blocks,
    record: Option<LaunchRecord>,
    file: Option<WindowFile>,
    launch_seen: Duration,
    verdict_given: Option<LaunchVerdict>,
    confirmed: Option<Confirmed>,
    mismatch: Option<String>,
    misses: u32,
    next_probe: Duration,
    probe_wait: Duration,
    last_ready: Option<Duration>,
    /// Whether a drain has ended and the pod was not ready since: no querier uses it.
    let_go: bool,
    retry: Option<(Window, u32, Duration)>,
    /// The launch that was seen when a window was given up, of the last good one or just before it.
    fallback_launch: u64,
    /// Given up, and counted, before this sidecar started.
    given_up_before: Option<(Window, u32)>,
    signalled: Option<(Window, Duration, u32)>,
    act_error: Option<(String, Duration)>,
    /// An order that was requested and not written yet: how long the pod drained, and the phase
    /// before.
    ordering: Option<(Duration, Phase)>,
    phase: Phase,
    drains: Drains,
}

/// Statistics of drains and their outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drains {
    /// Windows ordered after a drain.
    pub orders: u64,
    pub spent: Duration,
    /// Windows given up, including retries.
    pub rollbacks: u64,
}

impl Sidecar {
    /// Starts from the files found. A record means that thanos may be serving queries.
    #[must_use]
    pub fn new(settings: DecisionSettings, found: SharedDirectory) -> Self {
        let SharedDirectory {
            record,
            file,
            inspect,
        } = found;
        Self {
            last_ready: record.is_some().then_some(Duration::ZERO),
            let_go: false,
            given_up_before: record
                .as_ref()
                .and_then(|record| record.failed.as_ref())
                .map(|failed| (failed.window, failed.times)),
            settings,
            entries: EntryTracker::restored(file.as_ref()),
            // A start that was ready may be in discovery, where a retry is not free.
            blocks: Blocks::new(
                inspect.map_or(0, |inspect| inspect.number),
                record.as_ref().is_some_and(|record| record.ready),
            ),
            record,
            file,
            launch_seen: Duration::ZERO,
            fallback_launch: 0,
            verdict_given: None,
            confirmed: None,
            mismatch: None,
            misses: 0,
            next_probe: Duration::ZERO,
            probe_wait: PROBE_FIRST,
            retry: None,
            signalled: None,
            act_error: None,
            ordering: None,
            phase: Phase::Starting,
            drains: Drains::default(),
        }
    }

    /// Takes the content of the mounted directory; returns what to log.
    pub fn set_entry(
        &mut self,
        read: Result<Option<Entry>, String>,
        now: Duration,
    ) -> Option<EntryChange> {
        self.entries.take(read, now)
    }

    /// Takes the content of record and window file.
    pub fn set_files(
        &mut self,
        record: Option<LaunchRecord>,
        file: Option<WindowFile>,
        now: Duration,
    ) {
        // An unreadable record changes nothing: launchers replace it atomically, so something else
        // wrote it.
        let record = record.or_else(|| self.record.clone());
        if record.as_ref().map(|r| r.launch) != self.record.as_ref().map(|r| r.launch) {
            self.launch_seen = now;
            self.confirmed = None;
            self.mismatch = None;
            self.misses = 0;
            self.blocks
                .begin(record.as_ref().is_some_and(|record| record.ready));
            self.probe_soon(now);
        }
        self.record = record;
        self.file = file;
    }

    pub fn wrote(&mut self, file: WindowFile) {
        self.file = Some(file);
        self.act_error = None;
        if let Some((drained, _)) = self.ordering.take() {
            self.drains.orders += 1;
            self.drains.spent += drained;
        }
    }

    /// Notes a failed write or signal, to try it again.
    pub fn failed_to_act(&mut self, why: String, now: Duration) {
        self.act_error = Some((why, now + WRITE_RETRY));
        self.verdict_given = None;
        if let Some((_, before)) = self.ordering.take() {
            self.phase = before;
        }
    }

    /// Returns whether thanos may start: the window file has the entry, if there is one.
    #[must_use]
    pub fn has_entry_filed(&self) -> bool {
        self.started()
            || self
                .entries
                .accepted()
                .is_none_or(|e| self.file.is_some_and(|f| f.window == e.window))
    }

    #[must_use]
    pub const fn drains(&self) -> Drains {
        self.drains
    }

    #[must_use]
    pub const fn record(&self) -> Option<&LaunchRecord> {
        self.record.as_ref()
    }

    /// The document for `GET /status`.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        let confirmed = self
            .confirmed
            .as_ref()
            .filter(|c| c.launch == self.launch() && self.runs() && !self.deciding());
        let entry = self.entries.accepted();
        let (blocks, blocks_unknown) = match self.loaded() {
            Ok(blocks) => (Some(blocks), None),
            Err(why) => (None, Some(why)),
        };
        AgentStatus {
            pod: self.settings.pod.clone(),
            shard: entry.map(|e| e.shard),
            replica: entry.map(|e| e.replica),
            phase: self.phase,
            published: entry.map(|e| e.window),
            applied: confirmed.map(|c| c.applied),
            verified: confirmed.is_some_and(|c| c.verified),
            restarts: self.record.as_ref().map_or(0, |r| r.restarts),
            last_error: self.last_error(),
            agent_version: self.settings.version.clone(),
            contract: CONTRACT,
            namespace: self.settings.namespace.clone(),
            uid: self.settings.uid.clone(),
            generation: self.entries.generation(),
            order: entry.and_then(|e| e.order),
            blocks,
            blocks_unknown,
            last_load: self.last_load(),
        }
    }

    fn last_error(&self) -> Option<String> {
        let entry = self.entries.error().cloned();
        let act = || self.act_error.as_ref().map(|(why, _)| why.clone());
        let failed = || {
            self.failure()
                .map(|(window, why)| format!("window {window} was given up: {why}"))
        };
        let mismatch = || self.mismatch.clone();
        let off = || {
            let differs = self.settings.reload == ReloadMode::Off
                && self.running().is_some()
                && self.running() != self.wanted();
            (differs && self.entries.accepted().is_some())
                .then(|| "in-place reload is off for this pod: the published window takes effect when the pod is recreated".to_owned())
        };
        let note = || self.confirmed.as_ref().and_then(|c| c.note.clone());
        entry
            .or_else(act)
            .or_else(failed)
            .or_else(mismatch)
            .or_else(off)
            .or_else(note)
    }
}
