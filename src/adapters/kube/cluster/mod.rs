//! Watches of the labelled namespaces, turned into the [`Gateways`] that admission reads.
//!
//! Invariants: outside labelled namespaces only the namespaces' labels are watched; objects are
//! trimmed as they are read (`trimming_client`), and the memory for each namespace is bounded
//! (`core::fairness::memory`); a broken watch is restarted with back-off, and known objects stay in
//! force; a namespace without rights delays nothing (`rights`). Nothing is written here.

use std::collections::BTreeSet;
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
use tokio::time::sleep;

use super::events;
use super::facts::{containers, may_run_store, statefulset};
use super::partial::Partial;
use super::rights::{REFUSED_FOR, is_refusal};
use super::trimming_client::Trimmed;
use super::watch::{NamespaceTasks, Patience, config, keep, of_namespace};
use crate::core::admission::notice::ObjectEvent;
use crate::core::fairness::memory::{KeptKind, Why};
use crate::core::gateways::{Gateway, Gateways};
use crate::core::model::names;

mod entries;
mod maps;
mod metrics;
mod observed;
#[cfg(test)]
mod played;

use self::maps::EntryMaps;
pub use self::metrics::ObservedMetrics;
pub use self::observed::Observed;
use self::observed::lock;

/// A client for servers, from the in-cluster configuration or KUBECONFIG. It bounds how much of
/// each object is read.
///
/// # Errors
/// kube's, when there is neither.
pub async fn connect() -> Result<Client, kube::Error> {
    // kube uses rustls' process default; a second call fails and keeps the first one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = kube::Config::infer()
        .await
        .map_err(kube::Error::InferConfig)?;
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&Trimmed::default())
        .build())
}

/// Reports of a namespace's watches to the task that owns them.
enum NamespaceReport {
    /// StatefulSets and ConfigMaps were listed.
    Listed(String),
    /// Lists are refused for lack of a right.
    Refused(String),
}

/// Watches until the process ends. Events on StatefulSets go to `events`, if given, without
/// waiting.
pub async fn follow(client: Client, observed: Arc<Observed>, events: Option<events::Sender>) {
    let labelled = format!("{}={}", names::NAMESPACE_LABEL, names::INJECTION_ENABLED);
    let config = config("namespaces").labels(&labelled);
    let stream = watcher(
        Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
        config,
    )
    .backoff(Patience::default());
    let mut stream = pin!(stream);
    let (reports, mut received) = mpsc::channel(64);
    let mut tracked = Tracked {
        client,
        observed: observed.clone(),
        events,
        tasks: NamespaceTasks::default(),
        unlisted: BTreeSet::new(),
        reports,
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
            Some(report) = received.recv() => match report {
                NamespaceReport::Listed(namespace) => {
                    tracked.unlisted.remove(&namespace);
                    observed.rights.found(&namespace);
                }
                NamespaceReport::Refused(namespace) => {
                    tracked.unlisted.remove(&namespace);
                    observed.rights.lost(&namespace, "the API server refuses its lists");
                }
            },
        }
        if listed && fresh.is_none() && tracked.unlisted.is_empty() && !observed.is_synced() {
            tracing::info!(
                namespaces = tracked.tasks.namespaces().len(),
                "listed all labelled namespaces"
            );
            observed.synced.store(true, Relaxed);
        }
    }
}

struct Tracked {
    client: Client,
    observed: Arc<Observed>,
    events: Option<events::Sender>,
    tasks: NamespaceTasks,
    unlisted: BTreeSet<String>,
    reports: mpsc::Sender<NamespaceReport>,
}

impl Tracked {
    fn add(&mut self, namespace: String) {
        if self.tasks.contains(&namespace) || !self.observed.rights.watches(&namespace) {
            return;
        }
        tracing::info!(namespace, "watching labelled namespace");
        self.unlisted.insert(namespace.clone());
        let watches = NamespaceWatches {
            observed: self.observed.clone(),
            namespace: namespace.clone(),
            events: self.events.clone(),
            maps: EntryMaps::new(self.observed.clone(), namespace.clone()),
        };
        let follow = watches.follow(self.client.clone(), self.reports.clone());
        self.tasks.start(namespace, follow);
        self.publish();
    }

