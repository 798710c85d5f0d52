//! Watches on the labelled namespaces, turned into the [`Fleet`] that admission reads.
//!
//! Invariants: nothing outside labelled namespaces is watched but the namespaces' own labels; objects are trimmed to what
//! admission needs as they come in, before anything holds them (`trimmed`), and what is kept of a namespace is bounded
//! (`core::kept`); a watch that breaks is started again with back-off, and what was known stays in force; a namespace without rights
//! holds nothing up (`rights`). Nothing is written here.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Namespace;
use kube::client::ClientBuilder;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::events;
use super::lean::Lean;
use super::rights::{REFUSED_FOR, is_refusal};
use super::store_words::may_run_store;
use super::trimmed::Trimmed;
use super::watches::{Patience, config, keep, of_namespace};
use crate::core::fleet::{Fleet, Known};
use crate::core::kept::{Kind, Why};
use crate::core::names;
use crate::core::notice::Notice;

mod entries;
mod facts;
mod maps;
mod metrics;
mod observed;
#[cfg(test)]
mod played;

pub use self::facts::selector;
use self::facts::{containers, facts};
use self::maps::Maps;
pub use self::metrics::ObservedMetrics;
pub use self::observed::Observed;
use self::observed::lock;

/// A client from the in-cluster configuration or KUBECONFIG, for a server: what it reads of others' objects is bounded.
///
/// # Errors
/// kube's, when there is neither.
pub async fn connect() -> Result<Client, kube::Error> {
    // kube takes rustls' process default; a second call finds the first one's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = kube::Config::infer()
        .await
        .map_err(kube::Error::InferConfig)?;
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&Trimmed::default())
        .build())
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
    let stream = watcher(
        Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
        config,
    )
    .backoff(Patience::default());
    let mut stream = pin!(stream);
    let (tell, mut told) = mpsc::channel(64);
    let mut tracked = Tracked {
        client,
        observed: observed.clone(),
        notices,
        tasks: HashMap::new(),
        unlisted: BTreeSet::new(),
        tell,
    };
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
            tracing::info!(
                namespaces = tracked.tasks.len(),
                "all labelled namespaces are listed"
            );
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
        let (observed, maps) = (
            self.observed.clone(),
            Maps::new(self.observed.clone(), namespace.clone()),
        );
        let watches = Watches {
            observed,
            namespace: namespace.clone(),
            notices: self.notices.clone(),
            maps,
        };
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
                let sets = fleet
                    .statefulsets_of(namespace)
                    .map(Known::bytes)
                    .sum::<usize>();
                let maps = fleet
                    .configmaps_of(namespace)
                    .map(|map| map.facts.bytes())
                    .sum::<usize>();
                self.observed.release_all(
                    namespace,
                    &[Kind::StatefulSet, Kind::ConfigMap],
                    sets + maps,
                );
                Some(fleet.without_namespace(namespace))
            });
            self.publish();
        }
    }

    async fn keep(&mut self, labelled: &BTreeSet<String>) {
        let gone: Vec<String> = self
            .tasks
            .keys()
            .filter(|namespace| !labelled.contains(*namespace))
            .cloned()
            .collect();
        for namespace in gone {
            self.remove(&namespace).await;
        }
        self.observed.rights.keep(labelled);
    }

    fn publish(&self) {
        self.observed
            .namespaces
            .send_replace(self.tasks.keys().cloned().collect());
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
            if !self.observed.admit(
                &self.namespace,
                (Kind::StatefulSet, &name),
                bytes(fleet),
                bytes(&next),
            ) {
                return None;
            }
            if let Some(notices) = self
                .notices
                .as_ref()
                .filter(|_| may_run_store(containers(set)))
            {
                let before = fleet.known(&self.namespace, &name).remarks();
                for (reason, message) in next
                    .known(&self.namespace, &name)
                    .remarks()
                    .into_iter()
                    .filter(|remark| !before.contains(remark))
                {
                    if self.observed.may_log(&self.namespace) {
                        tracing::warn!(
                            namespace = self.namespace,
                            statefulset = name,
                            reason,
                            "{message}"
                        );
                    }
                    let uid = set.uid().unwrap_or_default();
                    let notice = Notice {
                        namespace: self.namespace.clone(),
                        statefulset: name.clone(),
                        uid,
                        reason,
                        message,
                    };
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
            self.observed.release(
                &self.namespace,
                (Kind::StatefulSet, name),
                bytes.unwrap_or(0),
            );
            bytes.map(|_| fleet.without_statefulset(&self.namespace, name))
        });
    }

    async fn follow(self, client: Client, tell: mpsc::Sender<Told>) {
        let (observed, namespace) = (&self.observed, &self.namespace);
        let name = of_namespace("StatefulSets", namespace);
        let sets = watcher(
            Api::<Lean<StatefulSet>>::namespaced(client.clone(), namespace),
            config(&name),
        );
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
                    observed.refuse(
                        namespace,
                        (Kind::StatefulSet, &set.name_any()),
                        Why::TooLarge,
                    );
                } else {
                    self.take(&set);
                }
            },
            |name| self.drop(name),
            || {
                observed
                    .fleet
                    .load()
                    .statefulsets_of(namespace)
                    .map(|known| known.facts().name.clone())
                    .collect()
            },
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
        tokio::join!(
            keep_sets,
            self.maps.follow(client, note_refusal, ready),
            refusal
        );
    }
}
