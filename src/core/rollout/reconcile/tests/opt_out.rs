//! A StatefulSet that its user opts out, and back in: no pod restarts for it, and no query is
//! affected.

use super::*;
use crate::testing::cases;

fn opt_out(world: &mut World) {
    world.annotate("managed", "false");
}

fn opt_in(world: &mut World) {
    world.change(|set| {
        set.annotations.remove(names::MANAGED);
    });
}

fn windows(world: &World) -> Vec<Option<Window>> {
    world.pods.values().map(|pod| pod.applied).collect()
}

#[test]
fn running_pods_keep_their_windows_and_nothing_restarts() {
    let mut world = settled(6, 3);
    let (before, restarts, writes) = (windows(&world), world.restarts(), world.writes);
    opt_out(&mut world);
    for _ in 0..600 {
        world.second();
        world.answers().unwrap();
    }
    assert_eq!((windows(&world), world.restarts()), (before, restarts));
    assert!(world.map.as_ref().unwrap().data.is_empty());
    assert_eq!(world.writes, writes + 1, "it is written once");
    assert!(world.last.events.is_empty());
    assert_eq!(
        world.last.report.message,
        "opted out by annotation thanos-timeshard.io/managed: \"false\"; 6 pods keep their last windows until they are replaced"
    );
    // Another plan meanwhile has no effect.
    world.annotate("total-shards", "2");
    for _ in 0..100 {
        world.second();
    }
    assert_eq!((world.restarts(), world.writes), (restarts, writes + 1));
}

#[test]
fn opting_in_again_publishes_what_runs_and_then_rolls_out_the_plan() {
    let mut world = settled(6, 4);
    let (before, restarts) = (windows(&world), world.restarts());
    opt_out(&mut world);
    for _ in 0..60 {
        world.second();
    }
    opt_in(&mut world);
    world.settle("opted in again", World::answers).unwrap();
    assert_eq!(
        (windows(&world), world.restarts()),
        (before, restarts),
        "the plan is the same"
    );
    opt_out(&mut world);
    world.annotate("total-shards", "2");
    for _ in 0..60 {
        world.second();
    }
    opt_in(&mut world);
    world.settle("with another plan", World::answers).unwrap();
    assert!(world.restarts() > restarts);
    assert_eq!(world.last.report.moves_left, 0);
}

#[test]
fn a_pod_that_was_admitted_meanwhile_is_reported_once_opted_in_again() {
    let mut world = settled(6, 5);
    opt_out(&mut world);
    world.second();
    world.delete("store-3");
    for _ in 0..60 {
        world.second();
    }
    assert!(!world.pods["store-3"].facts.injected);
    assert!(world.last.report.message.contains("5 pods keep"));
    opt_in(&mut world);
    for _ in 0..60 {
        world.second();
    }
    let events: Vec<_> = world
        .last
        .events
        .iter()
        .map(|(reason, _)| *reason)
        .collect();
    assert!(events.contains(&"NotInjected"), "{events:?}");
    assert_eq!(world.last.report.uninjected_store_pods, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..cases(24) })]

    /// In the middle of a rollout, under any leader, for any time.
    #[test]
    fn no_query_is_affected_by_an_opt_out_at_any_moment(
        first in acts(), after in 0..60_u64, away in 0..60_u64, other_leader in any::<bool>(), seed in any::<u64>()
    ) {
        let mut world = settled(12, seed);
        let run = |world: &mut World, what: &str, seconds: u64| {
            for _ in 0..seconds {
                world.second();
                world.answers().map_err(|why| TestCaseError::fail(format!("{what}: {why}")))?;
            }
            Ok::<(), TestCaseError>(())
        };
        // Pods that are created meanwhile have no window, and are not simulated.
        let first = if let Act::ScaleUp(_) = first { Act::Shards(2) } else { first };
        perform(&mut world, &first);
        run(&mut world, "before", after)?;
        opt_out(&mut world);
        run(&mut world, "opted out", away)?;
        if other_leader {
            perform(&mut world, &Act::NewLeader);
        }
        opt_in(&mut world);
        world.settle("at the end", World::answers).map_err(TestCaseError::fail)?;
        prop_assert_eq!(world.last.report.moves_left, 0);
    }
}
