//! Another division of the time, as a user would ask for it, and its way through the running pods.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::try_join_all;

use super::super::{Failure, print, timeline};
use super::admission::Admission;
use super::machine::Machine;
use super::pod::{Confirmed, Pod, SERVING_LIMIT, states};
use crate::core::agent_status::{AgentStatus, Phase};
use crate::core::duration::PromDuration;
use crate::core::entry::{self, Entry};
use crate::core::fleet::StatefulSetFacts;
use crate::core::names;
use crate::core::plan::{Assignment, Plan};
use crate::core::window::Window;

/// Nobody queries the demo's pods, so they need not wait the injected minute for queriers to let go.
pub(super) const DRAIN: PromDuration = PromDuration::from_secs(2);
/// How much longer data is kept after the change.
const MORE_RETENTION: PromDuration = PromDuration::from_days(30);

/// A change of windows, and how to ask for it.
pub(super) struct Change {
    /// What the StatefulSet is annotated with.
    pub(super) annotations: Vec<(String, String)>,
    /// What is planned then.
    pub(super) plan: Plan,
}

impl Change {
    /// Unequal windows with a longer retention; whichever of several divisions the configuration accepts.
    pub(super) fn of(admission: &Admission) -> Option<Self> {
        let fleet = admission.observed.fleet.load();
        let now = fleet.known(&admission.facts.namespace, &admission.facts.name);
        let shards = now.plan.shards().len();
        let retention = now.sharding.retention() + MORE_RETENTION;
        let production = (shards == 3).then(|| vec![PromDuration::from_days(14), PromDuration::from_days(90)]);
        let divisions = production.into_iter().chain([growing(retention, shards, 3), growing(retention, shards, 2), Vec::new()]);
        divisions.into_iter().find_map(|boundaries| {
            let key = |key: &str| format!("{}{key}", names::PREFIX);
            let mut annotations = vec![(key("retention"), retention.to_string())];
            if !boundaries.is_empty() {
                let ages = boundaries.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                annotations.insert(0, (key("boundaries"), format!("[{ages}]")));
            }
            let facts = annotated(&admission.facts, &annotations);
            let next = fleet.with_statefulset(facts)?;
            let next = next.known(&admission.facts.namespace, &admission.facts.name);
            // Every pod stays in its shard: only windows change.
            let fits = next.problem.is_none() && next.plan.shards().len() == shards;
            fits.then(|| Self { annotations, plan: next.plan.clone() })
        })
    }

    /// The command that asks for it.
    pub(super) fn command(&self, statefulset: &str) -> String {
        let words: String = self.annotations.iter().map(|(key, value)| format!(" '{key}={value}'")).collect();
        format!("kubectl annotate --overwrite statefulset {statefulset}{words}")
    }
}

/// Ages at which windows meet, in whole days, each window longer than the newer one.
fn growing(retention: PromDuration, shards: usize, power: u32) -> Vec<PromDuration> {
    let days = i128::from(retention.as_secs() / 86_400);
    let count = i128::try_from(shards).unwrap_or(1).max(1);
    let age = |i: i128| i64::try_from(days * i.pow(power) / count.pow(power)).ok().map(PromDuration::from_days);
    (1..count).filter_map(age).collect()
}

fn annotated(facts: &StatefulSetFacts, annotations: &[(String, String)]) -> StatefulSetFacts {
    let mut facts = facts.clone();
    // The same thing under its other name would be refused.
    facts.annotations.remove(&format!("{}data-retention-days", names::PREFIX));
    facts.annotations.extend(annotations.iter().cloned());
    facts
}

/// The entries of a ConfigMap on the way from one plan to another.
pub(super) struct Published {
    pods: Vec<(String, Assignment)>,
    windows: BTreeMap<String, Window>,
}

impl Published {
    /// What is published for all pods of a StatefulSet when it is first seen.
    pub(super) fn new(facts: &StatefulSetFacts, plan: &Plan, now: DateTime<Utc>) -> Self {
        let name = |index: u32| format!("{}-{}", facts.name, facts.ordinals_start.saturating_add(index));
        let pods: Vec<_> = (0..facts.replicas).map(|index| (name(index), plan.assign(index))).collect();
        let windows = pods.iter().map(|(pod, place)| (pod.clone(), plan.window(place.shard, now))).collect();
        Self { pods, windows }
    }

    pub(super) fn window(&self, pod: &str) -> Option<Window> {
        self.windows.get(pod).copied()
    }

    pub(super) fn place(&self, pod: &str) -> Option<Assignment> {
        self.pods.iter().find(|(name, _)| name == pod).map(|(_, place)| *place)
    }

    /// Moves one replica of each shard to another plan.
    pub(super) fn advance(&mut self, replica: u32, plan: &Plan, now: DateTime<Utc>) {
        for (pod, place) in self.pods.iter().filter(|(_, place)| place.replica == replica) {
            self.windows.insert(pod.clone(), plan.window(place.shard, now));
        }
    }

    /// The ConfigMap's data.
    pub(super) fn data(&self) -> BTreeMap<String, String> {
        let entry = |(pod, place): &(String, Assignment)| {
            let window = self.window(pod)?;
            let entry = Entry { shard: place.shard, replica: place.replica, window, drain: Some(DRAIN) };
            Some((entry::key(pod), entry.to_yaml()))
        };
        self.pods.iter().filter_map(entry).collect()
    }
}

