//! The files by which sidecar and launcher talk, in the directory they share.
//!
//! Five files, each with one writer, each replaced as a whole (temp, fsync, rename):
//!
//! | file | writer | says |
//! |---|---|---|
//! | `window.json` | sidecar | start thanos with this window |
//! | `verdict.json` | sidecar | that start became ready, or took too long |
//! | `inspect.json` | sidecar | list the blocks in thanos' data directory |
//! | `blocks.json` | launcher | that list |
//! | `launcher.json` | launcher | what was started, whether it was ever ready, the last good window, what was given up |
//!
//! `launcher.json` is several marks at once, so that they cannot contradict each other: that it exists means that thanos
//! was started once in this pod; a start that is not `ready` is an open attempt. Unknown keys are ignored: sidecar and
//! launcher of one pod may be of different versions for a moment. What cannot be read counts as absent.

use serde::{Deserialize, Serialize};

use super::duration::PromDuration;
use super::entry::Entry;
use super::loaded::{BlockRef, BucketCounts};
use super::names::CONTRACT;
use super::window::Window;

/// Name of the sidecar's [`WindowFile`].
pub const WINDOW_FILE: &str = "window.json";
/// Name of the sidecar's [`Verdict`].
pub const VERDICT_FILE: &str = "verdict.json";
/// Name of the sidecar's [`Inspect`].
pub const INSPECT_FILE: &str = "inspect.json";
/// Name of the launcher's [`BlockList`].
pub const BLOCKS_FILE: &str = "blocks.json";
/// Name of the launcher's [`Record`].
pub const RECORD_FILE: &str = "launcher.json";

/// None of these files is ever larger. Bytes.
pub const MAX_FILE_BYTES: usize = 64 * 1024;

/// How a running thanos takes over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadMode {
    /// The launcher restarts it in place.
    #[default]
    Exec,
    /// The sidecar sends it a signal, for builds that honour one; the launcher uses the window at its next start only.
    Signal,
    /// Not at all: it keeps the window that it was started with.
    Off,
}

/// The sidecar's order to the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowFile {
    /// Version of the format.
    pub contract: u32,
    /// Grows by at least one with every order, so that a window can be tried again.
    pub request: u64,
    /// The window to start thanos with.
    #[serde(flatten)]
    pub window: Window,
    /// Whether the launcher acts on it at once.
    #[serde(default)]
    pub reload: ReloadMode,
    /// The move that this order carries out ([`Entry::order`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    /// For the sidecar's successor: the greatest generation of an entry that was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// For the sidecar's successor: the entry that was accepted last. `None` while no entry had a generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<AcceptedEntry>,
}

impl WindowFile {
    /// An order in this version's format.
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
    /// [`Entry::shard`].
    pub shard: u32,
    /// [`Entry::replica`].
    pub replica: u32,
    /// [`Entry::window`].
    #[serde(flatten)]
    pub window: Window,
    /// [`Entry::drain`] in milliseconds.
    #[serde(default)]
    pub drain_millis: Option<i64>,
    /// [`Entry::order`].
    #[serde(default)]
    pub order: Option<u64>,
    /// [`Entry::released`].
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
    /// The entry, with a generation.
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

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Thanos serves.
    Ready,
    /// Thanos was not ready within the ready timeout.
    TimedOut,
    /// Thanos serves, but could not load blocks that it should have: it is to be started again before the pod turns Ready.
    Incomplete,
}

/// The sidecar's judgement of one start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The start it is about: [`Record::launch`].
    pub launch: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// The sidecar's wish to know which blocks are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspect {
    /// Version of the format.
    pub contract: u32,
    /// Grows with every wish.
    pub number: u64,
    /// The start it is about: [`Record::launch`].
    pub launch: u64,
    /// The window that thanos serves.
    #[serde(flatten)]
    pub window: Window,
    /// When thanos' last sync was seen, by the pod's clock: its window is evaluated at that time.
    pub synced_unix_seconds: i64,
    /// How many blocks thanos lacks by its own counts. 0: what has no index header now was filtered by thanos.
    pub missing: u64,
}

/// The launcher's list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockList {
    /// Version of the format.
    pub contract: u32,
    /// The [`Inspect::number`] that this answers.
    pub number: u64,
    /// [`Inspect::launch`].
    pub launch: u64,
    /// Why nothing can be told; all that follows then means nothing.
    #[serde(default)]
    pub unknown: Option<String>,
    /// The bucket and what of it lies outside the window.
    #[serde(flatten)]
    pub bucket: BucketCounts,
    /// Blocks of the window that may be missing.
    pub candidates_total: u64,
    /// The newest of them, at most [`super::loaded::MAX_MISSING`].
    pub candidates: Vec<BlockRef>,
    /// Blocks that thanos counts as missing, but whose samples it has in other blocks.
    #[serde(default)]
    pub covered: u64,
}

/// Where a start stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LaunchState {
    /// Started, or about to be: written before the process exists.
    Started,
    /// Being stopped, to be started again with another window.
    Stopping,
    /// Ended; the launcher ended with it.
    Exited,
}

/// A window that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The window.
    #[serde(flatten)]
    pub window: Window,
    /// Why, in a sentence.
    pub reason: String,
    /// How often in a row.
    pub times: u32,
}

/// What the launcher knows, written before it acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the format.
    pub contract: u32,
    /// Number of this start; grows with every start in this pod.
    pub launch: u64,
    /// The last order acted on ([`WindowFile::request`]); 0 is the initial arguments.
    pub request: u64,
    /// The window of this start.
    #[serde(flatten)]
    pub window: Window,
    /// Where this start stands.
    pub state: LaunchState,
    /// Whether this start was ever ready.
    pub ready: bool,
    /// Whether this start followed another one in the same container.
    pub in_place: bool,
    /// The last window that was ready in this pod.
    pub good: Option<Window>,
    /// The window that was given up for `good`.
    pub failed: Option<Failed>,
    /// Starts in place so far.
    pub restarts: u64,
}

impl Record {
    /// Marks this start as ready: its window is good from now on, and a failure of the same window is forgotten.
    pub fn mark_ready(&mut self) {
        self.ready = true;
        self.good = Some(self.window);
        self.failed = self
            .failed
            .take()
            .filter(|failed| failed.window != self.window);
    }
}

/// Reads one of the files; what is no such document is absent.
#[must_use]
pub fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    if bytes.len() > MAX_FILE_BYTES {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

/// The bytes of one of the files.
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
        let record = Record {
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
