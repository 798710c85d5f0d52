//! Reads the blocks of a bucket from JSON, piece by piece: the output of `thanos tools bucket ls -o
//! json`, a JSON list of the same objects, or a store's response on `/api/v1/blocks`.
//!
//! Memory is bounded by the blocks that are kept and one object. Log lines around the objects are
//! skipped, because shells often write both streams to one file. Every refusal names line and
//! column. Other output, such as tables, is refused with the command that prints JSON: it has no
//! bytes, and its form changes between versions.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Block, Inventory, Resolution, Ulid};
use crate::core::model::text::{short_line, truncate};

/// Longest `meta.json` or line, in bytes. Real ones with a thousand sources take about 100 KiB.
const MAX_ITEM_BYTES: usize = 16 * 1024 * 1024;
/// Of the part before the blocks in a response of `/api/v1/blocks`, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Of Thanos' own error in a message. Characters.
const MAX_ERROR_CHARS: usize = 200;

/// Of the list's text in a message. Characters.
const MAX_SHOWN_CHARS: usize = 40;
/// The remedy in every message about other text.
const EXPECTED: &str = "give the JSON of `thanos tools bucket ls -o json --objstore.config-file=FILE`, or of a store's /api/v1/blocks";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `ls -o json`: the `meta.json` of each block.
    Json,
    /// `/api/v1/blocks` of a store's HTTP port.
    Api,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "thanos tools bucket ls -o json",
            Self::Api => "/api/v1/blocks",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {why}")]
pub struct Unreadable {
    /// From 1.
    pub line: u64,
    /// From 1, in bytes.
    pub column: u64,
    /// The mistake, and what would be accepted.
    pub why: String,
}

/// The reader's position in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before an object, or after all of them.
    Between,
    /// In a list of objects.
    List,
    /// After the list of `/api/v1/blocks`.
    Done,
}

/// Reads a list in pieces.
#[derive(Debug)]
pub struct Reader {
    state: State,
    found: Inventory,
    /// Bytes that are not read yet.
    pending: Vec<u8>,
    /// Lines before `pending`.
    lines: u64,
    /// Bytes before `pending` in its first line.
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

/// Keys by which other objects than blocks are recognised.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Other<'a> {
    ulid: Option<IgnoredAny>,
    level: Option<IgnoredAny>,
    msg: Option<IgnoredAny>,
    caller: Option<IgnoredAny>,
    data: Option<IgnoredAny>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
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
        Self {
            state: State::Between,
            found: Inventory::new(Format::Json),
            pending: Vec::new(),
            lines: 0,
            columns: 0,
        }
    }
}

