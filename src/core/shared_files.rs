//! The files by which sidecar and launcher talk, in the directory they share.
//!
//! Three files, each with one writer, each replaced as a whole (temp, fsync, rename):
//!
//! | file | writer | says |
//! |---|---|---|
//! | `window.json` | sidecar | start thanos with this window |
//! | `verdict.json` | sidecar | that start became ready, or took too long |
//! | `launcher.json` | launcher | what was started, whether it was ever ready, the last good window, what was given up |
//!
//! `launcher.json` is several marks at once, so that they cannot contradict each other: that it exists means that thanos
//! was started once in this pod; a start that is not `ready` is an open attempt. Unknown keys are ignored: sidecar and
//! launcher of one pod may be of different versions for a moment. What cannot be read counts as absent.

use serde::{Deserialize, Serialize};

use super::names::CONTRACT;
use super::window::Window;

/// Name of the sidecar's [`WindowFile`].
pub const WINDOW_FILE: &str = "window.json";
/// Name of the sidecar's [`Verdict`].
pub const VERDICT_FILE: &str = "verdict.json";
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
}

impl WindowFile {
    /// An order in this version's format.
    #[must_use]
    pub const fn new(request: u64, window: Window, reload: ReloadMode) -> Self {
        Self { contract: CONTRACT, request, window, reload }
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
}

/// The sidecar's judgement of one start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The start it is about: [`Record::launch`].
    pub launch: u64,
    /// What became of it.
    pub outcome: Outcome,
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
        self.failed = self.failed.take().filter(|failed| failed.window != self.window);
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
        Window { min: min.parse().unwrap(), max: max.parse().unwrap() }
    }

    #[test]
    fn documents_read_back_and_unknown_keys_do_not_matter() {
        let file = WindowFile::new(3, window("-124d8h", "1d"), ReloadMode::Exec);
        assert_eq!(decode(&encode(&file).unwrap()), Some(file));
        let text = br#"{"contract":2,"request":3,"min_time":"-2976h","max_time":"24h","new":{"a":1}}"#;
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
            failed: Some(Failed { window: window("-3d", "0s"), reason: "exit code 1".to_owned(), times: 2 }),
            restarts: 1,
        };
        assert_eq!(decode(&encode(&record).unwrap()), Some(record));
    }

    #[test]
    fn a_torn_or_foreign_file_is_absent() {
        let large = vec![b' '; MAX_FILE_BYTES + 1];
        for bytes in [&b""[..], b"{", b"[]", b"{\"request\":-1}", &[0xff; 10], &large] {
            assert_eq!(decode::<WindowFile>(bytes), None);
        }
    }
}
