//! What this server has seen of the labelled namespaces, and, while it leads, for which StatefulSets that is news.
//!
//! Every replica keeps it for the life of its process: the guard of each needs the pods' readiness, and a new leader begins
//! with all that was seen, and with how long it has seen each pod ready.
//! Invariants: one lock, held for short looks and never across an await; a namespace counts once all its kinds were listed
//! since this process began; what is no longer labelled is forgotten, and what comes late for it is ignored. Only a change
//! that a decision may depend on is news; there is no news while this process does not lead, and a tenure begins with every
//! StatefulSet as news.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::readiness::Readiness;
use crate::adapters::cluster::Observed;
use crate::core::agent_status::AgentStatus;
use crate::core::guard::{PodCondition, PodsSeen};
use crate::core::kept;
use crate::core::observed::{BudgetFacts, NamespaceFacts, PodFacts, ServiceFacts};

/// Namespace and name of a StatefulSet.
pub type SetName = (String, String);

/// What is watched in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Pods,
    Budgets,
    Services,
}

const KINDS: usize = 3;

/// What this server has seen.
#[derive(Debug)]
pub struct Seen {
    pub(super) observed: Arc<Observed>,
    inner: Mutex<Inner>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    namespaces: BTreeMap<String, Watched>,
    dirty: BTreeSet<SetName>,
    readiness: Readiness,
    /// Grows with every change of any fact.
    version: u64,
    /// Whether this process leads: else there is no taker for news.
    leads: bool,
}

#[derive(Debug, Default)]
struct Watched {
    facts: NamespaceFacts,
    listed: BTreeSet<Kind>,
    /// Whether all that a decision depends on is known, StatefulSets and their ConfigMaps included.
    complete: bool,
}

