//! Requests to the API server: bounded, with a deadline, and with a reason where there is no answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use hyper::body::Bytes;
use hyper::{Request, Response, StatusCode, header};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::adapters::causes::with_causes;
use crate::adapters::http_client::{collect, within};
use crate::adapters::kube::server_status;
use crate::core::check::rights::{Denied, Right, Where};
use crate::core::check::{Got, Lack};

/// Deadline of one request, unless the user sets another.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Objects in a page.
const PAGE_OBJECTS: usize = 500;
/// Pages of one list.
const MAX_PAGES: usize = 100;
/// The largest answer. Bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Requests sent at a time.
pub(super) const CONCURRENT: usize = 8;
/// Namespaces in which a right is checked one by one.
const MAX_NAMESPACES: usize = 200;
/// Characters of an error message that are shown.
const MAX_SHOWN_CHARS: usize = 400;

/// Called with a description of each request.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// How much of an object is read.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Whole,
    /// Only metadata: a twentieth of a pod.
    Metadata,
}

#[derive(Clone)]
pub(super) struct Asker {
    pub(super) client: Client,
    pub(super) progress: Progress,
    /// Of one request.
    pub(super) deadline: Duration,
}

#[derive(Deserialize)]
struct ListPage<T> {
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(rename = "continue", default)]
    next: Option<String>,
}

/// Escapes a value for a query.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// The message of a refusal.
pub(super) fn shown(body: &[u8]) -> String {
    server_status::shown(body, MAX_SHOWN_CHARS)
}

impl Asker {
    pub(super) const fn new(client: Client, progress: Progress, deadline: Duration) -> Self {
        Self {
            client,
            progress,
            deadline,
        }
    }

    /// Sends a request; returns the answer whatever its status.
    pub(super) async fn send(
        &self,
        what: &str,
        request: Request<Body>,
    ) -> Got<(Response<()>, Bytes)> {
        (self.progress)(what);
        let exchange = async {
            let (head, body) = self
                .client
                .send(request)
                .await
                .map_err(|error| with_causes(&error))?
                .into_parts();
            Ok((
                Response::from_parts(head, ()),
                collect(body, MAX_ANSWER_BYTES).await?,
            ))
        };
        within(self.deadline, exchange)
            .await
            .map_err(|why| Lack::new(what, why))
    }

    async fn ask<T: DeserializeOwned>(&self, what: &str, request: Request<Body>) -> Got<Option<T>> {
        let (head, body) = self.send(what, request).await?;
        match head.status() {
            code if code.is_success() => serde_json::from_slice(&body)
                .map(Some)
                .map_err(|error| Lack::new(what, error)),
            StatusCode::NOT_FOUND => Ok(None),
            code => {
                let forbidden = code == StatusCode::FORBIDDEN || code == StatusCode::UNAUTHORIZED;
                Err(Lack {
                    what: what.to_owned(),
                    forbidden,
                    why: format!("{} ({})", shown(&body), code.as_u16()),
                })
            }
        }
    }

