//! What the leader says of a StatefulSet: the part of the server's `/status` that `timeshard status` and the page show.
//!
//! One type for both ends. Unknown keys are ignored on the way in, because servers and command lines differ in age.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::text::older_end;
use super::window::Window;

/// How far a StatefulSet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The leader has not looked at it yet.
    #[default]
    Unknown,
    /// Every pod serves its planned window, and every querier knows it.
    Settled,
    /// A step runs, or the next one is about to.
    Rolling,
    /// Something has to happen first that the rollout cannot do; the message says what.
    Waiting,
    /// Its user has stopped the rollout.
    Paused,
    /// Every further step would leave a gap.
    Blocked,
    /// Nothing can be written for it; the message says why.
    Refused,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Settled,
        Self::Rolling,
        Self::Waiting,
        Self::Paused,
        Self::Blocked,
        Self::Refused,
    ];

    /// As in the document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Settled => "settled",
            Self::Rolling => "rolling",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
        }
    }
}

/// What a pod is for the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodState {
    /// Not there.
    Absent,
    /// There, without our sidecar.
    NotInjected,
    /// Being deleted.
    Terminating,
    /// Its sidecar does not answer.
    Unreachable,
    /// On its way to what is published.
    Settling,
    /// It serves what is published, but not every querier may know it yet.
    Joining,
    /// It serves what is published, and every querier knows it.
    Confirmed,
    /// It does not serve what is published, and will not by waiting.
    Broken,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodReport {
    /// Its name.
    pub pod: String,
    /// Its ordinal, `spec.ordinals.start` included.
    pub ordinal: u32,
    /// Its shard in the plan, newest first.
    pub shard: u32,
    /// Its number within the shard.
    pub replica: u32,
    /// Whether the plan could do without it.
    pub surplus: bool,
    /// What the plan wants.
    pub desired: Window,
    /// What the ConfigMap says.
    pub published: Option<Window>,
    /// What the running thanos confirms.
    pub applied: Option<Window>,
    /// Whether `applied` was read from thanos itself.
    pub verified: bool,
    /// What it is for the rollout.
    pub state: PodState,
    /// The sidecar's phase, if it answers.
    pub phase: Option<String>,
    /// Seconds in this state, as far as this leader has seen.
    pub seconds_in_state: u64,
    /// Since when, by the leader's clock; 0 is not known.
    #[serde(default)]
    pub since_unix_seconds: i64,
    /// Seconds for which it has been Ready with another window than is published, as far as this leader has seen; null
    /// while that is not so.
    #[serde(default)]
    pub drift_seconds: Option<u64>,
    /// Restarts of thanos in place.
    pub restarts: u64,
    /// Version of its agent.
    pub agent_version: Option<String>,
    /// Blocks that its window asks for; `None` where that is not known.
    #[serde(default)]
    pub blocks_expected: Option<u64>,
    /// Of these, blocks that are not loaded; `None` where that is not known.
    #[serde(default)]
    pub blocks_missing: Option<u64>,
    /// Why it is not known which blocks are loaded.
    #[serde(default)]
    pub blocks_unknown: Option<String>,
    /// What is wrong or missing, in a sentence.
    pub why: Option<String>,
}

/// A range that nobody serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapReport {
    /// Its older end, RFC 3339.
    pub from: String,
    /// Its newer end, RFC 3339.
    pub to: String,
}

impl fmt::Display for GapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} .. {}", older_end(&self.from), self.to)
    }
}

/// A block of the bucket that some pod has not loaded although its window holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockReport {
    /// The block's ULID.
    pub ulid: String,
    /// Its oldest sample, RFC 3339.
    pub from: String,
    /// The end of its newest samples, RFC 3339.
    pub to: String,
    /// Pods that have not loaded it, the first few by ordinal.
    pub missing_on: Vec<String>,
    /// Confirmed pods that have loaded it; 0 means that no query finds its samples.
    pub served_by: u32,
    /// Since when it has been so, by the leader's clock; 0 is not known.
    #[serde(default)]
    pub since_unix_seconds: i64,
}

/// Whether the blocks that the pods' windows ask for are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksReport {
    /// Pods that say which blocks they have loaded.
    pub known_pods: u32,
    /// Pods that serve and cannot say it.
    pub unknown_pods: u32,
    /// Blocks within the retention that no confirmed pod has loaded; behind shard Services, that no Service serves by all of its
    /// members.
    pub unserved_total: u32,
    /// The newest of these.
    pub unserved: Vec<BlockReport>,
    /// Blocks that some pod has not loaded, and another one serves.
    pub missing_total: u32,
    /// The newest of these.
    pub missing: Vec<BlockReport>,
    /// Blocks of the bucket that lie outside the windows of all pods: no query finds their samples. `None` while no pod knows.
    pub outside_windows: Option<u64>,
    /// Blocks of the bucket; `None` while no pod knows.
    pub bucket_total: Option<u64>,
}

