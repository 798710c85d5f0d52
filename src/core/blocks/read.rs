//! Reads what `thanos tools bucket` prints, piece by piece, and finds out by itself which of its forms it is.
//!
//! Memory is bounded by the blocks that are kept and one object or line; the text as a whole is never held. Every refusal
//! names line and column. JSON is read here, the forms with a line for each block in `rows.rs`.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use super::rows::{Columns, Separator, wide};
use super::{Block, Inventory, Resolution, Ulid};

/// The longest `meta.json` or line, in bytes. The largest real ones list some thousand sources in some 100 KiB.
const MAX_ITEM_BYTES: usize = 16 * 1024 * 1024;

/// What to do instead, in every message about a text that is none of these.
const EXPECTED: &str =
    "expected what `thanos tools bucket ls -o json` (best, it tells bytes), `ls -o wide` or `inspect` prints, as table, csv or tsv";

/// A form of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `ls -o json`: the `meta.json` of each block.
    Json,
    /// `ls -o wide`: a sentence for each block.
    Wide,
    /// `inspect`.
    Table,
    /// `inspect --output=csv`.
    Csv,
    /// `inspect --output=tsv`.
    Tsv,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "thanos tools bucket ls -o json",
            Self::Wide => "thanos tools bucket ls -o wide",
            Self::Table => "thanos tools bucket inspect",
            Self::Csv => "thanos tools bucket inspect --output=csv",
            Self::Tsv => "thanos tools bucket inspect --output=tsv",
        })
    }
}

/// Why a list cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {why}")]
pub struct Unreadable {
    /// Its line, from 1.
    pub line: u64,
    /// Its column in bytes, from 1.
    pub column: u64,
    /// What is wrong and what would be right.
    pub why: String,
}

/// What is known of the text so far.
#[derive(Debug)]
enum State {
    /// Nothing yet.
    Begin,
    Json(Inventory),
    Wide(Inventory),
    /// A line for each block, under a header.
    Rows(Inventory, Columns),
}

/// Reads a list that comes in pieces.
#[derive(Debug)]
pub struct Reader {
    state: State,
    /// What came and is not read yet.
    pending: Vec<u8>,
    /// Where that begins: complete lines before it, and bytes of its line before it.
    lines: u64,
    columns: u64,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    ulid: Cow<'a, str>,
    #[serde(rename = "minTime")]
    min: i64,
    #[serde(rename = "maxTime")]
    max: i64,
    #[serde(default)]
    stats: Stats,
    #[serde(default)]
    compaction: Compaction,
    #[serde(default)]
    thanos: Thanos,
}

#[derive(Default, Deserialize)]
struct Stats {
    #[serde(rename = "numSamples")]
    samples: Option<u64>,
}

#[derive(Default, Deserialize)]
struct Compaction {
    #[serde(default)]
    level: u32,
}

#[derive(Default, Deserialize)]
struct Thanos {
    #[serde(default)]
    downsample: Downsample,
    #[serde(default)]
    files: Option<Vec<File>>,
}

#[derive(Default, Deserialize)]
struct Downsample {
    #[serde(default)]
    resolution: i64,
}

#[derive(Deserialize)]
struct File {
    size_bytes: Option<u64>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { state: State::Begin, pending: Vec::new(), lines: 0, columns: 0 }
    }
}

