//! Everything known about one StatefulSet, copied so that no lock is held while it is used.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::context::LeaderContext;
use crate::core::gateways::{Gateway, Gateways, Published};
use crate::core::kube::observed::{NamespaceFacts, PodAnswer, PodFacts};
use crate::core::rollout::shard_objects::{Owner, ShardedSet};

pub(super) struct Gathered {
    /// By UID, with when they were given.
    pub(super) answers: HashMap<String, (PodAnswer, Instant)>,
    /// Name of the ConfigMap, whether it exists or not.
    pub(super) configmap: String,
    pub(super) map: Option<Arc<Published>>,
    /// The StatefulSet's own pods; PDBs, Services and queriers of its whole namespace.
    pub(super) facts: NamespaceFacts,
}

impl Gathered {
    pub(super) fn of(context: &LeaderContext, fleet: &Gateways, known: &Gateway) -> Self {
        let facts = known.facts();
        let operator = &fleet.config().operator;
        let configmap = operator.configmap_of(&facts.namespace, &facts.name);
        // Anyone who may create pods can forge an owner's name, so also match the owner's UID and
        // the ordinal.
        let is_own = |pod: &PodFacts| {
            pod.owner_uid == facts.uid
                && pod
                    .name
                    .strip_prefix(facts.name.as_str())
                    .and_then(|rest| rest.strip_prefix('-')?.parse::<u32>().ok())
                    .is_some()
        };
        context.cache.with(&facts.namespace, |all| {
            let pods: BTreeMap<_, _> = all
                .pods
                .iter()
                .filter(|(_, pod)| is_own(pod))
                .map(|(name, pod)| (name.clone(), pod.clone()))
                .collect();
            let answer = |pod: &PodFacts| {
                let polled = context.poller.polled(&pod.uid)?;
                Some((pod.uid.clone(), (polled.answer, polled.at)))
            };
            Self {
                answers: pods.values().filter_map(answer).collect(),
                map: context
                    .observed
                    .fleet
                    .load()
                    .configmap(&facts.namespace, &configmap)
                    .cloned(),
                configmap,
                // Core decides which of the namespace's PDBs and Services are the StatefulSet's.
                facts: NamespaceFacts {
                    pods,
                    budgets: all.budgets.clone(),
                    services: all.services.clone(),
                    queriers: all.queriers.clone(),
                    unread_pods: all.unread_pods.clone(),
                },
            }
        })
    }

    /// Whether the user has taken every pod out of timeshard's control.
    pub(super) fn is_released(&self) -> bool {
        let pods = &self.facts.pods;
        !pods.is_empty()
            && pods
                .values()
                .all(|pod| !pod.injected && (pod.opted_out || pod.by_hand || !pod.store))
    }

    /// Whether some pod's sidecar has not been asked yet; its first answer triggers a reconcile.
    pub(super) fn unasked(&self) -> bool {
        self.facts
            .pods
            .values()
            .filter(|pod| pod.can_be_asked())
            .any(|pod| !self.answers.contains_key(&pod.uid))
    }
}

/// A StatefulSet as the owner of the objects that timeshard makes for it.
pub(super) fn owner(known: &Gateway) -> Owner {
    Owner {
        name: known.facts().name.clone(),
        uid: known.facts().uid.clone(),
    }
}

/// A StatefulSet with its published shards, by pod.
pub(super) fn sharded(known: &Gateway, published: BTreeMap<String, u32>) -> ShardedSet {
    ShardedSet {
        owner: owner(known),
        selector: known.facts().selector.clone(),
        published,
        grpc_port: known.facts().grpc_port,
    }
}
