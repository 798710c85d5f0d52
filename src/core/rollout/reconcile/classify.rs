//! Classifies each pod for the rollout, and finds the pods that need a label or a nudge.
//!
//! In: a pod as observed, with its entry, its sidecar's last answer, and what queriers say. Out:
//! its [`Class`]. A window has arrived when the pod is confirmed: the planner then counts on it.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};

use super::class::Class;
use super::context::{Context, Expected};
use super::orders::{self, NUMBERED_SINCE};
use super::queriers::{Queriers, Returning};
use super::{ReportedPod, View};
use crate::core::agent::loaded::LoadedBlocks;
use crate::core::agent::status::{AgentStatus, Phase};
use crate::core::kube::observed::PodAnswer;
use crate::core::model::entry::Entry;
use crate::core::model::window::Window;
use crate::core::rollout::planner::MemberState;
use crate::core::rollout::report::PodState;

/// Kubelet is nudged again after this long.
pub const NUDGE_INTERVAL: Duration = Duration::from_secs(5);

pub(super) fn classify(pod: &Expected<'_>, view: &View<'_>, queriers: &Queriers<'_>) -> Class {
    let Some(seen) = pod.seen else {
        return Class::absent();
    };
    let facts = seen.facts;
    if facts.terminating {
        let why = "the pod is being deleted".to_owned();
        return Class::settling(PodState::Terminating, false, why);
    }
    if !facts.injected {
        let why = if facts.by_hand && !view.gateway.replace_time_flags {
            "its time flags are set by hand and kept, so the rollout ignores it"
        } else {
            "admitted without injection, so the rollout ignores it: older than the label of its namespace, or no server answered, or its template cannot be injected, which timeshard inject explains; delete the pod to have it admitted again"
        };
        return Class {
            member: None,
            ..Class::settling(PodState::NotInjected, false, why.to_owned())
        };
    }
    let status = match seen.answer {
        None if facts.ip.is_none() && !facts.ready && facts.stuck.is_some() => {
            return Class::broken(facts.stuck.clone().unwrap_or_default());
        }
        None => {
            let why = "its sidecar has not been polled yet".to_owned();
            return Class::settling(PodState::Settling, true, why);
        }
        Some(PodAnswer::Unreachable(why)) => {
            return match &facts.stuck {
                // Possibly no container of the pod has started.
                Some(stuck) if !facts.ready => Class::broken(format!("{stuck}; {why}")),
                _ => Class::settling(PodState::Unreachable, false, why.clone()),
            };
        }
        Some(PodAnswer::Status(status)) => status,
    };
    let Some(entry) = &pod.entry else {
        return Class::settling(PodState::Settling, true, None);
    };
    if status.published != Some(entry.window)
        && let Some(other) = other_configmap(pod, view)
    {
        let why = format!(
            "its sidecar reads ConfigMap {}, but timeshard writes {}",
            other.reads, other.written
        );
        return Class::settling(PodState::Settling, false, why);
    }
    let class = by_status(pod, seen, status, view, queriers);
    let in_step = match status.phase {
        Phase::Draining | Phase::Restarting => true,
        Phase::Serving | Phase::Failed => {
            status.published != Some(entry.window)
                || (class.state == PodState::Joining && status.restarts > 0)
        }
        Phase::Starting => false,
    };
    Class { in_step, ..class }
}