/// Whom a change concerns.
pub(super) enum Concerns<'a> {
    /// The StatefulSet of this name.
    Set(&'a str),
    /// The StatefulSet with this UID; all of the namespace if there is none.
    Owner(Option<&'a str>),
}

/// A kind of fact: where it stands, and when it is news.
pub(super) trait Fact: Debug + Eq + Sized {
    const KIND: Kind;
    /// As it is counted for its namespace.
    const KEPT: kept::Kind;
    fn bytes(&self) -> usize;
    fn name(&self) -> &str;
    fn all(facts: &mut NamespaceFacts) -> &mut BTreeMap<String, Self>;
    fn concerns(&self) -> Concerns<'_>;
    /// Whether a decision may depend on the difference.
    fn is_news(&self, before: &Self) -> bool {
        self != before
    }
    /// It stands now where `before` stood.
    fn note(&self, _before: Option<&Self>, _readiness: &mut Readiness) {}
    fn forget(&self, _readiness: &mut Readiness) {}
}

impl Seen {
    /// Nothing seen yet. `observed` knows the StatefulSets.
    #[must_use]
    pub fn new(observed: Arc<Observed>) -> Arc<Self> {
        Arc::new(Self {
            observed,
            inner: Mutex::default(),
            woken: Notify::new(),
        })
    }

    /// Looks at a namespace; at an empty one if nothing is known of it. The lock is held meanwhile: be short.
    pub fn with<R>(&self, namespace: &str, look: impl FnOnce(&NamespaceFacts) -> R) -> R {
        match self.lock().namespaces.get(namespace) {
            Some(watched) => look(&watched.facts),
            None => look(&NamespaceFacts::default()),
        }
    }

    /// Whether StatefulSets, ConfigMaps, pods, budgets and Services of a namespace were all listed since this process began. Before that
    /// no decision may be taken.
    #[must_use]
    pub fn is_listed(&self, namespace: &str) -> bool {
        self.lock()
            .namespaces
            .get(namespace)
            .is_some_and(|watched| watched.complete)
    }

    /// For how long this process has seen a pod ready without a break; `None` while it is not.
    #[must_use]
    pub fn ready_for(&self, uid: &str, now: Instant) -> Option<Duration> {
        self.lock().readiness.ready_for(uid, now)
    }

    /// A StatefulSet is to be looked at, for a reason that is not seen here.
    pub fn touch(&self, namespace: &str, statefulset: &str) {
        let mut inner = self.lock();
        if inner.leads {
            inner
                .dirty
                .insert((namespace.to_owned(), statefulset.to_owned()));
            self.woken.notify_one();
        }
    }

    /// Begins a tenure: every known StatefulSet is news. It ends when what is returned is dropped.
    #[must_use]
    pub fn lead(self: &Arc<Self>) -> Leads {
        let mut inner = self.lock();
        inner.leads = true;
        // Loaded under the lock: whatever changes the fleet later touches it later, too.
        let fleet = self.observed.fleet.load();
        inner.dirty = fleet
            .statefulsets()
            .map(|known| (known.facts().namespace.clone(), known.facts().name.clone()))
            .collect();
        drop(inner);
        self.woken.notify_one();
        Leads(self.clone())
    }

    /// How the pods of a StatefulSet are; `None` while they are not known, as before the first list of them.
    #[must_use]
    pub fn pods(&self, namespace: &str, statefulset: &str) -> Option<PodsSeen> {
        let fleet = self.observed.fleet.load();
        let uid = Some(fleet.known(namespace, statefulset).facts().uid.as_str())
            .filter(|uid| !uid.is_empty())?;
        let configmap = fleet.config().operator.configmap_of(namespace, statefulset);
        let (inner, now) = (self.lock(), Instant::now());
        let watched = inner
            .namespaces
            .get(namespace)
            .filter(|watched| watched.listed.contains(&Kind::Pods))?;
        // Where this process leads, a sidecar that drains or restarts tells so before the condition does.
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

    /// Waits until there is news, and takes it: the StatefulSets to look at, each once. For one taker.
    pub async fn changed(&self) -> Vec<SetName> {
        loop {
            let dirty = std::mem::take(&mut self.lock().dirty);
            if !dirty.is_empty() {
                return dirty.into_iter().collect();
            }
            self.woken.notified().await;
        }
    }

    /// A pod's sidecar answered: part of how long the pod has been ready.
    pub fn answered(&self, uid: &str, status: &AgentStatus, now: Instant) {
        self.lock().readiness.answered(uid, status, now);
    }

    /// Every pod, with its namespace.
    pub(super) fn each_pod(&self, mut visit: impl FnMut(&str, &PodFacts)) {
        for (namespace, watched) in &self.lock().namespaces {
            watched
                .facts
                .pods
                .values()
                .for_each(|pod| visit(namespace, pod));
        }
    }

    /// Another number whenever another pod may be seen.
    pub(super) fn version(&self) -> u64 {
        self.lock().version
    }

    /// Forgets everything that was seen: it is not kept up to date any longer.
    pub(super) fn clear(&self) {
        let mut inner = self.lock();
        for (namespace, watched) in &inner.namespaces {
            self.release_all(namespace, watched);
        }
        *inner = Inner {
            version: inner.version + 1,
            leads: inner.leads,
            ..Inner::default()
        };
    }

    pub(super) fn expect(&self, namespace: &str) {
        self.lock()
            .namespaces
            .entry(namespace.to_owned())
            .or_default();
    }

    pub(super) fn forget(&self, namespace: &str) {
        let mut inner = self.lock();
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

    fn release_all(&self, namespace: &str, Watched { facts, .. }: &Watched) {
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
        let kinds = [kept::Kind::Pod, kept::Kind::Budget, kept::Kind::Service];
        self.observed
            .release_all(namespace, &kinds, pods + budgets + services);
    }

    pub(super) fn listed(&self, namespace: &str, kind: Kind) {
        let mut inner = self.lock();
        if let Some(watched) = inner.namespaces.get_mut(namespace) {
            watched.listed.insert(kind);
        }
        self.complete(&mut inner, namespace);
    }

    /// More may be known of StatefulSets and their ConfigMaps.
    pub(super) fn sets_are_listed(&self) {
        let mut inner = self.lock();
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

    fn complete(&self, inner: &mut Inner, namespace: &str) {
        let Some(watched) = inner.namespaces.get_mut(namespace) else {
            return;
        };
        if !watched.complete && watched.listed.len() == KINDS && self.observed.is_listed(namespace)
        {
            watched.complete = true;
            tracing::info!(namespace, "everything that a rollout depends on is listed");
            self.mark(inner, namespace, &Concerns::Owner(None));
        }
    }

    pub(super) fn put<F: Fact>(&self, namespace: &str, fact: F) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(watched) = inner.namespaces.get_mut(namespace) else {
            return;
        };
        let is_listed = watched.complete;
        let known = F::all(&mut watched.facts);
        let took = known.get(fact.name()).map_or(0, Fact::bytes);
        if !self
            .observed
            .admit(namespace, (F::KEPT, fact.name()), took, fact.bytes())
        {
            return;
        }
        inner.version += 1;
        let before = known.remove(fact.name());
        fact.note(before.as_ref(), &mut inner.readiness);
        // Until all is listed nobody may decide; then everything is news at once.
        let is_news = is_listed && before.as_ref().is_none_or(|before| fact.is_news(before));
        if is_news && inner.leads {
            mark(
                &self.observed,
                &mut inner.dirty,
                namespace,
                &fact.concerns(),
            );
            if let Some(before) = &before {
                mark(
                    &self.observed,
                    &mut inner.dirty,
                    namespace,
                    &before.concerns(),
                );
            }
            self.woken.notify_one();
        }
        known.insert(fact.name().to_owned(), fact);
    }

    pub(super) fn remove<F: Fact>(&self, namespace: &str, name: &str) {
        let mut inner = self.lock();
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
            mark(
                &self.observed,
                &mut inner.dirty,
                namespace,
                &before.concerns(),
            );
            self.woken.notify_one();
        }
    }

    pub(super) fn names<F: Fact>(&self, namespace: &str) -> Vec<String> {
        let mut inner = self.lock();
        let watched = inner.namespaces.get_mut(namespace);
        watched
            .map(|watched| F::all(&mut watched.facts).keys().cloned().collect())
            .unwrap_or_default()
    }

    fn mark(&self, inner: &mut Inner, namespace: &str, concerns: &Concerns<'_>) {
        if inner.leads {
            mark(&self.observed, &mut inner.dirty, namespace, concerns);
            self.woken.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This process leads, until it is dropped.
#[derive(Debug)]
pub struct Leads(Arc<Seen>);

impl Drop for Leads {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.leads = false;
        inner.dirty.clear();
        inner.readiness.no_longer_asked(Instant::now());
    }
}

fn mark(
    observed: &Observed,
    dirty: &mut BTreeSet<SetName>,
    namespace: &str,
    concerns: &Concerns<'_>,
) {
    let fleet = observed.fleet.load();
    let sets = || {
        fleet
            .statefulsets()
            .map(crate::core::fleet::Known::facts)
            .filter(|facts| facts.namespace == namespace)
    };
    let owner = match concerns {
        Concerns::Set(name) => Some((*name).to_owned()),
        Concerns::Owner(None) => None,
        Concerns::Owner(Some(uid)) => sets()
            .find(|facts| facts.uid == *uid)
            .map(|facts| facts.name.clone()),
    };
    match owner {
        Some(name) => {
            dirty.insert((namespace.to_owned(), name));
        }
        None => dirty.extend(sets().map(|facts| (namespace.to_owned(), facts.name.clone()))),
    }
}

impl Fact for PodFacts {
    const KIND: Kind = Kind::Pods;
    const KEPT: kept::Kind = kept::Kind::Pod;
    fn bytes(&self) -> usize {
        self.bytes()
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn all(facts: &mut NamespaceFacts) -> &mut BTreeMap<String, Self> {
        &mut facts.pods
    }
    fn concerns(&self) -> Concerns<'_> {
        Concerns::Set(&self.statefulset)
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

impl Fact for BudgetFacts {
    const KIND: Kind = Kind::Budgets;
    const KEPT: kept::Kind = kept::Kind::Budget;
    fn bytes(&self) -> usize {
        self.bytes()
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn all(facts: &mut NamespaceFacts) -> &mut BTreeMap<String, Self> {
        &mut facts.budgets
    }
    fn concerns(&self) -> Concerns<'_> {
        Concerns::Owner(self.owner_uid.as_deref().filter(|_| self.ours))
    }
    fn is_news(&self, before: &Self) -> bool {
        // Somebody else's budget gets a new version with every pod that it counts; it is never written by us.
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
    const KIND: Kind = Kind::Services;
    const KEPT: kept::Kind = kept::Kind::Service;
    fn bytes(&self) -> usize {
        self.bytes()
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn all(facts: &mut NamespaceFacts) -> &mut BTreeMap<String, Self> {
        &mut facts.services
    }
    fn concerns(&self) -> Concerns<'_> {
        Concerns::Owner(self.owner_uid.as_deref().filter(|_| self.ours))
    }
}

/// Registered as a collector, so that the values are those of the scrape.
#[derive(Debug)]
pub struct SeenMetrics(pub Arc<Seen>);

impl Collector for SeenMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let (mut pods, mut injected) = (0, 0);
        self.0.each_pod(|_, pod| {
            pods += 1;
            injected += i64::from(pod.injected);
        });
        let mut gauge = |name, help, value: i64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(
            "timeshard_pods",
            "Pods of StatefulSets in labelled namespaces that this replica sees; every replica watches them",
            pods,
        )?;
        gauge(
            "timeshard_injected_pods",
            "Pods with our sidecar that this replica sees; every replica watches them",
            injected,
        )
    }
}
