//! Costs of the program's own code, without sockets: `cargo bench --bench micro`. Prints the median of
//! many runs in microseconds.
//!
//! `benches/load/compare` measures the complete server next to other webhooks.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints and stops at the first surprise"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use thanos_timeshard::core::agent::status::{AgentStatus, Phase};
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::gateways::{Gateways, Published};
use thanos_timeshard::core::kube::observed::{MapFacts, PodAnswer, PodFacts};
use thanos_timeshard::core::kube::statefulset::StatefulSetFacts;
use thanos_timeshard::core::model::entry::{Entry, key};
use thanos_timeshard::core::model::names;
use thanos_timeshard::core::model::window::Window;
use thanos_timeshard::core::plan::Plan;
use thanos_timeshard::core::rollout::planner::{
    Discovery, Member, MemberState, PlanTerms, Slot, Step, next_step,
};
use thanos_timeshard::core::rollout::queriers::QuerierMemory;
use thanos_timeshard::core::rollout::reconcile::{ReportedPod, View, decide};
use thanos_timeshard::webhook::Reviewer;

/// Returns the median of `runs` runs of `work`, in microseconds.
fn median(runs: usize, mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

/// A review of about `bytes` bytes, mostly environment and managed fields, as in a cluster.
fn review(bytes: usize) -> String {
    let variable = |i| json!({"name": format!("STORE_SETTING_{i:04}"), "value": "{\"path\":\"C:\\\\x\"}".repeat(4)});
    let make = |variables: usize| {
        let env: Vec<Value> = (0..variables).map(variable).collect();
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "namespace": "monitoring", "operation": "CREATE", "dryRun": false, "object": {
                "metadata": {"name": "thanos-store-3", "labels": {"app": "thanos-store"}, "annotations": {"example.com/x": "y"}, "managedFields": env,
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "thanos-store", "uid": "u"}]},
                "spec": {"volumes": [], "securityContext": {"fsGroup": 1001}, "terminationGracePeriodSeconds": 120,
                    "containers": [{"name": "thanos-store", "image": "thanos:v0.42.4", "args": ["store", "--data-dir=/data"], "env": env, "volumeMounts": []}]}}}})
        .to_string()
    };
    let each = make(101).len() - make(100).len();
    make(bytes.saturating_sub(make(0).len()) / each)
}

/// Members of a StatefulSet before the first step between two numbers of shards.
fn members(pods: u32, from: u32, to: u32) -> (Vec<Member>, PlanTerms) {
    let now = chrono::DateTime::UNIX_EPOCH;
    let sharding = |shards: u32| {
        Config::parse(
            &format!("sharding: {{total_shards: {shards}, replicas_per_shard: 2}}"),
            "bench",
        )
        .unwrap()
        .sharding
    };
    let plans = [from, to].map(|shards| Plan::new(&sharding(shards), Some(pods)));
    let place = |plan: &Plan, pod| {
        let at = plan.assign(pod);
        (
            Slot {
                shard: at.shard,
                replica: at.replica,
                window: plan.window(at.shard, now),
            },
            at.surplus,
        )
    };
    let member = |pod| {
        let (desired, surplus) = place(&plans[1], pod);
        Member {
            published: place(&plans[0], pod).0,
            desired,
            surplus,
            state: MemberState::Confirmed,
            canary: false,
        }
    };
    let sharding = sharding(from);
    (
        (0..pods).map(member).collect(),
        PlanTerms::new(&sharding, pods as usize, now),
    )
}

fn rollout() {
    for (pods, from, to, runs) in [
        (6, 3, 2, 2_000),
        (1_000, 400, 500, 20),
        (5_000, 2_000, 2_500, 5),
        (5_000, 2_500, 2_000, 5),
    ] {
        for discovery in [Discovery::Pods, Discovery::ShardServices] {
            let (members, mut terms) = members(pods, from, to);
            terms.discovery = discovery;
            let took = median(runs, || {
                drop(black_box(next_step(black_box(&members), &[], &terms)));
            });
            let Step::Move { changes, .. } = next_step(&members, &[], &terms) else {
                panic!("no step")
            };
            println!(
                "next step of {pods:>4} pods, {from:>4} to {to:>4} shards, {discovery:?}: {took:.0} us, moves {}",
                changes.len()
            );
        }
    }
}

/// A confirmed pod, as the cluster and its sidecar report it.
fn settled_pod(name: &str, shard: u32, replica: u32, window: Window) -> (PodFacts, PodAnswer) {
    let facts = PodFacts {
        name: name.to_owned(),
        statefulset: "store".to_owned(),
        injected: true,
        store: true,
        ready: true,
        shard_label: Some(shard.to_string()),
        ..PodFacts::default()
    };
    let status = AgentStatus {
        pod: name.to_owned(),
        shard: Some(shard),
        replica: Some(replica),
        phase: Phase::Serving,
        published: Some(window),
        applied: Some(window),
        verified: true,
        restarts: 0,
        last_error: None,
        agent_version: "0".to_owned(),
        contract: names::CONTRACT,
        ..AgentStatus::default()
    };
    (facts, PodAnswer::Status(Box::new(status)))
}

/// Pods that have been ready for an hour.
fn reported(pods: &[(PodFacts, PodAnswer)]) -> BTreeMap<String, ReportedPod<'_>> {
    let hour = Duration::from_hours(1);
    pods.iter()
        .map(|(facts, answer)| {
            let pod = ReportedPod {
                facts,
                answer: Some(answer),
                ready_for: Some(hour),
                unready: None,
                labelled_for: hour,
                confirmed_ago: None,
                drifts_for: None,
                nudged_ago: None,
            };
            (facts.name.clone(), pod)
        })
        .collect()
}

