//! Watches on the labelled namespaces, turned into the [`Fleet`] that admission reads.
//!
//! Invariants: nothing outside labelled namespaces is watched but the namespaces' own labels; objects are trimmed to what
//! admission needs as they come in; a watch that breaks is started again with back-off, and what was known stays in force; a namespace
//! without rights holds nothing up (`rights`). Nothing is written here.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::events;
use super::lean::Lean;
use super::rights::{REFUSED_FOR, Rights, is_refusal};
use super::store_words::may_run_store;
use super::watches::{Patience, WatchHealth, config, keep, of_namespace};
use crate::core::fleet::Fleet;
use crate::core::names;
use crate::core::notice::Notice;
use crate::core::scope::Scope;

mod entries;
mod facts;

use self::entries::entries;
pub use self::facts::selector;
use self::facts::{containers, facts};

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
}

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

/// A client from the in-cluster configuration or KUBECONFIG.
///
/// # Errors
/// kube's, when there is neither.
pub async fn connect() -> Result<Client, kube::Error> {
    // kube takes rustls' process default; a second call finds the first one's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_default().await
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
        let watches = Watches { observed: self.observed.clone(), namespace: namespace.clone(), notices: self.notices.clone() };
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
            self.observed.update(|fleet| Some(fleet.without_namespace(namespace)));
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
}

impl Watches {
    /// Takes a StatefulSet over, and tells its user what is new about its plan where no refresher does.
    fn take(&self, set: &StatefulSet) {
        let name = set.name_any();
        self.observed.update(|fleet| {
            let next = fleet.with_statefulset(facts(&self.namespace, set))?;
            if let Some(notices) = self.notices.as_ref().filter(|_| may_run_store(containers(set))) {
                let before = fleet.known(&self.namespace, &name).remarks();
                for (reason, message) in next.known(&self.namespace, &name).remarks().into_iter().filter(|remark| !before.contains(remark))
                {
                    tracing::warn!(namespace = self.namespace, statefulset = name, reason, "{message}");
                    let uid = set.uid().unwrap_or_default();
                    let notice = Notice { namespace: self.namespace.clone(), statefulset: name.clone(), uid, reason, message };
                    // A full queue drops the Event; the log has it, and /status shows it as long as it holds.
                    let _ = notices.try_send(notice);
                }
            }
            Some(next)
        });
    }

    async fn follow(self, client: Client, tell: mpsc::Sender<Told>) {
        let (observed, namespace) = (&self.observed, &self.namespace);
        let (sets_name, maps_name) = (of_namespace("StatefulSets", namespace), of_namespace("ConfigMaps", namespace));
        let sets = watcher(Api::<Lean<StatefulSet>>::namespaced(client.clone(), namespace), config(&sets_name));
        let ours = format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY);
        let maps = watcher(Api::<Lean<ConfigMap>>::namespaced(client, namespace), config(&maps_name).labels(&ours));
        let (set_listed, map_listed) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
        let refused = tokio::sync::Notify::new();
        let note_refusal = |error: &watcher::Error| {
            if is_refusal(error) {
                refused.notify_one();
            }
        };
        let keep_sets = keep(
            sets.backoff(Patience::default()).inspect_err(note_refusal),
            &observed.watches,
            &sets_name,
            || set_listed.notify_one(),
            |Lean(set)| self.take(&set),
            |name| observed.update(|fleet| Some(fleet.without_statefulset(namespace, name))),
            || {
                observed
                    .fleet
                    .load()
                    .statefulsets()
                    .filter(|known| known.facts().namespace == *namespace)
                    .map(|known| known.facts().name.clone())
                    .collect()
            },
        );
        let known_maps = Mutex::new(BTreeSet::new());
        let keep_maps = keep(
            maps.backoff(Patience::default()).inspect_err(note_refusal),
            &observed.watches,
            &maps_name,
            || map_listed.notify_one(),
            |Lean(map)| {
                known_maps.lock().unwrap_or_else(PoisonError::into_inner).insert(map.name_any());
                let entries = entries(&map, observed);
                observed.update(|fleet| Some(fleet.with_configmap(namespace, &map.name_any(), entries)));
            },
            |name| {
                known_maps.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                observed.update(|fleet| Some(fleet.without_configmap(namespace, name)));
            },
            || known_maps.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect(),
        );
        let listed = async {
            let mut both = pin!(async {
                set_listed.notified().await;
                map_listed.notified().await;
            });
            // The receiver lives as long as the process.
            let lasting = async {
                refused.notified().await;
                sleep(REFUSED_FOR).await;
            };
            tokio::select! {
                biased;
                () = &mut both => {}
                () = lasting => {
                    let _ = tell.send(Told::Refused(namespace.clone())).await;
                    both.await;
                }
            }
            let _ = tell.send(Told::Listed(namespace.clone())).await;
            std::future::pending::<()>().await;
        };
        tokio::join!(keep_sets, keep_maps, listed);
    }
}

/// Registered as a collector, so that the values are those of the scrape.
#[derive(Debug)]
pub struct ObservedMetrics(pub Arc<Observed>);

impl Collector for ObservedMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let mut gauge = |name, help, value: i64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        gauge("timeshard_namespaces", "Labelled namespaces that are watched", count(self.0.namespaces().len()))?;
        let fleet = self.0.fleet.load();
        gauge("timeshard_statefulsets", "StatefulSets known in labelled namespaces", count(fleet.statefulsets().count()))?;
        let refused = fleet.statefulsets().filter(|known| known.problem.is_some()).count();
        let help = "StatefulSets whose annotations were refused, so that the last good ones are in force; /status says why";
        gauge("timeshard_statefulsets_with_refused_annotations", help, count(refused))?;
        let help = "Labelled namespaces in which this server has no rights, so that their gateways are left as they are; the log and /status name them";
        gauge("timeshard_namespaces_without_rights", help, count(self.0.rights.all().len()))?;
        let help = "1 once every labelled namespace was listed; while 0 the server is not ready";
        gauge("timeshard_cache_synced", help, i64::from(self.0.is_synced()))?;
        let mut counter = |name, help, value: u64| {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        };
        let help = "Watches that broke; look at RBAC and the API server when it keeps growing";
        counter("timeshard_watch_errors", help, self.0.watches.broken())?;
        let help = "Entries of our ConfigMaps that could not be read; the log names them";
        counter("timeshard_unreadable_entries", help, self.0.bad_entries.load(Relaxed))
    }
}
