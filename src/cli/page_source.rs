//! What the page and `/status` say of a StatefulSet, from what this replica knows and what the leader among them found.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::core::duration::PromDuration;
use crate::core::fleet::{Fleet, Known};
use crate::core::report::SetReport;
use crate::page::feed::{Set, Shard};
use crate::refresher::seen::SetName;

/// Every store gateway that is known: its plan, and what the leader last said.
pub(super) fn sets(fleet: &Fleet, reports: &BTreeMap<SetName, Arc<SetReport>>, now: DateTime<Utc>) -> Vec<Set> {
    let one = |known: &Known| {
        let facts = known.facts();
        let reported = reports.get(&(facts.namespace.clone(), facts.name.clone()));
        let shard = |(i, shard): (u32, &crate::core::plan::Shard)| Shard { replicas: shard.replicas, window: known.plan.window(i, now) };
        Set {
            shards: (0..).zip(known.plan.shards()).map(shard).collect(),
            problem: known.problem.clone(),
            report: reported.cloned().unwrap_or_else(|| Arc::new(without_a_look(fleet, known))),
        }
    };
    fleet.statefulsets().filter(|known| known.facts().store).map(one).collect()
}

/// What is known of one that no leader has looked at.
pub(super) fn without_a_look(fleet: &Fleet, known: &Known) -> SetReport {
    let facts = known.facts();
    SetReport {
        namespace: facts.namespace.clone(),
        name: facts.name.clone(),
        configmap: fleet.config().operator.configmap_of(&facts.namespace, &facts.name),
        replicas: facts.replicas,
        retention_seconds: known.sharding.retention().limit().map(PromDuration::as_secs),
        warnings: known.remarks().into_iter().map(|(_, sentence)| sentence).collect(),
        ..SetReport::default()
    }
}
