//! Decides, for one StatefulSet, what its ConfigMap must contain now, which pods move next, and
//! what its user sees.
//!
//! All input comes in as values, all output leaves as a [`Decision`]; the caller observes,
//! executes, and reconciles again. Invariants:
//! - the ConfigMap and the pods are the only state: a decision never depends on the intention of an
//!   earlier one;
//! - entries of running pods change only by a step of the [planner]; a pod without an entry gets
//!   the window that it already runs;
//! - an unchanged world gives an unchanged ConfigMap, byte for byte: time alone causes no write;
//! - no step begins while the StatefulSet itself is being updated, a sidecar is unreachable, or a known
//!   querier does not use a pod that stays;
//! - a pod whose drain a querier outlasts gets back the window that it runs; so does a pod that gave
//!   up its window, once no other pod serves what it serves instead;
//! - while a rollout is open, a pod that alone serves a part of which the plan wants two may not be
//!   evicted;
//! - a pod that alone serves a block which another pod could not load neither moves nor may be
//!   evicted;
//! - while annotations are invalid and no valid ones are known, the published entries stay.

mod blocks;
mod class;
mod classify;
mod context;
mod entries;
mod forecast;
mod messages;
mod next;
mod orders;
mod queriers;
mod report;
mod taken_back;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::planner::{self, MemberState};
use super::queriers::{ObservedQuerier, QuerierMemory};
use super::report::{PodState, RolloutState, SetReport};
use super::single_holders;
use crate::core::config::Config;
use crate::core::gateways::{Gateway, Published};
use crate::core::kube::observed::{PodAnswer, PodFacts};
use crate::core::model::entry::Entry;
use crate::core::model::names;
use class::Class;
pub use classify::NUDGE_INTERVAL;
use context::Context;
use context::Missing;
use queriers::Queriers;
pub use taken_back::TakenBack;

/// Bytes of data that a ConfigMap may hold: Kubernetes' 1 MiB less room for metadata.
pub const MAX_DATA_BYTES: usize = 1024 * 1024 - 16 * 1024;

/// More entries than this do not fit into a ConfigMap. Bounds memory when `spec.replicas` is
/// absurd.
const MAX_PODS: u32 = 16_000;

/// Entries of pods that do not exist are kept up to this index, for instance while all pods of a
/// StatefulSet are recreated.
const KEPT_ENTRIES: u32 = 500;

/// Queriers are asked this often while a step runs.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// A pod as observed now.
#[derive(Clone, Debug)]
pub struct ReportedPod<'a> {
    pub facts: &'a PodFacts,
    /// The sidecar's last answer; `None` before the first poll.
    pub answer: Option<&'a PodAnswer>,
    /// How long the pod has been ready, as far as this leader knows.
    pub ready_for: Option<Duration>,
    /// Since when the pod has been out of discovery, if it is.
    pub unready: Option<UnreadyTime>,
    /// How long the pod has had its shard label, as far as this leader knows.
    pub labelled_for: Duration,
    /// How long ago this leader first called the pod confirmed, if each decision since then has.
    pub confirmed_ago: Option<Duration>,
    /// How long the pod has drifted ([`drifts`]); `None` if it does not.
    pub drifts_for: Option<Duration>,
    /// How long ago kubelet was last nudged to sync the pod's volumes, or was due to sync by itself
    /// after a write.
    pub nudged_ago: Option<Duration>,
}

/// A pod that is not ready.
#[derive(Clone, Copy, Debug)]
pub struct UnreadyTime {
    /// For how long this process has seen it unready.
    pub seen_for: Duration,
    /// Whether it was unready when this process first saw it.
    pub began_before: bool,
}

