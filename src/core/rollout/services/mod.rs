//! Decides which Services a StatefulSet should have: with `shard_services`, a headless Service for
//! each shard, through which a querier treats the replicas of that shard as a group.
//!
//! Invariants: a Service is deleted only when no pod carries its shard's label any more, because a
//! querier may still find pods through it; objects without timeshard's label are never written;
//! objects that are up to date are not written.

use std::collections::{BTreeMap, BTreeSet};

use super::shard_objects::{LABEL_CHARS, ObjectWrite, Owner, ShardObject, ShardedSet, shard_name};
use crate::core::kube::observed::{NamespaceFacts, ServiceFacts};
use crate::core::model::names;
use crate::core::model::text::listed;

/// Name of the Service's port: the querier looks up `dnssrv+_grpc._tcp.<service>`.
pub const PORT_NAME: &str = "grpc";

/// Services that one sentence lists.
const MAX_NAMED: usize = 5;

/// A headless Service as it should be; it does not publish pods that are not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardService {
    pub name: String,
    pub owner: Owner,
    pub selector: BTreeMap<String, String>,
    /// gRPC port of thanos.
    pub port: u16,
}

pub type ServiceWrite = ObjectWrite<ShardService>;

/// What to do about a StatefulSet's Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// By shard, deletions last.
    pub writes: Vec<ServiceWrite>,
    /// Sentences about objects that prevent a Service.
    pub conflicts: Vec<String>,
}

/// Decides on the Services; none are wanted unless `enabled`. Shards that are `planned` have a
/// Service before any pod carries their label.
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
            "StatefulSet {} has a selector with matchExpressions, which a Service cannot have, so there are no shard Services; recreate it with matchLabels only",
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
                "shard {shard} has no Service: Service {} is not managed by timeshard and stays untouched; rename or delete it",
                service.name
            )),
            Some(there) if service.is(there) => {}
            Some(there) => {
                let resource_version = there.resource_version.clone();
                // Kubernetes refuses to make an existing Service headless. It is created again
                // after its deletion was observed.
                plan.writes.push(if there.headless {
                    ServiceWrite::Replace { resource_version, object: service }
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

/// Returns the deletions of a StatefulSet's Services once it is opted out, and how many stay because
/// a pod still carries their shard's label.
#[must_use]
pub fn leftover(set: &ShardedSet, facts: &NamespaceFacts) -> (Vec<ServiceWrite>, usize) {
    let labelled: BTreeSet<&str> = set
        .pods(facts)
        .filter_map(|pod| pod.shard_label.as_deref())
        .collect();
    let own = facts.services.values().filter(|service| {
        service.ours && set.owns(service.owner_uid.as_deref(), &service.name, LABEL_CHARS)
    });
    let (kept, gone): (Vec<&ServiceFacts>, Vec<&ServiceFacts>) = own.partition(|service| {
        let shard = service.selector.get(names::SHARD_LABEL);
        shard.is_some_and(|shard| labelled.contains(shard.as_str()))
    });
    let delete = |service: &ServiceFacts| ServiceWrite::Delete {
        name: service.name.clone(),
        resource_version: service.resource_version.clone(),
    };
    (gone.into_iter().map(delete).collect(), kept.len())
}

/// Warns of Services, no matter who manages them, that keep publishing a pod while it is not ready: the
/// querier then does not notice a drain.
#[must_use]
pub fn warnings(set: &ShardedSet, facts: &NamespaceFacts) -> Vec<String> {
    let found = selecting(set, facts).filter(|service| service.publishes_not_ready);
    found
        .map(|service| {
            format!(
                "Service {} has publishNotReadyAddresses: true and selects pods of StatefulSet {}: queriers that discover stores through it keep querying draining pods, and queries fail; set it to false, or point the queriers at another Service",
                service.name, set.owner.name
            )
        })
        .collect()
}

/// Warns if no headless Service selects the pods: queriers then have no DNS name that lists them.
#[must_use]
pub fn without_headless(set: &ShardedSet, facts: &NamespaceFacts) -> Option<String> {
    if set.pods(facts).next().is_none() || selecting(set, facts).any(|service| service.headless) {
        return None;
    }
    let others: Vec<&str> = selecting(set, facts)
        .map(|service| service.name.as_str())
        .collect();
    let only = if others.is_empty() {
        "no Service does".to_owned()
    } else {
        format!("only {}", listed(&others, MAX_NAMED))
    };
    Some(format!(
        "no headless Service selects the pods of StatefulSet {} ({only}): a querier with dnssrv+ or dns+ sees one address for all of them, so it misses shards and does not notice a drain; create a Service with clusterIP: None and a port named {PORT_NAME}",
        set.owner.name
    ))
}

/// Services, no matter who manages them, that select a pod of the StatefulSet.
fn selecting<'a>(
    set: &'a ShardedSet,
    facts: &'a NamespaceFacts,
) -> impl Iterator<Item = &'a ServiceFacts> {
    facts.services.values().filter(move |service| {
        let has = |pod: &BTreeMap<String, String>| {
            service
                .selector
                .iter()
                .all(|(key, value)| pod.get(key) == Some(value))
        };
        !service.selector.is_empty() && set.pods(facts).any(|pod| has(&pod.labels))
    })
}

impl ShardObject for ShardService {
    fn name(&self) -> &str {
        &self.name
    }
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
