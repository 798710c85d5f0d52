//! The sidecar's decision: the wanted window, the running one, and the actions that follow from the
//! difference.
//!
//! In: the accepted entry, the window file, the launcher's record, and the window that probes have
//! confirmed. Out: first the phase `Draining`, which makes the pod unready; after the drain, or
//! once the leader has released it, the order. Next for a window: `core/agent/handoff.rs`.
//!
//! The verdict on a start and its blocks are decided in `probe` and `blocks`.

use std::time::Duration;

use super::{
    Intent, LaunchState, MAX_DRAIN, MAX_LOAD, MAX_RETRY_WAIT, Phase, RETRY_FIRST, ReloadMode,
    Sidecar, SidecarAction, Window, WindowFile,
};
use crate::core::model::duration::PromDuration;

impl Sidecar {
    /// Decides. Call it after every input and at [`Sidecar::next_wake`].
    #[must_use]
    pub fn step(&mut self, now: Duration) -> Vec<SidecarAction> {
        let mut actions = Vec::new();
        if self.phase.is_ready() {
            self.last_ready = Some(now);
            self.let_go = false;
        }
        actions.extend(self.entries.promote(now).map(SidecarAction::Log));
        self.note_failure(now);
        let waits_after_error = self
            .act_error
            .as_ref()
            .is_some_and(|(_, until)| now < *until);
        if !waits_after_error {
            self.give_verdict(now, &mut actions);
            self.check_blocks(now, &mut actions);
        }
        let intent = self.intent(now);
        if !waits_after_error && intent == Intent::Nothing {
            self.act_error = None;
        }
        let drained = self.drained_at().is_none_or(|at| now >= at);
        if !waits_after_error && (intent == Intent::Note || (intent == Intent::Change && drained)) {
            self.let_go |= intent == Intent::Change;
            self.order(intent, now, &mut actions);
        } else if !waits_after_error {
            self.remember(&mut actions);
        }
        let before = self.phase;
        self.phase = self.phase_of(
            if actions.iter().any(|a| matches!(a, SidecarAction::Order(_)))
                && intent == Intent::Change
            {
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

    /// Returns when to step again without input. Call [`Sidecar::step`] and [`Sidecar::probe_due`]
    /// at `now` first: what was due then counts as done.
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

    pub(super) fn launch(&self) -> u64 {
        self.record.as_ref().map_or(0, |r| r.launch)
    }

    /// Returns whether there may be a thanos to probe.
    pub(super) fn runs(&self) -> bool {
        self.record
            .as_ref()
            .is_none_or(|r| r.state == LaunchState::Started)
    }

    pub(super) fn started(&self) -> bool {
        self.record.is_some() || self.confirmed.is_some()
    }

    pub(super) fn wanted(&self) -> Option<Window> {
        self.entries.accepted().map(|e| e.window)
    }

    pub(super) fn running(&self) -> Option<Window> {
        let started_with = self.record.as_ref().map(|r| r.window);
        let applied = self.confirmed.as_ref().map(|c| c.applied);
        if self.settings.reload == ReloadMode::Signal {
            applied.or(started_with)
        } else {
            started_with.or(applied)
        }
    }

    pub(super) fn intent(&self, now: Duration) -> Intent {
        let Some(wanted) = self.wanted() else {
            return Intent::Nothing;
        };
        let filed = self.file.is_some_and(|file| file.window == wanted);
        if !self.started() {
            return if filed { Intent::Nothing } else { Intent::Note };
        }
        if self.running() == Some(wanted) {
            return if filed || self.settings.reload == ReloadMode::Off {
                Intent::Nothing
            } else {
                Intent::Note
            };
        }
        let try_again = match self.retry {
            Some((window, _, at)) if window == wanted && filed => Some(at),
            _ => None,
        };
        match self.settings.reload {
            ReloadMode::Off => Intent::Nothing,
            ReloadMode::Signal => match (self.signalled, try_again) {
                (Some((window, ..)), None) if window == wanted => Intent::Pending,
                (_, Some(at)) if now < at => Intent::Wait(at),
                _ => Intent::Change,
            },
            ReloadMode::Exec => {
                let acted_on = |request| self.record.as_ref().is_some_and(|r| r.request >= request);
                match (self.file, try_again.map(|at| self.served_long_enough(at))) {
                    (Some(file), _) if filed && !acted_on(file.request) => Intent::Pending,
                    (_, Some(at)) if now < at => Intent::Wait(at),
                    _ => Intent::Change,
                }
            }
        }
    }

    /// Returns when a window that was given up is tried again. The window that thanos fell back to
    /// must be loaded, which may take far longer than the retry wait, and must have served for that
    /// wait.
    fn served_long_enough(&self, at: Duration) -> Duration {
        let pause = self
            .retry
            .map_or(Duration::ZERO, |(_, times, _)| backoff(times));
        match (
            self.confirmed
                .as_ref()
                .filter(|c| c.launch == self.launch()),
            self.runs(),
        ) {
            (Some(confirmed), _) => at.max(confirmed.since + pause),
            // It ended while it loaded, together with its launcher: it does not fit, and waiting
            // for it would never end.
            (None, true) if self.launch() > self.fallback_launch + 1 => at,
            (None, true) => at.max(self.launch_seen + MAX_LOAD),
            (None, false) => at,
        }
    }

    pub(super) fn phase_of(&self, intent: Intent) -> Phase {
        let confirmed = self
            .confirmed
            .as_ref()
            .is_some_and(|c| c.launch == self.launch());
        let (state, in_place) = self
            .record
            .as_ref()
            .map_or((LaunchState::Started, false), |r| (r.state, r.in_place));
        match intent {
            Intent::Change if self.last_ready.is_some() => Phase::Draining,
            _ if !self.started() => Phase::Starting,
            Intent::Pending => Phase::Restarting,
            _ if state == LaunchState::Stopping => Phase::Restarting,
            _ if state == LaunchState::Exited => Phase::Starting,
            _ if !confirmed || self.deciding() => {
                if in_place {
                    Phase::Restarting
                } else {
                    Phase::Starting
                }
            }
            Intent::Wait(_) => Phase::Failed,
            Intent::Nothing | Intent::Note | Intent::Change => Phase::Serving,
        }
    }

    /// Returns when queriers have dropped the pod; `None` if they never had it.
    pub(super) fn drained_at(&self) -> Option<Duration> {
        let asked = self
            .entries
            .accepted()
            .and_then(|e| e.drain)
            .map(PromDuration::to_std);
        let drain = if self.released() {
            Duration::ZERO
        } else {
            asked.map_or(self.settings.drain, |drain| drain.min(MAX_DRAIN))
        };
        self.last_ready.map(|at| at + drain)
    }

    /// Returns whether no querier uses the pod any more, for the current order. A retry of the
    /// order drains again.
    fn released(&self) -> bool {
        let order = self
            .entries
            .accepted()
            .filter(|entry| entry.released == entry.order)
            .and_then(|entry| entry.order);
        order.is_some() && self.file.is_none_or(|file| file.order != order)
    }

    /// Returns the window that was given up and why, while it is still wanted.
    pub(super) fn failure(&self) -> Option<(Window, String)> {
        let wanted = self
            .wanted()
            .filter(|wanted| Some(*wanted) != self.running())?;
        if self.settings.reload == ReloadMode::Signal {
            let (window, ..) = self.retry.filter(|(window, ..)| *window == wanted)?;
            let why = match self.confirmed.as_ref() {
                Some(c) if !c.verified => {
                    "thanos' effective flags cannot be read, so nothing shows that the signal worked"
                }
                _ => {
                    "thanos received the signal but did not change its flags; stock Thanos ignores SIGHUP, use --reload=exec"
                }
            };
            return Some((window, why.to_owned()));
        }
        let failed = self
            .record
            .as_ref()?
            .failed
            .as_ref()
            .filter(|failed| failed.window == wanted)?;
        Some((failed.window, failed.reason.clone()))
    }

    /// Schedules the next try when a window was given up.
    pub(super) fn note_failure(&mut self, now: Duration) {
        let times = if self.settings.reload == ReloadMode::Signal {
            self.signalled
                .filter(|(window, at, _)| {
                    now >= *at + self.settings.signal_timeout && self.running() != Some(*window)
                })
                .map(|(window, _, times)| (window, times))
        } else {
            let failed = self.record.as_ref().and_then(|r| r.failed.as_ref());
            failed.map(|failed| (failed.window, failed.times))
        };
        let known = self.retry.map(|(window, times, _)| (window, times));
        if times != known {
            self.drains.rollbacks += u64::from(times.is_some() && times != self.given_up_before);
            self.retry = times.map(|(window, times)| (window, times, now + backoff(times)));
            self.fallback_launch = self.launch();
        }
    }

    pub(super) fn order(
        &mut self,
        intent: Intent,
        now: Duration,
        actions: &mut Vec<SidecarAction>,
    ) {
        let Some(window) = self.wanted() else {
            return;
        };
        let seen = self
            .file
            .map_or(0, |f| f.request)
            .max(self.record.as_ref().map_or(0, |r| r.request));
        let (generation, accepted) = self.entries.to_keep();
        let order = self.entries.accepted().and_then(|entry| entry.order);
        let file = WindowFile {
            order,
            generation,
            accepted,
            ..WindowFile::new(seen + 1, window, self.settings.reload)
        };
        actions.push(SidecarAction::Order(file));
        if intent == Intent::Note {
            return;
        }
        self.ordering = Some((Duration::ZERO, self.phase));
        self.probe_soon(now);
        if self.settings.reload == ReloadMode::Signal {
            let times = self
                .signalled
                .filter(|(w, ..)| *w == window)
                .map_or(0, |(_, _, times)| times);
            self.signalled = Some((window, now, times + 1));
            self.retry = None;
            actions.push(SidecarAction::Signal);
        } else if self.record.is_none() {
            self.confirmed = None;
        }
    }

    /// Stores the accepted entry for the next sidecar in the current window file.
    pub(super) fn remember(&self, actions: &mut Vec<SidecarAction>) {
        let (generation, accepted) = self.entries.to_keep();
        if let Some(file) = self
            .file
            .filter(|file| (file.generation, file.accepted) != (generation, accepted))
        {
            actions.push(SidecarAction::Remember(WindowFile {
                generation,
                accepted,
                ..file
            }));
        }
    }
}

/// Returns the wait after the n-th consecutive failure.
fn backoff(times: u32) -> Duration {
    let doublings = times.saturating_sub(1).min(16);
    (RETRY_FIRST * 2_u32.pow(doublings)).min(MAX_RETRY_WAIT)
}
