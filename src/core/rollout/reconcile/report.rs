//! What users see of a StatefulSet, as numbers: the leader's report.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::context::{Context, Expected, drift, rfc3339, uncounted, without_injection};
use super::forecast::{self, Move};
use super::queriers::QuerierWait;
use super::{View, messages};
use crate::core::model::duration::PromDuration;
use crate::core::model::window::Window;
use crate::core::rollout::planner::{self, MemberState, Step};
use crate::core::rollout::queriers::{ObservedQuerier, QuerierAnswer};
use crate::core::rollout::report::{
    GapReport, MoveReport, PodReport, PodState, QuerierReport, RolloutState, SetReport, StepReport,
};

/// With more pods, the number of steps is estimated instead of computed: reconciling must stay
/// cheap.
const MAX_PREVIEWED: usize = 400;
/// Future steps that a report lists, and moves that it lists of each.
const MAX_STEPS: usize = 50;
const MAX_MOVES: usize = 20;
/// Queriers that a report lists.
const MAX_QUERIERS: usize = 50;
/// Parts of the range in a report; beyond that, adjacent parts are merged into the worse of both.
const MAX_PARTS: usize = 1_000;

/// Reports on a StatefulSet. Fields that need memory are filled in by
/// [`History`](crate::core::rollout::history::History).
pub(super) fn report(context: &Context<'_>, state: RolloutState, mut message: String) -> SetReport {
    let (view, pods) = (context.view, &context.pods);
    let facts = view.gateway.facts();
    let blocks = context.missing.report(context);
    if state == RolloutState::Settled {
        message.push_str(&messages::unloaded_blocks(&blocks));
    }
    let retention = view.gateway.sharding.retention().limit();
    let mut report = SetReport {
        namespace: facts.namespace.clone(),
        name: facts.name.clone(),
        configmap: view
            .config
            .operator
            .configmap_of(&facts.namespace, &facts.name),
        replicas: facts.replicas,
        state,
        message,
        uninjected_store_pods: count(without_injection(context).len()),
        warnings: messages::warnings(context),
        required: Some(context.terms.required),
        retention_seconds: retention.map(PromDuration::as_secs),
        not_asked: count(pods.iter().filter(|pod| not_polled(pod)).count()),
        blocks,
        pods: pods.iter().map(|pod| pod_report(pod, view)).collect(),
        taken_back: view
            .taken_back
            .filter(|_| state != RolloutState::Settled)
            .map_or(0, |last| last.times),
        ..SetReport::default()
    };
    fill_queriers(context, &mut report);
    fill_coverage(context, &mut report);
    fill_steps(context, &mut report);
    report
}

