//! The cost of a review, counted in allocations, not in time. Nothing else may allocate meanwhile.

use std::alloc::System;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::gateways::Gateways;
use thanos_timeshard::webhook::{ReviewVerdict, Reviewer};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations and reallocations of one injection.
const MAX_ALLOCATIONS: usize = 55;

/// A pod whose size is in what admission skips: environment, annotations, managed fields.
fn pod(variables: usize) -> Value {
    let env: Vec<Value> = (0..variables)
        .map(|i| json!({"name": format!("V{i}"), "value": "x\"y\n".repeat(16)}))
        .collect();
    let text = "{\"escaped\": \"\\n\"}".repeat(variables);
    json!({"metadata": {"name": "store-0", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": text}, "managedFields": env},
        "spec": {"containers": [{"name": "t", "image": "thanos", "args": ["store"], "env": env}]}})
}

fn review_of(pod: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "uid-1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "name": "store-0", "namespace": "monitoring",
        "operation": "CREATE", "object": pod, "dryRun": false}})
}

pub(crate) fn do_not_grow_with_skipped_fields() {
    let gateways = Arc::new(ArcSwap::from_pointee(Gateways::new(Arc::new(
        Config::default(),
    ))));
    let reviewer = Reviewer::new(gateways, || chrono::DateTime::UNIX_EPOCH);
    let measure = |variables: usize| {
        let body = review_of(&pod(variables)).to_string();
        let run = || {
            let region = Region::new(ALLOCATOR);
            let answer = reviewer.review(body.as_bytes());
            let change = region.change();
            assert_eq!(answer.verdict, ReviewVerdict::Injected);
            (
                change.allocations + change.reallocations,
                change.bytes_allocated,
            )
        };
        // The first review of a gateway also renders its sidecar.
        run();
        // The harness' own thread may allocate meanwhile.
        let (allocations, bytes) = (0..5).map(|_| run()).min().unwrap();
        (body.len(), allocations, bytes)
    };
    let (small_size, small, small_bytes) = measure(1);
    let (large_size, large, large_bytes) = measure(1_500);
    println!(
        "{small_size} B: {small} allocations of {small_bytes} B; {large_size} B: {large} allocations of {large_bytes} B"
    );
    assert!(large_size > 250_000 && large <= small + 4 && large_bytes <= small_bytes + 4_096);
    assert!(small <= MAX_ALLOCATIONS, "{small} allocations");
}
