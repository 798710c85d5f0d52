//! The observed state of the cluster, its completeness, and the memory that it may take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::PartialObjectMeta;
use tokio::sync::watch;

use crate::adapters::clock;
use crate::adapters::kube::rights::Rights;
use crate::adapters::kube::watch::WatchHealth;
pub(super) use crate::adapters::lock::lock;
use crate::core::fairness::log_lines::{LogLine, LogShares};
use crate::core::fairness::memory::{KeptKind, MemoryLedger, OverBudget, Why};
use crate::core::gateways::{Gateways, Published};
use crate::core::kube::scope::Scope;

#[derive(Debug)]
pub struct Observed {
    /// The view that admission reads.
    pub fleet: Arc<ArcSwap<Gateways>>,
    /// State of all watches, including those of the controller.
    pub watches: WatchHealth,
    pub rights: Arc<Rights>,
    /// Writers take turns; readers never wait.
    pub(super) writing: Mutex<()>,
    pub(super) synced: AtomicBool,
    pub(super) namespaces: watch::Sender<BTreeSet<String>>,
    /// Wakes followers of the fleet, which find the changes by comparing fleets.
    pub(super) replaced: watch::Sender<()>,
    pub(super) bad_entries: AtomicU64,
    /// Memory of all stored objects, here and in the controller.
    pub(super) ledger: Mutex<MemoryLedger>,
    pub(super) log: Mutex<LogShares>,
    /// Namespaces whose StatefulSets and their ConfigMaps are all known.
    pub(super) listed: Mutex<BTreeSet<String>>,
    /// By namespace and name, this process' last write of a ConfigMap, until it is kept or read.
    pub(super) written: Mutex<BTreeMap<(String, String), WrittenVersion>>,
}

/// The version of a ConfigMap that this process wrote, and its data.
type WrittenVersion = (String, BTreeMap<String, String>);

impl Observed {
    /// With rights in the whole cluster.
    #[must_use]
    pub fn new(fleet: Gateways) -> Arc<Self> {
        Self::within(fleet, Scope::Cluster)
    }

    /// With rights in these namespaces.
    #[must_use]
    pub fn within(fleet: Gateways, scope: Scope) -> Arc<Self> {
        Arc::new(Self {
            fleet: Arc::new(ArcSwap::from_pointee(fleet)),
            watches: WatchHealth::default(),
            rights: Arc::new(Rights::new(scope)),
            writing: Mutex::new(()),
            synced: AtomicBool::new(false),
            namespaces: watch::Sender::default(),
            replaced: watch::Sender::default(),
            bad_entries: AtomicU64::new(0),
            ledger: Mutex::default(),
            log: Mutex::default(),
            listed: Mutex::default(),
            written: Mutex::default(),
        })
    }

    /// Replaces the fleet by the result of `change`; `None` leaves it unchanged.
    pub fn update(&self, change: impl FnOnce(&Gateways) -> Option<Gateways>) {
        let _turn = lock(&self.writing);
        if let Some(next) = change(&self.fleet.load()) {
            self.fleet.store(Arc::new(next));
            self.replaced.send_replace(());
        }
    }

