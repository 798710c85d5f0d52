//! Certificates without cert-manager: watches the Secret and the registrations, and carries out
//! the decisions of [`CertificateManager`].
//!
//! Invariants: every write names the version that was seen, and has a deadline; after a conflict
//! with another replica the current version is read; failures are retried every [`RETRY`], counted,
//! and logged once. Keys are in memory and in the Secret, never in a log or an error.
//!
//! Deliberately absent: leadership (admission needs its certificate on clusters without a leader,
//! too), and Secrets without timeshard's label, which are never touched.

mod issue;
mod objects;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use self::state::{CertificateState, SelfSignedMetrics};
use super::watch::{Patience, WatchHealth, config, keep};
use crate::adapters::causes::with_causes;
use crate::adapters::clock;
use crate::adapters::https::tls::Certificates;
use crate::core::certificates::{
    Anchor, CertificateManager, CertificateStore, Observation, Observations, RotationSettings,
    RotationStep, StoreChange,
};
use crate::core::model::names;

/// Deadline of one request.
const REQUEST: Duration = Duration::from_secs(10);
/// Pause after a failure.
pub const RETRY: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookKind {
    Mutating,
    Validating,
}

/// An object that registers timeshard's webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub kind: WebhookKind,
    pub name: String,
}

impl Registration {
    fn resource(&self) -> ApiResource {
        let (kind, plural) = match self.kind {
            WebhookKind::Mutating => (
                "MutatingWebhookConfiguration",
                "mutatingwebhookconfigurations",
            ),
            WebhookKind::Validating => (
                "ValidatingWebhookConfiguration",
                "validatingwebhookconfigurations",
            ),
        };
        ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind),
            plural,
        )
    }
}

/// The objects that hold or trust the certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateObjects {
    /// Namespace of the Secret.
    pub namespace: String,
    pub secret: String,
    /// Their caBundles are maintained.
    pub registrations: Vec<Registration>,
}

#[derive(Clone, Debug, Default)]
enum CachedObject {
    #[default]
    Unknown,
    Missing,
    There(Box<DynamicObject>),
}

/// The objects as last seen: the Secret, then the registrations.
type ObjectCache = Vec<CachedObject>;

struct WatchedObject {
    api: Api<DynamicObject>,
    name: String,
    /// Kind and name, for messages.
    what: String,
}

#[derive(Debug, thiserror::Error)]
enum RotationFailure {
    #[error("no answer within {} s", REQUEST.as_secs())]
    Late,
    #[error("{}", with_causes(.0))]
    Request(kube::Error),
    #[error(transparent)]
    Issue(#[from] issue::IssueError),
}

/// Maintains the Secret and the caBundles, and reloads `certificates` from the Secret, until the
/// future is dropped.
pub fn run(
    client: &Client,
    settings: RotationSettings,
    objects: CertificateObjects,
    certificates: Arc<Certificates>,
) -> (
    Arc<CertificateState>,
    impl Future<Output = ()> + Send + use<>,
) {
    let mut watched = vec![WatchedObject {
        api: Api::namespaced_with(client.clone(), &objects.namespace, &objects::secrets()),
        what: format!("Secret {}/{}", objects.namespace, objects.secret),
        name: objects.secret,
    }];
    for registration in objects.registrations {
        let resource = registration.resource();
        let what = format!("{} {}", resource.kind, registration.name);
        watched.push(WatchedObject {
            api: Api::all_with(client.clone(), &resource),
            name: registration.name,
            what,
        });
    }
    let (cache, changes) = watch::channel(vec![CachedObject::Unknown; watched.len()]);
    let state = Arc::new(CertificateState::new(
        certificates,
        watched.iter().map(|watched| watched.what.clone()).collect(),
    ));
    let (kept, origin) = (state.clone(), Instant::now());
    let work = async move {
        let follow = join_all(
            watched
                .iter()
                .enumerate()
                .map(|(index, watched)| follow(watched, index, &cache, &kept.watches)),
        );
        let mut work = Work {
            manager: CertificateManager::new(settings),
            watched: &watched,
            cache: &cache,
            changes,
            state: &kept,
            origin,
            last: None,
        };
        tokio::join!(follow, work.run());
    };
    (state, work)
}

/// Watches one object.
async fn follow(
    watched: &WatchedObject,
    index: usize,
    cache: &watch::Sender<ObjectCache>,
    health: &WatchHealth,
) {
    let put = |seen: CachedObject| {
        cache.send_modify(|cache| {
            if let Some(object) = cache.get_mut(index) {
                *object = seen;
            }
        });
    };
    let is_there = || matches!(cache.borrow().get(index), Some(CachedObject::There(_)));
    let one = config(&watched.what).fields(&format!("metadata.name={}", watched.name));
    keep(
        watcher(watched.api.clone(), one).backoff(Patience::default()),
        health,
        &watched.what,
        || {
            if !is_there() {
                put(CachedObject::Missing);
            }
        },
        |object| put(CachedObject::There(Box::new(object))),
        |_| put(CachedObject::Missing),
        || {
            if is_there() {
                vec![watched.name.clone()]
            } else {
                Vec::new()
            }
        },
    )
    .await;
}

struct Work<'a> {
    manager: CertificateManager,
    watched: &'a [WatchedObject],
    cache: &'a watch::Sender<ObjectCache>,
    changes: watch::Receiver<ObjectCache>,
    state: &'a CertificateState,
    /// Time zero of the manager's clock.
    origin: Instant,
    /// What was last written to the Secret, and when.
    last: Option<(StoreChange, Instant)>,
}

