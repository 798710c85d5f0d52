//! The pods that a StatefulSet should have, and the planner's view of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use super::class::Class;
use super::queriers::{QuerierWait, Queriers};
use super::{KEPT_ENTRIES, MAX_PODS, ReportedPod, View, drifts};
use crate::core::agent::loaded::BlockRef;
use crate::core::agent::status::AgentStatus;
use crate::core::config::MAX_SHARDS;
use crate::core::gateways::MARGIN;
use crate::core::model::entry::{self, Entry};
use crate::core::model::window::Window;
use crate::core::rollout::forecast::Untried;
use crate::core::rollout::planner::{self, CellBlock, Member, PlanTerms, Slot};
use crate::core::rollout::report::PodState;

/// A pod that the StatefulSet should have.
pub(super) struct Expected<'a> {
    pub(super) name: String,
    pub(super) ordinal: u32,
    pub(super) surplus: bool,
    pub(super) desired: Slot,
    pub(super) entry: Option<Entry>,
    /// The pod as observed; `None` if it does not exist.
    pub(super) seen: Option<&'a ReportedPod<'a>>,
    /// The querier that its drain waits for.
    pub(super) drain_wait: Option<QuerierWait>,
    pub(super) class: Class,
}

impl<'a> Expected<'a> {
    /// The sidecar's last document.
    pub(super) fn status(&self) -> Option<&'a AgentStatus> {
        self.seen?.answer?.status()
    }

    /// The window that the pod serves to queries now.
    pub(super) fn serves(&self) -> Option<Window> {
        self.seen.filter(|seen| seen.facts.ready)?;
        self.status()?.applied
    }
}

/// Blocks that some member lacks, newest first.
#[derive(Debug, Default)]
pub(super) struct Missing {
    pub(super) blocks: Vec<CellBlock>,
    pub(super) ids: Vec<BlockRef>,
    /// The blocks that bind the planner.
    pub(super) binding: Vec<CellBlock>,
    pub(super) binding_ids: Vec<BlockRef>,
    /// Blocks beyond the planner's limit.
    pub(super) beyond: usize,
}

/// Everything that one decision is made from.
pub(super) struct Context<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) pods: Vec<Expected<'a>>,
    pub(super) queriers: Queriers<'a>,
    /// The pods that take part in the rollout, for the planner.
    pub(super) members: Vec<Member>,
    /// For each member, its position among `pods`.
    pub(super) at: Vec<usize>,
    /// For each pod, why its planned window is larger than any that was loaded in this set; `None`
    /// without canaries.
    pub(super) untried: Vec<Option<Untried>>,
    pub(super) terms: PlanTerms,
    pub(super) missing: Missing,
    /// Entries of pods that are leaving, as found.
    pub(super) leaving: BTreeMap<String, String>,
}

impl<'a> Context<'a> {
    /// Missing blocks and untried windows are not collected yet.
    pub(super) fn new(
        view: &'a View<'a>,
        pods: Vec<Expected<'a>>,
        queriers: Queriers<'a>,
        leaving: BTreeMap<String, String>,
    ) -> Self {
        // A pod without injection is outside timeshard's control: the rollout neither counts on it
        // nor waits for it.
        let member = |(i, pod): (usize, &Expected<'_>)| {
            let member = Member {
                published: pod.entry?.into(),
                desired: pod.desired,
                surplus: pod.surplus,
                state: pod.class.member?,
                canary: false,
            };
            Some((member, i))
        };
        let (members, at): (Vec<Member>, _) = pods.iter().enumerate().filter_map(member).unzip();
        Self {
            view,
            pods,
            queriers,
            at,
            untried: Vec::new(),
            terms: terms(view, members.len()),
            members,
            missing: Missing::default(),
            leaving,
        }
    }

    /// The pod of a member.
    pub(super) fn pod(&self, member: usize) -> &Expected<'a> {
        &self.pods[self.at[member]]
    }
}

fn terms(view: &View<'_>, pods: usize) -> PlanTerms {
    let terms = PlanTerms::new(&view.gateway.sharding, pods, view.now);
    PlanTerms {
        required: if view.gateway.split_unknown {
            all_published(view).unwrap_or(terms.required)
        } else {
            terms.required
        },
        ..terms
    }
}

/// From the oldest to the newest published instant.
fn all_published(view: &View<'_>) -> Option<Window> {
    let entries = view.map.iter().flat_map(|map| map.entries.values());
    let windows: Vec<Window> = entries.map(|entry| entry.window).collect();
    (!windows.is_empty()).then(|| planner::hull(&windows, view.now))
}

