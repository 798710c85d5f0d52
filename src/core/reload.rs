//! The sidecar's decisions: when to drain, when to order a window, what to report.
//!
//! Invariants:
//! - the published entry wins; without one, or with a bad one, the last good window stays;
//! - a window that differs from the running one is ordered only after the pod has been unready for the drain, except
//!   before the first start of thanos in this pod;
//! - `applied` is what thanos itself says, or, where that cannot be read, what the launcher recorded (`verified: false`);
//!   flags that were read and differ never count as ready;
//! - only entries that the leader can have written count (`entries`); the drain of an order ends at once when it is released;
//! - a thanos that could not load all its blocks is started again before the pod turns Ready (`blocks`);
//! - a window that was given up is tried again when the last good one has served for [`RETRY_FIRST`], doubling to
//!   [`RETRY_MOST`], and at once when the entry changes; a thanos that still loads the last good one is left alone.
//!
//! Time is the time since the sidecar's start, passed in. Deliberately absent: files, HTTP, signals; they are
//! [`Action`]s.

use std::time::Duration;

use super::agent_status::{AgentStatus, Phase};
use super::entry::Entry;
use super::loading::reading::Reading;
use super::shared_files::{Inspect, LaunchState, Outcome, Record, ReloadMode, Verdict, WindowFile};
use super::window::Window;

mod blocks;
mod decide;
mod entries;
mod report;
#[cfg(test)]
mod tests;

pub use blocks::{NOT_LISTED, NOT_READY};
pub use entries::{News, UNNUMBERED_WAIT};

use blocks::Blocks;
use entries::Entries;

/// A window that was given up is tried again when the last good one has served for this long.
pub const RETRY_FIRST: Duration = Duration::from_mins(5);
/// The longest wait between two tries.
pub const RETRY_MOST: Duration = Duration::from_hours(1);
/// A thanos that loads the last good window is left alone for this long; one that hangs is not, for ever.
pub const LOAD_MOST: Duration = Duration::from_hours(6);
/// The longest drain that an entry may ask for; more would leave the pod unready for good.
pub const DRAIN_MOST: Duration = Duration::from_hours(1);
/// First wait between two looks at a thanos that is not ready; doubles.
const PROBE_FIRST: Duration = Duration::from_millis(50);
/// Longest wait between two looks at a thanos that is not ready.
const PROBE_MOST: Duration = Duration::from_secs(1);
/// A look at thanos that was never answered is repeated after this long.
const PROBE_LOST: Duration = Duration::from_mins(1);
/// So many looks in a row must fail before a serving thanos counts as gone.
const MISSES_MOST: u32 = 3;
/// After a failed write, wait this long.
const WRITE_RETRY: Duration = Duration::from_secs(1);

/// How the pod wants it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The pod's name.
    pub pod: String,
    /// Version of the agent.
    pub version: String,
    /// The pod's namespace, if it is known.
    pub namespace: Option<String>,
    /// The pod's UID, if it is known.
    pub uid: Option<String>,
    /// How thanos takes over a window.
    pub reload: ReloadMode,
    /// How long to be unready before a change, unless the entry says otherwise.
    pub drain: Duration,
    /// How long a start may take; zero means for ever.
    pub ready_timeout: Duration,
    /// How long thanos may take to act on a signal.
    pub signal_timeout: Duration,
    /// How often to look at a thanos that serves.
    pub check_interval: Duration,
    /// For how long a thanos that could not load all its blocks is started again before the pod turns Ready; zero is never.
    pub load_retry: Duration,
}

/// What a look at thanos showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whether thanos serves.
    pub ready: bool,
    /// Its effective window, or why it cannot be read.
    pub flags: Result<Window, String>,
    /// What it says about its blocks, or why that cannot be read; `None` if it was not asked.
    pub blocks: Option<Result<Reading, String>>,
}

/// What an earlier sidecar and the launcher left in the shared directory.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The launcher's record.
    pub record: Option<Record>,
    /// The window file.
    pub file: Option<WindowFile>,
    /// The last wish for a list of blocks.
    pub inspect: Option<Inspect>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Replace the window file; answer with [`Sidecar::wrote`] or [`Sidecar::failed_to_act`].
    Order(WindowFile),
    /// Replace the verdict file.
    Judge(Verdict),
    /// Replace the window file by one that orders nothing new; [`Sidecar::wrote`] or [`Sidecar::failed_to_act`].
    Remember(WindowFile),
    /// Replace the wish for a list of blocks; what cannot be written is asked for again.
    Inspect(Inspect),
    /// Tell the log about an entry.
    Tell(News),
    /// Signal thanos; answer with [`Sidecar::failed_to_act`] if that was not possible.
    Signal,
}

