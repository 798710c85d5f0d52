//! The report for programs.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::found::{BucketReport, Count, Side};
use crate::core::model::duration::PromDuration;
use crate::core::plan::bucket::{Resolution, Share, Tally};

/// The field `blocks` of `-o json` and `-o yaml`.
#[derive(Debug, Serialize)]
pub(in super::super) struct BlocksDocument {
    format: String,
    listed: Count,
    kinds: Vec<KindRow>,
    loaded: Count,
    loaded_again: AgainRow,
    older_than_retention: Count,
    in_the_future: Count,
    balance: &'static str,
    half_life_seconds: Option<i64>,
    imbalance: f64,
    shards: Vec<ShardRow>,
    suggestion: Option<SuggestionRow>,
    no_suggestion: Option<String>,
}

#[derive(Debug, Serialize)]
struct KindRow {
    resolution: &'static str,
    level: u32,
    #[serde(flatten)]
    count: Count,
}

#[derive(Debug, Serialize)]
struct AgainRow {
    within_overlap: Count,
    across_edges: Count,
}

#[derive(Debug, Serialize)]
struct ShardRow {
    shard: u32,
    #[serde(flatten)]
    loaded: Count,
    raw: Count,
    five_minutes: Count,
    one_hour: Count,
    shared: Count,
    of_even_share: f64,
}

#[derive(Debug, Serialize)]
struct SuggestionRow {
    total_shards: usize,
    boundaries: Vec<PromDuration>,
    on_block_edges: bool,
    imbalance: f64,
    loaded_again: AgainRow,
    shards: Vec<ShardRow>,
}

impl BucketReport {
    fn again(&self, side: &Side) -> AgainRow {
        let again = &side.shares.again;
        AgainRow {
            within_overlap: self.count(&again.within_overlap),
            across_edges: self.count(&again.across_edges),
        }
    }

    fn shard_rows(&self, side: &Side, now: DateTime<Utc>) -> Vec<ShardRow> {
        let row = |(shard, share): (u32, &Share)| {
            let [raw, five_minutes, one_hour] = share
                .by_resolution
                .each_ref()
                .map(|tally| self.count(tally));
            let of_even_share = round(self.of_even_share(side, shard, now));
            ShardRow {
                shard,
                loaded: self.count(&share.loaded),
                raw,
                five_minutes,
                one_hour,
                shared: self.count(&share.shared),
                of_even_share,
            }
        };
        (0..).zip(&side.shares.shards).map(row).collect()
    }

    pub(in super::super) fn document(&self, now: DateTime<Utc>) -> BlocksDocument {
        let kind = |((resolution, level), tally): (&(Resolution, u32), &Tally)| KindRow {
            resolution: resolution.name(),
            level: *level,
            count: self.count(tally),
        };
        let suggestion = self
            .better
            .as_ref()
            .ok()
            .map(|(suggestion, side)| SuggestionRow {
                total_shards: suggestion.boundaries.len() + 1,
                boundaries: suggestion.boundaries.clone(),
                on_block_edges: suggestion.on_block_edges,
                imbalance: round(self.imbalance(side)),
                loaded_again: self.again(side),
                shards: self.shard_rows(side, now),
            });
        BlocksDocument {
            format: self.inventory.format().to_string(),
            listed: self.count(&self.inventory.total()),
            kinds: self.inventory.kinds().iter().map(kind).collect(),
            loaded: self.count(&self.today.shares.loaded),
            loaded_again: self.again(&self.today),
            older_than_retention: self.count(&self.today.shares.older),
            in_the_future: self.count(&self.today.shares.future),
            balance: if self.balance.half_life.is_some() {
                "recent"
            } else {
                self.balance.measure.name()
            },
            half_life_seconds: self.balance.half_life.map(PromDuration::as_secs),
            imbalance: round(self.imbalance(&self.today)),
            shards: self.shard_rows(&self.today, now),
            suggestion,
            no_suggestion: self.better.as_ref().err().map(ToString::to_string),
        }
    }
}

/// Rounds to hundredths.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
