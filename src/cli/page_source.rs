//! What the page and `/status` say of a StatefulSet, from what this replica knows and what the leader among them found.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::core::duration::PromDuration;
use crate::core::fleet::{Fleet, Known};
use crate::core::report::SetReport;
use crate::core::window::Bound;
use crate::page::feed::{Set, Shard};
use crate::refresher::reports::Reports;
use crate::refresher::seen::SetName;

/// Shards of a plan that are told of one StatefulSet; further ones are counted.
const MAX_SHARDS: usize = 256;

/// Every store gateway that is known: its plan, and what the leader last said.
pub(super) fn sets(
    fleet: &Fleet,
    reports: &BTreeMap<SetName, Arc<SetReport>>,
    now: DateTime<Utc>,
) -> Vec<Set> {
    let one = |known: &Known| {
        let facts = known.facts();
        let reported = reports.get(&(facts.namespace.clone(), facts.name.clone()));
        let shard = |(i, shard): (u32, &crate::core::plan::Shard)| Shard {
            replicas: shard.replicas,
            window: known.plan.window(i, now),
        };
        Set {
            shards: (0..)
                .zip(known.plan.shards())
                .take(MAX_SHARDS)
                .map(shard)
                .collect(),
            problem: known.problem.clone(),
            report: reported
                .cloned()
                .unwrap_or_else(|| Arc::new(without_a_look(fleet, known))),
        }
    };
    fleet
        .statefulsets()
        .filter(|known| known.facts().store)
        .map(one)
        .collect()
}

/// The document of `/status`: the server's own part, and each StatefulSet, written one after the other.
#[derive(Serialize)]
pub(super) struct Status<'a> {
    /// The server itself; an object.
    #[serde(flatten)]
    pub(super) head: Map<String, Value>,
    pub(super) statefulsets: Sets<'a>,
}

/// Every store gateway that is known.
pub(super) struct Sets<'a> {
    pub(super) fleet: &'a Fleet,
    /// What the leader found, if this replica may lead.
    pub(super) reports: Option<&'a Reports>,
    pub(super) now: DateTime<Utc>,
}

#[derive(Serialize)]
struct SetStatus<'a> {
    #[serde(flatten)]
    report: SetReport,
    shards: Shards<'a>,
    /// How many there are, where only the first are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    shards_total: Option<usize>,
    problem: &'a Option<String>,
}

/// The plan's shards, with their windows now.
struct Shards<'a>(&'a Known, DateTime<Utc>);

#[derive(Serialize)]
struct ShardStatus {
    shard: u32,
    replicas: u32,
    min_time: Bound,
    max_time: Bound,
}

impl Serialize for Shards<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(known, now) = self;
        let one = |(shard, planned): (u32, &crate::core::plan::Shard)| {
            let window = known.plan.window(shard, *now);
            ShardStatus {
                shard,
                replicas: planned.replicas,
                min_time: window.min,
                max_time: window.max,
            }
        };
        serializer.collect_seq((0..).zip(known.plan.shards()).take(MAX_SHARDS).map(one))
    }
}

impl<'a> Serialize for Sets<'a> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let one = |known: &'_ Known| {
            let facts = known.facts();
            let reported = self
                .reports
                .and_then(|reports| reports.aged(&(facts.namespace.clone(), facts.name.clone())));
            reported.unwrap_or_else(|| without_a_look(self.fleet, known))
        };
        let set = |known: &'a Known| {
            let all = known.plan.shards().len();
            let shards_total = Some(all).filter(|all| *all > MAX_SHARDS);
            SetStatus {
                report: one(known),
                shards: Shards(known, self.now),
                shards_total,
                problem: &known.problem,
            }
        };
        serializer.collect_seq(
            self.fleet
                .statefulsets()
                .filter(|known| known.facts().store)
                .map(set),
        )
    }
}

/// What is known of one that no leader has looked at.
pub(super) fn without_a_look(fleet: &Fleet, known: &Known) -> SetReport {
    let facts = known.facts();
    SetReport {
        namespace: facts.namespace.clone(),
        name: facts.name.clone(),
        configmap: fleet
            .config()
            .operator
            .configmap_of(&facts.namespace, &facts.name),
        replicas: facts.replicas,
        retention_seconds: known
            .sharding
            .retention()
            .limit()
            .map(PromDuration::as_secs),
        warnings: known
            .remarks()
            .into_iter()
            .map(|(_, sentence)| sentence)
            .collect(),
        ..SetReport::default()
    }
}
