//! The entries before any step: published content stays, and is numbered.
//!
//! A `generation` distinguishes the leader's writes from edits, restored backups and stale caches:
//! a sidecar of contract 2 acts only on an entry with a greater generation than it remembers.
//! Invariants:
//! - an unchanged entry keeps its generation, so an unchanged plan gives the same bytes;
//! - an entry that changes, or that differs from what its sidecar has seen, gets the next
//!   generation: the greatest that the ConfigMap and the sidecars know, plus one;
//! - agents of contract 1 get no key that they do not know.

use std::cell::OnceCell;
use std::time::Duration;

use super::context::Expected;
use super::orders::{self, NUMBERED_SINCE, Verdict, entry_of};
use super::queriers::Queriers;
use super::{ReportedPod, View};
use crate::core::agent::status::AgentStatus;
use crate::core::config::MAX_SHARDS;
use crate::core::kube::observed::PodAnswer;
use crate::core::model::entry::{Entry, key};
use crate::core::rollout::planner::Slot;

/// While pods are being created, entries are numbered together with the last pod's, but no later
/// than this long after the youngest pod became ready.
const QUIET: Duration = Duration::from_mins(2);

/// The generation of the next change.
pub(super) fn next_generation(view: &View<'_>) -> u64 {
    let maps = [view.map, view.written].into_iter().flatten();
    let entries = maps.flat_map(|map| map.entries.values());
    let published = entries.filter_map(|entry| entry.generation).max();
    let remembered = view
        .pods
        .values()
        .filter_map(|pod| pod.answer?.status()?.generation)
        .max();
    published.max(remembered).unwrap_or(0).saturating_add(1)
}

/// Gives every pod its entry: the published one; without one, the window that it runs; if it runs
/// none, the planned one.
/// Moves whose drain ended or took too long are changed. Returns the pods that get back the window
/// that they run, each with the querier that did not let it go.
pub(super) fn keep(
    view: &View<'_>,
    queriers: &Queriers<'_>,
    pods: &mut [Expected<'_>],
) -> Vec<(String, String)> {
    // Reads every entry, and is needed only when one changes.
    let generation_once = OnceCell::new();
    let next = || *generation_once.get_or_init(|| next_generation(view));
    let number_all = number_all(view, pods);
    let mut taken_back = Vec::new();
    for pod in pods {
        let (status, base) = (pod.status(), pod.entry);
        let slot = match &base {
            Some(entry) => Some(
                remembered(view, &pod.name, entry, status).unwrap_or_else(|| Slot::from(*entry)),
            ),
            None => running(pod),
        };
        let Some(slot) = slot else {
            pod.entry = None;
            continue;
        };
        let mut entry = entry_of(view, slot, base.and_then(|entry| entry.drain));
        let is_numbered = status.is_none_or(|status| status.contract >= NUMBERED_SINCE);
        if let Some(kept) = base.filter(|kept| is_numbered && kept.window == slot.window) {
            orders::carry_over(&mut entry, &kept);
            entry.generation = kept.generation;
            let verdict = orders::judge(view, queriers, pod, &entry);
            orders::carry_out(&verdict, pod, &mut entry);
            orders::lengthen(view, queriers, pod, &mut entry);
            if let Verdict::TakenBack(wait) = &verdict {
                let querier = view.queriers[wait.querier].name.clone();
                taken_back.push((pod.name.clone(), querier));
            }
            pod.drain_wait = match verdict {
                Verdict::Stands(wait) => wait,
                Verdict::TakenBack(wait) => Some(wait),
                Verdict::Released | Verdict::Renewed => None,
            };
        } else if let Some(status) =
            status.filter(|status| status.order.is_some() && orders::drains_for(status, &entry))
        {
            // The move that an edit of the ConfigMap took away: it goes on as it was ordered.
            entry.order = status.order;
            orders::lengthen(view, queriers, pod, &mut entry);
        }
        entry.generation = generation(base.as_ref(), &entry, status, number_all, &next);
        pod.entry = Some(entry);
    }
    taken_back
}

/// The slot to publish for a pod without an entry: the one that it runs, so that its window does
/// not change outside a step; the planned one if it runs nothing yet; `None` while that is unknown.
fn running(pod: &Expected<'_>) -> Option<Slot> {
    let Some(seen) = pod.seen.filter(|seen| seen.facts.injected) else {
        return Some(pod.desired);
    };
    match seen.answer {
        Some(PodAnswer::Status(status)) => {
            let Some(window) = status.applied.or(status.published) else {
                return Some(pod.desired);
            };
            let shard = seen.facts.shard().or(status.shard);
            Some(Slot {
                shard: shard
                    .filter(|shard| *shard < MAX_SHARDS)
                    .unwrap_or(pod.desired.shard),
                replica: status.replica.unwrap_or(pod.desired.replica),
                window,
            })
        }
        // No container of the pod runs.
        Some(PodAnswer::Unreachable(_)) | None
            if seen.facts.stuck.is_some() && !seen.facts.ready =>
        {
            Some(pod.desired)
        }
        Some(PodAnswer::Unreachable(_)) | None => None,
    }
}

/// The slot that a pod's sidecar remembers, if the entry is stale or was not written by a leader:
/// a user edited it, or restored an old one. Entries that this leader wrote itself are trusted.
fn remembered(
    view: &View<'_>,
    pod: &str,
    entry: &Entry,
    status: Option<&AgentStatus>,
) -> Option<Slot> {
    let status = status.filter(|_| !view.own.contains(&key(pod)))?;
    let (generation, window) = (status.generation?, status.published?);
    let stale = entry.generation.is_none_or(|own| own <= generation) && window != entry.window;
    let shard = status
        .shard
        .filter(|shard| *shard < MAX_SHARDS)
        .unwrap_or(entry.shard);
    stale.then(|| Slot {
        shard,
        replica: status.replica.unwrap_or(entry.replica),
        window,
    })
}

/// The generation of `entry`, which replaces `base`.
fn generation(
    base: Option<&Entry>,
    entry: &Entry,
    status: Option<&AgentStatus>,
    number_all: bool,
    next: &dyn Fn() -> u64,
) -> Option<u64> {
    let own = base.and_then(|base| base.generation);
    let Some(status) = status else {
        return own;
    };
    if status.contract < NUMBERED_SINCE {
        return None;
    }
    let same = base.is_some_and(|base| {
        Entry {
            generation: entry.generation,
            ..*base
        } == *entry
    });
    match own.filter(|_| same) {
        Some(own) => {
            // A sidecar that has seen a greater generation, or another window under this one, would
            // refuse the entry.
            let refused = status.generation.is_some_and(|seen| {
                seen > own || (seen == own && status.published != Some(entry.window))
            });
            Some(if refused { next() } else { own })
        }
        None if own.is_none() && same && status.generation.is_none() && !number_all => None,
        None => Some(next()),
    }
}

/// Whether to number entries although nothing else changes. Not while pods are still to come: each
/// of them would cost another write.
fn number_all(view: &View<'_>, pods: &[Expected<'_>]) -> bool {
    let answered = |pod: &Expected<'_>| {
        let started = |seen: &ReportedPod<'_>| {
            !seen.facts.injected
                || seen.facts.ready
                || seen.answer.is_some_and(|answer| answer.status().is_some())
        };
        pod.seen.is_some_and(started)
    };
    let quiet = || {
        view.pods
            .values()
            .filter_map(|pod| pod.ready_for)
            .min()
            .is_some_and(|youngest| youngest >= QUIET)
    };
    pods.iter().all(answered) || quiet()
}
