//! How long thanos took to load a window: the `last_load` part of the sidecar's `/status`.
//!
//! Measured by the launcher, which starts thanos and sees its data directory, and kept in its record,
//! so it survives a restart of the sidecar.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::core::model::window::Window;

/// A longer load is an error of some clock. Milliseconds: a year.
const MAX_MILLIS: u64 = 365 * 86_400_000;

/// The last start of thanos that became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLoad {
    #[serde(flatten)]
    pub window: Window,
    /// From the start of thanos until it was ready. In the document: seconds with a fraction.
    #[serde(rename = "seconds", with = "seconds")]
    pub millis: u64,
    /// Blocks that were loaded when it was ready; `None` if unknown.
    #[serde(default)]
    pub blocks: Option<u64>,
    /// Of these, the blocks whose index header was not on the disk before the start; `None` if
    /// unknown.
    #[serde(default)]
    pub blocks_new: Option<u64>,
}

impl LastLoad {
    /// Returns the blocks that were read from the disk and those that were downloaded.
    #[must_use]
    pub fn counts(self) -> Option<(u64, u64)> {
        let (blocks, new) = (self.blocks?, self.blocks_new?);
        Some((blocks.checked_sub(new)?, new))
    }
}

/// Reads a load of any form; one that is not understood counts as absent, because nothing depends
/// on it.
pub(super) fn lenient<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<LastLoad>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

mod seconds {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::MAX_MILLIS;

    #[allow(
        clippy::cast_precision_loss,
        clippy::trivially_copy_pass_by_ref,
        reason = "below 2^53; serde passes a reference"
    )]
    pub(super) fn serialize<S: Serializer>(millis: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64((*millis).min(MAX_MILLIS) as f64 / 1000.0)
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "checked: between 0 and a year"
    )]
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let millis = (f64::deserialize(from)? * 1000.0).round();
        if (0.0..=MAX_MILLIS as f64).contains(&millis) {
            Ok(millis as u64)
        } else {
            Err(serde::de::Error::custom(
                "a load takes between 0 and a year",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Holder {
        #[serde(default, deserialize_with = "lenient")]
        last_load: Option<LastLoad>,
    }

    fn read(load: &str) -> Option<LastLoad> {
        let text = format!(r#"{{"last_load":{load}}}"#);
        serde_json::from_str::<Holder>(&text).unwrap().last_load
    }

    #[test]
    fn the_document_reads_back() {
        let text = r#"{"min_time":"-124d8h","max_time":"1d","seconds":47.8,"blocks":2502,"blocks_new":2500}"#;
        let load = read(text).unwrap();
        assert_eq!(serde_json::to_string(&load).unwrap(), text);
        assert_eq!((load.millis, load.counts()), (47_800, Some((2, 2500))));
        let bare = read(r#"{"min_time":"-1d","max_time":"1d","seconds":3,"news":[1]}"#).unwrap();
        assert_eq!((bare.millis, bare.counts()), (3_000, None));
    }

    #[test]
    fn nonsense_is_absent() {
        for load in [
            "null",
            "7",
            "[]",
            r#"{"seconds":1}"#,
            r#"{"min_time":"-1d","max_time":"1d","seconds":-1}"#,
            r#"{"min_time":"-1d","max_time":"1d","seconds":1e300}"#,
            r#"{"min_time":"-1d","max_time":"1d","seconds":"1"}"#,
            r#"{"min_time":"-1d","max_time":"1d","seconds":1,"blocks":-1}"#,
        ] {
            assert_eq!(read(load), None, "{load}");
        }
        // More new blocks than blocks: a later sync removed some.
        let odd =
            read(r#"{"min_time":"-1d","max_time":"1d","seconds":1,"blocks":1,"blocks_new":2}"#);
        assert_eq!(odd.unwrap().counts(), None);
    }
}
