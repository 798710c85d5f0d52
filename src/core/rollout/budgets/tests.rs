use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::core::kube::observed::PodFacts;
use crate::core::model::names;
use crate::testing::cases;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A StatefulSet with `replicas` existing pods for each of `shards` shards.
fn world(shards: u32, replicas: u32) -> (ShardedSet, NamespaceFacts) {
    let selector = Selector {
        labels: labels(&[("app", "store")]),
        expressions: Vec::new(),
    };
    let owner = Owner {
        name: "store".to_owned(),
        uid: "u1".to_owned(),
    };
    let published: BTreeMap<String, u32> = (0..shards * replicas)
        .map(|i| (format!("store-{i}"), i / replicas))
        .collect();
    let mut facts = NamespaceFacts::default();
    for (name, shard) in &published {
        facts.pods.insert(name.clone(), pod(name, *shard));
    }
    (
        ShardedSet {
            owner,
            selector,
            published,
            grpc_port: None,
        },
        facts,
    )
}

fn pod(name: &str, shard: u32) -> PodFacts {
    PodFacts {
        name: name.to_owned(),
        statefulset: "store".to_owned(),
        shard_label: Some(shard.to_string()),
        labels: labels(&[("app", "store"), (names::SHARD_LABEL, &shard.to_string())]),
        ..PodFacts::default()
    }
}

fn foreign(name: &str, selector: &[(&str, &str)]) -> BudgetFacts {
    let selector = Some(Selector {
        labels: labels(selector),
        expressions: Vec::new(),
    });
    BudgetFacts {
        name: name.to_owned(),
        resource_version: "7".to_owned(),
        selector,
        max_unavailable: Some(1),
        ..BudgetFacts::default()
    }
}

/// Applies writes like the API server; each must match the existing objects.
fn apply(facts: &mut NamespaceFacts, writes: &[BudgetWrite]) {
    let seen = |budget: &Budget| {
        let (min_available, max_unavailable) = match budget.limit {
            Limit::KeepAvailable(pods) => (Some(pods), None),
            Limit::Closed => (None, Some(0)),
        };
        BudgetFacts {
            owner_name: None,
            name: budget.name.clone(),
            ours: true,
            resource_version: "2".to_owned(),
            owner_uid: Some(budget.owner.uid.clone()),
            selector: Some(budget.selector.clone()),
            max_unavailable,
            min_available,
            observed: false,
        }
    };
    for write in writes {
        match write {
            BudgetWrite::Create(budget) => assert!(
                facts
                    .budgets
                    .insert(budget.name.clone(), seen(budget))
                    .is_none()
            ),
            BudgetWrite::Replace {
                resource_version,
                object: budget,
            } => {
                let before = facts
                    .budgets
                    .insert(budget.name.clone(), seen(budget))
                    .unwrap();
                assert!(before.ours && before.resource_version == *resource_version);
            }
            BudgetWrite::Delete {
                name,
                resource_version,
            } => {
                let before = facts.budgets.remove(name).unwrap();
                assert!(before.ours && before.resource_version == *resource_version);
            }
        }
    }
}

fn observe(facts: &mut NamespaceFacts) {
    facts
        .budgets
        .values_mut()
        .for_each(|budget| budget.observed = budget.ours);
}

fn limits(facts: &NamespaceFacts) -> Vec<(&str, Option<i32>, Option<i32>)> {
    facts
        .budgets
        .values()
        .map(|budget| {
            (
                budget.name.as_str(),
                budget.min_available,
                budget.max_unavailable,
            )
        })
        .collect()
}

#[test]
fn each_shard_has_a_pdb_that_lets_one_pod_go() {
    let (set, mut facts) = world(2, 3);
    let plan = wanted(&set, &BTreeSet::new(), &facts);
    assert!(plan.ready && plan.conflicts.is_empty());
    let BudgetWrite::Create(first) = &plan.writes[0] else {
        panic!("{plan:?}")
    };
    assert_eq!(
        first.selector.labels,
        labels(&[("app", "store"), (names::SHARD_LABEL, "0")])
    );
    apply(&mut facts, &plan.writes);
    assert_eq!(
        limits(&facts),
        [
            ("store-shard-0", Some(2), None),
            ("store-shard-1", Some(2), None)
        ]
    );
    assert_eq!(
        wanted(&set, &BTreeSet::new(), &facts),
        BudgetPlan {
            ready: true,
            ..BudgetPlan::default()
        }
    );
}

