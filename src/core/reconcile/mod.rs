//! One look at a StatefulSet: what its ConfigMap should say now, which pods move next, and what to tell its user.
//!
//! Everything comes in as values, everything goes out as a [`Decision`]; the driver observes, executes, and looks again.
//! Invariants:
//! - the ConfigMap and the pods are the whole state: a decision never depends on what an earlier one intended;
//! - entries of running pods change only by a step of [`rollout`]; a pod without an entry gets what it runs;
//! - an unchanged world is an unchanged ConfigMap, byte for byte: no write as time passes;
//! - no step begins while the StatefulSet itself is being changed, or a pod cannot be asked;
//! - a pod that alone serves a block which another pod could not load neither moves nor may be evicted;
//! - where annotations are refused and no good ones are known, what is published stays.

mod blocks;
mod entries;
mod render;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::config::{Config, MAX_SHARDS};
use super::duration::PromDuration;
use super::entry::{self, Entry};
use super::fleet::Known;
use super::names;
use super::observed::{Answer, MapFacts, PodFacts};
use super::report::{PodState, SetReport, State};
use super::rollout::{self, Discovery, Member, Place, Step, Terms};
use super::single_holders;
use super::window::Window;
use blocks::Missing;
pub use standing::HURRY_AGAIN;
use standing::{Judged, judge};

/// What a ConfigMap may hold, in bytes: Kubernetes' 1 MiB less room for its metadata.
pub const MAX_DATA_BYTES: usize = 1024 * 1024 - 16 * 1024;

/// More entries than this do not fit in, and no more pods are looked at: anybody may ask for a thousand million replicas.
const MOST_PODS: u32 = 16_000;

/// Pods that do not exist yet and are counted as if they did, so that their windows are published before they start. What exists
/// is rounded up to these, too, so that pods that come one after the other are not one write each.
const MARGIN: u32 = 64;

/// No more pods than this are counted without one that exists.
pub const ABSENT_PODS: u32 = 2 * MARGIN;

/// Entries of pods that do not exist are kept up to this index, as while all pods of a StatefulSet are made anew.
const KEPT_ENTRIES: u32 = 500;

/// A pod as it is seen now.
#[derive(Clone, Debug)]
pub struct PodView<'a> {
    /// What the API server says.
    pub facts: &'a PodFacts,
    /// What its sidecar said last; `None` before it was asked.
    pub answer: Option<&'a Answer>,
    /// How long it has been ready, as far as this leader knows.
    pub ready_for: Option<Duration>,
    /// How long it has had its shard label, as far as this leader knows.
    pub labelled_for: Duration,
    /// How long it has been seen to drift ([`drifts`]); `None` when it was not.
    pub drifts_for: Option<Duration>,
    /// How long ago kubelet was told to look at its volumes, or its entry was written and it may look by itself.
    pub hurried_ago: Option<Duration>,
}

/// A StatefulSet as it is seen now.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// Its sharding, plan and facts.
    pub known: &'a Known,
    /// The configuration.
    pub config: &'a Config,
    /// Its ConfigMap, if it exists and is ours.
    pub map: Option<&'a MapFacts>,
    /// What this leader wrote last, or found: whatever else the ConfigMap says was written by somebody else.
    pub written: Option<&'a BTreeMap<String, String>>,
    /// Keys of the entries in it that this leader gave their content; the others are as they were found.
    pub own: &'a BTreeSet<String>,
    /// Its pods by name, surplus ones and those on their way out included.
    pub pods: &'a BTreeMap<String, PodView<'a>>,
    /// By ULID, for how long a block has been missing on some pod, as far as this leader knows.
    pub missing_for: &'a BTreeMap<String, Duration>,
    /// Now.
    pub now: DateTime<Utc>,
}

