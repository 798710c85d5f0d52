//! The HTTP side of admission: two routes, a bounded body, a deadline, and one outcome counted for every request.
//!
//! Invariants: a body holds memory only after that was charged to its peer ([`Lane`]), and gives it back as soon as it stops
//! coming; each route has budgets of its own, so nothing that is sent to one holds up the other; a large review is decided on a
//! thread beside the runtime, one at a time on each route, peers in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::body::{Incoming, Lane, MAX_BODY_BYTES, Received, Refusal, discard};
use super::guard::{Guarded, Outcome};
use super::metrics::Metrics;
use super::review::{Answer, Reviewer, Verdict};
use crate::adapters::events;
use crate::adapters::serve::{Claim, Connection};
use crate::core::names;
use crate::core::notice::Notice;

/// A review is answered or given up within this time; the webhook's own timeout is 5 s.
const MUTATE_DEADLINE: Duration = Duration::from_secs(4);
/// The same for the guard, whose timeout is 2 s: later nobody waits for it.
const GUARD_DEADLINE: Duration = Duration::from_millis(1_800);

struct Shared {
    reviewer: Reviewer,
    metrics: Metrics,
    notices: Option<events::Sender>,
    mutate: Lane,
    guard: Lane,
}

/// Gives the `AdmissionReview` to send, or a sentence for an HTTP 400.
type Decide = fn(&Shared, &[u8]) -> Result<Vec<u8>, String>;

/// `POST /mutate` and `POST /guard`. Notices go to `notices` without waiting; when it is full they are counted and logged.
pub fn router(reviewer: Reviewer, metrics: Metrics, notices: Option<events::Sender>) -> Router {
    let shared = Arc::new(Shared {
        reviewer,
        metrics,
        notices,
        mutate: Lane::mutate(),
        guard: Lane::guard(),
    });
    Router::new()
        .route(names::MUTATE_PATH, post(mutate))
        .route(names::GUARD_PATH, post(guard))
        .fallback(not_found)
        .with_state(shared)
}

async fn not_found() -> Response {
    sentence(
        StatusCode::NOT_FOUND,
        format!(
            "the webhooks are at POST {} and POST {}\n",
            names::MUTATE_PATH,
            names::GUARD_PATH
        ),
    )
}

async fn mutate(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    answered(
        &shared,
        &shared.mutate,
        MUTATE_DEADLINE,
        request,
        Shared::review,
    )
    .await
    .unwrap_or_else(|(status, why)| {
        shared.metrics.ended(&Verdict::Error, Duration::ZERO);
        sentence(status, why)
    })
}

async fn guard(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    answered(
        &shared,
        &shared.guard,
        GUARD_DEADLINE,
        request,
        Shared::guarded,
    )
    .await
    .unwrap_or_else(|(status, why)| {
        shared.metrics.guarded(Outcome::Error);
        sentence(status, why)
    })
}

/// Has `decide` answer the request's body, if that is there in time and small enough.
async fn answered(
    shared: &Arc<Shared>,
    lane: &Lane,
    deadline: Duration,
    request: Request<Body>,
    decide: Decide,
) -> Result<Response, Refusal> {
    match tokio::time::timeout(deadline, read_and_decide(shared, lane, request, decide)).await {
        Ok(answer) => answer,
        Err(_) => Err((
            StatusCode::REQUEST_TIMEOUT,
            format!(
                "the request was not there within {} ms\n",
                deadline.as_millis()
            ),
        )),
    }
}

async fn read_and_decide(
    shared: &Arc<Shared>,
    lane: &Lane,
    request: Request<Body>,
    decide: Decide,
) -> Result<Response, Refusal> {
    let asks_first = request.headers().contains_key(header::EXPECT);
    let too_large = || {
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {MAX_BODY_BYTES} bytes\n"),
        )
    };
    let mut incoming = Incoming::of(request);
    if incoming.is_too_large() {
        if !asks_first {
            discard(incoming).await;
        }
        return Err(too_large());
    }
    let Some(Received { bytes, claim }) = incoming.read(lane).await? else {
        discard(incoming).await;
        return Err(too_large());
    };
    let (answer, claim) = if incoming.is_small() {
        (decide(shared, &bytes), claim)
    } else {
        aside(shared, lane, &incoming.connection, (bytes, claim), decide).await?
    };
    Ok(sent(answer, claim))
}

/// Decides beside the runtime, since a large body takes its time and everything else must go on. What is begun is finished, also
/// when nobody waits for it any more: the memory is charged until then, and the turn is taken.
async fn aside(
    shared: &Arc<Shared>,
    lane: &Lane,
    connection: &Connection,
    (bytes, claim): (Bytes, Claim),
    decide: Decide,
) -> Result<(Result<Vec<u8>, String>, Claim), Refusal> {
    let turn = lane.turn(connection).await;
    claim.keep();
    let shared = Arc::clone(shared);
    let decided = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let answer = decide(&shared, &bytes);
        drop(bytes);
        (answer, claim)
    });
    decided.await.map_err(|error| {
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the review could not be decided: {error}\n"),
        )
    })
}