#[test]
fn an_absent_pod_does_not_loosen_the_pdb() {
    let (set, mut facts) = world(1, 2);
    let plan = wanted(&set, &BTreeSet::new(), &facts);
    apply(&mut facts, &plan.writes);
    facts.pods.remove("store-1");
    assert_eq!(wanted(&set, &BTreeSet::new(), &facts).writes, []);
}

#[test]
fn a_step_waits_until_its_pdbs_are_closed_and_observed() {
    let (set, mut facts) = world(3, 2);
    let closed = BTreeSet::from([1]);
    assert!(!wanted(&set, &closed, &facts).ready, "it is not there yet");
    let open = wanted(&set, &BTreeSet::new(), &facts);
    apply(&mut facts, &open.writes);
    observe(&mut facts);
    let plan = wanted(&set, &closed, &facts);
    assert!(!plan.ready, "it is open");
    assert_eq!(plan.writes.len(), 1);
    apply(&mut facts, &plan.writes);
    assert!(
        !wanted(&set, &closed, &facts).ready,
        "the controller has not seen it"
    );
    observe(&mut facts);
    assert_eq!(
        wanted(&set, &closed, &facts),
        BudgetPlan {
            ready: true,
            ..BudgetPlan::default()
        }
    );
    assert_eq!(limits(&facts)[1], ("store-shard-1", None, Some(0)));
    let plan = wanted(&set, &BTreeSet::new(), &facts);
    assert!(plan.ready);
    apply(&mut facts, &plan.writes);
    assert_eq!(limits(&facts)[1], ("store-shard-1", Some(1), None));
}

#[test]
fn another_pdb_prevents_ours_only_for_the_pods_that_it_selects() {
    let (set, mut facts) = world(2, 2);
    let plan = wanted(&set, &BTreeSet::new(), &facts);
    apply(&mut facts, &plan.writes);
    observe(&mut facts);
    facts.budgets.insert(
        "theirs".to_owned(),
        foreign("theirs", &[(names::SHARD_LABEL, "1")]),
    );
    facts.budgets.insert(
        "unrelated".to_owned(),
        foreign("unrelated", &[("app", "query")]),
    );
    facts.budgets.insert(
        "nothing".to_owned(),
        BudgetFacts {
            selector: None,
            ..foreign("nothing", &[])
        },
    );
    let plan = wanted(&set, &BTreeSet::from([1]), &facts);
    assert_eq!(
        plan.writes,
        [BudgetWrite::Delete {
            name: "store-shard-1".to_owned(),
            resource_version: "2".to_owned()
        }]
    );
    assert!(
        plan.ready,
        "no budget is possible, and the rollout does not stand still for that"
    );
    assert!(
        matches!(plan.conflicts.as_slice(), [only] if only.contains("theirs") && only.contains("shard 1")),
        "{plan:?}"
    );
    apply(&mut facts, &plan.writes);
    assert_eq!(wanted(&set, &BTreeSet::new(), &facts).writes, []);
    facts.pods.clear();
    assert_eq!(
        wanted(&set, &BTreeSet::new(), &facts).writes,
        [],
        "the conflict outlives its pods"
    );
    facts.budgets.remove("theirs");
    assert_eq!(
        wanted(&set, &BTreeSet::new(), &facts).writes,
        [],
        "no pod can be evicted"
    );
    facts.pods = world(2, 2).1.pods;
    assert_eq!(wanted(&set, &BTreeSet::new(), &facts).writes.len(), 1);
}

