//! A settled rollout under a leader that has just started.

use std::collections::BTreeMap;

use super::world::{World, pod};
use crate::adapters::clock;
use crate::core::agent::status::{AgentStatus, Phase};
use crate::core::gateways::Gateway;
use crate::core::kube::observed::{MapFacts, PodFacts, ServiceFacts};
use crate::core::model::entry::{self, Entry};
use crate::core::rollout::report::{RolloutState, SetReport};

fn planned(known: &Gateway, index: u32) -> Entry {
    let at = known.plan.assign(index);
    let window = known.plan.window(at.shard, clock::now());
    Entry {
        drain: Some(known.sharding.drain()),
        ..Entry::new(at.shard, at.replica, window)
    }
}

/// Publishes the planned entries of six ready pods.
pub(super) fn publish(world: &World, known: &Gateway) {
    let entry = |index| {
        let key = entry::key(&format!("store-{index}"));
        (key, planned(known, index).to_yaml())
    };
    let map = MapFacts {
        name: "store-time-shards".to_owned(),
        resource_version: "5".to_owned(),
        owner_uid: Some("set".to_owned()),
        data: (0..6).map(entry).collect::<BTreeMap<_, _>>(),
        ..MapFacts::default()
    };
    world.context.observed.put_map_for_test("ns", map);
    for index in 0..6 {
        let pod = PodFacts {
            ready: true,
            ready_changed_unix_seconds: 1,
            ip: Some("10.0.0.1".to_owned()),
            shard_label: Some((index / 2).to_string()),
            labels: [("app".to_owned(), "store".to_owned())].into(),
            ..pod(index)
        };
        world.context.cache.put("ns", pod);
    }
}

/// A Service through which queriers find the pods.
fn service(world: &World, headless: bool) {
    let service = ServiceFacts {
        name: "store".to_owned(),
        selector: [("app".to_owned(), "store".to_owned())].into(),
        headless,
        ..ServiceFacts::default()
    };
    world.context.cache.put("ns", service);
}

/// Every sidecar answers that its pod serves the planned window.
fn answer(world: &World, known: &Gateway) {
    for index in 0..6 {
        let entry = planned(known, index);
        let status = AgentStatus {
            pod: format!("store-{index}"),
            phase: Phase::Serving,
            shard: Some(entry.shard),
            replica: Some(entry.replica),
            published: Some(entry.window),
            applied: Some(entry.window),
            verified: true,
            contract: 1,
            ..AgentStatus::default()
        };
        let poller = &world.context.poller;
        poller.answered_for_test(&format!("u{index}"), status);
    }
}

fn is_settled(report: &SetReport) -> bool {
    report.state == RolloutState::Settled
}

/// A server that has just started has seen no pod ready for long, which does not matter where
/// nothing moves.
#[tokio::test(start_paused = true)]
async fn a_settled_rollout_is_quiet_under_a_leader_that_has_just_started() {
    let mut world = World::new(0, true);
    assert!(is_settled(&world.reconcile().await.unwrap()));
    let mut world = World::new(6, true);
    let fleet = world.context.observed.fleet.load_full();
    let known = fleet.known("ns", "store");
    publish(&world, known);
    service(&world, true);
    let report = world.reconcile().await.unwrap();
    assert_eq!(report.not_asked, 6, "{}", report.message);
    assert!(world.events().is_empty());
    answer(&world, known);
    let report = world.reconcile().await.unwrap();
    assert_eq!(
        (
            report.state,
            report.gap_seconds,
            report.minimum_ready_replicas
        ),
        (RolloutState::Rolling, 0, 2),
        "{}",
        report.message
    );
    assert_eq!(
        (report.minimum_confirmed_replicas, report.moves_left),
        (0, 0),
        "not every querier may know the pods yet"
    );
    tokio::time::sleep(known.sharding.discovery_delay().to_std()).await;
    let report = world.reconcile().await.unwrap();
    assert!(is_settled(&report), "{}", report.message);
    assert_eq!(report.minimum_confirmed_replicas, 2);
    assert!(world.events().is_empty());
    assert_eq!(world.sent("configmaps"), 0);
}

#[tokio::test(start_paused = true)]
async fn pods_that_no_headless_service_selects_get_one_event() {
    let mut world = World::new(6, true);
    let fleet = world.context.observed.fleet.load_full();
    let known = fleet.known("ns", "store");
    publish(&world, known);
    service(&world, false);
    answer(&world, known);
    for _ in 0..3 {
        world.reconcile().await.unwrap();
    }
    let events = world.events();
    assert!(
        matches!(events.as_slice(), [("NoHeadlessService", text)] if text.contains("(only store)")),
        "{events:?}"
    );
    service(&world, true);
    let report = world.reconcile().await.unwrap();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
}