/// Lists the queriers that use the pods, and what each pod waits for.
fn fill_queriers(context: &Context<'_>, report: &mut SetReport) {
    let view = context.view;
    let mut longest: BTreeMap<usize, (&Expected<'_>, &QuerierWait)> = BTreeMap::new();
    for pod in &context.pods {
        let Some(wait) = &pod.class.querier else {
            continue;
        };
        let slot = longest.entry(wait.querier).or_insert((pod, wait));
        if slot.1.since < wait.since {
            *slot = (pod, wait);
        }
    }
    let describe = |(i, querier): (usize, &ObservedQuerier)| {
        let wait = longest.get(&i);
        let since = wait.and_then(|(_, wait)| TimeDelta::from_std(wait.since).ok());
        Some(QuerierReport {
            name: querier.name.clone(),
            state: context.queriers.state(i)?,
            why: match &querier.answer {
                QuerierAnswer::Unknown(why) => Some(why.clone()),
                QuerierAnswer::Pending | QuerierAnswer::Stores(_) => None,
            },
            waits_for: wait.map(|(pod, wait)| messages::querier_must(&pod.name, &wait.until)),
            since_unix_seconds: since.map(|since| (view.now - since).timestamp()),
        })
    };
    let all = view.queriers.iter().enumerate();
    let mut queriers: Vec<QuerierReport> = all.filter_map(describe).collect();
    queriers.sort_by_key(|querier| querier.waits_for.is_none());
    report.more_queriers = count(queriers.len().saturating_sub(MAX_QUERIERS));
    queriers.truncate(MAX_QUERIERS);
    report.queriers = queriers;
    let waits = longest.values().map(|(_, wait)| wait.since.as_secs());
    report.querier_wait_seconds = waits.max();
}

fn fill_coverage(context: &Context<'_>, report: &mut SetReport) {
    let (pods, required, now) = (&context.pods, context.terms.required, context.view.now);
    let fewest = |windows: &[Window]| planner::coverage(windows, required, now).0;
    let serving: Vec<(Window, bool)> = pods
        .iter()
        .filter_map(|pod| Some((pod.serves()?, pod.class.state == PodState::Confirmed)))
        .collect();
    let ready: Vec<Window> = serving.iter().map(|(window, _)| *window).collect();
    let confirmed: Vec<Window> = serving
        .iter()
        .filter(|(_, confirmed)| *confirmed)
        .map(|(window, _)| *window)
        .collect();
    let (minimum, gaps) = planner::coverage(&ready, required, now);
    report.minimum_ready_replicas = minimum;
    report.minimum_confirmed_replicas = fewest(&confirmed);
    report.planned_minimum_replicas = if uncounted(context) == 0 {
        let planned: Vec<Window> = pods.iter().map(|pod| pod.desired.window).collect();
        fewest(&planned)
    } else {
        let shards = context.view.gateway.plan.shards().iter();
        shards.map(|shard| shard.replicas).min().unwrap_or(0)
    };
    let gap_seconds: i64 = gaps
        .iter()
        .map(|(from, to)| to.signed_duration_since(*from).num_seconds())
        .sum();
    report.gap_seconds = u64::try_from(gap_seconds).unwrap_or(0);
    report.gaps = gaps
        .into_iter()
        .map(|(from, to)| GapReport {
            from: rfc3339(from),
            to: rfc3339(to),
        })
        .collect();
    report.coverage = planner::profile(&serving, required, now, MAX_PARTS);
}

fn fill_steps(context: &Context<'_>, report: &mut SetReport) {
    let moves_left = context
        .members
        .iter()
        .filter(|member| member.published.window != member.desired.window)
        .count();
    let steps = steps(context, moves_left);
    report.moves_left = count(moves_left);
    // The upper bound is one move a step.
    report.steps_left = steps
        .as_ref()
        .map_or(count(moves_left), |steps| count(steps.len()));
    let steps = steps.unwrap_or_default();
    report.steps = steps
        .iter()
        .take(MAX_STEPS)
        .map(|moves| step_report(moves, context))
        .collect();
    forecast::fill(context, &steps, report);
}

/// Previews the remaining steps, assuming that nothing fails; `None` if computing them would cost
/// too much.
fn steps(context: &Context<'_>, moves_left: usize) -> Option<Vec<Vec<Move>>> {
    if moves_left == 0 {
        return Some(Vec::new());
    }
    if context.members.len() > MAX_PREVIEWED {
        return None;
    }
    let mut members = context.members.clone();
    for member in &mut members {
        member.state = MemberState::Confirmed;
    }
    let mut at: Vec<Window> = members
        .iter()
        .map(|member| member.published.window)
        .collect();
    let (steps, _) = planner::preview(members, &context.terms);
    let moves = |step: &Step| match step {
        Step::Move { changes, .. } => changes
            .iter()
            .map(|change| {
                let from = std::mem::replace(&mut at[change.member], change.to.window);
                (change.member, from, change.to.window)
            })
            .collect(),
        Step::Done | Step::Wait(_) | Step::Blocked(_) | Step::Held(_) => Vec::new(),
    };
    Some(steps.iter().map(moves).collect())
}

fn step_report(moves: &[Move], context: &Context<'_>) -> StepReport {
    // A change of numbers alone restarts nothing.
    let restarts = || moves.iter().filter(|(_, from, to)| from != to);
    let report = |(member, from, to): &Move| MoveReport {
        pod: context.pod(*member).name.clone(),
        from: *from,
        to: *to,
    };
    StepReport {
        moves: restarts().take(MAX_MOVES).map(report).collect(),
        more: count(restarts().count().saturating_sub(MAX_MOVES)),
        load_seconds: None,
    }
}

/// Whether it is unknown what a pod serves. A pod without an address serves nothing.
fn not_polled(pod: &Expected<'_>) -> bool {
    pod.seen
        .is_some_and(|seen| seen.facts.can_be_asked() && seen.answer.is_none())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The querier that a pod waits for, in a sentence.
fn waits_for_querier(pod: &Expected<'_>, view: &View<'_>) -> Option<String> {
    let wait = pod.class.querier.as_ref()?;
    let text = messages::querier_wait(view, &pod.name, wait);
    Some(format!("waits for {text}"))
}

fn pod_report(pod: &Expected<'_>, view: &View<'_>) -> PodReport {
    let status = pod.status();
    let blocks = status.and_then(|status| status.blocks.as_ref());
    PodReport {
        pod: pod.name.clone(),
        ordinal: pod.ordinal,
        shard: pod.desired.shard,
        replica: pod.desired.replica,
        surplus: pod.surplus,
        desired: pod.desired.window,
        published: pod.entry.map(|entry| entry.window),
        applied: status.and_then(|status| status.applied),
        verified: status.is_some_and(|status| status.verified),
        state: pod.class.state,
        phase: status.map(|status| status.phase.to_string()),
        // Filled in by the controller, which remembers earlier reports.
        seconds_in_state: 0,
        since_unix_seconds: 0,
        drift_seconds: drift(pod).map(|drift| drift.as_secs()),
        restarts: status.map_or(0, |status| status.restarts),
        agent_version: status.map(|status| status.agent_version.clone()),
        blocks_expected: blocks.map(|blocks| blocks.expected),
        blocks_missing: blocks.map(|blocks| blocks.missing_total),
        blocks_unknown: status.and_then(|status| status.blocks_unknown.clone()),
        last_load: status.and_then(|status| status.last_load),
        why: pod
            .class
            .why
            .clone()
            .or_else(|| waits_for_querier(pod, view)),
    }
}
