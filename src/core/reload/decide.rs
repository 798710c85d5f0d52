//! The rules behind [`Sidecar::step`]: what is wanted, what runs, and what follows from the difference.

use std::time::Duration;

use super::super::duration::PromDuration;
use super::{
    Action, DRAIN_MOST, Intent, LOAD_MOST, LaunchState, Outcome, Phase, RETRY_FIRST, RETRY_MOST,
    ReloadMode, Sidecar, Verdict, Window, WindowFile,
};

impl Sidecar {
    pub(super) fn launch(&self) -> u64 {
        self.record.as_ref().map_or(0, |r| r.launch)
    }

    /// Whether there may be a thanos to look at.
    pub(super) fn runs(&self) -> bool {
        self.record
            .as_ref()
            .is_none_or(|r| r.state == LaunchState::Started)
    }

    /// Whether thanos was started in this pod.
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

    /// When a window that was given up is tried again: the one to which thanos went back must have been loaded, which may
    /// take far longer than the next try is away, and must have served for as long.
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
            (None, true) => at.max(self.launch_seen + LOAD_MOST),
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

    /// When queriers have let go of the pod; `None` if they never knew it.
    pub(super) fn drained_at(&self) -> Option<Duration> {
        let asked = self
            .entries
            .accepted()
            .and_then(|e| e.drain)
            .map(PromDuration::to_std);
        let drain = if self.released() {
            Duration::ZERO
        } else {
            asked.map_or(self.settings.drain, |drain| drain.min(DRAIN_MOST))
        };
        self.last_ready.map(|at| at + drain)
    }

    /// Whether no querier uses the pod any more, for the order that is to be carried out; a retry of it drains again.
    fn released(&self) -> bool {
        let order = self
            .entries
            .accepted()
            .filter(|entry| entry.released == entry.order)
            .and_then(|entry| entry.order);
        order.is_some() && self.file.is_none_or(|file| file.order != order)
    }

    pub(super) fn timeout_at(&self) -> Option<Duration> {
        let record = self
            .record
            .as_ref()
            .filter(|r| r.state == LaunchState::Started)?;
        let open =
            self.confirmed.is_none() && self.judged.is_none_or(|v| v.launch != record.launch);
        (open && !self.settings.ready_timeout.is_zero())
            .then(|| self.launch_seen + self.settings.ready_timeout)
    }

    /// The window that was given up and why, while it is still wanted.
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
                    "thanos got the signal but did not change its flags; stock Thanos ignores SIGHUP, use --reload=exec"
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

    /// Sets the time of the next try when a window was given up.
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
        }
    }

    pub(super) fn judge(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(record) = self.record.as_ref() else {
            return;
        };
        let outcome = match self.confirmed.as_ref() {
            // A start that is to be repeated is ready, too; the one verdict must not replace the other.
            Some(_)
                if self.judged.is_some_and(|v| {
                    v.launch == record.launch && v.outcome == Outcome::Incomplete
                }) =>
            {
                return;
            }
            Some(c) if c.launch == record.launch && !record.ready => Outcome::Ready,
            None if self.timeout_at().is_some_and(|at| now >= at) => Outcome::TimedOut,
            _ => return,
        };
        let verdict = Verdict {
            launch: record.launch,
            outcome,
        };
        if self.judged != Some(verdict) {
            self.judged = Some(verdict);
            actions.push(Action::Judge(verdict));
        }
    }

    pub(super) fn order(&mut self, intent: Intent, now: Duration, actions: &mut Vec<Action>) {
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
        actions.push(Action::Order(file));
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
            actions.push(Action::Signal);
        } else if self.record.is_none() {
            self.confirmed = None;
        }
    }

    /// Keeps what was accepted for a successor, in the window file as it stands.
    pub(super) fn remember(&self, actions: &mut Vec<Action>) {
        let (generation, accepted) = self.entries.to_keep();
        if let Some(file) = self
            .file
            .filter(|file| (file.generation, file.accepted) != (generation, accepted))
        {
            actions.push(Action::Remember(WindowFile {
                generation,
                accepted,
                ..file
            }));
        }
    }

    pub(super) fn probe_soon(&mut self, now: Duration) {
        self.probe_wait = super::PROBE_FIRST;
        self.next_probe = now;
    }
}

/// How long to wait after the n-th failure in a row.
fn backoff(times: u32) -> Duration {
    let doublings = times.saturating_sub(1).min(16);
    (RETRY_FIRST * 2_u32.pow(doublings)).min(RETRY_MOST)
}
