//! A thanos that could not load all its blocks: when it is started again, and when not.

use super::*;

fn begun(broken: &[u32], settings: DecisionSettings) -> World {
    let mut world = World::new(Some(entry(10)), Duration::from_secs(5), &[], settings);
    world.broken = broken.iter().copied().collect();
    world
}

/// Returns how long until the pod is Ready; in every second before, it must not claim to serve.
fn until_ready(world: &mut World) -> Duration {
    let began = world.now;
    while !world.phase().is_ready() {
        assert_eq!(world.applied(), None);
        assert!(
            world.now.saturating_sub(began) < Duration::from_mins(10),
            "{:?}",
            world.sidecar.status()
        );
        world.run(Duration::from_secs(1));
    }
    world.now.saturating_sub(began)
}

fn missing(world: &World) -> Vec<String> {
    world.missing().1.unwrap()
}

#[test]
fn a_short_fault_is_healed_before_the_pod_is_ready() {
    let mut world = begun(&[3, 4], settings(ReloadMode::Exec));
    world.run(Duration::from_secs(8));
    assert_eq!(
        (world.phase(), world.sidecar.load_retries()),
        (Phase::Restarting, 1),
        "the first retry comes at once"
    );
    world.broken.clear();
    let took = until_ready(&mut world);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(
        (missing(&world), world.record.as_ref().unwrap().restarts),
        (vec![], 1)
    );
    assert_eq!(
        (world.applied(), world.record.as_ref().unwrap().good),
        (Some(window(10)), Some(window(10)))
    );
}

#[test]
fn a_lasting_fault_is_reported_after_the_retries_and_heals_at_a_later_sync() {
    let mut world = begun(&[3], settings(ReloadMode::Exec));
    let took = until_ready(&mut world);
    assert!(
        took >= LOAD_RETRY && took < LOAD_RETRY + Duration::from_secs(20),
        "{took:?}"
    );
    assert_eq!(
        (missing(&world), world.phase()),
        (vec!["block-3".to_owned()], Phase::Serving)
    );
    let retries = world.sidecar.load_retries();
    assert!((3..=6).contains(&retries), "{retries}");
    world.run(Duration::from_hours(1));
    assert_eq!(
        (missing(&world), world.sidecar.load_retries()),
        (vec!["block-3".to_owned()], retries),
        "no retry once it is Ready"
    );
    world.broken.clear();
    world.run(SYNC + Duration::from_secs(20));
    assert_eq!(
        (missing(&world), world.phase(), world.stops_of_ready),
        (vec![], Phase::Serving, u32::try_from(retries).unwrap())
    );
}

#[test]
fn what_the_pod_lacked_before_a_restart_is_not_waited_for() {
    let mut world = begun(&[3], settings(ReloadMode::Exec));
    until_ready(&mut world);
    let retries = world.sidecar.load_retries();
    world.publish(20);
    world.run(DRAIN);
    let took = until_ready(&mut world);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(
        (world.applied(), world.sidecar.load_retries()),
        (Some(window(20)), retries)
    );
    // One more missing block is waited for, and the retry loads both.
    world.broken.insert(4);
    world.publish(30);
    world.run(DRAIN + Duration::from_secs(8));
    assert_eq!(world.phase(), Phase::Restarting);
    world.broken.clear();
    until_ready(&mut world);
    assert_eq!(
        (missing(&world), world.sidecar.load_retries()),
        (vec![], retries + 1)
    );
}

#[test]
fn without_knowledge_or_retries_the_pod_turns_ready_immediately() {
    let off = DecisionSettings {
        load_retry: Duration::ZERO,
        ..settings(ReloadMode::Exec)
    };
    for (settings, readable) in [
        (settings(ReloadMode::Exec), false),
        (off, true),
        (settings(ReloadMode::Off), true),
        (settings(ReloadMode::Signal), true),
    ] {
        let mut world = begun(&[3], settings);
        world.metrics_readable = readable;
        let took = until_ready(&mut world);
        assert!(took <= Duration::from_secs(7), "{took:?}");
        world.run(Duration::from_secs(30));
        let status = world.sidecar.status();
        assert_eq!((status.blocks.is_some(), status.restarts), (readable, 0));
        assert_eq!(
            status.blocks_unknown.is_some_and(|why| why.contains("401")),
            !readable
        );
    }
}

#[test]
fn a_launcher_that_cannot_list_keeps_no_pod_unready() {
    // As a launcher of contract 1, and as one whose disk hangs.
    for (contract, most) in [(1, 7), (2, 20)] {
        let mut world = begun(&[3], settings(ReloadMode::Exec));
        world.lists = false;
        world.contract = contract;
        world.record.as_mut().unwrap().contract = contract;
        let took = until_ready(&mut world);
        assert!(took <= Duration::from_secs(most), "{took:?}");
        world.run(Duration::from_secs(5));
        let status = world.sidecar.status();
        match status.blocks {
            Some(blocks) => assert!(contract == 2 && blocks.is_cut()),
            None => assert!(
                status
                    .blocks_unknown
                    .unwrap()
                    .contains("loaded 19 of the 20 expected blocks"),
                "contract {contract}"
            ),
        }
    }
}

#[test]
fn another_window_ends_the_retries_of_the_one_before() {
    let mut world = begun(&[3], settings(ReloadMode::Exec));
    world.run(Duration::from_mins(1));
    assert!(!world.phase().is_ready());
    world.publish(20);
    world.run(Duration::from_secs(1));
    world.broken.clear();
    let took = until_ready(&mut world);
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(world.applied(), Some(window(20)));
}

/// A window that is given up falls back to the last good one, whose blocks are checked like any
/// others.
#[test]
fn blocks_and_rollbacks_do_not_disturb_each_other() {
    let mut world = world(10, &[20]);
    world.broken.insert(3);
    world.publish(20);
    world.run(DRAIN + Duration::from_secs(8));
    world.broken.clear();
    until_ready(&mut world);
    let record = world.record.clone().unwrap();
    assert_eq!(
        (world.phase(), world.applied(), record.failed.unwrap().times),
        (Phase::Failed, Some(window(10)), 1)
    );
    assert_eq!(missing(&world), [] as [String; 0]);
}

/// While queriers may still use the pod, a retry is not free.
#[test]
fn a_thanos_that_ended_by_itself_is_started_again_only_after_a_drain() {
    let mut world = world(10, &[]);
    world.run(Duration::from_mins(1));
    world.broken.insert(3);
    world.thanos = None;
    world.launcher_event(&LauncherEvent::Exited(1));
    world.run(Duration::from_secs(50));
    assert_eq!(world.sidecar.load_retries(), 0);
    world.run(Duration::from_secs(30));
    assert!(world.sidecar.load_retries() >= 1);
    world.broken.clear();
    until_ready(&mut world);
    assert_eq!(missing(&world), [] as [String; 0]);
}

#[test]
fn a_restarted_sidecar_reports_blocks_and_restarts_nothing() {
    let mut world = world(10, &[]);
    world.broken.insert(3);
    world.thanos.as_mut().unwrap().missing.insert(3);
    world.run(SYNC + Duration::from_secs(30));
    assert_eq!(missing(&world), ["block-3"]);
    world.sidecar_restarts();
    world.run(Duration::from_secs(30));
    assert_eq!(
        (missing(&world), world.phase(), world.stops_of_ready),
        (vec!["block-3".to_owned()], Phase::Serving, 0)
    );
}
