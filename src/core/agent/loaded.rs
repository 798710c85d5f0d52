//! Which blocks of the bucket a pod's thanos has loaded: the `blocks` part of the sidecar's
//! `/status`.
//!
//! Ready with the right flags does not mean that all blocks are loaded: thanos skips a block that
//! it cannot load and serves the rest. So the sidecar compares the blocks that passed thanos'
//! filters with the loaded ones, and names the missing ones.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The number of missing blocks that a document names, the newest first.
pub const MAX_MISSING: usize = 256;

pub const ULID_CHARS: usize = 26;

/// A block of the bucket: its id and the time that its samples span.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockRef {
    pub ulid: String,
    /// The oldest sample, inclusive.
    #[serde(with = "rfc3339")]
    pub min_time: DateTime<Utc>,
    /// The end of the newest sample's range, as in `meta.json`.
    #[serde(with = "rfc3339")]
    pub max_time: DateTime<Utc>,
}

/// Block counts of the whole bucket and of its parts outside this pod's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketCounts {
    pub total: u64,
    /// Blocks that end before the window begins.
    pub older: u64,
    /// Blocks that begin after the window ends.
    pub newer: u64,
}

/// Which blocks of its window thanos has loaded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoadedBlocks {
    /// Blocks that passed thanos' filters at its last sync.
    pub expected: u64,
    /// Expected blocks that are loaded.
    pub loaded: u64,
    pub missing_total: u64,
    /// The newest missing blocks, at most [`MAX_MISSING`].
    #[serde(default)]
    pub missing: Vec<BlockRef>,
    /// When thanos last read the bucket without an error, by the pod's clock; 0 if unknown.
    #[serde(default)]
    pub last_sync_unix_seconds: i64,
    /// `None` if the data directory cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<BucketCounts>,
}

/// Ignores the time of the last sync and the counts of blocks that enter and leave windows, which
/// change all the time.
impl PartialEq for LoadedBlocks {
    fn eq(&self, other: &Self) -> bool {
        self.expected.saturating_sub(self.loaded) == other.expected.saturating_sub(other.loaded)
            && self.missing_total == other.missing_total
            && self.missing == other.missing
    }
}

impl Eq for LoadedBlocks {}

impl LoadedBlocks {
    /// Returns whether fewer blocks are named than are missing, so that the exact gap is unknown.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.missing_total > self.missing.len() as u64
    }
}

/// RFC 3339 with the fewest digits that keep the value: block bounds are milliseconds.
mod rfc3339 {
    use chrono::{DateTime, SecondsFormat, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &DateTime<Utc>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<DateTime<Utc>, D::Error> {
        let text = String::deserialize(deserializer)?;
        DateTime::parse_from_rfc3339(&text)
            .map(|time| time.with_timezone(&Utc))
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_reads_back() {
        let text = concat!(
            r#"{"expected":371,"loaded":370,"missing_total":1,"#,
            r#""missing":[{"ulid":"01K1H8R1000000000000A1B2C3","min_time":"2026-07-23T00:00:00Z","max_time":"2026-08-06T00:00:00.001Z"}],"#,
            r#""last_sync_unix_seconds":1795000000,"bucket":{"total":500,"older":100,"newer":29}}"#
        );
        let blocks: LoadedBlocks = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&blocks).unwrap(), text);
        assert!(!blocks.is_cut());
        let later = LoadedBlocks {
            last_sync_unix_seconds: 1_795_000_900,
            expected: 372,
            loaded: 371,
            ..blocks.clone()
        };
        assert_eq!(later, blocks);
        assert!(
            LoadedBlocks {
                missing: Vec::new(),
                ..blocks
            }
            .is_cut()
        );
        // As from an agent that cannot read the data directory.
        let bare: LoadedBlocks =
            serde_json::from_str(r#"{"expected":3,"loaded":3,"missing_total":0}"#).unwrap();
        assert_eq!(
            bare,
            LoadedBlocks {
                expected: 3,
                loaded: 3,
                ..LoadedBlocks::default()
            }
        );
    }
}
