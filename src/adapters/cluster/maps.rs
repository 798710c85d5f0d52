//! The ConfigMaps of ours in one labelled namespace: watched by their metadata, read one at a time where a known StatefulSet has its
//! windows there.
//!
//! Invariants: a change that is watched leads to a read of what stands there then, and only after it to the next one, so nothing
//! older ever follows something newer; changes that come while one is read become one read; what this process has written itself
//! is not read again. A read that fails is repeated, ever later, and what was known stays in force. Data of a ConfigMap that
//! nobody reads is never asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use crate::adapters::lean::Lean;
use crate::adapters::watches::{Patience, config, keep, of_namespace};
use crate::core::fleet::Published;
use crate::core::kept::{Kind, Why};
use crate::core::names;
use crate::core::observed::MapFacts;
use crate::core::single_holders;

/// ConfigMaps with our label whose names are remembered, in one namespace; of further ones it is asked whether they are there.
const MAX_NAMES: usize = 10_000;
/// Changes that come within this are read once. What this process writes is known by then, and need not be read.
const TOGETHER: Duration = Duration::from_millis(25);
/// How much of a namespace's ConfigMaps is read once the server is ready. Bytes a second.
const BYTES_PER_SECOND: usize = 4 * 1024 * 1024;
/// One read takes at most this long, its wait for a place included.
const DEADLINE: Duration = Duration::from_secs(30);
/// After a read that failed the next one waits this long, doubling to [`MAX_RETRY`].
const RETRY: Duration = Duration::from_millis(500);
/// The longest of these.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// A ConfigMap without its data.
type Meta = PartialObjectMeta<ConfigMap>;

/// The ConfigMaps of a namespace.
pub(super) struct Maps {
    observed: Arc<Observed>,
    namespace: String,
    inner: Mutex<Inner>,
    woken: Notify,
}

#[derive(Default)]
struct Inner {
    /// Those with our label.
    names: BTreeSet<String>,
    /// What is to be read, with what was seen of it last.
    waiting: BTreeMap<String, Option<Box<Meta>>>,
    /// Whether StatefulSets and ConfigMaps were listed.
    listed: (bool, bool),
}

impl Maps {
    pub(super) fn new(observed: Arc<Observed>, namespace: String) -> Self {
        Self {
            observed,
            namespace,
            inner: Mutex::default(),
            woken: Notify::new(),
        }
    }

    /// Follows them; calls `ready` once all that are needed were read, after the first list of both kinds, and `broke` with each
    /// error of the watch.
    pub(super) async fn follow(
        &self,
        client: Client,
        broke: impl Fn(&watcher::Error),
        ready: impl Future<Output = ()>,
    ) {
        tokio::join!(self.watch(client.clone(), broke), self.read(client, ready));
    }

    /// StatefulSets were listed.
    pub(super) fn sets_listed(&self) {
        self.lock().listed.0 = true;
        self.woken.notify_one();
    }

    /// A StatefulSet is known now: its windows may be here.
    pub(super) fn set_is_known(&self, statefulset: &str) {
        let fleet = self.observed.fleet.load();
        let name = fleet
            .config()
            .operator
            .configmap_of(&self.namespace, statefulset);
        if fleet.get(&self.namespace, statefulset).is_some()
            && fleet.configmap(&self.namespace, &name).is_none()
        {
            let mut inner = self.lock();
            if inner.names.contains(&name) || inner.names.len() >= MAX_NAMES {
                inner.waiting.entry(name).or_default();
                self.woken.notify_one();
            }
        }
    }