    /// Whether every namespace that was labelled at the start has been listed once, or refuses lists.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.load(Relaxed)
    }

    /// Marks everything as listed, for a server without a cluster.
    pub fn nothing_to_list(&self) {
        self.synced.store(true, Relaxed);
    }

    /// Whether all StatefulSets of a namespace and their ConfigMaps are known.
    #[must_use]
    pub fn is_listed(&self, namespace: &str) -> bool {
        lock(&self.listed).contains(namespace)
    }

    pub(super) fn listed(&self, namespace: &str) {
        lock(&self.listed).insert(namespace.to_owned());
        self.replaced.send_replace(());
    }

    /// Records this process' write of a ConfigMap, so that the version need not be read.
    pub fn wrote(
        &self,
        namespace: &str,
        name: &str,
        resource_version: &str,
        data: &BTreeMap<String, String>,
    ) {
        lock(&self.written).insert(
            (namespace.to_owned(), name.to_owned()),
            (resource_version.to_owned(), data.clone()),
        );
    }

    /// The ConfigMap as this process wrote it, if the watch shows that version. Forgets the write in
    /// any case.
    pub(super) fn written(
        &self,
        namespace: &str,
        name: &str,
        seen: Option<&PartialObjectMeta<ConfigMap>>,
    ) -> Option<ConfigMap> {
        let (version, data) =
            lock(&self.written).remove(&(namespace.to_owned(), name.to_owned()))?;
        let metadata = seen?.metadata.clone();
        (metadata.resource_version.as_ref() == Some(&version)).then(|| ConfigMap {
            metadata,
            data: Some(data),
            ..ConfigMap::default()
        })
    }

    /// Stores a ConfigMap if its namespace has room for it.
    pub(super) fn keep_map(&self, namespace: &str, published: Published) {
        self.update(|fleet| {
            let name = &published.facts.name;
            let before = fleet
                .configmap(namespace, name)
                .map_or(0, |map| map.facts.bytes());
            self.admit(
                namespace,
                (KeptKind::ConfigMap, name),
                before,
                published.facts.bytes(),
            )
            .then(|| fleet.with_published(namespace, published))
        });
    }

    pub(super) fn forget_map(&self, namespace: &str, name: &str) {
        lock(&self.written).remove(&(namespace.to_owned(), name.to_owned()));
        self.update(|fleet| {
            let bytes = fleet
                .configmap(namespace, name)
                .map(|map| map.facts.bytes());
            self.release(namespace, (KeptKind::ConfigMap, name), bytes.unwrap_or(0));
            bytes.map(|_| fleet.without_configmap(namespace, name))
        });
    }

    /// Whether an object that took `before` bytes may take `after`. The first refusal in a namespace
    /// is logged.
    pub fn admit(
        &self,
        namespace: &str,
        object: (KeptKind, &str),
        before: usize,
        after: usize,
    ) -> bool {
        let admitted = lock(&self.ledger).admit(namespace, object, before, after);
        if admitted == Err(true) {
            self.log_refused(namespace);
        }
        admitted.is_ok()
    }

    /// Records an object that is not stored.
    pub fn refuse(&self, namespace: &str, object: (KeptKind, &str), why: Why) {
        let is_first = lock(&self.ledger).refuse(namespace, object, why);
        if is_first {
            self.log_refused(namespace);
        }
    }

    /// Releases the memory of a deleted object.
    pub fn release(&self, namespace: &str, object: (KeptKind, &str), bytes: usize) {
        lock(&self.ledger).release(namespace, object, bytes);
    }

    /// Releases the memory of all objects of these kinds in a namespace.
    pub fn release_all(&self, namespace: &str, kinds: &[KeptKind], bytes: usize) {
        lock(&self.ledger).forget(namespace, kinds, bytes);
    }

    /// Objects that are not stored, by namespace.
    #[must_use]
    pub fn refused(&self) -> Vec<OverBudget> {
        lock(&self.ledger).refused()
    }

    /// Whether to write one more log line about a namespace: each has a limited share.
    pub fn may_log(&self, namespace: &str) -> bool {
        let line =
            lock(&self.log).take(namespace, u64::try_from(clock::unix_seconds()).unwrap_or(0));
        if line == LogLine::Last {
            tracing::warn!(
                namespace,
                "log lines about this namespace are dropped until the next minute"
            );
        }
        line != LogLine::LeftOut
    }

    fn log_refused(&self, namespace: &str) {
        for refused in self
            .refused()
            .into_iter()
            .filter(|refused| refused.namespace == namespace)
        {
            tracing::warn!(namespace, objects = refused.count, "{}", refused.sentence);
        }
    }

    /// The labelled namespaces.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        self.namespaces.borrow().iter().cloned().collect()
    }

    /// Receives the labelled namespaces when they change.
    #[must_use]
    pub fn labelled(&self) -> watch::Receiver<BTreeSet<String>> {
        self.namespaces.subscribe()
    }

    /// Receives a wake-up when the fleet is replaced.
    #[must_use]
    pub fn replaced(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }
}
