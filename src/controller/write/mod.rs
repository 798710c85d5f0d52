//! Every request of the leader to the API server, apart from watches, the Lease and Events: its
//! writes, and the lists that some of them need.
//!
//! Invariants: a write names the version that was seen, so a late write fails instead of undoing
//! another client's; each request has a deadline; all take turns (`rate_limit`); each write is
//! counted by outcome. Core decides what to write, and the caller checks that this replica leads.
//! Nothing is retried here: the next reconcile decides.

mod bodies;
mod lists;
mod outcome;
mod rate_limit;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use kube::Client;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::time::timeout;

pub use self::outcome::{Existing, Ownership, WriteOutcome};
use self::outcome::{WriteRefused, existing, outcome};
use self::rate_limit::RateLimit;
use crate::core::election;
use crate::core::model::names;
use crate::core::rollout::budgets::BudgetWrite;
use crate::core::rollout::services::ServiceWrite;
use crate::core::rollout::shard_objects::{ObjectWrite, Owner, ShardObject};

/// Deadline of one request, without its wait for a turn.
pub const DEADLINE: Duration = election::WRITE;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: &'static str,
    outcome: &'static str,
}

const KINDS: [&str; 5] = ["budget", "configmap", "pod", "service", "statefulset"];

/// Sends requests for the leader. There is one, so that all requests take turns.
pub struct Writer {
    client: Client,
    rate_limit: RateLimit,
    written: Family<WriteLabels, Counter>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// Content type of a request.
#[derive(Clone, Copy)]
enum Media {
    Json,
    MergePatch,
    JsonPatch,
}

impl Writer {
    /// Registers the counter of writes.
    #[must_use]
    pub fn new(client: Client, registry: &mut Registry) -> Self {
        let written = Family::<WriteLabels, Counter>::default();
        // Prometheus sees no increase in a series that begins with 1.
        for kind in KINDS {
            for outcome in WriteOutcome::LABELS {
                drop(written.get_or_create(&WriteLabels { kind, outcome }));
            }
        }
        registry.register(
            "timeshard_refresher_writes",
            "Writes of the leader by kind of object and outcome. If failed grows, check RBAC and the log; if conflict keeps growing, check for another client that writes the same objects",
            written.clone(),
        );
        Self {
            client,
            rate_limit: RateLimit::default(),
            written,
        }
    }

    pub async fn budget(&self, namespace: &str, write: &BudgetWrite) -> WriteOutcome {
        let all = format!("/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets");
        let body = |budget: &_, version: Option<&str>| bodies::budget(namespace, budget, version);
        self.object("budget", &all, write, body).await
    }

    pub async fn service(&self, namespace: &str, write: &ServiceWrite) -> WriteOutcome {
        let all = format!("/api/v1/namespaces/{namespace}/services");
        let body =
            |service: &_, version: Option<&str>| bodies::service(namespace, service, version);
        self.object("service", &all, write, body).await
    }

    async fn object<T: ShardObject + Sync>(
        &self,
        kind: &'static str,
        all: &str,
        write: &ObjectWrite<T>,
        body: impl Fn(&T, Option<&str>) -> Value + Send,
    ) -> WriteOutcome {
        let path = format!("{all}/{}", write.name());
        let outcome = match write {
            ObjectWrite::Create(object) => {
                let body = body(object, None);
                outcome(self.send(Method::POST, all, Media::Json, &body).await)
            }
            ObjectWrite::Replace {
                resource_version,
                object,
            } => {
                let body = body(object, Some(resource_version));
                outcome(self.send(Method::PUT, &path, Media::Json, &body).await)
            }
            ObjectWrite::Delete {
                resource_version, ..
            } => {
                let body = bodies::delete(resource_version);
                let gone = WriteOutcome::Done {
                    resource_version: String::new(),
                };
                match self.send(Method::DELETE, &path, Media::Json, &body).await {
                    Ok(_) => gone,
                    // Already deleted.
                    Err(WriteRefused::Status(status)) if status.code == 404 => gone,
                    refused => outcome(refused),
                }
            }
        };
        self.count(kind, outcome)
    }

    /// Creates a StatefulSet's ConfigMap. If there is one of that name, reads it once and reports
    /// whose it is.
    pub async fn create_map(
        &self,
        namespace: &str,
        name: &str,
        owner: &Owner,
        data: &BTreeMap<String, String>,
    ) -> WriteOutcome {
        let all = format!("/api/v1/namespaces/{namespace}/configmaps");
        let body = bodies::map(namespace, name, owner, data);
        let outcome = match self.send(Method::POST, &all, Media::Json, &body).await {
            Err(WriteRefused::Status(status)) if status.code == 409 => {
                let path = format!("{all}/{name}");
                match self
                    .send(Method::GET, &path, Media::Json, &Value::Null)
                    .await
                {
                    Ok(map) => WriteOutcome::AlreadyExists(existing(&map)),
                    refused => outcome(refused),
                }
            }
            created => outcome(created),
        };
        self.count("configmap", outcome)
    }

