//! The HTTP side of admission: two routes, a bounded body, a deadline, and one outcome counted for every request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::guard::{Guarded, Outcome};
use super::metrics::Metrics;
use super::review::{Answer, Reviewer, Verdict};
use crate::adapters::events;
use crate::core::names;
use crate::core::notice::Notice;

/// The API server's largest object is 3 MiB; a review may carry it twice, and an envelope. Bytes.
pub const MAX_BODY_BYTES: usize = 7 * 1024 * 1024;
/// All bodies being read or decided at one time; more wait. A cap on each body alone would not bound memory. Bytes.
const MAX_BODY_BYTES_IN_FLIGHT: usize = 24 * 1024 * 1024;
/// A body that says it is no larger than this, as nearly all are, waits for none that is. Bytes.
const SMALL_BODY_BYTES: usize = 128 * 1024;
/// All of these being read or decided at one time. Bytes.
const SMALL_BODY_BYTES_IN_FLIGHT: usize = 8 * 1024 * 1024;
/// A request is answered or given up within this time; the webhook's own timeout is 5 s.
const DEADLINE: Duration = Duration::from_secs(4);

/// How long the rest of a body that was refused is read away.
const DISCARD: Duration = Duration::from_secs(1);

struct Shared {
    reviewer: Reviewer,
    metrics: Metrics,
    notices: Option<events::Sender>,
    body_bytes: Semaphore,
    small_body_bytes: Semaphore,
}

/// `POST /mutate` and `POST /guard`. Notices go to `notices` without waiting; when it is full they are counted and logged.
pub fn router(reviewer: Reviewer, metrics: Metrics, notices: Option<events::Sender>) -> Router {
    let (body_bytes, small_body_bytes) = (Semaphore::new(MAX_BODY_BYTES_IN_FLIGHT), Semaphore::new(SMALL_BODY_BYTES_IN_FLIGHT));
    let shared = Arc::new(Shared { reviewer, metrics, notices, body_bytes, small_body_bytes });
    Router::new().route(names::MUTATE_PATH, post(mutate)).route(names::GUARD_PATH, post(guard)).fallback(not_found).with_state(shared)
}

async fn not_found() -> Response {
    sentence(StatusCode::NOT_FOUND, format!("the webhooks are at POST {} and POST {}\n", names::MUTATE_PATH, names::GUARD_PATH))
}

async fn mutate(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let decide = |body: &[u8]| {
        let started = Instant::now();
        let answer = shared.reviewer.review(body);
        shared.respond(answer, started.elapsed())
    };
    answered(&shared, request, decide).await.unwrap_or_else(|(status, why)| {
        shared.metrics.ended(&Verdict::Error, Duration::ZERO);
        sentence(status, why)
    })
}

async fn guard(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let decide = |body: &[u8]| {
        let Guarded { body, outcome } = shared.reviewer.guard(body);
        shared.metrics.guarded(outcome);
        sent(body)
    };
    answered(&shared, request, decide).await.unwrap_or_else(|(status, why)| {
        shared.metrics.guarded(Outcome::Error);
        sentence(status, why)
    })
}

/// Has `decide` answer the request's body, if that is there in time and small enough.
async fn answered(
    shared: &Shared,
    request: Request<Body>,
    decide: impl FnOnce(&[u8]) -> Response,
) -> Result<Response, (StatusCode, String)> {
    match tokio::time::timeout(DEADLINE, read_and_decide(shared, request, decide)).await {
        Ok(answer) => answer,
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, format!("the request was not there within {} s\n", DEADLINE.as_secs()))),
    }
}

async fn read_and_decide(
    shared: &Shared,
    request: Request<Body>,
    decide: impl FnOnce(&[u8]) -> Response,
) -> Result<Response, (StatusCode, String)> {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let asks_first = request.headers().contains_key(header::EXPECT);
    let too_large = || (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {MAX_BODY_BYTES} bytes\n"));
    let mut body = request.into_body();
    if declared.is_some_and(|bytes| bytes > MAX_BODY_BYTES) {
        if !asks_first {
            discard(body).await;
        }
        return Err(too_large());
    }
    let small = declared.is_some_and(|bytes| bytes <= SMALL_BODY_BYTES);
    let budget = if small { &shared.small_body_bytes } else { &shared.body_bytes };
    let Some((body, _permit)) = read(&mut body, declared.unwrap_or(MAX_BODY_BYTES), budget).await? else {
        discard(body).await;
        return Err(too_large());
    };
    Ok(decide(&body))
}

/// Reads what is left for a while and keeps nothing: a client that is still writing when the connection closes loses
/// the answer.
async fn discard(mut body: Body) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(DISCARD, rest).await;
}