#[test]
fn a_pdb_of_others_with_our_name_stays_untouched() {
    let (set, mut facts) = world(1, 2);
    facts.budgets.insert(
        "store-shard-0".to_owned(),
        foreign("store-shard-0", &[("app", "query")]),
    );
    let plan = wanted(&set, &BTreeSet::from([0]), &facts);
    assert!(plan.ready && plan.writes.is_empty());
    assert!(
        plan.conflicts[0].contains("store-shard-0 is not managed by timeshard"),
        "{plan:?}"
    );
}

#[test]
fn pdbs_of_removed_shards_are_deleted_and_orphans_are_adopted() {
    let (set, mut facts) = world(3, 2);
    let plan = wanted(&set, &BTreeSet::new(), &facts);
    apply(&mut facts, &plan.writes);
    // `kubectl delete --cascade=orphan`, then the StatefulSet is created again with fewer shards.
    facts
        .budgets
        .values_mut()
        .for_each(|budget| budget.owner_uid = None);
    facts.budgets.insert(
        "other-shard-0".to_owned(),
        BudgetFacts {
            ours: true,
            ..foreign("other-shard-0", &[("app", "x")])
        },
    );
    let (mut set, pods) = world(2, 2);
    set.owner.uid = "u2".to_owned();
    facts.pods = pods.pods;
    let plan = wanted(&set, &BTreeSet::new(), &facts);
    assert!(
        matches!(plan.writes.as_slice(), [
        BudgetWrite::Delete { name, .. }, BudgetWrite::Replace { .. }, BudgetWrite::Replace { .. }
    ] if name == "store-shard-2"),
        "{plan:?}"
    );
    apply(&mut facts, &plan.writes);
    assert_eq!(wanted(&set, &BTreeSet::new(), &facts).writes, []);
    assert!(facts.budgets.contains_key("other-shard-0"));
}

#[test]
fn edits_by_others_are_reverted() {
    let (set, mut facts) = world(1, 2);
    let plan = wanted(&set, &BTreeSet::new(), &facts);
    apply(&mut facts, &plan.writes);
    let right = facts.clone();
    let edits: [fn(&mut BudgetFacts); 4] = [
        |budget| budget.min_available = Some(0),
        |budget| (budget.min_available, budget.max_unavailable) = (None, Some(1)),
        |budget| budget.selector = None,
        |budget| budget.owner_uid = Some("other".to_owned()),
    ];
    for edit in edits {
        facts.budgets.values_mut().for_each(edit);
        let plan = wanted(&set, &BTreeSet::new(), &facts);
        assert!(
            matches!(plan.writes.as_slice(), [BudgetWrite::Replace { .. }]),
            "{plan:?}"
        );
        apply(&mut facts, &plan.writes);
        assert_eq!(facts.budgets, right.budgets);
    }
}

proptest! {
    #![proptest_config(cases(300))]

    /// Whatever PDBs exist: after one round of writes nothing more is wanted, other PDBs are
    /// untouched, and no pod is selected by a PDB of timeshard and by another.
    #[test]
    fn one_round_of_writes_settles_any_state(
        shards in 1..5_u32,
        replicas in 1..4_u32,
        closed in prop::collection::btree_set(0..5_u32, 0..3),
        gone in prop::collection::vec(0..16_u32, 0..4),
        there in prop::collection::vec((0..7_u32, any::<bool>(), 0..4_u8, 0..3_i32, any::<bool>()), 0..6),
        theirs in prop::collection::vec(0..6_u32, 0..2),
    ) {
        let (set, mut facts) = world(shards, replicas);
        for i in gone {
            facts.pods.remove(&format!("store-{i}"));
        }
        for (shard, ours, owner, number, min) in there {
            let name = format!("store-shard-{shard}");
            let owner_uid = [Some("u1"), None, Some("u0"), Some("u1")][usize::from(owner)].map(str::to_owned);
            let (min_available, max_unavailable) = if min { (Some(number), None) } else { (None, Some(number)) };
            let at = shard.to_string();
            let budget = BudgetFacts { ours, owner_uid, max_unavailable, min_available, ..foreign(&name, &[(names::SHARD_LABEL, &at)]) };
            facts.budgets.insert(name, budget);
        }
        for shard in theirs {
            let name = format!("theirs-{shard}");
            facts.budgets.insert(name.clone(), foreign(&name, &[(names::SHARD_LABEL, &shard.to_string())]));
        }
        let others = |facts: &NamespaceFacts| facts.budgets.values().filter(|budget| !budget.ours).cloned().collect::<Vec<_>>();
        let before = others(&facts);
        let plan = wanted(&set, &closed, &facts);
        apply(&mut facts, &plan.writes);
        observe(&mut facts);
        let again = wanted(&set, &closed, &facts);
        prop_assert_eq!(&again.writes, &Vec::new());
        prop_assert!(again.ready);
        prop_assert_eq!(&again.conflicts, &plan.conflicts);
        prop_assert_eq!(before, others(&facts));
        for pod in facts.pods.values() {
            let selects = |budget: &&BudgetFacts| budget.selector.as_ref().is_some_and(|selector| selector.selects(&pod.labels));
            let own = |budget: &&BudgetFacts| budget.ours && budget.owner_uid.as_deref() == Some("u1");
            let mine = facts.budgets.values().filter(own).filter(selects).count();
            let foreign = facts.budgets.values().filter(|budget| !budget.ours).filter(selects).count();
            prop_assert!(mine <= 1 && (mine == 0 || foreign == 0));
            let shard: u32 = pod.shard_label.as_ref().unwrap().parse().unwrap();
            let blocked = again.conflicts.iter().any(|text| text.contains(&format!("shard {shard} ")));
            prop_assert!(mine == 1 || blocked);
        }
    }
}

