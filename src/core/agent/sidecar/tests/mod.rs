//! The sidecar, the launcher's own state machine and a model of thanos and kubelet, in simulated
//! time, with faults.

use std::collections::BTreeSet;

use super::*;
use crate::core::agent::handoff::BlockList;
use crate::core::agent::launcher::{self, Launcher, LauncherEvent, LauncherOptions, Timer};
use crate::core::agent::loaded::BlockRef;
use crate::core::agent::loading::reading::Reading;
use crate::core::model::duration::PromDuration;
use crate::testing::cases;
use proptest::prelude::*;

mod blocks;
mod entries;
mod world;

use world::World;

const DRAIN: Duration = Duration::from_mins(1);
const LOAD_RETRY: Duration = Duration::from_mins(2);
/// Thanos' `--sync-block-duration`.
const SYNC: Duration = Duration::from_mins(15);
/// Blocks of every window.
const BLOCKS: u32 = 20;

fn window(days: i64) -> Window {
    Window {
        min: format!("-{days}d").parse().unwrap(),
        max: "1d".parse().unwrap(),
    }
}

fn settings(reload: ReloadMode) -> DecisionSettings {
    DecisionSettings {
        pod: "store-0".to_owned(),
        version: "1".to_owned(),
        namespace: None,
        uid: None,
        reload,
        drain: DRAIN,
        ready_timeout: Duration::ZERO,
        signal_timeout: Duration::from_secs(30),
        check_interval: Duration::from_secs(10),
        load_retry: LOAD_RETRY,
    }
}

fn entry(days: i64) -> Entry {
    Entry::new(0, 0, window(days))
}

fn block(number: u32) -> BlockRef {
    let time = "2026-11-01T00:00:00Z".parse().unwrap();
    BlockRef {
        ulid: format!("block-{number}"),
        min_time: time,
        max_time: time,
    }
}

fn world(days: i64, bad: &[i64]) -> World {
    let mut world = World::new(
        Some(entry(days)),
        Duration::from_secs(5),
        bad,
        settings(ReloadMode::Exec),
    );
    world.run(Duration::from_secs(10));
    assert_eq!(
        (world.phase(), world.applied()),
        (Phase::Serving, Some(window(days)))
    );
    world
}

#[test]
fn a_change_takes_the_drain_and_one_load() {
    let mut world = world(10, &[]);
    world.publish(20);
    assert_eq!(
        (world.phase(), world.applied()),
        (Phase::Draining, Some(window(10)))
    );
    world.run(DRAIN.saturating_sub(Duration::from_millis(1)));
    assert_eq!(world.phase(), Phase::Draining);
    world.run(Duration::from_secs(1));
    assert_eq!((world.phase(), world.applied()), (Phase::Restarting, None));
    world.run(Duration::from_secs(6));
    assert_eq!(
        (world.phase(), world.applied()),
        (Phase::Serving, Some(window(20)))
    );
    assert_eq!(
        world.sidecar.drains(),
        Drains {
            orders: 1,
            spent: DRAIN,
            rollbacks: 0
        }
    );
}

#[test]
fn a_window_given_up_is_tried_again_after_five_minutes_doubling_to_an_hour() {
    let mut world = world(10, &[20]);
    world.publish(20);
    world.run(DRAIN + Duration::from_secs(20));
    let mut tries = Vec::new();
    let mut gave_up = world.now;
    while tries.len() < 6 {
        assert_eq!(
            (world.phase(), world.applied()),
            (Phase::Failed, Some(window(10)))
        );
        assert!(
            world
                .sidecar
                .status()
                .last_error
                .unwrap()
                .contains("exit code 1")
        );
        while world.phase() == Phase::Failed {
            world.run(Duration::from_secs(1));
        }
        assert_eq!(world.phase(), Phase::Draining);
        tries.push(world.now.saturating_sub(gave_up).as_secs() / 60);
        world.run(DRAIN + Duration::from_secs(20));
        gave_up = world.now;
    }
    // The first second of failure is within the twenty above.
    assert_eq!(tries, [4, 9, 19, 39, 59, 59]);
    assert_eq!(
        world.sidecar.drains().rollbacks,
        7,
        "the first time, and each retry"
    );
    let mut next = Sidecar::new(world.settings.clone(), world.found());
    let _ = next.step(Duration::ZERO);
    assert_eq!(next.drains().rollbacks, 0, "the one before has counted it");
    world.publish(30);
    assert_eq!(world.phase(), Phase::Draining, "at once when it changes");
    world.run(DRAIN + Duration::from_secs(20));
    assert_eq!(
        (world.phase(), world.applied()),
        (Phase::Serving, Some(window(30)))
    );
    assert_eq!(world.sidecar.status().last_error, None);
}

