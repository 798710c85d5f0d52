//! Rollouts between random configurations, checked independently.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use proptest::test_runner::{RngAlgorithm, TestRng};
use rand::RngExt as _;
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::model::window::Window;
use thanos_timeshard::core::plan::Plan;
use thanos_timeshard::core::rollout::planner::{
    Member, MemberState, PlanTerms, Slot, Step, mark_longer, preview,
};

use super::checker::{Kept, check};
use super::*;

const PAIRS: u16 = 120;

/// A configuration with at least two replicas of each shard.
struct Random {
    text: String,
    /// `None` for ever.
    retention_days: Option<i64>,
    buffer_seconds: i64,
    pods: u32,
    services: bool,
}

fn random_config(rng: &mut TestRng) -> Random {
    let days = rng.random_range(60..800);
    let (overlap, buffer): (u32, i64) = (rng.random_range(30..4_000), rng.random_range(-20..72));
    let mut cuts: BTreeSet<u32> = BTreeSet::new();
    if rng.random_bool(0.4) {
        cuts.extend((0..rng.random_range(1..6)).map(|_| rng.random_range(2..days)));
    }
    let shards = if cuts.is_empty() {
        rng.random_range(1..9_u32)
    } else {
        u32::try_from(cuts.len()).unwrap() + 1
    };
    let replicas: Vec<u32> = if rng.random_bool(0.3) {
        (0..shards).map(|_| rng.random_range(2..5)).collect()
    } else {
        vec![rng.random_range(2..5); shards as usize]
    };
    let retention_days = (cuts.is_empty() || rng.random_bool(0.5)).then_some(i64::from(days));
    let retention = retention_days.map_or_else(|| "forever".to_owned(), |days| format!("{days}d"));
    let cuts: Vec<String> = cuts.into_iter().map(|day| format!("{day}d")).collect();
    let division = if cuts.is_empty() {
        format!("total_shards: {shards}")
    } else {
        format!("boundaries: [{}]", cuts.join(", "))
    };
    let services = rng.random_bool(0.3);
    let text = format!(
        "sharding: {{{division}, replicas: {replicas:?}, retention: {retention}, overlap: {overlap}m, future_buffer_hours: {buffer}, shard_services: {services}}}"
    );
    Random {
        text,
        retention_days,
        buffer_seconds: buffer * 3_600,
        pods: replicas.iter().sum(),
        services,
    }
}

fn check_seed(seed: u16) -> Result<(), String> {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.to_le_bytes().repeat(16));
    let (old, new) = (random_config(&mut rng), random_config(&mut rng));
    let pods = old.pods.max(new.pods) + rng.random_range(0..3);
    let kept = if new.services {
        Kept::HeldBeforeTheRollout
    } else {
        Kept::HeldBeforeTheStep
    };
    check_pair(
        (&old.text, old.retention_days),
        (&new.text, new.retention_days),
        pods,
        new.buffer_seconds,
        kept,
    )
    .map_err(|why| format!("seed {seed}, {why}"))
}

fn at() -> DateTime<Utc> {
    AT.strip_prefix("--at=").unwrap().parse().unwrap()
}

/// The document of `plan -o json`, as far as the checker reads it.
fn plan_document(text: &str, pods: u32, retention_days: Option<i64>) -> Value {
    let config = Config::parse(text, "test").unwrap();
    let plan = Plan::new(&config.sharding, Some(pods));
    let row = |index| row(index, plan.window(plan.assign(index).shard, at()));
    json!({"pods": (0..pods).map(row).collect::<Vec<_>>(), "retention_seconds": retention_days.map(|days| days * 86_400)})
}

fn row(index: u32, window: Window) -> Value {
    json!({"pod": format!("thanos-store-gateway-{index}"), "min_time": window.min, "max_time": window.max})
}

