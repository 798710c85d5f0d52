//! What a browser is told of a StatefulSet: its report, with what goes without saying left out, since there may be
//! thousands of pods.

use serde::Serialize;

use super::feed::{Set, Shard};
use crate::core::report::{
    BlocksReport, ChangeReport, CoverageReport, GapReport, PodReport, PodState, RolloutReport,
    State, StepReport,
};
use crate::core::window::Window;

/// A window that is told because it is not the one before; `null` is none.
#[derive(Serialize)]
#[serde(transparent)]
struct Other(Option<Window>);

/// The report with its pods as lines.
#[derive(Serialize)]
struct Document<'a> {
    namespace: &'a str,
    name: &'a str,
    configmap: &'a str,
    replicas: u32,
    state: State,
    message: &'a str,
    moves_left: u32,
    steps_left: u32,
    eta_seconds: u64,
    gaps: &'a [GapReport],
    gap_seconds: u64,
    gap_since: Option<&'a str>,
    not_asked: u32,
    least: u32,
    warnings: &'a [String],
    problem: Option<&'a str>,
    required: Option<Window>,
    shards: &'a [Shard],
    coverage: &'a [CoverageReport],
    steps: &'a [StepReport],
    rollout: Option<&'a RolloutReport>,
    changes: &'a [ChangeReport],
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<&'a BlocksReport>,
    pods: Vec<Line<'a>>,
}

/// A pod. Left out is: its name's beginning, that it is confirmed and serves, what the plan says of its shard, and each
/// window that is the same as the one before: desired, published, applied.
#[derive(Serialize)]
struct Line<'a> {
    ordinal: u32,
    shard: u32,
    replica: u32,
    #[serde(skip_serializing_if = "is_false")]
    surplus: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    desired: Option<Window>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<Other>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<Other>,
    #[serde(skip_serializing_if = "is_false")]
    unverified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<PodState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'a str>,
    since: i64,
    #[serde(skip_serializing_if = "is_zero")]
    restarts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// As one line of JSON.
///
/// # Errors
/// serde's; a report always serialises.
pub(super) fn json(set: &Set) -> Result<String, serde_json::Error> {
    let report = &*set.report;
    serde_json::to_string(&Document {
        namespace: &report.namespace,
        name: &report.name,
        configmap: &report.configmap,
        replicas: report.replicas,
        state: report.state,
        message: &report.message,
        moves_left: report.moves_left,
        steps_left: report.steps_left,
        eta_seconds: report.eta_seconds,
        gaps: &report.gaps,
        gap_seconds: report.gap_seconds,
        gap_since: report.gap_since.as_deref(),
        not_asked: report.not_asked,
        least: report.minimum_ready_replicas,
        warnings: &report.warnings,
        problem: set.problem.as_deref(),
        required: report.required,
        shards: &set.shards,
        coverage: &report.coverage,
        steps: &report.steps,
        rollout: report.rollout.as_ref(),
        changes: &report.changes,
        blocks: Some(&report.blocks).filter(|blocks| **blocks != BlocksReport::default()),
        pods: report
            .pods
            .iter()
            .map(|pod| line(pod, &set.shards))
            .collect(),
    })
}

fn line<'a>(pod: &'a PodReport, shards: &[Shard]) -> Line<'a> {
    let planned = usize::try_from(pod.shard)
        .ok()
        .and_then(|shard| shards.get(shard))
        .map(|shard| shard.window);
    Line {
        ordinal: pod.ordinal,
        shard: pod.shard,
        replica: pod.replica,
        surplus: pod.surplus,
        desired: Some(pod.desired).filter(|desired| Some(*desired) != planned),
        published: Some(pod.published)
            .filter(|published| *published != Some(pod.desired))
            .map(Other),
        applied: Some(pod.applied)
            .filter(|applied| *applied != pod.published)
            .map(Other),
        unverified: pod.applied.is_some() && !pod.verified,
        state: Some(pod.state).filter(|state| *state != PodState::Confirmed),
        phase: pod.phase.as_deref().filter(|phase| *phase != "serving"),
        since: pod.since_unix_seconds,
        restarts: pod.restarts,
        agent: pod
            .agent_version
            .as_deref()
            .filter(|version| *version != env!("CARGO_PKG_VERSION")),
        why: pod.why.as_deref(),
    }
}
