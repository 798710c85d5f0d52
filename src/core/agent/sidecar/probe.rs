//! What the probes of thanos show: whether a start is confirmed, with which window, and the verdict
//! on it for the launcher.
//!
//! In: the result of a probe. Out: [`Confirmed`], from which follow the phase `Serving` and the
//! `applied` window of `/status`; the verdict. The leader reads `/status`. Next for a window:
//! `core/rollout/reconcile/classify.rs`.

use std::time::Duration;

use super::{Sidecar, SidecarAction};
use crate::core::agent::handoff::{LaunchOutcome, LaunchState, LaunchVerdict, ReloadMode};
use crate::core::agent::loading::reading::Reading;
use crate::core::agent::status::Phase;
use crate::core::model::window::Window;

/// The first wait between two probes of a thanos that is not ready; doubles.
pub(super) const PROBE_FIRST: Duration = Duration::from_millis(50);
/// The longest wait between two probes of a thanos that is not ready.
pub(super) const MAX_PROBE_WAIT: Duration = Duration::from_secs(1);
/// A probe without a result is repeated after this time.
const PROBE_LOST: Duration = Duration::from_mins(1);
/// Consecutive failed probes before a serving thanos counts as gone.
pub(super) const MAX_MISSES: u32 = 3;

/// The result of a probe of thanos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub ready: bool,
    /// The effective window, or why it cannot be read.
    pub flags: Result<Window, String>,
    /// The block metrics, or why they cannot be read; `None` if they were not requested.
    pub blocks: Option<Result<Reading, String>>,
}

/// A thanos that was ready.
#[derive(Clone, Debug)]
pub(super) struct Confirmed {
    pub(super) launch: u64,
    pub(super) since: Duration,
    pub(super) applied: Window,
    pub(super) verified: bool,
    pub(super) note: Option<String>,
}

impl Sidecar {
    /// Returns the start to probe, if a probe is due.
    #[must_use]
    pub fn probe_due(&mut self, now: Duration) -> Option<u64> {
        if now < self.next_probe || !self.runs() {
            return None;
        }
        // Until this probe returns.
        self.next_probe = now + PROBE_LOST;
        Some(self.launch())
    }

    /// Takes a result; `launch` is from [`Sidecar::probe_due`].
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
                    "thanos reports the window {flags}, but it was started with {expected}"
                ));
                None
            }
            (true, Ok(flags), _) => Some((flags, true, None)),
            (true, Err(why), Some(expected)) => Some((expected, false, Some(why))),
            // After a signal the window cannot be assumed.
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
            if self.misses >= MAX_MISSES {
                self.confirmed = None;
            }
        }
        let changing =
            self.settings.reload == ReloadMode::Signal && self.phase == Phase::Restarting;
        if self.confirmed.is_some() && self.misses == 0 && !changing {
            self.probe_wait = PROBE_FIRST;
            self.next_probe = now + self.blocks.probe_within(self.settings.check_interval);
        } else {
            self.next_probe = now + self.probe_wait;
            self.probe_wait = (self.probe_wait * 2).min(MAX_PROBE_WAIT);
        }
    }

    pub(super) fn probe_soon(&mut self, now: Duration) {
        self.probe_wait = PROBE_FIRST;
        self.next_probe = now;
    }

    pub(super) fn timeout_at(&self) -> Option<Duration> {
        let record = self
            .record
            .as_ref()
            .filter(|r| r.state == LaunchState::Started)?;
        let open = self.confirmed.is_none()
            && self.verdict_given.is_none_or(|v| v.launch != record.launch);
        (open && !self.settings.ready_timeout.is_zero())
            .then(|| self.launch_seen + self.settings.ready_timeout)
    }

    pub(super) fn give_verdict(&mut self, now: Duration, actions: &mut Vec<SidecarAction>) {
        let Some(record) = self.record.as_ref() else {
            return;
        };
        let outcome = match self.confirmed.as_ref() {
            // A start that will be repeated is ready too; its verdict must not be replaced.
            Some(_)
                if self.verdict_given.is_some_and(|v| {
                    v.launch == record.launch && v.outcome == LaunchOutcome::Incomplete
                }) =>
            {
                return;
            }
            Some(c) if c.launch == record.launch && !record.ready => LaunchOutcome::Ready,
            None if self.timeout_at().is_some_and(|at| now >= at) => LaunchOutcome::TimedOut,
            _ => return,
        };
        let verdict = LaunchVerdict {
            launch: record.launch,
            outcome,
        };
        if self.verdict_given != Some(verdict) {
            self.verdict_given = Some(verdict);
            actions.push(SidecarAction::Verdict(verdict));
        }
    }
}
