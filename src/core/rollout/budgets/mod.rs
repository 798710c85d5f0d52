//! Decides which `PodDisruptionBudget`s (PDBs) a StatefulSet should have: one for each shard,
//! closed while a step affects that shard.
//!
//! Invariants: no pod is selected by a PDB of timeshard and by another one (Kubernetes would evict
//! it under neither); objects without timeshard's label are never written; objects that are up to
//! date are not written; a shard without pods gets no PDB.
//!
//! An open PDB has `minAvailable` of all pods of the shard but one, not `maxUnavailable: 1`.
//! Kubernetes compares `maxUnavailable` with `spec.replicas` of the *whole* StatefulSet
//! (`getExpectedScale` of its disruption controller): with 3 shards of 2 pods it requires 5 healthy
//! pods among the 2 that the PDB selects, and no node could be drained. An integer `minAvailable`
//! is compared with the selected pods. A closed PDB has `maxUnavailable: 0`, which is unambiguous.
//!
//! Pods that are not ready: under an open PDB they may always be evicted, so that a crashing pod
//! does not block the drain of a node (by default it does once no other pod of its shard is
//! healthy). Under a closed PDB they may not, since a pod that drains or restarts in a step is not
//! ready either. Clusters before 1.27 silently drop `unhealthyPodEvictionPolicy`, so it is not
//! compared: it changes only together with the number, which is compared.

use std::collections::BTreeSet;

use super::shard_objects::{
    ObjectWrite, Owner, SUBDOMAIN_CHARS, ShardObject, ShardedSet, shard_name,
};
use crate::core::kube::observed::{BudgetFacts, NamespaceFacts, PodFacts, Selector};

/// How many pods of a shard may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// All but this many (`minAvailable`); pods that are not ready may always be evicted.
    KeepAvailable(i32),
    /// None (`maxUnavailable: 0`), not even pods that are not ready.
    Closed,
}

/// A PDB as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub name: String,
    pub owner: Owner,
    pub selector: Selector,
    pub limit: Limit,
}

pub type BudgetWrite = ObjectWrite<Budget>;

/// What to do about a StatefulSet's PDBs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetPlan {
    /// Deletions first, so that no pod is selected by two PDBs in between; then by shard.
    pub writes: Vec<BudgetWrite>,
    /// Sentences about objects that prevent a PDB.
    pub conflicts: Vec<String>,
    /// Whether a step may start: the PDB of every shard to be closed is closed and Kubernetes has
    /// observed it, or no such PDB is possible.
    pub ready: bool,
}

/// Decides on the PDBs. `closed` are the shards that a running or imminent step affects.
#[must_use]
pub fn wanted(set: &ShardedSet, closed: &BTreeSet<u32>, facts: &NamespaceFacts) -> BudgetPlan {
    let mut shards = set.shards(facts);
    shards.extend(
        closed
            .iter()
            .filter(|shard| !shards.contains_key(*shard))
            .map(|shard| (*shard, 0))
            .collect::<Vec<_>>(),
    );
    let labelled: BTreeSet<u32> = set.pods(facts).filter_map(PodFacts::shard).collect();
    let mut plan = BudgetPlan {
        ready: true,
        ..BudgetPlan::default()
    };
    let mut kept = BTreeSet::new();
    for (shard, pods) in shards {
        let name = shard_name(&set.owner.name, shard, SUBDOMAIN_CHARS);
        let limit = if closed.contains(&shard) {
            Limit::Closed
        } else {
            Limit::KeepAvailable(all_but_one(pods))
        };
        let budget = Budget {
            name,
            owner: set.owner.clone(),
            selector: set.selector_of(shard),
            limit,
        };
        let others = others(set, shard, facts);
        if !others.is_empty() {
            plan.conflicts.push(format!(
                "shard {shard} has no PDB from timeshard, because {} already selects its pods, and Kubernetes evicts no pod that two PDBs select. Its pods may be evicted during a rollout: delete that PDB, and timeshard creates its own",
                others.join(", ")
            ));
            continue;
        }
        match facts.budgets.get(&budget.name) {
            Some(there) if !there.ours => plan.conflicts.push(format!(
                "shard {shard} has no PDB: PodDisruptionBudget {} is not managed by timeshard and stays untouched; rename or delete it",
                budget.name
            )),
            Some(there) => {
                kept.insert(budget.name.clone());
                let right = budget.is(there);
                plan.ready &= limit != Limit::Closed || (right && there.observed);
                if !right {
                    plan.writes.push(BudgetWrite::Replace { resource_version: there.resource_version.clone(), object: budget });
                }
            }
            // No pod can be evicted. The PDB is created with the first pod, so that the number of
            // writes follows the number of pods.
            None if !labelled.contains(&shard) => {}
            None => {
                plan.ready &= limit != Limit::Closed;
                plan.writes.push(BudgetWrite::Create(budget));
            }
        }
    }
    plan.writes.splice(0..0, deletions(set, &kept, facts));
    plan
}

