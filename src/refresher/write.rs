//! Every request that the refresher makes of the API server by itself: its writes, and the lists before some.
//!
//! Invariants: a write says what was seen, so that one that comes too late fails instead of undoing another's; each request
//! has a deadline; all take turns (`pace`); each write is counted by its outcome. What to write is decided
//! in core, and whether this replica leads is checked by who calls. Nothing is tried again here: the next look decides.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::core::{PartialObjectMeta, Status};
use kube::{Api, Client, ResourceExt as _};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::time::timeout;

use super::bodies;
use super::pace::Pace;
use super::trim;
use crate::adapters::lean::{Lean, Read};
use crate::core::budgets::BudgetWrite;
use crate::core::election;
use crate::core::names;
use crate::core::observed::{BudgetFacts, PodFacts, Selector};
use crate::core::owned::Owner;
use crate::core::printable::short_line;
use crate::core::shard_services::ServiceWrite;

/// One request takes at most this long, without its wait for a turn.
pub const DEADLINE: Duration = election::WRITE;
/// Objects in one answer, where little is kept of each.
const PAGE: u32 = 500;
/// Pods in one answer.
const PODS_PAGE: u32 = 100;
/// Answers to one list of a StatefulSet's pods.
const MAX_PAGES: usize = 40;

/// What is repeated of why the API server refused something. Characters.
const MAX_REASON_CHARS: usize = 500;

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is written; empty after a deletion.
    Done {
        /// The object's version after it.
        resource_version: String,
    },
    /// What was seen no longer holds, or the object is gone: look again.
    Conflict,
    /// There is a ConfigMap of that name that was not known of.
    AlreadyExists(Existing),
    /// Neither; a sentence. After a deadline it may have been written all the same.
    Failed(String),
}

/// A ConfigMap that was not known to be ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// For writes that fail when somebody else wrote in between.
    pub resource_version: String,
    /// Whether it may be written.
    pub claim: Claim,
    has_labels: bool,
}

/// Whose an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It has our label, and is seen soon.
    Ours,
    /// Its owner lets us take it over ([`names::ADOPT`]).
    Adoptable,
    /// Never to be touched.
    Foreign,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Written {
    kind: &'static str,
    outcome: &'static str,
}

/// Kinds of objects, by which writes are counted.
const KINDS: [&str; 5] = ["budget", "configmap", "pod", "service", "statefulset"];
/// What can become of one, as a label.
const OUTCOMES: [&str; 4] = ["done", "conflict", "exists", "failed"];

/// Writes for the refresher; share one, so that all requests take turns.
pub struct Writer {
    client: Client,
    pace: Pace,
    written: Family<Written, Counter>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// How a request's body is to be read.
#[derive(Clone, Copy)]
enum Media {
    Json,
    MergePatch,
    JsonPatch,
}

/// Why there is no answer.
enum Refused {
    Status(Box<Status>),
    Otherwise(String),
}

impl Writer {
    /// Registers the counter of writes.
    #[must_use]
    pub fn new(client: Client, registry: &mut Registry) -> Self {
        let written = Family::<Written, Counter>::default();
        // From 0 on: of a series that begins with 1 Prometheus sees no increase.
        for (kind, outcome) in KINDS
            .into_iter()
            .flat_map(|kind| OUTCOMES.map(|outcome| (kind, outcome)))
        {
            drop(written.get_or_create(&Written { kind, outcome }));
        }
        registry.register(
            "timeshard_refresher_writes",
            "Writes of the refresher by kind of object and outcome; look at RBAC and the log when failed grows, and for somebody else who writes the same objects when conflict keeps growing",
            written.clone(),
        );
        Self {
            client,
            pace: Pace::default(),
            written,
        }
    }

    /// Writes a `PodDisruptionBudget`.
    pub async fn budget(&self, namespace: &str, write: &BudgetWrite) -> Outcome {
        let all = format!("/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets");
        let answer = match write {
            BudgetWrite::Create(budget) => {
                self.create(&all, &bodies::budget(namespace, budget, None))
                    .await
            }
            BudgetWrite::Replace {
                resource_version,
                budget,
            } => {
                let body = bodies::budget(namespace, budget, Some(resource_version));
                self.send(
                    Method::PUT,
                    &format!("{all}/{}", budget.name),
                    Media::Json,
                    &body,
                )
                .await
            }
            BudgetWrite::Delete {
                name,
                resource_version,
            } => return self.delete("budget", &all, name, resource_version).await,
        };
        self.count("budget", outcome(answer))
    }