impl Reader {
    /// Takes the next piece, which may end anywhere.
    ///
    /// # Errors
    /// [`Unreadable`] with the place.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Unreadable> {
        self.pending.extend_from_slice(piece);
        self.read(false)?;
        if self.pending.len() > MAX_ITEM_BYTES {
            return Err(self.at(
                0,
                format!("one block takes more than {MAX_ITEM_BYTES} bytes, the most that are read"),
            ));
        }
        Ok(())
    }

    /// Returns all blocks after the last piece.
    ///
    /// # Errors
    /// [`Unreadable`] if the text ends too early or has no block.
    pub fn finish(mut self) -> Result<Inventory, Unreadable> {
        self.read(true)?;
        let rest = self
            .pending
            .iter()
            .position(|byte| !byte.is_ascii_whitespace());
        if let Some(rest) = rest.or((self.state == State::List).then_some(0)) {
            return Err(self.at(
                rest,
                "the text ends within this block: it was cut off; list the bucket again".to_owned(),
            ));
        }
        if !self.found.blocks.is_empty() {
            self.found.lines = std::collections::HashMap::new();
            return Ok(self.found);
        }
        let why = match self.state {
            State::Between if self.lines == 0 || self.found.format == Format::Json => {
                format!("there is no block: {EXPECTED}")
            }
            _ => "no block is listed: is the bucket empty, or the selector wrong?".to_owned(),
        };
        Err(Unreadable {
            line: self.lines + 1,
            column: 1,
            why,
        })
    }

    fn read(&mut self, last: bool) -> Result<(), Unreadable> {
        let (mut from, mut counted, mut lines) = (0, 0, self.lines);
        while let Some(byte) = self.pending.get(from).copied() {
            let next = match (self.state, byte) {
                (State::Done, _) => Some(self.pending.len()),
                (_, byte) if byte.is_ascii_whitespace() => Some(from + 1),
                (State::List, b',') => Some(from + 1),
                (State::List, b']') => {
                    self.state = if self.found.format == Format::Api {
                        State::Done
                    } else {
                        State::Between
                    };
                    Some(from + 1)
                }
                (State::Between, b'[') => {
                    self.state = State::List;
                    Some(from + 1)
                }
                (_, b'{') => {
                    lines += newlines(&self.pending[counted..from]);
                    counted = from;
                    self.object(from, lines + 1, last)?
                }
                (State::Between, _) => self.line(from, last)?,
                (State::List, _) => {
                    return Err(self.at(from, format!("not the meta.json of a block; {EXPECTED}")));
                }
            };
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        self.consume(from);
        Ok(())
    }

    /// Reads the object at `from`. Returns its end, if it is complete.
    fn object(&mut self, from: usize, line: u64, last: bool) -> Result<Option<usize>, Unreadable> {
        let text = &self.pending[from..];
        // First, so that the result does not depend on how much of the object has arrived.
        if self.state == State::Between
            && may_be_a_response(text)
            && let Some(list) = list_within(&text[..text.len().min(MAX_HEAD_BYTES)])
        {
            (self.state, self.found.format) = (State::List, Format::Api);
            return Ok(Some(from + list));
        }
        let mut stream = serde_json::Deserializer::from_slice(text).into_iter::<Meta<'_>>();
        let read = stream.next();
        let end = from + stream.byte_offset();
        match read {
            Some(Ok(meta)) => {
                let block = block(&meta).map_err(|why| self.at(from, why))?;
                let name = meta.ulid.into_owned();
                self.found
                    .take(block, &name, line)
                    .map_err(|why| self.at(from, why))?;
                return Ok(Some(end));
            }
            Some(Err(error)) if is_cut(&error, text, last) && !may_be_a_response(text) => {
                return Ok(None);
            }
            Some(Err(_)) | None => {}
        }
        self.other(from, last)
    }

    /// Reads another object than a block: a response of `/api/v1/blocks` without blocks, or a log
    /// line, which is skipped.
    fn other(&mut self, from: usize, last: bool) -> Result<Option<usize>, Unreadable> {
        let text = &self.pending[from..];
        let mut stream = serde_json::Deserializer::from_slice(text).into_iter::<Other<'_>>();
        let read = stream.next();
        let end = from + stream.byte_offset();
        match read {
            Some(Err(error)) if is_cut(&error, text, last) => Ok(None),
            Some(Ok(other))
                if other.ulid.is_none()
                    && other.level.is_some()
                    && (other.msg.is_some() || other.caller.is_some()) =>
            {
                Ok(Some(end))
            }
            Some(Ok(Other {
                error: Some(error), ..
            })) => Err(self.at(
                from,
                format!(
                    "thanos answered with an error: {}",
                    short_line(&error, MAX_ERROR_CHARS)
                ),
            )),
            Some(Ok(Other {
                ulid: None,
                data: Some(_),
                ..
            })) if self.state == State::Between => {
                (self.state, self.found.format) = (State::Done, Format::Api);
                Ok(Some(end))
            }
            _ => Err(self.refused(from)),
        }
    }

    /// Returns the JSON parser's error in the block at `from`, at its place in the text.
    fn refused(&self, from: usize) -> Unreadable {
        let read = serde_json::Deserializer::from_slice(&self.pending[from..])
            .into_iter::<Meta<'_>>()
            .next();
        // The end of a piece is no mistake in the list.
        let Some(error) = read.and_then(Result::err).filter(|error| !error.is_eof()) else {
            return self.at(from, format!("not the meta.json of a block; {EXPECTED}"));
        };
        let text = error.to_string();
        let why = text
            .rsplit_once(" at line ")
            .map_or(text.as_str(), |(why, _)| why);
        self.at(
            (from + error_offset(&error, &self.pending[from..])).saturating_sub(1),
            format!("not the meta.json of a block: {why}; {EXPECTED}"),
        )
    }

    /// Skips a log line. Returns the start of the next line, if this one is complete.
    fn line(&self, from: usize, last: bool) -> Result<Option<usize>, Unreadable> {
        let Some(line) = line_at(&self.pending, from, last) else {
            return Ok(None);
        };
        let bytes = &self.pending[from..line.end];
        let text = std::str::from_utf8(bytes).map_err(|error| {
            self.at(
                from + error.valid_up_to(),
                format!("not UTF-8 text; {EXPECTED}"),
            )
        })?;
        if is_log(text) {
            return Ok(Some(line.next));
        }
        let text = truncate(text, MAX_SHOWN_CHARS);
        Err(self.at(from, format!("{text:?} is not JSON: {EXPECTED}")))
    }

    /// Drops bytes that are read.
    fn consume(&mut self, bytes: usize) {
        let read = &self.pending[..bytes];
        self.lines += newlines(read);
        self.columns = match read.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => (bytes - at - 1) as u64,
            None => self.columns + bytes as u64,
        };
        self.pending.drain(..bytes);
    }

    /// Returns a mistake at this byte of `pending`.
    fn at(&self, byte: usize, why: String) -> Unreadable {
        let before = &self.pending[..byte];
        let column = match before.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => (byte - at) as u64,
            None => self.columns + byte as u64 + 1,
        };
        Unreadable {
            line: self.lines + newlines(before) + 1,
            column,
            why,
        }
    }
}

