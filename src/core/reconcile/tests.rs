use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::core::config::Config;
use crate::core::fleet::Fleet;
use crate::core::window::Bound;
use world::{CONFIG, DISCOVERY, World};

mod blocks;
mod generations;
mod world;

fn settled(replicas: u32, seed: u64) -> World {
    let mut world = World::new(CONFIG, replicas, seed);
    world.settle("start", |_| Ok(())).unwrap();
    // Until the last querier knows the last pod.
    for _ in 0..=DISCOVERY {
        world.second();
    }
    world.answers().unwrap();
    world
}

#[test]
fn a_fresh_statefulset_is_published_at_once_and_then_never_written_again() {
    let mut world = World::new(CONFIG, 6, 1);
    // Agents of the first contract get no key that they do not know.
    world.contract = 1;
    world.leader();
    assert_eq!(
        (world.writes, world.map.as_ref().unwrap().data.len()),
        (1, 6)
    );
    assert_eq!(
        world.map.as_ref().unwrap().data["store-0.yaml"],
        "shard: 0\nreplica: 0\nmin_time: -124d8h\nmax_time: 1d\ndrain: 6s\n"
    );
    world.settle("start", |_| Ok(())).unwrap();
    let (writes, restarts) = (
        world.writes,
        world.pods.values().map(|pod| pod.restarts).sum::<u64>(),
    );
    // A month, looked at as often as by default.
    for _ in 0..30 * 24 * 12 {
        world.at += 300;
        world.leader();
    }
    assert_eq!((world.writes, restarts), (writes, 0));
    assert_eq!(
        (
            world.last.report.state,
            world.last.report.gap_seconds,
            world.last.report.minimum_confirmed_replicas
        ),
        (State::Settled, 0, 2)
    );
}

#[test]
fn the_entry_says_how_long_to_drain_even_when_that_is_the_default() {
    // Pods that were admitted with another drain would keep that.
    let mut world = World::new("sharding: {total_shards: 3}", 6, 1);
    world.leader();
    assert_eq!(
        world.map.unwrap().data["store-0.yaml"],
        "shard: 0\nreplica: 0\nmin_time: -124d8h\nmax_time: 1d\ndrain: 1m30s\n"
    );
}

#[test]
fn absolute_windows_move_on_with_the_quantum() {
    let mut world = World::new(
        &CONFIG.replace('}', ", window_format: absolute, quantum: 1h}"),
        6,
        1,
    );
    world.settle("start", |_| Ok(())).unwrap();
    let before = world.map.clone().unwrap().data;
    for _ in 0..3_700 {
        world.second();
        world.answers().unwrap();
    }
    assert_ne!(world.map.unwrap().data, before);
}

#[test]
fn what_others_write_is_led_back_and_restarts_nobody() {
    let mut world = settled(6, 2);
    let before = world.map.clone().unwrap().data;
    let map = world.map.as_mut().unwrap();
    map.data.insert(
        "store-0.yaml".to_owned(),
        "shard: 2\nreplica: 0\nmin_time: -370d\nmax_time: -300d\n".to_owned(),
    );
    map.data.insert("stranger.yaml".to_owned(), "x".to_owned());
    map.data.remove("store-3.yaml");
    world.leader();
    assert_eq!(world.map.as_ref().unwrap().data, before);
    // Gone altogether, and the leader is another one: what runs is published.
    (world.map, world.written, world.leader_since) = (None, None, world.at);
    world.settle("after the deletion", World::answers).unwrap();
    let windows = |data: &BTreeMap<String, String>| -> Vec<Window> {
        data.values()
            .map(|text| Entry::parse(text, world.now()).unwrap().window)
            .collect()
    };
    assert_eq!(windows(&world.map.as_ref().unwrap().data), windows(&before));
    assert_eq!(world.pods.values().map(|pod| pod.restarts).sum::<u64>(), 0);
}

