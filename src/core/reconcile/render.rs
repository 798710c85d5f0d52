//! A look at a StatefulSet in words: its report, and what deserves an Event.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use super::blocks::{self, Missing};
use super::standing::{self, Judged};
use super::{ABSENT_PODS, Decision, Expected, MARGIN, View, drifts, members, terms};
use crate::core::duration::PromDuration;
use crate::core::names;
use crate::core::observed::Answer;
use crate::core::report::{
    GapReport, MoveReport, PodReport, PodState, SetReport, State, StepReport,
};
use crate::core::rollout::{self, Gap, Member, Standing, Step};
use crate::core::text::older_end;
use crate::core::window::Window;

/// A pod that is Ready with another window than its entry's for this long deserves an Event; kubelet's own pace is below two minutes.
const DRIFT_AFTER: Duration = Duration::from_mins(5);
/// What loading a window is taken to last when nothing is known, for the estimate.
const LOAD_ALLOWANCE_SECONDS: u64 = 30;
/// Steps of more pods than this are estimated, not computed: a look must stay cheap.
const MOST_PREVIEWED: usize = 400;
/// Steps to come that a report lists, and moves that it lists of each.
const MOST_STEPS: usize = 50;
const MOST_MOVES: usize = 20;
/// Parts of the range that a report tells apart; with more, neighbours are told as the worse of both.
const MOST_PARTS: usize = 1_000;
/// Pods named in one sentence.
const NAMED: usize = 5;