/// Returns the deletions of all PDBs of a StatefulSet that is opted out. Left behind, one would
/// eventually block the drain of a node.
#[must_use]
pub fn leftover(set: &ShardedSet, facts: &NamespaceFacts) -> Vec<BudgetWrite> {
    deletions(set, &BTreeSet::new(), facts)
}

/// Deletions of the StatefulSet's PDBs that are not `kept`.
fn deletions(
    set: &ShardedSet,
    kept: &BTreeSet<String>,
    facts: &NamespaceFacts,
) -> Vec<BudgetWrite> {
    let own = facts
        .budgets
        .values()
        .filter(|budget| budget.ours && !kept.contains(&budget.name));
    let own =
        own.filter(|budget| set.owns(budget.owner_uid.as_deref(), &budget.name, SUBDOMAIN_CHARS));
    own.map(|budget| BudgetWrite::Delete {
        name: budget.name.clone(),
        resource_version: budget.resource_version.clone(),
    })
    .collect()
}

/// Returns the writes that open closed PDBs, for a StatefulSet that has no leader any more.
#[must_use]
pub fn opening(set: &ShardedSet, facts: &NamespaceFacts) -> Vec<BudgetWrite> {
    let is_closed = |write: &BudgetWrite| {
        let there = facts.budgets.get(write.name());
        there.is_some_and(|there| there.max_unavailable == Some(0))
    };
    wanted(set, &BTreeSet::new(), facts)
        .writes
        .into_iter()
        .filter(is_closed)
        .collect()
}

/// Returns, by namespace, deletions of timeshard's PDBs in namespaces that are no longer labelled.
/// There no leader opens them after a step or lowers them when pods go, so each would eventually
/// block the drain of a node. `all` is by namespace, too. Anyone can put timeshard's label on a
/// PDB, so only those are deleted that timeshard would have created: owned by a StatefulSet, and
/// named after it.
#[must_use]
pub fn left_behind(
    all: &[(String, BudgetFacts)],
    labelled: &BTreeSet<String>,
) -> Vec<(String, BudgetWrite)> {
    let delete = |budget: &BudgetFacts| BudgetWrite::Delete {
        name: budget.name.clone(),
        resource_version: budget.resource_version.clone(),
    };
    let is_made = |budget: &BudgetFacts| {
        let shard = budget
            .name
            .rsplit_once("-shard-")
            .and_then(|(_, shard)| shard.parse().ok());
        budget
            .owner_name
            .as_ref()
            .zip(shard)
            .is_some_and(|(owner, shard)| shard_name(owner, shard, SUBDOMAIN_CHARS) == budget.name)
    };
    let ours = all.iter().filter(|(namespace, budget)| {
        budget.ours && !labelled.contains(namespace) && is_made(budget)
    });
    ours.map(|(namespace, budget)| (namespace.clone(), delete(budget)))
        .collect()
}

impl ShardObject for Budget {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Budget {
    fn is(&self, there: &BudgetFacts) -> bool {
        let limit = match self.limit {
            Limit::KeepAvailable(pods) => (Some(pods), None),
            Limit::Closed => (None, Some(0)),
        };
        there.owner_uid.as_deref() == Some(self.owner.uid.as_str())
            && there.selector.as_ref() == Some(&self.selector)
            && (there.min_available, there.max_unavailable) == limit
    }
}

/// Other PDBs that select a pod of the shard, or, if it has none, a pod with the labels that each of
/// its pods will have.
fn others(set: &ShardedSet, shard: u32, facts: &NamespaceFacts) -> Vec<String> {
    let number = shard.to_string();
    let mut pods: Vec<_> = set
        .pods(facts)
        .filter(|pod| pod.shard_label.as_deref() == Some(number.as_str()))
        .map(|pod| &pod.labels)
        .collect();
    let least = set.selector_of(shard).labels;
    if pods.is_empty() {
        pods.push(&least);
    }
    let selects = |budget: &&BudgetFacts| {
        budget
            .selector
            .as_ref()
            .is_some_and(|selector| pods.iter().any(|pod| selector.selects(pod)))
    };
    // A PDB of timeshard for another StatefulSet does not count: both would be deleted, and both
    // created again.
    facts
        .budgets
        .values()
        .filter(|budget| !budget.ours)
        .filter(selects)
        .map(|budget| budget.name.clone())
        .collect()
}

fn all_but_one(pods: u32) -> i32 {
    i32::try_from(pods.saturating_sub(1)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
