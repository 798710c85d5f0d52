//! The entries as they should be before any step: what is published stays, and is numbered.
//!
//! A `generation` tells the leader's writes from edits, restored backups and stale caches: a sidecar of contract 2 acts only on
//! an entry with a greater one than it remembers. Invariants:
//! - an entry whose content stays keeps its generation, so an unchanged plan is the same bytes;
//! - an entry whose content changes, or that a sidecar has seen another one than, gets the next one: the greatest that the
//!   ConfigMap and the sidecars know, plus one;
//! - agents of contract 1 get no key that they do not know.

use std::cell::OnceCell;
use std::time::Duration;

use super::{Expected, PodView, View, entry_of, place, running};
use crate::core::agent_status::AgentStatus;
use crate::core::config::MAX_SHARDS;
use crate::core::entry::{Entry, key};
use crate::core::rollout::Place;

/// Agents of this contract and later understand generations.
const NUMBERED_SINCE: u32 = 2;
/// While pods are still being created, entries are numbered together with the last of them, unless none has come for this long.
const QUIET: Duration = Duration::from_mins(2);

/// The generation of the next change.
pub(super) fn next_generation(view: &View<'_>) -> u64 {
    let maps = [view.map.map(|map| &map.data), view.written];
    let entries = maps.into_iter().flatten().flat_map(|data| data.values());
    let published = entries
        .filter_map(|text| Entry::parse(text, view.now).ok()?.generation)
        .max();
    let remembered = view
        .pods
        .values()
        .filter_map(|pod| pod.answer?.status()?.generation)
        .max();
    published.max(remembered).unwrap_or(0).saturating_add(1)
}

/// Gives every pod its entry: what is published, what it runs where nothing is, what is planned where it runs nothing.
pub(super) fn keep(view: &View<'_>, expected: &mut [Expected<'_>]) {
    // Reads every entry, and is needed only where one changes.
    let known = OnceCell::new();
    let next = || *known.get_or_init(|| next_generation(view));
    let numbers = numbers_now(view, expected);
    for pod in expected {
        let status = pod.view.and_then(|seen| seen.answer?.status());
        let base = pod.entry;
        let at = match &base {
            Some(entry) => {
                Some(remembered(view, &pod.name, entry, status).unwrap_or_else(|| place(entry)))
            }
            None => running(pod),
        };
        pod.entry = at.map(|at| {
            let kept = base.filter(|entry| entry.window == at.window);
            let (order, released) =
                kept.map_or((None, None), |entry| (entry.order, entry.released));
            let entry = Entry {
                order,
                released,
                ..entry_of(view, at, base.and_then(|entry| entry.drain))
            };
            Entry {
                generation: generation(base.as_ref(), &entry, status, numbers, &next),
                ..entry
            }
        });
    }
}

/// The entry of a pod that a step gives another place.
pub(super) fn moved(view: &View<'_>, pod: &Expected<'_>, to: Place, next: u64) -> Entry {
    let status = pod.view.and_then(|seen| seen.answer?.status());
    let numbered = pod
        .entry
        .as_ref()
        .is_some_and(|entry| entry.generation.is_some());
    let generation = status
        .map_or(numbered, |status| status.contract >= NUMBERED_SINCE)
        .then_some(next);
    Entry {
        generation,
        ..entry_of(view, to, None)
    }
}

/// Where a pod's sidecar remembers to have been put, if the entry is older or is none that a leader wrote: somebody edited it, or
/// put yesterday's back. A leader that has written the entry itself knows better.
fn remembered(
    view: &View<'_>,
    pod: &str,
    entry: &Entry,
    status: Option<&AgentStatus>,
) -> Option<Place> {
    let status = status.filter(|_| !view.own.contains(&key(pod)))?;
    let (generation, window) = (status.generation?, status.published?);
    let stale = entry.generation.is_none_or(|own| own <= generation) && window != entry.window;
    let shard = status
        .shard
        .filter(|shard| *shard < MAX_SHARDS)
        .unwrap_or(entry.shard);
    stale.then(|| Place {
        shard,
        replica: status.replica.unwrap_or(entry.replica),
        window,
    })
}

fn generation(
    base: Option<&Entry>,
    entry: &Entry,
    status: Option<&AgentStatus>,
    numbers: bool,
    next: &dyn Fn() -> u64,
) -> Option<u64> {
    let Some(status) = status else {
        return base.and_then(|base| base.generation);
    };
    if status.contract < NUMBERED_SINCE {
        return None;
    }
    let same = base.is_some_and(|base| {
        Entry {
            generation: None,
            ..*base
        } == *entry
    });
    let own = base.and_then(|base| base.generation);
    match own.filter(|_| same) {
        Some(own) => {
            // One that has seen a greater one, or something else under this one, would refuse it.
            let refused = status.generation.is_some_and(|seen| {
                seen > own || (seen == own && status.published != Some(entry.window))
            });
            Some(if refused { next() } else { own })
        }
        None if own.is_none() && same && status.generation.is_none() && !numbers => None,
        None => Some(next()),
    }
}

/// Whether to number entries although nothing else changes: each pod that is still to come would cost another write.
fn numbers_now(view: &View<'_>, expected: &[Expected<'_>]) -> bool {
    let answered = |pod: &Expected<'_>| {
        let came = |seen: &PodView<'_>| {
            !seen.facts.injected
                || seen.facts.ready
                || seen.answer.is_some_and(|answer| answer.status().is_some())
        };
        pod.view.is_some_and(came)
    };
    let quiet = || {
        view.pods
            .values()
            .filter_map(|pod| pod.ready_for)
            .min()
            .is_some_and(|youngest| youngest >= QUIET)
    };
    expected.iter().all(answered) || quiet()
}
