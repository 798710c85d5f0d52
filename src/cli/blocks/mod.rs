//! `timeshard plan --blocks`: the load of each shard for a real bucket, and better boundaries.
//!
//! `core::plan::bucket` counts and searches. This module reads the list in pieces; `found` is the
//! report, `text` and `document` print it.

mod document;
mod found;
mod text;

use std::io::Read;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

pub(super) use document::BlocksDocument;
use found::{BucketReport, Side};

use super::{Failure, input, say};
use crate::core::config::Config;
use crate::core::model::duration::PromDuration;
use crate::core::plan::Plan;
use crate::core::plan::bucket::{Balance, Inventory, Measure, Reader, Weights, suggest};

/// Size of one read, in bytes.
const PIECE_BYTES: usize = 1024 * 1024;
/// Longest list, in bytes: two million blocks with a `meta.json` of 8 KiB each.
const MAX_LIST_BYTES: u64 = 16 * 1024 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct BucketArgs {
    /// Show the load of each shard for a bucket, and better boundaries. A file (or "-") with the JSON
    /// of `thanos tools bucket ls --exclude-delete -o json`, or of a store's /api/v1/blocks; log
    /// lines in it are skipped
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
    pub(super) blocks: Option<PathBuf>,
    /// What the suggested boundaries balance. Default: bytes; samples or blocks if the list has no
    /// bytes
    #[arg(long, value_name = "MEASURE", requires = "blocks")]
    balance: Option<By>,
    /// With --balance recent: the newest block counts 10 times its size, the oldest once; the
    /// surplus halves with each half-life (units y w d h m s)
    #[arg(long, value_name = "DURATION", default_value = "30d", requires = "blocks", value_parser = half_life)]
    half_life: PromDuration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// Bytes of the blocks' files
    Bytes,
    /// Samples
    Samples,
    /// Number of blocks
    Blocks,
    /// Bytes, of which new ones count more because they are queried more
    Recent,
}

fn half_life(text: &str) -> Result<PromDuration, String> {
    let value: PromDuration = text.parse().map_err(|error| format!("{error}"))?;
    if value > PromDuration::ZERO {
        Ok(value)
    } else {
        Err("write a duration of at least 1s, such as 30d".to_owned())
    }
}

impl BucketArgs {
    /// Reads the list and reports on it under this plan.
    pub(super) fn find(
        &self,
        list: &Path,
        config: &Config,
        plan: Plan,
        now: DateTime<Utc>,
    ) -> Result<BucketReport, Failure> {
        let inventory = read(list)?;
        let name = input::name(list);
        let best = inventory.best_measure();
        let measure = match self.balance {
            None | Some(By::Recent) => best,
            Some(By::Bytes) if best != Measure::Bytes => {
                return Err(Failure::Invalid(format!(
                    "--balance bytes: {name} is the output of `{}` without bytes; list the bucket with `ls -o json`, or leave --balance out",
                    inventory.format()
                )));
            }
            Some(By::Samples) if inventory.total().samples == 0 => {
                return Err(Failure::Invalid(format!(
                    "--balance samples: {name} is the output of `{}` without samples; list the bucket with `ls -o json`",
                    inventory.format()
                )));
            }
            Some(By::Bytes) => Measure::Bytes,
            Some(By::Samples) => Measure::Samples,
            Some(By::Blocks) => Measure::Blocks,
        };
        let unsized_blocks = inventory.without_bytes();
        if measure == Measure::Bytes && unsized_blocks > 0 {
            say(&format!(
                "warning: {unsized_blocks} blocks have no size (uploaded before Thanos 0.17) and count as 0; --balance samples counts them"
            ));
        }
        let balance = Balance {
            measure,
            half_life: (self.balance == Some(By::Recent)).then_some(self.half_life),
        };
        let weights = Weights::new(&inventory, balance, &plan, now);
        let better = suggest(config, &plan, &inventory, &weights, now).map(|suggestion| {
            let plan = Plan::new(
                &suggestion.sharding,
                Some(plan.shards().iter().map(|shard| shard.replicas).sum()),
            );
            (suggestion, Side::new(plan, &inventory, now))
        });
        let shards = plan.shards().len();
        let ends_before_now = config.sharding.future_buffer() < PromDuration::ZERO;
        Ok(BucketReport {
            today: Side::new(plan, &inventory, now),
            inventory,
            weights,
            balance,
            shards,
            better,
            ends_before_now,
        })
    }
}

fn read(list: &Path) -> Result<Inventory, Failure> {
    let name = input::name(list);
    let failed =
        |error: std::io::Error| Failure::Invalid(format!("{name}: cannot be read: {error}"));
    let source: Box<dyn Read> = if list.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(list).map_err(failed)?)
    };
    let (mut source, mut piece, mut reader, mut bytes) =
        (source, vec![0; PIECE_BYTES], Reader::default(), 0);
    let refused = |error| Failure::Invalid(format!("{name}:{error}"));
    loop {
        let length = match source.read(&mut piece) {
            Ok(0) => return reader.finish().map_err(refused),
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        bytes += length as u64;
        if bytes > MAX_LIST_BYTES {
            return Err(Failure::Invalid(format!(
                "{name}: is larger than {MAX_LIST_BYTES} bytes, the most that is read"
            )));
        }
        reader.push(&piece[..length]).map_err(refused)?;
    }
}