/// How well a part of the required range is served. Ages, not times: with relative windows they stay as time passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageReport {
    /// Age of its older end; negative is the future.
    pub oldest_age_seconds: i64,
    /// Age of its newer end.
    pub newest_age_seconds: i64,
    /// Ready pods that apply a window which holds all of it.
    pub serving: u32,
    /// Of these, pods that every querier knows.
    pub confirmed: u32,
}

/// A pod that is given another window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveReport {
    /// Its name.
    pub pod: String,
    /// From which window.
    pub from: Window,
    /// To which.
    pub to: Window,
}

/// Pods whose windows change together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The first of them.
    pub moves: Vec<MoveReport>,
    /// How many more there are.
    pub more: u32,
}

/// What has been done of a rollout, as far as this leader has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutReport {
    /// When it began, RFC 3339.
    pub began: String,
    /// Steps that were published.
    pub steps_done: u32,
    /// Windows that these changed.
    pub moves_done: u32,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Some instant is served by no pod any more.
    Gap,
    /// Every instant is served again.
    Whole,
    /// The plan, the number of pods, or how far the rollout is.
    Rollout,
    /// Windows were published.
    Step,
    /// Pods are confirmed.
    Confirmed,
    /// Pods that need somebody's attention.
    Trouble,
    /// What a later version adds.
    #[serde(other)]
    Other,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    /// When it was seen, RFC 3339.
    pub at: String,
    /// What kind of thing.
    pub kind: ChangeKind,
    /// What happened, in a sentence.
    pub text: String,
}

/// One StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetReport {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its ConfigMap's name.
    pub configmap: String,
    /// `spec.replicas`.
    pub replicas: u32,
    /// How far it is.
    pub state: State,
    /// What it waits for or does, in a sentence.
    pub message: String,
    /// Pods whose published window is not the planned one.
    pub moves_left: u32,
    /// Steps until everything is as planned, if nothing fails.
    pub steps_left: u32,
    /// Seconds that these steps take at least, by drain and discovery delay.
    pub eta_seconds: u64,
    /// Ranges of the retention that no ready pod serves.
    pub gaps: Vec<GapReport>,
    /// Length of these, in seconds.
    pub gap_seconds: u64,
    /// The fewest ready pods that any instant of the retention has, by what they apply.
    pub minimum_ready_replicas: u32,
    /// The same of confirmed pods: what every querier can count on.
    #[serde(default)]
    pub minimum_confirmed_replicas: u32,
    /// The same when every pod serves what is planned for it.
    #[serde(default)]
    pub planned_minimum_replicas: u32,
    /// Store pods that were admitted without injection although nobody opted them out.
    #[serde(default)]
    pub uninjected_store_pods: u32,
    /// What its user should know.
    pub warnings: Vec<String>,
    /// The range that must be served.
    #[serde(default)]
    pub required: Option<Window>,
    /// Its length into the past, in seconds; `None` where it has no end (`retention: forever`).
    #[serde(default)]
    pub retention_seconds: Option<i64>,
    /// How well each part of it is served, oldest first.
    #[serde(default)]
    pub coverage: Vec<CoverageReport>,
    /// Pods whose sidecar was not asked yet: while there are some, what is served is not known.
    #[serde(default)]
    pub not_asked: u32,
    /// The next steps, if nothing fails.
    #[serde(default)]
    pub steps: Vec<StepReport>,
    /// What was done of the rollout that goes on.
    #[serde(default)]
    pub rollout: Option<RolloutReport>,
    /// Since when there are gaps, RFC 3339, as far as this leader has seen.
    #[serde(default)]
    pub gap_since: Option<String>,
    /// What happened last, newest first.
    #[serde(default)]
    pub changes: Vec<ChangeReport>,
    /// Whether the blocks that the windows ask for are loaded.
    #[serde(default)]
    pub blocks: BlocksReport,
    /// Its pods, by ordinal.
    pub pods: Vec<PodReport>,
}

impl SetReport {
    /// The longest drift of its pods, in seconds; 0 without one.
    #[must_use]
    pub fn drift_seconds(&self) -> u64 {
        self.drifts().unwrap_or(0)
    }

    /// The same; `None` while no pod drifts.
    #[must_use]
    pub fn drifts(&self) -> Option<u64> {
        self.pods.iter().filter_map(|pod| pod.drift_seconds).max()
    }

    /// So much later, while nothing else was seen.
    #[must_use]
    pub fn aged_by(mut self, seconds: u64) -> Self {
        for drift in self
            .pods
            .iter_mut()
            .filter_map(|pod| pod.drift_seconds.as_mut())
        {
            *drift = drift.saturating_add(seconds);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_called_as_in_the_document() {
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