/// Returns how much of the text the parser had read at this error. It counts the end of a line as
/// column 0 of the next line.
fn error_offset(error: &serde_json::Error, text: &[u8]) -> usize {
    let lines = text
        .split_inclusive(|byte| *byte == b'\n')
        .take(error.line().saturating_sub(1));
    lines.map(<[u8]>::len).sum::<usize>() + error.column()
}

/// Whether more input may resolve this error: the parser also refuses a number that is cut after its
/// sign.
fn is_cut(error: &serde_json::Error, text: &[u8], last: bool) -> bool {
    error.is_eof() || (!last && error_offset(error, text) >= text.len())
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// The end of a line and the start of the next one.
struct Line {
    end: usize,
    next: usize,
}

/// Returns the line at `from`, if it is complete; the last line needs no newline.
fn line_at(text: &[u8], from: usize, last: bool) -> Option<Line> {
    match text[from..].iter().position(|byte| *byte == b'\n') {
        Some(length) => {
            let end = from + length;
            let returned = usize::from(end > from && text[end - 1] == b'\r');
            Some(Line {
                end: end - returned,
                next: end + 1,
            })
        }
        None => (last && from < text.len()).then_some(Line {
            end: text.len(),
            next: text.len(),
        }),
    }
}

/// Whether an object may be a response of the API, by its first key.
fn may_be_a_response(text: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&text[..text.len().min(256)]);
    let key = head
        .trim_start_matches(['{', ' ', '\t', '\r', '\n'])
        .strip_prefix('"')
        .and_then(|rest| rest.split('"').next().map(str::to_owned));
    key.is_some_and(|key| matches!(key.as_str(), "status" | "data" | "blocks" | "label"))
}

/// Returns the offset of the first block in a response.
fn list_within(head: &[u8]) -> Option<usize> {
    const KEY: &[u8] = b"\"blocks\"";
    let mut at = head.windows(KEY.len()).position(|part| part == KEY)? + KEY.len();
    for wanted in *b":[" {
        at += head[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        if head.get(at) != Some(&wanted) {
            return None;
        }
        at += 1;
    }
    is_json_so_far(&head[..at]).then_some(at)
}

/// Whether a text is JSON but for its missing end.
fn is_json_so_far(text: &[u8]) -> bool {
    serde_json::from_slice::<Other<'_>>(text).is_err_and(|error| error.is_eof())
}

/// Whether a line is from thanos' log, from kubectl or from klog.
fn is_log(line: &str) -> bool {
    let klog = line.as_bytes();
    let klog =
        klog.len() > 5 && b"IWEF".contains(&klog[0]) && klog[1..5].iter().all(u8::is_ascii_digit);
    klog || line.contains("level=")
        || line.starts_with("ts=")
        || line.starts_with("Defaulted container")
        || line.starts_with("Warning: ")
}

fn block(meta: &Meta<'_>) -> Result<Block, String> {
    let ulid = Ulid::parse(&meta.ulid).ok_or_else(|| not_a_ulid(&meta.ulid))?;
    let millis = meta.thanos.downsample.resolution;
    let resolution = Resolution::from_millis(millis).ok_or_else(|| {
        format!(
            "block {} has thanos.downsample.resolution {millis}: 0, 300000 or 3600000 is expected",
            meta.ulid
        )
    })?;
    // meta.json itself is listed without its size.
    let bytes = meta.thanos.files.as_ref().and_then(|files| {
        let sizes = files.iter().filter_map(|file| file.size_bytes);
        sizes.fold(None, |sum: Option<u64>, size| {
            Some(sum.unwrap_or(0).saturating_add(size))
        })
    });
    let (level, samples) = (meta.compaction.level, meta.stats.samples);
    Ok(Block {
        ulid,
        min: meta.min,
        max: meta.max,
        level,
        resolution,
        bytes,
        samples,
    })
}

fn not_a_ulid(text: &str) -> String {
    format!(
        "{:?} is not the name of a block (a ULID, such as 01M7Z0746AHQ1WWSYTJKK5CWQ4)",
        truncate(text, MAX_SHOWN_CHARS)
    )
}
