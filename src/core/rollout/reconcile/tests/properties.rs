//! Whatever users, other clients and leaders do during a rollout, every query is answered in full.

use super::*;
use crate::testing::cases;

#[derive(Clone, Debug)]
pub(super) enum Act {
    Shards(u32),
    Replicas(u32),
    Boundaries,
    Overlap(u32),
    ScaleUp(u32),
    NewLeader,
    MapDeleted,
    MapEdited,
    Wait(u64),
}

pub(super) fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        (1..5_u32).prop_map(Act::Shards),
        (2..4_u32).prop_map(Act::Replicas),
        Just(Act::Boundaries),
        (12..72_u32).prop_map(Act::Overlap),
        (0..3_u32).prop_map(Act::ScaleUp),
        Just(Act::NewLeader),
        Just(Act::MapDeleted),
        Just(Act::MapEdited),
        (0..80_u64).prop_map(Act::Wait),
    ]
}

/// Performs the act of a user, another client or another leader.
pub(super) fn perform(world: &mut World, act: &Act) {
    match act {
        Act::Shards(n) => {
            world.change(|set| {
                set.annotations.remove("thanos-timeshard.io/boundaries");
            });
            world.annotate("total-shards", &n.to_string());
        }
        Act::Replicas(n) => world.annotate("replicas-per-shard", &n.to_string()),
        Act::Boundaries => {
            world.change(|set| {
                set.annotations.remove("thanos-timeshard.io/total-shards");
            });
            world.annotate("boundaries", "[14d, 90d]");
        }
        Act::Overlap(hours) => world.annotate("overlap", &format!("{hours}h")),
        Act::ScaleUp(more) => world.change(|set| set.replicas += more),
        Act::NewLeader => (world.written, world.leader_since) = (None, world.at),
        Act::MapDeleted => world.map = None,
        Act::MapEdited => {
            if let Some(map) = &mut world.map {
                map.data.insert(
                    "store-1.yaml".to_owned(),
                    "shard: 9\nmin_time: -2d\nmax_time: -1d\n".to_owned(),
                );
                world.leader();
            }
        }
        Act::Wait(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 500, ..cases(48) })]

    /// The rollout also ends.
    #[test]
    fn no_query_is_affected_whatever_users_and_leaders_do(acts in proptest::collection::vec(acts(), 1..6), seed in any::<u64>()) {
        let mut world = settled(12, seed);
        for act in &acts {
            perform(&mut world, act);
            let seconds = if let Act::Wait(seconds) = act { *seconds } else { 3 };
            for _ in 0..seconds {
                world.second();
                world.answers().map_err(|why| TestCaseError::fail(format!("{act:?}: {why}")))?;
            }
        }
        world.settle("at the end", World::answers).map_err(TestCaseError::fail)?;
        prop_assert_eq!(world.last.report.moves_left, 0);
    }
}
