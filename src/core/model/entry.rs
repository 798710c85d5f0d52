//! A pod's entry in the ConfigMap: the published window, the only source of truth for a running pod.
//!
//! Writing is deterministic: the same plan gives the same bytes. Reading ignores the keys of newer
//! servers and requires both bounds, not inverted. Deliberately absent: files.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::bounded_yaml::{why, without_aliases};
use super::duration::{DurationError, PromDuration};
use super::window::{Bound, BoundError, InvertedWindow, Window};

/// An entry is a few lines; larger text is not an entry.
pub const MAX_ENTRY_BYTES: usize = 16 * 1024;
/// Keys and values of an entry; newer servers may write more of them.
const MAX_ENTRY_NODES: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Newest first.
    pub shard: u32,
    /// Number within the shard.
    pub replica: u32,
    pub window: Window,
    /// How long the sidecar drains before a change; `None` for the value of its flag.
    pub drain: Option<PromDuration>,
    /// Raised by the leader with every change of this entry, so that the sidecar can distinguish the
    /// leader's writes from edits and restored backups. `None` in entries written by hand or for
    /// agents of contract 1.
    pub generation: Option<u64>,
    /// Number of this pod's move.
    pub order: Option<u64>,
    /// The move whose drain may end now, because no querier uses the pod any more. Ignored unless it
    /// equals `order`.
    pub released: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("the entry has {0} bytes, more than the {MAX_ENTRY_BYTES} an entry may have")]
    TooLarge(usize),
    #[error("the entry is invalid: {0}; expected the keys shard, replica, min_time and max_time")]
    Yaml(String),
    #[error("{key}: {why}")]
    Bound { key: &'static str, why: BoundError },
    #[error(transparent)]
    Inverted(#[from] InvertedWindow),
    #[error("drain: {0}")]
    Drain(#[from] DurationError),
    #[error("drain: {0} is negative; write 0s for none")]
    NegativeDrain(PromDuration),
}

#[derive(Deserialize)]
struct RawEntry {
    shard: u32,
    #[serde(default)]
    replica: u32,
    min_time: String,
    max_time: String,
    drain: Option<String>,
    #[serde(default)]
    generation: Option<u64>,
    #[serde(default)]
    order: Option<u64>,
    #[serde(default)]
    released: Option<u64>,
}

fn unreadable(error: &serde_saphyr::Error) -> EntryError {
    let error = error.without_snippet();
    let place = error.location().map_or_else(String::new, |at| {
        format!(" at line {}, column {}", at.line(), at.column())
    });
    EntryError::Yaml(why(error) + &place)
}

impl Entry {
    #[must_use]
    pub const fn new(shard: u32, replica: u32, window: Window) -> Self {
        Self {
            shard,
            replica,
            window,
            drain: None,
            generation: None,
            order: None,
            released: None,
        }
    }

    /// Reads an entry. `now` only matters for a window with a relative and an absolute bound.
    ///
    /// # Errors
    /// [`EntryError`], which names the key and the value.
    pub fn parse(text: &str, now: DateTime<Utc>) -> Result<Self, EntryError> {
        if text.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLarge(text.len()));
        }
        let raw: RawEntry =
            serde_saphyr::from_str_with_options(text, without_aliases(MAX_ENTRY_NODES))
                .map_err(|e| unreadable(&e))?;
        let bound = |key, text: &str| {
            text.parse::<Bound>()
                .map_err(|why| EntryError::Bound { key, why })
        };
        let window = Window {
            min: bound("min_time", &raw.min_time)?,
            max: bound("max_time", &raw.max_time)?,
        }
        .checked(now)?;
        let drain = raw
            .drain
            .map(|text| text.parse::<PromDuration>())
            .transpose()?;
        if let Some(drain) = drain.filter(|d| *d < PromDuration::ZERO) {
            return Err(EntryError::NegativeDrain(drain));
        }
        let (generation, order, released) = (raw.generation, raw.order, raw.released);
        Ok(Self {
            shard: raw.shard,
            replica: raw.replica,
            window,
            drain,
            generation,
            order,
            released,
        })
    }

    /// Returns the text for the ConfigMap.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut text = String::with_capacity(96);
        // Writing into a String does not fail, and none of these values needs YAML quoting (RFC
        // 3339 times do).
        let quoted = |bound: Bound| match bound {
            Bound::Relative(duration) => duration.to_string(),
            Bound::Absolute(_) => format!("\"{bound}\""),
        };
        let _ = write!(
            text,
            "shard: {}\nreplica: {}\nmin_time: {}\nmax_time: {}\n",
            self.shard,
            self.replica,
            quoted(self.window.min),
            quoted(self.window.max)
        );
        if let Some(drain) = self.drain {
            let _ = writeln!(text, "drain: {drain}");
        }
        for (key, number) in [
            ("generation", self.generation),
            ("order", self.order),
            ("released", self.released),
        ] {
            if let Some(number) = number {
                let _ = writeln!(text, "{key}: {number}");
            }
        }
        text
    }
}

