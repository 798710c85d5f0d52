//! How many blocks a window will have, from what the pods of the set have loaded; and whether it
//! will be larger than any window that they have loaded.
//!
//! Blocks count as spread evenly over each window that a pod reports; where windows overlap, the
//! shortest one decides, because it is the most local. Deliberately absent: bytes, which no pod
//! reports.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use chrono::{DateTime, Utc};

use super::PodLoad;
use crate::core::model::window::{Bound, Window};

/// A window may be larger by a tenth than the largest tried one before it counts as untried. That
/// covers what an estimate cannot know: blocks at the edges that two windows share, the time since
/// the last load, and uneven spread.
const TOLERANCE: f64 = 1.1;

/// Why no pod has loaded a window as large as a planned one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untried {
    Blocks {
        /// Estimated blocks of the window.
        about: u64,
        /// The most blocks that a pod of the set has loaded.
        largest: u64,
    },
    /// No pod reports its blocks. Both in seconds.
    Length { window: i64, longest: i64 },
}

/// What is known of the blocks of a set.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    density: Density,
    /// End and blocks of windows without a beginning.
    open: Vec<(f64, f64)>,
    /// Blocks before every window that a pod reports.
    older: Option<f64>,
    largest: Option<u64>,
    /// In seconds, of the applied windows; `None` without any, infinite for an open one.
    longest: Option<f64>,
    now: DateTime<Utc>,
}

impl Sizes {
    /// Collects what the pods report. `now` resolves relative windows.
    #[must_use]
    pub fn new(pods: &[PodLoad], now: DateTime<Utc>) -> Self {
        let older = pods.iter().filter_map(|pod| pod.older).min();
        let mut sizes = Self {
            older: older.map(as_number),
            now,
            ..Self::default()
        };
        let mut spans = Vec::new();
        for pod in pods {
            let loaded = pod.applied.zip(pod.blocks);
            let before = pod
                .last_load
                .and_then(|load| Some((load.window, load.blocks?)));
            for (window, blocks) in [loaded, before].into_iter().flatten() {
                sizes.largest = sizes.largest.max(Some(blocks));
                match sizes.bounds(window) {
                    (Some(from), to) => spans.push(Span {
                        from,
                        to,
                        blocks: as_number(blocks),
                    }),
                    (None, to) => sizes.open.push((to, as_number(blocks))),
                }
            }
            if let Some(window) = pod.applied {
                let length = sizes.length(window).unwrap_or(f64::INFINITY);
                sizes.longest = Some(sizes.longest.map_or(length, |other| other.max(length)));
            }
        }
        sizes.density = Density::of(spans);
        sizes
    }

