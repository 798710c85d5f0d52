//! Blocks that fail to load during a rollout: queriers still find them, users see them, and their
//! holders stay.

use super::*;
use crate::testing::cases;

fn pods(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|i| format!("store-{i}")).collect()
}

fn check(world: &mut World) -> Result<(), String> {
    world.answers()?;
    world.finds_blocks()
}

/// Runs until the rollout is settled. Every block that queriers found must stay found.
fn settle(world: &mut World) -> Result<(), String> {
    for _ in 0..3_000 {
        world.second();
        check(world)?;
        if world.last.report.state == RolloutState::Settled
            && world.last.upkeep.is_none()
            && world.last.report.moves_left == 0
        {
            return Ok(());
        }
    }
    Err(format!("not settled: {}", world.last.report.message))
}

#[test]
fn a_rollout_waits_for_the_block_that_the_new_pods_cannot_load_and_names_it() {
    let mut world = settled(8, 31);
    // 100 days ago: moves from shard 0 to shard 1.
    world.upload(100, [], 0);
    settle(&mut world).unwrap();
    for _ in 0..60 {
        world.second();
        check(&mut world).unwrap();
    }
    assert!(world.blocks[0].found);
    world.blocks[0].fails_on = pods(2..8).into_iter().collect();
    world.blocks[0].until = world.at + 600;
    world.annotate("total-shards", "4");
    let mut waited = None;
    for _ in 0..600 {
        world.second();
        check(&mut world).unwrap();
        if world.last.report.message.contains("to load block") {
            waited = Some((
                world.last.report.clone(),
                world.last.closed.clone(),
                world
                    .map
                    .clone()
                    .unwrap()
                    .single_holders
                    .unwrap_or_default(),
            ));
        }
    }
    let (report, closed, holders) = waited.expect("it waits for the block");
    assert_eq!(report.state, RolloutState::Waiting);
    assert!(
        report.message.contains(&world.blocks[0].id.ulid),
        "{}",
        report.message
    );
    assert_eq!(
        (report.blocks.unserved_total, report.blocks.missing_total),
        (0, 1),
        "{:?}",
        report.blocks
    );
    assert!(
        report.blocks.missing[0].served_by >= 1 && !report.blocks.missing[0].missing_on.is_empty(),
        "{:?}",
        report.blocks
    );
    // The only pod that serves it cannot be evicted, and the guard knows.
    assert!(!closed.is_empty());
    assert!(
        holders.is_empty() || holders.contains(&world.blocks[0].id.ulid),
        "{holders}"
    );
    settle(&mut world).unwrap();
    assert_eq!(
        (
            world.last.report.blocks.missing_total,
            world.map.as_ref().unwrap().single_holders.clone()
        ),
        (0, None)
    );
}

#[test]
fn a_block_that_no_pod_can_load_stops_nothing_and_is_reported() {
    let mut world = World::new(CONFIG, 8, 32);
    world.upload(200, pods(0..8), u64::MAX);
    world.settle("start", |_| Ok(())).unwrap();
    for _ in 0..=DISCOVERY {
        world.second();
    }
    settle(&mut world).unwrap();
    let report = world.last.report.clone();
    assert_eq!(
        (
            report.blocks.unserved_total,
            report.blocks.missing_total,
            report.blocks.known_pods
        ),
        (1, 0, 8),
        "{:?}",
        report.blocks
    );
    assert!(
        report.message.contains("1 block is served by no pod")
            && report.message.contains(&world.blocks[0].id.ulid),
        "{}",
        report.message
    );
    assert!(
        world
            .last
            .events
            .iter()
            .any(|(reason, _)| *reason == "BlocksUnserved"),
        "{:?}",
        world.last.events
    );
    world.annotate("total-shards", "4");
    settle(&mut world).unwrap();
    assert_eq!(world.last.report.blocks.unserved_total, 1);
}

