//! Everything watched in the labelled namespaces, and, while this server leads, the StatefulSets
//! affected by changes.
//!
//! Every replica keeps it for the life of its process: each guard needs the pods' readiness, and a
//! new leader starts with a full cache, including for how long each pod has been ready. Invariants:
//! one lock, held briefly and never across an await; a namespace counts once all its kinds were
//! listed by this process; a namespace that lost its label is forgotten, and late events for it are
//! ignored. Only changes that a decision may depend on are recorded, and only while this process
//! leads; a leader term begins with every StatefulSet recorded as changed.

mod kinds;
mod metrics;
mod queriers;
mod readiness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::kinds::KINDS;
pub(super) use self::kinds::{Affected, Fact, ObjectKind};
pub use self::metrics::CacheMetrics;
use self::readiness::Readiness;
use crate::adapters::kube::cluster::Observed;
use crate::adapters::lock::lock;
use crate::core::admission::guard::{PodCondition, PodsSeen};
use crate::core::agent::status::AgentStatus;
use crate::core::fairness::memory::KeptKind;
use crate::core::gateways::Gateway;
use crate::core::kube::observed::{
    BudgetFacts, NamespaceFacts, PodFacts, QuerierFacts, ServiceFacts,
};
use crate::core::rollout::reconcile::UnreadyTime;

/// Namespace and name of a StatefulSet.
pub type SetName = (String, String);

#[derive(Debug)]
pub struct ClusterCache {
    pub(super) observed: Arc<Observed>,
    inner: Mutex<CacheState>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct CacheState {
    namespaces: BTreeMap<String, WatchedNamespace>,
    dirty: BTreeSet<SetName>,
    readiness: Readiness,
    /// Grows with every change of any fact.
    version: u64,
    /// Whether this process leads; otherwise no changes are recorded.
    leads: bool,
}

#[derive(Debug, Default)]
struct WatchedNamespace {
    facts: NamespaceFacts,
    listed: BTreeSet<ObjectKind>,
    /// Whether everything that a decision depends on is known, including StatefulSets and their
    /// ConfigMaps.
    complete: bool,
}

impl ClusterCache {
    /// An empty cache. `observed` has the StatefulSets.
    #[must_use]
    pub fn new(observed: Arc<Observed>) -> Arc<Self> {
        Arc::new(Self {
            observed,
            inner: Mutex::default(),
            woken: Notify::new(),
        })
    }

    /// Passes a namespace's facts to `read`; empty ones if the namespace is unknown. `read` must be
    /// short, as it runs under the lock.
    pub fn with<R>(&self, namespace: &str, read: impl FnOnce(&NamespaceFacts) -> R) -> R {
        match lock(&self.inner).namespaces.get(namespace) {
            Some(watched) => read(&watched.facts),
            None => read(&NamespaceFacts::default()),
        }
    }

    /// Whether this process has listed a namespace's StatefulSets, ConfigMaps, pods, PDBs and
    /// Services. Until then nothing may be decided about it.
    #[must_use]
    pub fn is_listed(&self, namespace: &str) -> bool {
        lock(&self.inner)
            .namespaces
            .get(namespace)
            .is_some_and(|watched| watched.complete)
    }

    /// For how long this process has seen a pod ready without a break; `None` if it is not ready.
    #[must_use]
    pub fn ready_for(&self, uid: &str, now: Instant) -> Option<Duration> {
        lock(&self.inner).readiness.ready_for(uid, now)
    }

    /// Since when this process has seen a pod unready; `None` if it is ready.
    #[must_use]
    pub fn unready(&self, uid: &str, now: Instant) -> Option<UnreadyTime> {
        lock(&self.inner).readiness.unready(uid, now)
    }

    /// Records that a StatefulSet must be reconciled, for a reason outside the cache.
    pub fn touch(&self, namespace: &str, statefulset: &str) {
        let mut inner = lock(&self.inner);
        if inner.leads {
            inner
                .dirty
                .insert((namespace.to_owned(), statefulset.to_owned()));
            self.woken.notify_one();
        }
    }

    /// Begins a leader term, with every known StatefulSet recorded as changed. The term ends when
    /// the returned value is dropped.
    #[must_use]
    pub fn lead(self: &Arc<Self>) -> Leading {
        let mut inner = lock(&self.inner);
        inner.leads = true;
        // Loaded under the lock: every later change of the fleet is followed by a touch.
        let fleet = self.observed.fleet.load();
        inner.dirty = fleet
            .statefulsets()
            .map(|known| (known.facts().namespace.clone(), known.facts().name.clone()))
            .collect();
        drop(inner);
        self.woken.notify_one();
        Leading(self.clone())
    }

