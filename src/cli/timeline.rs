//! Windows as a picture in the terminal: one line a shard, the past on the left, every instant's shards above each other.

use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use comfy_table::{Table, presets};

use crate::core::config::Retention;
use crate::core::window::Window;

/// One line of the picture.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) label: String,
    pub(super) pods: u32,
    pub(super) window: Window,
}

/// Width of the bars, in characters.
const WIDTH: usize = 72;
/// Lines of the picture; more would not be looked at.
const MOST_ROWS: usize = 60;

/// A table without lines, as `kubectl get` prints them.
pub(super) fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(header.iter().map(ToString::to_string));
    table
}

/// What stands at the left end of the picture where the oldest row has no end.
pub(super) const OLDER: &str = "older";

/// Whether some row has no older end.
pub(super) fn is_open(rows: &[Row], now: DateTime<Utc>) -> bool {
    rows.iter()
        .any(|row| is_open_end(row.window.min.at(now), now))
}

fn is_open_end(end: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    end < now - Retention::Forever.covered().to_chrono()
}

/// The span of time that all rows together take, up to now at least. A row without an older end is drawn a quarter beyond the last end that there is.
pub(super) fn span(rows: &[Row], now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
    let mut from = rows
        .iter()
        .map(|row| row.window.min.at(now))
        .min()
        .unwrap_or(now);
    if is_open(rows, now) {
        let ends = rows
            .iter()
            .flat_map(|row| [row.window.min.at(now), row.window.max.at(now)])
            .filter(|end| !is_open_end(*end, now));
        let oldest = ends.min().unwrap_or(now).min(now - TimeDelta::days(1));
        from = oldest - (now - oldest) / 4;
    }
    let to = rows
        .iter()
        .map(|row| row.window.max.at(now))
        .max()
        .unwrap_or(now)
        .max(now);
    (from, to.max(from + TimeDelta::seconds(1)))
}

/// The fewest pods over any instant that the rows span together. One sweep over the sorted edges: both edges of a
/// window belong to it, and between two windows that do not touch there is a gap.
pub(super) fn fewest_pods(rows: &[Row], now: DateTime<Utc>) -> u32 {
    let mut edges: Vec<(DateTime<Utc>, bool, u32)> = rows
        .iter()
        .filter(|row| row.window.min.at(now) <= row.window.max.at(now))
        .flat_map(|row| {
            [
                (row.window.min.at(now), false, row.pods),
                (row.window.max.at(now), true, row.pods),
            ]
        })
        .collect();
    // At one instant windows begin before others end.
    edges.sort_unstable();
    let (mut pods, mut fewest) = (0, u32::MAX);
    let last = edges.len().saturating_sub(1);
    for (i, (at, ends, of)) in edges.iter().enumerate() {
        if *ends {
            pods -= of;
        } else {
            pods += of;
        }
        // Only where time passes until the next edge, and not behind the last one.
        if i < last && edges[i + 1].0 > *at {
            fewest = fewest.min(pods);
        }
    }
    if fewest == u32::MAX { pods } else { fewest }
}

/// The picture.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "positions on a line of 72 characters"
)]
pub(super) fn text(rows: &[Row], now: DateTime<Utc>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let (from, to) = span(rows, now);
    let whole = (to - from).num_seconds().max(1) as f64;
    let cell = |instant: DateTime<Utc>| {
        ((instant - from).num_seconds() as f64 / whole * WIDTH as f64).clamp(0.0, WIDTH as f64)
    };
    let left = rows.iter().map(|row| row.label.len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows.iter().take(MOST_ROWS).rev() {
        let start = (cell(row.window.min.at(now)).floor() as usize).min(WIDTH - 1);
        let end = (cell(row.window.max.at(now)).ceil() as usize).clamp(start + 1, WIDTH);
        let _ = writeln!(
            text,
            "{:left$}  {}{}{}  {} pod{}",
            row.label,
            "·".repeat(start),
            "█".repeat(end - start),
            "·".repeat(WIDTH - end),
            row.pods,
            if row.pods == 1 { "" } else { "s" }
        );
    }
    if rows.len() > MOST_ROWS {
        let _ = writeln!(
            text,
            "… and {} older shards; -o json has them all",
            rows.len() - MOST_ROWS
        );
    }
    let day = |instant: DateTime<Utc>| instant.format("%Y-%m-%d").to_string();
    let first = if is_open(rows, now) {
        OLDER.to_owned()
    } else {
        day(from)
    };
    let (middle, last) = (day(from + (to - from) / 2), day(to));
    let gap = WIDTH - first.len() - middle.len() - last.len();
    let _ = writeln!(
        text,
        "{:left$}  {first}{}{middle}{}{last}",
        "",
        " ".repeat(gap / 2),
        " ".repeat(gap - gap / 2)
    );
    let fewest = fewest_pods(rows, now);
    let _ = if fewest == 0 {
        writeln!(text, "GAP: some instants are served by no pod")
    } else {
        writeln!(
            text,
            "every instant is served by at least {fewest} pod{}",
            if fewest == 1 { "" } else { "s" }
        )
    };
    text
}
