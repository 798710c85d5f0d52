//! Labelled namespaces without a Role.

use super::*;
use crate::adapters::kube::rights::REFUSED_FOR;

fn labelled(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {names::NAMESPACE_LABEL: names::INJECTION_ENABLED}}})
}

#[tokio::test(start_paused = true)]
async fn a_namespace_out_of_scope_is_reported_and_not_watched() {
    let world = World::within(ApiServer::default(), Scope::parse("ns").unwrap());
    world.api.put(NAMESPACES, labelled("other"));
    let world = world.watch().await;
    world
        .until(|world| world.cache.is_listed("ns") && world.cache.observed.rights.lacks("other"))
        .await;
    let observed = &world.cache.observed;
    assert_eq!(
        (observed.namespaces(), observed.rights.lacks("ns")),
        (vec!["ns".to_owned()], false)
    );
    sleep(Duration::from_mins(20)).await;
    assert_eq!(world.api.requests("/namespaces/other"), 0);
    assert_eq!(
        observed.rights.all()["other"],
        "it is not one of --namespaces (rbac.namespaces of the chart)"
    );
    world.api.delete(NAMESPACES, "other");
    world
        .until(|world| !world.cache.observed.rights.lacks("other"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_whose_lists_are_refused_delays_nothing() {
    for refused in [SETS, MAPS] {
        let api = ApiServer::default();
        api.refuse(refused, true);
        let world = World::within(api, Scope::Cluster);
        let start = tokio::time::Instant::now();
        world.until(|world| world.cache.observed.is_synced()).await;
        assert!(
            start.elapsed() >= REFUSED_FOR,
            "an API server that has just started may refuse for a moment"
        );
        assert!(world.cache.observed.rights.lacks("ns"));
        let before = world.api.requests(refused);
        sleep(Duration::from_mins(10)).await;
        let asked = world.api.requests(refused) - before;
        assert!(
            (1..=60).contains(&asked),
            "retried with back-off: {asked} times in 10 minutes"
        );
        // The Role is created.
        world.api.refuse(refused, false);
        world
            .until(|world| !world.cache.observed.rights.lacks("ns"))
            .await;
        world
            .until(|world| world.cache.observed.fleet.load().statefulsets().count() == 2)
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_refusal_is_ignored() {
    let api = ApiServer::default();
    api.refuse(SETS, true);
    let world = World::within(api, Scope::Cluster);
    world.until(|world| world.api.requests(SETS) >= 2).await;
    assert!(!world.cache.observed.is_synced());
    world.api.refuse(SETS, false);
    world.until(|world| world.cache.observed.is_synced()).await;
    sleep(REFUSED_FOR * 2).await;
    assert!(!world.cache.observed.rights.lacks("ns"));
}
