//! Named scenarios, and random sequences of events against a model of the pod.

use super::*;
use crate::testing::cases;
use proptest::prelude::*;

mod loads;

fn window(days: i64) -> Window {
    Window {
        min: format!("-{days}d").parse().unwrap(),
        max: "1d".parse().unwrap(),
    }
}

fn order(request: u64, days: i64) -> WindowFile {
    WindowFile::new(request, window(days), ReloadMode::Exec)
}

const INITIAL_DAYS: i64 = 100;

/// A pod: one container with a launcher and a thanos, the shared directory, and checks of the
/// invariants.
struct Pod {
    options: LauncherOptions,
    launcher: Launcher,
    child: Option<Window>,
    timer: Option<Timer>,
    disk: Option<LaunchRecord>,
    verdict: Option<LaunchVerdict>,
    order: Option<WindowFile>,
    exit: Option<i32>,
    sent: Vec<Signal>,
    starts: u64,
}

impl Pod {
    fn new(drains: bool, order: Option<WindowFile>) -> Self {
        let options = LauncherOptions { drains };
        let (launcher, actions) = Launcher::begin(options, None, None, order, window(INITIAL_DAYS));
        let mut pod = Self {
            options,
            launcher,
            child: None,
            timer: None,
            disk: None,
            verdict: None,
            order,
            exit: None,
            sent: Vec::new(),
            starts: 0,
        };
        pod.act(&actions);
        pod
    }

    fn act(&mut self, actions: &[LauncherAction]) {
        for action in actions {
            assert_eq!(self.exit, None, "nothing happens after the end");
            match action {
                LauncherAction::Record(record) => {
                    let before = self.disk.as_ref().map_or(0, |r| r.launch);
                    assert!(record.launch >= before, "start numbers never go back");
                    self.disk = Some(record.clone());
                }
                LauncherAction::Start { window, .. } => {
                    assert_eq!(self.child, None, "one child at most");
                    let record = self.disk.as_ref().expect("recorded before it is started");
                    assert_eq!(
                        (record.window, record.state),
                        (*window, LaunchState::Started)
                    );
                    assert!(!record.ready);
                    assert!(
                        self.verdict.is_none_or(|v| v.launch < record.launch),
                        "no verdict is older than its start"
                    );
                    self.child = Some(*window);
                    self.starts += 1;
                }
                LauncherAction::Send(signal) => self.sent.push(*signal),
                LauncherAction::Arm(timer) => self.timer = Some(*timer),
                LauncherAction::Disarm => self.timer = None,
                LauncherAction::Log(_) => {}
                LauncherAction::Exit(code) => {
                    assert_eq!(self.child, None, "the launcher outlives thanos");
                    self.exit = Some(*code);
                }
            }
        }
    }

    fn event(&mut self, event: &LauncherEvent) {
        let actions = self.launcher.on(event);
        self.act(&actions);
    }

    fn exited(&mut self, code: i32) {
        if self.child.take().is_some() {
            self.event(&LauncherEvent::Exited(code));
        }
    }

    fn give_verdict(&mut self, outcome: LaunchOutcome) {
        let verdict = LaunchVerdict {
            launch: self.disk.as_ref().unwrap().launch,
            outcome,
        };
        self.verdict = Some(verdict);
        self.event(&LauncherEvent::Verdict(verdict));
    }

    fn ordered(&mut self, order: WindowFile) {
        self.order = Some(order);
        self.event(&LauncherEvent::Ordered(order));
    }

    /// The whole container is killed or has ended, and kubelet starts it again.
    fn container_restarts(&mut self) {
        (self.child, self.timer, self.exit) = (None, None, None);
        let (launcher, actions) = Launcher::begin(
            self.options,
            self.disk.clone(),
            self.verdict,
            self.order,
            window(INITIAL_DAYS),
        );
        self.launcher = launcher;
        self.act(&actions);
    }

    fn failed(&self) -> Option<(Window, u32)> {
        self.disk
            .as_ref()?
            .failed
            .as_ref()
            .map(|f| (f.window, f.times))
    }
}

#[test]
fn the_published_window_is_used_from_the_first_start() {
    assert_eq!(Pod::new(false, None).child, Some(window(INITIAL_DAYS)));
    assert_eq!(Pod::new(false, Some(order(1, 50))).child, Some(window(50)));
}

