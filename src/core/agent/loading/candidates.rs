//! Which blocks of a bucket lie in, before or after a window: thanos' time filter.

use chrono::{DateTime, Utc};

use super::super::loaded::BucketCounts;
use super::meta::BlockRange;
use crate::core::model::window::Window;

/// Thanos evaluated its window shortly before its sync was seen. If the window has fewer blocks
/// than are missing, blocks this close to its edges are named too. Milliseconds.
pub const EDGE_MILLIS: i64 = 15 * 60 * 1000;

/// A window as thanos compares it with blocks; both edges are inclusive. Milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CandidateRange {
    min: i64,
    max: i64,
}

impl CandidateRange {
    /// Evaluates the window at `unix_seconds`.
    #[must_use]
    pub fn of(window: Window, unix_seconds: i64) -> Self {
        let now = DateTime::<Utc>::from_timestamp(unix_seconds, 0).unwrap_or_default();
        Self {
            min: window.min.at(now).timestamp_millis(),
            max: window.max.at(now).timestamp_millis(),
        }
    }

    /// Adds [`EDGE_MILLIS`] on both sides.
    #[must_use]
    pub const fn widened(self) -> Self {
        Self {
            min: self.min.saturating_sub(EDGE_MILLIS),
            max: self.max.saturating_add(EDGE_MILLIS),
        }
    }

    /// Applies thanos' time filter.
    #[must_use]
    pub const fn holds(self, block: BlockRange) -> bool {
        block.max >= self.min && block.min <= self.max
    }
}

/// Counts the blocks outside the range.
#[must_use]
pub fn count(blocks: &[BlockRange], range: CandidateRange) -> BucketCounts {
    let of = |outside: &dyn Fn(&BlockRange) -> bool| {
        blocks.iter().filter(|block| outside(block)).count() as u64
    };
    BucketCounts {
        total: blocks.len() as u64,
        older: of(&|block| block.max < range.min),
        newer: of(&|block| block.min > range.max),
    }
}

#[cfg(test)]
mod tests {
    use super::super::meta::Ulid;
    use super::*;

    #[test]
    fn both_edges_belong_to_a_window() {
        let window = Window {
            min: "-10s".parse().unwrap(),
            max: "1970-01-01T00:01:40Z".parse().unwrap(),
        };
        let range = CandidateRange::of(window, 60);
        let ulid = Ulid::parse("01K1H8R1000000000000A1B2C3").unwrap();
        let blocks = [
            (0, 49_999),
            (0, 50_000),
            (60_000, 70_000),
            (100_000, 200_000),
            (100_001, 200_000),
        ]
        .map(|(min, max)| BlockRange { ulid, min, max });
        assert_eq!(
            blocks.map(|block| range.holds(block)),
            [false, true, true, true, false]
        );
        assert_eq!(
            count(&blocks, range),
            BucketCounts {
                total: 5,
                older: 1,
                newer: 1
            }
        );
        assert!(blocks.iter().all(|block| range.widened().holds(*block)));
    }
}
