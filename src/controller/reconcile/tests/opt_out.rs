//! What the leader writes for an opted-out StatefulSet.

use std::collections::BTreeMap;

use super::settled::publish;
use super::world::World;
use crate::core::kube::observed::{BudgetFacts, MapFacts};
use crate::core::model::names;
use crate::core::rollout::report::RolloutState;

fn annotate(world: &World, value: Option<&str>) {
    world.context.observed.update(|fleet| {
        let mut facts = fleet.known("ns", "store").facts().clone();
        facts.annotations.remove(names::MANAGED);
        let value = value.map(|value| (names::MANAGED.to_owned(), value.to_owned()));
        facts.annotations.extend(value);
        fleet.with_statefulset(facts)
    });
}

/// Six injected pods with entries, and a PDB.
fn running() -> World {
    let world = World::new(6, true);
    let fleet = world.context.observed.fleet.load_full();
    publish(&world, fleet.known("ns", "store"));
    let budget = BudgetFacts {
        name: "store-shard-0".to_owned(),
        ours: true,
        owner_uid: Some("set".to_owned()),
        resource_version: "3".to_owned(),
        ..BudgetFacts::default()
    };
    world.context.cache.put("ns", budget);
    world
}

#[tokio::test(start_paused = true)]
async fn entries_and_pdbs_go_once_and_without_an_event() {
    let mut world = running();
    annotate(&world, Some("false"));
    for _ in 0..3 {
        let report = world.reconcile().await.unwrap();
        assert_eq!(
            (report.state, report.opted_out, report.pods.len()),
            (RolloutState::Settled, true, 0),
            "{}",
            report.message
        );
        // As the watch shows it a moment later.
        world
            .context
            .cache
            .remove::<BudgetFacts>("ns", "store-shard-0");
    }
    assert!(world.events().is_empty());
    assert_eq!(
        world.sent("DELETE /apis/policy/v1/namespaces/ns/poddisruptionbudgets/store-shard-0"),
        1
    );
    assert_eq!(
        world.sent("PATCH /api/v1/namespaces/ns/configmaps/store-time-shards"),
        1
    );
    assert_eq!(world.sent(""), 2, "nothing else, and no pod is touched");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_finds_it_opted_out_and_clean_writes_nothing() {
    let mut world = World::new(6, true);
    let empty = MapFacts {
        name: "store-time-shards".to_owned(),
        resource_version: "7".to_owned(),
        owner_uid: Some("set".to_owned()),
        data: BTreeMap::new(),
        ..MapFacts::default()
    };
    world.context.observed.put_map_for_test("ns", empty);
    annotate(&world, Some("false"));
    assert!(world.reconcile().await.unwrap().opted_out);
    assert_eq!(world.sent(""), 0);
    annotate(&world, None);
    assert!(!world.reconcile().await.unwrap().opted_out);
}
