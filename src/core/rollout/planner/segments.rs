//! Time, cut at every edge of every window: within a segment the set of windows does not change.

use std::ops::Range;

use chrono::{DateTime, Utc};

use crate::core::model::window::Window;

/// The required range, cut into segments. Instants are milliseconds after now.
#[derive(Debug)]
pub(super) struct Segments {
    cuts: Vec<i64>,
    now: DateTime<Utc>,
}

impl Segments {
    pub(super) fn cut(
        windows: impl Iterator<Item = Window>,
        required: Window,
        now: DateTime<Utc>,
    ) -> Self {
        let mut all = Self {
            cuts: Vec::new(),
            now,
        };
        let (from, to) = all.span(required);
        let mut cuts = vec![from, to.max(from)];
        for window in windows {
            let (older, newer) = all.span(window);
            cuts.extend(
                [older, newer]
                    .into_iter()
                    .filter(|cut| (from..=to).contains(cut)),
            );
        }
        cuts.sort_unstable();
        cuts.dedup();
        all.cuts = cuts;
        all
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.now
    }

    pub(super) fn len(&self) -> usize {
        self.cuts.len().saturating_sub(1)
    }

    /// The segments within a window. Both ends of a window belong to it, so adjacent windows leave
    /// no gap.
    pub(super) fn held(&self, window: Window) -> Range<usize> {
        let (from, to) = self.span(window);
        let first = self.cuts.partition_point(|cut| *cut < from);
        let end = self
            .cuts
            .partition_point(|cut| *cut <= to)
            .saturating_sub(1);
        first.min(end)..end
    }

    /// The ends of a segment, in milliseconds after now.
    pub(super) fn ends(&self, segment: usize) -> (i64, i64) {
        (self.cuts[segment], self.cuts[segment + 1])
    }

    /// The ends of a window, in milliseconds after now.
    pub(super) fn span(&self, window: Window) -> (i64, i64) {
        let millis = |at: DateTime<Utc>| at.signed_duration_since(self.now).num_milliseconds();
        (
            millis(window.min.at(self.now)),
            millis(window.max.at(self.now)),
        )
    }
}
