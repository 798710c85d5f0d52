//! The sidecar's `GET /status` document: what the refresher and `timeshard status` read from every pod.
//!
//! One type for both ends. Unknown keys are ignored on the way in, because agents and servers differ in age.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::window::Window;

/// What the pod is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Thanos was started and is not ready yet, for reasons other than a new window.
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
    pub const ALL: [Self; 5] = [Self::Starting, Self::Serving, Self::Draining, Self::Restarting, Self::Failed];

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    pub verified: bool,
    /// Restarts in place so far.
    pub restarts: u64,
    /// What is wrong, in a sentence.
    pub last_error: Option<String>,
    /// Version of the agent.
    pub agent_version: String,
    /// Version of this document.
    pub contract: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_contract() {
        let text = concat!(
            r#"{"pod":"thanos-store-gateway-0","shard":0,"replica":1,"phase":"serving","#,
            r#""published":{"min_time":"-124d8h","max_time":"1d"},"applied":null,"verified":false,"restarts":2,"#,
            r#""last_error":null,"agent_version":"0.1.0","contract":1}"#
        );
        let status: AgentStatus = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&status).unwrap(), text);
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_string(&phase).unwrap(), format!("\"{phase}\""));
        }
    }
}
