//! Windows as a picture in the terminal: one line per shard, the past on the left.

use std::fmt::Write as _;
use std::iter::repeat_n;

use chrono::{DateTime, TimeDelta, Utc};
use comfy_table::{Table, presets};

use crate::core::config::Retention;
use crate::core::model::text::counted;
use crate::core::model::window::Window;
use crate::core::rollout::planner;

#[derive(Clone, Debug)]
pub(super) struct TimelineRow {
    pub(super) label: String,
    pub(super) pods: u32,
    pub(super) window: Window,
}

/// Width of the bars, in characters.
const WIDTH: usize = 72;
/// How many lines are drawn.
const MAX_ROWS: usize = 60;

/// A table without lines, as `kubectl get` prints them.
pub(super) fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(header.iter().map(ToString::to_string));
    table
}

/// Labels the left end if the oldest row has no end.
pub(super) const OLDER: &str = "older";

/// Whether some row has no older end.
pub(super) fn is_open(rows: &[TimelineRow], now: DateTime<Utc>) -> bool {
    rows.iter()
        .any(|row| is_open_end(row.window.min.at(now), now))
}

fn is_open_end(end: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    end < now - Retention::Forever.covered().to_chrono()
}

/// Returns the time from the oldest to the newest end, at least up to now. A row without an older end
/// extends a quarter beyond the oldest finite end.
pub(super) fn span(rows: &[TimelineRow], now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
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

/// Returns the fewest pods that serve any instant between the oldest and newest end.
pub(super) fn fewest_pods(rows: &[TimelineRow], now: DateTime<Utc>) -> u32 {
    let ends = |row: &TimelineRow| (row.window.min.at(now), row.window.max.at(now));
    let rows = || rows.iter().filter(|row| ends(row).0 <= ends(row).1);
    let oldest = rows().min_by_key(|row| ends(row).0);
    let newest = rows().max_by_key(|row| ends(row).1);
    let (Some(oldest), Some(newest)) = (oldest, newest) else {
        return 0;
    };
    let all = Window {
        min: oldest.window.min,
        max: newest.window.max,
    };
    let windows: Vec<Window> = rows()
        .flat_map(|row| repeat_n(row.window, row.pods as usize))
        .collect();
    planner::coverage(&windows, all, now).0
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "positions on a line of 72 characters"
)]
pub(super) fn text(rows: &[TimelineRow], now: DateTime<Utc>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let (from, to) = span(rows, now);
    let total = (to - from).num_seconds().max(1) as f64;
    let cell = |instant: DateTime<Utc>| {
        ((instant - from).num_seconds() as f64 / total * WIDTH as f64).clamp(0.0, WIDTH as f64)
    };
    let left = rows.iter().map(|row| row.label.len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows.iter().take(MAX_ROWS).rev() {
        let start = (cell(row.window.min.at(now)).floor() as usize).min(WIDTH - 1);
        let end = (cell(row.window.max.at(now)).ceil() as usize).clamp(start + 1, WIDTH);
        let _ = writeln!(
            text,
            "{:left$}  {}{}{}  {}",
            row.label,
            "·".repeat(start),
            "█".repeat(end - start),
            "·".repeat(WIDTH - end),
            counted(row.pods, "pod")
        );
    }
    if rows.len() > MAX_ROWS {
        let _ = writeln!(
            text,
            "… and {} older shards; -o json has them all",
            rows.len() - MAX_ROWS
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
            "every instant is served by at least {}",
            counted(fewest, "pod")
        )
    };
    text
}
