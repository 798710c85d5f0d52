//! What has to stay served: each segment of the required range, and each part of a block that some pod lacks.
//!
//! A window stays whole: a pod that has not loaded one block serves the rest of its window like any other. So such a block is
//! an item of its own beside the segments, cut where windows begin and end, since thanos answers for its window only, however
//! far a block reaches beyond it.

use std::collections::BTreeSet;
use std::ops::Range;

use chrono::{DateTime, Utc};

use super::segments::Segments;
use super::{Member, Terms};
use crate::core::window::{Bound, Window};

/// A block that some pod has not loaded although its window holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// From its oldest sample to the end of its newest samples.
    pub range: super::Range,
    /// Positions of the members that have not loaded it.
    pub lacking: BTreeSet<usize>,
}

/// The parts of a block, one for each segment that it reaches into.
#[derive(Clone, Debug)]
struct Parts {
    segments: Range<usize>,
    /// The first part's number among all cells.
    first: usize,
    lacking: BTreeSet<usize>,
}

/// Segments first, then the parts of blocks.
#[derive(Debug)]
pub(super) struct Cells {
    segments: Segments,
    blocks: Vec<Parts>,
    len: usize,
}

/// What a pod holds: segments, and parts of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    segments: Range<usize>,
    parts: Vec<Range<usize>>,
}

impl Held {
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.segments
            .clone()
            .chain(self.parts.iter().cloned().flatten())
    }

    pub(super) fn contains(&self, cell: usize) -> bool {
        self.segments.contains(&cell) || self.parts.iter().any(|part| part.contains(&cell))
    }

    /// The lowest cell, if there is one.
    pub(super) fn first(&self) -> Option<usize> {
        self.iter().next()
    }
}

impl Block {
    /// Whether a pod with this window would load it: thanos' filter includes both ends.
    #[must_use]
    pub fn is_in(&self, window: Window, now: DateTime<Utc>) -> bool {
        self.range.1 >= window.min.at(now) && self.range.0 <= window.max.at(now)
    }

    fn window(&self) -> Window {
        Window {
            min: Bound::Absolute(self.range.0),
            max: Bound::Absolute(self.range.1),
        }
    }
}

impl Cells {
    pub(super) fn new(members: &[Member], blocks: &[Block], terms: &Terms) -> Self {
        let windows = members
            .iter()
            .flat_map(|member| [member.published.window, member.desired.window]);
        let segments = Segments::cut(
            windows.chain(blocks.iter().map(Block::window)),
            terms.required,
            terms.now,
        );
        let mut len = segments.len();
        let parts = |block: &Block| {
            let (segments, first) = (segments.held(block.window()), len);
            len += segments.len();
            Parts {
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

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.segments.now()
    }

    /// A segment's ends.
    pub(super) fn ends(&self, segment: usize) -> (i64, i64) {
        self.segments.ends(segment)
    }

    /// The segments of a window.
    pub(super) fn segments(&self, window: Window) -> Range<usize> {
        self.segments.held(window)
    }

    /// What a member holds while it serves this window. One that lacks a block is taken to lack it after a restart, too: that
    /// is known only when it has loaded the window again.
    pub(super) fn held(&self, member: usize, window: Window) -> Held {
        let segments = self.segments.held(window);
        let has = |parts: &&Parts| !parts.lacking.contains(&member);
        let parts = self
            .blocks
            .iter()
            .filter(has)
            .map(|parts| parts.within(&segments))
            .filter(|part| !part.is_empty())
            .collect();
        Held { segments, parts }
    }

    /// Every cell within the window's range, whoever lacks what: what the plan wants there.
    pub(super) fn wanted(&self, window: Window) -> Held {
        let segments = self.segments.held(window);
        let parts = self
            .blocks
            .iter()
            .map(|parts| parts.within(&segments))
            .filter(|part| !part.is_empty())
            .collect();
        Held { segments, parts }
    }

    /// The parts of one block.
    pub(super) fn parts(&self, block: usize) -> Range<usize> {
        let parts = &self.blocks[block];
        parts.first..parts.first + parts.segments.len()
    }

    /// Cells that are parts of blocks.
    pub(super) fn all_parts(&self) -> Range<usize> {
        self.segments.len()..self.len
    }
}

impl Parts {
    fn within(&self, segments: &Range<usize>) -> Range<usize> {
        let inside = |segment: usize| {
            segment.clamp(self.segments.start, self.segments.end) - self.segments.start + self.first
        };
        inside(segments.start)..inside(segments.end).max(inside(segments.start))
    }
}