#[test]
fn refused_annotations_after_a_restart_move_nobody() {
    let mut world = settled(6, 9);
    for (key, value) in [
        ("total-shards", "2"),
        ("retention", "740d"),
        ("drain", "9s"),
    ] {
        world.annotate(key, value);
    }
    world.settle("the user's own", |_| Ok(())).unwrap();
    let before = (
        world.map.clone().unwrap().data,
        world.pods.values().map(|pod| pod.restarts).sum::<u64>(),
    );
    world.annotate("overlap", "much");
    for restart in [false, true] {
        if restart {
            let config = world.fleet.config().clone();
            world.fleet = Fleet::new(Arc::new(config))
                .with_statefulset(world.set.clone())
                .unwrap();
            (world.written, world.leader_since) = (None, world.at);
        }
        for _ in 0..300 {
            world.second();
            world.answers().unwrap();
        }
        let now = (
            world.map.clone().unwrap().data,
            world.pods.values().map(|pod| pod.restarts).sum::<u64>(),
        );
        assert_eq!(now, before, "restart: {restart}");
    }
    let report = &world.last.report;
    assert_eq!(
        (report.state, report.gap_seconds, report.moves_left),
        (State::Refused, 0, 0)
    );
    assert!(report.message.contains("\"much\""), "{}", report.message);
    world.annotate("overlap", "1d");
    world.settle("mended", World::answers).unwrap();
    assert_eq!(world.map.unwrap().data, before.0);
}

#[test]
fn retention_grows_to_for_ever_and_back_with_every_query_answered() {
    for (seed, absolute, by_file) in [(4, false, false), (5, true, false), (6, false, true)] {
        let mut world = settled(6, seed);
        let before = world.fleet.known("ns", "store").sharding.required();
        if absolute {
            world.annotate("window-format", "absolute");
            world
                .settle("absolute windows", |world| world.answers_about(before))
                .unwrap();
        }
        let open = |world: &World| {
            let entries = (0..6).filter_map(|pod| world.entry_of(&format!("store-{pod}")));
            entries
                .filter(|entry| entry.window.min == Bound::BEGINNING)
                .map(|entry| entry.shard)
                .collect::<Vec<_>>()
        };
        if by_file {
            let text = CONFIG.replace(
                "retention: 370d",
                "retention: forever, boundaries: [14d, 90d], future_buffer: -2h",
            );
            world.fleet = world
                .fleet
                .with_config(Arc::new(Config::parse(&text, "test").unwrap()));
        } else {
            world.annotate("boundaries", "[14d, 90d]");
            world.annotate("future-buffer", "-2h");
            world.annotate("retention", "forever");
        }
        // What both serve; what is older nobody held before, and what is newer nobody need hold.
        let both = Window {
            max: world.fleet.known("ns", "store").sharding.required().max,
            ..before
        };
        world
            .settle("to for ever", |world| world.answers_about(both))
            .unwrap();
        for _ in 0..=DISCOVERY {
            world.second();
        }
        world.answers().unwrap();
        assert_eq!(open(&world), [2, 2]);
        let report = &world.last.report;
        assert_eq!(
            (
                report.retention_seconds,
                report.gap_seconds,
                report.minimum_ready_replicas
            ),
            (None, 0, 2)
        );
        let restarts = |world: &World| world.pods.values().map(|pod| pod.restarts).sum::<u64>();
        let (map, restarted) = (world.map.clone().unwrap().data, restarts(&world));
        for _ in 0..60 {
            world.second();
        }
        assert_eq!(
            (world.map.clone().unwrap().data, restarts(&world)),
            (map, restarted),
            "an open window is never written again"
        );
        if by_file {
            world.fleet = world
                .fleet
                .with_config(Arc::new(Config::parse(CONFIG, "test").unwrap()));
        } else {
            world.annotate("retention", "370d");
        }
        world
            .settle("and back", |world| world.answers_about(both))
            .unwrap();
        assert_eq!(open(&world), Vec::<u32>::new());
        assert_eq!(world.last.report.retention_seconds, Some(370 * 86_400));
    }
}

#[test]
fn the_way_down_is_safe_and_says_when() {
    let mut world = settled(6, 3);
    world.annotate("target-replicas", "4");
    world.annotate("total-shards", "2");
    world.settle("towards the target", World::answers).unwrap();
    assert!(
        world
            .last
            .report
            .message
            .contains("--replicas=4 is safe now"),
        "{}",
        world.last.report.message
    );
    world.change(|set| set.replicas = 4);
    while world.pods.len() > 4 || world.set.annotations.contains_key(names::TARGET_REPLICAS) {
        world.second();
        world.answers().unwrap();
    }
    world.second();
    assert_eq!(world.map.as_ref().unwrap().data.len(), 4);
}