fn by_status(
    pod: &Expected<'_>,
    seen: &ReportedPod<'_>,
    status: &AgentStatus,
    view: &View<'_>,
    queriers: &Queriers<'_>,
) -> Class {
    let facts = seen.facts;
    let Some(entry) = &pod.entry else {
        return Class::settling(PodState::Settling, true, None);
    };
    if status.published != Some(entry.window) {
        let why = facts
            .stuck
            .clone()
            .unwrap_or_else(|| "the sidecar has not seen its entry yet".to_owned());
        return Class::settling(PodState::Settling, true, why);
    }
    let applied = status.applied == Some(entry.window);
    match status.phase {
        Phase::Failed => {
            let why = status
                .last_error
                .clone()
                .unwrap_or_else(|| "the published window was given up".to_owned());
            let class = Class::broken(why);
            // The pod's condition follows the fallback by some seconds.
            let unready = seen.unready.filter(|_| !facts.ready);
            let delay = view.gateway.sharding.discovery_delay().to_std();
            let soon = |_: &Window| unready.is_none_or(|unready| unready.seen_for < delay);
            match status.applied.filter(soon) {
                Some(serves) => Class {
                    member: Some(MemberState::RolledBack(serves)),
                    ..class
                },
                None => class,
            }
        }
        Phase::Starting if facts.stuck.is_some() => {
            Class::broken(facts.stuck.clone().unwrap_or_default())
        }
        Phase::Serving if applied && facts.ready => joined(seen, entry, view, queriers),
        Phase::Serving if !applied && status.last_error.is_some() => {
            Class::settling(PodState::Settling, false, status.last_error.clone())
        }
        Phase::Serving if !facts.ready => Class::settling(
            PodState::Settling,
            true,
            "thanos serves, but another container keeps the pod from being Ready".to_owned(),
        ),
        _ => Class {
            querier: pod.drain_wait.clone(),
            ..Class::settling(PodState::Settling, true, status.last_error.clone())
        },
    }
}

/// Classifies a pod that serves its published window: every querier knows it once it has been in
/// discovery for the discovery delay, and known queriers say that they use it.
fn joined(
    seen: &ReportedPod<'_>,
    entry: &Entry,
    view: &View<'_>,
    queriers: &Queriers<'_>,
) -> Class {
    let sharding = &view.gateway.sharding;
    let delay = sharding.discovery_delay().to_std();
    let mut known_for = seen.ready_for.unwrap_or_default();
    if sharding.shard_services() {
        if seen.facts.shard() != Some(entry.shard) {
            let why = "its shard label is about to change".to_owned();
            return Class::settling(PodState::Settling, true, why);
        }
        known_for = known_for.min(seen.labelled_for);
    }
    let blocks = seen
        .answer
        .and_then(|answer| answer.status()?.blocks.as_ref());
    if let Some(why) = blocks.and_then(|blocks| uncertain(blocks, view)) {
        return Class::settling(PodState::Settling, false, why);
    }
    let all_know = match queriers.returning(seen.facts, seen.ready_for.unwrap_or_default()) {
        Returning::Waits(wait) => {
            return Class {
                querier: Some(wait),
                ..Class::settling(PodState::Joining, true, None)
            };
        }
        Returning::Known { all } => all,
    };
    let left = delay.saturating_sub(known_for);
    // Queriers that said so are not asked again: what they know stays true while the pod is ready.
    let was_confirmed = seen.confirmed_ago.is_some_and(|ago| ago <= known_for);
    if left.is_zero() || was_confirmed || (all_know && was_dropped(seen, entry)) {
        return Class {
            member: Some(MemberState::Confirmed),
            ..Class::settling(PodState::Confirmed, true, None)
        };
    }
    let why = format!("queriers learn of it within {} s", left.as_secs().max(1));
    Class {
        joins_in: Some(left),
        ..Class::settling(PodState::Joining, true, why)
    }
}

/// Whether every querier has dropped the pod before its last restart, so that what they list now is
/// the window that it serves now.
fn was_dropped(seen: &ReportedPod<'_>, entry: &Entry) -> bool {
    let restarts = seen
        .answer
        .and_then(|answer| answer.status())
        .map(|status| status.restarts);
    restarts == Some(0) || (entry.order.is_some() && entry.released == entry.order)
}

/// Why it is uncertain which part of its window a pod serves: either too many blocks are missing to
/// be listed, or thanos last read the bucket so long ago that its blocks are not comparable with
/// its neighbours'.
fn uncertain(blocks: &LoadedBlocks, view: &View<'_>) -> Option<String> {
    if blocks.is_cut() {
        return Some(format!(
            "thanos has not loaded {} of its {} blocks, too many to list (the first {} are): see its log",
            blocks.missing_total,
            blocks.expected,
            blocks.missing.len()
        ));
    }
    let synced = DateTime::from_timestamp(blocks.last_sync_unix_seconds, 0)
        .filter(|_| blocks.last_sync_unix_seconds > 0)?;
    let overlap = view.gateway.sharding.overlap();
    (view.now.signed_duration_since(synced) > overlap.to_chrono()).then(|| {
        let at = synced.to_rfc3339_opts(SecondsFormat::Secs, true);
        format!(
            "thanos last read the bucket at {at}, longer ago than the overlap of {overlap}: see its log"
        )
    })
}