/// Where thanos and its launcher end together, as by a lack of memory, the record keeps saying that
/// thanos runs.
#[test]
fn a_window_given_up_is_tried_again_although_the_last_good_one_kills_its_container() {
    let mut world = world(10, &[20]);
    world.publish(20);
    world.run(DRAIN + Duration::from_secs(20));
    assert_eq!(world.applied(), Some(window(10)));
    world.bad.clear();
    world.load = Duration::from_secs(40);
    let began = world.now;
    while world.applied() != Some(window(20)) {
        world.run(Duration::from_secs(1));
        let thanos = world.thanos.as_ref();
        if thanos.is_some_and(|thanos| thanos.window == window(10)) {
            world.container_dies();
        }
        let spent = world.now.saturating_sub(began);
        assert!(spent < Duration::from_mins(20), "still after {spent:?}");
    }
}

#[test]
fn a_thanos_that_loads_its_last_good_window_is_not_restarted() {
    let mut world = world(10, &[20]);
    world.load = Duration::from_mins(90);
    world.publish(20);
    world.run(DRAIN + Duration::from_secs(5));
    while world.thanos.as_ref().unwrap().window != window(10) {
        world.run(Duration::from_secs(1));
    }
    let began = world.now;
    while world.phase() == Phase::Restarting {
        assert_eq!(world.thanos.as_ref().unwrap().window, window(10));
        world.run(Duration::from_secs(1));
    }
    assert!(world.now.saturating_sub(began) >= world.load);
    // It also serves for a while before the next try.
    let ready = world.now;
    while world.phase() == Phase::Failed {
        world.run(Duration::from_secs(1));
    }
    assert!(world.now.saturating_sub(ready) >= RETRY_FIRST.saturating_sub(Duration::from_secs(2)));
    assert_eq!(world.phase(), Phase::Draining);
}

#[test]
fn what_cannot_be_written_is_counted_once() {
    let mut world = world(10, &[]);
    let (began, sidecar) = (world.age(), &mut world.sidecar);
    assert_eq!(sidecar.step(began), []);
    let _ = sidecar.set_entry(Ok(Some(entry(20))), began);
    assert_eq!(sidecar.step(began), []);
    let mut refused = 0;
    for second in 0..40 {
        let now = began + DRAIN + Duration::from_secs(second);
        for action in sidecar.step(now) {
            let SidecarAction::Order(file) = action else {
                continue;
            };
            if refused < 30 {
                refused += 1;
                sidecar.failed_to_act("the disk is full".to_owned(), now);
                assert_eq!(sidecar.status().phase, Phase::Draining);
            } else {
                sidecar.wrote(file);
            }
        }
    }
    let drains = sidecar.drains();
    assert_eq!(
        (drains.orders, drains.spent),
        (1, DRAIN + Duration::from_secs(30))
    );
}

#[test]
fn an_entry_may_request_a_longer_drain_up_to_a_limit() {
    for (asked, given) in [
        ("5m", Duration::from_mins(5)),
        ("0s", Duration::ZERO),
        ("100d", MAX_DRAIN),
    ] {
        let mut world = world(10, &[]);
        world.undrained_is_expected = true;
        world.mount(Entry {
            drain: Some(asked.parse::<PromDuration>().unwrap()),
            ..entry(20)
        });
        let began = world.now;
        while world.applied() != Some(window(20)) {
            world.run(Duration::from_secs(1));
        }
        let took = world.now.saturating_sub(began);
        assert!(
            took >= given && took < given + Duration::from_secs(10),
            "{asked}: {took:?}"
        );
    }
}