impl Work<'_> {
    async fn run(&mut self) {
        loop {
            let cache = self.changes.borrow_and_update().clone();
            let (observations, broken) = observe(&cache);
            let next = self
                .manager
                .decide(self.origin.elapsed(), clock::now(), &observations);
            self.state
                .observed(&observations, broken.as_deref(), next.serve.as_ref());
            let done = match &next.step {
                RotationStep::WaitUntil(at) => {
                    tokio::select! {
                        // The sender lives as long as this.
                        _ = self.changes.changed() => {}
                        () = sleep_until(self.origin + *at) => {}
                    }
                    continue;
                }
                RotationStep::Write(change) => self.write(change, &observations, &cache).await,
                RotationStep::Trust {
                    registration,
                    anchors,
                } => self.trust(registration + 1, anchors, &cache).await,
            };
            match done {
                Ok(()) => self.state.well(),
                Err(failure) => {
                    self.state.failed(&failure.to_string());
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn write(
        &mut self,
        change: &StoreChange,
        observations: &Observations,
        cache: &ObjectCache,
    ) -> Result<(), RotationFailure> {
        let again = |(last, at): &(StoreChange, Instant)| last == change && at.elapsed() < RETRY;
        if self.last.as_ref().is_some_and(again) {
            // Another client undoes the change immediately.
            sleep(RETRY).await;
        }
        self.last = Some((change.clone(), Instant::now()));
        let before = if let Observation::Holds(store) = &observations.secret {
            store.clone()
        } else {
            CertificateStore::default()
        };
        let (memory, settings) = (self.manager.memory(), self.manager.settings());
        let after = before.changed(
            change,
            settings,
            clock::now(),
            memory,
            &observations.bundled(),
            &mut issue::Mint,
        )?;
        let WatchedObject { api, name, .. } = &self.watched[0];
        let params = PostParams {
            field_manager: Some(names::MANAGED_BY.to_owned()),
            ..PostParams::default()
        };
        let answer = match cache.first() {
            // With the resourceVersion that was seen.
            Some(CachedObject::There(object)) => {
                let secret = objects::secret(Some((**object).clone()), name, &after);
                within(api.replace(name, &params, &secret)).await
            }
            _ => within(api.create(&params, &objects::secret(None, name, &after))).await,
        };
        if self.sent(0, answer).await? {
            self.state.written(change, &after);
        }
        Ok(())
    }

    async fn trust(
        &self,
        index: usize,
        anchors: &[Anchor],
        cache: &ObjectCache,
    ) -> Result<(), RotationFailure> {
        let (Some(CachedObject::There(object)), Some(watched)) =
            (cache.get(index), self.watched.get(index))
        else {
            return Ok(());
        };
        let patch = Patch::Merge(objects::trusting(object, anchors));
        let params = PatchParams {
            field_manager: Some(names::MANAGED_BY.to_owned()),
            ..PatchParams::default()
        };
        let answer = within(watched.api.patch(&watched.name, &params, &patch)).await;
        if self.sent(index, answer).await? {
            self.state.trusted(&watched.what, anchors.len());
        }
        Ok(())
    }

    /// Puts the result of a write into the cache; returns whether this write succeeded.
    async fn sent(
        &self,
        index: usize,
        answer: Result<DynamicObject, RotationFailure>,
    ) -> Result<bool, RotationFailure> {
        let (seen, written) = match answer {
            Ok(object) => (CachedObject::There(Box::new(object)), true),
            Err(RotationFailure::Request(kube::Error::Api(status)))
                if matches!(status.code, 404 | 409) =>
            {
                let refusal = RotationFailure::Request(kube::Error::Api(status));
                match within(self.watched[index].api.get_opt(&self.watched[index].name)).await? {
                    Some(object) => (CachedObject::There(Box::new(object)), false),
                    // It is missing and cannot be created: its namespace is missing or terminating.
                    None if matches!(
                        self.cache.borrow().get(index),
                        Some(CachedObject::Missing)
                    ) =>
                    {
                        return Err(refusal);
                    }
                    None => (CachedObject::Missing, false),
                }
            }
            Err(failure) => return Err(failure),
        };
        self.cache.send_modify(|cache| cache[index] = seen);
        Ok(written)
    }
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, RotationFailure> {
    timeout(REQUEST, request)
        .await
        .map_err(|_| RotationFailure::Late)?
        .map_err(RotationFailure::Request)
}

fn observe(cache: &ObjectCache) -> (Observations, Option<String>) {
    let mut broken = None;
    let secret = match cache.first() {
        None | Some(CachedObject::Unknown) => Observation::Unknown,
        Some(CachedObject::Missing) => Observation::Missing,
        Some(CachedObject::There(object)) => {
            let (observation, complaint) = objects::store(object);
            broken = complaint;
            observation
        }
    };
    let registration = |seen: &CachedObject| match seen {
        CachedObject::Unknown => Observation::Unknown,
        CachedObject::Missing => Observation::Missing,
        CachedObject::There(object) => objects::bundles(object),
    };
    (
        Observations {
            secret,
            registrations: cache.iter().skip(1).map(registration).collect(),
        },
        broken,
    )
}
