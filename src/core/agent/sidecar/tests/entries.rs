//! Entries with a generation: which ones move a pod, and what ends a drain.

use super::*;
use crate::testing::cases;

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
    // Equal content is the same entry, whatever its generation.
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
fn an_edit_without_a_generation_counts_only_if_the_leader_does_not_revert_it() {
    let mut world = serving(numbered(10, 7));
    world.mount(entry(30));
    world.run(UNNUMBERED_WAIT.saturating_sub(Duration::from_secs(1)));
    assert_eq!(world.phase(), Phase::Serving);
    assert!(
        error(&world).contains("without a generation") && error(&world).contains("generation 7"),
        "{}",
        error(&world)
    );
    // Another edit starts its own wait; the leader's own entry ends it.
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
    // It stays accepted across a restart of the sidecar.
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
fn without_any_generation_every_entry_counts_immediately() {
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
    // kubelet may briefly mount the previous content.
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
    // Neither number alone has an effect.
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

fn ordered(days: i64, generation: u64, order: u64, released: Option<u64>) -> Entry {
    Entry {
        order: Some(order),
        released,
        // The leader ends it; the sidecar alone would wait for so long.
        drain: Some(PromDuration::from_secs(720)),
        ..numbered(days, generation)
    }
}

#[test]
fn the_old_window_published_again_ends_a_drain_without_a_restart() {
    let mut world = serving(numbered(10, 7));
    let launches = world.record.as_ref().unwrap().launch;
    world.mount(ordered(30, 8, 1, None));
    world.run(Duration::from_mins(10));
    assert_eq!(world.phase(), Phase::Draining);
    world.mount(ordered(10, 9, 2, None));
    assert_eq!(
        (world.phase(), world.applied()),
        (Phase::Serving, Some(window(10)))
    );
    // A release of the order that was taken back comes too late.
    world.mount(ordered(30, 8, 1, Some(1)));
    world.run(Duration::from_mins(30));
    assert_eq!((world.phase(), world.stops_of_ready), (Phase::Serving, 0));
    assert_eq!(world.record.as_ref().unwrap().launch, launches);
    // The next try drains for as long as the first.
    world.undrained_is_expected = true;
    world.mount(ordered(30, 10, 3, Some(1)));
    world.run(Duration::from_mins(11));
    assert_eq!(world.phase(), Phase::Draining);
    world.mount(ordered(30, 11, 3, Some(3)));
    world.run(Duration::from_secs(20));
    assert_eq!(
        (world.phase(), world.applied()),
        (Phase::Serving, Some(window(30)))
    );
}

#[test]
fn a_release_is_obeyed_by_the_next_sidecar_too() {
    for released_before in [true, false] {
        let mut world = serving(numbered(10, 7));
        world.undrained_is_expected = true;
        world.mount(ordered(30, 8, 1, None));
        world.run(Duration::from_secs(30));
        if released_before {
            // The old sidecar ends before it reads the release.
            world.entry = Some(ordered(30, 9, 1, Some(1)));
        }
        world.sidecar_restarts();
        if !released_before {
            world.run(Duration::from_mins(5));
            assert_eq!(world.phase(), Phase::Draining);
            world.mount(ordered(30, 9, 1, Some(1)));
        }
        world.run(Duration::from_secs(20));
        assert_eq!(
            (world.phase(), world.applied(), world.stops_of_ready),
            (Phase::Serving, Some(window(30)), 1)
        );
    }
}

#[test]
fn a_retry_waits_for_a_release_of_its_own() {
    // A window of 20 days ends thanos.
    let mut world = serving(numbered(10, 7));
    world.undrained_is_expected = true;
    world.mount(ordered(20, 8, 1, None));
    world.run(Duration::from_secs(5));
    world.mount(ordered(20, 9, 1, Some(1)));
    world.run(Duration::from_secs(20));
    assert_eq!(world.phase(), Phase::Failed);
    while world.phase() == Phase::Failed {
        world.run(Duration::from_secs(1));
    }
    let began = world.now;
    world.run(Duration::from_mins(5));
    assert_eq!(world.phase(), Phase::Draining);
    world.bad.clear();
    world.mount(ordered(20, 10, 2, None));
    world.run(Duration::from_mins(1));
    assert_eq!(
        (world.phase(), world.sidecar.status().order),
        (Phase::Draining, Some(2))
    );
    world.mount(ordered(20, 11, 2, Some(2)));
    world.run(Duration::from_secs(20));
    assert_eq!(
        (world.phase(), world.applied()),
        (Phase::Serving, Some(window(20)))
    );
    assert!(world.now.saturating_sub(began) < Duration::from_mins(7));
}

#[derive(Clone, Debug)]
enum LeaderAct {
    /// Moves the pod, with the next order.
    Move(i64),
    /// Releases the present order.
    Release,
    /// Publishes the window that thanos runs.
    TakeBack,
    /// kubelet mounts an earlier entry.
    Stale(usize),
    SidecarKilled,
    Run(u64),
}

fn leader_act() -> impl Strategy<Value = LeaderAct> {
    prop_oneof![
        4 => (1_i64..7).prop_map(LeaderAct::Move),
        3 => Just(LeaderAct::Release),
        2 => Just(LeaderAct::TakeBack),
        1 => (0_usize..20).prop_map(LeaderAct::Stale),
        2 => Just(LeaderAct::SidecarKilled),
        6 => (0_u64..400_000).prop_map(LeaderAct::Run),
    ]
}

proptest! {
    #![proptest_config(cases(200))]

    /// Windows of 20 days end thanos, none of these. A serving thanos is stopped only if its
    /// present order was released, or after the whole drain.
    #[test]
    fn only_a_release_of_the_present_order_ends_a_drain(acts in prop::collection::vec(leader_act(), 1..40)) {
        let mut world = serving(numbered(10, 1));
        world.undrained_is_expected = true;
        let (mut order, mut generation, mut mounted) = (0, 1, Vec::new());
        let (mut released, mut stops, mut unready_since) = (BTreeSet::new(), 0, None);
        for act in acts {
            let current = world.sidecar.status();
            match act {
                LeaderAct::Move(days) => {
                    (order, generation) = (order + 1, generation + 1);
                    world.mount(ordered(days, generation, order, None));
                }
                LeaderAct::Release => {
                    generation += 1;
                    released.insert(order);
                    let entry = world.entry.filter(|entry| entry.order == Some(order));
                    if let Some(entry) = entry {
                        let released = Some(order);
                        world.mount(Entry { generation: Some(generation), released, ..entry });
                    }
                }
                LeaderAct::TakeBack => {
                    (order, generation) = (order + 1, generation + 1);
                    if let Some(runs) = current.applied {
                        let entry = ordered(1, generation, order, None);
                        world.mount(Entry { window: runs, ..entry });
                        prop_assert!(current.phase != Phase::Draining || world.phase() == Phase::Serving);
                    }
                }
                LeaderAct::Stale(back) => {
                    let entries: &Vec<Entry> = &mounted;
                    if let Some(entry) = entries.iter().rev().nth(back) {
                        world.mount(*entry);
                    }
                }
                LeaderAct::SidecarKilled => {
                    world.sidecar_restarts();
                    unready_since = Some(world.now);
                }
                LeaderAct::Run(millis) => {
                    let end = world.now + Duration::from_millis(millis);
                    while world.now < end {
                        world.run(Duration::from_secs(1));
                        unready_since = if world.phase() == Phase::Draining {
                            unready_since.or(Some(world.now))
                        } else {
                            unready_since.filter(|_| !world.phase().is_ready())
                        };
                        if world.stops_of_ready > stops {
                            let drained = unready_since.map(|at| world.now.saturating_sub(at));
                            let whole = drained >= Some(Duration::from_secs(700));
                            let order = world.order.and_then(|file| file.order);
                            prop_assert!(whole || order.is_some_and(|order| released.contains(&order)), "{drained:?} {order:?}");
                        }
                        stops = world.stops_of_ready;
                    }
                }
            }
            stops = world.stops_of_ready;
            mounted.extend(world.entry);
        }
    }
}

/// The long drain of a move that the leader ends does not delay the retries of a load.
#[test]
fn after_a_release_a_missing_block_is_loaded_again_immediately() {
    let mut world = serving(numbered(10, 7));
    world.undrained_is_expected = true;
    world.mount(ordered(30, 8, 1, None));
    world.run(Duration::from_secs(20));
    world.broken.insert(3);
    world.mount(ordered(30, 9, 1, Some(1)));
    world.run(Duration::from_secs(20));
    assert_eq!(world.phase(), Phase::Restarting);
    assert!(world.sidecar.load_retries() >= 1);
    world.broken.clear();
    world.run(Duration::from_mins(1));
    assert_eq!(
        (world.phase(), world.applied(), world.missing().1),
        (Phase::Serving, Some(window(30)), Some(vec![]))
    );
}
