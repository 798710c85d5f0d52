//! `retention: forever`: windows without a beginning.

use super::*;
use crate::core::model::window::Bound;

/// Shards of the pods whose window has no beginning.
fn open_shards(world: &World) -> Vec<u32> {
    let entries = (0..6).filter_map(|pod| world.entry_of(&format!("store-{pod}")));
    entries
        .filter(|entry| entry.window.min == Bound::BEGINNING)
        .map(|entry| entry.shard)
        .collect()
}

/// Sets the retention to `forever`, by the configuration file or by annotations.
fn to_forever(world: &mut World, by_file: bool) {
    if by_file {
        world.configure(&CONFIG.replace(
            "retention: 370d",
            "retention: forever, boundaries: [14d, 90d], future_buffer: -2h",
        ));
    } else {
        world.annotate("boundaries", "[14d, 90d]");
        world.annotate("future-buffer", "-2h");
        world.annotate("retention", "forever");
    }
}

#[test]
fn retention_grows_to_forever_and_back_with_every_query_answered() {
    for (seed, absolute, by_file) in [(4, false, false), (5, true, false), (6, false, true)] {
        let mut world = settled(6, seed);
        let before = world.fleet.known("ns", "store").sharding.required();
        if absolute {
            world.annotate("window-format", "absolute");
            world
                .settle("absolute windows", |world| world.answers_about(before))
                .unwrap();
        }
        to_forever(&mut world, by_file);
        // The range that both plans serve: before, no pod served what is older; afterwards, no pod
        // needs to serve what is newer.
        let both = Window {
            max: world.fleet.known("ns", "store").sharding.required().max,
            ..before
        };
        world
            .settle("to forever", |world| world.answers_about(both))
            .unwrap();
        for _ in 0..=DISCOVERY {
            world.second();
        }
        world.answers().unwrap();
        assert_eq!(open_shards(&world), [2, 2]);
        let report = &world.last.report;
        assert_eq!(
            (
                report.retention_seconds,
                report.gap_seconds,
                report.minimum_ready_replicas
            ),
            (None, 0, 2)
        );
        let (map, restarted) = (world.map.clone().unwrap().data, world.restarts());
        for _ in 0..60 {
            world.second();
        }
        assert_eq!(
            (world.map.clone().unwrap().data, world.restarts()),
            (map, restarted),
            "an open window is never written again"
        );
        if by_file {
            world.configure(CONFIG);
        } else {
            world.annotate("retention", "370d");
        }
        world
            .settle("and back", |world| world.answers_about(both))
            .unwrap();
        assert_eq!(open_shards(&world), Vec::<u32>::new());
        assert_eq!(world.last.report.retention_seconds, Some(370 * 86_400));
    }
}