#[test]
fn a_pause_stops_it_and_a_broken_pod_gets_its_planned_window() {
    let mut world = settled(6, 4);
    world.annotate("pause", "true");
    world.annotate("total-shards", "2");
    for _ in 0..100 {
        world.second();
    }
    assert_eq!(
        (
            world.last.report.state,
            world.pods.values().map(|pod| pod.restarts).sum::<u64>()
        ),
        (State::Paused, 0)
    );
    world.annotate("pause", "false");
    let first = loop {
        world.second();
        if let Some(name) = world
            .pods
            .iter()
            .find(|(_, pod)| pod.draining_until.is_some())
            .map(|(name, _)| name.clone())
        {
            break name;
        }
    };
    world.pods.get_mut(&first).unwrap().refuses = true;
    world.pods.get_mut(&first).unwrap().draining_until = None;
    world.pods.get_mut(&first).unwrap().facts.ready = true;
    for _ in 0..60 {
        world.second();
    }
    assert_eq!(
        world.last.report.state,
        State::Waiting,
        "{}",
        world.last.report.message
    );
    assert!(
        world
            .last
            .notices
            .iter()
            .any(|(reason, text)| *reason == "WindowNotServed" && text.contains(&first)),
        "{:?}",
        world.last.notices
    );
    // Back to where it was: what it serves is what is planned.
    world.annotate("total-shards", "3");
    world.settle("back", |_| Ok(())).unwrap();
}

#[test]
fn a_sidecar_that_does_not_show_its_entry_is_seen_to_again_and_again() {
    let mut world = settled(6, 5);
    world.annotate("total-shards", "2");
    world.leader();
    let seconds = |ago| Some(Duration::from_secs(ago));
    for (ago, hurries, again) in [
        (seconds(2), false, 3),
        (seconds(5), true, 5),
        (seconds(600), true, 5),
        (None, true, 5),
    ] {
        world.hurried_ago = ago;
        world.leader();
        assert_eq!(
            (!world.last.hurry.is_empty(), world.last.again),
            (hurries, seconds(again)),
            "{ago:?}"
        );
    }
}

#[test]
fn a_drift_counts_from_when_it_was_seen_and_not_from_when_the_pod_became_ready() {
    let mut world = settled(6, 5);
    for _ in 0..600 {
        world.second();
    }
    assert_eq!(
        (
            world.last.report.drift_seconds(),
            world.last.report.planned_minimum_replicas
        ),
        (0, 2)
    );
    world.annotate("total-shards", "2");
    world.leader();
    // No sidecar has seen its new entry yet.
    for (seen_for, drift, tells) in [
        (None, 0, false),
        (Some(299), 299, false),
        (Some(300), 300, true),
    ] {
        world.drifts_for = seen_for.map(Duration::from_secs);
        world.leader();
        let (report, told) = (
            &world.last.report,
            world
                .last
                .notices
                .iter()
                .any(|(reason, _)| *reason == "Drift"),
        );
        assert_eq!(
            (report.drift_seconds(), told),
            (drift, tells),
            "{:?}",
            report.pods
        );
        assert_eq!(report.clone().aged_by(5).drift_seconds(), drift + 5);
    }
}

#[test]
fn a_store_pod_without_injection_is_counted_unless_it_opted_out() {
    let mut world = settled(6, 5);
    for (opted_out, counted) in [(false, 1), (true, 0)] {
        let facts = &mut world.pods.get_mut("store-3").unwrap().facts;
        (facts.injected, facts.opted_out) = (false, opted_out);
        world.leader();
        assert_eq!(world.last.report.uninjected_store_pods, counted);
    }
}

#[test]
fn nothing_moves_while_the_statefulset_is_updated_or_a_pod_does_not_answer() {
    let mut world = settled(6, 5);
    let writes = world.writes;
    world.change(|set| set.update_revision = "r2".to_owned());
    world.annotate("total-shards", "2");
    for _ in 0..30 {
        world.second();
    }
    assert_eq!(
        (world.last.report.state, world.writes),
        (State::Waiting, writes),
        "{}",
        world.last.report.message
    );
    for pod in world.pods.values_mut() {
        pod.facts.revision = "r2".to_owned();
    }
    world.second();
    assert_eq!(
        world.last.report.state,
        State::Rolling,
        "{}",
        world.last.report.message
    );
}