#[test]
fn pdbs_without_a_leader_are_opened() {
    let (set, mut facts) = world(3, 2);
    let plan = wanted(&set, &BTreeSet::from([0, 1]), &facts);
    apply(&mut facts, &plan.writes);
    // A shard that was removed while its PDB was closed.
    let (gone, before) = world(4, 2);
    let pods = std::mem::replace(&mut facts.pods, before.pods);
    let plan = wanted(&gone, &BTreeSet::from([0, 1, 3]), &facts);
    apply(&mut facts, &plan.writes);
    facts.pods = pods;
    let opening = opening(&set, &facts);
    let opened = |write: &BudgetWrite| match write {
        BudgetWrite::Replace { object: budget, .. } => (budget.name.clone(), Some(budget.limit)),
        BudgetWrite::Delete { name, .. } => (name.clone(), None),
        BudgetWrite::Create(_) => panic!("nothing new is made"),
    };
    let open = Some(Limit::KeepAvailable(1));
    let want = [
        ("store-shard-3", None),
        ("store-shard-0", open),
        ("store-shard-1", open),
    ];
    assert_eq!(
        opening.iter().map(opened).collect::<Vec<_>>(),
        want.map(|(name, limit)| (name.to_owned(), limit))
    );
    apply(&mut facts, &opening);
    assert_eq!(super::opening(&set, &facts), []);
}

#[test]
fn only_our_pdbs_are_deleted_and_only_where_the_label_is_gone() {
    let named = |name: &str| BudgetFacts {
        ours: true,
        ..foreign(name, &[("app", "store")])
    };
    let ours = |name: &str| BudgetFacts {
        owner_name: Some("store".to_owned()),
        ..named(name)
    };
    let all = [
        // Anyone who may create PDBs can set this label.
        ("not".to_owned(), named("store-shard-1")),
        ("not".to_owned(), ours("store-shard-01")),
        ("not".to_owned(), ours("other-shard-0")),
        ("labelled".to_owned(), ours("store-shard-0")),
        ("not".to_owned(), ours("store-shard-0")),
        ("not".to_owned(), foreign("theirs", &[("app", "store")])),
    ];
    let writes = left_behind(&all, &BTreeSet::from(["labelled".to_owned()]));
    let want = BudgetWrite::Delete {
        name: "store-shard-0".to_owned(),
        resource_version: "7".to_owned(),
    };
    assert_eq!(writes, [("not".to_owned(), want)]);
    assert_eq!(
        left_behind(
            &all,
            &BTreeSet::from(["labelled".to_owned(), "not".to_owned()])
        ),
        []
    );
}