impl Shared {
    fn review(&self, body: &[u8]) -> Result<Vec<u8>, String> {
        let started = Instant::now();
        let answer = self.reviewer.review(body);
        self.respond(answer, started.elapsed())
    }

    fn guarded(&self, body: &[u8]) -> Result<Vec<u8>, String> {
        let Guarded { body, outcome } = self.reviewer.guard(body);
        self.metrics.guarded(outcome);
        body
    }

    fn respond(&self, answer: Answer, took: Duration) -> Result<Vec<u8>, String> {
        self.metrics.ended(&answer.verdict, took);
        // Of an owner that is not known one line is enough: whoever sends such a review chooses what stands in it.
        let lines = if answer.owner_known {
            answer.notices.len()
        } else {
            1
        };
        for notice in answer.notices.into_iter().take(lines) {
            self.notify(notice, answer.owner_known);
        }
        answer.body
    }

    fn notify(&self, notice: Notice, owner_known: bool) {
        let Notice {
            namespace,
            statefulset,
            reason,
            message,
            ..
        } = &notice;
        tracing::info!(namespace, statefulset, reason, owner_known, "{message}");
        if let Some(notices) = self.notices.as_ref().filter(|_| owner_known)
            && notices.try_send(notice).is_err()
        {
            self.metrics.notice_dropped();
        }
    }
}

/// The answer to a review, charged until it is written, or why there is none.
fn sent(body: Result<Vec<u8>, String>, claim: Claim) -> Response {
    match body {
        Ok(body) => (
            [(header::CONTENT_TYPE, "application/json")],
            claim.answer(body),
        )
            .into_response(),
        Err(why) => {
            // The metric counts them; a line for each would let any client fill the log.
            tracing::debug!(why, "a request could not be answered");
            sentence(StatusCode::BAD_REQUEST, why + "\n")
        }
    }
}

fn sentence(status: StatusCode, text: String) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        text,
    )
        .into_response()
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
        let facts = StatefulSetFacts {
            namespace: ns,
            name: store,
            uid: known_uid,
            replicas: 6,
            ..StatefulSetFacts::default()
        };
        let fleet = Fleet::new(Arc::new(Config::default()))
            .with_statefulset(facts)
            .unwrap();
        let reviewer = Reviewer::new(Arc::new(ArcSwap::from_pointee(fleet)), || {
            chrono::DateTime::UNIX_EPOCH
        });
        let (sender, mut receiver) = events::queue();
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let shared = Shared {
            reviewer,
            metrics,
            notices: Some(sender),
            mutate: Lane::mutate(),
            guard: Lane::guard(),
        };
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": uid});
        let pod = json!({"metadata": {"name": "store-0", "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "t", "image": "thanos", "args": ["store", "--min-time=-1d"]}]}});
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "x", "kind": {"kind": "Pod"},
            "namespace": namespace, "operation": "CREATE", "object": pod}});
        shared.review(review.to_string().as_bytes()).unwrap();
        std::iter::from_fn(|| receiver.try_recv()).count()
    }

    #[test]
    fn a_pod_in_a_namespace_without_rights_is_left_alone_with_a_warning() {
        let reviewer = Reviewer::new(
            Arc::new(ArcSwap::from_pointee(Fleet::new(Arc::new(
                Config::default(),
            )))),
            || chrono::DateTime::UNIX_EPOCH,
        );
        let reviewer = reviewer.with_rights(Arc::new(|namespace| namespace == "closed"));
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "u"});
        let pod = json!({"metadata": {"name": "store-0", "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "t", "image": "thanos", "args": ["store"]}]}});
        for (namespace, patched) in [("closed", false), ("open", true)] {
            let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "x", "kind": {"kind": "Pod"},
                "namespace": namespace, "operation": "CREATE", "object": pod}});
            let answer = reviewer.review(review.to_string().as_bytes());
            let body: serde_json::Value = serde_json::from_slice(&answer.body.unwrap()).unwrap();
            let response = &body["response"];
            assert_eq!(
                (&response["allowed"], response.get("patch").is_some()),
                (&json!(true), patched),
                "{namespace}"
            );
            let warned = response["warnings"][0].as_str().is_some_and(|warning| {
                warning.contains("the server has no rights in this namespace")
            });
            assert_eq!(warned, !patched, "{response}");
        }
    }

    #[test]
    fn only_a_known_owner_gets_events() {
        assert_eq!(events_of("ns", "u-1"), 1);
        for (namespace, uid) in [
            ("kube-system", "u-1"),
            ("default", ""),
            ("ns", "u-2"),
            ("ns", ""),
            ("", ""),
        ] {
            assert_eq!(events_of(namespace, uid), 0, "{namespace} {uid}");
        }
    }
}