/// A sidecar reads another ConfigMap than timeshard writes, because the name changed after the pod
/// was admitted: no window change reaches the pod.
pub(super) struct OtherConfigMap {
    pub(super) reads: String,
    pub(super) written: String,
}

pub(super) fn other_configmap(pod: &Expected<'_>, view: &View<'_>) -> Option<OtherConfigMap> {
    let facts = pod.seen?.facts;
    let reads = facts
        .configmap
        .as_ref()
        .filter(|_| facts.injected && !facts.terminating)?;
    let set = view.gateway.facts();
    let written = view.config.operator.configmap_of(&set.namespace, &set.name);
    (*reads != written).then(|| OtherConfigMap {
        reads: reads.clone(),
        written,
    })
}

/// Why no step may start: the StatefulSet itself is being changed.
pub(super) fn updating(context: &Context<'_>) -> Option<String> {
    let facts = context.view.gateway.facts();
    if !facts.generation_observed {
        return Some(
            "the StatefulSet controller has not seen the last change of the StatefulSet yet"
                .to_owned(),
        );
    }
    let mut pods = context.view.pods.iter();
    if let Some((name, _)) = pods.find(|(_, pod)| pod.facts.terminating) {
        return Some(format!("{name} is being deleted"));
    }
    let partition = facts.partition?;
    let old = |pod: &&Expected<'_>| {
        pod.ordinal >= partition.saturating_add(facts.ordinals_start)
            && pod
                .seen
                .is_some_and(|seen| seen.facts.revision != facts.update_revision)
    };
    let first = context.pods.iter().find(old)?;
    Some(format!(
        "the StatefulSet is being updated: {} still has the old revision",
        first.name
    ))
}

/// Pods whose shard label differs from their entry and may change now.
pub(super) fn relabel(context: &Context<'_>) -> Vec<(String, u32)> {
    let gateway = context.view.gateway;
    // While the split is unknown, there may be shard Services.
    let services = gateway.sharding.shard_services() || gateway.split_unknown;
    let due = |pod: &Expected<'_>| {
        let (entry, facts, status) = (pod.entry?, pod.seen?.facts, pod.status()?);
        if !facts.injected
            || facts.terminating
            || facts.shard() == Some(entry.shard)
            || orders::may_return(&entry, status, context.view)
        {
            return None;
        }
        // Behind a Service the label decides which window queriers expect from the pod: it changes
        // while no querier can reach the pod, or when the window stays.
        let away = !facts.ready || status.applied == Some(entry.window);
        (!services || away).then(|| (pod.name.clone(), entry.shard))
    };
    context.pods.iter().filter_map(due).collect()
}

/// Pods whose sidecar has not seen its entry although kubelet could have delivered it.
pub(super) fn to_nudge(context: &Context<'_>) -> Vec<String> {
    let due = |pod: &&Expected<'_>| {
        unseen(pod, context.view)
            .is_some_and(|seen| seen.nudged_ago.is_none_or(|ago| ago >= NUDGE_INTERVAL))
    };
    let pods = context.pods.iter().filter(due);
    pods.map(|pod| pod.name.clone()).collect()
}

/// How long until a pod must be nudged, if its sidecar does not see its entry before.
pub(super) fn nudge_in(pod: &Expected<'_>, view: &View<'_>) -> Option<Duration> {
    // A pod that is due is nudged by this decision.
    let ago = unseen(pod, view)?
        .nudged_ago
        .filter(|ago| *ago < NUDGE_INTERVAL)
        .unwrap_or_default();
    Some(NUDGE_INTERVAL.saturating_sub(ago))
}

/// Returns the pod if its sidecar has not seen its entry although kubelet could deliver it.
fn unseen<'a>(pod: &Expected<'a>, view: &View<'_>) -> Option<&'a ReportedPod<'a>> {
    let (entry, seen, status) = (pod.entry?, pod.seen?, pod.status()?);
    let reachable =
        seen.facts.injected && !seen.facts.terminating && other_configmap(pod, view).is_none();
    // A pod that drains waits for its release, which changes no window.
    let waits = status.phase == Phase::Draining
        && status.contract >= NUMBERED_SINCE
        && entry.generation > status.generation;
    (reachable && (waits || status.published != Some(entry.window))).then_some(seen)
}