impl Reader {
    /// Takes the next piece, cut anywhere.
    ///
    /// # Errors
    /// [`Unreadable`] with the place.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Unreadable> {
        self.pending.extend_from_slice(piece);
        self.read(false)?;
        if self.pending.len() > MAX_ITEM_BYTES {
            return Err(self.at(0, format!("one block takes more than {MAX_ITEM_BYTES} bytes, the most that are read")));
        }
        Ok(())
    }

    /// All blocks, when everything was pushed.
    ///
    /// # Errors
    /// [`Unreadable`] for a text that ends too early or has no block.
    pub fn finish(mut self) -> Result<Inventory, Unreadable> {
        self.read(true)?;
        if let Some(rest) = self.pending.iter().position(|byte| !byte.is_ascii_whitespace()) {
            return Err(self.at(rest, "the text ends within this block: it was cut off; list the bucket again".to_owned()));
        }
        let why = match self.state {
            State::Begin => format!("there is nothing: {EXPECTED}"),
            State::Json(mut found) | State::Wide(mut found) | State::Rows(mut found, _) => {
                found.lines = std::collections::HashMap::new();
                if !found.blocks.is_empty() {
                    return Ok(found);
                }
                "no block is listed: is the bucket empty, or the selector wrong?".to_owned()
            }
        };
        Err(Unreadable { line: self.lines + 1, column: 1, why })
    }

    fn read(&mut self, last: bool) -> Result<(), Unreadable> {
        let mut from = 0;
        while matches!(self.state, State::Begin) {
            from += self.pending[from..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if self.pending.get(from) == Some(&b'{') {
                self.state = State::Json(Inventory::new(Format::Json));
                break;
            }
            let Some(line) = line_at(&self.pending, from, last) else {
                self.consume(from);
                return Ok(());
            };
            let text =
                std::str::from_utf8(&self.pending[from..line.end]).map_err(|error| self.at(from + error.valid_up_to(), not_utf8()))?;
            match recognise(text) {
                Ok(None) => from = line.next,
                // The first sentence is a block already; a header is not.
                Ok(Some(state @ State::Wide(_))) => self.state = state,
                Ok(Some(state)) => {
                    self.state = state;
                    from = line.next;
                }
                Err(why) => return Err(self.at(from, why)),
            }
        }
        self.consume(from);
        let mut state = std::mem::replace(&mut self.state, State::Begin);
        let read = match &mut state {
            State::Begin => Ok(0),
            State::Json(found) => self.objects(found),
            State::Wide(found) => self.rows(found, last, None),
            State::Rows(found, columns) => self.rows(found, last, Some(columns)),
        };
        self.state = state;
        read.map(|done| self.consume(done))
    }

    /// Reads complete objects; gives where the first incomplete one begins.
    fn objects(&self, found: &mut Inventory) -> Result<usize, Unreadable> {
        let mut stream = serde_json::Deserializer::from_slice(&self.pending).into_iter::<Meta<'_>>();
        let (mut done, mut lines, mut counted) = (0, self.lines, 0);
        loop {
            let meta = match stream.next() {
                None => return Ok(self.pending.len()),
                Some(Err(error)) if error.is_eof() => return Ok(done),
                Some(Err(error)) => return Err(self.refused(&error)),
                Some(Ok(meta)) => meta,
            };
            let start = done + self.pending[done..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            lines += newlines(&self.pending[counted..start]);
            (counted, done) = (start, stream.byte_offset());
            let block = block(&meta).map_err(|why| self.at(start, why))?;
            found.take(block, &meta.ulid, lines + 1).map_err(|why| self.at(start, why))?;
        }
    }

    /// What the JSON reader says, at its place in the whole text.
    fn refused(&self, error: &serde_json::Error) -> Unreadable {
        let said = error.to_string();
        let why = said.rsplit_once(" at line ").map_or(said.as_str(), |(why, _)| why);
        let (line, column) = (error.line() as u64, error.column() as u64);
        let before = if line == 1 { self.columns } else { 0 };
        Unreadable { line: self.lines + line, column: before + column, why: format!("not the meta.json of a block: {why}; {EXPECTED}") }
    }

    /// Reads complete lines; gives where the first incomplete one begins.
    fn rows(&self, found: &mut Inventory, last: bool, columns: Option<&Columns>) -> Result<usize, Unreadable> {
        let (mut from, mut number) = (0, self.lines);
        loop {
            let quoted = columns.is_some_and(Columns::quotes);
            let Some(line) = (if quoted { record_at(&self.pending, from, last) } else { line_at(&self.pending, from, last) }) else {
                return Ok(from);
            };
            let bytes = &self.pending[from..line.end];
            let text = std::str::from_utf8(bytes).map_err(|error| self.at(from + error.valid_up_to(), not_utf8()))?;
            let read = match columns {
                Some(columns) => columns.block(text),
                None => wide(text),
            };
            if let Some((block, name)) = read.map_err(|(column, why)| self.at(from + column, why))? {
                found.take(block, &name, number + 1).map_err(|why| self.at(from, why))?;
            }
            number += newlines(&self.pending[from..line.next]);
            from = line.next;
        }
    }

    /// Forgets what was read.
    fn consume(&mut self, bytes: usize) {
        let read = &self.pending[..bytes];
        self.lines += newlines(read);
        self.columns = match read.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => (bytes - at - 1) as u64,
            None => self.columns + bytes as u64,
        };
        self.pending.drain(..bytes);
    }

    /// A mistake at this byte of what is pending.
    fn at(&self, byte: usize, why: String) -> Unreadable {
        let before = &self.pending[..byte];
        let column = match before.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => (byte - at) as u64,
            None => self.columns + byte as u64 + 1,
        };
        Unreadable { line: self.lines + newlines(before) + 1, column, why }
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    count(bytes, b'\n')
}

