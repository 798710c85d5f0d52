use proptest::prelude::*;

use super::*;
use crate::core::kube::observed::{PodFacts, Selector};
use crate::testing::cases;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn world(shards: u32) -> (ShardedSet, BTreeSet<u32>, NamespaceFacts) {
    let mut facts = NamespaceFacts::default();
    let published: BTreeMap<String, u32> = (0..shards * 2)
        .map(|i| (format!("store-{i}"), i / 2))
        .collect();
    for (name, shard) in &published {
        let pod = PodFacts {
            name: name.clone(),
            statefulset: "store".to_owned(),
            shard_label: Some(shard.to_string()),
            labels: labels(&[("app", "store"), (names::SHARD_LABEL, &shard.to_string())]),
            ..PodFacts::default()
        };
        facts.pods.insert(name.clone(), pod);
    }
    let selector = Selector {
        labels: labels(&[("app", "store")]),
        expressions: Vec::new(),
    };
    let owner = Owner {
        name: "store".to_owned(),
        uid: "u1".to_owned(),
    };
    (
        ShardedSet {
            owner,
            selector,
            published,
            grpc_port: None,
        },
        (0..shards).collect(),
        facts,
    )
}

fn seen(service: &ShardService) -> ServiceFacts {
    ServiceFacts {
        name: service.name.clone(),
        ours: true,
        resource_version: "2".to_owned(),
        owner_uid: Some(service.owner.uid.clone()),
        selector: service.selector.clone(),
        publishes_not_ready: false,
        headless: true,
        ports: vec![("grpc".to_owned(), i32::from(service.port))],
    }
}

/// Applies writes like the API server; each must match the existing objects.
fn apply(facts: &mut NamespaceFacts, writes: &[ServiceWrite]) {
    for write in writes {
        match write {
            ServiceWrite::Create(service) => assert!(
                facts
                    .services
                    .insert(service.name.clone(), seen(service))
                    .is_none()
            ),
            ServiceWrite::Replace {
                resource_version,
                object: service,
            } => {
                let before = facts
                    .services
                    .insert(service.name.clone(), seen(service))
                    .unwrap();
                assert!(
                    before.ours && before.headless && before.resource_version == *resource_version
                );
            }
            ServiceWrite::Delete {
                name,
                resource_version,
            } => {
                let before = facts.services.remove(name).unwrap();
                assert!(before.ours && before.resource_version == *resource_version);
            }
        }
    }
}

#[test]
fn each_shard_has_a_headless_service_while_enabled() {
    let (set, planned, mut facts) = world(2);
    assert_eq!(
        wanted(&set, false, &planned, &facts),
        ServicePlan::default()
    );
    let plan = wanted(&set, true, &planned, &facts);
    let ServiceWrite::Create(first) = &plan.writes[0] else {
        panic!("{plan:?}")
    };
    assert_eq!(
        (first.name.as_str(), &first.selector),
        (
            "store-shard-0",
            &labels(&[("app", "store"), (names::SHARD_LABEL, "0")])
        )
    );
    apply(&mut facts, &plan.writes);
    assert_eq!(facts.services.len(), 2);
    assert_eq!(wanted(&set, true, &planned, &facts), ServicePlan::default());
    let plan = wanted(&set, false, &planned, &facts);
    apply(&mut facts, &plan.writes);
    assert!(facts.services.is_empty());
}

#[test]
fn a_service_comes_with_the_plan_and_goes_with_its_last_pod() {
    let (mut set, planned, mut facts) = world(2);
    let plan = wanted(&set, true, &planned, &facts);
    apply(&mut facts, &plan.writes);
    let more = wanted(&set, true, &BTreeSet::from([0, 1, 2]), &facts);
    assert!(
        matches!(more.writes.as_slice(), [ServiceWrite::Create(service)] if service.name == "store-shard-2"),
        "{more:?}"
    );
    // Only one shard is planned now, but pods still carry the label of the other.
    let planned = BTreeSet::from([0]);
    set.published.values_mut().for_each(|shard| *shard = 0);
    assert_eq!(wanted(&set, true, &planned, &facts), ServicePlan::default());
    facts
        .pods
        .values_mut()
        .for_each(|pod| pod.shard_label = Some("0".to_owned()));
    let plan = wanted(&set, true, &planned, &facts);
    assert!(
        matches!(plan.writes.as_slice(), [ServiceWrite::Delete { name, .. }] if name == "store-shard-1"),
        "{plan:?}"
    );
}

#[test]
fn edits_by_others_are_reverted() {
    let (set, planned, mut facts) = world(1);
    let plan = wanted(&set, true, &planned, &facts);
    apply(&mut facts, &plan.writes);
    let right = facts.clone();
    let edits: [fn(&mut ServiceFacts); 5] = [
        |service| service.publishes_not_ready = true,
        |service| service.ports.clear(),
        |service| service.selector.clear(),
        |service| service.owner_uid = None,
        |service| service.headless = false,
    ];
    for edit in edits {
        facts.services.values_mut().for_each(edit);
        // The clusterIP cannot be changed, so this takes two rounds.
        for _ in 0..2 {
            let plan = wanted(&set, true, &planned, &facts);
            apply(&mut facts, &plan.writes);
        }
        assert_eq!(facts.services, right.services);
    }
}

