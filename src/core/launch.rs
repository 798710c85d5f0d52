//! The launcher's decisions: what happened goes in, what to do comes out.
//!
//! Invariants, which the tests check on random sequences of events:
//! - a start is recorded before it happens ([`Action::Record`] precedes [`Action::Start`]), and there is at most one child;
//! - a window that was never ready in this pod is given up for the last good one when its start fails, also when the
//!   failure took the launcher with it (on cgroup v2 an OOM kills both);
//! - a failure of the last good window, or of the only window so far, is not the window's: the launcher ends with
//!   thanos' code and leaves the rest to kubelet;
//! - a start that is judged incomplete (ready, with blocks missing) is repeated with the same window, which stays good;
//! - the first SIGTERM keeps thanos serving for the termination drain, the second ends it at once.
//!
//! Deliberately absent: processes, files, clocks (timers are asked for by name), and trying a failed window again, which
//! is the sidecar's order, because it has to drain first.

use super::names::CONTRACT;
use super::shared_files::{Failed, LaunchState, Outcome, Record, ReloadMode, Verdict, WindowFile};
use super::window::Window;

#[cfg(test)]
mod tests;

/// Signals the launcher deals with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// End, after the termination drain.
    Term,
    /// End at once.
    Int,
    /// End at once, with a stack dump (Go).
    Quit,
    /// Handed on.
    Usr1,
    /// Handed on.
    Usr2,
    /// Ends what ignores SIGTERM.
    Kill,
}

/// The two delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// How long a thanos that is being restarted may take to stop.
    StopGrace,
    /// How long thanos goes on serving after the pod's deletion began.
    TerminationDrain,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The window file holds this.
    Ordered(WindowFile),
    /// The verdict file holds this.
    Judged(Verdict),
    /// The child ended, with this exit code (128 + n for signal n).
    Exited(i32),
    /// The launcher got a signal.
    Signalled(Signal),
    /// The timer asked for last went off.
    Elapsed(Timer),
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the record durable.
    Record(Record),
    /// Start thanos with this window.
    Start(Window),
    /// Send the child a signal.
    Send(Signal),
    /// Set the one timer; replaces the previous one.
    Arm(Timer),
    /// Forget the timer.
    Disarm,
    /// Tell the log.
    Say(String),
    /// End the launcher with this code.
    Exit(i32),
}

/// How the pod wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether there is a termination drain.
    pub drains: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// SIGTERM is sent; `next` is started when it has ended, for order `request`.
    Stopping {
        next: Window,
        request: u64,
    },
    Draining,
    Ending,
    Ended,
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Launcher {
    options: Options,
    state: State,
    record: Record,
}

