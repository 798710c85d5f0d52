//! Which ConfigMaps are read, and how often.

use std::collections::BTreeMap;

use super::*;

#[tokio::test(start_paused = true)]
async fn only_managed_configmaps_are_read_and_only_in_labelled_namespaces() {
    let world = World::led().await;
    let state = world.api.0.lock().unwrap();
    let of_maps = state
        .requests
        .iter()
        .filter(|request| request.starts_with(MAPS));
    assert!(of_maps.clone().all(|request| {
        request.contains("labelSelector=app.kubernetes.io%2Fmanaged-by%3Dthanos-timeshard")
    }));
    assert_eq!(of_maps.count(), 2, "one list and one watch in all");
    for request in &state.requests {
        assert!(
            request.contains("/namespaces/ns/") || request.starts_with("/api/v1/namespaces?"),
            "{request}"
        );
    }
}

/// An edit is read immediately, several together are read once, and this process' own writes are
/// not read.
#[tokio::test(start_paused = true)]
async fn a_change_of_a_configmap_is_read_once_and_an_own_write_not_at_all() {
    let world = World::led().await;
    let entry = |days: u32| format!("shard: 0\nreplica: 0\nmin_time: -{days}d\nmax_time: 1d\n");
    let put = |days: u32| {
        let mut map = managed("a-time-shards");
        map["data"] = json!({"a-0.yaml": entry(days)});
        world.api.put(MAPS, map);
    };
    let published = |world: &World| {
        world
            .cache
            .observed
            .fleet
            .load()
            .published("ns", "a", "a-0")
            .map(|entry| entry.window.min.to_string())
    };
    (1..=5).for_each(put);
    world
        .until(|world| published(world).as_deref() == Some("-5d"))
        .await;
    assert_eq!(world.api.requests("configmaps/"), 1);
    world.changes().await;
    let data = BTreeMap::from([("a-0.yaml".to_owned(), entry(6))]);
    let version = (world.api.0.lock().unwrap().version + 1).to_string();
    world
        .cache
        .observed
        .wrote("ns", "a-time-shards", &version, &data);
    put(6);
    assert_eq!(world.changes().await, ["ns/a"]);
    assert_eq!(
        (
            published(&world).as_deref(),
            world.api.requests("configmaps/")
        ),
        (Some("-6d"), 1)
    );
    // Another client wrote after it.
    world
        .cache
        .observed
        .wrote("ns", "a-time-shards", &version, &data);
    put(7);
    world
        .until(|world| published(world).as_deref() == Some("-7d"))
        .await;
    assert_eq!(world.api.requests("configmaps/"), 2);
    // A list of known versions reads nothing.
    world.api.cut(MAPS, true);
    world.changes().await;
    assert_eq!(world.api.requests("configmaps/"), 2);
    world.api.delete(MAPS, "a-time-shards");
    world.until(|world| published(world).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_configmap_is_read_when_its_statefulset_is_known() {
    let world = World::led().await;
    let mut map = managed("c-time-shards");
    map["data"] = json!({"c-0.yaml": "shard: 0\nreplica: 0\nmin_time: -1d\nmax_time: 1d\n"});
    world.api.put(MAPS, map);
    world.changes().await;
    assert_eq!(world.api.requests("configmaps/"), 0);
    world.api.put(SETS, statefulset("c", "1"));
    world
        .until(|world| {
            world
                .cache
                .observed
                .fleet
                .load()
                .published("ns", "c", "c-0")
                .is_some()
        })
        .await;
    assert_eq!(world.api.requests("configmaps/"), 1);
}