    /// Estimates the blocks of a window; `None` if too little is known.
    #[must_use]
    pub fn blocks(&self, window: Window) -> Option<u64> {
        let (from, to) = self.bounds(window);
        let estimate = match from {
            Some(from) => self.within(from, to)?,
            None => self.since_the_beginning(to)?,
        };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and saturating"
        )]
        Some(estimate.max(0.0).round() as u64)
    }

    /// Returns why no pod has loaded a window of this size, or `None` if one has, or if nothing is
    /// known.
    #[must_use]
    pub fn untried(&self, window: Window) -> Option<Untried> {
        if let Some((about, largest)) = self.blocks(window).zip(self.largest) {
            return (as_number(about) > as_number(largest) * TOLERANCE)
                .then_some(Untried::Blocks { about, largest });
        }
        let (length, longest) = (self.length(window)?, self.longest?);
        (length > longest * TOLERANCE).then_some(Untried::Length {
            window: whole(length),
            longest: whole(longest),
        })
    }

    /// Resolves a window; there are no blocks in the future. Without a beginning the first is `None`.
    fn bounds(&self, window: Window) -> (Option<f64>, f64) {
        let at = |bound: Bound| seconds(bound.at(self.now).min(self.now));
        let from = (window.min != Bound::BEGINNING).then(|| at(window.min));
        (from, at(window.max))
    }

    fn length(&self, window: Window) -> Option<f64> {
        let (from, to) = self.bounds(window);
        from.map(|from| to - from)
    }

    fn within(&self, from: f64, to: f64) -> Option<f64> {
        let smallest_open = self.open.iter().map(|(_, blocks)| *blocks).reduce(f64::min);
        let Some((oldest, before)) = self.density.oldest() else {
            return smallest_open;
        };
        let known = self.density.sum(from.max(oldest), to.max(oldest));
        let older = (to.min(oldest) - from).max(0.0) * before;
        // An extrapolation cannot find more than there is.
        let most = smallest_open.or(self.older).unwrap_or(f64::INFINITY);
        Some(known + older.min(most))
    }

    fn since_the_beginning(&self, to: f64) -> Option<f64> {
        let by_distance =
            |(a, _): &&(f64, f64), (b, _): &&(f64, f64)| (a - to).abs().total_cmp(&(b - to).abs());
        let oldest = self.density.oldest().map(|(oldest, _)| oldest);
        match (self.open.iter().min_by(by_distance), oldest) {
            (Some((end, blocks)), Some(_)) if to >= *end => Some(blocks + self.within(*end, to)?),
            (Some((end, blocks)), Some(oldest)) if oldest <= to => {
                Some((blocks - self.within(to, *end)?).max(0.0))
            }
            // Without windows in between, all of them may be older.
            (Some((_, blocks)), _) => Some(*blocks),
            (None, Some(oldest)) => Some(self.older? + self.within(oldest, to.max(oldest))?),
            (None, None) => None,
        }
    }
}

/// A window with both ends, in seconds since 1970, and its blocks.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: f64,
    to: f64,
    blocks: f64,
}

/// A span that is open at an edge, the shortest first.
#[derive(Clone, Copy, Debug)]
struct Open(Span);

impl Open {
    fn length(self) -> f64 {
        self.0.to - self.0.from
    }
}

impl Ord for Open {
    fn cmp(&self, other: &Self) -> Ordering {
        self.length().total_cmp(&other.length())
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Open {}

/// Blocks per second, by parts of the time that pods report.
#[derive(Clone, Debug, Default)]
struct Density {
    /// Ascending; empty or at least two.
    edges: Vec<f64>,
    /// Of the part that begins at the edge with the same index.
    parts: Vec<f64>,
    /// Blocks before each edge, from the first one on.
    before: Vec<f64>,
}

impl Density {
    fn of(mut spans: Vec<Span>) -> Self {
        spans.retain(|span| span.from < span.to);
        spans.sort_by(|a, b| a.from.total_cmp(&b.from));
        let mut edges: Vec<f64> = spans.iter().flat_map(|span| [span.from, span.to]).collect();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let mut spans = spans.into_iter().peekable();
        let mut open = BinaryHeap::new();
        let mut found: Vec<Option<f64>> = Vec::with_capacity(edges.len());
        for (from, to) in edges.iter().zip(edges.iter().skip(1)) {
            while let Some(span) = spans.next_if(|span| span.from <= *from) {
                open.push(Reverse(Open(span)));
            }
            while open.peek().is_some_and(|Reverse(span)| span.0.to < *to) {
                open.pop();
            }
            let shortest = open.peek();
            found.push(shortest.map(|Reverse(span)| span.0.blocks / span.length()));
        }
        let parts = filled(&found);
        let mut sum = 0.0;
        let mut before = vec![sum];
        for (part, (from, to)) in parts.iter().zip(edges.iter().zip(edges.iter().skip(1))) {
            sum += part * (to - from);
            before.push(sum);
        }
        Self {
            edges,
            parts,
            before,
        }
    }

    /// Returns the oldest edge and the density after it.
    fn oldest(&self) -> Option<(f64, f64)> {
        Some((*self.edges.first()?, *self.parts.first()?))
    }

    /// Counts the blocks between two times that are not before the oldest edge.
    fn sum(&self, from: f64, to: f64) -> f64 {
        (self.before(to) - self.before(from)).max(0.0)
    }

    /// After the newest edge, the newest density goes on.
    fn before(&self, at: f64) -> f64 {
        let part = self
            .edges
            .partition_point(|edge| *edge <= at)
            .saturating_sub(1)
            .min(self.parts.len().saturating_sub(1));
        let known = self.before.get(part).zip(self.edges.get(part));
        let density = self.parts.get(part).copied().unwrap_or_default();
        known.map_or(0.0, |(before, edge)| before + density * (at - edge))
    }
}

/// Gives a part that no window has the larger density of its neighbours.
fn filled(found: &[Option<f64>]) -> Vec<f64> {
    let mut after = vec![0.0; found.len()];
    let mut next = 0.0;
    for (i, part) in found.iter().enumerate().rev() {
        next = part.unwrap_or(next);
        after[i] = next;
    }
    let mut last: f64 = 0.0;
    found
        .iter()
        .zip(after)
        .map(|(part, after)| {
            last = part.unwrap_or(last);
            part.unwrap_or(last.max(after))
        })
        .collect()
}

#[allow(
    clippy::cast_precision_loss,
    reason = "blocks and seconds are below 2^53"
)]
const fn as_number(count: u64) -> f64 {
    count as f64
}

