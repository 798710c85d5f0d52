//! Labelled namespaces in which this server has no rights: known, reported once each, and otherwise left alone.
//!
//! A namespace is one of them because it is not in the server's [`Scope`], or because its lists are refused (403) for
//! [`REFUSED_FOR`]. Invariants: such a namespace never keeps the server from being ready, is watched with back-off or not at all, and its
//! pods are admitted untouched; admission reads it without a lock. Told in the log, on `/status`, by a metric, and by an Event on the
//! server's own pod, since no Event can be written in a namespace without rights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::core::names;
use crate::core::printable::short_line;
use crate::core::scope::Scope;

/// For how long the lists of a namespace must be refused. An API server that has just started refuses for a moment what it allows.
pub const REFUSED_FOR: Duration = Duration::from_secs(30);
/// Namespaces that are told by an Event each, in the life of a process.
const MAX_TOLD: usize = 50;
/// One Event takes at most this long.
const WRITE: Duration = Duration::from_secs(5);
/// Longest note. Characters; Kubernetes takes 1 kB.
const MAX_NOTE_CHARS: usize = 500;

/// In which labelled namespaces this server has no rights.
#[derive(Debug, Default)]
pub struct Rights {
    scope: Scope,
    /// By namespace, why.
    lacking: ArcSwap<BTreeMap<String, String>>,
    changed: Notify,
}

impl Rights {
    /// Nothing is lacking yet.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            ..Self::default()
        }
    }

    /// The namespaces that this server works in.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether this server has no rights in a labelled namespace.
    #[must_use]
    pub fn lacks(&self, namespace: &str) -> bool {
        self.lacking.load().contains_key(namespace)
    }

    /// By namespace, why there are no rights.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, String> {
        BTreeMap::clone(&self.lacking.load())
    }

    /// Whether a labelled namespace is to be watched. One that is not is reported.
    pub fn watches(&self, namespace: &str) -> bool {
        let contains = self.scope.contains(namespace);
        if !contains {
            self.lost(
                namespace,
                "it is not one of --namespaces (rbac.namespaces of the chart)",
            );
        }
        contains
    }

    /// There are no rights in a labelled namespace.
    pub fn lost(&self, namespace: &str, why: &str) {
        if self.lacks(namespace) {
            return;
        }
        tracing::warn!(
            namespace,
            why,
            "a namespace is labelled in which this server has no rights; {REMEDY}"
        );
        self.change(|all| drop(all.insert(namespace.to_owned(), why.to_owned())));
    }

    /// There are rights, or the namespace is no longer labelled.
    pub fn found(&self, namespace: &str) {
        if self.lacks(namespace) {
            self.change(|all| drop(all.remove(namespace)));
        }
    }

    /// Forgets every namespace that is not among these.
    pub fn keep(&self, labelled: &BTreeSet<String>) {
        if self
            .lacking
            .load()
            .keys()
            .any(|namespace| !labelled.contains(namespace))
        {
            self.change(|all| all.retain(|namespace, _| labelled.contains(namespace)));
        }
    }

    fn change(&self, change: impl Fn(&mut BTreeMap<String, String>)) {
        self.lacking.rcu(|all| {
            let mut all = BTreeMap::clone(all);
            change(&mut all);
            all
        });
        self.changed.notify_one();
    }
}

/// What people can do.
const REMEDY: &str =
    "its gateways are left as they are; give the server a Role there, or remove the label";

/// Whether the API server refused a watch for want of a right.
#[must_use]
pub fn is_refusal(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 403,
        watcher::Error::WatchError(status) => status.code == 403,
        _ => false,
    }
}

/// Tells of each namespace by an Event on the server's own pod, for as long as it is polled.
pub async fn tell(client: Client, rights: Arc<Rights>, (namespace, pod): (String, String)) {
    let recorder = Recorder::new(client, Reporter::from(names::MANAGED_BY));
    let mut told = BTreeSet::new();
    loop {
        for (lacking, why) in rights.all() {
            if told.len() >= MAX_TOLD || !told.insert(lacking.clone()) {
                continue;
            }
            let note = format!(
                "namespace {lacking} is labelled, and this server has no rights there: {why}; {REMEDY}"
            );
            let event = Event {
                type_: EventType::Warning,
                reason: "NoRights".to_owned(),
                note: Some(short_line(&note, MAX_NOTE_CHARS)),
                action: "Watch".to_owned(),
                secondary: Some(ObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Namespace".to_owned()),
                    name: Some(lacking),
                    ..ObjectReference::default()
                }),
            };
            let own = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(namespace.clone()),
                name: Some(pod.clone()),
                ..ObjectReference::default()
            };
            match timeout(WRITE, recorder.publish(&event, &own)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "an Event about a namespace without rights was not written")
                }
                Err(_) => tracing::warn!(
                    seconds = WRITE.as_secs(),
                    "an Event about a namespace without rights was not written in time"
                ),
            }
        }
        rights.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_lacking_until_it_is_found_or_no_longer_labelled() {
        let rights = Rights::new(Scope::parse("a,b").unwrap());
        assert!(rights.watches("a") && !rights.watches("c") && !rights.watches("d"));
        rights.lost("a", "refused");
        assert_eq!(rights.all().keys().collect::<Vec<_>>(), ["a", "c", "d"]);
        rights.found("a");
        rights.found("b");
        rights.keep(&["a", "b", "d"].map(str::to_owned).into());
        assert_eq!(rights.all().keys().collect::<Vec<_>>(), ["d"]);
        assert!(rights.lacks("d") && !rights.lacks("a"));
    }
}
