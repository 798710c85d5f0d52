use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::core::gateways::Gateways;
use crate::core::gateways::MARGIN;
use crate::core::model::window::Window;
use properties::{Act, acts, perform};
use world::{Behaviour, CONFIG, DISCOVERY, SimulatedQuerier, World};

mod blocks;
mod forecast;
mod generations;
mod opt_out;
mod properties;
mod queriers;
mod retention;
mod stuck;
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
fn a_new_statefulset_is_published_immediately_and_then_never_written_again() {
    let mut world = World::new(CONFIG, 6, 1);
    // Agents of contract 1 get no key that they do not know.
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
    let (writes, restarts) = (world.writes, world.restarts());
    // A month, reconciled as often as with default settings.
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
        (RolloutState::Settled, 0, 2)
    );
}

#[test]
fn an_entry_has_a_drain_even_if_it_is_the_default() {
    // Without it, pods that were admitted with another drain would keep that drain.
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
fn writes_by_others_are_reverted_and_restart_no_pod() {
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
    // The ConfigMap is deleted and another leader takes over: it publishes what runs.
    (world.map, world.written, world.leader_since) = (None, None, world.at);
    world.settle("after the deletion", World::answers).unwrap();
    let windows = |data: &BTreeMap<String, String>| -> Vec<Window> {
        data.values()
            .map(|text| Entry::parse(text, world.now()).unwrap().window)
            .collect()
    };
    assert_eq!(windows(&world.map.as_ref().unwrap().data), windows(&before));
    assert_eq!(world.restarts(), 0);
}

#[test]
fn invalid_annotations_after_a_restart_move_no_pod() {
    let mut world = settled(6, 9);
    for (key, value) in [
        ("total-shards", "2"),
        ("retention", "740d"),
        ("drain", "9s"),
    ] {
        world.annotate(key, value);
    }
    world.settle("the user's own", |_| Ok(())).unwrap();
    let before = (world.map.clone().unwrap().data, world.restarts());
    world.annotate("overlap", "much");
    for restart in [false, true] {
        if restart {
            let config = world.fleet.config().clone();
            world.fleet = Gateways::new(Arc::new(config))
                .with_statefulset(world.set.clone())
                .unwrap();
            (world.written, world.leader_since) = (None, world.at);
        }
        for _ in 0..300 {
            world.second();
            world.answers().unwrap();
        }
        let now = (world.map.clone().unwrap().data, world.restarts());
        assert_eq!(now, before, "restart: {restart}");
    }
    let report = &world.last.report;
    assert_eq!(
        (report.state, report.gap_seconds, report.moves_left),
        (RolloutState::Refused, 0, 0)
    );
    assert!(report.message.contains("\"much\""), "{}", report.message);
    world.annotate("overlap", "1d");
    world.settle("mended", World::answers).unwrap();
    assert_eq!(world.map.unwrap().data, before.0);
}

#[test]
fn a_scale_down_is_safe_and_reports_when() {
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
        (world.last.report.state, world.restarts()),
        (RolloutState::Paused, 0)
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
        RolloutState::Waiting,
        "{}",
        world.last.report.message
    );
    assert!(
        world
            .last
            .events
            .iter()
            .any(|(reason, text)| *reason == "WindowNotServed" && text.contains(&first)),
        "{:?}",
        world.last.events
    );
    // Back to the old plan, whose window the pod still serves.
    world.annotate("total-shards", "3");
    world.settle("back", |_| Ok(())).unwrap();
}

#[test]
fn a_pause_within_a_step_is_told_immediately() {
    let mut world = settled(6, 4);
    world.annotate("total-shards", "2");
    while world.last.report.state != RolloutState::Rolling {
        world.second();
    }
    world.annotate("pause", "true");
    world.second();
    let message = &world.last.report.message;
    assert!(message.ends_with(messages::PAUSES_NEXT), "{message}");
    while world.last.report.state == RolloutState::Rolling {
        world.second();
    }
    assert_eq!(world.last.report.state, RolloutState::Paused);
}

