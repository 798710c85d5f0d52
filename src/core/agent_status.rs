//! The sidecar's `GET /status` document: what the refresher and `timeshard status` read from every pod.
//!
//! One type for both ends. Agents and servers differ in age by months: on the way in unknown keys are ignored, and only `pod`
//! and `phase`, without which nothing can be said, must be there. What is missing reads as the most careful value: a pod whose
//! document has no `applied` is never confirmed.

#[cfg(feature = "server")]
mod read;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::loaded::LoadedBlocks;
use super::window::Window;

/// What the pod is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Thanos was started and is not ready yet, for reasons other than a new window.
    #[default]
    Starting,
    /// Thanos serves its window.
    Serving,
    /// Thanos still serves the old window while queriers let go of the pod.
    Draining,
    /// Thanos is being restarted in place.
    Restarting,
    /// The published window was given up; thanos serves the last good one, and the pod is Ready.
    Failed,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Serving,
        Self::Draining,
        Self::Restarting,
        Self::Failed,
    ];

    /// As in the document.
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

    /// Whether the pod should receive queries.
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

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The pod's name.
    pub pod: String,
    /// From the entry; null before one was read.
    pub shard: Option<u32>,
    /// From the entry; null before one was read.
    pub replica: Option<u32>,
    /// What the pod is doing.
    pub phase: Phase,
    /// The last good entry's window; null before one was read.
    pub published: Option<Window>,
    /// What the running thanos serves; null while it does not.
    pub applied: Option<Window>,
    /// Whether `applied` was read from thanos itself, not only from what it was started with.
    #[serde(default)]
    pub verified: bool,
    /// Restarts in place so far.
    #[serde(default)]
    pub restarts: u64,
    /// What is wrong, in a sentence.
    pub last_error: Option<String>,
    /// Version of the agent; empty if it does not say.
    #[serde(default)]
    pub agent_version: String,
    /// Version of this document; 0 if it does not say.
    #[serde(default)]
    pub contract: u32,
    /// The pod's namespace; `None` from an agent of contract 1, or of a pod that was injected by a server of that time.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The pod's UID; `None` like `namespace`.
    #[serde(default)]
    pub uid: Option<String>,
    /// The greatest generation of an entry that the sidecar has accepted; `None` before there was one.
    #[serde(default)]
    pub generation: Option<u64>,
    /// The order of the accepted entry; `None` if the entry has none.
    #[serde(default)]
    pub order: Option<u64>,
    /// What thanos has loaded; `None` where that cannot be known.
    #[serde(default)]
    pub blocks: Option<LoadedBlocks>,
    /// Why `blocks` is `None`, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks_unknown: Option<String>,
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
            r#""blocks":null,"blocks_unknown":"index headers are downloaded lazily"}"#
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

    /// A pod that serves, as release 0.1 told it.
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

    /// Answers as agents of other ages give them. What an agent of a release answered stays here for as long as its pods may run.
    #[test]
    fn agents_of_other_ages_are_understood() {
        let release_0_1 = concat!(
            r#"{"pod":"store-0","shard":2,"replica":1,"phase":"serving","published":{"min_time":"-370d","max_time":"-246d16h"},"#,
            r#""applied":{"min_time":"-370d","max_time":"-246d16h"},"verified":true,"restarts":4,"last_error":null,"#,
            r#""agent_version":"0.1.0","contract":1}"#
        );
        assert_eq!(read(release_0_1).unwrap(), serving());
        // A newer one: a higher contract, other order, keys that this server does not have, also within a window.
        let newer = concat!(
            r#"{"contract":3,"agent_version":"9.0.0","news":{"a":[1]},"pod":"store-0","phase":"serving","shard":2,"replica":1,"verified":true,"#,
            r#""published":{"min_time":"-370d","max_time":"-246d16h","quantum":"1h"},"#,
            r#""applied":{"min_time":"-370d","max_time":"-246d16h"},"restarts":4,"last_error":null,"loaded_blocks":12}"#
        );
        let expected = AgentStatus {
            agent_version: "9.0.0".to_owned(),
            contract: 3,
            ..serving()
        };
        assert_eq!(read(newer).unwrap(), expected);
        // One before any of these keys: it is there and serves, and claims nothing.
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
