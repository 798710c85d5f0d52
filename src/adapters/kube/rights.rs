//! Labelled namespaces in which this server has no rights: each is reported once, and otherwise
//! skipped.
//!
//! That is, namespaces outside the server's [`Scope`], and those whose lists have been refused (403)
//! for [`REFUSED_FOR`]. Invariants: such a namespace never keeps the server from being ready, is
//! watched with back-off or not at all, and its pods are admitted unchanged; admission reads the
//! set without a lock. Reported in the log, on `/status`, by a metric, and by an Event on the
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

use crate::core::kube::scope::Scope;
use crate::core::model::names;
use crate::core::model::text::short_line;

/// How long the lists of a namespace must be refused. An API server that has just started may refuse
/// requests for a moment.
pub const REFUSED_FOR: Duration = Duration::from_secs(30);
/// Namespaces that get an Event, in the life of a process.
const MAX_EVENTS: usize = 50;
/// Deadline of writing one Event.
const WRITE: Duration = Duration::from_secs(5);
/// Longest note. Characters; Kubernetes accepts 1 kB.
const MAX_NOTE_CHARS: usize = 500;

#[derive(Debug, Default)]
pub struct Rights {
    scope: Scope,
    /// The reasons, by namespace.
    lacking: ArcSwap<BTreeMap<String, String>>,
    changed: Notify,
}

impl Rights {
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

    /// The reasons, by namespace.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, String> {
        BTreeMap::clone(&self.lacking.load())
    }

    /// Whether to watch a labelled namespace. If not, it is reported.
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

    /// Records and logs a labelled namespace without rights.
    pub fn lost(&self, namespace: &str, why: &str) {
        if self.lacks(namespace) {
            return;
        }
        tracing::warn!(
            namespace,
            why,
            "no rights in a labelled namespace; {REMEDY}"
        );
        self.change(|all| drop(all.insert(namespace.to_owned(), why.to_owned())));
    }

    /// Forgets a namespace: there are rights now, or it is no longer labelled.
    pub fn found(&self, namespace: &str) {
        if self.lacks(namespace) {
            self.change(|all| drop(all.remove(namespace)));
        }
    }

    /// Forgets all other namespaces.
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

const REMEDY: &str =
    "its gateways are left unchanged; give the server a Role there, or remove the label";

/// Whether the API server refused a watch for lack of a right.
#[must_use]
pub fn is_refusal(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code == 403,
        _ => false,
    }
}

/// Writes an Event on the server's own pod for each namespace, until it is dropped.
pub async fn notify(client: Client, rights: Arc<Rights>, (namespace, pod): (String, String)) {
    let recorder = Recorder::new(client, Reporter::from(names::MANAGED_BY));
    let mut notified = BTreeSet::new();
    loop {
        for (lacking, why) in rights.all() {
            if notified.len() >= MAX_EVENTS || !notified.insert(lacking.clone()) {
                continue;
            }
            let note = format!("no rights in the labelled namespace {lacking}: {why}; {REMEDY}");
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
                    tracing::warn!(%error, "failed to write an Event about a namespace without rights");
                }
                Err(_) => tracing::warn!(
                    seconds = WRITE.as_secs(),
                    "failed to write an Event about a namespace without rights in time"
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
