//! What our own code costs, without sockets: `cargo bench --bench micro`. Prints the median of many runs in microseconds.
//!
//! The whole server beside its peers is `benches/load/compare`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints and stops at the first surprise")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::fleet::Fleet;
use thanos_timeshard::core::plan::Plan;
use thanos_timeshard::webhook::Reviewer;

/// Median of `runs` runs of `work`, in microseconds.
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

/// A review of about `bytes` bytes; what makes it large is environment and managed fields, as on a cluster.
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

fn main() {
    let fleet = Arc::new(ArcSwap::from_pointee(Fleet::new(Arc::new(Config::default()))));
    let reviewer = Reviewer::new(fleet, || chrono::DateTime::UNIX_EPOCH);
    // With a size as argument only that review runs, for a profiler.
    let only = std::env::args().find_map(|arg| arg.parse::<usize>().ok());
    for bytes in [3_500, 64_000, 250_000].into_iter().filter(|bytes| only.is_none_or(|only| only == *bytes)) {
        let body = review(bytes);
        let took = median(if only.is_some() { 200_000 } else { 5_000 }, || drop(black_box(reviewer.review(black_box(body.as_bytes())))));
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
}
