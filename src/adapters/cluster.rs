//! Watches on the labelled namespaces, turned into the [`Fleet`] that admission reads.
//!
//! Invariants: nothing outside labelled namespaces is watched but the namespaces' own labels; objects are trimmed to what
//! admission needs as they come in, before anything holds them (`trimmed`), and what is kept of a namespace is bounded
//! (`core::kept`); a watch that breaks is started again with back-off, and what was known stays in force; a namespace without rights
//! holds nothing up (`rights`). Nothing is written here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::client::ClientBuilder;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::lean::Lean;
use super::rights::{REFUSED_FOR, Rights, is_refusal};
use super::store_words::may_run_store;
use super::trimmed::Trimmed;
use super::watches::{Patience, WatchHealth, config, keep, of_namespace};
use super::{clock, events};
use crate::core::fleet::{Fleet, Known, Published};
use crate::core::kept::{Kind, Ledger, Refused, Why};
use crate::core::log_shares::{Line, LogShares};
use crate::core::names;
use crate::core::notice::Notice;
use crate::core::scope::Scope;

mod entries;
mod facts;
mod maps;
mod metrics;
#[cfg(test)]
mod played;

pub use self::facts::selector;
use self::facts::{containers, facts};
use self::maps::Maps;
pub use self::metrics::ObservedMetrics;

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
    writing: Mutex<()>,
    synced: AtomicBool,
    namespaces: watch::Sender<BTreeSet<String>>,
    /// Wakes who follows the fleet; what changed is told by comparing fleets.
    replaced: watch::Sender<()>,
    bad_entries: AtomicU64,
    /// What everything that is kept takes, here and in the refresher.
    ledger: Mutex<Ledger>,
    log: Mutex<LogShares>,
    /// Namespaces of which all StatefulSets and their ConfigMaps are known.
    listed: Mutex<BTreeSet<String>>,
    /// By namespace and name, what this process wrote last into a ConfigMap, until the watch shows it.
    written: Mutex<BTreeMap<(String, String), Written>>,
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

    fn listed(&self, namespace: &str) {
        lock(&self.listed).insert(namespace.to_owned());
        self.replaced.send_replace(());
    }

    /// This process has written a ConfigMap: what the watch shows of that version need not be read.
    pub fn wrote(&self, namespace: &str, name: &str, resource_version: &str, data: &BTreeMap<String, String>) {
        lock(&self.written).insert((namespace.to_owned(), name.to_owned()), (resource_version.to_owned(), data.clone()));
    }

    /// A ConfigMap as this process has written it, if that is what was seen.
    fn written(&self, namespace: &str, seen: &PartialObjectMeta<ConfigMap>) -> Option<ConfigMap> {
        let (_, (version, data)) = lock(&self.written).remove_entry(&(namespace.to_owned(), seen.name_any()))?;
        let metadata = seen.metadata.clone();
        (metadata.resource_version.as_ref() == Some(&version)).then(|| ConfigMap { metadata, data: Some(data), ..ConfigMap::default() })
    }

    /// Keeps a ConfigMap, if its namespace has room for it.
    fn keep_map(&self, namespace: &str, published: Published) {
        self.update(|fleet| {
            let name = &published.facts.name;
            let before = fleet.configmap(namespace, name).map_or(0, |map| map.facts.bytes());
            self.admit(namespace, (Kind::ConfigMap, name), before, published.facts.bytes())
                .then(|| fleet.with_published(namespace, published))
        });
    }

    fn forget_map(&self, namespace: &str, name: &str) {
        lock(&self.written).remove(&(namespace.to_owned(), name.to_owned()));
        self.update(|fleet| {
            let bytes = fleet.configmap(namespace, name).map(|map| map.facts.bytes());
            self.release(namespace, (Kind::ConfigMap, name), bytes.unwrap_or(0));
            bytes.map(|_| fleet.without_configmap(namespace, name))
        });
    }

    /// Whether an object that took `before` bytes may take `after`; a refusal is logged once for a namespace.
    pub fn admit(&self, namespace: &str, object: (Kind, &str), before: usize, after: usize) -> bool {
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
        let line = lock(&self.log).take(namespace, u64::try_from(clock::unix_seconds()).unwrap_or(0));
        if line == Line::Last {
            tracing::warn!(namespace, "further lines about this namespace are left out until the next minute");
        }
        line != Line::LeftOut
    }

    fn log_refused(&self, namespace: &str) {
        for refused in self.refused().into_iter().filter(|refused| refused.namespace == namespace) {
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

/// A client from the in-cluster configuration or KUBECONFIG, for a server: what it reads of others' objects is bounded.
///
/// # Errors
/// kube's, when there is neither.
pub async fn connect() -> Result<Client, kube::Error> {
    // kube takes rustls' process default; a second call finds the first one's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    Ok(ClientBuilder::try_from(config)?.with_layer(&Trimmed::default()).build())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a namespace's watches tell the one task that owns them all.
enum Told {
    /// Both kinds were listed.
    Listed(String),
    /// A list is refused for want of a right.
    Refused(String),
}

/// Watches until the process ends. What a StatefulSet's user should know goes to `notices`, without waiting, if given.
pub async fn follow(client: Client, observed: Arc<Observed>, notices: Option<events::Sender>) {
    let labelled = format!("{}={}", names::NAMESPACE_LABEL, names::INJECTION_ENABLED);
    let config = config("namespaces").labels(&labelled);
    let stream = watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), config).backoff(Patience::default());
    let mut stream = pin!(stream);
    let (tell, mut told) = mpsc::channel(64);
    let mut tracked = Tracked { client, observed: observed.clone(), notices, tasks: HashMap::new(), unlisted: BTreeSet::new(), tell };
    let mut fresh: Option<BTreeSet<String>> = None;
    let mut listed = false;
    loop {
        tokio::select! {
            event = stream.next() => match event {
                None => return,
                Some(Err(error)) => observed.watches.broke("namespaces", &error),
                Some(Ok(Event::Init)) => fresh = Some(BTreeSet::new()),
                Some(Ok(Event::InitApply(namespace))) => {
                    fresh.get_or_insert_default().insert(namespace.name_any());
                    tracked.add(namespace.name_any());
                }
                Some(Ok(Event::InitDone)) => {
                    tracked.keep(&fresh.take().unwrap_or_default()).await;
                    listed = true;
                    observed.watches.well("namespaces");
                }
                Some(Ok(Event::Apply(namespace))) => tracked.add(namespace.name_any()),
                Some(Ok(Event::Delete(namespace))) => tracked.remove(&namespace.name_any()).await,
            },
            Some(told) = told.recv() => match told {
                Told::Listed(namespace) => {
                    tracked.unlisted.remove(&namespace);
                    observed.rights.found(&namespace);
                }
                Told::Refused(namespace) => {
                    tracked.unlisted.remove(&namespace);
                    observed.rights.lost(&namespace, "the API server refuses its lists");
                }
            },
        }
        if listed && fresh.is_none() && tracked.unlisted.is_empty() && !observed.is_synced() {
            tracing::info!(namespaces = tracked.tasks.len(), "all labelled namespaces are listed");
            observed.synced.store(true, Relaxed);
        }
    }
}

struct Tracked {
    client: Client,
    observed: Arc<Observed>,
    notices: Option<events::Sender>,
    tasks: HashMap<String, JoinSet<()>>,
    unlisted: BTreeSet<String>,
    tell: mpsc::Sender<Told>,
}

impl Tracked {
    fn add(&mut self, namespace: String) {
        if self.tasks.contains_key(&namespace) || !self.observed.rights.watches(&namespace) {
            return;
        }
        tracing::info!(namespace, "watching a labelled namespace");
        self.unlisted.insert(namespace.clone());
        let mut tasks = JoinSet::new();
        let (observed, maps) = (self.observed.clone(), Maps::new(self.observed.clone(), namespace.clone()));
        let watches = Watches { observed, namespace: namespace.clone(), notices: self.notices.clone(), maps };
        tasks.spawn(watches.follow(self.client.clone(), self.tell.clone()));
        self.tasks.insert(namespace, tasks);
        self.publish();
    }

    async fn remove(&mut self, namespace: &str) {
        self.observed.rights.found(namespace);
        if let Some(mut tasks) = self.tasks.remove(namespace) {
            // Until they have ended: one in the middle of something would put a StatefulSet back.
            tasks.shutdown().await;
            tracing::info!(namespace, "the namespace is no longer labelled");
            self.unlisted.remove(namespace);
            lock(&self.observed.listed).remove(namespace);
            lock(&self.observed.written).retain(|(of, _), _| of != namespace);
            self.observed.update(|fleet| {
                let sets = fleet.statefulsets_of(namespace).map(Known::bytes).sum::<usize>();
                let maps = fleet.configmaps_of(namespace).map(|map| map.facts.bytes()).sum::<usize>();
                self.observed.release_all(namespace, &[Kind::StatefulSet, Kind::ConfigMap], sets + maps);
                Some(fleet.without_namespace(namespace))
            });
            self.publish();
        }
    }

    async fn keep(&mut self, labelled: &BTreeSet<String>) {
        let gone: Vec<String> = self.tasks.keys().filter(|namespace| !labelled.contains(*namespace)).cloned().collect();
        for namespace in gone {
            self.remove(&namespace).await;
        }
        self.observed.rights.keep(labelled);
    }

    fn publish(&self) {
        self.observed.namespaces.send_replace(self.tasks.keys().cloned().collect());
    }
}

/// The watches of one labelled namespace.
struct Watches {
    observed: Arc<Observed>,
    namespace: String,
    notices: Option<events::Sender>,
    maps: Maps,
}

impl Watches {
    /// Takes a StatefulSet over, and tells its user what is new about its plan where no refresher does.
    fn take(&self, set: &StatefulSet) {
        let name = set.name_any();
        self.observed.update(|fleet| {
            let next = fleet.with_statefulset(facts(&self.namespace, set))?;
            let bytes = |fleet: &Fleet| fleet.get(&self.namespace, &name).map_or(0, Known::bytes);
            if !self.observed.admit(&self.namespace, (Kind::StatefulSet, &name), bytes(fleet), bytes(&next)) {
                return None;
            }
            if let Some(notices) = self.notices.as_ref().filter(|_| may_run_store(containers(set))) {
                let before = fleet.known(&self.namespace, &name).remarks();
                for (reason, message) in next.known(&self.namespace, &name).remarks().into_iter().filter(|remark| !before.contains(remark))
                {
                    if self.observed.may_log(&self.namespace) {
                        tracing::warn!(namespace = self.namespace, statefulset = name, reason, "{message}");
                    }
                    let uid = set.uid().unwrap_or_default();
                    let notice = Notice { namespace: self.namespace.clone(), statefulset: name.clone(), uid, reason, message };
                    // A full queue drops the Event; the log has it, and /status shows it as long as it holds.
                    let _ = notices.try_send(notice);
                }
            }
            Some(next)
        });
        self.maps.set_is_known(&name);
    }

    fn drop(&self, name: &str) {
        self.observed.update(|fleet| {
            let bytes = fleet.get(&self.namespace, name).map(Known::bytes);
            self.observed.release(&self.namespace, (Kind::StatefulSet, name), bytes.unwrap_or(0));
            bytes.map(|_| fleet.without_statefulset(&self.namespace, name))
        });
    }

    async fn follow(self, client: Client, tell: mpsc::Sender<Told>) {
        let (observed, namespace) = (&self.observed, &self.namespace);
        let name = of_namespace("StatefulSets", namespace);
        let sets = watcher(Api::<Lean<StatefulSet>>::namespaced(client.clone(), namespace), config(&name));
        let (refused, known) = (Notify::new(), Notify::new());
        let note_refusal = |error: &watcher::Error| {
            if is_refusal(error) {
                refused.notify_one();
            }
        };
        let keep_sets = keep(
            sets.backoff(Patience::default()).inspect_err(note_refusal),
            &observed.watches,
            &name,
            || self.maps.sets_listed(),
            |Lean(set, cut)| {
                if cut {
                    observed.refuse(namespace, (Kind::StatefulSet, &set.name_any()), Why::TooLarge);
                } else {
                    self.take(&set);
                }
            },
            |name| self.drop(name),
            || observed.fleet.load().statefulsets_of(namespace).map(|known| known.facts().name.clone()).collect(),
        );
        // Both are told to the task that owns all watches, whose receiver lives as long as the process.
        let ready = async {
            observed.listed(namespace);
            known.notify_one();
            let _ = tell.send(Told::Listed(namespace.clone())).await;
        };
        let refusal = async {
            let lasting = async {
                refused.notified().await;
                sleep(REFUSED_FOR).await;
            };
            tokio::select! {
                biased;
                () = known.notified() => {}
                () = lasting => {
                    let _ = tell.send(Told::Refused(namespace.clone())).await;
                }
            }
        };
        tokio::join!(keep_sets, self.maps.follow(client, note_refusal, ready), refusal);
    }
}
