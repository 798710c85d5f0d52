//! The files by which sidecar and launcher communicate, in the directory that they share.
//!
//! In: the sidecar's order, [`WindowFile`]. Out: the launcher's answer, [`LaunchRecord`]; then the
//! sidecar's [`LaunchVerdict`] on that start. Next for a window: `launcher/mod.rs`.
//!
//! Five files, each with one writer, each replaced atomically (a rename; synced where a crash of
//! the node must not lose it):
//!
//! | file | writer | content |
//! |---|---|---|
//! | `window.json` | sidecar | the window to start thanos with |
//! | `verdict.json` | sidecar | whether a start became ready, or took too long |
//! | `inspect.json` | sidecar | a request to list the blocks in thanos' data directory |
//! | `blocks.json` | launcher | that list |
//! | `launcher.json` | launcher | the last start, the last good window, the window given up |
//!
//! `launcher.json` combines several marks so that they cannot contradict each other: its existence
//! means that thanos was started once in this pod; a start that is not `ready` is an open attempt.
//! Unknown keys are ignored, because sidecar and launcher of one pod may briefly have different
//! versions. An unreadable file counts as absent.

use serde::{Deserialize, Serialize};

use super::last_load::{self, LastLoad};
use super::loaded::{BlockRef, BucketCounts};
use crate::core::model::duration::PromDuration;
use crate::core::model::entry::Entry;
use crate::core::model::names::CONTRACT;
use crate::core::model::window::Window;

pub const WINDOW_FILE: &str = "window.json";
pub const VERDICT_FILE: &str = "verdict.json";
pub const INSPECT_FILE: &str = "inspect.json";
pub const BLOCKS_FILE: &str = "blocks.json";
pub const RECORD_FILE: &str = "launcher.json";

/// The limit of every file.
pub const MAX_FILE_BYTES: usize = 64 * 1024;

/// How a running thanos takes over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadMode {
    /// The launcher restarts thanos in place.
    #[default]
    Exec,
    /// The sidecar signals thanos, for builds that reload on a signal. The launcher uses the window
    /// only at its next start.
    Signal,
    /// Thanos keeps the window that it was started with.
    Off,
}

impl ReloadMode {
    /// The value of `--reload`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Signal => "signal",
            Self::Off => "off",
        }
    }
}

/// The sidecar's order to the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowFile {
    pub contract: u32,
    /// Grows with every order, so that a window can be tried again.
    pub request: u64,
    #[serde(flatten)]
    pub window: Window,
    /// Whether the launcher acts on it immediately.
    #[serde(default)]
    pub reload: ReloadMode,
    /// The move that this order carries out ([`Entry::order`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    /// The greatest accepted generation of an entry, for the next sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The last accepted entry, for the next sidecar. `None` while no entry had a generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<AcceptedEntry>,
}

impl WindowFile {
    /// Returns an order in the format of this version.
    #[must_use]
    pub const fn new(request: u64, window: Window, reload: ReloadMode) -> Self {
        Self {
            contract: CONTRACT,
            request,
            window,
            reload,
            order: None,
            generation: None,
            accepted: None,
        }
    }
}

/// An entry without its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedEntry {
    pub shard: u32,
    pub replica: u32,
    #[serde(flatten)]
    pub window: Window,
    #[serde(default)]
    pub drain_millis: Option<i64>,
    #[serde(default)]
    pub order: Option<u64>,
    #[serde(default)]
    pub released: Option<u64>,
}

impl From<Entry> for AcceptedEntry {
    fn from(entry: Entry) -> Self {
        Self {
            shard: entry.shard,
            replica: entry.replica,
            window: entry.window,
            drain_millis: entry.drain.map(PromDuration::as_millis),
            order: entry.order,
            released: entry.released,
        }
    }
}

impl AcceptedEntry {
    #[must_use]
    pub fn with_generation(self, generation: Option<u64>) -> Entry {
        Entry {
            drain: self.drain_millis.map(PromDuration::from_millis),
            generation,
            order: self.order,
            released: self.released,
            ..Entry::new(self.shard, self.replica, self.window)
        }
    }
}

/// The outcome of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaunchOutcome {
    Ready,
    /// Thanos did not become ready within the ready timeout.
    TimedOut,
    /// Thanos serves, but could not load all its blocks: start it again before the pod turns Ready.
    Incomplete,
}

/// The sidecar's verdict on one start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchVerdict {
    /// [`LaunchRecord::launch`] of the start.
    pub launch: u64,
    pub outcome: LaunchOutcome,
}

/// The sidecar's request for a list of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspect {
    pub contract: u32,
    /// Grows with every request.
    pub number: u64,
    /// [`LaunchRecord::launch`] of the start.
    pub launch: u64,
    /// The window that thanos serves.
    #[serde(flatten)]
    pub window: Window,
    /// When thanos' last sync was seen, by the pod's clock. The window is evaluated at that time.
    pub synced_unix_seconds: i64,
    /// How many blocks thanos lacks, by its own counts. 0: thanos filtered every block that has no
    /// index header now.
    pub missing: u64,
}

/// The launcher's list of blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockList {
    pub contract: u32,
    /// [`Inspect::number`] of the request.
    pub number: u64,
    pub launch: u64,
    /// Why there is no list; all following fields are then meaningless.
    #[serde(default)]
    pub unknown: Option<String>,
    #[serde(flatten)]
    pub bucket: BucketCounts,
    /// Blocks of the window that may be missing.
    pub candidates_total: u64,
    /// The newest candidates, at most [`super::loaded::MAX_MISSING`].
    pub candidates: Vec<BlockRef>,
    /// Blocks that thanos counts as missing, but whose samples are in other loaded blocks.
    #[serde(default)]
    pub covered: u64,
}