    /// Writes a shard's Service.
    pub async fn service(&self, namespace: &str, write: &ServiceWrite) -> Outcome {
        let all = format!("/api/v1/namespaces/{namespace}/services");
        let answer = match write {
            ServiceWrite::Create(service) => {
                self.create(&all, &bodies::service(namespace, service, None))
                    .await
            }
            ServiceWrite::Replace {
                resource_version,
                service,
            } => {
                let body = bodies::service(namespace, service, Some(resource_version));
                self.send(
                    Method::PUT,
                    &format!("{all}/{}", service.name),
                    Media::Json,
                    &body,
                )
                .await
            }
            ServiceWrite::Delete {
                name,
                resource_version,
            } => return self.delete("service", &all, name, resource_version).await,
        };
        self.count("service", outcome(answer))
    }

    /// Makes a StatefulSet's ConfigMap. Where there is one of that name, looks at it once and says whose it is.
    pub async fn create_map(
        &self,
        namespace: &str,
        name: &str,
        owner: &Owner,
        data: &BTreeMap<String, String>,
    ) -> Outcome {
        let all = format!("/api/v1/namespaces/{namespace}/configmaps");
        let made = self
            .create(&all, &bodies::map(namespace, name, owner, data))
            .await;
        let outcome = match made {
            Err(Refused::Status(status)) if status.code == 409 => {
                match self
                    .send(
                        Method::GET,
                        &format!("{all}/{name}"),
                        Media::Json,
                        &Value::Null,
                    )
                    .await
                {
                    Ok(there) => Outcome::AlreadyExists(existing(&there)),
                    refused => outcome(refused),
                }
            }
            made => outcome(made),
        };
        self.count("configmap", outcome)
    }

    /// Replaces the data and the owner of a ConfigMap with our label; its other labels and annotations stay.
    pub async fn replace_map(
        &self,
        namespace: &str,
        name: &str,
        resource_version: &str,
        owner: &Owner,
        data: &BTreeMap<String, String>,
    ) -> Outcome {
        let operations = bodies::map_patch(resource_version, true, owner, data);
        self.patch_map(namespace, name, operations).await
    }

    /// Sets the annotation [`names::SINGLE_HOLDERS`] of a ConfigMap of ours; an empty text removes it.
    pub async fn note_single_holders(
        &self,
        namespace: &str,
        name: &str,
        resource_version: &str,
        text: &str,
    ) -> Outcome {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        let body = bodies::single_holders(resource_version, text);
        self.count(
            "configmap",
            outcome(
                self.send(Method::PATCH, &path, Media::MergePatch, &body)
                    .await,
            ),
        )
    }

    /// Takes a ConfigMap over: its data is replaced by ours, its other labels and annotations stay. Writes nothing unless
    /// its owner allows it.
    pub async fn adopt_map(
        &self,
        namespace: &str,
        name: &str,
        existing: &Existing,
        owner: &Owner,
        data: &BTreeMap<String, String>,
    ) -> Outcome {
        if existing.claim == Claim::Foreign {
            let adopt = names::ADOPT;
            return Outcome::Failed(format!(
                "ConfigMap {name} is not ours; delete it, or annotate it with {adopt}: \"true\""
            ));
        }
        let operations =
            bodies::map_patch(&existing.resource_version, existing.has_labels, owner, data);
        self.patch_map(namespace, name, operations).await
    }

    /// Touches a pod, so that kubelet syncs its volumes now and not within a minute and a half, and gives it another shard
    /// label if asked to. Through the `status` subresource: a right to patch pods would let us replace any image.
    pub async fn hurry(
        &self,
        namespace: &str,
        pod: &str,
        uid: &str,
        shard: Option<&str>,
        at: DateTime<Utc>,
    ) -> Outcome {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/status");
        let body = bodies::hurry(uid, &at.to_rfc3339_opts(SecondsFormat::Millis, true), shard);
        let answer = self
            .send(Method::PATCH, &path, Media::MergePatch, &body)
            .await;
        self.count("pod", outcome(answer))
    }

