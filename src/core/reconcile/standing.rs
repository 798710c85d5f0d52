//! What each pod is for the rollout, and what it needs next.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};

use super::{Expected, PodView, View};
use crate::core::agent_status::{AgentStatus, Phase};
use crate::core::entry::Entry;
use crate::core::loaded::LoadedBlocks;
use crate::core::observed::Answer;
use crate::core::report::PodState;
use crate::core::rollout::Standing;

/// A kubelet that did not look is told again after this long.
pub const HURRY_AGAIN: Duration = Duration::from_secs(5);

/// One pod, judged.
pub(super) struct Judged {
    pub(super) state: PodState,
    /// `None` for a pod that takes no part.
    pub(super) standing: Option<Standing>,
    /// Whether it gets to where it shall be by itself.
    pub(super) on_its_way: bool,
    /// Whether it is away, or may be at any moment, because its window changes.
    pub(super) in_step: bool,
    /// How long until every querier knows it.
    pub(super) joins_in: Option<Duration>,
    /// What is wrong or missing.
    pub(super) why: Option<String>,
}

fn settling(state: PodState, on_its_way: bool, why: impl Into<Option<String>>) -> Judged {
    Judged {
        state,
        standing: Some(Standing::Settling),
        on_its_way,
        in_step: false,
        joins_in: None,
        why: why.into(),
    }
}

pub(super) fn judge(pod: &Expected<'_>, view: &View<'_>) -> Judged {
    let Some(seen) = pod.view else {
        return settling(PodState::Absent, false, "the pod does not exist".to_owned());
    };
    let facts = seen.facts;
    if facts.terminating {
        return settling(
            PodState::Terminating,
            false,
            "the pod is being deleted".to_owned(),
        );
    }
    if !facts.injected {
        let why = if facts.by_hand && !view.known.replace_time_flags {
            "its time flags are set by hand, and respected: nothing is built on it".to_owned()
        } else {
            "admitted without injection: nothing is built on it; see timeshard check, then delete to have it admitted anew".to_owned()
        };
        return Judged {
            state: PodState::NotInjected,
            standing: None,
            on_its_way: false,
            in_step: false,
            joins_in: None,
            why: Some(why),
        };
    }
    let status = match seen.answer {
        None if facts.ip.is_none() && !facts.ready && facts.stuck.is_some() => {
            return broken(facts.stuck.clone().unwrap_or_default());
        }
        None => {
            return settling(
                PodState::Settling,
                true,
                "its sidecar was not asked yet".to_owned(),
            );
        }
        Some(Answer::Unreachable(why)) => {
            return match &facts.stuck {
                // Not one container of it may have come far enough to answer.
                Some(stuck) if !facts.ready => broken(format!("{stuck}; {why}")),
                _ => settling(PodState::Unreachable, false, why.clone()),
            };
        }
        Some(Answer::Status(status)) => status,
    };
    let Some(entry) = &pod.entry else {
        return settling(PodState::Settling, true, None);
    };
    if let Some(why) = reads_elsewhere(pod, view).filter(|_| status.published != Some(entry.window))
    {
        return settling(PodState::Settling, false, why);
    }
    let judged = by_status(seen, status, entry, view);
    let changes = match status.phase {
        Phase::Draining | Phase::Restarting => true,
        Phase::Serving | Phase::Failed => {
            status.published != Some(entry.window)
                || (judged.state == PodState::Joining && status.restarts > 0)
        }
        Phase::Starting => false,
    };
    Judged {
        in_step: changes,
        ..judged
    }
}

fn by_status(seen: &PodView<'_>, status: &AgentStatus, entry: &Entry, view: &View<'_>) -> Judged {
    let facts = seen.facts;
    if status.published != Some(entry.window) {
        let why = facts
            .stuck
            .clone()
            .or_else(|| Some("the sidecar does not see its entry yet".to_owned()));
        return settling(PodState::Settling, true, why);
    }
    match status.phase {
        Phase::Failed => {
            let why = status
                .last_error
                .clone()
                .unwrap_or_else(|| "the published window was given up".to_owned());
            match status.applied.filter(|_| facts.ready) {
                Some(serves) => Judged {
                    standing: Some(Standing::Fallen(serves)),
                    ..broken(why)
                },
                None => broken(why),
            }
        }
        Phase::Starting if facts.stuck.is_some() => broken(facts.stuck.clone().unwrap_or_default()),
        Phase::Serving if status.applied == Some(entry.window) && facts.ready => {
            joined(seen, entry.shard, view)
        }
        Phase::Serving if status.applied != Some(entry.window) && status.last_error.is_some() => {
            settling(PodState::Settling, false, status.last_error.clone())
        }
        Phase::Serving if !facts.ready => settling(
            PodState::Settling,
            true,
            "serves, and another container keeps the pod from being Ready".to_owned(),
        ),
        _ => settling(PodState::Settling, true, status.last_error.clone()),
    }
}

fn broken(why: String) -> Judged {
    Judged {
        state: PodState::Broken,
        standing: Some(Standing::Broken),
        on_its_way: false,
        in_step: false,
        joins_in: None,
        why: Some(why),
    }
}

