//! `timeshard plan --blocks`: what each shard loads of a real bucket, and boundaries that would share it better.
//!
//! `core::blocks` counts and searches; here the list is read in pieces and the answer is shown.

use std::io::Read;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Failure, input, say, svg, timeline};
use crate::core::blocks::{
    Balance, Inventory, Measure, NoSuggestion, Reader, Resolution, Share, Shares, Suggestion, Tally, Weights, suggest,
};
use crate::core::config::Config;
use crate::core::duration::PromDuration;
use crate::core::plan::Plan;

/// Read at once, in bytes.
const PIECE_BYTES: usize = 1024 * 1024;
/// The longest list, in bytes: two million blocks with a `meta.json` of 8 KiB each.
const MAX_LIST_BYTES: u64 = 16 * 1024 * 1024 * 1024;
/// Rows of a table; more would not be looked at.
const MOST_ROWS: usize = 200;

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
    if value > PromDuration::ZERO { Ok(value) } else { Err("write a duration of at least 1s, such as 30d".to_owned()) }
}

/// Everything that is shown.
pub(super) struct Found {
    inventory: Inventory,
    weights: Weights,
    balance: Balance,
    shards: usize,
    today: Side,
    better: Result<(Suggestion, Side), NoSuggestion>,
    /// Whether the newest window ends before now, with a negative future buffer.
    ends_before_now: bool,
}

/// One way to divide the bucket.
struct Side {
    plan: Plan,
    shares: Shares,
}

/// The field `blocks` of `-o json` and `-o yaml`.
#[derive(Debug, Serialize)]
pub(super) struct Document {
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

/// Numbers that the list does not tell are null.
#[derive(Debug, Serialize)]
struct Count {
    blocks: u64,
    bytes: Option<u64>,
    samples: Option<u64>,
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

impl Bucket {
    /// Reads the list and looks at it under this plan.
    pub(super) fn find(&self, list: &Path, config: &Config, plan: Plan, now: DateTime<Utc>) -> Result<Found, Failure> {
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
        let balance = Balance { measure, half_life: (self.balance == Some(By::Recent)).then_some(self.half_life) };
        let weights = Weights::new(&inventory, balance, &plan, now);
        let better = suggest(config, &plan, &inventory, &weights, now).map(|suggestion| {
            let plan = Plan::new(&suggestion.sharding, Some(plan.shards().iter().map(|shard| shard.replicas).sum()));
            (suggestion, Side::new(plan, &inventory, now))
        });
        let shards = plan.shards().len();
        let ends_before_now = config.sharding.future_buffer() < PromDuration::ZERO;
        Ok(Found { today: Side::new(plan, &inventory, now), inventory, weights, balance, shards, better, ends_before_now })
    }
}

fn read(list: &Path) -> Result<Inventory, Failure> {
    let name = input::name(list);
    let failed = |error: std::io::Error| Failure::Invalid(format!("{name}: cannot be read: {error}"));
    let source: Box<dyn Read> =
        if list.as_os_str() == "-" { Box::new(std::io::stdin().lock()) } else { Box::new(std::fs::File::open(list).map_err(failed)?) };
    let (mut source, mut piece, mut reader, mut bytes) = (source, vec![0; PIECE_BYTES], Reader::default(), 0);
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
            return Err(Failure::Invalid(format!("{name}: is larger than {MAX_LIST_BYTES} bytes, the most that is read")));
        }
        reader.push(&piece[..length]).map_err(refused)?;
    }
}

impl Side {
    fn new(plan: Plan, inventory: &Inventory, now: DateTime<Utc>) -> Self {
        let shares = Shares::new(inventory, &plan, now);
        Self { plan, shares }
    }
}

impl Found {
    fn imbalance(&self, side: &Side) -> f64 {
        self.weights.of_even_share(self.weights.heaviest(&side.plan), self.shards)
    }

    fn of_even_share(&self, side: &Side, shard: u32, now: DateTime<Utc>) -> f64 {
        self.weights.of_even_share(self.weights.of(side.plan.window(shard, now)), self.shards)
    }

    fn count(&self, tally: &Tally) -> Count {
        let known = |known: bool, value: u64| known.then_some(value);
        let all = self.inventory.total();
        Count {
            blocks: tally.blocks,
            bytes: known(self.inventory.best_measure() == Measure::Bytes, tally.bytes),
            samples: known(all.samples > 0, tally.samples),
        }
    }

    fn again(&self, side: &Side) -> AgainRow {
        let again = &side.shares.again;
        AgainRow { within_overlap: self.count(&again.within_overlap), across_edges: self.count(&again.across_edges) }
    }

