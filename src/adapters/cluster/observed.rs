//! What a server knows of the cluster, how well it knows it, and what it may keep of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::core::PartialObjectMeta;
use tokio::sync::watch;

use crate::adapters::clock;
use crate::adapters::rights::Rights;
use crate::adapters::watches::WatchHealth;
use crate::core::fleet::{Fleet, Published};
use crate::core::kept::{Kind, Ledger, Refused, Why};
use crate::core::log_shares::{Line, LogShares};
use crate::core::scope::Scope;

/// The fleet, and how well it is known.
#[derive(Debug)]
pub struct Observed {
    /// What admission reads.
    pub fleet: Arc<ArcSwap<Fleet>>,
    /// How the watches are, those of others included.
    pub watches: WatchHealth,
    /// Where this server has no rights.
    pub rights: Arc<Rights>,
    /// Writers take turns; readers never wait.
    pub(super) writing: Mutex<()>,
    pub(super) synced: AtomicBool,
    pub(super) namespaces: watch::Sender<BTreeSet<String>>,
    /// Wakes who follows the fleet; what changed is told by comparing fleets.
    pub(super) replaced: watch::Sender<()>,
    pub(super) bad_entries: AtomicU64,
    /// What everything that is kept takes, here and in the refresher.
    pub(super) ledger: Mutex<Ledger>,
    pub(super) log: Mutex<LogShares>,
    /// Namespaces of which all StatefulSets and their ConfigMaps are known.
    pub(super) listed: Mutex<BTreeSet<String>>,
    /// By namespace and name, what this process wrote last into a ConfigMap, until the watch shows it.
    pub(super) written: Mutex<BTreeMap<(String, String), Written>>,
}

/// The version of a ConfigMap that this process wrote, and its data.
type Written = (String, BTreeMap<String, String>);

impl Observed {
    /// Nothing observed yet, with rights in the whole cluster.
    #[must_use]
    pub fn new(fleet: Fleet) -> Arc<Self> {
        Self::within(fleet, Scope::Cluster)
    }

    /// Nothing observed yet, with rights in these namespaces.
    #[must_use]
    pub fn within(fleet: Fleet, scope: Scope) -> Arc<Self> {
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

    /// Replaces the fleet by what `change` makes of it; `None` leaves it.
    pub fn update(&self, change: impl FnOnce(&Fleet) -> Option<Fleet>) {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = change(&self.fleet.load()) {
            self.fleet.store(Arc::new(next));
            self.replaced.send_replace(());
        }
    }

    /// Whether every namespace that was labelled at the start has been listed once, or has refused that.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.load(Relaxed)
    }

    /// Without a cluster there is nothing to wait for.
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

    /// This process has written a ConfigMap: what the watch shows of that version need not be read.
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

    /// A ConfigMap as this process has written it, if that is what was seen.
    pub(super) fn written(
        &self,
        namespace: &str,
        seen: &PartialObjectMeta<ConfigMap>,
    ) -> Option<ConfigMap> {
        let (_, (version, data)) =
            lock(&self.written).remove_entry(&(namespace.to_owned(), seen.name_any()))?;
        let metadata = seen.metadata.clone();
        (metadata.resource_version.as_ref() == Some(&version)).then(|| ConfigMap {
            metadata,
            data: Some(data),
            ..ConfigMap::default()
        })
    }

    /// Keeps a ConfigMap, if its namespace has room for it.
    pub(super) fn keep_map(&self, namespace: &str, published: Published) {
        self.update(|fleet| {
            let name = &published.facts.name;
            let before = fleet
                .configmap(namespace, name)
                .map_or(0, |map| map.facts.bytes());
            self.admit(
                namespace,
                (Kind::ConfigMap, name),
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
            self.release(namespace, (Kind::ConfigMap, name), bytes.unwrap_or(0));
            bytes.map(|_| fleet.without_configmap(namespace, name))
        });
    }

    /// Whether an object that took `before` bytes may take `after`; a refusal is logged once for a namespace.
    pub fn admit(
        &self,
        namespace: &str,
        object: (Kind, &str),
        before: usize,
        after: usize,
    ) -> bool {
        let admitted = lock(&self.ledger).admit(namespace, object, before, after);
        if admitted == Err(true) {
            self.log_refused(namespace);
        }
        admitted.is_ok()
    }

    /// An object is not kept.
    pub fn refuse(&self, namespace: &str, object: (Kind, &str), why: Why) {
        let is_first = lock(&self.ledger).refuse(namespace, object, why);
        if is_first {
            self.log_refused(namespace);
        }
    }

    /// An object that took so many bytes is gone.
    pub fn release(&self, namespace: &str, object: (Kind, &str), bytes: usize) {
        lock(&self.ledger).release(namespace, object, bytes);
    }

    /// Everything of these kinds in a namespace is forgotten, which took so many bytes.
    pub fn release_all(&self, namespace: &str, kinds: &[Kind], bytes: usize) {
        lock(&self.ledger).forget(namespace, kinds, bytes);
    }

    /// What is not kept, by namespace.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        lock(&self.ledger).refused()
    }

    /// Whether one more line about a namespace is written: what its people cause is shared fairly.
    pub fn may_log(&self, namespace: &str) -> bool {
        let line =
            lock(&self.log).take(namespace, u64::try_from(clock::unix_seconds()).unwrap_or(0));
        if line == Line::Last {
            tracing::warn!(
                namespace,
                "further lines about this namespace are left out until the next minute"
            );
        }
        line != Line::LeftOut
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

    /// The labelled namespaces, and a way to wait until they are others.
    #[must_use]
    pub fn labelled(&self) -> watch::Receiver<BTreeSet<String>> {
        self.namespaces.subscribe()
    }

    /// A way to wait until the fleet is replaced.
    #[must_use]
    pub fn replaced(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