    /// Reads one object; `None` if it does not exist.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        what: impl AsRef<str>,
        path: impl AsRef<str>,
        form: Form,
    ) -> Got<Option<T>> {
        let (what, path) = (what.as_ref(), path.as_ref());
        self.ask(what, read(what, path, form, "PartialObjectMetadata")?)
            .await
    }

    /// Lists all objects of a kind, page by page; an unknown kind has none. `query` begins with `&`.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        what: impl AsRef<str>,
        path: impl AsRef<str>,
        query: &str,
        form: Form,
    ) -> Got<Vec<T>> {
        let (what, path) = (what.as_ref(), path.as_ref());
        let mut all = Vec::new();
        let mut next = String::new();
        for _ in 0..MAX_PAGES {
            let path = format!("{path}?limit={PAGE_OBJECTS}{query}{next}");
            let Some(page) = self
                .ask::<ListPage<T>>(what, read(what, &path, form, "PartialObjectMetadataList")?)
                .await?
            else {
                return Ok(all);
            };
            all.extend(page.items.unwrap_or_default());
            match page.metadata.next.filter(|token| !token.is_empty()) {
                None => return Ok(all),
                Some(token) => next = format!("&continue={}", escaped(&token)),
            }
        }
        Err(Lack::new(
            what,
            format!("there are more than {} of them", MAX_PAGES * PAGE_OBJECTS),
        ))
    }

    /// Lists all objects of a kind in the cluster or, if that is forbidden, in these namespaces.
    pub(super) async fn everywhere<T: DeserializeOwned>(
        &self,
        kind: &str,
        group: &str,
        namespaces: &[String],
        form: Form,
    ) -> Got<Vec<T>> {
        let all = self
            .list(
                format!("list {kind} of the cluster"),
                format!("{group}/{kind}"),
                "",
                form,
            )
            .await;
        let Err(refused) = &all else { return all };
        if !refused.forbidden || namespaces.is_empty() {
            return all;
        }
        let mut found = Vec::new();
        for namespace in namespaces {
            let what = format!("list {kind} in namespace {namespace}");
            found.extend(
                self.list(
                    &what,
                    format!("{group}/namespaces/{namespace}/{kind}"),
                    "",
                    form,
                )
                .await?,
            );
        }
        Ok(found)
    }

    /// Posts an object; returns the answer whatever its status.
    pub(super) async fn post(
        &self,
        what: &str,
        path: &str,
        body: &Value,
    ) -> Got<(StatusCode, Bytes)> {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string().into_bytes()));
        let (head, body) = self
            .send(what, request.map_err(|error| Lack::new(what, error))?)
            .await?;
        Ok((head.status(), body))
    }

    /// The rights that `account` (or the caller) lacks, as sentences.
    pub(super) async fn denied(
        &self,
        account: Option<&ServiceAccountRef>,
        rights: Vec<Right>,
        system: &str,
        labelled: &[String],
    ) -> Got<Denied> {
        let asked = rights.iter().map(|right| async move {
            let home = (right.place == Where::System).then_some(system);
            if self.may(account, right, home).await? {
                return Ok(Vec::new());
            }
            if right.place != Where::Labelled || labelled.is_empty() {
                return Ok(vec![(*right, home.map(str::to_owned))]);
            }
            // Roles in each namespace suffice.
            let mut refused = Vec::new();
            for namespace in labelled.iter().take(MAX_NAMESPACES) {
                if !self.may(account, right, Some(namespace)).await? {
                    refused.push((*right, Some(namespace.clone())));
                }
            }
            Ok(refused)
        });
        let all: Vec<Got<Vec<_>>> = stream::iter(asked).buffered(CONCURRENT).collect().await;
        let mut refused = Vec::new();
        for one in all {
            refused.extend(one?);
        }
        Ok(Denied::new(&rights, &refused))
    }

    async fn may(
        &self,
        account: Option<&ServiceAccountRef>,
        right: &Right,
        namespace: Option<&str>,
    ) -> Got<bool> {
        let (resource, subresource) = right
            .resource
            .split_once('/')
            .unwrap_or((right.resource, ""));
        let attributes = json!({"group": right.group, "resource": resource, "subresource": subresource, "verb": right.verb,
            "name": right.name.unwrap_or_default(), "namespace": namespace.unwrap_or_default()});
        let (kind, mut spec) = match account {
            None => ("SelfSubjectAccessReview", json!({})),
            Some(account) => ("SubjectAccessReview", account.spec()),
        };
        spec["resourceAttributes"] = attributes;
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
        let plural = format!("{}s", kind.to_ascii_lowercase());
        let what = format!("create {plural}.authorization.k8s.io");
        let (code, body) = self
            .post(
                &what,
                &format!("/apis/authorization.k8s.io/v1/{plural}"),
                &review,
            )
            .await?;
        if !code.is_success() {
            return Err(Lack {
                forbidden: code == StatusCode::FORBIDDEN,
                why: shown(&body),
                what,
            });
        }
        let answer: Value =
            serde_json::from_slice(&body).map_err(|error| Lack::new(&what, error))?;
        Ok(answer["status"]["allowed"] == json!(true))
    }
}

pub(super) struct ServiceAccountRef {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ServiceAccountRef {
    /// The user and groups of its token.
    fn spec(&self) -> Value {
        let Self { namespace, name } = self;
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ];
        let spec: BTreeMap<&str, Value> = [
            (
                "user",
                json!(format!("system:serviceaccount:{namespace}:{name}")),
            ),
            ("groups", json!(groups)),
        ]
        .into();
        json!(spec)
    }
}

fn read(what: &str, path: &str, form: Form, kind: &str) -> Got<Request<Body>> {
    let accept = match form {
        Form::Whole => "application/json".to_owned(),
        Form::Metadata => format!("application/json;as={kind};g=meta.k8s.io;v=v1"),
    };
    Request::get(path)
        .header(header::ACCEPT, accept)
        .body(Body::empty())
        .map_err(|error| Lack::new(what, error))
}
