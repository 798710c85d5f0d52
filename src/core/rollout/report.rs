//! The leader's report on a StatefulSet: the part of the server's `/status` that `timeshard status`
//! and the page show.
//!
//! Both ends use the same types. Readers ignore unknown keys, because servers and command lines
//! differ in age.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::agent::last_load::LastLoad;
use crate::core::model::text::{counted, older_end};
use crate::core::model::window::Window;

/// The state of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RolloutState {
    /// The leader has not reconciled it yet.
    #[default]
    Unknown,
    /// Every pod serves its planned window, and every querier knows it.
    Settled,
    /// A step runs, or the next one is about to.
    Rolling,
    /// Something must happen first that is outside the rollout's control; the message says what.
    Waiting,
    /// The user has paused the rollout.
    Paused,
    /// Every further step would leave a gap.
    Blocked,
    /// Nothing can be published; the message says why.
    Refused,
}

impl RolloutState {
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Settled,
        Self::Rolling,
        Self::Waiting,
        Self::Paused,
        Self::Blocked,
        Self::Refused,
    ];

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

/// The state of a pod, as far as the rollout is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodState {
    Absent,
    /// It exists, without timeshard's sidecar.
    NotInjected,
    Terminating,
    /// Its sidecar does not answer.
    Unreachable,
    /// On its way to its published window.
    Settling,
    /// It serves its published window, but some queriers may not know it yet.
    Joining,
    /// It serves its published window, and every querier knows it.
    Confirmed,
    /// It does not serve its published window, and waiting does not help.
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodReport {
    pub pod: String,
    /// Includes `spec.ordinals.start`.
    pub ordinal: u32,
    /// Shard in the plan, newest first.
    pub shard: u32,
    /// Number within the shard.
    pub replica: u32,
    /// Whether the plan does not need the pod.
    pub surplus: bool,
    /// The window in the plan.
    pub desired: Window,
    /// The window in the ConfigMap.
    pub published: Option<Window>,
    /// The window that the running thanos serves.
    pub applied: Option<Window>,
    /// Whether `applied` was read from thanos itself.
    pub verified: bool,
    pub state: PodState,
    /// The sidecar's phase, if it answers.
    pub phase: Option<String>,
    /// Seconds in this state, as far as this leader knows.
    pub seconds_in_state: u64,
    /// Start of this state by the leader's clock; 0 if unknown.
    #[serde(default)]
    pub since_unix_seconds: i64,
    /// Seconds for which the pod has been Ready with another window than the published one, as far
    /// as this leader knows; null if it is not.
    #[serde(default)]
    pub drift_seconds: Option<u64>,
    /// Restarts of thanos in place.
    pub restarts: u64,
    pub agent_version: Option<String>,
    /// Blocks in its window; `None` if unknown.
    #[serde(default)]
    pub blocks_expected: Option<u64>,
    /// Of these, blocks that are not loaded; `None` if unknown.
    #[serde(default)]
    pub blocks_missing: Option<u64>,
    /// Why it is unknown which blocks are loaded.
    #[serde(default)]
    pub blocks_unknown: Option<String>,
    /// How long the last start of thanos took until it was ready; `None` if unknown.
    #[serde(default)]
    pub last_load: Option<LastLoad>,
    /// What is wrong or missing, in a sentence.
    pub why: Option<String>,
}

/// A range that no pod serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapReport {
    /// Older end, RFC 3339.
    pub from: String,
    /// Newer end, RFC 3339.
    pub to: String,
}

impl fmt::Display for GapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} .. {}", older_end(&self.from), self.to)
    }
}

/// A block of the bucket that some pod has not loaded although the block is in its window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockReport {
    pub ulid: String,
    /// Time of the oldest sample, RFC 3339.
    pub from: String,
    /// End of the newest samples, RFC 3339.
    pub to: String,
    /// The first few pods by ordinal that have not loaded it.
    pub missing_on: Vec<String>,
    /// Number of confirmed pods that have loaded it; at 0 no query finds its samples.
    pub served_by: u32,
    /// When it began to be missing, by the leader's clock; 0 if unknown.
    #[serde(default)]
    pub since_unix_seconds: i64,
}

/// Whether pods have loaded the blocks in their windows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksReport {
    /// Serving pods that report which blocks they have loaded.
    pub known_pods: u32,
    /// Serving pods that do not.
    pub unknown_pods: u32,
    /// Blocks within the retention that no confirmed pod has loaded; with shard Services, blocks for
    /// which no Service has all of its members serving.
    pub unserved_total: u32,
    /// The newest unserved blocks.
    pub unserved: Vec<BlockReport>,
    /// Blocks that some pod has not loaded and another pod serves.
    pub missing_total: u32,
    /// The newest missing blocks.
    pub missing: Vec<BlockReport>,
    /// Blocks of the bucket outside every window: no query finds their samples. `None` while no pod
    /// reports it.
    pub outside_windows: Option<u64>,
    /// Blocks of the bucket; `None` while no pod reports it.
    pub bucket_total: Option<u64>,
}

