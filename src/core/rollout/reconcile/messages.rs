//! The sentences that users read: messages of a rollout, warnings and Events.
//!
//! A reader sees each of them alone, so each names the objects, the cause and the remedy.

use std::time::Duration;

use super::classify::{self, OtherConfigMap};
use super::context::{
    Context, Expected, drift, rfc3339, uncounted, without_injection as uninjected,
};
use super::queriers::{QuerierWait, WaitUntil};
use super::{MAX_DATA_BYTES, MAX_PODS, TakenBack, View, forecast};
use crate::core::gateways::Gateway;
use crate::core::gateways::{ABSENT_PODS, MARGIN};
use crate::core::model::duration::PromDuration;
use crate::core::model::names;
use crate::core::model::text::{counted, listed, older_end, truncate};
use crate::core::rollout::forecast::Untried;
use crate::core::rollout::planner::Gap;
use crate::core::rollout::queriers::ObservedQuerier;
use crate::core::rollout::report::{BlockReport, BlocksReport, PodState, RolloutState, SetReport};

/// A pod that drifts for this long gets an Event; kubelet delivers an entry within two minutes.
const DRIFT_AFTER: Duration = Duration::from_mins(5);
/// A new pod's sidecar may be silent for this long without an Event.
const STARTS_FOR: Duration = Duration::from_secs(15);
/// The longest part of a querier's error that a message quotes, in characters.
const MAX_ERROR_CHARS: usize = 120;
/// Pods that one sentence lists.
pub(super) const MAX_NAMED: usize = 5;

/// The reason and message of an Event.
pub(super) type Event = (&'static str, String);

// ---- What the rollout does or waits for ----

pub(super) fn settled(context: &Context<'_>) -> String {
    let facts = context.view.gateway.facts();
    let surplus = names_of(context, |pod| pod.surplus);
    match facts.annotations.get(names::TARGET_REPLICAS) {
        Some(target) if !surplus.is_empty() => format!(
            "every pod serves its planned window; {} no longer needed: kubectl -n {} scale statefulset {} --replicas={target} is safe now",
            are(&surplus),
            facts.namespace,
            facts.name
        ),
        _ if context.pods.is_empty() => "no pods: nothing is served".to_owned(),
        _ => "every pod serves its planned window".to_owned(),
    }
}

/// Continues the message of a settled rollout while blocks are not loaded.
pub(super) fn unloaded_blocks(report: &BlocksReport) -> String {
    match (report.unserved.first(), report.missing.first()) {
        (Some(newest), _) => format!(
            "; {} served by no pod, the newest is {}",
            blocks_are(report.unserved_total),
            block(newest)
        ),
        (None, Some(newest)) => format!(
            "; {} missing on some pods, the newest is {}",
            blocks_are(report.missing_total),
            block(newest)
        ),
        (None, None) => String::new(),
    }
}

pub(super) fn waits_for(view: &View<'_>, pods: &[&Expected<'_>]) -> String {
    let by_querier = pods.iter().find(|pod| pod.class.querier.is_some());
    let Some(pod) = by_querier.or_else(|| pods.first()) else {
        return String::new();
    };
    if let Some(wait) = &pod.class.querier {
        let pod = format!("{}{}", pod.name, and_more(pods.len()));
        return format!("waits for {}", querier_wait(view, &pod, wait));
    }
    let why = pod.class.why.clone().unwrap_or_else(|| match pod.status() {
        Some(status) => format!("it is {}", status.phase),
        None => "it is starting".to_owned(),
    });
    format!("waits for {}{}: {why}", pod.name, and_more(pods.len()))
}

/// The querier that a pod waits for, what it must do, and for how long the pod has waited.
pub(super) fn querier_wait(view: &View<'_>, pod: &str, wait: &QuerierWait) -> String {
    format!(
        "querier {} {}, for {} s",
        view.queriers[wait.querier].name,
        querier_must(pod, &wait.until),
        wait.since.as_secs()
    )
}

