//! The page's and `/status`' view of a StatefulSet: this replica's plan with the leader's report.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::controller::cache::SetName;
use crate::controller::reports::Reports;
use crate::core::gateways::{Gateway, Gateways};
use crate::core::model::duration::PromDuration;
use crate::core::model::window::Bound;
use crate::core::plan::Shard;
use crate::core::rollout::report::SetReport;
use crate::page::feed::{PageSet, PageShard};

/// How many shards of a plan are listed; the rest are counted.
const MAX_SHARDS: usize = 256;

/// Returns every known store gateway with its plan and the leader's latest report.
pub(super) fn sets(
    fleet: &Gateways,
    reports: &BTreeMap<SetName, Arc<SetReport>>,
    now: DateTime<Utc>,
) -> Vec<PageSet> {
    let one = |known: &Gateway| {
        let facts = known.facts();
        let reported = reports.get(&(facts.namespace.clone(), facts.name.clone()));
        let shard = |(i, shard): (u32, &Shard)| PageShard {
            replicas: shard.replicas,
            window: known.plan.window(i, now),
        };
        PageSet {
            shards: (0..)
                .zip(planned(known))
                .take(MAX_SHARDS)
                .map(shard)
                .collect(),
            problem: known.problem.clone(),
            report: reported
                .cloned()
                .unwrap_or_else(|| Arc::new(unreconciled(fleet, known))),
        }
    };
    fleet
        .statefulsets()
        .filter(|known| known.facts().store)
        .map(one)
        .collect()
}

/// The document of `/status`, serialised one StatefulSet at a time.
#[derive(Serialize)]
pub(super) struct PageStatus<'a> {
    #[serde(flatten)]
    pub(super) head: Map<String, Value>,
    pub(super) statefulsets: Sets<'a>,
}

pub(super) struct Sets<'a> {
    pub(super) fleet: &'a Gateways,
    /// `None` if this replica cannot lead.
    pub(super) reports: Option<&'a Reports>,
    pub(super) now: DateTime<Utc>,
}

#[derive(Serialize)]
struct SetStatus<'a> {
    #[serde(flatten)]
    report: SetReport,
    shards: Shards<'a>,
    /// Only if [`MAX_SHARDS`] truncates the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    shards_total: Option<usize>,
    problem: &'a Option<String>,
}

/// The plan's shards with their current windows.
struct Shards<'a>(&'a Gateway, DateTime<Utc>);

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
        let one = |(shard, planned): (u32, &Shard)| {
            let window = known.plan.window(shard, *now);
            ShardStatus {
                shard,
                replicas: planned.replicas,
                min_time: window.min,
                max_time: window.max,
            }
        };
        serializer.collect_seq((0..).zip(planned(known)).take(MAX_SHARDS).map(one))
    }
}

impl<'a> Serialize for Sets<'a> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let one = |known: &'_ Gateway| {
            let facts = known.facts();
            let reported = self
                .reports
                .and_then(|reports| reports.aged(&(facts.namespace.clone(), facts.name.clone())));
            reported.unwrap_or_else(|| unreconciled(self.fleet, known))
        };
        let set = |known: &'a Gateway| {
            let all = planned(known).len();
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

/// The shards of the plan; none for a StatefulSet that is opted out.
fn planned(known: &Gateway) -> &[Shard] {
    if known.opted_out() {
        &[]
    } else {
        known.plan.shards()
    }
}

/// A report before the leader's first reconciliation.
pub(super) fn unreconciled(fleet: &Gateways, known: &Gateway) -> SetReport {
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
        opted_out: known.opted_out(),
        warnings: known
            .remarks()
            .into_iter()
            .map(|(_, sentence)| sentence)
            .collect(),
        ..SetReport::default()
    }
}