/// A thanos that was seen ready.
#[derive(Clone, Debug)]
struct Confirmed {
    launch: u64,
    since: Duration,
    applied: Window,
    verified: bool,
    note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    Nothing,
    /// Write the window file; nothing has to be restarted for it.
    Note,
    /// Drain, then order.
    Change,
    /// Ordered; not acted on yet.
    Pending,
    /// Given up until then.
    Wait(Duration),
}

/// The state machine.
#[derive(Debug)]
pub struct Sidecar {
    settings: Settings,
    entries: Entries,
    blocks: Blocks,
    record: Option<Record>,
    file: Option<WindowFile>,
    launch_seen: Duration,
    judged: Option<Verdict>,
    confirmed: Option<Confirmed>,
    mismatch: Option<String>,
    misses: u32,
    next_probe: Duration,
    probe_wait: Duration,
    last_ready: Option<Duration>,
    retry: Option<(Window, u32, Duration)>,
    /// Given up before this sidecar began, and counted by the one before it.
    given_up_before: Option<(Window, u32)>,
    signalled: Option<(Window, Duration, u32)>,
    act_error: Option<(String, Duration)>,
    /// An order that was asked for and not written yet: for how long was drained, and the phase before it.
    ordering: Option<(Duration, Phase)>,
    phase: Phase,
    drains: Drains,
}

/// Figures about drains and what followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drains {
    /// Windows ordered after a drain.
    pub orders: u64,
    /// Time spent draining.
    pub spent: Duration,
    /// Windows given up, each retry included.
    pub rollbacks: u64,
}

