//! How many windows cover each part of a range.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};

use super::segments::Segments;
use crate::core::model::window::{Bound, Window};

/// Older and newer end.
pub type TimeRange = (DateTime<Utc>, DateTime<Utc>);

/// Returns how windows cover a range at `now`: the fewest windows over any instant, and the ranges
/// that no window covers.
#[must_use]
pub fn coverage(windows: &[Window], required: Window, now: DateTime<Utc>) -> (u32, Vec<TimeRange>) {
    let held = holders([windows], required, now);
    let fewest = held.iter().map(|(_, [count])| *count).min().unwrap_or(0);
    (
        fewest,
        joined(
            held.into_iter()
                .filter(|(_, [count])| *count == 0)
                .map(|(range, _)| range),
        ),
    )
}

/// Returns how many windows of each list cover each part of a range at `now`, oldest part first.
/// Within a part no window of any list begins or ends.
#[must_use]
pub fn holders<const LISTS: usize>(
    lists: [&[Window]; LISTS],
    required: Window,
    now: DateTime<Utc>,
) -> Vec<(TimeRange, [u32; LISTS])> {
    let segments = Segments::cut(lists.iter().copied().flatten().copied(), required, now);
    // Counts the starts and ends and sums them up afterwards: counting each window in each of its
    // segments would be quadratic.
    let mut begin_or_end = vec![[0_i64; LISTS]; segments.len() + 1];
    for (list, windows) in lists.iter().enumerate() {
        for window in *windows {
            let held = segments.held(*window);
            begin_or_end[held.start][list] += 1;
            begin_or_end[held.end][list] -= 1;
        }
    }
    let mut now_held = [0_i64; LISTS];
    let sum = |changes: [i64; LISTS]| {
        for (count, change) in now_held.iter_mut().zip(changes) {
            *count += change;
        }
        now_held.map(|count| u32::try_from(count).unwrap_or(0))
    };
    let held: Vec<[u32; LISTS]> = begin_or_end
        .into_iter()
        .take(segments.len())
        .map(sum)
        .collect();
    let at = |millis| now + chrono::TimeDelta::milliseconds(millis);
    let range = |segment: usize| (at(segments.ends(segment).0), at(segments.ends(segment).1));
    held.into_iter()
        .enumerate()
        .map(|(segment, counts)| (range(segment), counts))
        .collect()
}

/// Merges ranges of which each begins where the one before ends.
pub fn joined(ranges: impl IntoIterator<Item = TimeRange>) -> Vec<TimeRange> {
    let mut joined: Vec<TimeRange> = Vec::new();
    for (from, to) in ranges {
        match joined.last_mut().filter(|(_, end)| *end == from) {
            Some((_, end)) => *end = to,
            None => joined.push((from, to)),
        }
    }
    joined
}

/// Returns the smallest window that contains all of these.
#[must_use]
pub fn hull(windows: &[Window], now: DateTime<Utc>) -> Window {
    let min = windows.iter().map(|window| window.min);
    let max = windows.iter().map(|window| window.max);
    let min = min.min_by_key(|bound| bound.at(now));
    // Unlike `max_by_key`, prefers the first of equal bounds.
    let max = max.min_by_key(|bound| Reverse(bound.at(now)));
    match (min, max) {
        (Some(min), Some(max)) => Window { min, max },
        _ => Window {
            min: Bound::Absolute(now),
            max: Bound::Absolute(now),
        },
    }
}