pub(super) fn report(
    view: &View<'_>,
    expected: &[Expected<'_>],
    judged: &[Judged],
    missing: &Missing,
    state: State,
    mut message: String,
) -> SetReport {
    let (facts, sharding) = (view.known.facts(), &view.known.sharding);
    let (members, places) = members(expected, judged);
    let serving: Vec<Window> = expected.iter().filter_map(serves).collect();
    let (minimum_ready_replicas, holes) =
        rollout::coverage(&serving, terms(view).required, view.now);
    let known = known_to_queriers(expected, judged);
    let confirmed: Vec<Window> = known
        .iter()
        .filter(|(_, confirmed)| *confirmed)
        .map(|(window, _)| *window)
        .collect();
    let (minimum_confirmed_replicas, _) =
        rollout::coverage(&confirmed, terms(view).required, view.now);
    let uncounted = facts.replicas.saturating_sub(count(expected.len()));
    let planned: Vec<Window> = expected.iter().map(|pod| pod.desired.window).collect();
    let planned_minimum_replicas = match uncounted {
        0 => rollout::coverage(&planned, terms(view).required, view.now).0,
        _ => view
            .known
            .plan
            .shards()
            .iter()
            .map(|shard| shard.replicas)
            .min()
            .unwrap_or(0),
    };
    let mut warnings: Vec<String> = view
        .known
        .remarks()
        .into_iter()
        .map(|(_, sentence)| sentence)
        .collect();
    if uncounted > 0 {
        warnings.push(format!(
            "{uncounted} of {} replicas are not counted yet, since they have no pods: windows are published for those that have, and for the next {MARGIN} to {ABSENT_PODS}",
            facts.replicas
        ));
    }
    let moves_left = members
        .iter()
        .filter(|member| member.published.window != member.desired.window)
        .count();
    let blocks = missing.report(view, expected, &members, &places, &terms(view));
    if state == State::Settled {
        message.push_str(&blocks::addition(&blocks));
    }
    let steps = steps(view, members, moves_left);
    // Too many to compute: one move a step is the upper bound.
    let steps_left = steps
        .as_ref()
        .map_or(count(moves_left), |steps| count(steps.len()));
    let name = |at: usize| expected[places[at]].name.clone();
    let each = sharding.drain().as_secs() + sharding.discovery_delay().as_secs();
    let each = u64::try_from(each).unwrap_or(0) + LOAD_ALLOWANCE_SECONDS;
    let gap_seconds = holes
        .iter()
        .map(|(from, to)| to.signed_duration_since(*from).num_seconds())
        .sum::<i64>();
    SetReport {
        namespace: facts.namespace.clone(),
        name: facts.name.clone(),
        configmap: view
            .config
            .operator
            .configmap_of(&facts.namespace, &facts.name),
        replicas: facts.replicas,
        state,
        message,
        moves_left: count(moves_left),
        steps_left,
        eta_seconds: u64::from(steps_left).saturating_mul(each),
        gaps: holes
            .iter()
            .map(|(from, to)| GapReport {
                from: at(*from),
                to: at(*to),
            })
            .collect(),
        gap_seconds: u64::try_from(gap_seconds).unwrap_or(0),
        minimum_ready_replicas,
        minimum_confirmed_replicas,
        planned_minimum_replicas,
        uninjected_store_pods: count(bare(view, expected, judged).len()),
        warnings,
        required: Some(terms(view).required),
        retention_seconds: view
            .known
            .sharding
            .retention()
            .limit()
            .map(PromDuration::as_secs),
        coverage: rollout::profile(&known, terms(view).required, view.now, MOST_PARTS),
        not_asked: count(expected.iter().filter(|pod| not_asked(pod)).count()),
        steps: steps
            .unwrap_or_default()
            .iter()
            .take(MOST_STEPS)
            .map(|moves| step_report(moves, name))
            .collect(),
        rollout: None,
        gap_since: None,
        changes: Vec::new(),
        blocks,
        pods: expected
            .iter()
            .zip(judged)
            .map(|(pod, judged)| pod_report(pod, judged))
            .collect(),
    }
}

/// A member's move from one window to another.
type Move = (usize, Window, Window);

/// The steps to come, if every pod does what it is told; `None` where computing them would cost too much.
fn steps(view: &View<'_>, mut members: Vec<Member>, moves_left: usize) -> Option<Vec<Vec<Move>>> {
    if moves_left == 0 {
        return Some(Vec::new());
    }
    if members.len() > MOST_PREVIEWED {
        return None;
    }
    for member in &mut members {
        member.standing = Standing::Confirmed;
    }
    let mut at: Vec<Window> = members
        .iter()
        .map(|member| member.published.window)
        .collect();
    let (steps, _) = rollout::preview(members, &terms(view));
    let moves = |step: &Step| match step {
        Step::Move { changes, .. } => changes
            .iter()
            .map(|change| {
                (
                    change.member,
                    std::mem::replace(&mut at[change.member], change.to.window),
                    change.to.window,
                )
            })
            .collect(),
        Step::Done | Step::Wait(_) | Step::Blocked(_) | Step::Held(_) => Vec::new(),
    };
    Some(steps.iter().map(moves).collect())
}

fn step_report(moves: &[Move], name: impl Fn(usize) -> String) -> StepReport {
    // Numbers that change restart nothing.
    let restarts = || moves.iter().filter(|(_, from, to)| from != to);
    let report = |(member, from, to): &Move| MoveReport {
        pod: name(*member),
        from: *from,
        to: *to,
    };
    StepReport {
        moves: restarts().take(MOST_MOVES).map(report).collect(),
        more: count(restarts().count().saturating_sub(MOST_MOVES)),
    }
}

/// What is served now, and whether every querier knows of it.
fn known_to_queriers(expected: &[Expected<'_>], judged: &[Judged]) -> Vec<(Window, bool)> {
    let one = |(pod, judged): (&Expected<'_>, &Judged)| {
        Some((serves(pod)?, judged.state == PodState::Confirmed))
    };
    expected.iter().zip(judged).filter_map(one).collect()
}

/// One without an address serves nobody, so nothing is unknown of it.
fn not_asked(pod: &Expected<'_>) -> bool {
    pod.view
        .is_some_and(|seen| seen.facts.can_be_asked() && seen.answer.is_none())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn at(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// What a pod serves to whoever asks now.
fn serves(pod: &Expected<'_>) -> Option<Window> {
    let seen = pod.view.filter(|seen| seen.facts.ready)?;
    let Some(Answer::Status(status)) = seen.answer else {
        return None;
    };
    status.applied
}

fn pod_report(pod: &Expected<'_>, judged: &Judged) -> PodReport {
    let status = pod.view.and_then(|seen| match seen.answer {
        Some(Answer::Status(status)) => Some(status),
        Some(Answer::Unreachable(_)) | None => None,
    });
    let blocks = status.and_then(|status| status.blocks.as_ref());
    PodReport {
        pod: pod.name.clone(),
        ordinal: pod.ordinal,
        shard: pod.desired.shard,
        replica: pod.desired.replica,
        surplus: pod.surplus,
        desired: pod.desired.window,
        published: pod.entry.as_ref().map(|entry| entry.window),
        applied: status.and_then(|status| status.applied),
        verified: status.is_some_and(|status| status.verified),
        state: judged.state,
        phase: status.map(|status| status.phase.to_string()),
        // Filled in by whoever remembers: a look has no memory.
        seconds_in_state: 0,
        since_unix_seconds: 0,
        drift_seconds: drift(pod).map(|drift| drift.as_secs()),
        restarts: status.map_or(0, |status| status.restarts),
        agent_version: status.map(|status| status.agent_version.clone()),
        blocks_expected: blocks.map(|blocks| blocks.expected),
        blocks_missing: blocks.map(|blocks| blocks.missing_total),
        blocks_unknown: status.and_then(|status| status.blocks_unknown.clone()),
        why: judged.why.clone(),
    }
}

pub(super) fn settled(view: &View<'_>, expected: &[Expected<'_>]) -> String {
    let facts = view.known.facts();
    let surplus: Vec<&str> = expected
        .iter()
        .filter(|pod| pod.surplus)
        .map(|pod| pod.name.as_str())
        .collect();
    match facts.annotations.get(names::TARGET_REPLICAS) {
        Some(target) if !surplus.is_empty() => format!(
            "every pod serves its planned window; {} no longer needed: kubectl -n {} scale statefulset {} --replicas={target} is safe now",
            listed(&surplus),
            facts.namespace,
            facts.name
        ),
        _ if expected.is_empty() => "no pods: nothing is served".to_owned(),
        _ => "every pod serves its planned window".to_owned(),
    }
}

fn listed(pods: &[&str]) -> String {
    let more = pods.len().saturating_sub(NAMED);
    let names = pods[..pods.len().min(NAMED)].join(", ");
    let verb = if pods.len() == 1 { "is" } else { "are" };
    if more == 0 {
        format!("{names} {verb}")
    } else {
        format!("{names} and {more} more {verb}")
    }
}

pub(super) fn waits_for(pod: &Expected<'_>, judged: &Judged, all: usize) -> String {
    let why = judged.why.as_ref().map_or_else(|| phase(pod), Clone::clone);
    let more = if all > 1 {
        format!(" (and {} more pods)", all - 1)
    } else {
        String::new()
    };
    format!("waits for {}{more}: {why}", pod.name)
}

fn phase(pod: &Expected<'_>) -> String {
    match pod.view.and_then(|seen| seen.answer) {
        Some(Answer::Status(status)) => format!("it is {}", status.phase),
        _ => "it is on its way".to_owned(),
    }
}

pub(super) fn blocked(pod: &str, gap: &Gap) -> String {
    format!(
        "{pod} alone serves {} .. {}: its restart would leave that range without answers. Scale up, or allow it with allow_coverage_gap: true",
        older_end(&at(gap.from)),
        at(gap.to)
    )
}

pub(super) fn moves(expected: &[Expected<'_>], restarts: &[usize], gap: Option<&Gap>) -> String {
    let names: Vec<&str> = restarts
        .iter()
        .map(|i| expected[*i].name.as_str())
        .collect();
    let gap = gap.map_or_else(String::new, |gap| {
        format!(
            "; meanwhile nobody serves {} .. {}",
            older_end(&at(gap.from)),
            at(gap.to)
        )
    });
    if names.is_empty() {
        "numbers change, no window does".to_owned()
    } else {
        format!("{} given another window{gap}", listed(&names))
    }
}

/// Neither a guess nor the file's own split may move pods that are where their user wanted them.
pub(super) fn split_unknown(view: &View<'_>) -> String {
    let problem = view.known.problem.as_deref().unwrap_or_default();
    format!(
        "the published windows stay as they are, since this server does not know the last good annotations: {problem}"
    )
}

/// What deserves an Event: each is written once while it holds.
pub(super) fn notices(
    view: &View<'_>,
    expected: &[Expected<'_>],
    judged: &[Judged],
    decision: &mut Decision,
) {
    let report = &decision.report;
    decision.notices.extend(view.known.remarks());
    decision.notices.extend(blocks::notices(&report.blocks));
    if matches!(report.state, State::Blocked) {
        decision
            .notices
            .push(("RolloutBlocked", report.message.clone()));
    }
    let named = |state: PodState| -> Vec<&str> {
        expected
            .iter()
            .zip(judged)
            .filter(|(_, judged)| judged.state == state)
            .map(|(pod, _)| pod.name.as_str())
            .collect()
    };
    if let Some(text) = without_injection(view, expected, judged) {
        decision.notices.push(("NotInjected", text));
    }
    let silent = named(PodState::Unreachable);
    if !silent.is_empty() {
        let why = judged
            .iter()
            .find(|judged| judged.state == PodState::Unreachable)
            .and_then(|judged| judged.why.clone())
            .unwrap_or_default();
        decision.notices.push((
            "SidecarUnreachable",
            format!(
                "{} not to be asked, so no window changes: {why}",
                listed(&silent)
            ),
        ));
    }
    for (pod, judged) in expected
        .iter()
        .zip(judged)
        .filter(|(_, judged)| judged.state == PodState::Broken)
    {
        let why = judged.why.clone().unwrap_or_default();
        decision.notices.push((
            "WindowNotServed",
            format!("{} does not serve its published window: {why}", pod.name),
        ));
    }
    let elsewhere: Vec<&str> = expected
        .iter()
        .filter(|pod| standing::reads_elsewhere(pod, view).is_some())
        .map(|pod| pod.name.as_str())
        .collect();
    if let Some(pod) = expected
        .iter()
        .find_map(|pod| standing::reads_elsewhere(pod, view))
    {
        let text = format!(
            "{} given windows by another ConfigMap than is written: {pod}; other windows do not reach pods that were admitted before its name changed: delete them, one after the other, or change the name back",
            listed(&elsewhere)
        );
        decision.notices.push(("OtherConfigMap", text));
    }
    let drifted: Vec<&str> = expected
        .iter()
        .filter(|pod| drift(pod).is_some_and(|drift| drift >= DRIFT_AFTER))
        .map(|pod| pod.name.as_str())
        .collect();
    if !drifted.is_empty() {
        let text = format!(
            "{} behind what is published for more than {} min",
            listed(&drifted),
            DRIFT_AFTER.as_secs() / 60
        );
        decision.notices.push(("Drift", text));
    }
    // Pods that come for the first time, or again, fill it, and those without injection serve what they were told to; the
    // metric shows it all the while.
    let comes = |judged: &Judged| {
        matches!(
            judged.state,
            PodState::Absent | PodState::Terminating | PodState::Settling
        )
    };
    let required = terms(view).required;
    if report.gap_seconds > 0
        && report.uninjected_store_pods == 0
        && !expected.is_empty()
        && !judged.iter().any(comes)
    {
        let from = report
            .retention_seconds
            .map_or("the beginning".to_owned(), |_| required.min.to_string());
        let text = format!(
            "no ready pod serves {} s of {from} .. {}",
            report.gap_seconds, required.max
        );
        decision.notices.push(("CoverageGap", text));
    }
}

/// What to say of store pods that nobody gives their windows.
pub(super) fn without_injection(
    view: &View<'_>,
    expected: &[Expected<'_>],
    judged: &[Judged],
) -> Option<String> {
    let bare = bare(view, expected, judged);
    (!bare.is_empty()).then(|| {
        format!(
            "{} without injection, so nothing keeps the window right: see timeshard check, then delete to have it admitted anew",
            listed(&bare)
        )
    })
}

/// Store pods that were admitted without injection although nobody opted them out.
fn bare<'a>(view: &View<'_>, expected: &'a [Expected<'_>], judged: &[Judged]) -> Vec<&'a str> {
    let forgotten = |pod: &Expected<'_>| {
        pod.view
            .is_some_and(|seen| seen.facts.forgotten(view.known.replace_time_flags))
    };
    let pods = expected
        .iter()
        .zip(judged)
        .filter(|(pod, judged)| judged.state == PodState::NotInjected && forgotten(pod));
    pods.map(|(pod, _)| pod.name.as_str()).collect()
}

/// For how long a pod has answered queries with another window than its entry says, if it does.
fn drift(pod: &Expected<'_>) -> Option<Duration> {
    let (entry, seen) = (pod.entry.as_ref()?, pod.view?);
    drifts(seen.facts, seen.answer, entry).then(|| seen.drifts_for.unwrap_or_default())
}
