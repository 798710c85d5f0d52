//! Questions to the API server: bounded, with a deadline, and with a reason where there is no answer.

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
use tokio::time::timeout;

use super::super::causes::with_causes;
use super::super::http_client::collect;
use crate::core::check::rights::{Denied, Right, Where};
use crate::core::check::{Got, Lack};

/// One request takes at most this long.
const DEADLINE: Duration = Duration::from_secs(20);
/// Objects that are read at once.
const PAGE_OBJECTS: usize = 500;
/// Pages of one list that are read.
const MOST_PAGES: usize = 100;
/// The largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Requests that are under way at the same time.
pub(super) const CONCURRENT: usize = 8;
/// Namespaces in which a right is asked for one by one.
const MOST_NAMESPACES: usize = 200;
/// Characters of a foreign answer that are shown.
const SHOWN_CHARS: usize = 400;

/// Told what is being looked at.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// How an object is wanted.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Whole,
    /// Only its metadata: a twentieth of a pod.
    Metadata,
}

#[derive(Clone)]
pub(super) struct Asker {
    pub(super) client: Client,
    pub(super) progress: Progress,
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(rename = "continue", default)]
    next: Option<String>,
}

/// A value as part of a query.
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

/// The message of a Kubernetes Status, or how a foreign answer begins.
pub(super) fn shown(body: &[u8]) -> String {
    let message = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|status| Some(status["message"].as_str()?.to_owned()));
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN_CHARS)
        .collect()
}

fn lack(what: &str, why: impl std::fmt::Display) -> Lack {
    Lack {
        what: what.to_owned(),
        forbidden: false,
        why: why.to_string(),
    }
}

impl Asker {
    /// One request, whatever is answered.
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
        let late = |_| Err(format!("no answer within {} s", DEADLINE.as_secs()));
        timeout(DEADLINE, exchange)
            .await
            .unwrap_or_else(late)
            .map_err(|why: String| lack(what, why))
    }

    async fn ask<T: DeserializeOwned>(&self, what: &str, request: Request<Body>) -> Got<Option<T>> {
        let (head, body) = self.send(what, request).await?;
        match head.status() {
            code if code.is_success() => serde_json::from_slice(&body)
                .map(Some)
                .map_err(|error| lack(what, error)),
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

    /// One object; `None` when there is none.
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

    /// All objects of a kind, page by page; an unknown kind has none. `query` begins with `&`.
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
        for _ in 0..MOST_PAGES {
            let path = format!("{path}?limit={PAGE_OBJECTS}{query}{next}");
            let Some(page) = self
                .ask::<Page<T>>(what, read(what, &path, form, "PartialObjectMetadataList")?)
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
        Err(lack(
            what,
            format!("there are more than {} of them", MOST_PAGES * PAGE_OBJECTS),
        ))
    }

    /// All objects of a kind in the cluster, or, where that is forbidden, in these namespaces.
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

    /// Sends an object and reads what it became, whatever the status says.
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
            .send(what, request.map_err(|error| lack(what, error))?)
            .await?;
        Ok((head.status(), body))
    }

    /// Which of these rights `account` (or the caller) has not, as sentences.
    pub(super) async fn denied(
        &self,
        account: Option<&Account>,
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
            // Roles in each namespace do as well as one for the cluster.
            let mut refused = Vec::new();
            for namespace in labelled.iter().take(MOST_NAMESPACES) {
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
        account: Option<&Account>,
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
        let answer: Value = serde_json::from_slice(&body).map_err(|error| lack(&what, error))?;
        Ok(answer["status"]["allowed"] == json!(true))
    }
}

/// Whose rights are asked for.
pub(super) struct Account {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Account {
    /// As the API server sees it when it comes with its token.
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
        .map_err(|error| lack(what, error))
}