/// What one pod went through.
pub(super) struct Moved {
    pub(super) pod: String,
    pub(super) before: Confirmed,
    pub(super) after: Confirmed,
}

/// Waits until every pod serves what is published for it.
pub(super) async fn first_start(machine: &mut Machine, published: &Published) -> Result<Vec<Confirmed>, Failure> {
    let all = machine.pods.iter_mut().filter_map(|pod| Some((published.window(&pod.name)?, pod)));
    try_join_all(all.map(|(window, pod)| {
        pod.confirm(window, SERVING_LIMIT, move |took, name, status| match status.phase {
            Phase::Serving => line(took, name, &format!("serving {window}")),
            _ => Ok(()),
        })
    }))
    .await
}

/// Takes every pod to the new plan, one replica of each shard at a time, the next ones when these are confirmed.
pub(super) async fn roll(
    machine: &mut Machine,
    published: &mut Published,
    change: &Change,
    before: &[Confirmed],
    now: DateTime<Utc>,
) -> Result<Vec<Moved>, Failure> {
    let replica = |pod: &Pod| published.place(&pod.name).map_or(0, |place| place.replica);
    let replicas: Vec<u32> = machine.pods.iter().map(replica).collect();
    let steps = replicas.iter().max().map_or(0, |most| most + 1);
    let mut moved = Vec::new();
    for step in 0..steps {
        let meanwhile = if steps > 1 { "the others go on serving" } else { "with one replica a shard is missing meanwhile" };
        print(&format!("   Step {} of {steps}: replica {step} of each shard; {meanwhile}.\n", step + 1))?;
        published.advance(step, &change.plan, now);
        machine.publish(&published.data())?;
        let these = machine.pods.iter_mut().zip(before).zip(&replicas).filter(|(_, replica)| **replica == step);
        let these = these.map(|((pod, before), _)| follow(pod, published.window(&pod.name), before));
        moved.extend(try_join_all(these).await?);
    }
    let rank = |moved: &Moved| machine.pods.iter().position(|pod| pod.name == moved.pod);
    moved.sort_by_key(rank);
    Ok(moved)
}

async fn follow(pod: &mut Pod, window: Option<Window>, before: &Confirmed) -> Result<Moved, Failure> {
    let window = window.unwrap_or(before.window);
    let was = before.window;
    let limit = SERVING_LIMIT + DRAIN.to_std();
    let after = pod.confirm(window, limit, |took, name, status| told(took, name, status, was)).await?;
    Ok(Moved { pod: pod.name.clone(), before: before.clone(), after })
}

fn told(took: Duration, pod: &str, status: &AgentStatus, was: Window) -> Result<(), Failure> {
    let published = status.published.unwrap_or(was);
    match status.phase {
        // Not there yet: this is what it did before.
        Phase::Serving if published == was => Ok(()),
        Phase::Serving => line(took, pod, &format!("serving {published}")),
        Phase::Draining => line(took, pod, &format!("draining: not ready any more, {was} -> {published}")),
        Phase::Restarting => line(took, pod, "restarting in place, with the new flags"),
        Phase::Starting | Phase::Failed => line(took, pod, status.phase.as_str()),
    }
}

fn line(took: Duration, pod: &str, what: &str) -> Result<(), Failure> {
    print(&format!("   +{:5.2} s  {pod}  {what}\n", took.as_secs_f64()))
}

/// What the change did to each pod; `who` plays thanos.
pub(super) fn table(moved: &[Moved], who: &str) -> String {
    let header = ["   POD", "WINDOW BEFORE", "WINDOW NOW", "TOOK", "NOW STATES", "LAUNCHER PID", "PID"];
    let who = who.trim_start_matches("the ").to_uppercase();
    let header = header.map(|title| match title {
        "NOW STATES" | "PID" => format!("{who} {title}"),
        title => title.to_owned(),
    });
    let mut table = timeline::plain_table(&header.each_ref().map(String::as_str));
    let mut weeks = "";
    let id = |id: Option<u32>| id.map_or_else(|| "?".to_owned(), |id| id.to_string());
    for Moved { pod, before, after } in moved {
        if after.flags.as_ref().is_some_and(|(min, max)| min.ends_with('w') || max.ends_with('w')) {
            weeks = "   Thanos writes whole weeks as such: -2w is -14d.\n";
        }
        let flags = match &after.flags {
            Some(flags) if states(flags, after.window) => format!("{} .. {}", flags.0, flags.1),
            Some(flags) => format!("{} .. {} (DIFFERENT)", flags.0, flags.1),
            None => "not readable".to_owned(),
        };
        let launcher = if before.launcher == after.launcher {
            format!("{} (same)", id(after.launcher))
        } else {
            format!("{} -> {}", id(before.launcher), id(after.launcher))
        };
        table.add_row([
            format!("   {pod}"),
            before.window.to_string(),
            after.window.to_string(),
            format!("{:.1} s", after.took.as_secs_f64()),
            flags,
            launcher,
            format!("{} -> {}", id(before.thanos), id(after.thanos)),
        ]);
    }
    format!("{table}\n{weeks}")
}