/// What to do.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// What the ConfigMap must say before anything else; `None` when it says so.
    pub upkeep: Option<BTreeMap<String, String>>,
    /// The next step: what the ConfigMap says then, and the pods whose windows change by it.
    pub step: Option<(BTreeMap<String, String>, Vec<String>)>,
    /// Whether that step is for pods that lose nothing by it: it waits for nobody else.
    pub repair: bool,
    /// Shards whose pods must not be evicted now, since others are away or about to be.
    pub closed: BTreeSet<u32>,
    /// Every shard that has pods or entries.
    pub shards: BTreeSet<u32>,
    /// Pods whose shard label must change now.
    pub relabel: Vec<(String, u32)>,
    /// Pods whose kubelet should look at their volumes now.
    pub hurry: Vec<String>,
    /// What the ConfigMap's annotation [`names::SINGLE_HOLDERS`] must say now, empty for none; `None` when it says so.
    pub single_holders: Option<String>,
    /// Whether the target on the way down has been reached.
    pub drop_target: bool,
    /// What its user sees.
    pub report: SetReport,
    /// Reason and sentence of what deserves an Event.
    pub notices: Vec<(&'static str, String)>,
    /// Pods to ask often.
    pub closely: BTreeSet<String>,
    /// When to look again although nothing happened.
    pub again: Option<Duration>,
}

/// A pod that the StatefulSet should have.
struct Expected<'a> {
    name: String,
    ordinal: u32,
    surplus: bool,
    desired: Place,
    entry: Option<Entry>,
    view: Option<&'a PodView<'a>>,
}

/// Whether a pod answers queries with another window than its entry says. In a rollout it does only for as long as kubelet
/// takes to bring the entry: its sidecar drains it at once.
#[must_use]
pub fn drifts(pod: &PodFacts, answer: Option<&Answer>, entry: &Entry) -> bool {
    let Some(Answer::Status(status)) = answer else {
        return false;
    };
    pod.ready
        && status
            .applied
            .is_some_and(|applied| applied != entry.window)
}

/// Looks once.
#[must_use]
pub fn decide(view: &View<'_>) -> Decision {
    let (mut expected, others) = expected(view);
    let mut decision = Decision {
        shards: shards(view, &expected),
        ..Decision::default()
    };
    // The entries as they should be before any step.
    entries::keep(view, &mut expected);
    for pod in expected.iter_mut().filter(|_| view.known.split_unknown) {
        if let Some(entry) = pod.entry {
            (pod.desired, pod.surplus) = (place(&entry), false);
        }
    }
    let data = render_data(&expected, &others);
    let judged: Vec<Judged> = expected.iter().map(|pod| judge(pod, view)).collect();
    let bytes: usize = data.iter().map(|(key, text)| key.len() + text.len()).sum();
    if bytes > MAX_DATA_BYTES || view.known.facts().replicas > MOST_PODS {
        let there = expected
            .into_iter()
            .zip(judged)
            .filter(|(pod, _)| pod.view.is_some());
        let (expected, judged): (Vec<_>, Vec<_>) = there.unzip();
        decision.report = render::report(
            view,
            &expected,
            &judged,
            &Missing::default(),
            State::Refused,
            too_large(view, bytes),
        );
        decision
            .notices
            .push(("TooManyPods", decision.report.message.clone()));
        return decision;
    }
    let owner = Some(view.known.facts().uid.as_str());
    // With nothing to say yet, none is made.
    if view.map.map_or(!data.is_empty(), |map| {
        map.data != data || map.owner_uid.as_deref() != owner
    }) {
        decision.upkeep = Some(data);
    }
    let (members, at) = members(&expected, &judged);
    let terms = terms(view);
    let missing = Missing::collect(view, &expected, &at, &terms);
    let (state, message) = next(
        view,
        &expected,
        &judged,
        (&members, &at, &missing),
        &others,
        &mut decision,
    );
    keep_single_holders(view, &expected, (&members, &at, &missing), &mut decision);
    decision.relabel = standing::relabel(view, &expected);
    decision.hurry = standing::to_hurry(&expected, view);
    let facts = view.known.facts();
    let target = facts
        .annotations
        .get(names::TARGET_REPLICAS)
        .and_then(|text| text.parse::<u32>().ok());
    decision.drop_target = target == Some(facts.replicas);
    decision.report = render::report(view, &expected, &judged, &missing, state, message);
    render::notices(view, &expected, &judged, &mut decision);
    let unsettled = expected
        .iter()
        .zip(&judged)
        .filter(|(_, judged)| !matches!(judged.state, PodState::Confirmed | PodState::Absent));
    decision.closely = unsettled
        .filter_map(|(pod, _)| Some(pod.view?.facts.uid.clone()))
        .collect();
    let joins_in = judged.iter().filter_map(|judged| judged.joins_in);
    decision.again = joins_in
        .chain(
            expected
                .iter()
                .filter_map(|pod| standing::hurry_in(pod, view)),
        )
        .min();
    decision
}