/// How many replicas to plan for: those that have pods, and some more. Anyone who may scale a
/// StatefulSet can ask for any number, so writes, memory and reports follow the pods that exist.
fn counted(view: &View<'_>) -> u32 {
    let facts = view.gateway.facts();
    let index = |name: &str| {
        let ordinal: u32 = name
            .strip_prefix(facts.name.as_str())?
            .strip_prefix('-')?
            .parse()
            .ok()?;
        ordinal
            .checked_sub(facts.ordinals_start)
            .filter(|index| *index < facts.replicas)
    };
    let after = |last: Option<u32>| last.map_or(0, |index| index.saturating_add(1));
    let existing = after(view.pods.keys().filter_map(|name| index(name)).max());
    let base = view.written.or(view.map);
    let entries = base
        .into_iter()
        .flat_map(|map| map.facts.data.keys())
        .filter_map(|key| index(key.strip_suffix(".yaml")?));
    let kept = after(entries.filter(|index| *index < KEPT_ENTRIES).max());
    let with_margin = existing.next_multiple_of(MARGIN).saturating_add(MARGIN);
    with_margin.max(kept).min(facts.replicas).min(MAX_PODS)
}

/// Returns the pods that should exist, not classified yet, and the entries of pods that are leaving.
pub(super) fn expected<'a>(view: &View<'a>) -> (Vec<Expected<'a>>, BTreeMap<String, String>) {
    let (facts, plan) = (view.gateway.facts(), &view.gateway.plan);
    // Edits by other clients were not published by a leader: they are reverted.
    let base = view.written.or(view.map);
    let all: Vec<Expected<'a>> = (0..counted(view))
        .map(|index| {
            let ordinal = facts.ordinals_start.saturating_add(index);
            let name = format!("{}-{ordinal}", facts.name);
            let at = plan.assign(index);
            let entry = base
                .and_then(|map| map.entries.get(&name))
                .filter(|entry| entry.shard < MAX_SHARDS);
            Expected {
                seen: view.pods.get(&name),
                name,
                ordinal,
                surplus: at.surplus,
                desired: Slot {
                    shard: at.shard,
                    replica: at.replica,
                    window: plan.window(at.shard, view.now),
                },
                entry: entry.copied(),
                drain_wait: None,
                class: Class::absent(),
            }
        })
        .collect();
    let known: BTreeSet<&str> = all.iter().map(|pod| pod.name.as_str()).collect();
    let leaving = view
        .pods
        .keys()
        .filter(|name| !known.contains(name.as_str()))
        .filter_map(|name| {
            let key = entry::key(name);
            let text = base?.facts.data.get(&key)?.clone();
            Some((key, text))
        })
        .collect();
    (all, leaving)
}

/// Every shard that has pods, entries or a place in the plan.
pub(super) fn shards(view: &View<'_>, pods: &[Expected<'_>]) -> BTreeSet<u32> {
    let labels = view
        .pods
        .values()
        .filter_map(|pod| pod.facts.shard())
        .filter(|shard| *shard < MAX_SHARDS);
    let entries = pods.iter().filter_map(|pod| Some(pod.entry?.shard));
    labels
        .chain(entries)
        .chain(pods.iter().map(|pod| pod.desired.shard))
        .collect()
}

/// The ConfigMap's data with these pods' entries.
pub(super) fn data(
    pods: &[Expected<'_>],
    leaving: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let entries = pods
        .iter()
        .filter_map(|pod| Some((entry::key(&pod.name), pod.entry?.to_yaml())));
    let mut data = leaving.clone();
    data.extend(entries);
    data
}

/// Replicas that have no pods and are not planned for yet.
pub(super) fn uncounted(context: &Context<'_>) -> u32 {
    let replicas = context.view.gateway.facts().replicas;
    replicas.saturating_sub(u32::try_from(context.pods.len()).unwrap_or(u32::MAX))
}

pub(super) fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Store pods that were admitted without injection although the user did not opt them out.
pub(super) fn without_injection<'a>(context: &'a Context<'_>) -> Vec<&'a str> {
    let replace = context.view.gateway.replace_time_flags;
    let forgotten = |pod: &&Expected<'_>| {
        pod.class.state == PodState::NotInjected
            && pod.seen.is_some_and(|seen| seen.facts.forgotten(replace))
    };
    let pods = context.pods.iter().filter(forgotten);
    pods.map(|pod| pod.name.as_str()).collect()
}

/// How long a pod has answered queries with another window than its entry's, if it does.
pub(super) fn drift(pod: &Expected<'_>) -> Option<Duration> {
    let (entry, seen) = (pod.entry?, pod.seen?);
    drifts(seen.facts, seen.answer, &entry).then(|| seen.drifts_for.unwrap_or_default())
}
