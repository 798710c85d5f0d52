//! The blocks of a bucket: how the shards of a plan share them, and which boundaries would share
//! them better.
//!
//! Thanos loads a block if block and window touch, both ends included, so a block on an edge is
//! loaded on both sides. Sums are exact (whole numbers), so the same list gives the same result on
//! every machine. Deliberately absent: reading files, printing, and a block's real memory, which
//! Thanos does not report.

mod read;
mod share;
mod suggest;
mod weigh;

use std::collections::{BTreeMap, HashMap};

pub use read::{Format, Reader, Unreadable};
pub use share::{Again, ShardShares, Share};
pub use suggest::{NoSuggestion, Suggestion, suggest};
pub use weigh::{Balance, Measure, Weights};

/// Blocks of one list; each takes about 100 bytes of memory.
pub const MAX_BLOCKS: usize = 2_000_000;
/// Compaction level; compactors use fewer than ten.
pub const MAX_LEVEL: u32 = 99;

/// Distance of a block's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// As scraped.
    Raw,
    FiveMinutes,
    OneHour,
}

impl Resolution {
    /// Finest first.
    pub const ALL: [Self; 3] = [Self::Raw, Self::FiveMinutes, Self::OneHour];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::FiveMinutes => "5m",
            Self::OneHour => "1h",
        }
    }

    /// Reads `thanos.downsample.resolution` of a `meta.json`.
    fn from_millis(millis: i64) -> Option<Self> {
        match millis {
            0 => Some(Self::Raw),
            300_000 => Some(Self::FiveMinutes),
            3_600_000 => Some(Self::OneHour),
            _ => None,
        }
    }
}

/// One block. Instants are milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub ulid: Ulid,
    /// Oldest sample.
    pub min: i64,
    /// Just after the newest sample.
    pub max: i64,
    /// Compaction level, from 1.
    pub level: u32,
    pub resolution: Resolution,
    /// Of all files, if the list has them.
    pub bytes: Option<u64>,
    /// If the list has them.
    pub samples: Option<u64>,
}

/// The name of a block: 26 characters of Crockford's base 32, as 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ulid([u8; 16]);

impl Ulid {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        if text.len() != 26 || text.as_bytes()[0] > b'7' {
            return None;
        }
        let digit = |byte: u8| {
            DIGITS
                .iter()
                .position(|digit| *digit == byte.to_ascii_uppercase())
        };
        let value = text.bytes().try_fold(0_u128, |value, byte| {
            Some(value << 5 | digit(byte)? as u128)
        })?;
        Some(Self(value.to_be_bytes()))
    }
}

/// A count of blocks. Numbers that the list lacks count as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub blocks: u64,
    pub bytes: u64,
    pub samples: u64,
}

impl Tally {
    /// Adds a block that is loaded this many times.
    fn add(&mut self, block: &Block, times: u64) {
        self.blocks += times;
        self.bytes = self
            .bytes
            .saturating_add(block.bytes.unwrap_or(0).saturating_mul(times));
        self.samples = self
            .samples
            .saturating_add(block.samples.unwrap_or(0).saturating_mul(times));
    }
}

/// The blocks of a bucket.
#[derive(Clone, Debug)]
pub struct Inventory {
    format: Format,
    blocks: Vec<Block>,
    /// The line of each block, to find duplicates. Emptied at the end.
    lines: HashMap<Ulid, u32>,
}

impl Inventory {
    fn new(format: Format) -> Self {
        Self {
            format,
            blocks: Vec::new(),
            lines: HashMap::new(),
        }
    }

    /// Adds the block on this line.
    ///
    /// # Errors
    /// A sentence if the block is impossible.
    fn take(&mut self, block: Block, name: &str, line: u64) -> Result<(), String> {
        if block.min > block.max {
            return Err(format!(
                "block {name} begins at {} and ends at {}, before that: its meta.json is damaged; see `thanos tools bucket verify`",
                block.min, block.max
            ));
        }
        if [block.min, block.max]
            .iter()
            .any(|at| chrono::DateTime::from_timestamp_millis(*at).is_none())
        {
            return Err(format!(
                "block {name} is from {} to {}: milliseconds since 1970 are expected",
                block.min, block.max
            ));
        }
        if block.level > MAX_LEVEL {
            return Err(format!(
                "block {name} has compaction level {}: at most {MAX_LEVEL} is expected",
                block.level
            ));
        }
        if self.blocks.len() >= MAX_BLOCKS {
            return Err(format!(
                "more than {MAX_BLOCKS} blocks, the most that are read; list a part of the bucket"
            ));
        }
        if let Some(earlier) = self
            .lines
            .insert(block.ulid, u32::try_from(line).unwrap_or(u32::MAX))
        {
            return Err(format!(
                "block {name} was listed already on line {earlier}: list each block once"
            ));
        }
        self.blocks.push(block);
        Ok(())
    }

    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// In the order of the list.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Returns the best measure that the list has: bytes, else samples, else blocks.
    #[must_use]
    pub fn best_measure(&self) -> Measure {
        if self.blocks.iter().any(|block| block.bytes.is_some()) {
            Measure::Bytes
        } else if self.blocks.iter().any(|block| block.samples.is_some()) {
            Measure::Samples
        } else {
            Measure::Blocks
        }
    }

    /// Counts the blocks whose bytes are unknown.
    #[must_use]
    pub fn without_bytes(&self) -> usize {
        self.blocks
            .iter()
            .filter(|block| block.bytes.is_none())
            .count()
    }

    /// Counts by resolution and compaction level.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<(Resolution, u32), Tally> {
        let mut kinds: BTreeMap<(Resolution, u32), Tally> = BTreeMap::new();
        for block in &self.blocks {
            kinds
                .entry((block.resolution, block.level))
                .or_default()
                .add(block, 1);
        }
        kinds
    }

    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.blocks.iter().for_each(|block| total.add(block, 1));
        total
    }
}

#[cfg(test)]
mod tests;