fn count(bytes: &[u8], wanted: u8) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == wanted)).sum()
}

fn not_utf8() -> String {
    format!("not UTF-8 text; {EXPECTED}")
}

/// Where a line ends, and where the next one begins.
struct Line {
    end: usize,
    next: usize,
}

/// The line that begins here, if it is complete; the last one may have no end.
fn line_at(text: &[u8], from: usize, last: bool) -> Option<Line> {
    match text[from..].iter().position(|byte| *byte == b'\n') {
        Some(length) => {
            let end = from + length;
            let returned = usize::from(end > from && text[end - 1] == b'\r');
            Some(Line { end: end - returned, next: end + 1 })
        }
        None => (last && from < text.len()).then_some(Line { end: text.len(), next: text.len() }),
    }
}

/// As [`line_at`], where a quoted cell may go on in the next line.
fn record_at(text: &[u8], from: usize, last: bool) -> Option<Line> {
    let (mut next, mut quotes) = (from, 0);
    loop {
        let line = line_at(text, next, last)?;
        quotes += count(&text[next..line.end], b'"');
        if quotes % 2 == 0 {
            return Some(line);
        }
        next = line.next;
    }
}

/// Which form begins with this line. `None` for a line above the header.
fn recognise(line: &str) -> Result<Option<State>, String> {
    let rows = |separator, format| Columns::new(line, separator).map(|columns| Some(State::Rows(Inventory::new(format), columns)));
    let first = line.split([' ', '\t', ',']).next().unwrap_or_default();
    match line.as_bytes().first() {
        // Older versions draw a line above the table.
        Some(b'+') => Ok(None),
        Some(b'|') => rows(Separator::Bar, Format::Table),
        _ if line.starts_with("ULID,") => rows(Separator::Comma, Format::Csv),
        _ if line.starts_with("ULID\t") => rows(Separator::Tab, Format::Tsv),
        _ if Ulid::parse(first).is_some() && line.contains(" -- ") => Ok(Some(State::Wide(Inventory::new(Format::Wide)))),
        _ if Ulid::parse(first).is_some() => {
            Err("this lists the names of blocks alone: add -o json to `thanos tools bucket ls`".to_owned())
        }
        Some(b'[') => {
            Err("a JSON list: give the objects one after the other, as thanos prints them (jq '.[]' takes a list apart)".to_owned())
        }
        _ if line.contains("level=") || line.starts_with("ts=") => {
            Err("this is a line of thanos' log: leave standard error out of the file (2>/dev/null)".to_owned())
        }
        _ => Err(format!("{:?} is not a list of blocks: {EXPECTED}", line.chars().take(40).collect::<String>())),
    }
}

fn block(meta: &Meta<'_>) -> Result<Block, String> {
    let ulid = Ulid::parse(&meta.ulid).ok_or_else(|| not_a_ulid(&meta.ulid))?;
    let millis = meta.thanos.downsample.resolution;
    let resolution = Resolution::from_millis(millis)
        .ok_or_else(|| format!("block {} has thanos.downsample.resolution {millis}: 0, 300000 or 3600000 is expected", meta.ulid))?;
    // meta.json itself is listed without a size.
    let bytes = meta.thanos.files.as_ref().and_then(|files| {
        let sizes = files.iter().filter_map(|file| file.size_bytes);
        sizes.fold(None, |sum: Option<u64>, size| Some(sum.unwrap_or(0).saturating_add(size)))
    });
    let (level, samples) = (meta.compaction.level, meta.stats.samples);
    Ok(Block { ulid, min: meta.min, max: meta.max, level, resolution, bytes, samples })
}

pub(super) fn not_a_ulid(text: &str) -> String {
    format!("{:?} is not the name of a block (a ULID, such as 01M7Z0746AHQ1WWSYTJKK5CWQ4)", text.chars().take(40).collect::<String>())
}
