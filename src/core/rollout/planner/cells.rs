//! The units that must stay served: each segment of the required range, and each part of a block
//! that some pod lacks.
//!
//! A pod that has not loaded one block serves the rest of its window like any other pod. So such a
//! block is a unit besides the segments. It is cut where windows begin and end, because thanos
//! answers only within its window, however far the block extends beyond it.

use std::collections::BTreeSet;
use std::ops::Range;

use chrono::{DateTime, Utc};

use super::segments::Segments;
use super::{Member, PlanTerms};
use crate::core::model::window::{Bound, Window};

/// A block that some pod has not loaded although it is in the pod's window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellBlock {
    /// From the oldest sample to the end of the newest samples.
    pub range: super::TimeRange,
    /// Positions of the members that have not loaded it.
    pub lacking: BTreeSet<usize>,
}

/// The parts of a block, one for each segment that it overlaps.
#[derive(Clone, Debug)]
struct BlockParts {
    segments: Range<usize>,
    /// Index of the first part among all cells.
    first: usize,
    lacking: BTreeSet<usize>,
}

/// All cells: segments first, then the parts of blocks.
#[derive(Debug)]
pub(super) struct Cells {
    segments: Segments,
    blocks: Vec<BlockParts>,
    len: usize,
}

/// The cells that a pod serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CellHolders {
    segments: Range<usize>,
    parts: Vec<Range<usize>>,
}

impl CellHolders {
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.segments
            .clone()
            .chain(self.parts.iter().cloned().flatten())
    }

    pub(super) fn contains(&self, cell: usize) -> bool {
        self.segments.contains(&cell) || self.parts.iter().any(|part| part.contains(&cell))
    }

    /// The lowest cell.
    pub(super) fn first(&self) -> Option<usize> {
        self.iter().next()
    }
}

impl CellBlock {
    /// Whether a pod with this window would load it: thanos' filter includes both ends.
    #[must_use]
    pub fn is_in(&self, window: Window, now: DateTime<Utc>) -> bool {
        self.range.1 >= window.min.at(now) && self.range.0 <= window.max.at(now)
    }

    pub(super) fn window(&self) -> Window {
        Window {
            min: Bound::Absolute(self.range.0),
            max: Bound::Absolute(self.range.1),
        }
    }
}

impl Cells {
    pub(super) fn new(members: &[Member], blocks: &[CellBlock], terms: &PlanTerms) -> Self {
        let windows = members
            .iter()
            .flat_map(|member| [member.published.window, member.desired.window]);
        let segments = Segments::cut(
            windows.chain(blocks.iter().map(CellBlock::window)),
            terms.required,
            terms.now,
        );
        let mut len = segments.len();
        let parts = |block: &CellBlock| {
            let (segments, first) = (segments.held(block.window()), len);
            len += segments.len();
            BlockParts {
                segments,
                first,
                lacking: block.lacking.clone(),
            }
        };
        let blocks = blocks.iter().map(parts).collect();
        Self {
            segments,
            blocks,
            len,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.segments.now()
    }

    /// The ends of a segment, in milliseconds after now.
    pub(super) fn ends(&self, segment: usize) -> (i64, i64) {
        self.segments.ends(segment)
    }

    /// The ends of a window, in milliseconds after now.
    pub(super) fn span(&self, window: Window) -> (i64, i64) {
        self.segments.span(window)
    }

    pub(super) fn segments(&self, window: Window) -> Range<usize> {
        self.segments.held(window)
    }

    /// The cells that a member serves with this window. A member that lacks a block is assumed to
    /// lack it after a restart, too: whether it loads it then is known only afterwards.
    pub(super) fn held(&self, member: usize, window: Window) -> CellHolders {
        let segments = self.segments.held(window);
        let has = |parts: &&BlockParts| !parts.lacking.contains(&member);
        let parts = self
            .blocks
            .iter()
            .filter(has)
            .map(|parts| parts.within(&segments))
            .filter(|part| !part.is_empty())
            .collect();
        CellHolders { segments, parts }
    }

    /// Every cell within the window, whether or not a pod lacks it.
    pub(super) fn wanted(&self, window: Window) -> CellHolders {
        let segments = self.segments.held(window);
        let parts = self
            .blocks
            .iter()
            .map(|parts| parts.within(&segments))
            .filter(|part| !part.is_empty())
            .collect();
        CellHolders { segments, parts }
    }

    pub(super) fn parts(&self, block: usize) -> Range<usize> {
        let parts = &self.blocks[block];
        parts.first..parts.first + parts.segments.len()
    }

    /// The blocks that a member has not loaded.
    pub(super) fn lacked_by(&self, member: usize) -> Vec<usize> {
        (0..self.blocks.len())
            .filter(|block| self.blocks[*block].lacking.contains(&member))
            .collect()
    }

    /// The cells that are parts of blocks.
    pub(super) fn all_parts(&self) -> Range<usize> {
        self.segments.len()..self.len
    }
}

impl BlockParts {
    fn within(&self, segments: &Range<usize>) -> Range<usize> {
        let inside = |segment: usize| {
            segment.clamp(self.segments.start, self.segments.end) - self.segments.start + self.first
        };
        inside(segments.start)..inside(segments.end).max(inside(segments.start))
    }
}
