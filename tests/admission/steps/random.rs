//! Rollouts between random configurations, checked independently.

use std::collections::BTreeSet;

use proptest::test_runner::{RngAlgorithm, TestRng};
use rand::RngExt as _;

use super::checker::{Kept, check};
use super::*;

const PAIRS: u16 = 120;

/// A configuration with at least two replicas of each shard.
struct Random {
    text: String,
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
    let shards = if cuts.is_empty() { rng.random_range(1..9_u32) } else { u32::try_from(cuts.len()).unwrap() + 1 };
    let replicas: Vec<u32> = if rng.random_bool(0.3) {
        (0..shards).map(|_| rng.random_range(2..5)).collect()
    } else {
        vec![rng.random_range(2..5); shards as usize]
    };
    let retention = if !cuts.is_empty() && rng.random_bool(0.5) { "forever".to_owned() } else { format!("{days}d") };
    let cuts: Vec<String> = cuts.into_iter().map(|day| format!("{day}d")).collect();
    let division = if cuts.is_empty() { format!("total_shards: {shards}") } else { format!("boundaries: [{}]", cuts.join(", ")) };
    let services = rng.random_bool(0.3);
    let text = format!(
        "sharding: {{{division}, replicas: {replicas:?}, retention: {retention}, overlap: {overlap}m, future_buffer_hours: {buffer}, shard_services: {services}}}"
    );
    Random { text, buffer_seconds: buffer * 3_600, pods: replicas.iter().sum(), services }
}

fn check_seed(seed: u16) -> Result<(), String> {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.to_le_bytes().repeat(16));
    let (old, new) = (random_config(&mut rng), random_config(&mut rng));
    let count = (old.pods.max(new.pods) + rng.random_range(0..3)).to_string();
    let kept = if new.services { Kept::HeldBeforeTheRollout } else { Kept::HeldBeforeTheStep };
    check_pair(&old.text, &new.text, &count, new.buffer_seconds, kept).map_err(|why| format!("seed {seed}, {why}"))
}

fn check_pair(old: &str, new: &str, count: &str, buffer: i64, kept: Kept) -> Result<(), String> {
    let pair = Pair::new(old, new);
    let plan = |file| pair.json(&[file, "--replicas", count]);
    let rollout = pair.rollout(&["--replicas", count]);
    check(&plan("--config=old.yaml"), &plan("--config=new.yaml"), &rollout, buffer, kept)
        .map_err(|why| format!("{count} pods: {why}\n{old}\n{new}\n{rollout}"))
}

#[test]
fn every_rollout_between_random_configurations_passes_an_independent_check() {
    let wrong: Vec<String> = (0..PAIRS).filter_map(|seed| check_seed(seed).err()).collect();
    assert!(wrong.is_empty(), "{} of {PAIRS}:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// Two shards of three become three of two: the part that is new is held on the way by pods that are in the wrong Service for
/// it, and stays held for whoever asks every pod.
#[test]
fn a_growing_retention_behind_services_never_goes_away_again() {
    let config = |shards, replicas, days| {
        format!("sharding: {{total_shards: {shards}, replicas_per_shard: {replicas}, retention: {days}d, shard_services: true}}")
    };
    let checked = check_pair(&config(2, 3, 100), &config(3, 2, 200), "6", 86_400, Kept::HeldBeforeTheStep);
    assert_eq!(checked, Ok(()));
}