    /// Removes the annotation [`names::TARGET_REPLICAS`] that said `value`, once `spec.replicas` is what it asked for: left there, it
    /// would hold the next scale-up back. It is the only write on StatefulSets, and goes through the `status` subresource: a right to
    /// patch StatefulSets would let us run any image under any ServiceAccount.
    pub async fn drop_target(
        &self,
        namespace: &str,
        statefulset: &str,
        uid: &str,
        value: &str,
        replicas: u32,
    ) -> Outcome {
        let path =
            format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{statefulset}/status");
        let answer = self
            .send(
                Method::PATCH,
                &path,
                Media::JsonPatch,
                &bodies::drop_target(uid, value, replicas),
            )
            .await;
        let outcome = match answer {
            // A test of the patch did not hold.
            Err(Refused::Status(status)) if status.code == 422 => Outcome::Conflict,
            answer => outcome(answer),
        };
        self.count("statefulset", outcome)
    }

    /// The pods of a selector that a StatefulSet owns, by name, as they are now: from the API server, not from a cache.
    ///
    /// # Errors
    /// A sentence, when they cannot be listed.
    pub async fn fresh_pods(
        &self,
        namespace: &str,
        selector: &Selector,
    ) -> Result<BTreeMap<String, PodFacts>, String> {
        let api = Api::<Lean<Pod>>::namespaced(self.client.clone(), namespace);
        let mut pods = BTreeMap::new();
        let mut params = ListParams::default()
            .labels(&bodies::selector_text(selector))
            .limit(PODS_PAGE);
        for _ in 0..MAX_PAGES {
            let (items, more) = self.page(&api, &params, "the list of pods").await?;
            pods.extend(
                items
                    .iter()
                    .filter_map(|Lean(pod, _)| trim::pod(pod))
                    .map(|pod| (pod.name.clone(), pod)),
            );
            let Some(token) = more else { return Ok(pods) };
            params = params.continue_token(&token);
        }
        Err(format!(
            "the list of pods has more than {} items",
            PODS_PAGE as usize * MAX_PAGES
        ))
    }

    /// The next page of budgets with our label, and how to go on after it: of the cluster, labelled namespaces or not, or of one
    /// namespace. Of each only its identity and its owner are read.
    ///
    /// # Errors
    /// A sentence, when they cannot be listed.
    pub async fn budgets_of_ours(
        &self,
        namespace: Option<&str>,
        from: Option<&str>,
    ) -> Result<(Vec<(String, BudgetFacts)>, Option<String>), String> {
        let params = ListParams::default()
            .labels(&format!(
                "{}={}",
                names::MANAGED_BY_LABEL,
                names::MANAGED_BY
            ))
            .limit(PAGE);
        let params = from.into_iter().fold(params, ListParams::continue_token);
        let client = self.client.clone();
        let api: Api<Lean<PodDisruptionBudget>> = namespace.map_or_else(
            || Api::all(client.clone()),
            |namespace| Api::namespaced(client.clone(), namespace),
        );
        let (items, more) = self.page(&api, &params, "the list of budgets").await?;
        let facts = |Lean(budget, _): Lean<PodDisruptionBudget>| {
            (
                budget.namespace().unwrap_or_default(),
                trim::budget(&budget),
            )
        };
        Ok((items.into_iter().map(facts).collect(), more))
    }

    /// How many other servers there are in a namespace that are not on their way out.
    ///
    /// # Errors
    /// A sentence, when they cannot be listed.
    pub async fn other_servers(&self, namespace: &str, own_pod: &str) -> Result<usize, String> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(names::SERVER_PODS).limit(PAGE);
        self.pace.turn().await;
        let pods = timeout(DEADLINE, api.list_metadata(&params)).await;
        let pods = pods
            .map_err(|_| late("the list of servers"))?
            .map_err(|error| error.to_string())?;
        let goes_on = |pod: &&PartialObjectMeta<Pod>| {
            pod.name_any() != own_pod && pod.metadata.deletion_timestamp.is_none()
        };
        Ok(pods.items.iter().filter(goes_on).count())
    }