/// It serves what is published; known to all queriers once it has been in discovery long enough.
fn joined(seen: &PodView<'_>, shard: u32, view: &View<'_>) -> Judged {
    let sharding = &view.known.sharding;
    let delay = sharding.discovery_delay().to_std();
    let mut known_for = seen.ready_for.unwrap_or_default();
    if sharding.shard_services() {
        if seen.facts.shard() != Some(shard) {
            return settling(
                PodState::Settling,
                true,
                "its shard label is about to change".to_owned(),
            );
        }
        known_for = known_for.min(seen.labelled_for);
    }
    if let Some(why) = seen
        .answer
        .and_then(|answer| not_whole(answer.status()?.blocks.as_ref()?, view))
    {
        return settling(PodState::Settling, false, why);
    }
    if known_for >= delay {
        return Judged {
            state: PodState::Confirmed,
            standing: Some(Standing::Confirmed),
            on_its_way: true,
            in_step: false,
            joins_in: None,
            why: None,
        };
    }
    let left = delay.saturating_sub(known_for);
    let why = format!("queriers learn of it within {} s", left.as_secs().max(1));
    Judged {
        joins_in: Some(left),
        ..settling(PodState::Joining, true, why)
    }
}

/// Why it is not known what of its window a pod serves: too much is missing to be named, or thanos has not read the bucket for
/// so long that its blocks are those of another time than its neighbours'.
fn not_whole(blocks: &LoadedBlocks, view: &View<'_>) -> Option<String> {
    if blocks.is_cut() {
        let (total, named) = (blocks.missing_total, blocks.missing.len());
        return Some(format!(
            "thanos has not loaded {total} of its {} blocks, of which only {named} are named: see its log",
            blocks.expected
        ));
    }
    let synced = DateTime::from_timestamp(blocks.last_sync_unix_seconds, 0)
        .filter(|_| blocks.last_sync_unix_seconds > 0)?;
    let allowed = view.known.sharding.overlap().to_chrono();
    (view.now.signed_duration_since(synced) > allowed).then(|| {
        let at = synced.to_rfc3339_opts(SecondsFormat::Secs, true);
        format!(
            "thanos last read the bucket at {at}, longer ago than the overlap of {}: see its log",
            view.known.sharding.overlap()
        )
    })
}

/// Which ConfigMap its sidecar reads, if that is not the one that is written: its name is another one since the pod was
/// admitted, and no window reaches it any more.
pub(super) fn reads_elsewhere(pod: &Expected<'_>, view: &View<'_>) -> Option<String> {
    let seen = pod
        .view
        .filter(|seen| seen.facts.injected && !seen.facts.terminating)?;
    let facts = view.known.facts();
    let (reads, written) = (
        seen.facts.configmap.as_ref()?,
        view.config
            .operator
            .configmap_of(&facts.namespace, &facts.name),
    );
    (*reads != written)
        .then(|| format!("its sidecar reads ConfigMap {reads}, and {written} is written"))
}

/// Why the StatefulSet itself is not at rest.
pub(super) fn updating(view: &View<'_>, expected: &[Expected<'_>]) -> Option<String> {
    let facts = view.known.facts();
    if !facts.generation_observed {
        return Some(
            "the StatefulSet controller has not seen the last change of the StatefulSet yet"
                .to_owned(),
        );
    }
    if let Some(name) = view
        .pods
        .iter()
        .find(|(_, pod)| pod.facts.terminating)
        .map(|(name, _)| name)
    {
        return Some(format!("{name} is being deleted"));
    }
    let partition = facts.partition?;
    let old = |pod: &&Expected<'_>| {
        pod.ordinal >= partition.saturating_add(facts.ordinals_start)
            && pod
                .view
                .is_some_and(|view| view.facts.revision != facts.update_revision)
    };
    let first = expected.iter().find(old)?;
    Some(format!(
        "the StatefulSet is being updated: {} is still of the old revision",
        first.name
    ))
}

/// Pods whose label is not what their entry says, as soon as it may change.
pub(super) fn relabel(view: &View<'_>, expected: &[Expected<'_>]) -> Vec<(String, u32)> {
    // Where it is not known whether there are any, there may be.
    let services = view.known.sharding.shard_services() || view.known.split_unknown;
    let due = |pod: &Expected<'_>| {
        let (entry, seen) = (pod.entry.as_ref()?, pod.view?);
        if !seen.facts.injected || seen.facts.terminating || seen.facts.shard() == Some(entry.shard)
        {
            return None;
        }
        let Some(Answer::Status(status)) = seen.answer else {
            return None;
        };
        // Behind a Service the label decides who is asked for what: it changes while nobody asks, or when the window stays.
        let away = !seen.facts.ready || status.applied == Some(entry.window);
        (!services || away).then(|| (pod.name.clone(), entry.shard))
    };
    expected.iter().filter_map(due).collect()
}

/// Pods whose sidecar does not show their entry although kubelet could have brought it.
pub(super) fn to_hurry(expected: &[Expected<'_>], view: &View<'_>) -> Vec<String> {
    let due = |pod: &&Expected<'_>| {
        unseen(pod, view).is_some_and(|seen| seen.hurried_ago.is_none_or(|ago| ago >= HURRY_AGAIN))
    };
    expected
        .iter()
        .filter(due)
        .map(|pod| pod.name.clone())
        .collect()
}

/// When a pod is to be hurried, if its sidecar does not show its entry by then.
pub(super) fn hurry_in(pod: &Expected<'_>, view: &View<'_>) -> Option<Duration> {
    // One that is due is hurried by this look.
    let ago = unseen(pod, view)?
        .hurried_ago
        .filter(|ago| *ago < HURRY_AGAIN)
        .unwrap_or_default();
    Some(HURRY_AGAIN.saturating_sub(ago))
}

/// A pod that kubelet could bring its entry, and whose sidecar does not show it.
fn unseen<'a>(pod: &Expected<'a>, view: &View<'_>) -> Option<&'a PodView<'a>> {
    let (entry, seen) = (pod.entry.as_ref()?, pod.view?);
    let Some(Answer::Status(status)) = seen.answer else {
        return None;
    };
    let could =
        seen.facts.injected && !seen.facts.terminating && reads_elsewhere(pod, view).is_none();
    (could && status.published != Some(entry.window)).then_some(seen)
}
