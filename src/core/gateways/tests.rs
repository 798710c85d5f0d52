use super::*;
use crate::core::config::Sharding;
use crate::core::kube::max_unavailable::MaxUnavailable;
use crate::core::plan::Plan;

fn facts(replicas: u32, annotations: &[(&str, &str)]) -> StatefulSetFacts {
    let annotations = annotations
        .iter()
        .map(|(key, value)| (format!("thanos-timeshard.io/{key}"), (*value).to_owned()))
        .collect();
    StatefulSetFacts {
        namespace: "ns".to_owned(),
        name: "store".to_owned(),
        replicas,
        annotations,
        ..StatefulSetFacts::default()
    }
}

fn fleet() -> Gateways {
    Gateways::new(Arc::new(Config::default()))
}

#[test]
fn an_unknown_statefulset_has_the_defaults() {
    let known = fleet();
    let known = known.known("ns", "store");
    assert_eq!((known.plan.shards().len(), known.ordinals_start), (3, 0));
}

#[test]
fn a_bad_annotation_keeps_the_last_good_sharding() {
    let good = fleet()
        .with_statefulset(facts(8, &[("total-shards", "4")]))
        .unwrap();
    let bad = good
        .with_statefulset(facts(8, &[("total-shards", "many")]))
        .unwrap();
    let known = bad.known("ns", "store");
    assert_eq!(known.sharding.total_shards(), Some(4));
    assert!(
        known.problem.as_ref().unwrap().contains("\"many\""),
        "{:?}",
        known.problem
    );
    let healed = bad
        .with_statefulset(facts(8, &[("total-shards", "2")]))
        .unwrap();
    assert_eq!(
        (
            healed.known("ns", "store").sharding.total_shards(),
            &healed.known("ns", "store").problem
        ),
        (Some(2), &None)
    );
}

#[test]
fn after_a_restart_with_a_bad_annotation_the_split_is_unknown() {
    let fleet = fleet()
        .with_statefulset(facts(8, &[("total-shards", "many")]))
        .unwrap();
    let again = fleet
        .with_config(Arc::new(Config::default()))
        .with_statefulset(facts(9, &[("total-shards", "many")]))
        .unwrap();
    assert!(fleet.known("ns", "store").split_unknown && again.known("ns", "store").split_unknown);
    let good = again
        .with_statefulset(facts(9, &[("total-shards", "4")]))
        .unwrap();
    let bad = good
        .with_statefulset(facts(9, &[("total-shards", "many")]))
        .unwrap();
    assert!(!good.known("ns", "store").split_unknown && !bad.known("ns", "store").split_unknown);
}

#[test]
fn a_misspelled_annotation_is_reported() {
    let fleet = fleet()
        .with_statefulset(facts(6, &[("total-shard", "4"), ("pause", "true")]))
        .unwrap();
    let remarks = fleet.known("ns", "store").remarks();
    assert!(
        matches!(&remarks[..], [("UnknownAnnotation", message)] if message.ends_with("did you mean thanos-timeshard.io/total-shards?")),
        "{remarks:?}"
    );
}

#[test]
fn a_rolling_update_that_replaces_all_of_a_shard_is_reported() {
    let fleet = fleet().with_statefulset(facts(6, &[])).unwrap();
    assert_eq!(fleet.known("ns", "store").remarks(), []);
    let two = StatefulSetFacts {
        max_unavailable: Some(MaxUnavailable::Pods(2)),
        ..facts(6, &[])
    };
    let remarks = fleet
        .with_statefulset(two)
        .unwrap()
        .known("ns", "store")
        .remarks();
    assert!(
        matches!(&remarks[..], [("MaxUnavailable", message)] if message.contains("(store-0, store-1)")),
        "{remarks:?}"
    );
}

#[test]
fn the_same_facts_change_nothing() {
    let fleet = fleet().with_statefulset(facts(6, &[])).unwrap();
    assert!(fleet.with_statefulset(facts(6, &[])).is_none());
}

#[test]
fn a_changed_status_is_kept_without_a_new_plan() {
    let before = fleet()
        .with_statefulset(facts(6, &[("total-shards", "many")]))
        .unwrap();
    let status = StatefulSetFacts {
        update_revision: "store-2".to_owned(),
        ..facts(6, &[("total-shards", "many")])
    };
    let after = before.with_statefulset(status.clone()).unwrap();
    let known = after.known("ns", "store");
    assert_eq!(
        (known.facts(), &known.plan),
        (&status, &before.known("ns", "store").plan)
    );
    assert_eq!(known.problem, before.known("ns", "store").problem);
    assert_eq!(
        after.changed_since(&before),
        [("ns".to_owned(), "store".to_owned())]
    );
    assert_eq!(after.changed_since(&after.clone()), []);
    assert_eq!(
        after.without_namespace("ns").changed_since(&after),
        [("ns".to_owned(), "store".to_owned())]
    );
}

#[test]
fn the_target_is_planned_for_and_further_pods_are_surplus() {
    let fleet = fleet()
        .with_statefulset(facts(6, &[("target-replicas", "3")]))
        .unwrap();
    let plan = &fleet.known("ns", "store").plan;
    assert_eq!(
        (0..6).map(|i| plan.assign(i).shard).collect::<Vec<_>>(),
        [0, 1, 2, 0, 0, 0]
    );
    let beyond = fleet
        .with_statefulset(facts(6, &[("target-replicas", "60")]))
        .unwrap();
    assert_eq!(
        beyond.known("ns", "store").plan,
        Plan::new(&Sharding::default(), Some(6))
    );
    let bad = fleet
        .with_statefulset(facts(6, &[("target-replicas", "-1")]))
        .unwrap();
    assert!(bad.known("ns", "store").problem.is_some());
}

#[test]
fn the_first_pods_of_a_set_scaled_from_zero_have_windows_with_data() {
    let fleet = fleet()
        .with_statefulset(facts(0, &[("total-shards", "4")]))
        .unwrap();
    let plan = &fleet.known("ns", "store").plan;
    assert_eq!((plan.shards().len(), plan.assign(6).shard), (4, 3));
}

#[test]
fn an_unlabelled_namespace_is_removed() {
    let entry = Entry::parse(
        "shard: 1\nmin_time: -2d\nmax_time: -1d\n",
        chrono::DateTime::UNIX_EPOCH,
    )
    .unwrap();
    let entries = HashMap::from([("store-0".to_owned(), entry)]);
    let fleet = fleet()
        .with_statefulset(facts(9, &[]))
        .unwrap()
        .with_configmap("ns", "store-time-shards", entries);
    assert!(fleet.published("ns", "store", "store-0").is_some());
    assert!(fleet.published("ns", "store", "store-1").is_none());
    let without = fleet.without_namespace("ns");
    assert!(without.published("ns", "store", "store-0").is_none());
    assert_eq!(without.statefulsets().count(), 0);
}

#[test]
fn another_configuration_replans() {
    let fleet = fleet().with_statefulset(facts(8, &[])).unwrap();
    let config = Config::parse("sharding: {total_shards: 4}", "c").unwrap();
    assert_eq!(
        fleet
            .with_config(Arc::new(config))
            .known("ns", "store")
            .plan
            .shards()
            .len(),
        4
    );
}
