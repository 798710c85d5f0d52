//! Lists with a line for each block: the table of `inspect`, its csv and tsv, and the sentences of `ls -o wide`.
//!
//! They tell times to the second and no bytes. Columns are found by their titles, so that an added one does no harm.

use std::borrow::Cow;

use chrono::DateTime;

use super::read::not_a_ulid;
use super::{Block, Resolution, Ulid};

/// A mistake: bytes into the line, and the sentence.
type Wrong = (usize, String);
/// A block and its name; nothing on a line that only draws.
type Read = Result<Option<(Block, String)>, Wrong>;

/// What stands between cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Separator {
    Bar,
    Comma,
    Tab,
}

/// Where a column is found. A label may hold a bar itself, so what comes after the labels is counted from the right.
#[derive(Clone, Copy, Debug)]
enum Place {
    FromLeft(usize),
    FromRight(usize),
}

/// The columns that matter, by their places.
#[derive(Debug)]
pub(super) struct Columns {
    separator: Separator,
    count: usize,
    ulid: Place,
    from: Place,
    until: Place,
    samples: Place,
    level: Place,
    resolution: Place,
}

/// A cell and where it begins.
type Cell<'a> = (usize, Cow<'a, str>);

impl Columns {
    /// From the header.
    pub(super) fn new(header: &str, separator: Separator) -> Result<Self, String> {
        let cells = cells(header, separator).map_err(|(_, why)| why)?;
        let labels = cells.iter().position(|(_, title)| title == "LABELS").unwrap_or(cells.len());
        let place = |title: &str| {
            let at = cells.iter().position(|(_, cell)| cell == title).ok_or_else(|| {
                format!("the header has no column {title}: expected that of `thanos tools bucket inspect`, with ULID, FROM, UNTIL, #SAMPLES, COMP-LEVEL and RESOLUTION")
            })?;
            Ok::<_, String>(if at > labels { Place::FromRight(cells.len() - at) } else { Place::FromLeft(at) })
        };
        Ok(Self {
            separator,
            count: cells.len(),
            ulid: place("ULID")?,
            from: place("FROM")?,
            until: place("UNTIL")?,
            samples: place("#SAMPLES")?,
            level: place("COMP-LEVEL")?,
            resolution: place("RESOLUTION")?,
        })
    }

    /// Whether a cell may hold the end of a line.
    pub(super) fn quotes(&self) -> bool {
        self.separator != Separator::Bar
    }

    /// The block of a line.
    pub(super) fn block(&self, line: &str) -> Read {
        let drawn = self.separator == Separator::Bar && line.bytes().all(|byte| matches!(byte, b'|' | b'-' | b'+'));
        if drawn || line.trim().is_empty() {
            return Ok(None);
        }
        let cells = cells(line, self.separator)?;
        let bars = self.separator == Separator::Bar && cells.len() > self.count;
        if cells.len() != self.count && !bars {
            return Err((0, format!("{} cells where the header has {}: the line is damaged", cells.len(), self.count)));
        }
        let cell = |place: Place| match place {
            Place::FromLeft(at) => &cells[at],
            Place::FromRight(at) => &cells[cells.len() - at],
        };
        let (at, name) = cell(self.ulid);
        let ulid = Ulid::parse(name).ok_or_else(|| (*at, not_a_ulid(name)))?;
        let block = Block {
            ulid,
            min: instant(cell(self.from))?,
            max: instant(cell(self.until))?,
            level: number(cell(self.level))?,
            resolution: resolution(cell(self.resolution))?,
            bytes: None,
            samples: Some(number(cell(self.samples))?),
        };
        Ok(Some((block, name.to_string())))
    }
}