/// Returns the ConfigMap key of a pod's entry.
#[must_use]
pub fn key(pod: &str) -> String {
    format!("{pod}.yaml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    fn now() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, 21, 0, 0, 0).unwrap()
    }

    /// As agents of contract 1 read it: an RFC 3339 time with a duration.
    #[test]
    fn an_open_window_is_written_as_thanos_default() {
        let window = Window {
            min: Bound::BEGINNING,
            max: "-90d".parse().unwrap(),
        };
        let text = Entry::new(2, 1, window).to_yaml();
        assert_eq!(
            text,
            "shard: 2\nreplica: 1\nmin_time: \"0000-01-01T00:00:00Z\"\nmax_time: -90d\n"
        );
        assert_eq!(
            Entry::parse(&text, DateTime::UNIX_EPOCH).unwrap().window,
            window
        );
    }

    #[test]
    fn the_contract_document_reads_back() {
        let text = "shard: 0\nreplica: 0\nmin_time: -124d8h\nmax_time: 1d\n";
        let entry = Entry::parse(text, now()).unwrap();
        assert_eq!(entry.to_yaml(), text);
        let newer =
            Entry::parse(&format!("{text}something_new: [1, 2]\ndrain: 5s\n"), now()).unwrap();
        assert_eq!(newer.drain, Some(PromDuration::from_secs(5)));
        assert_eq!(newer.window, entry.window);
    }

    #[test]
    fn an_absolute_window_reads_back() {
        let window = Window {
            min: "2026-01-31T00:00:00Z".parse().unwrap(),
            max: "2026-02-28T00:00:00Z".parse().unwrap(),
        };
        let entry = Entry {
            generation: Some(u64::MAX),
            order: Some(3),
            released: Some(3),
            ..Entry::new(1, 2, window)
        };
        assert_eq!(Entry::parse(&entry.to_yaml(), now()).unwrap(), entry);
    }

    #[test]
    fn a_wrong_entry_is_refused_with_key_and_value() {
        let long = "x".repeat(MAX_ENTRY_BYTES + 1);
        let many = format!(
            "shard: 0\nmin_time: -1d\nmax_time: 0s\nx: [{}]\n",
            "1,".repeat(2_000)
        );
        for (text, why) in [
            ("", "expected the keys"),
            ("[]", "expected the keys"),
            ("shard: 0\nmin_time: -1d\n", "max_time"),
            (
                "shard: zero\nmin_time: -1d\nmax_time: 0s\n",
                "line 1, column 8",
            ),
            ("shard: 0\nmin_time: -1.5d\nmax_time: 0s\n", "min_time"),
            ("shard: 0\nmin_time: ''\nmax_time: 0s\n", "min_time"),
            ("shard: 0\nmin_time: -1d\nmax_time: -2d\n", "inverted"),
            (
                "shard: 0\nmin_time: -1d\nmax_time: 0s\ndrain: -1s\n",
                "negative",
            ),
            (
                "shard: 0\nmin_time: -1d\nmax_time: 0s\ngeneration: -1\n",
                "line 4",
            ),
            (
                "shard: 0\nmin_time: -1d\nmax_time: 0s\ngeneration: many\n",
                "line 4",
            ),
            (
                "shard: 0\nshard: 1\nmin_time: -1d\nmax_time: 0s\n",
                "duplicate",
            ),
            (long.as_str(), "bytes"),
            (
                "x: &x [1, 1]\ny: [*x, *x]\nshard: 0\nmin_time: -1d\nmax_time: 0s\n",
                "aliases (*name) are not accepted",
            ),
            (many.as_str(), "too many values"),
        ] {
            let error = Entry::parse(text, now()).unwrap_err().to_string();
            assert!(error.contains(why), "{text:.40}: {error}");
        }
    }
}
