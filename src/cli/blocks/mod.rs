//! `timeshard plan --blocks`: what each shard loads of a real bucket, and boundaries that would share it better.
//!
//! `core::blocks` counts and searches; here the list is read in pieces; `found` is the answer, `text` and `document` show it.

mod document;
mod found;
mod text;

use std::io::Read;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

pub(super) use document::Document;
use found::{Found, Side};

use super::{Failure, input, say};
use crate::core::blocks::{Balance, Inventory, Measure, Reader, Weights, suggest};
use crate::core::config::Config;
use crate::core::duration::PromDuration;
use crate::core::plan::Plan;

/// Read at once, in bytes.
const PIECE_BYTES: usize = 1024 * 1024;
/// The longest list, in bytes: two million blocks with a `meta.json` of 8 KiB each.
const MAX_LIST_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// A list of blocks and what to do with it.
#[derive(Debug, clap::Args)]
pub(super) struct Bucket {
    /// Show what each shard loads of a bucket, and better boundaries: a file (or "-") with the JSON of `thanos tools bucket ls
    /// --exclude-delete -o json`, or of a store's /api/v1/blocks; lines of a log in it are skipped
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
    pub(super) blocks: Option<PathBuf>,
    /// What the suggested boundaries balance. Default: bytes; samples or blocks where the list has no bytes
    #[arg(long, value_name = "MEASURE", requires = "blocks")]
    balance: Option<By>,
    /// With --balance recent: a block counts by its size, the newest 10 times, and what it counts above once halves with each
    /// such time (units y w d h m s)
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
    /// Bytes, new ones counting more, since they are queried more
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

impl Bucket {
    /// Reads the list and looks at it under this plan.
    pub(super) fn find(
        &self,
        list: &Path,
        config: &Config,
        plan: Plan,
        now: DateTime<Utc>,
    ) -> Result<Found, Failure> {
        let inventory = read(list)?;
        let name = input::name(list);
        let best = inventory.best_measure();
        let measure = match self.balance {
            None | Some(By::Recent) => best,
            Some(By::Bytes) if best != Measure::Bytes => {
                return Err(Failure::Invalid(format!(
                    "--balance bytes: {name} is what `{}` prints, without bytes; list the bucket with `ls -o json`, or leave --balance out",
                    inventory.format()
                )));
            }
            Some(By::Samples) if inventory.total().samples == 0 => {
                return Err(Failure::Invalid(format!(
                    "--balance samples: {name} is what `{}` prints, without samples; list the bucket with `ls -o json`",
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
                "warning: {unsized_blocks} blocks do not tell their bytes (uploaded before Thanos 0.17) and count as 0; --balance samples counts them"
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
        Ok(Found {
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