#[test]
fn a_pod_with_a_truncated_list_or_a_stale_bucket_is_not_confirmed() {
    for (cut, stale) in [(true, false), (false, true)] {
        let mut world = settled(6, 33);
        let now = world.now().timestamp();
        let PodAnswer::Status(status) = &mut world.pods.get_mut("store-2").unwrap().answer else {
            panic!()
        };
        let blocks = status.blocks.as_mut().unwrap();
        if cut {
            (blocks.expected, blocks.missing_total) = (300, 300);
        }
        if stale {
            blocks.last_sync_unix_seconds = now - 2 * 86_400;
        }
        world.leader();
        let pod = &world.last.report.pods[2];
        assert_eq!(pod.state, PodState::Settling, "{pod:?}");
        let why = pod.why.clone().unwrap();
        assert!(
            why.contains(if cut {
                "300 of its 300 blocks"
            } else {
                "longer ago than the overlap of 1d"
            }),
            "{why}"
        );
        assert_eq!(world.last.report.state, RolloutState::Waiting);
        world.annotate("total-shards", "2");
        world.leader();
        assert!(world.last.step.is_none());
    }
}

#[test]
fn blocks_outside_of_every_window_are_counted_by_the_pods_at_the_ends() {
    let mut world = settled(6, 34);
    for (pod, older, newer) in [
        ("store-0", 120, 0),
        ("store-2", 70, 90),
        ("store-5", 12, 200),
    ] {
        let PodAnswer::Status(status) = &mut world.pods.get_mut(pod).unwrap().answer else {
            panic!()
        };
        status.blocks.as_mut().unwrap().bucket = Some(crate::core::agent::loaded::BucketCounts {
            total: 320,
            older,
            newer,
        });
    }
    world.leader();
    let blocks = &world.last.report.blocks;
    assert_eq!(
        (
            blocks.outside_windows,
            blocks.bucket_total,
            blocks.known_pods
        ),
        (Some(12), Some(320), 6)
    );
}

#[test]
fn where_gaps_are_allowed_a_block_holds_a_pod_for_an_hour_and_no_longer() {
    for (allow_gap, minutes, binds) in [(false, 61, true), (true, 59, true), (true, 61, false)] {
        let mut world = settled(6, 36);
        world.upload(150, pods([2]), u64::MAX);
        for _ in 0..120 {
            world.second();
        }
        world.annotate("allow-coverage-gap", &allow_gap.to_string());
        world.missing_for.insert(
            world.blocks[0].id.ulid.clone(),
            Duration::from_mins(minutes),
        );
        world.leader();
        let holders = world
            .map
            .clone()
            .unwrap()
            .single_holders
            .unwrap_or_default();
        assert_eq!(
            holders.contains("store-3"),
            binds,
            "{allow_gap}, {minutes} min: {holders}"
        );
        assert_eq!(
            world.last.report.blocks.missing_total, 1,
            "it is reported in any case"
        );
    }
}

/// A fault: how old the block is, which pods fail, for how long.
fn faults() -> impl Strategy<Value = Vec<(i64, u16, u64)>> {
    prop::collection::vec((3_i64..360, any::<u16>(), 1_u64..400), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 300, ..cases(24) })]

    /// Blocks fail to load while plans, leaders and entries change: what queriers found stays found,
    /// and the rollout ends.
    #[test]
    fn no_query_loses_a_block_that_it_found(acts in prop::collection::vec(acts(), 1..4), faults in faults(), seed in any::<u64>()) {
        let mut world = settled(12, seed);
        for (age, _, _) in &faults {
            world.upload(*age, [], 0);
        }
        settle(&mut world).map_err(TestCaseError::fail)?;
        for _ in 0..60 {
            world.second();
            check(&mut world).map_err(TestCaseError::fail)?;
        }
        for (block, (_, fails_on, lasts)) in faults.iter().enumerate() {
            world.blocks[block].fails_on = pods((0..16).filter(|bit| fails_on >> bit & 1 == 1)).into_iter().collect();
            world.blocks[block].until = world.at + lasts;
        }
        for act in &acts {
            perform(&mut world, act);
            let seconds = if let Act::Wait(seconds) = act { *seconds } else { 3 };
            for _ in 0..seconds {
                world.second();
                check(&mut world).map_err(|why| TestCaseError::fail(format!("{act:?}: {why}")))?;
            }
        }
        settle(&mut world).map_err(TestCaseError::fail)?;
    }
}