#[test]
fn a_pod_is_nudged_until_its_sidecar_sees_its_entry() {
    let mut world = settled(6, 5);
    world.annotate("total-shards", "2");
    world.leader();
    let seconds = |ago| Some(Duration::from_secs(ago));
    for (ago, nudges, again) in [
        (seconds(2), false, 3),
        (seconds(5), true, 5),
        (seconds(600), true, 5),
        (None, true, 5),
    ] {
        world.nudged_ago = ago;
        world.leader();
        assert_eq!(
            (!world.last.nudge.is_empty(), world.last.requeue_after),
            (nudges, seconds(again)),
            "{ago:?}"
        );
    }
}

#[test]
fn a_drift_counts_from_its_observation_and_not_from_when_the_pod_became_ready() {
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
    for (seen_for, drift, expect_event) in [
        (None, 0, false),
        (Some(299), 299, false),
        (Some(300), 300, true),
    ] {
        world.drifts_for = seen_for.map(Duration::from_secs);
        world.leader();
        let (report, has_event) = (
            &world.last.report,
            world
                .last
                .events
                .iter()
                .any(|(reason, _)| *reason == "Drift"),
        );
        assert_eq!(
            (report.drift_seconds(), has_event),
            (drift, expect_event),
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
        (RolloutState::Waiting, writes),
        "{}",
        world.last.report.message
    );
    for pod in world.pods.values_mut() {
        pod.facts.revision = "r2".to_owned();
    }
    world.second();
    assert_eq!(
        world.last.report.state,
        RolloutState::Rolling,
        "{}",
        world.last.report.message
    );
}

#[test]
fn a_silent_sidecar_has_an_event_unless_the_pod_has_just_turned_unready() {
    for (unready_for, told) in [(Some(2), false), (Some(20), true), (None, true)] {
        let mut world = settled(6, 6);
        let at = world.at;
        let pod = world.pods.get_mut("store-3").unwrap();
        pod.answer = PodAnswer::Unreachable("connection refused".to_owned());
        if let Some(seconds) = unready_for {
            (pod.facts.ready, pod.unready_since) = (false, at - seconds);
        }
        world.leader();
        let mut events = world.last.events.iter();
        let is_told = events.any(|(reason, _)| *reason == "SidecarUnreachable");
        assert_eq!(is_told, told, "{unready_for:?}: {:?}", world.last.events);
    }
}

#[test]
fn more_pods_than_fit_into_a_config_map_are_refused() {
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
    assert_eq!(
        (world.last.report.state, world.writes),
        (RolloutState::Refused, 0)
    );
    assert!(
        world.last.report.message.contains("15900 pods take"),
        "{}",
        world.last.report.message
    );
    // Anyone who may scale can ask for this many: nothing grows with the number asked for.
    world.pods.clear();
    world.change(|set| set.replicas = u32::MAX);
    world.leader();
    assert_eq!(
        (
            world.last.report.state,
            world.writes,
            world.last.report.pods.len()
        ),
        (RolloutState::Refused, 0, 0)
    );
    assert!(
        world
            .last
            .report
            .message
            .contains("4294967295 pods do not fit"),
        "{}",
        world.last.report.message
    );
}

#[test]
fn a_statefulset_of_which_no_sidecar_answers_is_not_settled() {
    let mut world = settled(6, 6);
    let writes = world.writes;
    // The leader has polled all pods.
    (world.map, world.written, world.leader_since) = (None, None, world.at - 5);
    for pod in world.pods.values_mut() {
        pod.answer = PodAnswer::Unreachable("no answer".to_owned());
    }
    world.leader();
    assert_eq!(
        (
            world.last.report.state,
            world.writes,
            world.last.step.is_some()
        ),
        (RolloutState::Waiting, writes, false)
    );
    assert!(
        world.last.report.message.contains("no answer"),
        "{}",
        world.last.report.message
    );
    world.settle("they answer again", World::answers).unwrap();
    assert_eq!(world.restarts(), 0);
}

#[test]
fn a_statefulset_with_an_uninjected_store_pod_is_not_settled() {
    let mut world = settled(6, 11);
    let facts = &mut world.pods.get_mut("store-5").unwrap().facts;
    facts.injected = false;
    for (by_hand, opted_out, state) in [
        (false, false, RolloutState::Waiting),
        (true, false, RolloutState::Settled),
        (false, true, RolloutState::Settled),
        (false, false, RolloutState::Waiting),
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
            .starts_with("store-5 is not injected"),
        "{}",
        world.last.report.message
    );
}

#[test]
fn reports_and_writes_follow_the_existing_pods() {
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