    /// Conditions of a StatefulSet's pods; `None` before they were first listed.
    #[must_use]
    pub fn pods(&self, namespace: &str, statefulset: &str) -> Option<PodsSeen> {
        let fleet = self.observed.fleet.load();
        let uid = Some(fleet.known(namespace, statefulset).facts().uid.as_str())
            .filter(|uid| !uid.is_empty())?;
        let configmap = fleet.config().operator.configmap_of(namespace, statefulset);
        let (inner, now) = (lock(&self.inner), Instant::now());
        let watched = inner
            .namespaces
            .get(namespace)
            .filter(|watched| watched.listed.contains(&ObjectKind::Pods))?;
        // On the leader a sidecar reports a drain or restart before the condition changes.
        let condition =
            |pod: &PodFacts| match (pod.terminating, inner.readiness.ready_for(&pod.uid, now)) {
                (true, _) => PodCondition::Terminating,
                (false, Some(_)) => PodCondition::Ready,
                (false, None) => PodCondition::NotReady,
            };
        let own = watched
            .facts
            .pods
            .values()
            .filter(|pod| pod.owner_uid == uid);
        let conditions = own.map(|pod| (pod.name.clone(), condition(pod))).collect();
        let single_holders = fleet
            .configmap(namespace, &configmap)
            .and_then(|map| map.facts.single_holders.clone());
        Some(PodsSeen {
            conditions,
            single_holders,
        })
    }

    /// Waits for changes and takes them: the StatefulSets to reconcile, each once. For one caller.
    pub async fn changed(&self) -> Vec<SetName> {
        loop {
            let dirty = std::mem::take(&mut lock(&self.inner).dirty);
            if !dirty.is_empty() {
                return dirty.into_iter().collect();
            }
            self.woken.notified().await;
        }
    }

    /// Records a sidecar's answer, which is part of how long the pod has been ready.
    pub fn answered(&self, uid: &str, status: &AgentStatus, now: Instant) {
        lock(&self.inner).readiness.answered(uid, status, now);
    }

    /// Calls `visit` with every pod and its namespace.
    pub(super) fn each_pod(&self, mut visit: impl FnMut(&str, &PodFacts)) {
        for (namespace, watched) in &lock(&self.inner).namespaces {
            watched
                .facts
                .pods
                .values()
                .for_each(|pod| visit(namespace, pod));
        }
    }

    /// A number that changes whenever a pod may have.
    pub(super) fn version(&self) -> u64 {
        lock(&self.inner).version
    }

    /// Forgets everything, as the watches have ended.
    pub(super) fn clear(&self) {
        let mut inner = lock(&self.inner);
        for (namespace, watched) in &inner.namespaces {
            self.release_all(namespace, watched);
        }
        *inner = CacheState {
            version: inner.version + 1,
            leads: inner.leads,
            ..CacheState::default()
        };
    }

    pub(super) fn expect(&self, namespace: &str) {
        lock(&self.inner)
            .namespaces
            .entry(namespace.to_owned())
            .or_default();
    }

    pub(super) fn forget(&self, namespace: &str) {
        let mut inner = lock(&self.inner);
        let Some(watched) = inner.namespaces.remove(namespace) else {
            return;
        };
        watched
            .facts
            .pods
            .values()
            .for_each(|pod| pod.forget(&mut inner.readiness));
        inner.version += 1;
        self.release_all(namespace, &watched);
    }

    fn release_all(&self, namespace: &str, WatchedNamespace { facts, .. }: &WatchedNamespace) {
        let pods = facts.pods.values().map(PodFacts::bytes).sum::<usize>();
        let budgets = facts
            .budgets
            .values()
            .map(BudgetFacts::bytes)
            .sum::<usize>();
        let services = facts
            .services
            .values()
            .map(ServiceFacts::bytes)
            .sum::<usize>();
        let queriers = facts
            .queriers
            .values()
            .map(QuerierFacts::bytes)
            .sum::<usize>();
        let kinds = [
            KeptKind::Pod,
            KeptKind::Budget,
            KeptKind::Service,
            KeptKind::Querier,
        ];
        self.observed
            .release_all(namespace, &kinds, pods + budgets + services + queriers);
    }

    pub(super) fn listed(&self, namespace: &str, kind: ObjectKind) {
        let mut inner = lock(&self.inner);
        if let Some(watched) = inner.namespaces.get_mut(namespace) {
            watched.listed.insert(kind);
        }
        self.complete(&mut inner, namespace);
    }