#[test]
fn a_change_restarts_in_place() {
    let mut pod = Pod::new(false, None);
    pod.give_verdict(LaunchOutcome::Ready);
    pod.ordered(order(1, 50));
    assert_eq!(pod.sent, [Signal::Term]);
    assert_eq!(pod.timer, Some(Timer::StopGrace));
    pod.ordered(order(2, 40));
    pod.exited(0);
    assert_eq!((pod.child, pod.timer), (Some(window(40)), None));
    assert_eq!(pod.launcher.record().restarts, 1);
    pod.ordered(order(2, 40));
    pod.ordered(order(1, 50));
    assert_eq!(pod.child, Some(window(40)), "old orders are ignored");
    pod.ordered(order(3, 40));
    assert_eq!(
        (pod.sent.len(), pod.launcher.record().request),
        (1, 3),
        "the same window is noted, not restarted"
    );
}

#[test]
fn a_window_that_ends_thanos_is_given_up() {
    let mut pod = Pod::new(false, None);
    pod.give_verdict(LaunchOutcome::Ready);
    pod.ordered(order(1, 50));
    pod.exited(0);
    pod.exited(1);
    assert_eq!(pod.child, Some(window(INITIAL_DAYS)));
    assert_eq!(pod.failed(), Some((window(50), 1)));
    pod.give_verdict(LaunchOutcome::Ready);
    pod.ordered(order(2, 50));
    pod.exited(0);
    pod.exited(1);
    assert_eq!(
        pod.failed(),
        Some((window(50), 2)),
        "failures in a row are counted"
    );
    pod.exited(3);
    assert_eq!(
        pod.exit,
        Some(3),
        "the last good window fails too: not the window's fault"
    );
    pod.container_restarts();
    assert_eq!(
        pod.child,
        Some(window(INITIAL_DAYS)),
        "and the next launcher starts with it again"
    );
    pod.give_verdict(LaunchOutcome::Ready);
    pod.ordered(order(3, 50));
    pod.exited(0);
    pod.give_verdict(LaunchOutcome::Ready);
    assert_eq!(pod.failed(), None, "forgotten once it is ready");
}

#[test]
fn an_attempt_that_took_the_launcher_with_it_is_given_up() {
    let mut pod = Pod::new(false, None);
    pod.give_verdict(LaunchOutcome::Ready);
    pod.ordered(order(1, 50));
    pod.exited(0);
    pod.container_restarts();
    assert_eq!(
        (pod.child, pod.failed()),
        (Some(window(INITIAL_DAYS)), Some((window(50), 1)))
    );
    pod.container_restarts();
    assert_eq!(
        pod.failed(),
        Some((window(50), 1)),
        "the last good window's end is not a second failure"
    );
}

#[test]
fn a_launcher_killed_while_thanos_stops_starts_the_new_window() {
    let mut pod = Pod::new(false, None);
    pod.give_verdict(LaunchOutcome::Ready);
    pod.ordered(order(1, 50));
    pod.container_restarts();
    assert_eq!((pod.child, pod.failed()), (Some(window(50)), None));
}

#[test]
fn a_ready_mark_counts_although_the_launcher_did_not_see_it() {
    let mut pod = Pod::new(false, None);
    pod.give_verdict(LaunchOutcome::Ready);
    pod.ordered(order(1, 50));
    pod.exited(0);
    pod.verdict = Some(LaunchVerdict {
        launch: 2,
        outcome: LaunchOutcome::Ready,
    });
    pod.container_restarts();
    assert_eq!((pod.child, pod.failed()), (Some(window(50)), None));
}

#[test]
fn without_a_good_window_there_is_nothing_to_go_back_to() {
    let mut pod = Pod::new(false, Some(order(1, 50)));
    pod.exited(1);
    assert_eq!(pod.exit, Some(1));
    pod.container_restarts();
    assert_eq!(pod.child, Some(window(50)));
    pod.give_verdict(LaunchOutcome::TimedOut);
    assert_eq!(pod.sent, []);
}

#[test]
fn a_start_that_takes_too_long_is_given_up() {
    let mut pod = Pod::new(false, None);
    pod.give_verdict(LaunchOutcome::Ready);
    pod.ordered(order(1, 50));
    pod.exited(0);
    pod.give_verdict(LaunchOutcome::TimedOut);
    assert_eq!(pod.sent, [Signal::Term, Signal::Term]);
    let mut killed = Pod { ..pod };
    killed.container_restarts();
    assert_eq!(
        killed.child,
        Some(window(INITIAL_DAYS)),
        "also when the launcher is killed half-way"
    );
}