pub(super) fn querier_must(pod: &str, until: &WaitUntil) -> String {
    match until {
        WaitUntil::Drops => format!("to stop using {pod}"),
        WaitUntil::Lists(None) => format!("to use {pod} again"),
        WaitUntil::Lists(Some(why)) => {
            format!(
                "to reach {pod} (it reports {})",
                truncate(why, MAX_ERROR_CHARS)
            )
        }
        WaitUntil::Answers => format!("to tell whether it uses {pod}"),
    }
}

/// What a step waits for that is about to start.
pub(super) fn asks(querier: &ObservedQuerier) -> String {
    format!(
        "asks querier {} which pods it uses before the next step",
        querier.name
    )
}

/// Why a step is not tried yet.
pub(super) fn taken_back(view: &View<'_>, wait: Duration) -> String {
    let Some(TakenBack { querier, pod, .. }) = view.taken_back else {
        return String::new();
    };
    let limit = view.gateway.sharding.drain_limit();
    format!(
        "querier {querier} still used {pod} {limit} after it left discovery, so {pod} keeps its window; the next try is in {} min",
        wait.as_secs().div_ceil(60)
    )
}

/// What the rollout waits for while only `block` keeps pods from moving.
pub(super) fn waits_for_block(
    lacking: &[&str],
    block: &str,
    blocks: usize,
    holders: &[&str],
) -> String {
    format!(
        "waits for {} to load block {block}{}; until then {} must keep serving it. Thanos retries at its next sync (--sync-block-duration)",
        listed(lacking, MAX_NAMED),
        and_more(blocks),
        listed(holders, MAX_NAMED)
    )
}

pub(super) fn too_many_blocks(missing: usize, most: usize) -> String {
    format!(
        "waits until fewer blocks are missing: pods have not loaded {missing} blocks, and a step is planned with at most {most}"
    )
}

pub(super) fn blocked(pod: &str, gap: &Gap) -> String {
    format!(
        "{pod} alone serves {}, so its restart would leave that range unserved. Scale up first, one spare pod is enough, or allow the gap with allow_coverage_gap: true",
        range(gap)
    )
}

pub(super) fn given_back() -> String {
    "it gave up its window, and no other pod serves what it serves instead, so it keeps that until another does".to_owned()
}

/// Appended to what a running step waits for.
pub(super) const PAUSES_NEXT: &str = "; after this step the rollout pauses, as its annotation asks";

pub(super) fn paused() -> String {
    format!(
        "paused by annotation {}; remove it to continue",
        names::PAUSE
    )
}

/// `first`: why one pod goes before the others.
pub(super) fn moves(pods: &[String], gap: Option<&Gap>, first: Option<String>) -> String {
    if pods.is_empty() {
        return "shard and replica numbers change, no window does".to_owned();
    }
    let gap = gap.map_or_else(String::new, |gap| {
        format!("; meanwhile no pod serves {}", range(gap))
    });
    first.unwrap_or_else(|| format!("{} given another window", are(pods))) + &gap
}

pub(super) fn goes_first((pod, why): (&str, Untried)) -> String {
    match why {
        Untried::Blocks { about, largest } => format!(
            "{pod} goes first: its window will have about {} blocks, and no pod has loaded more than {}",
            thousands(about),
            thousands(largest)
        ),
        Untried::Length { window, longest } => format!(
            "{pod} goes first: its window is {} long, and no pod has loaded one of more than {}",
            PromDuration::from_secs(window),
            PromDuration::from_secs(longest)
        ),
    }
}

/// The windows of pods must not change on a guess, nor to the split of the configuration file.
pub(super) fn split_unknown(gateway: &Gateway) -> String {
    let problem = gateway.problem.as_deref().unwrap_or_default();
    format!(
        "the published windows stay as they are, because this server does not know the last good annotations: {problem}"
    )
}

pub(super) fn too_large(replicas: u32, bytes: usize) -> String {
    let why = if replicas > MAX_PODS {
        format!("do not fit into a ConfigMap, which has room for {MAX_PODS} at most")
    } else {
        format!("take {bytes} bytes, and a ConfigMap has room for {MAX_DATA_BYTES}")
    };
    format!(
        "the windows of {replicas} pods {why}: nothing is published; scale down, or use several StatefulSets"
    )
}

