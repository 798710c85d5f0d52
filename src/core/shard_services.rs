//! Which Services a StatefulSet should have now: with `shard_services`, a headless one for each shard, through which a
//! querier asks the replicas of that shard as a group.
//!
//! Invariants: a Service goes only when no pod carries its shard's label any more, because a querier may still find pods
//! through it; what does not carry our label is never written; what is right is not written again.

use std::collections::{BTreeMap, BTreeSet};

use super::names;
use super::observed::{NamespaceFacts, ServiceFacts};
use super::owned::{LABEL_CHARS, Owner, ShardedSet, shard_name};

/// Name of the Service's port, so that the querier's `dnssrv+_grpc._tcp.<service>` finds it.
pub const PORT_NAME: &str = "grpc";

/// A headless Service as it should be; pods that are not ready are not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardService {
    /// Its name.
    pub name: String,
    /// The StatefulSet that it belongs to.
    pub owner: Owner,
    /// Labels of the pods that it selects.
    pub selector: BTreeMap<String, String>,
    /// The port that their thanos answers gRPC on.
    pub port: u16,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceWrite {
    /// There is none of that name.
    Create(ShardService),
    /// There is one of ours that says something else.
    Replace {
        /// What was seen; the write fails when somebody else wrote in between.
        resource_version: String,
        /// What it should be.
        service: ShardService,
    },
    /// There is one of ours too many.
    Delete {
        /// Its name.
        name: String,
        /// What was seen; the write fails when somebody else wrote in between.
        resource_version: String,
    },
}

/// What to do about a StatefulSet's Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// By shard, deletions last. Empty when all is right.
    pub writes: Vec<ServiceWrite>,
    /// Sentences that name what stands in the way of a Service of ours.
    pub conflicts: Vec<String>,
}

/// What is wanted now; nothing unless `enabled`. `planned` are the shards of the plan: they have a Service before a pod
/// carries their label.
#[must_use]
pub fn wanted(
    set: &ShardedSet,
    enabled: bool,
    planned: &BTreeSet<u32>,
    facts: &NamespaceFacts,
) -> ServicePlan {
    let mut plan = ServicePlan::default();
    let mut kept = BTreeSet::new();
    let expressible = set.selector.expressions.is_empty();
    if enabled && !expressible {
        plan.conflicts.push(format!(
            "StatefulSet {} has a selector with matchExpressions, which no Service can have: there are no shard Services; recreate it with matchLabels only",
            set.owner.name
        ));
    }
    let mut shards: BTreeSet<u32> = planned.clone();
    shards.extend(set.shards(facts).into_keys());
    for shard in shards.into_iter().filter(|_| enabled && expressible) {
        let name = shard_name(&set.owner.name, shard, LABEL_CHARS);
        let port = set.grpc_port.unwrap_or(names::THANOS_GRPC_PORT);
        let service = ShardService {
            name,
            owner: set.owner.clone(),
            selector: set.selector_of(shard).labels,
            port,
        };
        kept.insert(service.name.clone());
        match facts.services.get(&service.name) {
            None => plan.writes.push(ServiceWrite::Create(service)),
            Some(there) if !there.ours => plan.conflicts.push(format!(
                "shard {shard} has no Service: Service {} is not ours and stays untouched; rename or delete it",
                service.name
            )),
            Some(there) if service.is(there) => {}
            Some(there) => {
                let resource_version = there.resource_version.clone();
                // Kubernetes refuses to make a Service headless; it is made anew when it is seen to be gone.
                plan.writes.push(if there.headless {
                    ServiceWrite::Replace { resource_version, service }
                } else {
                    ServiceWrite::Delete { name: service.name, resource_version }
                });
            }
        }
    }
    let own = facts
        .services
        .values()
        .filter(|service| service.ours && !kept.contains(&service.name));
    let own =
        own.filter(|service| set.owns(service.owner_uid.as_deref(), &service.name, LABEL_CHARS));
    plan.writes.extend(own.map(|service| ServiceWrite::Delete {
        name: service.name.clone(),
        resource_version: service.resource_version.clone(),
    }));
    plan
}

/// Services, whosesoever, that keep a pod of the set while it is not ready: a drain then tells the querier nothing.
#[must_use]
pub fn warnings(set: &ShardedSet, facts: &NamespaceFacts) -> Vec<String> {
    let selects = |service: &&ServiceFacts| {
        let has = |pod: &BTreeMap<String, String>| {
            service
                .selector
                .iter()
                .all(|(key, value)| pod.get(key) == Some(value))
        };
        !service.selector.is_empty() && set.pods(facts).any(|pod| has(&pod.labels))
    };
    let found = facts
        .services
        .values()
        .filter(|service| service.publishes_not_ready)
        .filter(selects);
    found
        .map(|service| {
            format!(
                "Service {} has publishNotReadyAddresses: true and selects pods of StatefulSet {}: queriers that find stores through it keep asking a pod that drains, and queries fail; set it to false, or give the queriers another Service",
                service.name, set.owner.name
            )
        })
        .collect()
}

impl ShardService {
    fn is(&self, there: &ServiceFacts) -> bool {
        there.owner_uid.as_deref() == Some(self.owner.uid.as_str())
            && there.selector == self.selector
            && there.headless
            && !there.publishes_not_ready
            && there.ports == [(PORT_NAME.to_owned(), i32::from(self.port))]
    }
}

#[cfg(test)]
mod tests;