/// The steps of `plan --from OLD --to NEW -o json`, as far as the checker reads them.
fn rollout_document(old: &str, new: &str, pods: u32) -> Value {
    let [old, new] = [old, new].map(|text| Config::parse(text, "test").unwrap().sharding);
    let slots = [&old, &new].map(|sharding| {
        let plan = Plan::new(sharding, Some(pods));
        move |index: u32| {
            let assigned = plan.assign(index);
            let slot = Slot {
                shard: assigned.shard,
                replica: assigned.replica,
                window: plan.window(assigned.shard, at()),
            };
            (slot, assigned.surplus)
        }
    });
    let member = |index: u32| Member {
        published: slots[0](index).0,
        desired: slots[1](index).0,
        surplus: slots[1](index).1,
        state: MemberState::Confirmed,
        canary: false,
    };
    let mut members: Vec<Member> = (0..pods).map(member).collect();
    let terms = PlanTerms::new(&new, members.len(), at());
    mark_longer(&mut members, &terms);
    let mut windows: Vec<Window> = members.iter().map(|one| one.published.window).collect();
    let mut steps = Vec::new();
    for step in preview(members, &terms).0 {
        let Step::Move { changes, .. } = step else {
            continue;
        };
        let restarts: Vec<Value> = changes
            .iter()
            .filter(|change| {
                let before = std::mem::replace(&mut windows[change.member], change.to.window);
                before != change.to.window
            })
            .map(|change| row(u32::try_from(change.member).unwrap(), change.to.window))
            .collect();
        if !restarts.is_empty() {
            steps.push(json!({"pods": restarts}));
        }
    }
    json!({"steps": steps})
}

fn check_pair(
    old: (&str, Option<i64>),
    new: (&str, Option<i64>),
    pods: u32,
    buffer: i64,
    kept: Kept,
) -> Result<(), String> {
    let document = |(text, days)| plan_document(text, pods, days);
    let ((old_text, _), (new_text, _)) = (old, new);
    let rollout = rollout_document(old_text, new_text, pods);
    check(&document(old), &document(new), &rollout, buffer, kept)
        .map_err(|why| format!("{pods} pods: {why}\n{old_text}\n{new_text}\n{rollout}"))
}

/// The program prints the documents that these tests check.
#[test]
fn plans_and_steps_are_those_that_are_printed() {
    for seed in 0..3 {
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let (old, new) = (random_config(&mut rng), random_config(&mut rng));
        let pair = Pair::new(&old.text, &new.text);
        let pods = old.pods.to_string();
        let mut printed = pair.json(&["--config=old.yaml", "--replicas", &pods]);
        for pod in printed["pods"].as_array_mut().unwrap() {
            pod.as_object_mut()
                .unwrap()
                .retain(|key, _| ["pod", "min_time", "max_time"].contains(&key.as_str()));
        }
        for key in ["apiVersion", "kind", "warnings"] {
            assert!(
                printed.as_object_mut().unwrap().remove(key).is_some(),
                "{key}"
            );
        }
        assert_eq!(
            printed,
            plan_document(&old.text, old.pods, old.retention_days),
            "{}",
            old.text
        );
        let printed = pair.rollout(&["--replicas", &pods]);
        let steps = printed["steps"].as_array().unwrap().iter();
        let steps: Vec<Value> = steps.map(|step| json!({"pods": step["pods"]})).collect();
        assert_eq!(
            json!({"steps": steps}),
            rollout_document(&old.text, &new.text, old.pods),
            "{}\n{}",
            old.text,
            new.text
        );
    }
}

#[test]
fn every_rollout_between_random_configurations_passes_an_independent_check() {
    let wrong: Vec<String> = (0..PAIRS)
        .filter_map(|seed| check_seed(seed).err())
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {PAIRS}:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

/// Two shards of three become three of two: pods in the wrong Service serve the new part meanwhile,
/// and a querier that asks every pod never loses it.
#[test]
fn a_growing_retention_behind_services_never_goes_away_again() {
    let config = |shards, replicas, days| {
        format!(
            "sharding: {{total_shards: {shards}, replicas_per_shard: {replicas}, retention: {days}d, shard_services: true}}"
        )
    };
    let checked = check_pair(
        (&config(2, 3, 100), Some(100)),
        (&config(3, 2, 200), Some(200)),
        6,
        86_400,
        Kept::HeldBeforeTheStep,
    );
    assert_eq!(checked, Ok(()));
}