    async fn watch(&self, client: Client, broke: impl Fn(&watcher::Error)) {
        let what = of_namespace("ConfigMaps", &self.namespace);
        let ours = format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY);
        let stream = watcher(
            Api::<Meta>::namespaced(client, &self.namespace),
            config(&what).labels(&ours),
        );
        let listed = || {
            self.lock().listed.1 = true;
            self.woken.notify_one();
        };
        let known = || {
            let inner = self.lock();
            let fleet = self.observed.fleet.load();
            let held = fleet
                .configmaps_of(&self.namespace)
                .map(|map| map.facts.name.clone());
            inner.names.iter().cloned().chain(held).collect()
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

    fn seen(&self, meta: Meta) {
        let name = meta.name_any();
        let fleet = self.observed.fleet.load();
        let is_read = fleet.reads_configmap(&self.namespace, &name);
        let held = fleet
            .configmap(&self.namespace, &name)
            .map(|map| map.facts.resource_version.as_str());
        let is_news = is_read && held != meta.metadata.resource_version.as_deref();
        let mut inner = self.lock();
        if inner.names.len() < MAX_NAMES {
            inner.names.insert(name.clone());
        }
        if is_news {
            inner.waiting.insert(name, Some(Box::new(meta)));
            self.woken.notify_one();
        }
    }

    fn gone(&self, name: &str) {
        let mut inner = self.lock();
        inner.names.remove(name);
        inner.waiting.remove(name);
        drop(inner);
        self.observed.forget_map(&self.namespace, name);
        self.woken.notify_one();
    }

    async fn read(&self, client: Client, ready: impl Future<Output = ()>) {
        let api = Api::<Lean<ConfigMap>>::namespaced(client, &self.namespace);
        let (mut failures, mut ready, mut last) = (0, Some(ready), String::new());
        let mut replaced = self.observed.replaced();
        let mut config = self.observed.fleet.load().shared_config();
        loop {
            // In turns: one that changes all the time keeps no other waiting.
            let next = {
                let inner = self.lock();
                let after = inner
                    .waiting
                    .range::<str, _>((Bound::Excluded(last.as_str()), Bound::Unbounded))
                    .next();
                after
                    .or_else(|| inner.waiting.first_key_value())
                    .map(|(name, _)| name.clone())
            };
            let Some(name) = next else {
                if self.lock().listed == (true, true)
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
                sleep(TOGETHER).await;
            }
            let Some(seen) = self.lock().waiting.remove(&name) else {
                continue;
            };
            last.clone_from(&name);
            match self.one(&api, &name, seen.as_deref()).await {
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
                    self.lock().waiting.entry(name).or_insert(seen);
                    sleep(RETRY.saturating_mul(1 << failures).min(MAX_RETRY)).await;
                    failures = (failures + 1).min(8);
                }
            }
        }
    }

    /// With another configuration a StatefulSet may have its windows elsewhere.
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

    /// Reads one; gives the bytes of its data.
    async fn one(
        &self,
        api: &Api<Lean<ConfigMap>>,
        name: &str,
        seen: Option<&Meta>,
    ) -> Result<usize, String> {
        let written = seen.and_then(|meta| self.observed.written(&self.namespace, meta));
        let map = if let Some(map) = written {
            map
        } else {
            let answer = timeout(DEADLINE, api.get_opt(name)).await;
            let answer =
                answer.map_err(|_| format!("no answer within {} s", DEADLINE.as_secs()))?;
            match answer.map_err(|error| with_causes(&error))? {
                Some(Lean(map, false)) if is_ours(&map) => map,
                Some(Lean(_, true)) => {
                    self.observed
                        .refuse(&self.namespace, (Kind::ConfigMap, name), Why::TooLarge);
                    return Ok(crate::adapters::trimmed::MAX_MAP_BYTES);
                }
                // What it was is told by the watch.
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
            let inner = self.lock();
            inner.names.contains(name) || inner.names.len() >= MAX_NAMES
        };
        if still_there {
            let entries = entries(&map, &self.observed);
            self.observed.keep_map(
                &self.namespace,
                Published {
                    facts: facts(map),
                    entries,
                },
            );
        }
        Ok(bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a wait; 2^53 bytes are none that is read"
)]
const fn to_f64(bytes: usize) -> f64 {
    bytes as f64
}

fn is_ours(map: &ConfigMap) -> bool {
    map.labels()
        .get(names::MANAGED_BY_LABEL)
        .is_some_and(|value| value == names::MANAGED_BY)
}

/// What is kept of a ConfigMap of ours.
pub(super) fn facts(map: ConfigMap) -> MapFacts {
    let owner = map.metadata.owner_references.iter().flatten();
    let mut owner =
        owner.filter(|owner| owner.kind == "StatefulSet" && owner.api_version.starts_with("apps/"));
    MapFacts {
        name: map.name_any(),
        uid: map.uid().unwrap_or_default(),
        resource_version: map.resource_version().unwrap_or_default(),
        owner_uid: owner.next().map(|owner| owner.uid.clone()),
        single_holders: map
            .annotations()
            .get(names::SINGLE_HOLDERS)
            .filter(|text| text.len() <= single_holders::MAX_BYTES)
            .cloned(),
        data: map.data.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_configmap_is_cut_down() {
        let read =
            |object: Value| facts(serde_json::from_value::<Lean<ConfigMap>>(object).unwrap().0);
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "s"}]);
        let ours = read(
            json!({"metadata": {"name": "x", "uid": "u", "resourceVersion": "7", "ownerReferences": owner}, "data": {"store-0.yaml": "a"}}),
        );
        assert_eq!(
            (
                ours.uid.as_str(),
                ours.resource_version.as_str(),
                ours.owner_uid.as_deref()
            ),
            ("u", "7", Some("s"))
        );
        assert_eq!(
            ours.data,
            BTreeMap::from([("store-0.yaml".to_owned(), "a".to_owned())])
        );
        assert_eq!(ours.single_holders, None);
        let annotated = |text: &str| {
            read(json!({"metadata": {"annotations": {names::SINGLE_HOLDERS: text}}})).single_holders
        };
        assert_eq!(annotated("{}").as_deref(), Some("{}"));
        assert_eq!(
            annotated(&"x".repeat(40_000)),
            None,
            "none of ours is as long"
        );
    }
}
