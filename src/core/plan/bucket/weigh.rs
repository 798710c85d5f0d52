//! The weight of a shard by the user's measure, from precomputed sums.

use chrono::{DateTime, Utc};

use super::{Block, Inventory};
use crate::core::model::duration::PromDuration;
use crate::core::model::window::Window;
use crate::core::plan::Plan;

/// The size of a block that is balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Bytes,
    Samples,
    /// Each block counts 1.
    Blocks,
}

impl Measure {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Samples => "samples",
            Self::Blocks => "blocks",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    pub measure: Measure,
    /// New data is queried more: a block of age 0 counts `NEWEST_FACTOR` times, and the part above 1
    /// halves with each half-life.
    pub half_life: Option<PromDuration>,
}

/// Weight of a block of age 0, relative to the oldest.
const NEWEST_FACTOR: f64 = 10.0;
/// Factors are whole thousandths, so sums are exact.
const FACTOR_UNIT: f64 = 1_000.0;

impl Balance {
    fn weight(self, block: &Block, now: i64) -> u128 {
        let size = match self.measure {
            Measure::Bytes => block.bytes.unwrap_or(0),
            Measure::Samples => block.samples.unwrap_or(0),
            Measure::Blocks => 1,
        };
        u128::from(size)
            * self
                .half_life
                .map_or(1, |half_life| factor(now - block.max, half_life))
    }
}

/// Returns thousandths.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 1,000 to 10,000"
)]
fn factor(age_millis: i64, half_life: PromDuration) -> u128 {
    let halvings = age_millis.max(0) as f64 / half_life.as_millis().max(1) as f64;
    (FACTOR_UNIT * (1.0 + (NEWEST_FACTOR - 1.0) * (-halvings).exp2())).round() as u128
}

/// Cumulated weight of the blocks up to an instant.
#[derive(Debug)]
struct Sums {
    at: Vec<i64>,
    /// Of the blocks before each instant of `at`, and of all.
    sums: Vec<u128>,
}

impl Sums {
    fn new(mut weighed: Vec<(i64, u128)>) -> Self {
        weighed.sort_unstable_by_key(|(at, _)| *at);
        let mut sum = 0;
        let mut sums = Vec::with_capacity(weighed.len() + 1);
        sums.push(0);
        sums.extend(weighed.iter().map(|(_, weight)| {
            sum += weight;
            sum
        }));
        Self {
            at: weighed.into_iter().map(|(at, _)| at).collect(),
            sums,
        }
    }

    fn up_to(&self, instant: i64) -> u128 {
        self.sums[self.at.partition_point(|at| *at <= instant)]
    }

    fn before(&self, instant: i64) -> u128 {
        self.sums[self.at.partition_point(|at| *at < instant)]
    }
}

/// The weight of the blocks that windows load.
#[derive(Debug)]
pub struct Weights {
    begin: Sums,
    end: Sums,
    /// Where the plan's oldest window begins and its newest ends, as instants.
    span: (i64, i64),
    now: DateTime<Utc>,
}

impl Weights {
    /// Only blocks within the windows of `plan` count in [`Self::total`].
    #[must_use]
    pub fn new(inventory: &Inventory, balance: Balance, plan: &Plan, now: DateTime<Utc>) -> Self {
        let weigh = |block: &Block| balance.weight(block, now.timestamp_millis());
        let last = u32::try_from(plan.shards().len().saturating_sub(1)).unwrap_or(u32::MAX);
        Self {
            begin: Sums::new(
                inventory
                    .blocks()
                    .iter()
                    .map(|block| (block.min, weigh(block)))
                    .collect(),
            ),
            end: Sums::new(
                inventory
                    .blocks()
                    .iter()
                    .map(|block| (block.max, weigh(block)))
                    .collect(),
            ),
            span: (
                millis(plan.window(last, now), now).0,
                millis(plan.window(0, now), now).1,
            ),
            now,
        }
    }

    /// Returns the weight of all blocks that begin up to this instant.
    pub(super) fn begun(&self, instant: i64) -> u128 {
        self.begin.up_to(instant)
    }

    /// Returns the weight of all blocks that end before this instant.
    pub(super) fn ended(&self, instant: i64) -> u128 {
        self.end.before(instant)
    }

    /// Returns the weight of a window: all blocks that begin up to its end, less those that end
    /// before its beginning.
    #[must_use]
    pub fn of(&self, window: Window) -> u128 {
        let (min, max) = millis(window, self.now);
        self.begun(max).saturating_sub(self.ended(min))
    }

    /// Returns the weight of all loaded blocks, each counted once.
    #[must_use]
    pub fn total(&self) -> u128 {
        self.begun(self.span.1)
            .saturating_sub(self.ended(self.span.0))
    }

    /// Returns the weight of the heaviest shard.
    #[must_use]
    pub fn heaviest(&self, plan: &Plan) -> u128 {
        (0..)
            .zip(plan.shards())
            .map(|(shard, _)| self.of(plan.window(shard, self.now)))
            .max()
            .unwrap_or(0)
    }

    /// Returns a weight as a multiple of an even share. For the heaviest shard that is the imbalance,
    /// at least 1.
    #[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
    #[must_use]
    pub fn of_even_share(&self, weight: u128, shards: usize) -> f64 {
        match self.total() {
            0 => 0.0,
            total => weight as f64 * shards as f64 / total as f64,
        }
    }

    pub(super) fn span(&self) -> (i64, i64) {
        self.span
    }
}

fn millis(window: Window, now: DateTime<Utc>) -> (i64, i64) {
    (
        window.min.at(now).timestamp_millis(),
        window.max.at(now).timestamp_millis(),
    )
}