/// How many pods serve a part of the required range. Ages, not times: with relative windows they do
/// not change as time passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageReport {
    /// Age of the older end; negative is the future.
    pub oldest_age_seconds: i64,
    /// Age of the newer end.
    pub newest_age_seconds: i64,
    /// Ready pods whose applied window contains the whole part.
    pub serving: u32,
    /// Of these, pods that every querier knows.
    pub confirmed: u32,
}

/// A pod that is given another window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveReport {
    pub pod: String,
    pub from: Window,
    pub to: Window,
}

/// Pods whose windows change together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The first moves.
    pub moves: Vec<MoveReport>,
    /// The number of moves that are not listed.
    pub more: u32,
    /// The longest expected load of its pods; `None` if unknown.
    #[serde(default)]
    pub load_seconds: Option<u64>,
}

/// How long the rest of a rollout takes, if nothing fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForecastReport {
    /// `None` while the time of some load is unknown.
    pub seconds: Option<u64>,
    /// What a step takes besides loading: drain, discovery delay and overhead.
    pub step_seconds: u64,
    /// Whether `step_seconds` is what the last steps took instead.
    pub step_measured: bool,
    /// Whether queriers can end the waits early (`queriers_complete`).
    pub waits_can_end_early: bool,
    /// The rest of the running step besides loading; `None` if none runs.
    pub running_wait_seconds: Option<u64>,
    /// The load of the running step; `None` if none runs, or if unknown.
    pub running_load_seconds: Option<u64>,
    /// What the loads rest on, or why they are unknown.
    pub basis: String,
}

/// The progress of a rollout, as far as this leader knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutReport {
    /// RFC 3339.
    pub began: String,
    /// Published steps.
    pub steps_done: u32,
    /// Windows changed by these steps.
    pub moves_done: u32,
    /// Steps that were expected when it began; it takes more if pods or queriers delay it.
    #[serde(default)]
    pub steps_expected: u32,
}

/// A setting that changed, as far as this leader knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// When the leader observed it, RFC 3339.
    pub at: String,
    /// A key of the `sharding` block, or `spec.replicas`.
    pub key: String,
    /// The effective value before, as in a file.
    pub old: String,
    pub new: String,
}

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A gap opened: some instant is served by no pod.
    Gap,
    /// The gap closed: every instant is served again.
    Whole,
    /// The plan, the number of pods, or the state of the rollout changed.
    Rollout,
    /// Windows were published.
    Step,
    /// Pods are confirmed.
    Confirmed,
    /// Pods need attention.
    Trouble,
    /// A kind that a later version added.
    #[serde(other)]
    Other,
}

/// A change of a StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    /// When the leader observed it, RFC 3339.
    pub at: String,
    pub kind: ChangeKind,
    /// A sentence.
    pub text: String,
}

/// What is known about a querier that uses the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuerierState {
    /// It lists the pods that it uses.
    Answers,
    /// It was asked and has not answered yet.
    Pending,
    /// It lists a group, or a Service's own address, instead of pods: the delays hold for it.
    Group,
    /// It cannot be asked: the delays hold for it. Also a state that a later version added.
    #[default]
    #[serde(other)]
    Unknown,
}

impl QuerierState {
    pub const ALL: [Self; 4] = [Self::Answers, Self::Pending, Self::Group, Self::Unknown];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Pending => "pending",
            Self::Group => "group",
            Self::Unknown => "unknown",
        }
    }
}