#[test]
fn more_pods_than_a_config_map_holds_are_refused_with_the_figure() {
    let mut world = World::new(
        "sharding: {total_shards: 10000, replicas_per_shard: 2, overlap: 30m}",
        15_900,
        1,
    );
    (0..15_900).for_each(|index| world.create(&format!("store-{index}")));
    world
        .pods
        .values_mut()
        .for_each(|pod| pod.facts.injected = false);
    world.leader();
    assert_eq!((world.last.report.state, world.writes), (State::Refused, 0));
    assert!(
        world.last.report.message.contains("15900 pods take"),
        "{}",
        world.last.report.message
    );
    // Whoever may scale one may ask for so many: nothing is as large as what was asked for.
    world.pods.clear();
    world.change(|set| set.replicas = u32::MAX);
    world.leader();
    assert_eq!(
        (
            world.last.report.state,
            world.writes,
            world.last.report.pods.len()
        ),
        (State::Refused, 0, 0)
    );
    assert!(
        world
            .last
            .report
            .message
            .contains("4294967295 pods are more"),
        "{}",
        world.last.report.message
    );
}

#[derive(Clone, Debug)]
enum Act {
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

fn acts() -> impl Strategy<Value = Act> {
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

/// Does what a user, another writer or another leader does.
fn perform(world: &mut World, act: &Act) {
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
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 500, ..ProptestConfig::default() })]

    /// Whatever users, other writers and leaders do in the middle of it, every query is answered in full, and it ends.
    #[test]
    fn no_query_notices_whatever_is_asked_for(acts in proptest::collection::vec(acts(), 1..6), seed in any::<u64>()) {
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

#[test]
fn what_no_sidecar_has_said_yet_is_not_taken_for_settled() {
    let mut world = settled(6, 6);
    let writes = world.writes;
    // It has asked all of them.
    (world.map, world.written, world.leader_since) = (None, None, world.at - 5);
    for pod in world.pods.values_mut() {
        pod.answer = Answer::Unreachable("nobody answers".to_owned());
    }
    world.leader();
    assert_eq!(
        (
            world.last.report.state,
            world.writes,
            world.last.step.is_some()
        ),
        (State::Waiting, writes, false)
    );
    assert!(
        world.last.report.message.contains("nobody answers"),
        "{}",
        world.last.report.message
    );
    world.settle("they answer again", World::answers).unwrap();
    assert_eq!(world.pods.values().map(|pod| pod.restarts).sum::<u64>(), 0);
}

#[test]
fn with_a_pod_that_nobody_gives_its_window_nothing_is_settled() {
    let mut world = settled(6, 11);
    let facts = &mut world.pods.get_mut("store-5").unwrap().facts;
    facts.injected = false;
    for (by_hand, opted_out, state) in [
        (false, false, State::Waiting),
        (true, false, State::Settled),
        (false, true, State::Settled),
        (false, false, State::Waiting),
    ] {
        let facts = &mut world.pods.get_mut("store-5").unwrap().facts;
        (facts.by_hand, facts.opted_out) = (by_hand, opted_out);
        world.leader();
        assert_eq!(
            world.last.report.state, state,
            "by hand {by_hand}, opted out {opted_out}: {}",
            world.last.report.message
        );
    }
    assert!(
        world
            .last
            .report
            .message
            .starts_with("store-5 is without injection"),
        "{}",
        world.last.report.message
    );
}

#[test]
fn what_is_said_and_written_follows_the_pods_that_there_are() {
    let mut world = World::new(
        "sharding: {total_shards: 5000, replicas_per_shard: 2, overlap: 30m}",
        10_000,
        1,
    );
    world.leader();
    let report = &world.last.report;
    assert_eq!(
        (report.replicas, report.pods.len()),
        (10_000, MARGIN as usize)
    );
    assert!(
        report
            .warnings
            .iter()
            .any(|text| text.starts_with("9936 of 10000 replicas are not counted yet")),
        "{:?}",
        report.warnings
    );
    assert!(world.last.shards.len() <= MARGIN as usize && report.planned_minimum_replicas == 2);
    assert!(serde_json::to_string(report).unwrap().len() < 64 * 1024);
}