pub(super) fn without_injection(context: &Context<'_>) -> Option<String> {
    let pods = uninjected(context);
    (!pods.is_empty()).then(|| {
        let them = if pods.len() == 1 { "it" } else { "them" };
        format!(
            "{} not injected, so timeshard manages no window there: created before the namespace was labelled, or while no server answered; delete {them} to have {them} injected",
            are(&pods)
        )
    })
}

// ---- Warnings ----

pub(super) fn warnings(context: &Context<'_>) -> Vec<String> {
    let gateway = context.view.gateway;
    let mut warnings: Vec<String> = gateway
        .remarks()
        .into_iter()
        .map(|(_, sentence)| sentence)
        .collect();
    let uncounted = uncounted(context);
    if uncounted > 0 {
        warnings.push(format!(
            "{uncounted} of {} replicas are not counted yet, because they have no pods: windows are published for existing pods and for the next {MARGIN} to {ABSENT_PODS}",
            gateway.facts().replicas
        ));
    }
    warnings
}

// ---- Events ----

/// The Events that are due. The controller emits each once while its cause lasts.
pub(super) fn events(context: &Context<'_>, report: &SetReport) -> Vec<Event> {
    let mut events = context.view.gateway.remarks();
    events.extend(block_events(&report.blocks));
    if report.state == RolloutState::Blocked {
        events.push(("RolloutBlocked", report.message.clone()));
    }
    let first = forecast::running_canary(context).map(goes_first);
    events.extend(first.map(|text| ("WindowUntried", text)));
    events.extend(without_injection(context).map(|text| ("NotInjected", text)));
    events.extend(unreachable(context));
    events.extend(not_served(context));
    events.extend(other_configmap(context));
    events.extend(drifted(context));
    if report.taken_back > 0 {
        events.extend(querier_keeps_pod(context.view));
    }
    events.extend(waits_for_querier(context));
    events.extend(coverage_gap(context, report));
    events
}

fn unreachable(context: &Context<'_>) -> Option<Event> {
    let is_unreachable = |pod: &Expected<'_>| {
        // The containers of a new pod start one after the other.
        let starts = pod
            .seen
            .and_then(|seen| seen.unready.as_ref())
            .is_some_and(|unready| unready.seen_for < STARTS_FOR);
        pod.class.state == PodState::Unreachable && !starts
    };
    let first = context.pods.iter().find(|pod| is_unreachable(pod))?;
    let pods = names_of(context, is_unreachable);
    let why = first.class.why.as_deref().unwrap_or_default();
    let text = format!(
        "{} of {} unreachable, so the rollout waits: {why}",
        if pods.len() == 1 {
            "the sidecar"
        } else {
            "the sidecars"
        },
        are(&pods)
    );
    Some(("SidecarUnreachable", text))
}

fn not_served<'a>(context: &'a Context<'_>) -> impl Iterator<Item = Event> + 'a {
    let broken = |pod: &&Expected<'_>| pod.class.state == PodState::Broken;
    context.pods.iter().filter(broken).map(|pod| {
        let why = pod.class.why.as_deref().unwrap_or_default();
        let text = format!("{} does not serve its published window: {why}", pod.name);
        ("WindowNotServed", text)
    })
}

fn other_configmap(context: &Context<'_>) -> Option<Event> {
    let other = |pod: &Expected<'_>| classify::other_configmap(pod, context.view);
    let OtherConfigMap { reads, written } = context.pods.iter().find_map(other)?;
    let pods = names_of(context, |pod| other(pod).is_some());
    let text = format!(
        "{} still reading ConfigMap {reads}, but timeshard writes {written}: window changes do not reach pods that were admitted before the name changed. Delete these pods one at a time, or change the name back",
        are(&pods)
    );
    Some(("OtherConfigMap", text))
}

fn querier_keeps_pod(view: &View<'_>) -> Option<Event> {
    let TakenBack { querier, pod, .. } = view.taken_back?;
    let limit = view.gateway.sharding.drain_limit();
    let text = format!(
        "querier {querier} still used {pod} {limit} after it left discovery, so {pod} got its old window back and thanos was not restarted. The step is tried again with longer and longer pauses. Check that the querier finds the pods by DNS names of ready pods only (no fixed addresses, no publishNotReadyAddresses), or raise drain_limit"
    );
    Some(("QuerierKeepsPod", text))
}

