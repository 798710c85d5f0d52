//! How the shards of a plan share the blocks: the load of each shard, and the blocks that are loaded
//! more than once.

use chrono::{DateTime, Utc};

use super::{Block, Inventory, Resolution, Tally};
use crate::core::model::window::Window;
use crate::core::plan::Plan;

/// The load of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub loaded: Tally,
    /// The same in the order of [`Resolution::ALL`].
    pub by_resolution: [Tally; 3],
    /// The part that another shard loads, too.
    pub shared: Tally,
}

/// Loads beyond the first, over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// Of blocks within the overlap of two windows, as configured.
    pub within_overlap: Tally,
    /// Of blocks across an edge.
    pub across_edges: Tally,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardShares {
    /// Newest first.
    pub shards: Vec<Share>,
    /// Blocks that at least one shard loads, each counted once.
    pub loaded: Tally,
    pub again: Again,
    /// Blocks that end before the oldest window.
    pub older: Tally,
    /// Blocks that begin after the newest window.
    pub future: Tally,
}

/// Windows as instants, newest first.
struct Edges {
    min: Vec<i64>,
    max: Vec<i64>,
}

impl Edges {
    fn new(plan: &Plan, now: DateTime<Utc>) -> Self {
        let windows: Vec<Window> = (0..)
            .zip(plan.shards())
            .map(|(shard, _)| plan.window(shard, now))
            .collect();
        Self {
            min: windows
                .iter()
                .map(|window| window.min.at(now).timestamp_millis())
                .collect(),
            max: windows
                .iter()
                .map(|window| window.max.at(now).timestamp_millis())
                .collect(),
        }
    }

    /// Returns the shards that load a block: both ends of a window are inclusive, as in Thanos'
    /// filter.
    fn loading(&self, block: &Block) -> std::ops::Range<usize> {
        let first = self.min.partition_point(|min| *min > block.max);
        let end = self.max.partition_point(|max| *max >= block.min);
        first..end
    }
}

impl ShardShares {
    #[must_use]
    pub fn new(inventory: &Inventory, plan: &Plan, now: DateTime<Utc>) -> Self {
        let edges = Edges::new(plan, now);
        let count = edges.min.len();
        let mut shares = Self {
            shards: vec![Share::default(); count],
            loaded: Tally::default(),
            again: Again::default(),
            older: Tally::default(),
            future: Tally::default(),
        };
        let Some(newest) = edges.max.first().copied() else {
            return shares;
        };
        // A block is added at its first shard and subtracted after its last one; the sums follow at
        // the end.
        let mut ends = vec![Share::default(); count + 1];
        for block in inventory.blocks() {
            let loading = edges.loading(block);
            if loading.is_empty() {
                if block.min > newest {
                    shares.future.add(block, 1);
                } else {
                    shares.older.add(block, 1);
                }
                continue;
            }
            shares.loaded.add(block, 1);
            let again = (loading.len() - 1) as u64;
            if again > 0 {
                let within = block.min >= edges.min[loading.start]
                    && block.max <= edges.max[loading.start + 1];
                let of = if within {
                    &mut shares.again.within_overlap
                } else {
                    &mut shares.again.across_edges
                };
                of.add(block, again);
            }
            shares.shards[loading.start].count(block, again > 0);
            ends[loading.end].count(block, again > 0);
        }
        let mut running = Share::default();
        for (share, ended) in shares.shards.iter_mut().zip(&ends) {
            running = running.plus(share).minus(ended);
            *share = running;
        }
        shares
    }

    #[must_use]
    pub fn loaded_again(&self) -> Tally {
        self.again.within_overlap.plus(&self.again.across_edges)
    }
}

impl Share {
    fn count(&mut self, block: &Block, shared: bool) {
        self.loaded.add(block, 1);
        self.by_resolution[block.resolution as usize].add(block, 1);
        if shared {
            self.shared.add(block, 1);
        }
    }

    fn map(&self, other: &Self, with: impl Fn(&Tally, &Tally) -> Tally) -> Self {
        let mut both = Self {
            loaded: with(&self.loaded, &other.loaded),
            shared: with(&self.shared, &other.shared),
            ..*self
        };
        for resolution in Resolution::ALL {
            let i = resolution as usize;
            both.by_resolution[i] = with(&self.by_resolution[i], &other.by_resolution[i]);
        }
        both
    }

    fn plus(&self, other: &Self) -> Self {
        self.map(other, Tally::plus)
    }

    fn minus(&self, other: &Self) -> Self {
        self.map(other, Tally::minus)
    }
}

impl Tally {
    fn plus(&self, other: &Self) -> Self {
        Self {
            blocks: self.blocks + other.blocks,
            bytes: self.bytes.saturating_add(other.bytes),
            samples: self.samples.saturating_add(other.samples),
        }
    }

    fn minus(&self, other: &Self) -> Self {
        Self {
            blocks: self.blocks.saturating_sub(other.blocks),
            bytes: self.bytes.saturating_sub(other.bytes),
            samples: self.samples.saturating_sub(other.samples),
        }
    }
}