/// The state of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LaunchState {
    /// Started, or about to be: written before the process exists.
    Started,
    /// Being stopped for a start with another window.
    Stopping,
    /// Thanos ended, and the launcher with it.
    Exited,
}

/// A window that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    #[serde(flatten)]
    pub window: Window,
    /// A sentence.
    pub reason: String,
    /// Failures in a row.
    pub times: u32,
}

/// The launcher's state, written before it acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRecord {
    pub contract: u32,
    /// The number of this start; grows with every start in this pod.
    pub launch: u64,
    /// [`WindowFile::request`] of the last order acted on; 0 stands for the initial arguments.
    pub request: u64,
    /// The window of this start.
    #[serde(flatten)]
    pub window: Window,
    pub state: LaunchState,
    /// Whether this start was ever ready.
    pub ready: bool,
    /// Whether this start followed another one in the same container.
    pub in_place: bool,
    /// The last window with which thanos was ready in this pod.
    pub good: Option<Window>,
    /// The window that was given up for `good`.
    pub failed: Option<Failed>,
    /// Restarts in place so far.
    pub restarts: u64,
    /// The last start that became ready. `None` from a launcher that does not measure it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "last_load::lenient"
    )]
    pub last_load: Option<LastLoad>,
}

impl LaunchRecord {
    /// Marks this start as ready: its window is good from now on. Forgets an earlier failure of the
    /// window.
    pub fn mark_ready(&mut self) {
        self.ready = true;
        self.good = Some(self.window);
        self.failed = self
            .failed
            .take()
            .filter(|failed| failed.window != self.window);
    }
}

/// Parses one of the files; `None` if it is too large or malformed.
#[must_use]
pub fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    if bytes.len() > MAX_FILE_BYTES {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

/// Serialises one of the files.
///
/// # Errors
/// None in practice: every field is plain data.
pub fn encode<T: Serialize>(document: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(min: &str, max: &str) -> Window {
        Window {
            min: min.parse().unwrap(),
            max: max.parse().unwrap(),
        }
    }

    #[test]
    fn documents_read_back_and_unknown_keys_do_not_matter() {
        let file = WindowFile::new(3, window("-124d8h", "1d"), ReloadMode::Exec);
        assert_eq!(decode(&encode(&file).unwrap()), Some(file));
        let text =
            br#"{"contract":2,"request":3,"min_time":"-2976h","max_time":"24h","new":{"a":1}}"#;
        let newer: WindowFile = decode(text).unwrap();
        assert_eq!(newer.window, window("-124d", "1d"));
        let record = LaunchRecord {
            contract: 1,
            launch: 2,
            request: 1,
            window: window("-2d", "0s"),
            state: LaunchState::Started,
            ready: false,
            in_place: true,
            good: Some(window("0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z")),
            failed: Some(Failed {
                window: window("-3d", "0s"),
                reason: "exit code 1".to_owned(),
                times: 2,
            }),
            restarts: 1,
            last_load: Some(LastLoad {
                window: window("-2d", "0s"),
                millis: 1_500,
                blocks: Some(9),
                blocks_new: None,
            }),
        };
        assert_eq!(decode(&encode(&record).unwrap()), Some(record));
    }

    #[test]
    fn the_largest_list_is_a_document() {
        let block = BlockRef {
            ulid: "01K1H8R1000000000000A1B2C3".to_owned(),
            min_time: "2026-07-23T00:00:00.001Z".parse().unwrap(),
            max_time: "2026-08-06T00:00:00.001Z".parse().unwrap(),
        };
        let list = BlockList {
            candidates: vec![block; super::super::loaded::MAX_MISSING],
            ..BlockList::default()
        };
        let bytes = encode(&list).unwrap();
        assert!(bytes.len() < MAX_FILE_BYTES / 2, "{}", bytes.len());
        assert_eq!(decode(&bytes), Some(list));
    }

    #[test]
    fn an_entry_survives_its_sidecar() {
        let drain = Some(PromDuration::from_secs(5));
        let entry = Entry {
            drain,
            generation: Some(7),
            order: Some(3),
            released: Some(3),
            ..Entry::new(1, 2, window("-2d", "-1d"))
        };
        let file = WindowFile {
            generation: Some(7),
            accepted: Some(entry.into()),
            ..WindowFile::new(3, window("-9d", "1d"), ReloadMode::Exec)
        };
        let read: WindowFile = decode(&encode(&file).unwrap()).unwrap();
        assert_eq!(read, file);
        assert_eq!(
            read.accepted.unwrap().with_generation(read.generation),
            entry
        );
        // As an agent of contract 1 wrote it.
        let old: WindowFile = decode(
            br#"{"contract":1,"request":3,"min_time":"-9d","max_time":"1d","reload":"exec"}"#,
        )
        .unwrap();
        assert_eq!((old.generation, old.accepted), (None, None));
    }

    #[test]
    fn a_torn_or_foreign_file_is_absent() {
        let large = vec![b' '; MAX_FILE_BYTES + 1];
        for bytes in [
            &b""[..],
            b"{",
            b"[]",
            b"{\"request\":-1}",
            &[0xff; 10],
            &large,
        ] {
            assert_eq!(decode::<WindowFile>(bytes), None);
        }
    }
}