/// What the rollout does now.
fn next(
    view: &View<'_>,
    expected: &[Expected<'_>],
    judged: &[Judged],
    (members, at, missing): (&[Member], &[usize], &Missing),
    others: &BTreeMap<String, String>,
    decision: &mut Decision,
) -> (State, String) {
    if let Some(i) = expected.iter().position(|pod| pod.entry.is_none()) {
        // What it runs is not known, so neither is what may be built on the others.
        let state = if judged[i].on_its_way {
            State::Rolling
        } else {
            State::Waiting
        };
        return (state, render::waits_for(&expected[i], &judged[i], 1));
    }
    let mut moving: Vec<usize> = (0..expected.len()).filter(|i| judged[*i].in_step).collect();
    let step = rollout::next_step(members, &missing.binding, &terms(view));
    let answer = match &step {
        Step::Done => match render::without_injection(view, expected, judged) {
            Some(why) => (State::Waiting, why),
            None => (State::Settled, render::settled(view, expected)),
        },
        Step::Wait(on) => {
            let why = on.first().map_or_else(String::new, |i| {
                render::waits_for(&expected[at[*i]], &judged[at[*i]], on.len())
            });
            let rolling = on.iter().all(|i| judged[at[*i]].on_its_way);
            (
                if rolling {
                    State::Rolling
                } else {
                    State::Waiting
                },
                why,
            )
        }
        Step::Blocked(gap) => (
            State::Blocked,
            render::blocked(&expected[at[gap.member]].name, gap),
        ),
        Step::Held(held) => {
            let pods: Vec<&str> = at.iter().map(|i| expected[*i].name.as_str()).collect();
            (State::Waiting, missing.held(held, members, &pods, view.now))
        }
        Step::Move { changes, gap } => {
            let repair = changes.iter().all(|change| {
                members[change.member]
                    .standing
                    .loses_nothing_by(change.to.window)
            });
            if is_true(view, names::PAUSE) {
                (
                    State::Paused,
                    format!(
                        "paused by the annotation {}; remove it to go on",
                        names::PAUSE
                    ),
                )
            } else if let Some(why) = standing::updating(view, expected)
                .or_else(|| missing.too_many())
                .filter(|_| !repair)
            {
                (State::Waiting, why)
            } else {
                let next = entries::next_generation(view);
                let mut after: BTreeMap<String, String> = render_data(expected, others);
                for change in changes {
                    after.insert(
                        entry::key(&expected[at[change.member]].name),
                        entries::moved(view, &expected[at[change.member]], change.to, next)
                            .to_yaml(),
                    );
                }
                let restarts = changes
                    .iter()
                    .filter(|change| change.to.window != members[change.member].published.window);
                let restarts: Vec<usize> = restarts.map(|change| at[change.member]).collect();
                moving.extend(&restarts);
                let names = restarts.iter().map(|i| expected[*i].name.clone()).collect();
                decision.step = Some((after, names));
                decision.repair = repair;
                (
                    State::Rolling,
                    render::moves(expected, &restarts, gap.as_ref()),
                )
            }
        }
    };
    decision.closed = closed(expected, &moving, view.now);
    if view.known.split_unknown {
        (State::Refused, render::split_unknown(view))
    } else {
        answer
    }
}

/// Where one pod alone serves a block, it is not evicted, and the guard of every replica is told.
fn keep_single_holders(
    view: &View<'_>,
    expected: &[Expected<'_>],
    (members, at, missing): (&[Member], &[usize], &Missing),
    decision: &mut Decision,
) {
    let holders = missing.single_holders(members, &terms(view));
    decision.closed.extend(
        holders
            .keys()
            .map(|member| members[*member].published.shard),
    );
    let named = holders
        .into_iter()
        .map(|(member, ulids)| (expected[at[member]].name.clone(), ulids))
        .collect();
    let text = single_holders::render(&named);
    decision.single_holders = view
        .map
        .filter(|map| map.single_holders != text)
        .map(|_| text.unwrap_or_default());
}

/// Shards with a pod that holds what a moving pod holds: while that one is away these must stay.
fn closed(expected: &[Expected<'_>], moving: &[usize], now: DateTime<Utc>) -> BTreeSet<u32> {
    let window = |i: usize| expected[i].entry.as_ref().map(|entry| entry.window);
    let windows: Vec<Window> = moving.iter().filter_map(|i| window(*i)).collect();
    let touches =
        |a: &Window, b: &Window| a.min.at(now) <= b.max.at(now) && b.min.at(now) <= a.max.at(now);
    let near = |pod: &&Expected<'_>| {
        pod.entry
            .as_ref()
            .is_some_and(|entry| windows.iter().any(|window| touches(window, &entry.window)))
    };
    expected
        .iter()
        .filter(near)
        .filter_map(|pod| Some(pod.entry.as_ref()?.shard))
        .collect()
}

/// The pods that take part in the rollout, and where they stand among the expected ones. A pod that was admitted without
/// injection serves what it likes: nothing is built on it and nothing waits for it.
fn members(expected: &[Expected<'_>], judged: &[Judged]) -> (Vec<Member>, Vec<usize>) {
    let takes_part = |(i, pod): (usize, &Expected<'_>)| {
        let published = place(pod.entry.as_ref()?);
        let standing = judged[i].standing?;
        Some((
            Member {
                published,
                desired: pod.desired,
                surplus: pod.surplus,
                standing,
            },
            i,
        ))
    };
    expected.iter().enumerate().filter_map(takes_part).unzip()
}

fn terms(view: &View<'_>) -> Terms {
    let sharding = &view.known.sharding;
    let planned = sharding.required();
    Terms {
        required: if view.known.split_unknown {
            all_published(view).unwrap_or(planned)
        } else {
            planned
        },
        discovery: if sharding.shard_services() {
            Discovery::ShardServices
        } else {
            Discovery::Pods
        },
        allow_gap: sharding.allow_coverage_gap(),
        now: view.now,
    }
}

/// From the oldest to the newest instant that is published.
fn all_published(view: &View<'_>) -> Option<Window> {
    let texts = view.map.iter().flat_map(|map| map.data.values());
    let windows: Vec<Window> = texts
        .filter_map(|text| Some(Entry::parse(text, view.now).ok()?.window))
        .collect();
    (!windows.is_empty()).then(|| rollout::hull(&windows, view.now))
}

fn is_true(view: &View<'_>, annotation: &str) -> bool {
    view.known
        .facts()
        .annotations
        .get(annotation)
        .is_some_and(|value| value == "true")
}

fn place(entry: &Entry) -> Place {
    Place {
        shard: entry.shard,
        replica: entry.replica,
        window: entry.window,
    }
}

/// What is published for a pod that shall stand there. It always says for how long to drain: without that a pod would
/// drain as it was told when it was admitted.
fn entry_of(view: &View<'_>, place: Place, published: Option<PromDuration>) -> Entry {
    let drain = if view.known.split_unknown {
        published
    } else {
        Some(view.known.sharding.drain())
    };
    Entry {
        drain,
        ..Entry::new(place.shard, place.replica, place.window)
    }
}

/// How many of the replicas are looked at: those that have pods, and some more. Whoever may change a StatefulSet may ask for any
/// number; what is written, held and said follows the pods that there are.
fn counted(view: &View<'_>) -> u32 {
    let facts = view.known.facts();
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
    let there = after(view.pods.keys().filter_map(|name| index(name)).max());
    let base = view.written.or_else(|| view.map.map(|map| &map.data));
    let entries = base
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| index(key.strip_suffix(".yaml")?));
    let kept = after(entries.filter(|index| *index < KEPT_ENTRIES).max());
    let with_margin = there.next_multiple_of(MARGIN).saturating_add(MARGIN);
    with_margin.max(kept).min(facts.replicas).min(MOST_PODS)
}

/// The pods that should be, and the entries of pods that are on their way out, as they are.
fn expected<'a>(view: &View<'a>) -> (Vec<Expected<'a>>, BTreeMap<String, String>) {
    let (facts, plan) = (view.known.facts(), &view.known.plan);
    // What somebody else wrote is not what was published: the pods are led back.
    let base = view.written.or_else(|| view.map.map(|map| &map.data));
    let text = |name: &str| base.and_then(|data| data.get(&entry::key(name)));
    let mut others = BTreeMap::new();
    let all: Vec<Expected<'a>> = (0..counted(view))
        .map(|index| {
            let ordinal = facts.ordinals_start.saturating_add(index);
            let name = format!("{}-{ordinal}", facts.name);
            let at = plan.assign(index);
            let desired = Place {
                shard: at.shard,
                replica: at.replica,
                window: plan.window(at.shard, view.now),
            };
            let entry = text(&name)
                .and_then(|text| Entry::parse(text, view.now).ok())
                .filter(|entry| entry.shard < MAX_SHARDS);
            let view = view.pods.get(&name);
            Expected {
                name,
                ordinal,
                surplus: at.surplus,
                desired,
                entry,
                view,
            }
        })
        .collect();
    let known: BTreeSet<&str> = all.iter().map(|pod| pod.name.as_str()).collect();
    for name in view
        .pods
        .keys()
        .filter(|name| !known.contains(name.as_str()))
    {
        if let Some(text) = text(name) {
            others.insert(entry::key(name), text.clone());
        }
    }
    (all, others)
}

/// What to publish for a pod without an entry: what it runs, so that nothing changes behind the rollout's back; what is
/// planned, if it runs nothing yet; nothing while that is not known.
fn running(pod: &Expected<'_>) -> Option<Place> {
    let Some(view) = pod.view.filter(|view| view.facts.injected) else {
        return Some(pod.desired);
    };
    match view.answer {
        Some(Answer::Status(status)) => {
            let window = status.applied.or(status.published);
            let shard = view.facts.shard().or(status.shard);
            let shard = shard.filter(|shard| *shard < MAX_SHARDS);
            Some(window.map_or(pod.desired, |window| {
                let (shard, replica) = (
                    shard.unwrap_or(pod.desired.shard),
                    status.replica.unwrap_or(pod.desired.replica),
                );
                Place {
                    shard,
                    replica,
                    window,
                }
            }))
        }
        // Nothing of it runs.
        Some(Answer::Unreachable(_)) | None if view.facts.stuck.is_some() && !view.facts.ready => {
            Some(pod.desired)
        }
        Some(Answer::Unreachable(_)) | None => None,
    }
}

fn shards(view: &View<'_>, expected: &[Expected<'_>]) -> BTreeSet<u32> {
    let labels = view
        .pods
        .values()
        .filter_map(|pod| pod.facts.shard())
        .filter(|shard| *shard < MAX_SHARDS);
    let entries = expected
        .iter()
        .filter_map(|pod| Some(pod.entry.as_ref()?.shard));
    labels
        .chain(entries)
        .chain(expected.iter().map(|pod| pod.desired.shard))
        .collect()
}

fn render_data(
    expected: &[Expected<'_>],
    others: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let entries = expected
        .iter()
        .filter_map(|pod| Some((entry::key(&pod.name), pod.entry.as_ref()?.to_yaml())));
    others
        .iter()
        .map(|(key, text)| (key.clone(), text.clone()))
        .chain(entries)
        .collect()
}

fn too_large(view: &View<'_>, bytes: usize) -> String {
    let facts = view.known.facts();
    if facts.replicas > MOST_PODS {
        return format!(
            "the windows of {} pods are more than fit into a ConfigMap ({MOST_PODS} in any case): nothing is published; scale it down, or use several StatefulSets",
            facts.replicas
        );
    }
    format!(
        "the windows of {} pods take {bytes} bytes, and a ConfigMap holds {MAX_DATA_BYTES} of them: nothing is published; use several StatefulSets",
        facts.replicas
    )
}
