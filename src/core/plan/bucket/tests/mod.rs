use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::core::config::Config;
use crate::core::model::duration::PromDuration;
use crate::core::plan::Plan;

mod properties;
mod reading;

fn now() -> DateTime<Utc> {
    "2026-11-21T00:00:00Z".parse().unwrap()
}

fn name(number: usize) -> String {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let digit = |i: u32| char::from(DIGITS[(number >> (5 * i)) % 32]);
    (0..26)
        .rev()
        .map(|i| if i < 8 { digit(i) } else { '0' })
        .collect()
}

fn read(text: &str) -> Result<Inventory, Unreadable> {
    let mut reader = Reader::default();
    reader.push(text.as_bytes())?;
    reader.finish()
}

/// As `ls -o json` prints it.
fn meta(number: usize, min: i64, max: i64, bytes: u64) -> String {
    format!(
        "{{\n\t\"ulid\": \"{}\",\n\t\"minTime\": {min},\n\t\"maxTime\": {max},\n\t\"stats\": {{\"numSamples\": 7}},\n\t\"compaction\": {{\"level\": 2}},\n\t\
         \"thanos\": {{\"downsample\": {{\"resolution\": 0}}, \"files\": [{{\"rel_path\": \"index\", \"size_bytes\": {bytes}}}, {{\"rel_path\": \"meta.json\"}}]}}\n}}\n",
        name(number)
    )
}

/// Blocks by age in hours: oldest edge, length, bytes.
fn inventory(blocks: &[(i64, i64, u64)]) -> Inventory {
    let at = |hours: i64| (now() - TimeDelta::hours(hours)).timestamp_millis();
    let text: String = (0..)
        .zip(blocks)
        .map(|(i, (age, length, bytes))| meta(i, at(*age), at(age - length), *bytes))
        .collect();
    read(&text).unwrap()
}

const LOG: &str = "ts=2026-11-21T14:44:47Z caller=fetcher.go:627 level=info msg=\"successfully synchronized block metadata\"\n";

/// As a store answers on `/api/v1/blocks`.
fn answer(metas: &[String]) -> String {
    let blocks = metas.join(",");
    format!(
        r#"{{"status":"success","data":{{"label":"","blocks":[{blocks}],"refreshedAt":"2026-11-21T00:00:00Z","err":null}}}}"#
    )
}

fn config(text: &str) -> Config {
    Config::parse(text, "test").unwrap()
}

fn shares(config: &Config, inventory: &Inventory) -> ShardShares {
    ShardShares::new(inventory, &Plan::new(&config.sharding, None), now())
}

#[test]
fn overlap_and_edges_are_counted_separately() {
    // Shards meet at 10 d and overlap to 12 d.
    let config =
        config("sharding: {retention: 20d, boundaries: [10d], overlap: 2d, future_buffer: 1d}");
    let blocks = inventory(&[
        (9 * 24, 24, 1),             // newer shard
        (11 * 24, 12, 10),           // within the overlap
        (13 * 24, 48, 100),          // across the older edge of the overlap
        (300, 24 * 7, 1_000),        // across all of it
        (15 * 24, 24, 10_000),       // older shard
        (19 * 24 + 30, 24, 100_000), // reaches into the retention
        (30 * 24, 24, 1_000_000),    // older than that
        (-25, 2, 10_000_000),        // future
    ]);
    let shares = shares(&config, &blocks);
    assert_eq!(
        shares
            .shards
            .iter()
            .map(|shard| (shard.loaded.bytes, shard.shared.bytes))
            .collect::<Vec<_>>(),
        [(1_111, 1_110), (111_110, 1_110)]
    );
    assert_eq!(
        (
            shares.again.within_overlap.bytes,
            shares.again.across_edges.bytes
        ),
        (10, 1_100)
    );
    assert_eq!(
        (shares.older.bytes, shares.future.bytes, shares.loaded.bytes),
        (1_000_000, 10_000_000, 111_111)
    );
}

fn balance(measure: Measure) -> Balance {
    Balance {
        measure,
        half_life: None,
    }
}

#[test]
fn a_bucket_that_grew_gets_narrower_new_shards() {
    let config = config("sharding: {total_shards: 3, retention: 300d}");
    // Two-day blocks; the newest hundred days hold ten times as much.
    let blocks: Vec<_> = (0..150)
        .map(|i| ((i + 1) * 48, 48, if i < 50 { 1_000 } else { 100 }))
        .collect();
    let inventory = inventory(&blocks);
    let plan = Plan::new(&config.sharding, None);
    let weights = Weights::new(&inventory, balance(Measure::Bytes), &plan, now());
    let suggestion = suggest(&config, &plan, &inventory, &weights, now()).unwrap();
    assert!(suggestion.on_block_edges);
    let better = Plan::new(&suggestion.sharding, None);
    let imbalance = |plan: &Plan| weights.of_even_share(weights.heaviest(plan), 3);
    assert!(
        imbalance(&plan) > 2.5 && imbalance(&better) < 1.1,
        "{} {}: {suggestion:?}",
        imbalance(&plan),
        imbalance(&better)
    );
    let days: Vec<i64> = suggestion
        .boundaries
        .iter()
        .map(|age| age.as_secs() / 86_400)
        .collect();
    assert_eq!(days, [40, 80]);
    // By recency the newest shard gets narrower still.
    let recent = Balance {
        measure: Measure::Bytes,
        half_life: Some(PromDuration::from_days(30)),
    };
    let weights = Weights::new(&inventory, recent, &plan, now());
    let suggestion = suggest(&config, &plan, &inventory, &weights, now()).unwrap();
    assert!(
        suggestion.boundaries[0] < PromDuration::from_days(30),
        "{suggestion:?}"
    );
}

#[test]
fn the_reason_for_no_suggestion_is_named() {
    let why = |text: &str, pods, blocks: &[(i64, i64, u64)]| {
        let (config, inventory) = (config(text), inventory(blocks));
        let plan = Plan::new(&config.sharding, pods);
        let weights = Weights::new(&inventory, balance(Measure::Bytes), &plan, now());
        suggest(&config, &plan, &inventory, &weights, now()).unwrap_err()
    };
    assert_eq!(
        why("sharding: {total_shards: 1}", None, &[(24, 24, 1)]),
        NoSuggestion::OneShard
    );
    assert_eq!(
        why("sharding: {total_shards: 5}", Some(4), &[(24, 24, 1)]),
        NoSuggestion::TooFewPods { pods: 4, shards: 5 }
    );
    assert_eq!(
        why("sharding: {total_shards: 2}", None, &[(24 * 800, 24, 1)]),
        NoSuggestion::NothingLoaded
    );
    assert_eq!(
        why("sharding: {total_shards: 2}", None, &[(24, 24, 1)]),
        NoSuggestion::AlreadyBest
    );
    assert_eq!(
        why(
            "sharding: {total_shards: auto, replicas_per_shard: 2}",
            Some(2),
            &[(24, 24, 1)]
        ),
        NoSuggestion::OneShard
    );
}
