//! The launcher's decisions on starts of thanos.
//!
//! In: [`LauncherEvent`]s. Out: [`LauncherAction`]s. An order ([`LauncherEvent::Ordered`]) stops
//! thanos; its end ([`LauncherEvent::Exited`]) starts it with the ordered window; the sidecar's
//! verdict makes the window good, or leads back to the last good one. Next for a window:
//! `launcher/loads.rs`.
//!
//! Invariants, which the tests check on random sequences of events:
//! - a start is recorded before it happens ([`LauncherAction::Record`] precedes
//!   [`LauncherAction::Start`]), and there is at most one child;
//! - a window with which thanos was never ready in this pod is given up for the last good one when
//!   its start fails, even if the failure also killed the launcher (on cgroup v2 an OOM kills
//!   both);
//! - a failure with the last good window, or with the only window so far, is not the window's
//!   fault: the launcher exits with thanos' code and leaves the rest to kubelet;
//! - a start with the verdict incomplete (ready, with blocks missing) is repeated with the same
//!   window, which stays good;
//! - the first SIGTERM keeps thanos serving for the termination drain, the second ends it
//!   immediately.
//!
//! Deliberately absent: processes, files, clocks (timers are requested by name), and retries of a
//! failed window, which the sidecar orders because it must drain first.

use super::handoff::{
    Failed, LaunchOutcome, LaunchRecord, LaunchState, LaunchVerdict, ReloadMode, WindowFile,
};
use super::last_load::LastLoad;
use crate::core::model::names::CONTRACT;
use crate::core::model::window::Window;

#[cfg(test)]
mod tests;

/// Signals that the launcher handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// End, after the termination drain.
    Term,
    /// End immediately.
    Int,
    /// End immediately, with a stack dump (Go).
    Quit,
    /// Forwarded.
    Usr1,
    /// Forwarded.
    Usr2,
    /// Ends a thanos that ignores SIGTERM.
    Kill,
}