#[test]
fn a_thanos_that_does_not_stop_is_killed() {
    let mut pod = Pod::new(false, None);
    pod.ordered(order(1, 50));
    pod.event(&LauncherEvent::Elapsed(Timer::StopGrace));
    assert_eq!(pod.sent, [Signal::Term, Signal::Kill]);
    pod.exited(137);
    assert_eq!(pod.child, Some(window(50)));
}

#[test]
fn termination_drains_once() {
    let mut pod = Pod::new(true, None);
    pod.event(&LauncherEvent::Signalled(Signal::Term));
    assert_eq!(
        (pod.sent.len(), pod.timer),
        (0, Some(Timer::TerminationDrain))
    );
    pod.ordered(order(1, 50));
    assert_eq!(pod.sent.len(), 0, "no restart during the drain");
    pod.event(&LauncherEvent::Elapsed(Timer::TerminationDrain));
    pod.event(&LauncherEvent::Signalled(Signal::Usr1));
    assert_eq!(pod.sent, [Signal::Term, Signal::Usr1]);
    pod.exited(0);
    assert_eq!(pod.exit, Some(0));
    for second in [Signal::Term, Signal::Int, Signal::Quit] {
        let mut pod = Pod::new(true, None);
        pod.event(&LauncherEvent::Signalled(Signal::Term));
        pod.event(&LauncherEvent::Signalled(second));
        assert_eq!(pod.sent, [second]);
    }
    let mut pod = Pod::new(false, None);
    pod.event(&LauncherEvent::Signalled(Signal::Term));
    assert_eq!(pod.sent, [Signal::Term], "no drain: at once");
}

#[test]
fn an_incomplete_start_is_repeated_and_its_window_stays_good() {
    let mut pod = Pod::new(false, Some(order(1, 50)));
    pod.give_verdict(LaunchOutcome::Ready);
    pod.give_verdict(LaunchOutcome::Incomplete);
    pod.give_verdict(LaunchOutcome::Incomplete);
    assert_eq!(
        (pod.sent.as_slice(), pod.timer),
        ([Signal::Term].as_slice(), Some(Timer::StopGrace))
    );
    pod.exited(0);
    let record = pod.disk.clone().unwrap();
    assert_eq!(
        (pod.child, record.launch, record.request, record.restarts),
        (Some(window(50)), 2, 1, 1)
    );
    assert_eq!((record.good, record.ready), (Some(window(50)), false));
    // The whole container ends before the launcher has seen the verdict: the window was ready all
    // the same.
    pod.verdict = Some(LaunchVerdict {
        launch: 2,
        outcome: LaunchOutcome::Incomplete,
    });
    pod.container_restarts();
    assert_eq!((pod.child, pod.failed()), (Some(window(50)), None));
    // An order that comes while thanos stops takes precedence.
    pod.give_verdict(LaunchOutcome::Incomplete);
    pod.ordered(order(2, 60));
    pod.exited(0);
    assert_eq!(pod.child, Some(window(60)));
}

#[test]
fn an_order_for_a_signal_waits_for_the_next_start() {
    let mut pod = Pod::new(false, None);
    pod.ordered(WindowFile::new(1, window(50), ReloadMode::Signal));
    assert_eq!(pod.sent, []);
    pod.exited(5);
    assert_eq!(pod.exit, Some(5));
    pod.container_restarts();
    assert_eq!(pod.child, Some(window(50)));
}

#[derive(Clone, Debug)]
enum Step {
    Order(i64),
    OrderAgain,
    Exited(i32),
    Ready,
    TimedOut,
    Incomplete,
    StaleVerdict(u64),
    Signal(Signal),
    TimerElapses,
    ContainerKilled,
    UnseenReadyThenKilled,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_i64..6).prop_map(Step::Order),
        1 => Just(Step::OrderAgain),
        4 => prop_oneof![Just(0), Just(1), Just(137)].prop_map(Step::Exited),
        4 => Just(Step::Ready),
        1 => Just(Step::TimedOut),
        2 => Just(Step::Incomplete),
        1 => (0_u64..9).prop_map(Step::StaleVerdict),
        1 => prop_oneof![Just(Signal::Term), Just(Signal::Int), Just(Signal::Usr1)].prop_map(Step::Signal),
        2 => Just(Step::TimerElapses),
        2 => Just(Step::ContainerKilled),
        1 => Just(Step::UnseenReadyThenKilled),
    ]
}