#[test]
fn a_pod_that_was_never_ready_changes_without_a_drain() {
    let mut world = World::new(
        Some(entry(10)),
        Duration::from_hours(2),
        &[],
        settings(ReloadMode::Exec),
    );
    world.run(Duration::from_hours(1));
    assert_eq!(world.phase(), Phase::Starting);
    world.publish(20);
    world.run(Duration::from_secs(1));
    assert_eq!(world.phase(), Phase::Restarting);
    assert_eq!(world.thanos.as_ref().unwrap().window, window(20));
}

#[test]
fn a_restarted_sidecar_drains_a_running_thanos() {
    let mut world = world(10, &[]);
    world.entry = Some(entry(20));
    world.sidecar_restarts();
    assert_eq!(world.phase(), Phase::Draining);
    assert!(
        world.sidecar.has_entry_filed(),
        "its startup probe passes all the same"
    );
    world.run(DRAIN + Duration::from_secs(10));
    assert_eq!(
        (world.phase(), world.applied()),
        (Phase::Serving, Some(window(20)))
    );
}

#[test]
fn flags_that_differ_never_count() {
    let mut world = World::new(
        Some(entry(10)),
        Duration::from_secs(5),
        &[],
        settings(ReloadMode::Exec),
    );
    world.thanos.as_mut().unwrap().window = window(77);
    world.run(Duration::from_mins(10));
    assert_eq!((world.phase(), world.applied()), (Phase::Starting, None));
    assert!(world.sidecar.status().last_error.unwrap().contains("-77d"));
}

#[test]
fn a_signal_that_is_ignored_is_reported_and_one_that_works_is_not() {
    for honours in [true, false] {
        let mut world = World::new(
            Some(entry(10)),
            Duration::from_secs(5),
            &[],
            settings(ReloadMode::Signal),
        );
        world.honours_signal = honours;
        world.run(Duration::from_secs(10));
        world.publish(20);
        world.run(DRAIN + Duration::from_secs(40));
        let status = world.sidecar.status();
        if honours {
            assert_eq!(
                (status.phase, status.applied, status.last_error),
                (Phase::Serving, Some(window(20)), None)
            );
        } else {
            assert_eq!(
                (status.phase, status.applied),
                (Phase::Failed, Some(window(10)))
            );
            assert!(
                status
                    .last_error
                    .unwrap()
                    .contains("stock Thanos ignores SIGHUP")
            );
        }
        assert_eq!(status.restarts, 0);
    }
}

#[test]
fn off_keeps_the_admission_window() {
    let mut world = World::new(
        Some(entry(10)),
        Duration::from_secs(5),
        &[],
        settings(ReloadMode::Off),
    );
    world.run(Duration::from_secs(10));
    world.publish(20);
    world.run(Duration::from_hours(5));
    assert_eq!(
        (world.phase(), world.applied()),
        (Phase::Serving, Some(window(10)))
    );
    assert!(
        world
            .sidecar
            .status()
            .last_error
            .unwrap()
            .contains("reload is off")
    );
}

#[test]
fn a_missing_or_bad_entry_is_logged_once_and_keeps_the_window() {
    let mut world = world(10, &[]);
    let change = world
        .sidecar
        .set_entry(Err("bad".to_owned()), Duration::ZERO)
        .unwrap();
    assert!(
        change.refused && change.line.contains("keeping -10d .. 1d"),
        "{change:?}"
    );
    assert_eq!(
        world
            .sidecar
            .set_entry(Err("bad".to_owned()), Duration::ZERO),
        None
    );
    assert!(world.sidecar.set_entry(Ok(None), Duration::ZERO).is_some());
    world.run(Duration::from_hours(1));
    assert_eq!((world.phase(), world.stops_of_ready), (Phase::Serving, 0));
    assert_eq!(
        world.sidecar.set_entry(Ok(Some(entry(10))), Duration::ZERO),
        None
    );
    assert_eq!(world.sidecar.status().last_error, None);
}