impl Signal {
    /// The exit code (128 + n) of a process that this signal ends; `None` if thanos goes on.
    #[must_use]
    pub const fn exit_code(self) -> Option<i32> {
        match self {
            Self::Int => Some(130),
            Self::Quit => Some(131),
            Self::Kill => Some(137),
            Self::Term => Some(143),
            Self::Usr1 | Self::Usr2 => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// How long thanos may take to stop for a restart.
    StopGrace,
    /// How long thanos goes on serving after the pod's deletion began.
    TerminationDrain,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LauncherEvent {
    /// The content of the window file.
    Ordered(WindowFile),
    /// The content of the verdict file.
    Verdict(LaunchVerdict),
    /// The child ended, with this exit code (128 + n for signal n).
    Exited(i32),
    Signalled(Signal),
    /// The armed timer elapsed.
    Elapsed(Timer),
    /// How the start with this number went.
    Loaded(u64, LastLoad),
}

/// Something for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LauncherNote {
    GaveUp {
        window: Window,
        /// The last good window.
        back_to: Window,
        reason: String,
    },
    /// Thanos is restarted in place: for another window, or to load its blocks again.
    Restarts {
        from: Window,
        to: Window,
    },
    /// The termination drain begins.
    Drains,
    StopGraceOver,
}

/// To carry out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LauncherAction {
    /// Make the record durable.
    Record(LaunchRecord),
    Start {
        window: Window,
        /// Whether the last start had another window, or is unknown.
        changed: bool,
    },
    Send(Signal),
    /// Set the only timer; replaces the previous one.
    Arm(Timer),
    Disarm,
    Log(LauncherNote),
    /// End the launcher with this code.
    Exit(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LauncherOptions {
    /// Whether there is a termination drain.
    pub drains: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProcessState {
    Running,
    /// SIGTERM is sent. When thanos has ended, `next` is started for order `request`.
    Stopping {
        next: Window,
        request: u64,
    },
    Draining,
    Ending,
    Ended,
}

#[derive(Clone, Debug)]
pub struct Launcher {
    options: LauncherOptions,
    state: ProcessState,
    record: LaunchRecord,
}

impl Launcher {
    /// Decides on the first start of this launcher. `record` and the other files are from an
    /// earlier launcher of the same pod and from the sidecar, `initial` from the arguments.
    #[must_use]
    pub fn begin(
        options: LauncherOptions,
        record: Option<LaunchRecord>,
        verdict: Option<LaunchVerdict>,
        order: Option<WindowFile>,
        initial: Window,
    ) -> (Self, Vec<LauncherAction>) {
        let mut actions = Vec::new();
        let mut record = record.unwrap_or(LaunchRecord {
            contract: CONTRACT,
            launch: 0,
            request: 0,
            window: initial,
            state: LaunchState::Exited,
            ready: false,
            in_place: false,
            good: None,
            failed: None,
            restarts: 0,
            last_load: None,
        });
        record.contract = CONTRACT;
        let known = record.launch > 0;
        if verdict.is_some_and(|v| {
            known
                && v.launch == record.launch
                && matches!(v.outcome, LaunchOutcome::Ready | LaunchOutcome::Incomplete)
        }) {
            record.mark_ready();
        }
        // A verdict that outlived the record must never match a start of this launcher.
        record.launch = record.launch.max(verdict.map_or(0, |v| v.launch));
        let order = order.filter(|order| order.request > record.request || !known);
        let given_up = record
            .failed
            .as_ref()
            .is_some_and(|failed| failed.window == record.window);
        let open_attempt =
            known && !record.ready && (given_up || record.state != LaunchState::Stopping);
        let (window, request) = match (order, record.good) {
            (Some(order), _) => (order.window, order.request),
            (None, Some(good)) if open_attempt && good != record.window => {
                let why = "thanos and the launcher ended before thanos was ready (out of memory is the usual cause)";
                actions.push(LauncherAction::Log(give_up(&mut record, good, why)));
                (good, record.request)
            }
            (None, _) => (record.window, record.request),
        };
        let mut launcher = Self {
            options,
            state: ProcessState::Running,
            record,
        };
        launcher.start(window, request, false, &mut actions);
        (launcher, actions)
    }

    #[must_use]
    pub const fn record(&self) -> &LaunchRecord {
        &self.record
    }

    #[must_use]
    pub fn on(&mut self, event: &LauncherEvent) -> Vec<LauncherAction> {
        let mut actions = Vec::new();
        match *event {
            LauncherEvent::Ordered(order) => self.ordered(order, &mut actions),
            LauncherEvent::Verdict(verdict) => self.take_verdict(verdict, &mut actions),
            LauncherEvent::Exited(code) => self.exited(code, &mut actions),
            LauncherEvent::Signalled(signal) => self.signalled(signal, &mut actions),
            LauncherEvent::Elapsed(timer) => self.elapsed(timer, &mut actions),
            LauncherEvent::Loaded(launch, load) => {
                if launch == self.record.launch {
                    self.record.last_load = Some(load);
                    actions.push(LauncherAction::Record(self.record.clone()));
                }
            }
        }
        actions
    }

    fn ordered(&mut self, order: WindowFile, actions: &mut Vec<LauncherAction>) {
        match &mut self.state {
            ProcessState::Running
                if order.request > self.record.request && order.reload == ReloadMode::Exec =>
            {
                if order.window == self.record.window {
                    // The published window went back to the running one: no restart.
                    self.record.request = order.request;
                    actions.push(LauncherAction::Record(self.record.clone()));
                } else {
                    self.stop(order.window, order.request, actions);
                }
            }
            ProcessState::Stopping { next, request } if order.request > *request => {
                (*next, *request) = (order.window, order.request);
            }
            ProcessState::Running
            | ProcessState::Stopping { .. }
            | ProcessState::Draining
            | ProcessState::Ending
            | ProcessState::Ended => {}
        }
    }

    fn take_verdict(&mut self, verdict: LaunchVerdict, actions: &mut Vec<LauncherAction>) {
        if verdict.launch != self.record.launch {
            return;
        }
        match verdict.outcome {
            LaunchOutcome::Ready if !self.record.ready => {
                self.record.mark_ready();
                actions.push(LauncherAction::Record(self.record.clone()));
            }
            // Thanos was ready, so the window is good; only its blocks are loaded again.
            LaunchOutcome::Incomplete if self.state == ProcessState::Running => {
                self.record.mark_ready();
                self.stop(self.record.window, self.record.request, actions);
            }
            LaunchOutcome::Ready | LaunchOutcome::Incomplete => {}
            LaunchOutcome::TimedOut => {
                if let (ProcessState::Running, Some(good), false) =
                    (self.state, self.fallback(), self.record.ready)
                {
                    let why = "thanos was not ready within the ready timeout";
                    actions.push(LauncherAction::Log(give_up(&mut self.record, good, why)));
                    self.stop(good, self.record.request, actions);
                }
            }
        }
    }

    fn exited(&mut self, code: i32, actions: &mut Vec<LauncherAction>) {
        match self.state {
            ProcessState::Stopping { next, request } => {
                actions.push(LauncherAction::Disarm);
                self.start(next, request, true, actions);
            }
            ProcessState::Running if let Some(good) = self.fallback() => {
                let why = format!("thanos ended with exit code {code} before it was ready");
                actions.push(LauncherAction::Log(give_up(&mut self.record, good, &why)));
                self.start(good, self.record.request, true, actions);
            }
            ProcessState::Running | ProcessState::Draining | ProcessState::Ending => {
                self.state = ProcessState::Ended;
                self.record.state = LaunchState::Exited;
                actions.push(LauncherAction::Record(self.record.clone()));
                actions.push(LauncherAction::Exit(code));
            }
            ProcessState::Ended => {}
        }
    }

    fn signalled(&mut self, signal: Signal, actions: &mut Vec<LauncherAction>) {
        match (signal, self.state) {
            (_, ProcessState::Ended) => {}
            (Signal::Term, ProcessState::Running) if self.options.drains => {
                self.state = ProcessState::Draining;
                actions.push(LauncherAction::Log(LauncherNote::Drains));
                actions.push(LauncherAction::Arm(Timer::TerminationDrain));
            }
            (Signal::Term | Signal::Int | Signal::Quit, _) => {
                self.state = ProcessState::Ending;
                actions.push(LauncherAction::Disarm);
                actions.push(LauncherAction::Send(signal));
            }
            (Signal::Usr1 | Signal::Usr2 | Signal::Kill, _) => {
                actions.push(LauncherAction::Send(signal));
            }
        }
    }

    fn elapsed(&mut self, timer: Timer, actions: &mut Vec<LauncherAction>) {
        match (timer, self.state) {
            (Timer::StopGrace, ProcessState::Stopping { .. }) => {
                actions.push(LauncherAction::Log(LauncherNote::StopGraceOver));
                actions.push(LauncherAction::Send(Signal::Kill));
            }
            (Timer::TerminationDrain, ProcessState::Draining) => {
                self.state = ProcessState::Ending;
                actions.push(LauncherAction::Send(Signal::Term));
            }
            _ => {}
        }
    }

    /// Returns the window to fall back to; only a start that was never ready has one.
    fn fallback(&self) -> Option<Window> {
        self.record
            .good
            .filter(|good| !self.record.ready && *good != self.record.window)
    }

    fn stop(&mut self, next: Window, request: u64, actions: &mut Vec<LauncherAction>) {
        actions.push(LauncherAction::Log(LauncherNote::Restarts {
            from: self.record.window,
            to: next,
        }));
        self.state = ProcessState::Stopping { next, request };
        // No longer an open attempt: if the launcher ends here, the next one starts the new window.
        self.record.state = LaunchState::Stopping;
        actions.push(LauncherAction::Record(self.record.clone()));
        actions.push(LauncherAction::Send(Signal::Term));
        actions.push(LauncherAction::Arm(Timer::StopGrace));
    }

    fn start(
        &mut self,
        window: Window,
        request: u64,
        in_place: bool,
        actions: &mut Vec<LauncherAction>,
    ) {
        self.state = ProcessState::Running;
        let record = &mut self.record;
        let changed = record.launch == 0 || record.window != window;
        record.launch += 1;
        record.request = request;
        record.window = window;
        record.state = LaunchState::Started;
        record.ready = false;
        record.in_place = in_place;
        record.restarts += u64::from(in_place);
        actions.push(LauncherAction::Record(record.clone()));
        actions.push(LauncherAction::Start { window, changed });
    }
}

/// Gives up the record's window for `good`.
fn give_up(record: &mut LaunchRecord, good: Window, why: &str) -> LauncherNote {
    let before = record
        .failed
        .take()
        .filter(|failed| failed.window == record.window);
    record.failed = Some(Failed {
        window: record.window,
        reason: why.to_owned(),
        times: before.map_or(0, |failed| failed.times).saturating_add(1),
    });
    LauncherNote::GaveUp {
        window: record.window,
        back_to: good,
        reason: why.to_owned(),
    }
}
