//! SVG pictures of the timeline and of the shards' loads: light and dark, readable by screen readers,
//! without external assets.

use chrono::{DateTime, Utc};
use svg::node::element::{Description, Group, Line, Rectangle, Style, Text, Title};
use svg::{Document, Node as _};

use super::timeline::{OLDER, TimelineRow, fewest_pods, is_open, span};
use crate::core::config::{Retention, Sharding};
use crate::core::model::text::counted;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 46.0;
const ROW: f64 = 30.0;
const BAR: f64 = 20.0;
const TICKS: i32 = 6;
/// How many rows are drawn; more would be unreadable.
const MAX_ROWS: usize = 500;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.quiet{fill:#59636e;font-size:12px}.bar{fill:#0969da}.better{fill:#1a7f37}\
.grid{stroke:#d1d9e0}.now{stroke:#cf222e;stroke-dasharray:4 3}.back{fill:#ffffff}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.quiet{fill:#9198a1}.bar{fill:#4493f8}.better{fill:#3fb950}.grid{stroke:#3d444d}.now{stroke:#ff7b72}.back{fill:#0d1117}}";

/// Positions of instants and rows.
struct Scale {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    bottom: f64,
    /// Whether some row has no older end.
    open: bool,
}

#[allow(
    clippy::cast_precision_loss,
    reason = "positions on a picture of 960 pixels"
)]
impl Scale {
    fn new(rows: &[TimelineRow], now: DateTime<Utc>) -> Self {
        let (from, to) = span(rows, now);
        Self {
            from,
            to,
            bottom: Self::row(rows.len().min(MAX_ROWS)),
            open: is_open(rows, now),
        }
    }

    fn x(&self, instant: DateTime<Utc>) -> f64 {
        let total = (self.to - self.from).num_seconds().max(1) as f64;
        LEFT + (instant - self.from).num_seconds() as f64 / total * (WIDTH - LEFT - RIGHT)
    }

    fn row(i: usize) -> f64 {
        TOP + i as f64 * ROW
    }
}

/// An empty picture whose rows end at `bottom`.
fn canvas(title: &str, summary: &str, bottom: f64) -> Document {
    Document::new()
        .set("viewBox", (0, 0, WIDTH, bottom + 44.0))
        .set("role", "img")
        .set("aria-label", summary)
        .add(Title::new(title))
        .add(Description::new().add(svg::node::Text::new(summary)))
        .add(Style::new(STYLE))
        .add(
            Rectangle::new()
                .set("class", "back")
                .set("width", "100%")
                .set("height", "100%"),
        )
        .add(Text::new(summary).set("x", 16).set("y", 26))
}

pub(super) fn timeline(rows: &[TimelineRow], sharding: &Sharding, now: DateTime<Utc>) -> String {
    let scale = Scale::new(rows, now);
    let summary = format!(
        "{} over {}, overlapping by {}; every instant is served by at least {}",
        counted(rows.len() as u64, "shard"),
        match sharding.retention() {
            Retention::Limited(age) => age.to_string(),
            Retention::Forever => "all time".to_owned(),
        },
        sharding.overlap(),
        counted(fewest_pods(rows, now), "pod")
    );
    let mut document = canvas("Time windows by shard", &summary, scale.bottom);
    axis(&mut document, &scale);
    for (i, row) in rows.iter().take(MAX_ROWS).enumerate() {
        document.append(bar(row, Scale::row(i), &scale, now));
    }
    document.append(upright("now", scale.x(now), scale.bottom));
    document.append(label("now", scale.x(now), scale.bottom + 36.0, "middle"));
    format!("{document}\n")
}

fn axis(document: &mut Document, scale: &Scale) {
    for tick in 0..=TICKS {
        let instant = scale.from + (scale.to - scale.from) * tick / TICKS;
        document.append(upright("grid", scale.x(instant), scale.bottom));
        let anchor = match tick {
            0 => "start",
            TICKS => "end",
            _ => "middle",
        };
        let date = if tick == 0 && scale.open {
            OLDER.to_owned()
        } else {
            instant.format("%Y-%m-%d").to_string()
        };
        document.append(label(&date, scale.x(instant), scale.bottom + 20.0, anchor));
    }
}

fn bar(row: &TimelineRow, y: f64, scale: &Scale, now: DateTime<Utc>) -> Group {
    let (start, end) = (
        scale.x(row.window.min.at(now).max(scale.from)),
        scale.x(row.window.max.at(now)),
    );
    let pods = format!("{} · {}", row.label, counted(row.pods, "pod"));
    let bar = Rectangle::new()
        .set("class", "bar")
        .set("rx", 3)
        .set("x", start)
        .set("y", y)
        .set("height", BAR);
    Group::new()
        .add(Title::new(format!("{pods}: {}", row.window)))
        .add(Text::new(pods).set("x", 16).set("y", y + 15.0))
        .add(bar.set("width", (end - start).max(1.5)))
}

fn upright(class: &str, x: f64, bottom: f64) -> Line {
    Line::new()
        .set("class", class)
        .set("x1", x)
        .set("x2", x)
        .set("y1", TOP - 8.0)
        .set("y2", bottom)
}

fn label(text: &str, x: f64, y: f64, anchor: &str) -> Text {
    Text::new(text)
        .set("class", "quiet")
        .set("x", x)
        .set("y", y)
        .set("text-anchor", anchor)
}

/// A shard's load, as a multiple of an even share.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) today: f64,
    pub(super) better: Option<f64>,
}

/// Draws the shards' loads: today's as bars, suggested ones as thin bars below, an even share as a
/// line.
pub(super) fn bars(bars: &[Bar], summary: &str) -> String {
    const LABEL: f64 = 300.0;
    let shown = &bars[..bars.len().min(MAX_ROWS)];
    let bottom = Scale::row(shown.len());
    let max = shown
        .iter()
        .map(|bar| bar.today.max(bar.better.unwrap_or(0.0)))
        .fold(1.0, f64::max);
    let x = |share: f64| LABEL + share / max * (WIDTH - LABEL - RIGHT);
    let mut document = canvas("Blocks by shard", summary, bottom);
    for (i, bar) in shown.iter().enumerate() {
        let y = Scale::row(i);
        let rectangle = |class, y: f64, height: f64, share| {
            Rectangle::new()
                .set("class", class)
                .set("x", LABEL)
                .set("y", y)
                .set("height", height)
                .set("width", x(share) - LABEL)
        };
        let today = format!("{}, {:.2} of an even share", bar.label, bar.today);
        let title = bar.better.map_or(today.clone(), |better| {
            format!("{today}, suggested {better:.2}")
        });
        let mut group = Group::new().add(Title::new(title)).add(
            Text::new(bar.label.as_str())
                .set("x", 16)
                .set("y", y + 15.0),
        );
        let height = if bar.better.is_some() { BAR * 0.5 } else { BAR };
        group.append(rectangle("bar", y, height, bar.today));
        if let Some(better) = bar.better {
            group.append(rectangle("better", y + BAR * 0.6, BAR * 0.4, better));
        }
        document.append(group);
    }
    document.append(upright("now", x(1.0), bottom));
    let legend = if shown.iter().any(|bar| bar.better.is_some()) {
        "an even share; below each bar: suggested"
    } else {
        "an even share"
    };
    document.append(label(legend, x(1.0), bottom + 20.0, "end"));
    format!("{document}\n")
}
