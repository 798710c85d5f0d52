mod opt_out;
mod settled;
mod world;

use serde_json::json;

use self::world::{World, add_loud_namespace};
use super::*;
use crate::controller::turn;
use crate::core::kube::observed::MapFacts;
use crate::core::rollout::report::RolloutState;

#[tokio::test(start_paused = true)]
async fn a_refused_configmap_is_reported() {
    let mut world = World::starting(6);
    // The API server's message, whichever policy, quota or missing right it comes from.
    world.api.refused.lock().unwrap().push("/configmaps");
    let message = "ConfigMap cannot be written, so no window changes: admission webhook \"policy.example.org\" denied the request";
    for attempt in 0..=NOTIFY_AFTER + 1 {
        let report = world.reconcile().await.unwrap();
        assert_eq!(
            report.state,
            RolloutState::Waiting,
            "attempt {attempt}: {}",
            report.message
        );
        assert!(
            report.message.starts_with(message),
            "attempt {attempt}: {}",
            report.message
        );
        let sent = world
            .events()
            .into_iter()
            .filter(|(reason, _)| *reason == "WriteRefused")
            .collect::<Vec<_>>();
        // An API server that is unavailable for a moment causes no Event, and no Event is repeated.
        assert_eq!(
            sent.len(),
            usize::from(attempt == NOTIFY_AFTER),
            "attempt {attempt}: {sent:?}"
        );
        assert!(sent.iter().all(|(_, text)| text.starts_with(message)));
    }
    world.api.refused.lock().unwrap().clear();
    let report = world.reconcile().await.unwrap();
    assert!(
        !report.message.contains("cannot be written"),
        "{}",
        report.message
    );
    assert!(world.sent("POST /api/v1/namespaces/ns/configmaps") > NOTIFY_AFTER as usize);
}

#[tokio::test(start_paused = true)]
async fn a_configmap_that_cannot_be_replaced_is_reported() {
    let mut world = World::starting(2);
    let map = MapFacts {
        name: "store-time-shards".to_owned(),
        resource_version: "5".to_owned(),
        ..MapFacts::default()
    };
    world.context.observed.put_map_for_test("ns", map);
    world.api.refused.lock().unwrap().push("/configmaps");
    for _ in 0..=NOTIFY_AFTER {
        world.reconcile().await;
    }
    assert!(
        world
            .events()
            .iter()
            .any(|(reason, text)| *reason == "WriteRefused"
                && text.contains("no ConfigMaps on Fridays (HTTP 403)"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_changed_annotation_is_reported_with_its_old_and_new_value() {
    let mut world = World::new(6, true);
    let report = world.reconcile().await.unwrap();
    assert_eq!(
        report.setting_changes,
        [],
        "a leader starts without history"
    );
    world.context.observed.update(|fleet| {
        let mut facts = fleet.statefulsets().next()?.facts().clone();
        let shards = ("thanos-timeshard.io/total-shards", "2");
        let overlap = ("thanos-timeshard.io/overlap", "24h");
        let annotations = [shards, overlap].map(|(key, value)| (key.to_owned(), value.to_owned()));
        facts.annotations = annotations.into();
        fleet.with_statefulset(facts)
    });
    for _ in 0..2 {
        let report = world.reconcile().await.unwrap();
        let changes = report.setting_changes.iter();
        let shown: Vec<[&str; 3]> = changes
            .map(|change| [&change.key, &change.old, &change.new].map(String::as_str))
            .collect();
        // The overlap is the default, written out.
        assert_eq!(shown, [["total_shards", "3", "2"]]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_without_pods_has_a_report_and_no_objects() {
    let mut world = World::new(0, true);
    let report = world.reconcile().await.unwrap();
    assert_eq!(
        (report.state, report.message.as_str()),
        (RolloutState::Settled, "no pods: nothing is served")
    );
    assert_eq!(
        (report.gap_seconds, report.gaps.len(), report.replicas),
        (0, 0, 0),
        "it raises no alert"
    );
    assert!(world.events().is_empty());
    let mut world = World::new(6, true);
    let report = world.reconcile().await.unwrap();
    assert_eq!(report.state, RolloutState::Waiting, "{}", report.message);
    assert_eq!(report.pods.len(), 6);
    assert!(world.events().is_empty());
    assert_eq!(world.sent(""), 0, "neither reads nor writes");
    // Any other StatefulSet.
    assert_eq!(World::new(0, false).reconcile().await, None);
}

/// The watch shows no write of the loud namespace, so it needs hundreds of writes for ever.
#[tokio::test(start_paused = true)]
async fn hundreds_of_writes_delay_another_namespace_by_one_turn() {
    let world = World::starting(6);
    for namespace in ["ns", "loud"] {
        world.context.observed.label_for_test(namespace);
    }
    add_loud_namespace(&world, 300);
    let sent = world.lead(Duration::from_mins(1)).await;
    let of = |namespace: &str, line: &String| line.contains(&format!("/namespaces/{namespace}/"));
    let map = sent
        .iter()
        .position(|line| line.starts_with("POST") && line.ends_with("/namespaces/ns/configmaps"))
        .unwrap();
    let before = sent[..map].iter().filter(|line| of("loud", line)).count();
    assert!(before <= turn::MAX_WRITES as usize, "{before}");
    assert!(
        sent.iter().filter(|line| of("loud", line)).count() > 200,
        "its other writes follow"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sweep_takes_turns_and_deletes_only_managed_pdbs() {
    let world = World::starting(6);
    world.context.observed.label_for_test("ns");
    let budget = |name: &str, owner: &str| {
        json!({"metadata": {"name": name, "namespace": "bare", "resourceVersion": "5", "labels": {names::MANAGED_BY_LABEL: names::MANAGED_BY},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": owner, "name": "gone", "uid": "u"}]}})
    };
    let theirs = (0..600).map(|n| {
        if n % 2 == 0 {
            budget(&format!("theirs-{n}"), "StatefulSet")
        } else {
            budget(&format!("gone-shard-{n}"), "Deployment")
        }
    });
    *world.api.budgets.lock().unwrap() = theirs
        .chain((0..20).map(|n| budget(&format!("gone-shard-{n}"), "StatefulSet")))
        .collect();
    let sent = world.lead(Duration::from_secs(30)).await;
    let deleted: Vec<&String> = sent
        .iter()
        .filter(|line| line.starts_with("DELETE"))
        .collect();
    assert!(
        deleted.len() == 20
            && deleted
                .iter()
                .all(|line| line.contains("/namespaces/bare/poddisruptionbudgets/gone-shard-")),
        "{deleted:?}"
    );
    let map = sent
        .iter()
        .position(|line| line.starts_with("POST") && line.ends_with("/namespaces/ns/configmaps"))
        .unwrap();
    assert!(
        sent[..map]
            .iter()
            .filter(|line| line.starts_with("DELETE"))
            .count()
            <= 4,
        "{sent:?}"
    );
    assert_eq!(
        sent.iter()
            .filter(|line| *line == "GET /apis/policy/v1/poddisruptionbudgets")
            .count(),
        1
    );
}