fn apply(pod: &mut Pod, step: &Step) {
    if pod.exit.is_some() {
        pod.container_restarts();
    }
    let next = pod.order.map_or(1, |order| order.request + 1);
    match step {
        Step::Order(days) => pod.ordered(order(next, *days)),
        Step::OrderAgain => {
            if let Some(order) = pod.order {
                pod.ordered(WindowFile {
                    request: next,
                    ..order
                });
            }
        }
        Step::Exited(code) => pod.exited(*code),
        Step::Ready => pod.give_verdict(LaunchOutcome::Ready),
        Step::TimedOut => pod.give_verdict(LaunchOutcome::TimedOut),
        Step::Incomplete => pod.give_verdict(LaunchOutcome::Incomplete),
        Step::StaleVerdict(launch) => {
            let current = pod.disk.as_ref().unwrap().launch;
            let launch = (*launch).min(current - 1);
            pod.event(&LauncherEvent::Verdict(LaunchVerdict {
                launch,
                outcome: LaunchOutcome::TimedOut,
            }));
        }
        Step::Signal(signal) => pod.event(&LauncherEvent::Signalled(*signal)),
        Step::TimerElapses => {
            if let Some(timer) = pod.timer.take() {
                pod.event(&LauncherEvent::Elapsed(timer));
            }
        }
        Step::ContainerKilled => pod.container_restarts(),
        Step::UnseenReadyThenKilled => {
            let launch = pod.disk.as_ref().unwrap().launch;
            pod.verdict = Some(LaunchVerdict {
                launch,
                outcome: LaunchOutcome::Ready,
            });
            pod.container_restarts();
        }
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// Whatever happens, a window that always fails leads back to the last good one, and a pod
    /// whose last good window works ends up serving; no window causes a crash loop.
    #[test]
    fn every_story_ends_in_a_serving_thanos(drains: bool, first: Option<u8>, steps in prop::collection::vec(step(), 0..60)) {
        let mut pod = Pod::new(drains, first.map(|d| order(1, i64::from(d % 6) + 1)));
        for step in &steps {
            apply(&mut pod, step);
        }
        // From now on only windows that were ready before become ready again; all others end thanos
        // immediately.
        let starts = pod.starts;
        for _ in 0..6 {
            if pod.exit.is_some() {
                pod.container_restarts();
            }
            if let Some(timer) = pod.timer.take() {
                pod.event(&LauncherEvent::Elapsed(timer));
            }
            if !pod.sent.is_empty() && pod.timer.is_none() && pod.child.is_some() {
                pod.sent.clear();
            }
            let good = pod.disk.as_ref().unwrap().good;
            match (pod.child, good) {
                (Some(running), Some(good)) if running == good => {
                    pod.give_verdict(LaunchOutcome::Ready);
                    break;
                }
                (Some(_), Some(_)) => pod.exited(1),
                _ => {}
            }
        }
        if let Some(good) = pod.disk.as_ref().unwrap().good {
            if pod.exit.is_some() {
                pod.container_restarts();
            }
            prop_assert_eq!(pod.child, Some(good));
            prop_assert!(pod.starts - starts <= 4, "it took {} starts", pod.starts - starts);
        } else {
            let asked: Vec<Window> = pod.order.iter().map(|o| o.window).chain((1..6).map(window)).chain([window(INITIAL_DAYS), window(6)]).collect();
            prop_assert!(pod.child.is_none_or(|child| asked.contains(&child)));
        }
    }

    /// The next launcher reads a launcher's record correctly.
    #[test]
    fn records_survive_the_disk(steps in prop::collection::vec(step(), 0..30)) {
        let mut pod = Pod::new(false, None);
        for step in &steps {
            apply(&mut pod, step);
            let record = pod.disk.clone().unwrap();
            let bytes = crate::core::agent::handoff::encode(&record).unwrap();
            prop_assert_eq!(crate::core::agent::handoff::decode(&bytes), Some(record));
        }
    }
}