    /// Checks again which namespaces are complete: more StatefulSets or ConfigMaps may be known.
    pub(super) fn sets_are_listed(&self) {
        let mut inner = lock(&self.inner);
        let waiting: Vec<String> = inner
            .namespaces
            .iter()
            .filter(|(_, watched)| !watched.complete)
            .map(|(name, _)| name.clone())
            .collect();
        for namespace in waiting {
            self.complete(&mut inner, &namespace);
        }
    }

    fn complete(&self, inner: &mut CacheState, namespace: &str) {
        let Some(watched) = inner.namespaces.get_mut(namespace) else {
            return;
        };
        if !watched.complete && watched.listed.len() == KINDS && self.observed.is_listed(namespace)
        {
            watched.complete = true;
            tracing::info!(namespace, "listed everything that a rollout depends on");
            if inner.leads {
                self.mark(&mut inner.dirty, namespace, &Affected::Owner(None));
            }
        }
    }

    pub(super) fn put<F: Fact>(&self, namespace: &str, fact: F) {
        self.try_put(namespace, fact);
    }

    /// Stores a fact; `false` if the namespace's memory does not suffice.
    pub(super) fn try_put<F: Fact>(&self, namespace: &str, fact: F) -> bool {
        let mut inner = lock(&self.inner);
        let inner = &mut *inner;
        let Some(watched) = inner.namespaces.get_mut(namespace) else {
            return true;
        };
        let is_listed = watched.complete;
        let known = F::all(&mut watched.facts);
        let took = known.get(fact.name()).map_or(0, Fact::bytes);
        if !self
            .observed
            .admit(namespace, (F::KEPT, fact.name()), took, fact.bytes())
        {
            return false;
        }
        inner.version += 1;
        let before = known.remove(fact.name());
        fact.note(before.as_ref(), &mut inner.readiness);
        // Before the namespace is complete nothing is decided; then every StatefulSet is recorded.
        let is_change = is_listed && before.as_ref().is_none_or(|before| fact.is_change(before));
        if is_change && inner.leads {
            for changed in before.iter().chain([&fact]) {
                self.mark(&mut inner.dirty, namespace, &changed.affected());
            }
        }
        known.insert(fact.name().to_owned(), fact);
        true
    }

    pub(super) fn remove<F: Fact>(&self, namespace: &str, name: &str) {
        let mut inner = lock(&self.inner);
        let inner = &mut *inner;
        let Some(watched) = inner.namespaces.get_mut(namespace) else {
            return;
        };
        let before = F::all(&mut watched.facts).remove(name);
        self.observed.release(
            namespace,
            (F::KEPT, name),
            before.as_ref().map_or(0, Fact::bytes),
        );
        let Some(before) = before else { return };
        before.forget(&mut inner.readiness);
        inner.version += 1;
        if watched.complete && inner.leads {
            self.mark(&mut inner.dirty, namespace, &before.affected());
        }
    }

    pub(super) fn names<F: Fact>(&self, namespace: &str) -> Vec<String> {
        let mut inner = lock(&self.inner);
        let watched = inner.namespaces.get_mut(namespace);
        watched
            .map(|watched| F::all(&mut watched.facts).keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Records the StatefulSets that a change affects.
    fn mark(&self, dirty: &mut BTreeSet<SetName>, namespace: &str, affected: &Affected<'_>) {
        let fleet = self.observed.fleet.load();
        let sets = || {
            let facts = fleet.statefulsets().map(Gateway::facts);
            facts.filter(|facts| facts.namespace == namespace)
        };
        let owner = match affected {
            Affected::Set(name) => Some((*name).to_owned()),
            Affected::Owner(None) => None,
            Affected::Owner(Some(uid)) => sets()
                .find(|facts| facts.uid == *uid)
                .map(|facts| facts.name.clone()),
        };
        match owner {
            Some(name) => drop(dirty.insert((namespace.to_owned(), name))),
            None => dirty.extend(sets().map(|facts| (namespace.to_owned(), facts.name.clone()))),
        }
        self.woken.notify_one();
    }
}

/// Ends the leader term when it is dropped.
#[derive(Debug)]
pub struct Leading(Arc<ClusterCache>);

impl Drop for Leading {
    fn drop(&mut self) {
        let mut inner = lock(&self.0.inner);
        inner.leads = false;
        inner.dirty.clear();
        inner.readiness.no_longer_asked(Instant::now());
    }
}