impl Sidecar {
    /// A sidecar that has just started and found these files. A record means that thanos may be serving queries.
    #[must_use]
    pub fn new(settings: Settings, found: Found) -> Self {
        let Found {
            record,
            file,
            inspect,
        } = found;
        Self {
            last_ready: record.is_some().then_some(Duration::ZERO),
            given_up_before: record
                .as_ref()
                .and_then(|record| record.failed.as_ref())
                .map(|failed| (failed.window, failed.times)),
            settings,
            entries: Entries::restored(file.as_ref()),
            // A start that was ready may be in discovery, where a retry is not free.
            blocks: Blocks::new(
                inspect.map_or(0, |inspect| inspect.number),
                record.as_ref().is_some_and(|record| record.ready),
            ),
            record,
            file,
            launch_seen: Duration::ZERO,
            judged: None,
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

    /// Takes what the mounted directory holds; returns what the log should say.
    pub fn set_entry(
        &mut self,
        read: Result<Option<Entry>, String>,
        now: Duration,
    ) -> Option<News> {
        self.entries.take(read, now)
    }

    /// Takes what the launcher's record and the window file hold.
    pub fn set_files(&mut self, record: Option<Record>, file: Option<WindowFile>, now: Duration) {
        // An unreadable record is no news: launchers replace theirs as a whole, so it was not a launcher's doing.
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

    /// The order was written.
    pub fn wrote(&mut self, file: WindowFile) {
        self.file = Some(file);
        self.act_error = None;
        if let Some((drained, _)) = self.ordering.take() {
            self.drains.orders += 1;
            self.drains.spent += drained;
        }
    }

    /// A write or a signal was not possible; it is tried again.
    pub fn failed_to_act(&mut self, why: String, now: Duration) {
        self.act_error = Some((why, now + WRITE_RETRY));
        self.judged = None;
        if let Some((_, before)) = self.ordering.take() {
            self.phase = before;
        }
    }

    /// The start that a look at thanos would be about, if it is time for one.
    #[must_use]
    pub fn probe_due(&mut self, now: Duration) -> Option<u64> {
        if now < self.next_probe || !self.runs() {
            return None;
        }
        // Until this one is answered.
        self.next_probe = now + PROBE_LOST;
        Some(self.launch())
    }

    /// Takes what a look at thanos showed; `launch` is what [`Sidecar::probe_due`] gave.
    pub fn probed(&mut self, launch: u64, probe: Probe, now: Duration) {
        if launch != self.launch() {
            return;
        }
        let expected = self
            .record
            .as_ref()
            .map(|r| r.window)
            .filter(|_| self.settings.reload != ReloadMode::Signal);
        let seen = match (probe.ready, probe.flags, expected) {
            (false, ..) => None,
            (true, Ok(flags), Some(expected)) if flags != expected => {
                self.mismatch = Some(format!(
                    "thanos says that its window is {flags}, but it was started with {expected}"
                ));
                None
            }
            (true, Ok(flags), _) => Some((flags, true, None)),
            (true, Err(why), Some(expected)) => Some((expected, false, Some(why))),
            // A signal changes nothing that could be trusted unseen.
            (true, Err(why), None) => self.record.as_ref().map(|r| (r.window, false, Some(why))),
        };
        let since = self.confirmed.as_ref().map_or(now, |c| c.since);
        if let Some((applied, verified, note)) = seen {
            // A process does not change its flags: once read, they hold for this start.
            let verified_before = self.confirmed.take().filter(|c| c.verified && !verified);
            self.confirmed = verified_before.or(Some(Confirmed {
                launch,
                since,
                applied,
                verified,
                note,
            }));
            self.mismatch = None;
            self.misses = 0;
            self.blocks.take(probe.blocks);
        } else {
            self.misses = self.misses.saturating_add(1);
            if self.misses >= MISSES_MOST {
                self.confirmed = None;
            }
        }
        let changing =
            self.settings.reload == ReloadMode::Signal && self.phase == Phase::Restarting;
        if self.confirmed.is_some() && self.misses == 0 && !changing {
            self.probe_wait = PROBE_FIRST;
            self.next_probe = now + self.blocks.look_within(self.settings.check_interval);
        } else {
            self.next_probe = now + self.probe_wait;
            self.probe_wait = (self.probe_wait * 2).min(PROBE_MOST);
        }
    }

    /// Decides. Call it after every input and when [`Sidecar::next_wake`] has come.
    #[must_use]
    pub fn step(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase.is_ready() {
            self.last_ready = Some(now);
        }
        actions.extend(self.entries.promote(now).map(Action::Tell));
        self.note_failure(now);
        let waits_after_error = self
            .act_error
            .as_ref()
            .is_some_and(|(_, until)| now < *until);
        if !waits_after_error {
            self.judge(now, &mut actions);
            self.look_at_blocks(now, &mut actions);
        }
        let intent = self.intent(now);
        if !waits_after_error && intent == Intent::Nothing {
            self.act_error = None;
        }
        let drained = self.drained_at().is_none_or(|at| now >= at);
        if !waits_after_error && (intent == Intent::Note || (intent == Intent::Change && drained)) {
            self.order(intent, now, &mut actions);
        } else if !waits_after_error {
            self.remember(&mut actions);
        }
        let before = self.phase;
        self.phase = self.phase_of(
            if actions.iter().any(|a| matches!(a, Action::Order(_))) && intent == Intent::Change {
                Intent::Pending
            } else {
                intent
            },
        );
        let drained = self
            .last_ready
            .filter(|_| before == Phase::Draining)
            .map_or(Duration::ZERO, |at| now.saturating_sub(at));
        if let Some((spent, phase)) = &mut self.ordering {
            (*spent, *phase) = (drained, before);
        } else if self.phase != Phase::Draining {
            self.drains.spent += drained;
        }
        actions
    }

    /// When to step again without any input. What is due at `now` counts as done: [`Sidecar::step`] and
    /// [`Sidecar::probe_due`] come first.
    #[must_use]
    pub fn next_wake(&self, now: Duration) -> Option<Duration> {
        let intent = self.intent(now);
        [
            self.runs().then_some(self.next_probe),
            (intent == Intent::Change)
                .then(|| self.drained_at())
                .flatten(),
            self.act_error.as_ref().map(|(_, until)| *until),
            match intent {
                Intent::Wait(until) => Some(until),
                _ => None,
            },
            self.signalled
                .map(|(_, at, _)| at + self.settings.signal_timeout),
            self.timeout_at(),
            self.entries.wake(),
            self.blocks_wake(now),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
    }

    /// Whether thanos may start: the agent is there, and the window file holds the entry if there is one.
    #[must_use]
    pub fn holds_entry(&self) -> bool {
        self.started()
            || self
                .entries
                .accepted()
                .is_none_or(|e| self.file.is_some_and(|f| f.window == e.window))
    }

    /// The figures about drains.
    #[must_use]
    pub const fn drains(&self) -> Drains {
        self.drains
    }

    /// The launcher's record as last seen.
    #[must_use]
    pub const fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }
}
