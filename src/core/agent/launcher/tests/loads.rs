//! Measured loads, and whether a start has another window.

use super::*;

#[test]
fn a_load_is_recorded_for_its_own_start() {
    let load = |millis| LastLoad {
        window: window(INITIAL_DAYS),
        millis,
        blocks: Some(9),
        blocks_new: Some(9),
    };
    let mut pod = Pod::new(false, None);
    pod.give_verdict(LaunchOutcome::Ready);
    pod.event(&LauncherEvent::Loaded(1, load(7)));
    let recorded = |pod: &Pod| pod.disk.as_ref().unwrap().last_load.map(|load| load.millis);
    assert_eq!(recorded(&pod), Some(7));
    pod.ordered(order(1, 50));
    pod.exited(0);
    // The count of the first start comes late.
    pod.event(&LauncherEvent::Loaded(1, load(8)));
    assert_eq!(recorded(&pod), Some(7));
    pod.container_restarts();
    assert_eq!(recorded(&pod), Some(7));
}

#[test]
fn a_start_with_another_window_is_told_from_a_restart() {
    let changed = |launcher: &mut Launcher, event| {
        launcher.on(event).iter().find_map(|action| match action {
            LauncherAction::Start { changed, .. } => Some(*changed),
            _ => None,
        })
    };
    let options = LauncherOptions { drains: false };
    let (mut launcher, _) = Launcher::begin(options, None, None, None, window(INITIAL_DAYS));
    let _ = launcher.on(&LauncherEvent::Ordered(order(1, 50)));
    assert_eq!(
        changed(&mut launcher, &LauncherEvent::Exited(0)),
        Some(true)
    );
    let record = launcher.record().clone();
    let (_, actions) = Launcher::begin(options, Some(record), None, None, window(INITIAL_DAYS));
    let start = LauncherAction::Start {
        window: window(50),
        changed: false,
    };
    assert!(actions.contains(&start), "{actions:?}");
}