impl Launcher {
    /// Decides on the first start of this launcher: `record` and the other files as an earlier launcher of the same pod
    /// and the sidecar left them, `initial` from the arguments.
    #[must_use]
    pub fn begin(
        options: Options,
        record: Option<Record>,
        verdict: Option<Verdict>,
        order: Option<WindowFile>,
        initial: Window,
    ) -> (Self, Vec<Action>) {
        let mut actions = Vec::new();
        let mut record = record.unwrap_or(Record {
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
        });
        record.contract = CONTRACT;
        let known = record.launch > 0;
        if verdict.is_some_and(|v| {
            known
                && v.launch == record.launch
                && matches!(v.outcome, Outcome::Ready | Outcome::Incomplete)
        }) {
            record.mark_ready();
        }
        // A verdict that outlived the record must never match a start of ours.
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
                actions.push(Action::Say(give_up(&mut record, good, why)));
                (good, record.request)
            }
            (None, _) => (record.window, record.request),
        };
        let mut launcher = Self {
            options,
            state: State::Running,
            record,
        };
        launcher.start(window, request, false, &mut actions);
        (launcher, actions)
    }

    /// What the launcher knows.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// Decides what to do about `event`.
    #[must_use]
    pub fn on(&mut self, event: &Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match *event {
            Event::Ordered(order) => self.ordered(order, &mut actions),
            Event::Judged(verdict) => self.judged(verdict, &mut actions),
            Event::Exited(code) => self.exited(code, &mut actions),
            Event::Signalled(signal) => self.signalled(signal, &mut actions),
            Event::Elapsed(timer) => self.elapsed(timer, &mut actions),
        }
        actions
    }

    fn ordered(&mut self, order: WindowFile, actions: &mut Vec<Action>) {
        match &mut self.state {
            State::Running
                if order.request > self.record.request && order.reload == ReloadMode::Exec =>
            {
                if order.window == self.record.window {
                    // The published window went back to what thanos runs with: nothing to restart for.
                    self.record.request = order.request;
                    actions.push(Action::Record(self.record.clone()));
                } else {
                    self.stop(order.window, order.request, actions);
                }
            }
            State::Stopping { next, request } if order.request > *request => {
                (*next, *request) = (order.window, order.request);
            }
            State::Running
            | State::Stopping { .. }
            | State::Draining
            | State::Ending
            | State::Ended => {}
        }
    }

    fn judged(&mut self, verdict: Verdict, actions: &mut Vec<Action>) {
        if verdict.launch != self.record.launch {
            return;
        }
        match verdict.outcome {
            Outcome::Ready if !self.record.ready => {
                self.record.mark_ready();
                actions.push(Action::Record(self.record.clone()));
            }
            // It was ready, so the window is good; only its blocks are loaded once more.
            Outcome::Incomplete if self.state == State::Running => {
                self.record.mark_ready();
                self.stop(self.record.window, self.record.request, actions);
            }
            Outcome::Ready | Outcome::Incomplete => {}
            Outcome::TimedOut => {
                if let (State::Running, Some(good), false) =
                    (self.state, self.fallback(), self.record.ready)
                {
                    let why = "thanos was not ready within the ready timeout";
                    actions.push(Action::Say(give_up(&mut self.record, good, why)));
                    self.stop(good, self.record.request, actions);
                }
            }
        }
    }

    fn exited(&mut self, code: i32, actions: &mut Vec<Action>) {
        match self.state {
            State::Stopping { next, request } => {
                actions.push(Action::Disarm);
                self.start(next, request, true, actions);
            }
            State::Running if let Some(good) = self.fallback() => {
                let why = format!("thanos ended with exit code {code} before it was ready");
                actions.push(Action::Say(give_up(&mut self.record, good, &why)));
                self.start(good, self.record.request, true, actions);
            }
            State::Running | State::Draining | State::Ending => {
                self.state = State::Ended;
                self.record.state = LaunchState::Exited;
                actions.push(Action::Record(self.record.clone()));
                actions.push(Action::Exit(code));
            }
            State::Ended => {}
        }
    }

    fn signalled(&mut self, signal: Signal, actions: &mut Vec<Action>) {
        match (signal, self.state) {
            (_, State::Ended) => {}
            (Signal::Term, State::Running) if self.options.drains => {
                self.state = State::Draining;
                actions.push(Action::Say(
                    "the pod is being deleted: thanos goes on serving for the termination drain"
                        .to_owned(),
                ));
                actions.push(Action::Arm(Timer::TerminationDrain));
            }
            (Signal::Term | Signal::Int | Signal::Quit, _) => {
                self.state = State::Ending;
                actions.push(Action::Disarm);
                actions.push(Action::Send(signal));
            }
            (Signal::Usr1 | Signal::Usr2 | Signal::Kill, _) => actions.push(Action::Send(signal)),
        }
    }

    fn elapsed(&mut self, timer: Timer, actions: &mut Vec<Action>) {
        match (timer, self.state) {
            (Timer::StopGrace, State::Stopping { .. }) => {
                actions.push(Action::Say(
                    "thanos did not stop within the stop grace: killing it".to_owned(),
                ));
                actions.push(Action::Send(Signal::Kill));
            }
            (Timer::TerminationDrain, State::Draining) => {
                self.state = State::Ending;
                actions.push(Action::Send(Signal::Term));
            }
            _ => {}
        }
    }

    /// The window to go back to: only a start that was never ready has one.
    fn fallback(&self) -> Option<Window> {
        self.record
            .good
            .filter(|good| !self.record.ready && *good != self.record.window)
    }

    fn stop(&mut self, next: Window, request: u64, actions: &mut Vec<Action>) {
        let why = if next == self.record.window {
            "to load its blocks again".to_owned()
        } else {
            format!("{} becomes {next}", self.record.window)
        };
        actions.push(Action::Say(format!("restarting thanos in place: {why}")));
        self.state = State::Stopping { next, request };
        // Not an open attempt any more: should the launcher end here, the next one starts the new window afresh.
        self.record.state = LaunchState::Stopping;
        actions.push(Action::Record(self.record.clone()));
        actions.push(Action::Send(Signal::Term));
        actions.push(Action::Arm(Timer::StopGrace));
    }

    fn start(&mut self, window: Window, request: u64, in_place: bool, actions: &mut Vec<Action>) {
        self.state = State::Running;
        let record = &mut self.record;
        record.launch += 1;
        record.request = request;
        record.window = window;
        record.state = LaunchState::Started;
        record.ready = false;
        record.in_place = in_place;
        record.restarts += u64::from(in_place);
        actions.push(Action::Record(record.clone()));
        actions.push(Action::Start(window));
    }
}

/// Notes that the record's window is given up for `good`, and returns the line for the log.
fn give_up(record: &mut Record, good: Window, why: &str) -> String {
    let before = record
        .failed
        .take()
        .filter(|failed| failed.window == record.window);
    record.failed = Some(Failed {
        window: record.window,
        reason: why.to_owned(),
        times: before.map_or(0, |failed| failed.times).saturating_add(1),
    });
    format!(
        "window {} given up: {why}; going back to {good}",
        record.window
    )
}
