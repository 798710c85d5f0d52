//! Who holds what of a range, counted.

use chrono::{DateTime, Utc};

use super::segments::Segments;
use crate::core::window::{Bound, Window};

/// From and to.
pub type Range = (DateTime<Utc>, DateTime<Utc>);

/// How well windows cover a range at `now`: the fewest of them that any instant has, and what none of them holds.
#[must_use]
pub fn coverage(windows: &[Window], required: Window, now: DateTime<Utc>) -> (u32, Vec<Range>) {
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

/// How many windows of each of several lists hold each part of a range at `now`, oldest part first. Within a part no
/// window of any list begins or ends.
#[must_use]
pub fn holders<const LISTS: usize>(
    lists: [&[Window]; LISTS],
    required: Window,
    now: DateTime<Utc>,
) -> Vec<(Range, [u32; LISTS])> {
    let segments = Segments::cut(lists.iter().copied().flatten().copied(), required, now);
    // Where windows begin and end, summed up afterwards: windows that are all long would be counted in every segment each.
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

/// Ranges that touch as one, in the order in which they come.
pub fn joined(ranges: impl IntoIterator<Item = Range>) -> Vec<Range> {
    let mut whole: Vec<Range> = Vec::new();
    for (from, to) in ranges {
        match whole.last_mut().filter(|(_, end)| *end == from) {
            Some((_, end)) => *end = to,
            None => whole.push((from, to)),
        }
    }
    whole
}

/// The smallest window that holds all of these.
#[must_use]
pub fn hull(windows: &[Window], now: DateTime<Utc>) -> Window {
    let pick = |bounds: &mut dyn Iterator<Item = Bound>, older: bool| {
        bounds.reduce(|a, b| {
            let b_is_further = if older {
                b.at(now) < a.at(now)
            } else {
                b.at(now) > a.at(now)
            };
            if b_is_further { b } else { a }
        })
    };
    let min = pick(&mut windows.iter().map(|window| window.min), true);
    let max = pick(&mut windows.iter().map(|window| window.max), false);
    match (min, max) {
        (Some(min), Some(max)) => Window { min, max },
        _ => Window {
            min: Bound::Absolute(now),
            max: Bound::Absolute(now),
        },
    }
}
