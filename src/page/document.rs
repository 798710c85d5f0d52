//! A StatefulSet as the browser gets it: its report without defaults, since there may be thousands
//! of pods.

use serde::Serialize;

use super::facts::{PageSet, PageShard};
use crate::core::model::window::Window;
use crate::core::rollout::report::{
    BlocksReport, ChangeReport, CoverageReport, ForecastReport, GapReport, PodReport, PodState,
    QuerierReport, RolloutReport, RolloutState, SettingChange, StepReport,
};

/// A window that differs from the previous one; `null` is none.
#[derive(Serialize)]
#[serde(transparent)]
struct OtherWindow(Option<Window>);

#[derive(Serialize)]
struct PageDocument<'a> {
    namespace: &'a str,
    name: &'a str,
    configmap: &'a str,
    replicas: u32,
    state: RolloutState,
    message: &'a str,
    moves_left: u32,
    steps_left: u32,
    eta_seconds: u64,
    gaps: &'a [GapReport],
    gap_seconds: u64,
    gap_since: Option<&'a str>,
    not_asked: u32,
    least: u32,
    least_confirmed: u32,
    warnings: &'a [String],
    problem: Option<&'a str>,
    required: Option<Window>,
    shards: &'a [PageShard],
    coverage: &'a [CoverageReport],
    steps: &'a [StepReport],
    rollout: Option<&'a RolloutReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forecast: Option<&'a ForecastReport>,
    changes: &'a [ChangeReport],
    setting_changes: &'a [SettingChange],
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<&'a BlocksReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queriers: Option<&'a [QuerierReport]>,
    pods: Vec<PodLine<'a>>,
}

/// A pod. Omits the prefix of its name, the states `confirmed` and `serving`, its shard's planned
/// window, and each window equal to the previous one, in the order desired, published, applied.
#[derive(Serialize)]
struct PodLine<'a> {
    ordinal: u32,
    shard: u32,
    replica: u32,
    #[serde(skip_serializing_if = "is_false")]
    surplus: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    desired: Option<Window>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<OtherWindow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<OtherWindow>,
    #[serde(skip_serializing_if = "is_false")]
    unverified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<PodState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'a str>,
    /// Blocks in its window, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<u64>,
    /// Of these, blocks that are not loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<u64>,
    since: i64,
    #[serde(skip_serializing_if = "is_zero")]
    restarts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Returns one line of JSON.
///
/// # Errors
/// serde's, though a report always serialises.
pub(super) fn json(set: &PageSet) -> Result<String, serde_json::Error> {
    let report = &*set.report;
    serde_json::to_string(&PageDocument {
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
        least_confirmed: report.minimum_confirmed_replicas,
        warnings: &report.warnings,
        problem: set.problem.as_deref(),
        required: report.required,
        shards: &set.shards,
        coverage: &report.coverage,
        steps: &report.steps,
        rollout: report.rollout.as_ref(),
        forecast: report.forecast.as_ref(),
        changes: &report.changes,
        setting_changes: &report.setting_changes,
        blocks: Some(&report.blocks).filter(|blocks| **blocks != BlocksReport::default()),
        queriers: Some(report.queriers.as_slice()).filter(|queriers| !queriers.is_empty()),
        pods: report
            .pods
            .iter()
            .map(|pod| line(pod, &set.shards))
            .collect(),
    })
}

fn line<'a>(pod: &'a PodReport, shards: &[PageShard]) -> PodLine<'a> {
    let planned = usize::try_from(pod.shard)
        .ok()
        .and_then(|shard| shards.get(shard))
        .map(|shard| shard.window);
    PodLine {
        ordinal: pod.ordinal,
        shard: pod.shard,
        replica: pod.replica,
        surplus: pod.surplus,
        desired: Some(pod.desired).filter(|desired| Some(*desired) != planned),
        published: Some(pod.published)
            .filter(|published| *published != Some(pod.desired))
            .map(OtherWindow),
        applied: Some(pod.applied)
            .filter(|applied| *applied != pod.published)
            .map(OtherWindow),
        unverified: pod.applied.is_some() && !pod.verified,
        state: Some(pod.state).filter(|state| *state != PodState::Confirmed),
        phase: pod.phase.as_deref().filter(|phase| *phase != "serving"),
        blocks: pod.blocks_expected,
        missing: pod.blocks_missing.filter(|missing| *missing > 0),
        since: pod.since_unix_seconds,
        restarts: pod.restarts,
        agent: pod
            .agent_version
            .as_deref()
            .filter(|version| *version != env!("CARGO_PKG_VERSION")),
        why: pod.why.as_deref(),
    }
}