#[test]
fn the_service_has_the_port_of_the_pods() {
    let (mut set, planned, mut facts) = world(2);
    let ports = |facts: &NamespaceFacts| {
        facts
            .services
            .values()
            .map(|service| service.ports[0].1)
            .collect::<Vec<_>>()
    };
    for (port, want) in [
        (None, 10901),
        (Some(9090), 9090),
        (Some(9090), 9090),
        (None, 10901),
    ] {
        let changes = set.grpc_port != port || facts.services.is_empty();
        set.grpc_port = port;
        let plan = wanted(&set, true, &planned, &facts);
        // In place: a deleted and recreated Service would be missing for queriers meanwhile.
        assert!(
            plan.writes
                .iter()
                .all(|write| !matches!(write, ServiceWrite::Delete { .. }))
                && plan.writes.is_empty() != changes,
            "{plan:?}"
        );
        apply(&mut facts, &plan.writes);
        assert_eq!(ports(&facts), [want, want]);
    }
}

#[test]
fn a_service_that_is_impossible_is_a_conflict() {
    let (mut set, planned, mut facts) = world(1);
    facts.services.insert(
        "store-shard-0".to_owned(),
        ServiceFacts {
            name: "store-shard-0".to_owned(),
            ..ServiceFacts::default()
        },
    );
    let plan = wanted(&set, true, &planned, &facts);
    assert!(
        plan.writes.is_empty()
            && plan.conflicts[0].contains("Service store-shard-0 is not managed by timeshard"),
        "{plan:?}"
    );
    facts.services.clear();
    set.selector
        .expressions
        .push(("tier".to_owned(), "Exists".to_owned(), Vec::new()));
    let plan = wanted(&set, true, &planned, &facts);
    assert!(
        plan.writes.is_empty() && plan.conflicts[0].contains("matchExpressions"),
        "{plan:?}"
    );
    assert_eq!(
        wanted(&set, false, &planned, &facts),
        ServicePlan::default()
    );
}

#[test]
fn a_service_that_publishes_pods_that_are_not_ready_gets_a_warning() {
    let (set, _, mut facts) = world(1);
    let service = |name: &str, selector: &[(&str, &str)], publishes_not_ready| ServiceFacts {
        name: name.to_owned(),
        selector: labels(selector),
        publishes_not_ready,
        ..ServiceFacts::default()
    };
    for service in [
        service("bad", &[("app", "store")], true),
        service("good", &[("app", "store")], false),
        service("elsewhere", &[("app", "query")], true),
        service("manual", &[], true),
    ] {
        facts.services.insert(service.name.clone(), service);
    }
    let warnings = warnings(&set, &facts);
    assert!(
        matches!(warnings.as_slice(), [only] if only.starts_with("Service bad has publishNotReadyAddresses")),
        "{warnings:?}"
    );
}

#[test]
fn pods_without_a_headless_service_get_a_warning() {
    let (set, _, mut facts) = world(1);
    let service = |name: &str, app: &str, headless| ServiceFacts {
        name: name.to_owned(),
        selector: labels(&[("app", app)]),
        headless,
        ..ServiceFacts::default()
    };
    let warning = |facts: &NamespaceFacts| without_headless(&set, facts);
    facts.services.clear();
    assert!(warning(&facts).unwrap().contains("(no Service does)"));
    for service in [
        service("plain", "store", false),
        service("query", "query", true),
    ] {
        facts.services.insert(service.name.clone(), service);
    }
    assert!(warning(&facts).unwrap().contains("(only plain)"));
    let right = service("store", "store", true);
    facts.services.insert(right.name.clone(), right);
    assert_eq!(warning(&facts), None);
    // Scaled to zero.
    facts.services.clear();
    facts.pods.clear();
    assert_eq!(warning(&facts), None);
}

proptest! {
    #![proptest_config(cases(300))]

    /// Whatever Services exist: at most two rounds of writes, and other Services are untouched.
    #[test]
    fn two_rounds_of_writes_settle_any_state_and_touch_no_service_of_others(
        shards in 0..5_u32,
        enabled in any::<bool>(),
        there in prop::collection::vec((0..7_u32, any::<bool>(), 0..3_u8, any::<bool>(), any::<bool>()), 0..7),
    ) {
        let (set, planned, mut facts) = world(shards);
        for (shard, ours, owner, headless, publishes_not_ready) in there {
            let name = format!("store-shard-{shard}");
            let owner_uid = [Some("u1"), None, Some("u0")][usize::from(owner)].map(str::to_owned);
            let service = ShardService { name: name.clone(), owner: set.owner.clone(), selector: set.selector_of(shard).labels, port: 10901 };
            facts.services.insert(name, ServiceFacts { ours, owner_uid, publishes_not_ready, headless, ..seen(&service) });
        }
        let others = |facts: &NamespaceFacts| facts.services.values().filter(|service| !service.ours).cloned().collect::<Vec<_>>();
        let before = others(&facts);
        for _ in 0..2 {
            let plan = wanted(&set, enabled, &planned, &facts);
            apply(&mut facts, &plan.writes);
        }
        prop_assert_eq!(wanted(&set, enabled, &planned, &facts).writes, Vec::new());
        prop_assert_eq!(before, others(&facts));
        let right = |shard: &u32| facts.services.get(&format!("store-shard-{shard}")).is_some_and(|there| !there.ours || there.headless);
        prop_assert!(!enabled || planned.iter().all(right));
    }
}
