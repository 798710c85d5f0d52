//! The ConfigMaps with timeshard's label in one namespace: watched by metadata, and read one at a
//! time if they hold the entries of a known StatefulSet.
//!
//! Invariants: each change that the watch shows is followed by a read of the current version, one
//! read at a time, so no older version replaces a newer one; changes during a read become one read;
//! this process' own writes are not read, but for those beyond [`MAX_SEEN`]. A failed read is
//! repeated with back-off, and known entries stay in force. Data of other ConfigMaps is never read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Observed;
use super::entries::entries;
use crate::adapters::causes::with_causes;
use crate::adapters::kube::facts;
use crate::adapters::kube::partial::Partial;
use crate::adapters::kube::watch::{Patience, config, keep, of_namespace};
use crate::adapters::lock::lock;
use crate::core::fairness::memory::{KeptKind, Why, bytes_of, bytes_of_map};
use crate::core::gateways::Published;
use crate::core::model::names;

/// Names of labelled ConfigMaps that are kept for one namespace; beyond it a read tells whether one
/// exists.
const MAX_NAMES: usize = 10_000;
/// Changes that keep their metadata until they are read, and bytes of their annotations and owners.
/// Anyone in the namespace decides on both. Of any other the metadata is read again, too.
const MAX_SEEN: usize = 64;
const MAX_SEEN_BYTES: usize = 4 * 1024;
/// Changes within this time are read once. By then this process' own write is known, and need not be
/// read.
const BATCH: Duration = Duration::from_millis(25);
/// Rate at which a namespace's ConfigMaps are read once the server is ready.
const BYTES_PER_SECOND: usize = 4 * 1024 * 1024;
/// Deadline of one read, including its wait for a place.
const DEADLINE: Duration = Duration::from_secs(30);
/// Pause after a failed read, doubling to [`MAX_RETRY`].
const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// A ConfigMap without its data.
type MapMeta = PartialObjectMeta<ConfigMap>;

pub(super) struct EntryMaps {
    observed: Arc<Observed>,
    namespace: String,
    inner: Mutex<MapsState>,
    woken: Notify,
}

#[derive(Default)]
struct MapsState {
    /// Names of the labelled ConfigMaps.
    names: BTreeSet<String>,
    /// ConfigMaps to read, with their last metadata; see [`MAX_SEEN`].
    waiting: BTreeMap<String, Option<Box<MapMeta>>>,
    /// Whether StatefulSets and ConfigMaps were listed.
    listed: (bool, bool),
}

impl EntryMaps {
    pub(super) fn new(observed: Arc<Observed>, namespace: String) -> Self {
        Self {
            observed,
            namespace,
            inner: Mutex::default(),
            woken: Notify::new(),
        }
    }

    /// Runs until it is dropped. Awaits `ready` once all needed ConfigMaps were read after the first
    /// lists of both kinds, and calls `broke` with each error of the watch.
    pub(super) async fn follow(
        &self,
        client: Client,
        broke: impl Fn(&watcher::Error),
        ready: impl Future<Output = ()>,
    ) {
        tokio::join!(self.watch(client.clone(), broke), self.read(client, ready));
    }

    pub(super) fn sets_listed(&self) {
        lock(&self.inner).listed.0 = true;
        self.woken.notify_one();
    }

    /// Reads the ConfigMap of a StatefulSet that is known now.
    pub(super) fn set_is_known(&self, statefulset: &str) {
        let fleet = self.observed.fleet.load();
        let name = fleet
            .config()
            .operator
            .configmap_of(&self.namespace, statefulset);
        if fleet.get(&self.namespace, statefulset).is_some()
            && fleet.configmap(&self.namespace, &name).is_none()
        {
            let mut inner = lock(&self.inner);
            if inner.names.contains(&name) || inner.names.len() >= MAX_NAMES {
                inner.waiting.entry(name).or_default();
                self.woken.notify_one();
            }
        }
    }