    async fn remove(&mut self, namespace: &str) {
        self.observed.rights.found(namespace);
        if self.tasks.stop(namespace).await {
            tracing::info!(namespace, "namespace no longer labelled");
            self.unlisted.remove(namespace);
            lock(&self.observed.listed).remove(namespace);
            lock(&self.observed.written).retain(|(of, _), _| of != namespace);
            self.observed.update(|fleet| {
                let sets = fleet
                    .statefulsets_of(namespace)
                    .map(Gateway::bytes)
                    .sum::<usize>();
                let maps = fleet
                    .configmaps_of(namespace)
                    .map(|map| map.facts.bytes())
                    .sum::<usize>();
                self.observed.release_all(
                    namespace,
                    &[KeptKind::StatefulSet, KeptKind::ConfigMap],
                    sets + maps,
                );
                Some(fleet.without_namespace(namespace))
            });
            self.publish();
        }
    }

    async fn keep(&mut self, labelled: &BTreeSet<String>) {
        for namespace in self.tasks.not_in(labelled) {
            self.remove(&namespace).await;
        }
        self.observed.rights.keep(labelled);
    }

    fn publish(&self) {
        self.observed
            .namespaces
            .send_replace(self.tasks.namespaces());
    }
}

struct NamespaceWatches {
    observed: Arc<Observed>,
    namespace: String,
    events: Option<events::Sender>,
    maps: EntryMaps,
}

impl NamespaceWatches {
    /// Stores a StatefulSet, and sends Events about its plan if no leader does.
    fn put(&self, set: &StatefulSet) {
        let name = set.name_any();
        self.observed.update(|fleet| {
            let next = fleet.with_statefulset(statefulset(&self.namespace, set))?;
            let bytes =
                |fleet: &Gateways| fleet.get(&self.namespace, &name).map_or(0, Gateway::bytes);
            if !self.observed.admit(
                &self.namespace,
                (KeptKind::StatefulSet, &name),
                bytes(fleet),
                bytes(&next),
            ) {
                return None;
            }
            if self.events.is_some() && may_run_store(containers(set)) {
                let before = fleet.known(&self.namespace, &name).remarks();
                let mut remarks = next.known(&self.namespace, &name).remarks();
                remarks.retain(|remark| !before.contains(remark));
                self.notify(set, remarks);
            }
            Some(next)
        });
        self.maps.set_is_known(&name);
    }

    fn notify(&self, set: &StatefulSet, remarks: Vec<(&'static str, String)>) {
        let Some(events) = &self.events else { return };
        for (reason, message) in remarks {
            let (namespace, statefulset) = (self.namespace.clone(), set.name_any());
            if self.observed.may_log(&namespace) {
                tracing::warn!(namespace, statefulset, reason, "{message}");
            }
            let event = ObjectEvent {
                namespace,
                statefulset,
                uid: set.uid().unwrap_or_default(),
                reason,
                message,
            };
            // A full queue drops the Event; the log has it, and /status shows it while it holds.
            let _ = events.try_send(event);
        }
    }

    fn drop(&self, name: &str) {
        self.observed.update(|fleet| {
            let bytes = fleet.get(&self.namespace, name).map(Gateway::bytes);
            self.observed.release(
                &self.namespace,
                (KeptKind::StatefulSet, name),
                bytes.unwrap_or(0),
            );
            bytes.map(|_| fleet.without_statefulset(&self.namespace, name))
        });
    }

    async fn follow(self, client: Client, reports: mpsc::Sender<NamespaceReport>) {
        let (observed, namespace) = (&self.observed, &self.namespace);
        let name = of_namespace("StatefulSets", namespace);
        let sets = watcher(
            Api::<Partial<StatefulSet>>::namespaced(client.clone(), namespace),
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
            |Partial(set, cut)| {
                if cut {
                    observed.refuse(
                        namespace,
                        (KeptKind::StatefulSet, &set.name_any()),
                        Why::TooLarge,
                    );
                } else {
                    self.put(&set);
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
        // The task that owns all watches receives reports as long as the process lives.
        let ready = async {
            observed.listed(namespace);
            known.notify_one();
            let _ = reports
                .send(NamespaceReport::Listed(namespace.clone()))
                .await;
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
                    let _ = reports.send(NamespaceReport::Refused(namespace.clone())).await;
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