/// The block of a sentence of `ls -o wide`:
/// `01M7… -- 2026-02-21T00:00:00Z - 2026-02-21T02:00:00Z Diff: 2h0m0s, Compaction: 1, Downsample: 0, Source: sidecar`.
pub(super) fn wide(line: &str) -> Read {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let place = |part: &str| part.as_ptr().addr() - line.as_ptr().addr();
    let whole = || (0, "expected `ULID -- FROM - UNTIL Diff: …, Compaction: …, Downsample: …, Source: …`: the line is damaged".to_owned());
    let (name, rest) = line.split_once(" -- ").ok_or_else(whole)?;
    let (from, rest) = rest.split_once(" - ").ok_or_else(whole)?;
    let (until, rest) = rest.split_once(" Diff: ").ok_or_else(whole)?;
    let (_, rest) = rest.split_once(", Compaction: ").ok_or_else(whole)?;
    let (level, rest) = rest.split_once(", Downsample: ").ok_or_else(whole)?;
    let (millis, _) = rest.split_once(", Source: ").ok_or_else(whole)?;
    let borrowed = |text| (place(text), Cow::Borrowed(text));
    let ulid = Ulid::parse(name).ok_or_else(|| (0, not_a_ulid(name)))?;
    let resolution = number(&borrowed(millis)).ok().and_then(Resolution::from_millis);
    let block = Block {
        ulid,
        min: instant(&borrowed(from))?,
        max: instant(&borrowed(until))?,
        level: number(&borrowed(level))?,
        resolution: resolution
            .ok_or_else(|| (place(millis), format!("{millis:?} is not a resolution: 0, 300000 or 3600000 is expected")))?,
        bytes: None,
        samples: None,
    };
    Ok(Some((block, name.to_owned())))
}

fn cells(line: &str, separator: Separator) -> Result<Vec<Cell<'_>>, Wrong> {
    match separator {
        Separator::Bar => {
            let inner = line.trim_end().strip_prefix('|').and_then(|rest| rest.strip_suffix('|'));
            let inner = inner.ok_or_else(|| (0, "a row of the table stands between bars (|): the line is damaged".to_owned()))?;
            let mut at = 1;
            Ok(inner
                .split('|')
                .map(|cell| {
                    let start = at + cell.len() - cell.trim_start().len();
                    at += cell.len() + 1;
                    (start, Cow::Borrowed(cell.trim()))
                })
                .collect())
        }
        Separator::Comma => quoted(line, ','),
        Separator::Tab => quoted(line, '\t'),
    }
}

/// RFC 4180: a cell with the separator, a quote or the end of a line in it stands in quotes, and its quotes are doubled.
fn quoted(line: &str, separator: char) -> Result<Vec<Cell<'_>>, Wrong> {
    let (mut cells, mut at) = (Vec::with_capacity(16), 0);
    loop {
        let rest = &line[at..];
        let (cell, length) = if let Some(inner) = rest.strip_prefix('"') {
            let end = closing_quote(inner).ok_or_else(|| (at, "a quote is not closed: the line is damaged".to_owned()))?;
            (Cow::Owned(inner[..end].replace("\"\"", "\"")), end + 2)
        } else {
            let end = rest.find(separator).unwrap_or(rest.len());
            (Cow::Borrowed(&rest[..end]), end)
        };
        cells.push((at, cell));
        at += length;
        match line[at..].chars().next() {
            None => return Ok(cells),
            Some(next) if next == separator => at += separator.len_utf8(),
            Some(_) => return Err((at, format!("expected {separator:?} behind the quote: the line is damaged"))),
        }
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find('"')?;
        if !text[at + 1..].starts_with('"') {
            return Some(at);
        }
        from = at + 2;
    }
}

fn instant((at, text): &Cell<'_>) -> Result<i64, Wrong> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_millis())
        .map_err(|_| (*at, format!("{text:?} is not a time: RFC 3339 such as 2026-01-31T00:00:00Z is expected")))
}

/// A number, perhaps with commas between the thousands.
fn number<N: std::str::FromStr>((at, text): &Cell<'_>) -> Result<N, Wrong> {
    let plain: Cow<'_, str> = if text.contains(',') { Cow::Owned(text.replace(',', "")) } else { Cow::Borrowed(text) };
    plain.parse().map_err(|_| (*at, format!("{text:?} is not a number such as 1,234")))
}

/// As Go writes durations.
fn resolution((at, text): &Cell<'_>) -> Result<Resolution, Wrong> {
    match text.as_ref() {
        "0s" => Ok(Resolution::Raw),
        "5m0s" => Ok(Resolution::FiveMinutes),
        "1h0m0s" => Ok(Resolution::OneHour),
        other => Err((*at, format!("{other:?} is not a resolution: 0s, 5m0s or 1h0m0s is expected"))),
    }
}