    async fn watch(&self, client: Client, broke: impl Fn(&watcher::Error)) {
        let what = of_namespace("ConfigMaps", &self.namespace);
        let managed = format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY);
        let stream = watcher(
            Api::<MapMeta>::namespaced(client, &self.namespace),
            config(&what).labels(&managed),
        );
        let listed = || {
            lock(&self.inner).listed.1 = true;
            self.woken.notify_one();
        };
        let known = || {
            let inner = lock(&self.inner);
            let fleet = self.observed.fleet.load();
            let stored = fleet
                .configmaps_of(&self.namespace)
                .map(|map| map.facts.name.clone());
            inner.names.iter().cloned().chain(stored).collect()
        };
        let stream = stream.backoff(Patience::default()).inspect_err(broke);
        keep(
            stream,
            &self.observed.watches,
            &what,
            listed,
            |meta| self.seen(meta),
            |name| self.gone(name),
            known,
        )
        .await;
    }

    fn seen(&self, meta: MapMeta) {
        let name = meta.name_any();
        let fleet = self.observed.fleet.load();
        let is_read = fleet.reads_configmap(&self.namespace, &name);
        let stored = fleet
            .configmap(&self.namespace, &name)
            .map(|map| map.facts.resource_version.as_str());
        let is_new = is_read && stored != meta.metadata.resource_version.as_deref();
        let mut inner = lock(&self.inner);
        if inner.names.len() < MAX_NAMES {
            inner.names.insert(name.clone());
        }
        if is_new {
            let owners = meta.owner_references().iter();
            let owners = owners.map(|o| bytes_of([&o.api_version, &o.kind, &o.name, &o.uid]));
            let bytes = bytes_of_map(meta.annotations()) + owners.sum::<usize>();
            let keeps = inner.waiting.len() < MAX_SEEN && bytes < MAX_SEEN_BYTES;
            inner.waiting.insert(name, keeps.then(|| Box::new(meta)));
            self.woken.notify_one();
        }
    }

    fn gone(&self, name: &str) {
        let mut inner = lock(&self.inner);
        inner.names.remove(name);
        inner.waiting.remove(name);
        drop(inner);
        self.observed.forget_map(&self.namespace, name);
        self.woken.notify_one();
    }

    async fn read(&self, client: Client, ready: impl Future<Output = ()>) {
        let api = Api::<Partial<ConfigMap>>::namespaced(client, &self.namespace);
        let (mut failures, mut ready, mut last) = (0, Some(ready), String::new());
        let mut replaced = self.observed.replaced();
        let mut config = self.observed.fleet.load().shared_config();
        loop {
            // In turns: a ConfigMap that changes all the time does not block the others.
            let next = {
                let inner = lock(&self.inner);
                let after = inner
                    .waiting
                    .range::<str, _>((Bound::Excluded(last.as_str()), Bound::Unbounded))
                    .next();
                after
                    .or_else(|| inner.waiting.first_key_value())
                    .map(|(name, _)| name.clone())
            };
            let Some(name) = next else {
                if lock(&self.inner).listed == (true, true)
                    && let Some(ready) = ready.take()
                {
                    ready.await;
                }
                tokio::select! {
                    () = self.woken.notified() => {}
                    // The sender lives as long as `observed`.
                    _ = replaced.changed() => self.follow_config(&mut config),
                }
                continue;
            };
            if ready.is_none() {
                sleep(BATCH).await;
            }
            let Some(seen) = lock(&self.inner).waiting.remove(&name) else {
                continue;
            };
            last.clone_from(&name);
            match self.read_one(&api, &name, seen.as_deref()).await {
                Ok(bytes) => {
                    failures = 0;
                    if ready.is_none() {
                        sleep(
                            Duration::from_secs(1)
                                .mul_f64(to_f64(bytes) / to_f64(BYTES_PER_SECOND)),
                        )
                        .await;
                    }
                }
                Err(why) => {
                    self.observed.watches.failed(
                        &of_namespace("ConfigMaps", &self.namespace),
                        &format!("ConfigMap {name}: {why}"),
                    );
                    lock(&self.inner).waiting.entry(name).or_insert(seen);
                    sleep(RETRY.saturating_mul(1 << failures).min(MAX_RETRY)).await;
                    failures = (failures + 1).min(8);
                }
            }
        }
    }

    /// With a new configuration a StatefulSet may have another ConfigMap.
    fn follow_config(&self, config: &mut Arc<crate::core::config::Config>) {
        let fleet = self.observed.fleet.load();
        let now = fleet.shared_config();
        if !Arc::ptr_eq(config, &now) {
            *config = now;
            fleet
                .statefulsets_of(&self.namespace)
                .for_each(|known| self.set_is_known(&known.facts().name));
        }
    }

    /// Reads a ConfigMap; returns the size of its data in bytes.
    async fn read_one(
        &self,
        api: &Api<Partial<ConfigMap>>,
        name: &str,
        seen: Option<&MapMeta>,
    ) -> Result<usize, String> {
        let map = if let Some(map) = self.observed.written(&self.namespace, name, seen) {
            map
        } else {
            let answer = timeout(DEADLINE, api.get_opt(name)).await;
            let answer =
                answer.map_err(|_| format!("no answer within {} s", DEADLINE.as_secs()))?;
            match answer.map_err(|error| with_causes(&error))? {
                Some(Partial(map, false)) if facts::is_managed(&map.metadata) => map,
                Some(Partial(_, true)) => {
                    self.observed.refuse(
                        &self.namespace,
                        (KeptKind::ConfigMap, name),
                        Why::TooLarge,
                    );
                    return Ok(crate::adapters::kube::trimming_client::MAX_MAP_BYTES);
                }
                // The watch reports its removal.
                Some(_) | None => return Ok(0),
            }
        };
        let bytes = map
            .data
            .iter()
            .flatten()
            .map(|(key, text)| key.len() + text.len())
            .sum();
        let still_there = {
            let inner = lock(&self.inner);
            inner.names.contains(name) || inner.names.len() >= MAX_NAMES
        };
        if still_there {
            let entries = entries(&map, &self.observed);
            self.observed.keep_map(
                &self.namespace,
                Published {
                    facts: facts::configmap(map),
                    entries,
                },
            );
        }
        Ok(bytes)
    }
}

#[allow(clippy::cast_precision_loss, reason = "no ConfigMap has 2^53 bytes")]
const fn to_f64(bytes: usize) -> f64 {
    bytes as f64
}
