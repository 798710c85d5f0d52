//! The kinds of facts in the cache: where they are kept, and which changes matter.

use std::collections::BTreeMap;
use std::fmt::Debug;

use tokio::time::Instant;

use super::readiness::Readiness;
use crate::core::fairness::memory::KeptKind;
use crate::core::kube::observed::{
    BudgetFacts, NamespaceFacts, PodFacts, QuerierFacts, ServiceFacts,
};

/// Kinds watched in each namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::controller) enum ObjectKind {
    Pods,
    Budgets,
    Services,
}

pub(super) const KINDS: usize = 3;

/// The StatefulSets that a change concerns.
pub(in crate::controller) enum Affected<'a> {
    /// The one of this name.
    Set(&'a str),
    /// The one with this UID; every one of the namespace if there is none.
    Owner(Option<&'a str>),
}

pub(in crate::controller) trait Fact: Debug + Eq + Sized {
    const KIND: ObjectKind;
    /// The kind under which its memory is counted.
    const KEPT: KeptKind;
    fn bytes(&self) -> usize;
    fn name(&self) -> &str;
    fn all(facts: &mut NamespaceFacts) -> &mut BTreeMap<String, Self>;
    fn affected(&self) -> Affected<'_>;
    /// Whether a decision may depend on the difference.
    fn is_change(&self, before: &Self) -> bool {
        self != before
    }
    /// Records that it replaces `before`.
    fn note(&self, _before: Option<&Self>, _readiness: &mut Readiness) {}
    fn forget(&self, _readiness: &mut Readiness) {}
}

impl Fact for PodFacts {
    const KIND: ObjectKind = ObjectKind::Pods;
    const KEPT: KeptKind = KeptKind::Pod;
    fn bytes(&self) -> usize {
        self.bytes()
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn all(facts: &mut NamespaceFacts) -> &mut BTreeMap<String, Self> {
        &mut facts.pods
    }
    fn affected(&self) -> Affected<'_> {
        Affected::Set(&self.statefulset)
    }
    fn note(&self, before: Option<&Self>, readiness: &mut Readiness) {
        if let Some(before) = before.filter(|before| before.uid != self.uid) {
            readiness.forget(&before.uid);
        }
        readiness.observed(self, Instant::now());
    }
    fn forget(&self, readiness: &mut Readiness) {
        readiness.forget(&self.uid);
    }
}

impl Fact for QuerierFacts {
    const KIND: ObjectKind = ObjectKind::Pods;
    const KEPT: KeptKind = KeptKind::Querier;
    fn bytes(&self) -> usize {
        self.bytes()
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn all(facts: &mut NamespaceFacts) -> &mut BTreeMap<String, Self> {
        &mut facts.queriers
    }
    /// A querier may use the pods of every StatefulSet.
    fn affected(&self) -> Affected<'_> {
        Affected::Owner(None)
    }
}

impl Fact for BudgetFacts {
    const KIND: ObjectKind = ObjectKind::Budgets;
    const KEPT: KeptKind = KeptKind::Budget;
    fn bytes(&self) -> usize {
        self.bytes()
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn all(facts: &mut NamespaceFacts) -> &mut BTreeMap<String, Self> {
        &mut facts.budgets
    }
    fn affected(&self) -> Affected<'_> {
        Affected::Owner(self.owner_uid.as_deref().filter(|_| self.ours))
    }
    fn is_change(&self, before: &Self) -> bool {
        // The version of a user's PDB changes with every pod that it counts, and is never needed:
        // timeshard does not write it.
        let same_version = |budget: &Self| Self {
            resource_version: String::new(),
            ..budget.clone()
        };
        if self.ours {
            self != before
        } else {
            same_version(self) != same_version(before)
        }
    }
}

impl Fact for ServiceFacts {
    const KIND: ObjectKind = ObjectKind::Services;
    const KEPT: KeptKind = KeptKind::Service;
    fn bytes(&self) -> usize {
        self.bytes()
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn all(facts: &mut NamespaceFacts) -> &mut BTreeMap<String, Self> {
        &mut facts.services
    }
    fn affected(&self) -> Affected<'_> {
        Affected::Owner(self.owner_uid.as_deref().filter(|_| self.ours))
    }
}
