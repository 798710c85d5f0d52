//! What a review costs does not depend on what is skipped: counted in allocations, not in time.

use std::alloc::System;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::fleet::Fleet;
use thanos_timeshard::webhook::{Reviewer, Verdict};

use crate::server::review_of;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

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

#[test]
fn allocations_do_not_grow_with_what_is_skipped() {
    let fleet = Arc::new(ArcSwap::from_pointee(Fleet::new(Arc::new(
        Config::default(),
    ))));
    let reviewer = Reviewer::new(fleet, || chrono::DateTime::UNIX_EPOCH);
    // The fewest of some runs: other tests of this binary allocate at the same time.
    let measure = |variables: usize| {
        let body = review_of(&pod(variables)).to_string();
        let run = || {
            let region = Region::new(ALLOCATOR);
            let answer = reviewer.review(body.as_bytes());
            let change = region.change();
            assert_eq!(answer.verdict, Verdict::Injected);
            (
                change.allocations + change.reallocations,
                change.bytes_allocated,
            )
        };
        let best = (0..500).map(|_| run()).min().unwrap();
        (body.len(), best.0, best.1)
    };
    let (small_size, small, small_bytes) = measure(1);
    let (large_size, large, large_bytes) = measure(1_500);
    println!(
        "{small_size} B: {small} allocations of {small_bytes} B; {large_size} B: {large} allocations of {large_bytes} B"
    );
    assert!(large_size > 250_000 && large <= small + 4 && large_bytes <= small_bytes + 4_096);
}
