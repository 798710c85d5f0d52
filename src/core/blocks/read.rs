//! Reads the blocks of a bucket as JSON, piece by piece: what `thanos tools bucket ls -o json` prints, a list of the same
//! objects, or what a store answers on `/api/v1/blocks`. Which of them it is, is found out here.
//!
//! Memory is bounded by the blocks that are kept and one object; the text as a whole is never held. Lines of a log before,
//! between and behind the objects are skipped: many a shell writes both streams to one file. Every refusal names line and
//! column. Tables are refused with the command that prints JSON: they tell no bytes, and their forms change by version.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::printable::short_line;
use super::{Block, Inventory, Resolution, Ulid};

/// The longest `meta.json` or line, in bytes. The largest real ones list some thousand sources in some 100 KiB.
const MAX_ITEM_BYTES: usize = 16 * 1024 * 1024;
/// What may stand before the blocks in an answer of `/api/v1/blocks`, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What thanos says of itself, in a message. Characters.
const MAX_SAID_CHARS: usize = 200;

/// What to do instead, in every message about a text that is none of these.
const EXPECTED: &str = "give the JSON of `thanos tools bucket ls -o json --objstore.config-file=FILE`, or of a store's /api/v1/blocks";

/// A form of the list.
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

/// Where in the text the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before an object, or behind all.
    Between,
    /// In a list of objects.
    List,
    /// Behind the list of `/api/v1/blocks`: nothing more is said of blocks.
    Done,
}

/// Reads a list that comes in pieces.
#[derive(Debug)]
pub struct Reader {
    state: State,
    found: Inventory,
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

/// An object that is no block, as far as it says what it is instead.
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
    /// Takes the next piece, cut anywhere.
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

    /// All blocks, when everything was pushed.
    ///
    /// # Errors
    /// [`Unreadable`] for a text that ends too early or has no block.
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

    /// Reads the object that begins here; gives where it ends, if it does.
    fn object(&mut self, from: usize, line: u64, last: bool) -> Result<Option<usize>, Unreadable> {
        let text = &self.pending[from..];
        // Before anything else, so that it does not depend on how much of the object is there.
        if self.state == State::Between
            && may_be_an_answer(text)
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
            Some(Err(error)) if is_cut(&error, text, last) && !may_be_an_answer(text) => {
                return Ok(None);
            }
            Some(Err(_)) | None => {}
        }
        self.other(from, last)
    }

    /// An object that is no block: an answer of `/api/v1/blocks`, whose list is entered, or a line of a log, which is skipped.
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
                error: Some(said), ..
            })) => Err(self.at(
                from,
                format!(
                    "thanos answered with an error: {}",
                    short_line(&said, MAX_SAID_CHARS)
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

    /// What the JSON reader says of the block that begins here, at its place in the whole text.
    fn refused(&self, from: usize) -> Unreadable {
        let said = serde_json::Deserializer::from_slice(&self.pending[from..])
            .into_iter::<Meta<'_>>()
            .next();
        // The end of a piece is no mistake of the list.
        let Some(error) = said.and_then(Result::err).filter(|error| !error.is_eof()) else {
            return self.at(from, format!("not the meta.json of a block; {EXPECTED}"));
        };
        let text = error.to_string();
        let why = text
            .rsplit_once(" at line ")
            .map_or(text.as_str(), |(why, _)| why);
        self.at(
            (from + read_until(&error, &self.pending[from..])).saturating_sub(1),
            format!("not the meta.json of a block: {why}; {EXPECTED}"),
        )
    }

    /// A line that is no JSON: skipped if it is of a log. Gives where the next one begins, if it is complete.
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
        if is_of_a_log(text) {
            Ok(Some(line.next))
        } else {
            Err(self.at(from, no_json(text)))
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
        Unreadable {
            line: self.lines + newlines(before) + 1,
            column,
            why,
        }
    }
}

/// How much of the text the reader had read when it made this error. It counts the end of a line as column 0 of the next one.
fn read_until(error: &serde_json::Error, text: &[u8]) -> usize {
    let lines = text
        .split_inclusive(|byte| *byte == b'\n')
        .take(error.line().saturating_sub(1));
    lines.map(<[u8]>::len).sum::<usize>() + error.column()
}

/// Whether more may come that makes this right: the reader calls a number that is cut behind its sign a wrong one.
fn is_cut(error: &serde_json::Error, text: &[u8], last: bool) -> bool {
    error.is_eof() || (!last && read_until(error, text) >= text.len())
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
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

/// Whether an object may be an answer of the API: its first key is none of a block's.
fn may_be_an_answer(text: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&text[..text.len().min(256)]);
    let key = head
        .trim_start_matches(['{', ' ', '\t', '\r', '\n'])
        .strip_prefix('"')
        .and_then(|rest| rest.split('"').next().map(str::to_owned));
    key.is_some_and(|key| matches!(key.as_str(), "status" | "data" | "blocks" | "label"))
}

/// Behind the bracket that opens the list of blocks.
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

/// Whether only the end is missing, to the reader that takes such an object as a whole.
fn is_json_so_far(text: &[u8]) -> bool {
    serde_json::from_slice::<Other<'_>>(text).is_err_and(|error| error.is_eof())
}

/// A line of thanos' log, of kubectl's remarks or of Kubernetes' own logs.
fn is_of_a_log(line: &str) -> bool {
    let klog = line.as_bytes();
    let klog =
        klog.len() > 5 && b"IWEF".contains(&klog[0]) && klog[1..5].iter().all(u8::is_ascii_digit);
    klog || line.contains("level=")
        || line.starts_with("ts=")
        || line.starts_with("Defaulted container")
        || line.starts_with("Warning: ")
}

/// What a text that is no JSON is instead.
fn no_json(line: &str) -> String {
    let first = line.split([' ', '\t', ',']).next().unwrap_or_default();
    let what = match line.as_bytes().first() {
        Some(b'+' | b'|') => "a table".to_owned(),
        _ if line.starts_with("ULID,") || line.starts_with("ULID\t") => "a table".to_owned(),
        _ if Ulid::parse(first).is_some() && line.contains(" -- ") => {
            "the output of `ls -o wide`".to_owned()
        }
        _ if Ulid::parse(first).is_some() => "the names of blocks alone".to_owned(),
        _ => format!("{:?}", line.chars().take(40).collect::<String>()),
    };
    format!("{what} does not tell how large blocks are: {EXPECTED}")
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
    // meta.json itself is listed without a size.
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
        text.chars().take(40).collect::<String>()
    )
}