/// A StatefulSet as observed now.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// Its sharding, plan and facts.
    pub gateway: &'a Gateway,
    pub config: &'a Config,
    /// Its ConfigMap, if it exists and is managed by timeshard.
    pub map: Option<&'a Published>,
    /// The ConfigMap as this leader wrote it last, or found it first. Any other content was written
    /// by another client.
    pub written: Option<&'a Published>,
    /// Keys of the entries whose content this leader wrote; the others are as found.
    pub own: &'a BTreeSet<String>,
    /// Its pods by name, including surplus and terminating ones.
    pub pods: &'a BTreeMap<String, ReportedPod<'a>>,
    /// By ULID, how long a block has been missing on some pod, as far as this leader knows.
    pub missing_for: &'a BTreeMap<String, Duration>,
    /// Queriers that may use its pods.
    pub queriers: &'a [ObservedQuerier],
    pub querier_memory: &'a QuerierMemory,
    pub taken_back: Option<&'a TakenBack>,
    pub now: DateTime<Utc>,
}

/// What the leader must do.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// Data to write to the ConfigMap before anything else; `None` if it is up to date.
    pub upkeep: Option<BTreeMap<String, String>>,
    /// The next step: the ConfigMap's data after it, and the pods whose windows it changes.
    pub step: Option<(BTreeMap<String, String>, Vec<String>)>,
    /// Whether the step changes only pods that lose nothing by it: it need not wait for others.
    pub repair: bool,
    /// Shards whose pods must not be evicted now, because related pods are away or about to be.
    pub closed: BTreeSet<u32>,
    /// Every shard that has pods or entries.
    pub shards: BTreeSet<u32>,
    /// Pods whose shard label must change now.
    pub relabel: Vec<(String, u32)>,
    /// Pods to touch so that kubelet syncs their volumes.
    pub nudge: Vec<String>,
    /// New value of the ConfigMap's annotation [`names::SINGLE_HOLDERS`], empty for none; `None` if
    /// it is up to date.
    pub single_holders: Option<String>,
    /// Whether `spec.replicas` has reached [`names::TARGET_REPLICAS`], so that the annotation can
    /// go.
    pub drop_target: bool,
    pub report: SetReport,
    /// Reason and message of each Event to emit.
    pub events: Vec<(&'static str, String)>,
    /// Whether a step runs or is about to start, so that queriers must be asked.
    pub ask_queriers: bool,
    /// Pods whose old window `upkeep` publishes again, each with the querier that did not let it go.
    pub taken_back: Vec<(String, String)>,
    /// UIDs of pods to poll more often.
    pub poll_often: BTreeSet<String>,
    /// When to reconcile again although nothing changed.
    pub requeue_after: Option<Duration>,
}

/// Whether a pod answers queries with another window than its entry's. During a rollout that lasts
/// only until kubelet delivers the entry: the sidecar then drains the pod immediately.
#[must_use]
pub fn drifts(pod: &PodFacts, answer: Option<&PodAnswer>, entry: &Entry) -> bool {
    let applied = answer.and_then(|answer| answer.status()?.applied);
    pod.ready && applied.is_some_and(|applied| applied != entry.window)
}