#[derive(Clone, Debug)]
enum Step {
    Publish(i64),
    EntryGone,
    Run(u64),
    ThanosKilled,
    ContainerKilled,
    SidecarKilled,
    Load(u64),
    Break(BTreeSet<u32>),
    Metrics(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_i64..7).prop_map(Step::Publish),
        1 => Just(Step::EntryGone),
        6 => (0_u64..100_000).prop_map(Step::Run),
        3 => (0_u64..1_000).prop_map(Step::Run),
        1 => Just(Step::ThanosKilled),
        1 => Just(Step::ContainerKilled),
        2 => Just(Step::SidecarKilled),
        1 => (10_u64..20_000).prop_map(Step::Load),
        1 => (100_000_u64..5_400_000).prop_map(Step::Load),
        3 => prop::collection::btree_set(0..BLOCKS, 0..3).prop_map(Step::Break),
        1 => any::<bool>().prop_map(Step::Metrics),
    ]
}

/// Checks that the pod is Ready and serves the published window, or, if that is a bad one, one that
/// works; and that it reports what it lacks.
fn ended_well(world: &World, bad: &[Window]) -> Result<(), TestCaseError> {
    prop_assert!(world.phase().is_ready(), "{:?}", world.sidecar);
    prop_assert!(world.serves());
    prop_assert_eq!(world.applied(), world.thanos.as_ref().map(|t| t.window));
    if let Some(wanted) = world.entry.map(|e| e.window).filter(|w| !bad.contains(w)) {
        prop_assert_eq!(
            (world.phase(), world.applied()),
            (Phase::Serving, Some(wanted))
        );
    } else {
        prop_assert_eq!(world.phase(), Phase::Failed);
        prop_assert!(world.applied().is_some_and(|w| !bad.contains(&w)));
    }
    let (truth, reported) = world.missing();
    prop_assert_eq!(reported, world.metrics_readable.then_some(truth));
    Ok(())
}

proptest! {
    #![proptest_config(cases(300))]

    /// Windows of 5 and 6 days end thanos. Whatever happens, a serving thanos is stopped only after
    /// a drain, and the pod ends up Ready: with the published window, or, if that is a bad one,
    /// with one that works.
    #[test]
    fn every_story_ends_ready(steps in prop::collection::vec(step(), 1..50)) {
        let mut world = world(1, &[5, 6]);
        for step in steps {
            match step {
                Step::Publish(days) => world.publish(days),
                Step::EntryGone => {
                    let _ = world.sidecar.set_entry(Ok(None), world.age());
                    world.decide();
                }
                Step::Run(millis) => world.run(Duration::from_millis(millis)),
                Step::ThanosKilled => {
                    if world.thanos.take().is_some() {
                        world.launcher_event(&LauncherEvent::Exited(137));
                    }
                }
                Step::ContainerKilled => world.container_dies(),
                Step::SidecarKilled => world.sidecar_restarts(),
                Step::Load(millis) => world.load = Duration::from_millis(millis),
                Step::Break(blocks) => world.broken = blocks,
                Step::Metrics(readable) => world.metrics_readable = readable,
            }
        }
        let bad = [window(5), window(6)];
        // Twelve hours are enough for every wait; most stories end far earlier.
        for _ in 0..24 {
            world.run(Duration::from_mins(30));
            if ended_well(&world, &bad).is_ok() {
                break;
            }
        }
        // This also holds through tries of a bad window and through syncs.
        world.run(Duration::from_hours(2));
        // A try may be under way at this moment.
        let mut seconds = 0..20_000;
        while !world.phase().is_ready() && seconds.next().is_some() {
            world.run(Duration::from_secs(1));
        }
        ended_well(&world, &bad)?;
    }
}