    async fn page<K: Read>(
        &self,
        api: &Api<Lean<K>>,
        params: &ListParams,
        what: &str,
    ) -> Result<(Vec<Lean<K>>, Option<String>), String> {
        self.pace.turn().await;
        let page = timeout(DEADLINE, api.list(params)).await;
        let page = page
            .map_err(|_| late(what))?
            .map_err(|error| error.to_string())?;
        Ok((
            page.items,
            page.metadata.continue_.filter(|token| !token.is_empty()),
        ))
    }

    async fn create(&self, all: &str, body: &Value) -> Result<Value, Refused> {
        self.send(Method::POST, all, Media::Json, body).await
    }

    async fn delete(
        &self,
        kind: &'static str,
        all: &str,
        name: &str,
        resource_version: &str,
    ) -> Outcome {
        let answer = self
            .send(
                Method::DELETE,
                &format!("{all}/{name}"),
                Media::Json,
                &bodies::delete(resource_version),
            )
            .await;
        let outcome = match answer {
            // Gone is what was wanted.
            Err(Refused::Status(status)) if status.code == 404 => Outcome::Done {
                resource_version: String::new(),
            },
            Ok(_) => Outcome::Done {
                resource_version: String::new(),
            },
            answer => outcome(answer),
        };
        self.count(kind, outcome)
    }

    async fn patch_map(&self, namespace: &str, name: &str, operations: Vec<Value>) -> Outcome {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        let answer = self
            .send(
                Method::PATCH,
                &path,
                Media::JsonPatch,
                &Value::Array(operations),
            )
            .await;
        self.count("configmap", outcome(answer))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        media: Media,
        body: &Value,
    ) -> Result<Value, Refused> {
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
        let request = Request::builder()
            .method(&method)
            .uri(format!("{path}{manager}"))
            .header(CONTENT_TYPE, content_type)
            .body(bytes);
        let request =
            request.map_err(|error| Refused::Otherwise(format!("{method} {path}: {error}")))?;
        self.pace.turn().await;
        match timeout(DEADLINE, self.client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(Refused::Status(status)),
            Ok(Err(error)) => Err(Refused::Otherwise(format!("{method} {path}: {error}"))),
            Err(_) => Err(Refused::Otherwise(late(&format!("{method} {path}")))),
        }
    }

    fn count(&self, kind: &'static str, outcome: Outcome) -> Outcome {
        let [done, conflict, exists, failed] = OUTCOMES;
        let name = match &outcome {
            Outcome::Done { .. } => done,
            Outcome::Conflict => conflict,
            Outcome::AlreadyExists(_) => exists,
            Outcome::Failed(_) => failed,
        };
        self.written
            .get_or_create(&Written {
                kind,
                outcome: name,
            })
            .inc();
        outcome
    }
}

fn late(what: &str) -> String {
    format!(
        "{what}: no answer within {} s; look at the API server when this goes on",
        DEADLINE.as_secs()
    )
}

fn outcome(answer: Result<Value, Refused>) -> Outcome {
    match answer {
        Ok(object) => Outcome::Done {
            resource_version: text(&object["metadata"]["resourceVersion"]),
        },
        Err(Refused::Status(status)) if is_stale(&status) => Outcome::Conflict,
        Err(Refused::Status(status)) => Outcome::Failed(format!(
            "{} (HTTP {})",
            short_line(&status.message, MAX_REASON_CHARS),
            status.code
        )),
        Err(Refused::Otherwise(why)) => Outcome::Failed(why),
    }
}

/// Whether the object is another one than was seen. A patch with another UID is refused as a change of the UID.
fn is_stale(status: &Status) -> bool {
    let uid = || {
        status.details.as_ref().is_some_and(|details| {
            details
                .causes
                .iter()
                .any(|cause| cause.field == "metadata.uid")
        })
    };
    matches!(status.code, 404 | 409) || (status.code == 422 && uid())
}

fn existing(map: &Value) -> Existing {
    let metadata = &map["metadata"];
    let claim = if metadata["labels"][names::MANAGED_BY_LABEL] == names::MANAGED_BY {
        Claim::Ours
    } else if metadata["annotations"][names::ADOPT] == "true" {
        Claim::Adoptable
    } else {
        Claim::Foreign
    };
    Existing {
        resource_version: text(&metadata["resourceVersion"]),
        claim,
        has_labels: metadata["labels"].is_object(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