/// Queriers that take longer than the delays which would hold without them.
fn waits_for_querier(context: &Context<'_>) -> Option<Event> {
    let sharding = &context.view.gateway.sharding;
    let patience = sharding.drain().max(sharding.discovery_delay()).to_std();
    let waits = |pod: &&Expected<'_>| {
        let wait = pod.class.querier.as_ref();
        wait.is_some_and(|wait| wait.since > patience)
    };
    let pods: Vec<&Expected<'_>> = context.pods.iter().filter(waits).collect();
    let text = waits_for(context.view, &pods);
    (!pods.is_empty()).then(|| ("WaitsForQuerier", format!("the rollout {text}")))
}

fn drifted(context: &Context<'_>) -> Option<Event> {
    let pods = names_of(context, |pod| {
        drift(pod).is_some_and(|drift| drift >= DRIFT_AFTER)
    });
    (!pods.is_empty()).then(|| {
        let verb = if pods.len() == 1 { "has" } else { "have" };
        let text = format!(
            "{} {verb} not served the published window for more than {} min: see the sidecar's log",
            listed(&pods, MAX_NAMED),
            DRIFT_AFTER.as_secs() / 60
        );
        ("Drift", text)
    })
}

/// Starting pods will fill the gap, and the windows of pods without injection are not known. The
/// metric shows the gap in any case.
fn coverage_gap(context: &Context<'_>, report: &SetReport) -> Option<Event> {
    let starting = |pod: &Expected<'_>| {
        matches!(
            pod.class.state,
            PodState::Absent | PodState::Terminating | PodState::Settling
        )
    };
    if report.gap_seconds == 0
        || report.uninjected_store_pods > 0
        || context.pods.is_empty()
        || context.pods.iter().any(starting)
    {
        return None;
    }
    let required = context.terms.required;
    let from = report
        .retention_seconds
        .map_or("the beginning".to_owned(), |_| required.min.to_string());
    let text = format!(
        "no ready pod serves {} s of {from} .. {}",
        report.gap_seconds, required.max
    );
    Some(("CoverageGap", text))
}

/// Events about blocks that pods could not load.
fn block_events(report: &BlocksReport) -> Vec<Event> {
    let mut events = Vec::new();
    if let Some(newest) = report.unserved.first() {
        let text = format!(
            "{} served by no pod, so queries silently miss samples; the newest is {}, which {} could not load: see the log of thanos there",
            blocks_are(report.unserved_total),
            block(newest),
            listed(&newest.missing_on, MAX_NAMED)
        );
        events.push(("BlocksUnserved", text));
    }
    if let Some(newest) = report.missing.first() {
        let text = format!(
            "{} missing on some pods; the newest is {}, which {} could not load. Other pods serve it, and stay until it is loaded",
            blocks_are(report.missing_total),
            block(newest),
            listed(&newest.missing_on, MAX_NAMED)
        );
        events.push(("BlocksNotLoaded", text));
    }
    events
}

// ---- Parts of sentences ----

fn names_of<'a>(context: &'a Context<'_>, chosen: impl Fn(&Expected<'_>) -> bool) -> Vec<&'a str> {
    let pods = context.pods.iter().filter(|pod| chosen(pod));
    pods.map(|pod| pod.name.as_str()).collect()
}

/// The first few pods, and the verb.
fn are<T: AsRef<str>>(pods: &[T]) -> String {
    let verb = if pods.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", listed(pods, MAX_NAMED))
}

/// The rest of a list whose first item is named.
fn and_more(all: usize) -> String {
    match all.saturating_sub(1) {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    }
}

fn blocks_are(blocks: u32) -> String {
    let verb = if blocks == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(blocks, "block"))
}

/// Writes 5200 as 5,200.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn block(block: &BlockReport) -> String {
    format!("{} ({} .. {})", block.ulid, block.from, block.to)
}

fn range(gap: &Gap) -> String {
    format!("{} .. {}", older_end(&rfc3339(gap.from)), rfc3339(gap.to))
}
