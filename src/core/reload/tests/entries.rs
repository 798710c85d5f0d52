//! Entries with a generation: which ones move a pod, and what ends a drain.

use super::*;

fn numbered(days: i64, generation: u64) -> Entry {
    Entry {
        generation: Some(generation),
        ..entry(days)
    }
}

fn serving(first: Entry) -> World {
    let mut world = World::new(
        Some(first),
        Duration::from_secs(5),
        &[20],
        settings(ReloadMode::Exec),
    );
    world.run(Duration::from_secs(10));
    assert_eq!(world.phase(), Phase::Serving);
    world
}

fn error(world: &World) -> String {
    world.sidecar.status().last_error.unwrap_or_default()
}

#[test]
fn only_a_greater_generation_moves_the_pod() {
    let mut world = serving(numbered(10, 7));
    assert_eq!(
        (
            world.sidecar.status().generation,
            world.order.unwrap().generation
        ),
        (Some(7), Some(7))
    );
    for refused in [numbered(30, 7), numbered(30, 6)] {
        world.mount(refused);
        world.run(Duration::from_hours(1));
        assert_eq!(
            (world.phase(), world.applied(), world.stops_of_ready),
            (Phase::Serving, Some(window(10)), 0)
        );
        let number = refused.generation.unwrap().to_string();
        assert!(
            error(&world).contains(&number) && error(&world).contains("generation 7"),
            "{}",
            error(&world)
        );
    }
    // The same content is the same entry, whatever its generation.
    world.mount(numbered(10, 5));
    assert_eq!(error(&world), "");
    world.mount(numbered(10, 8));
    assert_eq!(
        (world.sidecar.status().generation, world.phase()),
        (Some(8), Phase::Serving)
    );
    assert_eq!(
        (
            world.order.unwrap().generation,
            world.order.unwrap().request
        ),
        (Some(8), 1),
        "remembered, nothing ordered"
    );
    world.mount(numbered(30, 9));
    world.run(DRAIN + Duration::from_secs(10));
    assert_eq!(
        (world.applied(), world.stops_of_ready),
        (Some(window(30)), 1)
    );
}

#[test]
fn an_edit_without_a_generation_counts_only_when_nobody_takes_it_back() {
    let mut world = serving(numbered(10, 7));
    world.mount(entry(30));
    world.run(UNNUMBERED_WAIT.saturating_sub(Duration::from_secs(1)));
    assert_eq!(world.phase(), Phase::Serving);
    assert!(
        error(&world).contains("without a generation") && error(&world).contains("generation 7"),
        "{}",
        error(&world)
    );
    // Another edit begins to wait itself; the leader's own entry ends it.
    world.mount(entry(40));
    world.run(Duration::from_secs(30));
    world.mount(numbered(10, 7));
    world.run(Duration::from_hours(1));
    assert_eq!(
        (world.phase(), error(&world), world.stops_of_ready),
        (Phase::Serving, String::new(), 0)
    );
    world.mount(entry(30));
    world.run(UNNUMBERED_WAIT + Duration::from_millis(1));
    assert_eq!(world.phase(), Phase::Draining);
    world.run(DRAIN + Duration::from_secs(10));
    assert_eq!(
        (world.applied(), world.sidecar.status().generation),
        (Some(window(30)), Some(7))
    );
    // It stays accepted over a restart of the sidecar.
    world.sidecar_restarts();
    world.run(Duration::from_mins(10));
    assert_eq!(
        (world.applied(), world.phase(), world.stops_of_ready),
        (Some(window(30)), Phase::Serving, 1)
    );
    world.mount(numbered(50, 8));
    assert_eq!(world.phase(), Phase::Draining);
}

#[test]
fn without_any_generation_every_entry_counts_at_once() {
    let mut world = serving(entry(10));
    world.mount(entry(30));
    assert_eq!(world.phase(), Phase::Draining);
    world.run(DRAIN + Duration::from_secs(10));
    assert_eq!(
        (
            world.order.unwrap().generation,
            world.order.unwrap().accepted
        ),
        (None, None)
    );
    world.mount(numbered(40, 1));
    assert_eq!(world.phase(), Phase::Draining);
}

#[test]
fn a_sidecar_that_restarts_in_the_middle_of_a_drain_goes_on() {
    let mut world = serving(numbered(10, 7));
    world.mount(numbered(30, 8));
    world.run(Duration::from_secs(20));
    // kubelet may mount what it had before, for a moment.
    world.entry = Some(numbered(10, 7));
    world.sidecar_restarts();
    assert_eq!(
        (world.phase(), world.sidecar.status().published),
        (Phase::Draining, Some(window(30)))
    );
    world.mount(numbered(30, 8));
    assert_eq!(error(&world), "");
    world.run(DRAIN + Duration::from_secs(10));
    assert_eq!(
        (world.phase(), world.applied(), world.stops_of_ready),
        (Phase::Serving, Some(window(30)), 1)
    );
}

#[test]
fn a_release_ends_the_drain_of_its_own_order_only() {
    let mut world = serving(numbered(10, 7));
    world.undrained_is_expected = true;
    world.mount(Entry {
        order: Some(4),
        ..numbered(30, 8)
    });
    world.run(Duration::from_secs(5));
    world.mount(Entry {
        order: Some(4),
        released: Some(3),
        ..numbered(30, 9)
    });
    world.run(Duration::from_secs(5));
    assert_eq!(
        (world.phase(), world.sidecar.status().order),
        (Phase::Draining, Some(4))
    );
    world.mount(Entry {
        order: Some(4),
        released: Some(4),
        ..numbered(30, 10)
    });
    assert_eq!(world.phase(), Phase::Restarting);
    world.run(Duration::from_secs(10));
    assert_eq!(world.applied(), Some(window(30)));
    // Neither number alone means anything.
    world.mount(Entry {
        released: Some(5),
        ..numbered(40, 11)
    });
    world.run(Duration::from_secs(5));
    assert_eq!(world.phase(), Phase::Draining);
}

#[test]
fn a_retry_drains_although_its_order_was_released() {
    let mut world = serving(numbered(10, 7));
    world.undrained_is_expected = true;
    world.mount(Entry {
        order: Some(4),
        released: Some(4),
        ..numbered(20, 8)
    });
    world.run(Duration::from_secs(20));
    assert_eq!(
        (world.phase(), world.applied()),
        (Phase::Failed, Some(window(10)))
    );
    world.undrained_is_expected = false;
    while world.phase() == Phase::Failed {
        world.run(Duration::from_secs(1));
    }
    world.run(DRAIN.saturating_sub(Duration::from_secs(2)));
    assert_eq!(world.phase(), Phase::Draining);
}