    fn shard_rows(&self, side: &Side, now: DateTime<Utc>) -> Vec<ShardRow> {
        let row = |(shard, share): (u32, &Share)| {
            let [raw, five_minutes, one_hour] = share.by_resolution.each_ref().map(|tally| self.count(tally));
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

    /// For programs.
    pub(super) fn document(&self, now: DateTime<Utc>) -> Document {
        let kind = |((resolution, level), tally): (&(Resolution, u32), &Tally)| KindRow {
            resolution: resolution.name(),
            level: *level,
            count: self.count(tally),
        };
        let suggestion = self.better.as_ref().ok().map(|(suggestion, side)| SuggestionRow {
            total_shards: suggestion.boundaries.len() + 1,
            boundaries: suggestion.boundaries.clone(),
            on_block_edges: suggestion.on_block_edges,
            imbalance: round(self.imbalance(side)),
            loaded_again: self.again(side),
            shards: self.shard_rows(side, now),
        });
        Document {
            format: self.inventory.format().to_string(),
            listed: self.count(&self.inventory.total()),
            kinds: self.inventory.kinds().iter().map(kind).collect(),
            loaded: self.count(&self.today.shares.loaded),
            loaded_again: self.again(&self.today),
            older_than_retention: self.count(&self.today.shares.older),
            in_the_future: self.count(&self.today.shares.future),
            balance: if self.balance.half_life.is_some() { "recent" } else { self.balance.measure.name() },
            half_life_seconds: self.balance.half_life.map(PromDuration::as_secs),
            imbalance: round(self.imbalance(&self.today)),
            shards: self.shard_rows(&self.today, now),
            suggestion,
            no_suggestion: self.better.as_ref().err().map(ToString::to_string),
        }
    }

    /// For people.
    pub(super) fn text(&self, now: DateTime<Utc>) -> String {
        let mut text = format!("{}, as `{}` prints them\n", self.words(&self.inventory.total()), self.inventory.format());
        let mut kinds = timeline::plain_table(&["RESOLUTION", "LEVEL", "BLOCKS", "BYTES", "SAMPLES"]);
        for ((resolution, level), tally) in &self.inventory.kinds() {
            let [blocks, bytes, samples] = self.cells(tally);
            kinds.add_row([resolution.name().to_owned(), level.to_string(), blocks, bytes, samples]);
        }
        text.push_str(&format!("{kinds}\n\n{}", self.side(&self.today, now)));
        let shares = &self.today.shares;
        text.push_str(&format!(
            "in no window: {} older than the retention, {} {}\n",
            self.words(&shares.older),
            self.words(&shares.future),
            if self.ends_before_now { "newer than the newest window" } else { "in the future" }
        ));
        match &self.better {
            Err(why) => text.push_str(&format!("\nno other boundaries: {why}\n")),
            Ok((suggestion, side)) => {
                let list: Vec<String> = suggestion.boundaries.iter().map(ToString::to_string).collect();
                text.push_str(&format!(
                    "\n# imbalance {:.2} -> {:.2}, by {}{}\nsharding:\n  total_shards: {}\n  boundaries: [{}]\n\n{}",
                    self.imbalance(&self.today),
                    self.imbalance(side),
                    self.measure(),
                    if suggestion.on_block_edges { "" } else { "; too few block edges for all boundaries" },
                    list.len() + 1,
                    list.join(", "),
                    self.side(side, now)
                ));
            }
        }
        text
    }

    /// Bars of what each shard loads, today and as suggested.
    pub(super) fn picture(&self, now: DateTime<Utc>) -> String {
        let better = self.better.as_ref().ok().map(|(_, side)| side);
        let bars: Vec<svg::Bar> = (0..)
            .zip(&self.today.shares.shards)
            .map(|(shard, share)| svg::Bar {
                label: format!("shard {shard}: {}", self.words(&share.loaded)),
                today: self.of_even_share(&self.today, shard, now),
                better: better.map(|side| self.of_even_share(side, shard, now)),
            })
            .collect();
        let said = better.map_or_else(String::new, |side| format!(", {:.2} with the suggested boundaries", self.imbalance(side)));
        svg::bars(
            &bars,
            &format!(
                "What each shard loads, against an even share by {}: imbalance {:.2}{said}",
                self.measure(),
                self.imbalance(&self.today)
            ),
        )
    }

    fn measure(&self) -> String {
        let name = self.balance.measure.name();
        self.balance
            .half_life
            .map_or_else(|| name.to_owned(), |half_life| format!("{name}, newer ones counting more (half-life {half_life})"))
    }

    fn side(&self, side: &Side, now: DateTime<Utc>) -> String {
        let header = ["SHARD", "WINDOW", "BLOCKS", "BYTES", "SAMPLES", "RAW", "5M", "1H", "SHARED", "OF EVEN SHARE"];
        let mut table = timeline::plain_table(&header);
        for (shard, share) in (0..).zip(side.shares.shards.iter().take(MOST_ROWS)) {
            let [blocks, bytes, samples] = self.cells(&share.loaded);
            let main = |tally: &Tally| self.main(tally);
            let [raw, five_minutes, one_hour] = share.by_resolution.each_ref().map(main);
            table.add_row([
                shard.to_string(),
                side.plan.window(shard, now).to_string(),
                blocks,
                bytes,
                samples,
                raw,
                five_minutes,
                one_hour,
                main(&share.shared),
                format!("{:.2}", self.of_even_share(side, shard, now)),
            ]);
        }
        let rest = side.shares.shards.len().saturating_sub(MOST_ROWS);
        let more = if rest > 0 { format!("… and {rest} older shards; -o json has them all\n") } else { String::new() };
        let again = &side.shares.again;
        format!(
            "{table}\n{more}loaded more than once: {} within the overlap, {} across an edge\nimbalance: {:.2} (the largest shard, of an even share by {})\n",
            self.words(&again.within_overlap),
            self.words(&again.across_edges),
            self.imbalance(side),
            self.measure()
        )
    }

    fn cells(&self, tally: &Tally) -> [String; 3] {
        let Count { blocks, bytes, samples } = self.count(tally);
        let or = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        [blocks.to_string(), or(bytes.map(human)), or(samples.map(|n| n.to_string()))]
    }

    /// In one cell: bytes if they are known.
    fn main(&self, tally: &Tally) -> String {
        self.count(tally).bytes.map_or_else(|| tally.blocks.to_string(), human)
    }

    fn words(&self, tally: &Tally) -> String {
        let plural = if tally.blocks == 1 { "" } else { "s" };
        self.count(tally)
            .bytes
            .map_or_else(|| format!("{} block{plural}", tally.blocks), |bytes| format!("{} block{plural} ({})", tally.blocks, human(bytes)))
    }
}

/// To hundredths.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
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
