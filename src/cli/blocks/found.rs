//! The report on a list of blocks under a plan, and its numbers for people.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::core::model::text::counted;
use crate::core::plan::Plan;
use crate::core::plan::bucket::{
    Balance, Inventory, Measure, NoSuggestion, ShardShares, Suggestion, Tally, Weights,
};

pub(in super::super) struct BucketReport {
    pub(super) inventory: Inventory,
    pub(super) weights: Weights,
    pub(super) balance: Balance,
    pub(super) shards: usize,
    pub(super) today: Side,
    pub(super) better: Result<(Suggestion, Side), NoSuggestion>,
    /// True with a negative future buffer: the newest window ends before now.
    pub(super) ends_before_now: bool,
}

/// The bucket under one plan.
pub(super) struct Side {
    pub(super) plan: Plan,
    pub(super) shares: ShardShares,
}

/// Numbers that the list lacks are null.
#[derive(Debug, Serialize)]
pub(super) struct Count {
    pub(super) blocks: u64,
    pub(super) bytes: Option<u64>,
    pub(super) samples: Option<u64>,
}

impl Side {
    pub(super) fn new(plan: Plan, inventory: &Inventory, now: DateTime<Utc>) -> Self {
        let shares = ShardShares::new(inventory, &plan, now);
        Self { plan, shares }
    }
}

impl BucketReport {
    pub(super) fn imbalance(&self, side: &Side) -> f64 {
        self.weights
            .of_even_share(self.weights.heaviest(&side.plan), self.shards)
    }

    pub(super) fn of_even_share(&self, side: &Side, shard: u32, now: DateTime<Utc>) -> f64 {
        self.weights
            .of_even_share(self.weights.of(side.plan.window(shard, now)), self.shards)
    }

    pub(super) fn count(&self, tally: &Tally) -> Count {
        let known = |known: bool, value: u64| known.then_some(value);
        let all = self.inventory.total();
        Count {
            blocks: tally.blocks,
            bytes: known(self.inventory.best_measure() == Measure::Bytes, tally.bytes),
            samples: known(all.samples > 0, tally.samples),
        }
    }

    pub(super) fn measure(&self) -> String {
        let name = self.balance.measure.name();
        self.balance.half_life.map_or_else(
            || name.to_owned(),
            |half_life| format!("{name}, newer ones counting more (half-life {half_life})"),
        )
    }

    pub(super) fn cells(&self, tally: &Tally) -> [String; 3] {
        let Count {
            blocks,
            bytes,
            samples,
        } = self.count(tally);
        let or = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        [
            blocks.to_string(),
            or(bytes.map(human)),
            or(samples.map(|n| n.to_string())),
        ]
    }

    /// One cell: bytes if known, else blocks.
    pub(super) fn main(&self, tally: &Tally) -> String {
        self.count(tally)
            .bytes
            .map_or_else(|| tally.blocks.to_string(), human)
    }

    pub(super) fn sentence(&self, tally: &Tally) -> String {
        let blocks = counted(tally.blocks, "block");
        match self.count(tally).bytes {
            None => blocks,
            Some(bytes) => format!("{blocks} ({})", human(bytes)),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}