/// The whole body, with the permits for its bytes; `None` when it is larger than allowed or than it said. Bytes are
/// charged as they come, so that a client that only announces many holds up nobody.
async fn read<'a>(
    body: &mut Body,
    bytes: usize,
    budget: &'a Semaphore,
) -> Result<Option<(Bytes, Option<SemaphorePermit<'a>>)>, (StatusCode, String)> {
    let mut permits: Option<SemaphorePermit<'a>> = None;
    let mut first: Option<Bytes> = None;
    let mut all: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, format!("the body ended early: {error}\n")))?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.as_ref().map_or(all.len(), Bytes::len);
        if so_far + data.len() > bytes.min(MAX_BODY_BYTES) {
            return Ok(None);
        }
        // The semaphore is never closed.
        if let Ok(more) = budget.acquire_many(u32::try_from(data.len()).unwrap_or(u32::MAX)).await {
            match &mut permits {
                Some(permits) => permits.merge(more),
                None => permits = Some(more),
            }
        }
        match first.take() {
            None if all.is_empty() => first = Some(data),
            before => {
                // A body in one piece, which most are, is not copied; others are copied once, into room made once.
                if let Some(before) = before {
                    all.reserve_exact(bytes.min(so_far.saturating_mul(64)).max(so_far + data.len()));
                    all.extend_from_slice(&before);
                }
                all.extend_from_slice(&data);
            }
        }
    }
    Ok(Some((first.unwrap_or_else(|| Bytes::from(all)), permits)))
}

impl Shared {
    fn respond(&self, answer: Answer, took: Duration) -> Response {
        self.metrics.ended(&answer.verdict, took);
        // Of an owner that is not known one line is enough: whoever sends such a review chooses what stands in it.
        let lines = if answer.owner_known { answer.notices.len() } else { 1 };
        for notice in answer.notices.into_iter().take(lines) {
            self.notify(notice, answer.owner_known);
        }
        sent(answer.body)
    }

    fn notify(&self, notice: Notice, owner_known: bool) {
        let Notice { namespace, statefulset, reason, message, .. } = &notice;
        tracing::info!(namespace, statefulset, reason, owner_known, "{message}");
        if let Some(notices) = self.notices.as_ref().filter(|_| owner_known)
            && notices.try_send(notice).is_err()
        {
            self.metrics.notice_dropped();
        }
    }
}

/// The answer to a review, or why there is none.
fn sent(body: Result<Vec<u8>, String>) -> Response {
    match body {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(why) => {
            // The metric counts them; a line for each would let any client fill the log.
            tracing::debug!(why, "a request could not be answered");
            sentence(StatusCode::BAD_REQUEST, why + "\n")
        }
    }
}

fn sentence(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use serde_json::json;

    use super::*;
    use crate::core::config::Config;
    use crate::core::fleet::{Fleet, StatefulSetFacts};

    /// How many Events come of the review of a pod with time flags of its own that says to be of `store` with this UID.
    fn events_of(namespace: &str, uid: &str) -> usize {
        let (ns, store, known_uid) = ("ns".to_owned(), "store".to_owned(), "u-1".to_owned());
        let facts = StatefulSetFacts { namespace: ns, name: store, uid: known_uid, replicas: 6, ..StatefulSetFacts::default() };
        let fleet = Fleet::new(Arc::new(Config::default())).with_statefulset(facts).unwrap();
        let reviewer = Reviewer::new(Arc::new(ArcSwap::from_pointee(fleet)), || chrono::DateTime::UNIX_EPOCH);
        let (sender, mut receiver) = events::queue();
        let (body_bytes, small_body_bytes) = (Semaphore::new(1), Semaphore::new(1));
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let shared = Shared { reviewer, metrics, notices: Some(sender), body_bytes, small_body_bytes };
        let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": uid});
        let pod = json!({"metadata": {"name": "store-0", "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "t", "image": "thanos", "args": ["store", "--min-time=-1d"]}]}});
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "x", "kind": {"kind": "Pod"},
            "namespace": namespace, "operation": "CREATE", "object": pod}});
        let response = shared.respond(shared.reviewer.review(review.to_string().as_bytes()), Duration::ZERO);
        assert_eq!(response.status(), StatusCode::OK);
        std::iter::from_fn(|| receiver.try_recv()).count()
    }

    #[test]
    fn a_pod_in_a_namespace_without_rights_is_left_alone_with_a_warning() {
        let reviewer =
            Reviewer::new(Arc::new(ArcSwap::from_pointee(Fleet::new(Arc::new(Config::default())))), || chrono::DateTime::UNIX_EPOCH);
        let reviewer = reviewer.with_rights(Arc::new(|namespace| namespace == "closed"));
        let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "u"});
        let pod = json!({"metadata": {"name": "store-0", "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "t", "image": "thanos", "args": ["store"]}]}});
        for (namespace, patched) in [("closed", false), ("open", true)] {
            let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "x", "kind": {"kind": "Pod"},
                "namespace": namespace, "operation": "CREATE", "object": pod}});
            let answer = reviewer.review(review.to_string().as_bytes());
            let body: serde_json::Value = serde_json::from_slice(&answer.body.unwrap()).unwrap();
            let response = &body["response"];
            assert_eq!((&response["allowed"], response.get("patch").is_some()), (&json!(true), patched), "{namespace}");
            let warned =
                response["warnings"][0].as_str().is_some_and(|warning| warning.contains("the server has no rights in this namespace"));
            assert_eq!(warned, !patched, "{response}");
        }
    }

    #[test]
    fn only_a_known_owner_gets_events() {
        assert_eq!(events_of("ns", "u-1"), 1);
        for (namespace, uid) in [("kube-system", "u-1"), ("default", ""), ("ns", "u-2"), ("ns", ""), ("", "")] {
            assert_eq!(events_of(namespace, uid), 0, "{namespace} {uid}");
        }
    }
}