/// A querier that uses the pods, or may use them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuerierReport {
    /// `namespace/pod`.
    pub name: String,
    pub state: QuerierState,
    /// Why it cannot be asked.
    #[serde(default)]
    pub why: Option<String>,
    /// What the step needs of it, such as `to stop using store-3`.
    #[serde(default)]
    pub waits_for: Option<String>,
    /// Start of that wait by the leader's clock.
    #[serde(default)]
    pub since_unix_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetReport {
    pub namespace: String,
    pub name: String,
    /// Name of the ConfigMap.
    pub configmap: String,
    /// `spec.replicas`.
    pub replicas: u32,
    pub state: RolloutState,
    /// What the rollout does or waits for, in a sentence.
    pub message: String,
    /// Pods whose published window is not the planned one.
    pub moves_left: u32,
    /// Remaining steps, if nothing fails.
    pub steps_left: u32,
    /// The forecast or, while that is unknown, the least time for these steps.
    pub eta_seconds: u64,
    /// Ranges of the retention that no ready pod serves.
    pub gaps: Vec<GapReport>,
    /// Total length of the gaps.
    pub gap_seconds: u64,
    /// The fewest ready pods that serve any instant of the retention.
    pub minimum_ready_replicas: u32,
    /// The same for confirmed pods, which every querier knows.
    #[serde(default)]
    pub minimum_confirmed_replicas: u32,
    /// The same once every pod serves its planned window.
    #[serde(default)]
    pub planned_minimum_replicas: u32,
    /// Store pods that were admitted without injection although the user did not opt them out.
    #[serde(default)]
    pub uninjected_store_pods: u32,
    pub warnings: Vec<String>,
    /// Whether its user opted it out: nothing else is reported then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opted_out: bool,
    /// The range that must be served.
    #[serde(default)]
    pub required: Option<Window>,
    /// Its length into the past; `None` if unlimited (`retention: forever`).
    #[serde(default)]
    pub retention_seconds: Option<i64>,
    /// How many pods serve each part of the range, oldest first.
    #[serde(default)]
    pub coverage: Vec<CoverageReport>,
    /// Pods whose sidecar was not polled yet. Above 0, coverage is unknown.
    #[serde(default)]
    pub not_asked: u32,
    /// The next steps, if nothing fails.
    #[serde(default)]
    pub steps: Vec<StepReport>,
    /// How long the rest takes; `None` if nothing is left to do.
    #[serde(default)]
    pub forecast: Option<ForecastReport>,
    /// The progress of the current rollout.
    #[serde(default)]
    pub rollout: Option<RolloutReport>,
    /// Start of the gaps, RFC 3339, as far as this leader knows.
    #[serde(default)]
    pub gap_since: Option<String>,
    /// The last changes, newest first.
    #[serde(default)]
    pub changes: Vec<ChangeReport>,
    /// The last changes of settings, newest first.
    #[serde(default)]
    pub setting_changes: Vec<SettingChange>,
    #[serde(default)]
    pub blocks: BlocksReport,
    /// The first queriers, those first that the step waits for.
    #[serde(default)]
    pub queriers: Vec<QuerierReport>,
    /// The number of queriers that are not listed.
    #[serde(default)]
    pub more_queriers: u32,
    /// The longest time that a pod has waited for a querier, in seconds; `None` if none waits.
    #[serde(default)]
    pub querier_wait_seconds: Option<u64>,
    /// Steps in a row that were taken back because a querier did not let a pod go.
    #[serde(default)]
    pub taken_back: u32,
    /// By ordinal.
    pub pods: Vec<PodReport>,
}

impl SetReport {
    /// Returns who does not serve the gaps. Pods without injection may serve anything.
    #[must_use]
    pub const fn unserved_by(&self) -> &'static str {
        if self.uninjected_store_pods > 0 {
            "no ready injected pod"
        } else {
            "no ready pod"
        }
    }

    /// Returns who may serve the gaps without being seen here, if there is anyone.
    #[must_use]
    pub fn served_unseen(&self) -> Option<String> {
        let pods = self.uninjected_store_pods;
        (pods > 0).then(|| {
            let what = if pods == 1 {
                "is not injected: it serves what its own arguments say"
            } else {
                "are not injected: they serve what their own arguments say"
            };
            format!("{} {what}", counted(pods, "pod"))
        })
    }

    /// Returns the longest drift of a pod, in seconds; 0 if no pod drifts.
    #[must_use]
    pub fn drift_seconds(&self) -> u64 {
        self.drifts().unwrap_or(0)
    }

    /// Returns the longest drift of a pod, in seconds; `None` if no pod drifts.
    #[must_use]
    pub fn drifts(&self) -> Option<u64> {
        self.pods.iter().filter_map(|pod| pod.drift_seconds).max()
    }

    /// Returns the report as it is `seconds` later, if nothing else was observed.
    #[must_use]
    pub fn aged_by(mut self, seconds: u64) -> Self {
        for drift in self
            .pods
            .iter_mut()
            .filter_map(|pod| pod.drift_seconds.as_mut())
        {
            *drift = drift.saturating_add(seconds);
        }
        if let Some(waited) = &mut self.querier_wait_seconds {
            *waited = waited.saturating_add(seconds);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_the_name_of_the_document() {
        for state in RolloutState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        for state in QuerierState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        let newer: QuerierState = serde_json::from_str("\"dreaming\"").unwrap();
        assert_eq!(newer, QuerierState::Unknown);
    }
}