    /// Replaces the data and the owner of a ConfigMap with timeshard's label; its other labels and
    /// annotations stay.
    pub async fn replace_map(
        &self,
        namespace: &str,
        name: &str,
        resource_version: &str,
        owner: &Owner,
        data: &BTreeMap<String, String>,
    ) -> WriteOutcome {
        let patch = bodies::map_patch(resource_version, true, owner, data);
        self.patch_map(namespace, name, Media::JsonPatch, &Value::Array(patch))
            .await
    }

    /// Sets the annotation [`names::SINGLE_HOLDERS`] of a ConfigMap; an empty text removes it.
    pub async fn note_single_holders(
        &self,
        namespace: &str,
        name: &str,
        resource_version: &str,
        text: &str,
    ) -> WriteOutcome {
        let patch = bodies::single_holders(resource_version, text);
        self.patch_map(namespace, name, Media::MergePatch, &patch)
            .await
    }

    /// Takes over a ConfigMap: replaces its data and owner; its other labels and annotations stay.
    /// Writes nothing unless its owner allows it.
    pub async fn adopt_map(
        &self,
        namespace: &str,
        name: &str,
        existing: &Existing,
        owner: &Owner,
        data: &BTreeMap<String, String>,
    ) -> WriteOutcome {
        if existing.claim == Ownership::Foreign {
            let adopt = names::ADOPT;
            return WriteOutcome::Failed(format!(
                "ConfigMap {name} is not managed by timeshard; delete it, or annotate it with {adopt}: \"true\""
            ));
        }
        let patch = bodies::map_patch(&existing.resource_version, existing.has_labels, owner, data);
        self.patch_map(namespace, name, Media::JsonPatch, &Value::Array(patch))
            .await
    }

    async fn patch_map(
        &self,
        namespace: &str,
        name: &str,
        media: Media,
        patch: &Value,
    ) -> WriteOutcome {
        let map = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        let answer = self.send(Method::PATCH, &map, media, patch).await;
        self.count("configmap", outcome(answer))
    }

    /// Touches a pod, so that kubelet syncs its volumes now instead of within a minute and a half,
    /// and sets its shard label if one is given. Through the `status` subresource: a right to patch
    /// pods would allow replacing any image.
    pub async fn nudge(
        &self,
        namespace: &str,
        pod: &str,
        uid: &str,
        shard: Option<&str>,
        at: DateTime<Utc>,
    ) -> WriteOutcome {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/status");
        let body = bodies::nudge(uid, &at.to_rfc3339_opts(SecondsFormat::Millis, true), shard);
        let answer = self
            .send(Method::PATCH, &path, Media::MergePatch, &body)
            .await;
        self.count("pod", outcome(answer))
    }

    /// Removes the annotation [`names::TARGET_REPLICAS`] with `value` once `spec.replicas` has
    /// reached it: left there, it would block the next scale-up. It is the only write on
    /// StatefulSets, and goes through the `status` subresource: a right to patch StatefulSets would
    /// allow running any image under any ServiceAccount.
    pub async fn drop_target(
        &self,
        namespace: &str,
        statefulset: &str,
        uid: &str,
        value: &str,
        replicas: u32,
    ) -> WriteOutcome {
        let path =
            format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{statefulset}/status");
        let body = bodies::drop_target(uid, value, replicas);
        let outcome = match self
            .send(Method::PATCH, &path, Media::JsonPatch, &body)
            .await
        {
            // A test of the patch failed.
            Err(WriteRefused::Status(status)) if status.code == 422 => WriteOutcome::Conflict,
            answer => outcome(answer),
        };
        self.count("statefulset", outcome)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        media: Media,
        body: &Value,
    ) -> Result<Value, WriteRefused> {
        let content_type = match media {
            Media::Json => "application/json",
            Media::MergePatch => "application/merge-patch+json",
            Media::JsonPatch => "application/json-patch+json",
        };
        let manager = if matches!(method, Method::GET | Method::DELETE) {
            String::new()
        } else {
            format!("?fieldManager={}", names::MANAGED_BY)
        };
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let failed = |why: String| WriteRefused::Otherwise(format!("{method} {path}: {why}"));
        let request = Request::builder()
            .method(&method)
            .uri(format!("{path}{manager}"))
            .header(CONTENT_TYPE, content_type)
            .body(bytes)
            .map_err(|error| failed(error.to_string()))?;
        self.rate_limit.turn().await;
        match timeout(DEADLINE, self.client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(WriteRefused::Status(status)),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(WriteRefused::Otherwise(late(&format!("{method} {path}")))),
        }
    }

    fn count(&self, kind: &'static str, outcome: WriteOutcome) -> WriteOutcome {
        let labels = WriteLabels {
            kind,
            outcome: outcome.label(),
        };
        self.written.get_or_create(&labels).inc();
        outcome
    }
}

fn late(request: &str) -> String {
    format!(
        "{request}: no answer within {} s; if this persists, check the API server",
        DEADLINE.as_secs()
    )
}
