//! The sidecar's `GET /status` document, which the leader and `timeshard status` read from every
//! pod.
//!
//! One type for both ends. Agents and servers differ in age by months: readers ignore unknown keys
//! and require only `pod` and `phase`. A missing key reads as the most careful value: a pod whose
//! document has no `applied` is never confirmed.

mod read;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::last_load::{self, LastLoad};
use super::loaded::LoadedBlocks;
use crate::core::model::window::Window;

/// The pod's phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Thanos was started and is not ready yet, for reasons other than a new window.
    #[default]
    Starting,
    Serving,
    /// Thanos still serves the old window while queriers drop the pod.
    Draining,
    /// Thanos is being restarted in place.
    Restarting,
    /// The published window was given up. Thanos serves the last good one, and the pod is Ready.
    Failed,
}

impl Phase {
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Serving,
        Self::Draining,
        Self::Restarting,
        Self::Failed,
    ];

    /// Returns the name in the document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
        }
    }

    /// Returns whether the pod should receive queries.
    #[must_use]
    pub const fn is_ready(self) -> bool {
        matches!(self, Self::Serving | Self::Failed)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    pub pod: String,
    /// From the entry; `None` before one was read.
    pub shard: Option<u32>,
    /// From the entry; `None` before one was read.
    pub replica: Option<u32>,
    pub phase: Phase,
    /// The last good entry's window; `None` before one was read.
    pub published: Option<Window>,
    /// The window that the running thanos serves; `None` while it does not serve.
    pub applied: Option<Window>,
    /// Whether `applied` was read from thanos itself, not only from its arguments.
    #[serde(default)]
    pub verified: bool,
    /// Restarts in place so far.
    #[serde(default)]
    pub restarts: u64,
    /// What is wrong, as a sentence.
    pub last_error: Option<String>,
    /// Empty if unknown.
    #[serde(default)]
    pub agent_version: String,
    /// Version of this document; 0 if unknown.
    #[serde(default)]
    pub contract: u32,
    /// `None` from an agent of contract 1, or if a server of that time injected the pod.
    #[serde(default)]
    pub namespace: Option<String>,
    /// `None` as `namespace`.
    #[serde(default)]
    pub uid: Option<String>,
    /// The greatest accepted generation of an entry.
    #[serde(default)]
    pub generation: Option<u64>,
    /// The order of the accepted entry.
    #[serde(default)]
    pub order: Option<u64>,
    /// What thanos has loaded; `None` if unknown.
    #[serde(default)]
    pub blocks: Option<LoadedBlocks>,
    /// Why `blocks` is `None`, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks_unknown: Option<String>,
    /// How long the last start of thanos took until it was ready; `None` if unknown.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "last_load::lenient"
    )]
    pub last_load: Option<LastLoad>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_contract() {
        let text = concat!(
            r#"{"pod":"thanos-store-gateway-0","shard":0,"replica":1,"phase":"serving","#,
            r#""published":{"min_time":"-124d8h","max_time":"1d"},"applied":null,"verified":false,"restarts":2,"#,
            r#""last_error":null,"agent_version":"0.1.0","contract":2,"namespace":"monitoring","uid":"u-1","generation":7,"order":null,"#,
            r#""blocks":null,"blocks_unknown":"index headers are downloaded lazily","#,
            r#""last_load":{"min_time":"-124d8h","max_time":"1d","seconds":9.125,"blocks":2502,"blocks_new":0}}"#
        );
        let status: AgentStatus = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&status).unwrap(), text);
        for phase in Phase::ALL {
            assert_eq!(
                serde_json::to_string(&phase).unwrap(),
                format!("\"{phase}\"")
            );
        }
    }

    fn read(text: &str) -> Result<AgentStatus, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// A serving pod, as in release 0.1.
    fn serving() -> AgentStatus {
        let window = Window {
            min: "-370d".parse().unwrap(),
            max: "-246d16h".parse().unwrap(),
        };
        AgentStatus {
            pod: "store-0".to_owned(),
            shard: Some(2),
            replica: Some(1),
            phase: Phase::Serving,
            published: Some(window),
            applied: Some(window),
            verified: true,
            restarts: 4,
            last_error: None,
            agent_version: "0.1.0".to_owned(),
            contract: 1,
            ..AgentStatus::default()
        }
    }

    /// Answers of agents of other ages. An answer of a released agent stays here for as long as its
    /// pods may run.
    #[test]
    fn agents_of_other_ages_are_understood() {
        let release_0_1 = concat!(
            r#"{"pod":"store-0","shard":2,"replica":1,"phase":"serving","published":{"min_time":"-370d","max_time":"-246d16h"},"#,
            r#""applied":{"min_time":"-370d","max_time":"-246d16h"},"verified":true,"restarts":4,"last_error":null,"#,
            r#""agent_version":"0.1.0","contract":1}"#
        );
        assert_eq!(read(release_0_1).unwrap(), serving());
        // A newer agent: a higher contract, another order, unknown keys, also within a window.
        let newer = concat!(
            r#"{"contract":3,"agent_version":"9.0.0","news":{"a":[1]},"pod":"store-0","phase":"serving","shard":2,"replica":1,"verified":true,"#,
            r#""published":{"min_time":"-370d","max_time":"-246d16h","quantum":"1h"},"#,
            r#""applied":{"min_time":"-370d","max_time":"-246d16h"},"restarts":4,"last_error":null,"loaded_blocks":12,"last_load":"fast"}"#
        );
        let expected = AgentStatus {
            agent_version: "9.0.0".to_owned(),
            contract: 3,
            ..serving()
        };
        assert_eq!(read(newer).unwrap(), expected);
        // An agent before any of these keys: it serves, and claims nothing.
        let bare = read(r#"{"pod":"store-0","phase":"serving"}"#).unwrap();
        let nothing = AgentStatus {
            shard: None,
            replica: None,
            published: None,
            applied: None,
            verified: false,
            restarts: 0,
            ..serving()
        };
        assert_eq!(
            bare,
            AgentStatus {
                agent_version: String::new(),
                contract: 0,
                ..nothing
            }
        );
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for (text, why) in [
            (r#"{"phase":"serving"}"#, "missing field `pod`"),
            (r#"{"pod":"store-0"}"#, "missing field `phase`"),
            (
                r#"{"pod":"store-0","phase":"dreaming"}"#,
                "unknown variant `dreaming`",
            ),
            (
                r#"{"pod":"store-0","phase":"serving","applied":{"min_time":"-1d"}}"#,
                "missing field `max_time`",
            ),
        ] {
            assert!(
                read(text).unwrap_err().contains(why),
                "{text}: {:?}",
                read(text)
            );
        }
    }
}