/// Reconciles 25 settled pods.
fn reconcile() {
    let config = Arc::new(
        Config::parse(
            "sharding: {total_shards: 5, replicas_per_shard: 5}",
            "bench",
        )
        .unwrap(),
    );
    let now = chrono::DateTime::UNIX_EPOCH;
    let facts = StatefulSetFacts {
        namespace: "ns".to_owned(),
        name: "store".to_owned(),
        uid: "set".to_owned(),
        replicas: 25,
        generation_observed: true,
        partition: Some(0),
        ..StatefulSetFacts::default()
    };
    let fleet = Gateways::new(config.clone())
        .with_statefulset(facts)
        .unwrap();
    let known = fleet.known("ns", "store");
    let mut map = MapFacts {
        owner_uid: Some("set".to_owned()),
        ..MapFacts::default()
    };
    let mut pods: Vec<(PodFacts, PodAnswer)> = Vec::new();
    for i in 0..25 {
        let (name, at) = (format!("store-{i}"), known.plan.assign(i));
        let window = known.plan.window(at.shard, now);
        map.data.insert(
            key(&name),
            Entry {
                drain: Some(config.sharding.drain()),
                generation: Some(1),
                ..Entry::new(at.shard, at.replica, window)
            }
            .to_yaml(),
        );
        pods.push(settled_pod(&name, at.shard, at.replica, window));
    }
    let views = reported(&pods);
    let map = Published::new(map, now);
    let view = View {
        gateway: known,
        config: &config,
        map: Some(&map),
        written: None,
        own: &std::collections::BTreeSet::new(),
        pods: &views,
        missing_for: &BTreeMap::new(),
        queriers: &[],
        querier_memory: &QuerierMemory::default(),
        taken_back: None,
        now,
    };
    let decision = decide(&view);
    assert!(
        decision.upkeep.is_none() && decision.step.is_none() && decision.nudge.is_empty(),
        "{decision:?}"
    );
    let took = median(5_000, || drop(black_box(decide(black_box(&view)))));
    println!("reconcile 25 settled pods: {took:.1} us");
}

/// The guard, from the request's bytes: a scale-down that leaves a gap, and a change of the split.
fn guard() {
    for (pods, from, to) in [(6_u32, 3_u32, 2_u32), (100, 50, 40), (5_000, 2_500, 2_000)] {
        let config = Arc::new(
            Config::parse(&format!("sharding: {{total_shards: {from}}}"), "bench").unwrap(),
        );
        let plan = Plan::new(&config.sharding, Some(pods));
        let entry = |pod| {
            let at = plan.assign(pod);
            Entry::new(
                at.shard,
                at.replica,
                plan.window(at.shard, chrono::DateTime::UNIX_EPOCH),
            )
        };
        let facts = StatefulSetFacts {
            namespace: "ns".to_owned(),
            name: "store".to_owned(),
            replicas: pods,
            ..StatefulSetFacts::default()
        };
        let entries = (0..pods)
            .map(|pod| (format!("store-{pod}"), entry(pod)))
            .collect();
        let fleet = Gateways::new(config)
            .with_statefulset(facts)
            .unwrap()
            .with_configmap("ns", "store-time-shards", entries);
        let reviewer = Reviewer::new(Arc::new(ArcSwap::from_pointee(fleet)), || {
            chrono::DateTime::UNIX_EPOCH
        });
        let set = |annotations: Value| {
            json!({"metadata": {"name": "store", "annotations": annotations}, "spec": {"replicas": pods,
                "template": {"spec": {"containers": [{"name": "t", "image": "thanos", "args": ["store"]}]}}}})
        };
        let scale =
            |replicas: u32| json!({"metadata": {"name": "store"}, "spec": {"replicas": replicas}});
        let review = |sub_resource: &str, old: Value, new: Value| {
            let resource = json!({"group": "apps", "version": "v1", "resource": "statefulsets"});
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", "resource": resource,
                "subResource": sub_resource, "namespace": "ns", "operation": "UPDATE", "oldObject": old, "object": new}})
            .to_string()
        };
        let down = review("scale", scale(pods), scale(pods - 2));
        let split = review(
            "",
            set(json!({})),
            set(json!({"thanos-timeshard.io/total-shards": to.to_string()})),
        );
        for (what, body) in [("a scale-down", down), ("a change of the split", split)] {
            let took = median(20, || {
                drop(black_box(reviewer.guard(black_box(body.as_bytes()))));
            });
            println!("guard, {what} of {pods:>4} pods: {took:.0} us");
        }
    }
}

fn main() {
    let fleet = Arc::new(ArcSwap::from_pointee(Gateways::new(Arc::new(
        Config::default(),
    ))));
    let reviewer = Reviewer::new(fleet, || chrono::DateTime::UNIX_EPOCH);
    // A size as argument runs only that review, for a profiler.
    let only = std::env::args().find_map(|arg| arg.parse::<usize>().ok());
    for bytes in [3_500, 64_000, 250_000]
        .into_iter()
        .filter(|bytes| only.is_none_or(|only| only == *bytes))
    {
        let body = review(bytes);
        let took = median(if only.is_some() { 200_000 } else { 5_000 }, || {
            drop(black_box(reviewer.review(black_box(body.as_bytes()))));
        });
        println!("review of {:>6} bytes: {took:.1} us", body.len());
    }
    if only.is_some() {
        return;
    }
    let config = Config::parse("sharding: {total_shards: 5000}", "bench").unwrap();
    let took = median(200, || {
        let plan = Plan::new(black_box(&config.sharding), Some(10_000));
        for index in 0..10_000 {
            let place = plan.assign(index);
            black_box(plan.window(place.shard, chrono::DateTime::UNIX_EPOCH));
        }
    });
    println!("plan for 10000 pods: {took:.0} us");
    rollout();
    reconcile();
    guard();
}
