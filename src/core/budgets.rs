//! Which `PodDisruptionBudget`s a StatefulSet should have now: one for each shard, closed while a step of that shard runs.
//!
//! Invariants: no pod is ever selected by a budget of ours and by somebody else's (Kubernetes then evicts neither); what
//! does not carry our label is never written; what is right is not written again; none is made for a shard without pods.
//!
//! Open is `minAvailable` of all pods of the shard but one, not `maxUnavailable: 1`. Kubernetes reads `maxUnavailable`
//! against `spec.replicas` of the *whole* StatefulSet (`getExpectedScale` of its disruption controller): with 3 shards of 2
//! it wants 5 healthy pods among the 2 that the budget selects, and no node could ever be drained. `maxUnavailable: 0`
//! means what it says either way, so closed is that. An integer `minAvailable` is read against the selected pods.
//!
//! Pods that are not ready: while open they may always be evicted, so that a pod that crashes does not hold up a node (by
//! default it does as soon as no other pod of its shard is healthy). While closed they may not: a pod that drains or
//! restarts in a step is not ready either. Clusters that do not know `unhealthyPodEvictionPolicy` (before 1.27) drop it
//! silently, hence it is not compared: it changes together with the number, which is.

use std::collections::BTreeSet;

use super::observed::{BudgetFacts, NamespaceFacts, PodFacts, Selector};
use super::owned::{Owner, SUBDOMAIN_CHARS, ShardedSet, shard_name};

/// How many pods of a shard may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// All but this many: `minAvailable`; pods that are not ready always.
    KeepAvailable(i32),
    /// None: `maxUnavailable: 0`, also not those that are not ready.
    Closed,
}

/// A budget as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// The StatefulSet that it belongs to.
    pub owner: Owner,
    /// Which pods it selects.
    pub selector: Selector,
    /// How many of them may be evicted.
    pub limit: Limit,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetWrite {
    /// There is none of that name.
    Create(Budget),
    /// There is one of ours that says something else.
    Replace {
        /// What was seen; the write fails when somebody else wrote in between.
        resource_version: String,
        /// What it should be.
        budget: Budget,
    },
    /// There is one of ours too many.
    Delete {
        /// Its name.
        name: String,
        /// What was seen; the write fails when somebody else wrote in between.
        resource_version: String,
    },
}

/// What to do about a StatefulSet's budgets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetPlan {
    /// Deletions first, so that no pod has two budgets in between; then by shard. Empty when all is right.
    pub writes: Vec<BudgetWrite>,
    /// Sentences that name what stands in the way of a budget of ours.
    pub conflicts: Vec<String>,
    /// Whether a step may start: the budget of every shard to be closed is closed and Kubernetes knows it, or there can be
    /// none.
    pub ready: bool,
}

/// What is wanted now. `closed` are the shards of which a step runs or is about to.
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
                "shard {shard} has no budget of ours, because {} selects its pods, and Kubernetes evicts no pod with two; during a rollout its pods may be evicted: delete that budget, and ours is made",
                others.join(", ")
            ));
            continue;
        }
        match facts.budgets.get(&budget.name) {
            Some(there) if !there.ours => plan.conflicts.push(format!(
                "shard {shard} has no budget: PodDisruptionBudget {} is not ours and stays untouched; rename or delete it",
                budget.name
            )),
            Some(there) => {
                kept.insert(budget.name.clone());
                let right = budget.is(there);
                plan.ready &= limit != Limit::Closed || (right && there.observed);
                if !right {
                    plan.writes.push(BudgetWrite::Replace { resource_version: there.resource_version.clone(), budget });
                }
            }
            // Nobody can be evicted from it: it is made with its first pod, so that what is written follows the pods that there are.
            None if !labelled.contains(&shard) => {}
            None => {
                plan.ready &= limit != Limit::Closed;
                plan.writes.push(BudgetWrite::Create(budget));
            }
        }
    }
    let own = facts
        .budgets
        .values()
        .filter(|budget| budget.ours && !kept.contains(&budget.name));
    let own =
        own.filter(|budget| set.owns(budget.owner_uid.as_deref(), &budget.name, SUBDOMAIN_CHARS));
    let delete = own.map(|budget| BudgetWrite::Delete {
        name: budget.name.clone(),
        resource_version: budget.resource_version.clone(),
    });
    plan.writes.splice(0..0, delete);
    plan
}

/// What opens the budgets that are closed, for a StatefulSet whose steps nobody watches any more.
#[must_use]
pub fn opening(set: &ShardedSet, facts: &NamespaceFacts) -> Vec<BudgetWrite> {
    let is_closed = |write: &BudgetWrite| {
        let name = match write {
            BudgetWrite::Create(_) => return false,
            BudgetWrite::Replace { budget, .. } => &budget.name,
            BudgetWrite::Delete { name, .. } => name,
        };
        facts
            .budgets
            .get(name)
            .is_some_and(|there| there.max_unavailable == Some(0))
    };
    wanted(set, &BTreeSet::new(), facts)
        .writes
        .into_iter()
        .filter(is_closed)
        .collect()
}

/// By namespace, deletions of our budgets where the label was taken away: nobody opens them there after a step, or lowers
/// them when pods go, and each would come to hold up the drain of a node. `all` is by namespace, too. Only what we would have made
/// goes: with a StatefulSet as owner and the name that we give; anybody may put our label on a budget.
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

/// Budgets of others that select a pod of the shard; of a shard without pods, what a pod would have at the least.
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
    // A budget of ours for another StatefulSet is no reason: both would give way, and both come back.
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
