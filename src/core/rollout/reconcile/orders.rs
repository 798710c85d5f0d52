//! The moves of single pods while queriers are watched: each has a number, its drain ends when the
//! leader releases it, and it is taken back if a querier never lets the pod go.
//!
//! In: a pod that a step moves, and what queriers say about it. Out: its entry, with the new window
//! and `order`; later with `released`, or with the window that the pod still runs. Next for a
//! window: `core/rollout/reconcile/queriers.rs`.
//!
//! - A step gives each pod that moves the next `order`. If queriers tell about pods, the entry's
//!   drain is longer than any wait of the leader, so that the sidecar acts alone only when there is
//!   no leader.
//! - The leader ends the drain with `released: <order>` once no known querier lists the pod, in an
//!   answer to a request that was sent after the pod became unready.
//! - At `drain_limit` the window that the pod still runs is published again: thanos is not restarted
//!   while a querier says that it uses the pod. One that stops answering counts for 30 s more.
//! - A drain whose order was released before, as after a rollback, gets the next order.
//! - The long drain stays in the entry until its window changes: a write of its own would cost as
//!   much as a step.

use std::time::Duration;

use super::context::{Context, Expected};
use super::queriers::{Leaving, QuerierWait, Queriers, WaitUntil};
use super::{ReportedPod, View};
use crate::core::agent::status::{AgentStatus, Phase};
use crate::core::config::MAX_SHARDS;
use crate::core::model::duration::PromDuration;
use crate::core::model::entry::Entry;
use crate::core::rollout::planner::Slot;

/// Agents of this contract and later understand generations.
pub(super) const NUMBERED_SINCE: u32 = 2;
/// How much longer than `drain_limit` a sidecar drains by itself: time for the next leader.
const MARGIN: PromDuration = PromDuration::from_secs(120);

/// What becomes of a move.
pub(super) enum Verdict {
    /// It goes on; perhaps it waits for a querier.
    Stands(Option<QuerierWait>),
    /// No querier uses the pod.
    Released,
    /// The drain's order was used before.
    Renewed,
    /// This querier kept the pod for too long.
    TakenBack(QuerierWait),
}

/// The entry of a pod that a step moves to another slot, and so the beginning of a move.
/// `drain` is the drain of a move that the leader ends.
pub(super) fn moved(
    view: &View<'_>,
    pod: &Expected<'_>,
    to: Slot,
    generation: u64,
    drain: Option<PromDuration>,
) -> Entry {
    let numbered = pod.entry.is_some_and(|entry| entry.generation.is_some());
    let understood = pod
        .status()
        .map_or(numbered, |status| status.contract >= NUMBERED_SINCE);
    let mut entry = entry_of(view, to, None);
    if !understood {
        return entry;
    }
    entry.generation = Some(generation);
    match &pod.entry {
        // A change of numbers alone moves nothing.
        Some(before) if before.window == to.window => carry_over(&mut entry, before),
        before => {
            entry.order = Some(next_order(before.as_ref(), pod.status()));
            entry.drain = drain.or(entry.drain);
        }
    }
    entry
}

/// An unnumbered entry. It always has a drain: without one the pod would keep the drain that it was
/// admitted with.
pub(super) fn entry_of(view: &View<'_>, slot: Slot, published: Option<PromDuration>) -> Entry {
    let drain = if view.gateway.split_unknown {
        published
    } else {
        Some(view.gateway.sharding.drain())
    };
    Entry {
        drain,
        ..Entry::new(slot.shard, slot.replica, slot.window)
    }
}

/// The next number of a move of this pod.
fn next_order(entry: Option<&Entry>, status: Option<&AgentStatus>) -> u64 {
    let published = entry.and_then(|entry| entry.order.max(entry.released));
    let seen = status.and_then(|status| status.order);
    published.max(seen).unwrap_or(0).saturating_add(1)
}

/// The drain of a move that the leader ends; `None` if no querier tells when.
pub(super) fn supervised_drain(view: &View<'_>, queriers: &Queriers<'_>) -> Option<PromDuration> {
    let sharding = &view.gateway.sharding;
    (sharding.queriers_complete() || queriers.any_counts()).then(|| long_drain(view))
}

fn long_drain(view: &View<'_>) -> PromDuration {
    let limit = view.gateway.sharding.drain_limit();
    PromDuration::from_millis(limit.as_millis().saturating_add(MARGIN.as_millis()))
}

/// Copies what belongs to the window from the entry that stands.
pub(super) fn carry_over(entry: &mut Entry, kept: &Entry) {
    (entry.order, entry.released) = (kept.order, kept.released);
    if kept.order.is_some() {
        entry.drain = entry.drain.max(kept.drain);
    }
}

/// Whether the leader ends this drain.
fn is_supervised(entry: &Entry, view: &View<'_>) -> bool {
    let drain = view.gateway.sharding.drain();
    entry.order.is_some() && entry.drain.is_some_and(|own| own > drain)
}

/// Whether the leader has to end some pod's drain.
pub(super) fn any_open(context: &Context<'_>) -> bool {
    let is_open = |pod: &Expected<'_>| match (&pod.entry, pod.status()) {
        (Some(entry), Some(status)) => may_return(entry, status, context.view),
        _ => false,
    };
    context.pods.iter().any(is_open)
}