#[allow(
    clippy::cast_precision_loss,
    reason = "exact until the year 285 million"
)]
fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp() as f64
}

#[allow(clippy::cast_possible_truncation, reason = "a difference of two times")]
fn whole(seconds: f64) -> i64 {
    seconds as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(oldest: i64, newest: i64) -> Window {
        let bound = |days: i64| {
            Bound::Relative(crate::core::model::duration::PromDuration::from_days(-days))
        };
        Window {
            min: bound(oldest),
            max: bound(newest),
        }
    }

    fn forever(newest: i64) -> Window {
        Window {
            min: Bound::BEGINNING,
            ..window(0, newest)
        }
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_651_200, 0).unwrap()
    }

    fn pod(window: Window, blocks: Option<u64>) -> PodLoad {
        PodLoad {
            applied: Some(window),
            blocks,
            ..PodLoad::default()
        }
    }

    fn sizes(pods: &[PodLoad]) -> Sizes {
        Sizes::new(pods, now())
    }

    #[test]
    fn fewer_shards_have_more_blocks() {
        // Old data is compacted: fewer blocks a day.
        let sizes = sizes(&[
            pod(window(10, -1), Some(120)),
            pod(window(110, 10), Some(300)),
            pod(window(370, 110), Some(260)),
        ]);
        assert_eq!(sizes.blocks(window(10, -1)), Some(120));
        assert_eq!(sizes.blocks(window(20, 0)), Some(150));
        assert_eq!(sizes.blocks(window(370, -1)), Some(680));
        assert_eq!(sizes.blocks(window(400, 110)), Some(290), "extrapolated");
        assert_eq!(
            sizes.untried(window(120, 0)),
            Some(Untried::Blocks {
                about: 430,
                largest: 300
            })
        );
        assert_eq!(sizes.untried(window(30, 0)), None);
        // 320 blocks are within the tolerance.
        assert_eq!(sizes.untried(window(120, 10)), None);
    }

    #[test]
    fn a_bucket_has_no_more_blocks_than_it_has() {
        let mut oldest = pod(window(100, 0), Some(1000));
        oldest.older = Some(7);
        assert_eq!(sizes(&[oldest]).blocks(window(400, 0)), Some(1007));
    }

    #[test]
    fn the_shortest_window_and_the_last_load_count() {
        let mut second = pod(window(200, 0), None);
        second.last_load = Some(super::super::LastLoad {
            window: window(30, 0),
            millis: 1,
            blocks: Some(900),
            blocks_new: None,
        });
        let sizes = sizes(&[pod(window(200, 0), Some(1000)), second]);
        assert_eq!(sizes.blocks(window(30, 0)), Some(900));
        assert_eq!(sizes.blocks(window(60, 0)), Some(1050));
        assert_eq!(sizes.untried(window(60, 0)), None);
    }

    #[test]
    fn windows_without_a_beginning() {
        let sizes = sizes(&[
            pod(forever(100), Some(500)),
            pod(window(100, 0), Some(1000)),
        ]);
        assert_eq!(sizes.blocks(forever(100)), Some(500));
        assert_eq!(sizes.blocks(forever(50)), Some(1000));
        assert_eq!(sizes.blocks(forever(200)), Some(500), "at most");
        assert_eq!(sizes.blocks(window(110, 0)), Some(1100));
        assert_eq!(sizes.blocks(window(900, 0)), Some(1500), "at most");
        assert_eq!(sizes.untried(forever(0)).map(|_| ()), Some(()));
        assert_eq!(super::Sizes::default().blocks(forever(0)), None);
        let only = super::Sizes::new(&[pod(forever(100), Some(500))], now());
        assert_eq!(only.blocks(window(200, 150)), Some(500));
    }

    #[test]
    fn without_counts_the_length_decides() {
        let known = [pod(window(100, 0), None), pod(window(200, 100), None)];
        assert_eq!(sizes(&known).blocks(window(10, 0)), None);
        assert_eq!(sizes(&known).untried(window(110, 0)), None);
        let day = 86_400;
        let untried = Untried::Length {
            window: 111 * day,
            longest: 100 * day,
        };
        assert_eq!(sizes(&known).untried(window(111, 0)), Some(untried));
        assert_eq!(sizes(&known).untried(forever(0)), None);
        let open = [known[0], pod(forever(100), None)];
        assert_eq!(sizes(&open).untried(window(300, 0)), None);
        assert_eq!(sizes(&[]).untried(window(300, 0)), None);
    }

    proptest! {
        /// From a split into any windows, the estimates of what pods have loaded are their counts,
        /// a part has no more blocks than the whole, and the parts sum up.
        #[test]
        fn estimates_are_consistent(
            lengths in prop::collection::vec((1_i64..50, 0_u64..5000), 1..30),
            (a, b, c) in (0_i64..400, 0_i64..400, 0_i64..400),
        ) {
            let mut newest = 0;
            let mut pods = Vec::new();
            for (length, blocks) in &lengths {
                pods.push(pod(window(newest + length, newest), Some(*blocks)));
                newest += length;
            }
            let sizes = sizes(&pods);
            for pod in &pods {
                prop_assert_eq!(sizes.blocks(pod.applied.unwrap()), pod.blocks);
                prop_assert_eq!(sizes.untried(pod.applied.unwrap()), None);
            }
            let mut days = [a, b, c];
            days.sort_unstable();
            let [a, b, c] = days;
            let of = |oldest, newest| sizes.blocks(window(oldest, newest)).unwrap();
            prop_assert!(of(c, a).abs_diff(of(c, b) + of(b, a)) <= 1);
            prop_assert!(of(b, a) <= of(c, a));
        }

        /// No report makes it panic or give nonsense.
        #[test]
        fn any_reports_are_survived(
            pods in prop::collection::vec(
                (-400_i64..400, -400_i64..400, prop::option::of(any::<u64>()), any::<bool>()), 0..10),
            (a, b) in (-400_i64..400, -400_i64..400),
        ) {
            let pods: Vec<PodLoad> = pods
                .into_iter()
                .map(|(a, b, blocks, open)| {
                    let window = if open { forever(b) } else { window(a, b) };
                    PodLoad { older: blocks, ..pod(window, blocks) }
                })
                .collect();
            let sizes = sizes(&pods);
            let _ = (sizes.blocks(window(a, b)), sizes.untried(window(a, b)), sizes.untried(forever(b)));
        }
    }
}