/// Reconciles once.
#[must_use]
pub fn decide(view: &View<'_>) -> Decision {
    let (mut pods, leaving) = context::expected(view);
    let mut decision = Decision {
        shards: context::shards(view, &pods),
        ..Decision::default()
    };
    let queriers = Queriers::judge(view);
    decision.taken_back = entries::keep(view, &queriers, &mut pods);
    for pod in &mut pods {
        if let Some(entry) = pod.entry.filter(|_| view.gateway.split_unknown) {
            (pod.desired, pod.surplus) = (entry.into(), false);
        }
        pod.class = classify::classify(pod, view, &queriers);
    }
    let data = context::data(&pods, &leaving);
    let facts = view.gateway.facts();
    let bytes: usize = data.iter().map(|(key, text)| key.len() + text.len()).sum();
    if bytes > MAX_DATA_BYTES || facts.replicas > MAX_PODS {
        pods.retain(|pod| pod.seen.is_some());
        let message = messages::too_large(facts.replicas, bytes);
        decision.events.push(("TooManyPods", message.clone()));
        let context = Context::new(view, pods, queriers, leaving);
        decision.report = report::report(&context, RolloutState::Refused, message);
        return decision;
    }
    let is_current = |map: &Published| {
        map.facts.data == data && map.facts.owner_uid.as_deref() == Some(facts.uid.as_str())
    };
    // No ConfigMap is created without entries.
    if view.map.map_or(!data.is_empty(), |map| !is_current(map)) {
        decision.upkeep = Some(data);
    }
    let mut context = Context::new(view, pods, queriers, leaving);
    context.missing = Missing::collect(&context);
    context.untried = forecast::untried(view, &context.pods);
    for (member, pod) in context.members.iter_mut().zip(&context.at) {
        member.canary = context.untried.get(*pod).is_some_and(Option::is_some);
    }
    if give_back(&mut context) {
        decision.upkeep = Some(context::data(&context.pods, &context.leaving));
    }
    let (state, message) = next::next(&context, &mut decision);
    keep_single_holders(&context, &mut decision);
    decision.relabel = classify::relabel(&context);
    decision.nudge = classify::to_nudge(&context);
    let target = facts
        .annotations
        .get(names::TARGET_REPLICAS)
        .and_then(|text| text.parse::<u32>().ok());
    decision.drop_target = target == Some(facts.replicas);
    decision.report = report::report(&context, state, message);
    decision.events = messages::events(&context, &decision.report);
    let unsettled = context
        .pods
        .iter()
        .filter(|pod| !matches!(pod.class.state, PodState::Confirmed | PodState::Absent));
    decision.poll_often = unsettled
        .filter_map(|pod| Some(pod.seen?.facts.uid.clone()))
        .collect();
    let joins_in = context.pods.iter().filter_map(|pod| pod.class.joins_in);
    let nudges_in = context
        .pods
        .iter()
        .filter_map(|pod| classify::nudge_in(pod, view));
    decision.ask_queriers |= next::needs_queriers(&context);
    let is_supervised = !view.queriers.is_empty() || orders::any_open(&context);
    let asks_in = (decision.ask_queriers && is_supervised).then_some(ASK_INTERVAL);
    let tries_in = view.taken_back.and_then(TakenBack::pause_left);
    let times = joins_in.chain(nudges_in).chain(asks_in).chain(tries_in);
    decision.requeue_after = times.min();
    decision
}

/// Publishes what they run for pods that gave up their window and are now the last of what they
/// serve instead: their sidecars would try the window again after a while, without asking. The next
/// try is then a step like any other. Returns whether there are any.
fn give_back(context: &mut Context<'_>) -> bool {
    let gave_up = |state| matches!(state, MemberState::RolledBack(_));
    if context.terms.allow_gap || context.view.gateway.split_unknown {
        return false;
    }
    let last = |i: &usize| {
        gave_up(context.members[*i].state)
            && !planner::can_leave(
                &context.members,
                *i,
                &context.missing.binding,
                &context.terms,
            )
    };
    let stranded: Vec<usize> = (0..context.members.len()).filter(last).collect();
    if stranded.is_empty() {
        return false;
    }
    let generation = entries::next_generation(context.view);
    for i in &stranded {
        let pod = &mut context.pods[context.at[*i]];
        let Some(entry) = orders::given_back(pod, generation) else {
            continue;
        };
        pod.entry = Some(entry);
        pod.class = Class::settling(PodState::Settling, true, messages::given_back());
        context.members[*i].published = entry.into();
        context.members[*i].state = MemberState::Settling;
    }
    true
}

/// Protects pods that alone serve a block: closes their shard's PDB and names them in the
/// annotation that the guard of every replica reads.
fn keep_single_holders(context: &Context<'_>, decision: &mut Decision) {
    let holders = context.missing.single_holders(context);
    decision.closed.extend(
        holders
            .keys()
            .map(|member| context.members[*member].published.shard),
    );
    let named = holders
        .into_iter()
        .map(|(member, ulids)| (context.pod(member).name.clone(), ulids))
        .collect();
    let text = single_holders::render(&named);
    decision.single_holders = context
        .view
        .map
        .filter(|map| map.facts.single_holders != text)
        .map(|_| text.unwrap_or_default());
}