/// Whether the pod may still return to the window that it runs, so that its label must stay.
pub(super) fn may_return(entry: &Entry, status: &AgentStatus, view: &View<'_>) -> bool {
    is_supervised(entry, view)
        && entry.released != entry.order
        && matches!(status.phase, Phase::Draining | Phase::Serving)
        && status.applied.is_some_and(|runs| runs != entry.window)
}

/// Whether the pod drains for the entry's window.
pub(super) fn drains_for(status: &AgentStatus, entry: &Entry) -> bool {
    status.phase == Phase::Draining && status.published == Some(entry.window)
}

/// Judges the move of a pod whose entry stands; [`carry_out`] writes the verdict into the entry.
pub(super) fn judge(
    view: &View<'_>,
    queriers: &Queriers<'_>,
    pod: &Expected<'_>,
    entry: &Entry,
) -> Verdict {
    let stands = Verdict::Stands(None);
    let (Some(seen), Some(status)) = (pod.seen, pod.status()) else {
        return stands;
    };
    let is_this = entry.order.is_some() && status.order == entry.order && drains_for(status, entry);
    if !is_this || seen.facts.terminating || !is_supervised(entry, view) {
        return stands;
    }
    if entry.released == entry.order {
        // A sidecar that has read the release does not drain for it.
        let has_read = status.generation >= entry.generation;
        return if has_read { Verdict::Renewed } else { stands };
    }
    // Until the pod's condition says so, it is in discovery.
    let unready = seen.unready.filter(|_| !seen.facts.ready);
    let Some(out_for) = unready.map(|unready| unready.seen_for) else {
        return stands;
    };
    let sharding = &view.gateway.sharding;
    match queriers.leaving(seen.facts, out_for) {
        Leaving::Waits(wait) => {
            let keeps = wait.until == WaitUntil::Drops && status.applied.is_some();
            if keeps && age(seen, view) >= sharding.drain_limit().to_std() {
                Verdict::TakenBack(wait)
            } else {
                Verdict::Stands(Some(wait))
            }
        }
        Leaving::Dropped { all } if all || out_for >= sharding.drain().to_std() => {
            Verdict::Released
        }
        Leaving::Dropped { .. } => stands,
    }
}

/// How long the pod has been out of discovery. For a process that has just started, the cluster's
/// clock tells: an error of it only takes the step back earlier.
fn age(seen: &ReportedPod<'_>, view: &View<'_>) -> Duration {
    let Some(unready) = seen.unready else {
        return Duration::ZERO;
    };
    let by_cluster = view
        .now
        .timestamp()
        .saturating_sub(seen.facts.ready_changed_unix_seconds);
    let by_cluster = u64::try_from(by_cluster)
        .ok()
        .filter(|_| unready.began_before);
    unready
        .seen_for
        .max(by_cluster.map_or(Duration::ZERO, Duration::from_secs))
}

/// Changes the entry as its verdict says. Returns whether the window changed.
pub(super) fn carry_out(verdict: &Verdict, pod: &Expected<'_>, entry: &mut Entry) {
    let status = pod.status();
    match verdict {
        Verdict::Stands(_) => {}
        Verdict::Released => entry.released = entry.order,
        Verdict::Renewed => {
            (entry.order, entry.released) = (Some(next_order(Some(entry), status)), None);
        }
        Verdict::TakenBack(_) => {
            if take_back(pod, entry) {
                (entry.order, entry.released) = (Some(next_order(Some(entry), status)), None);
            }
        }
    }
}

/// Gives the entry the window that the pod runs, if that is known.
fn take_back(pod: &Expected<'_>, entry: &mut Entry) -> bool {
    let Some(runs) = pod.status().and_then(|status| status.applied) else {
        return false;
    };
    // The label still has the shard of the window that it runs.
    let label = pod.seen.and_then(|seen| seen.facts.shard());
    entry.shard = label
        .filter(|shard| *shard < MAX_SHARDS)
        .unwrap_or(entry.shard);
    entry.window = runs;
    true
}

/// The entry of a pod that gave up its window, with the window that it runs instead.
pub(super) fn given_back(pod: &Expected<'_>, generation: u64) -> Option<Entry> {
    let (mut entry, status) = (pod.entry?, pod.status()?);
    take_back(pod, &mut entry).then_some(())?;
    if status.contract >= NUMBERED_SINCE {
        (entry.order, entry.released) = (Some(next_order(Some(&entry), Some(status))), None);
        entry.generation = Some(generation);
    }
    Some(entry)
}

/// Lengthens the drain of a move that began before a querier was known.
pub(super) fn lengthen(
    view: &View<'_>,
    queriers: &Queriers<'_>,
    pod: &Expected<'_>,
    entry: &mut Entry,
) {
    let drains = |status: &AgentStatus| status.order == entry.order && drains_for(status, entry);
    let is_open = entry.order.is_some() && entry.released != entry.order;
    if is_open && pod.status().is_some_and(drains) && queriers.any_counts() {
        entry.drain = entry.drain.max(Some(long_drain(view)));
    }
}
