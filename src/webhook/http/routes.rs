//! The HTTP routes of admission: bounded bodies, a deadline, and one outcome counted per request.
//!
//! In: a request. Out: a response, which carries the body's charge until it is written. The route's
//! [`Lane`] reads the body and calls back: a review of a pod goes to [`Reviewer::review`]. Next for
//! a review: `webhook/http/body.rs`.
//!
//! Invariant: each route has a [`Lane`] of its own, so requests to one never delay the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::body::{BodyRefusal, Lane};
use super::metrics::WebhookMetrics;
use crate::adapters::https::serve::BudgetClaim;
use crate::adapters::kube::events;
use crate::core::admission::notice::ObjectEvent;
use crate::core::model::names;
use crate::webhook::guard::{GuardOutcome, Guarded};
use crate::webhook::review::{ReviewAnswer, ReviewVerdict, Reviewer};

/// Deadline of a review; the webhook's own timeout is 5 s.
const MUTATE_DEADLINE: Duration = Duration::from_secs(4);
/// Deadline of the guard; the webhook's own timeout is 2 s.
const GUARD_DEADLINE: Duration = Duration::from_millis(1_800);

struct RouteState {
    reviewer: Reviewer,
    metrics: WebhookMetrics,
    notices: Option<events::Sender>,
    mutate: Lane,
    guard: Lane,
}

/// Returns the `AdmissionReview` to send, or a sentence for an HTTP 400.
type Decide = fn(&RouteState, &[u8]) -> Result<Vec<u8>, String>;

/// Serves `POST /mutate` and `POST /guard`. Events go to `notices` without waiting; when it is
/// full, they are only counted and logged.
pub fn router(
    reviewer: Reviewer,
    metrics: WebhookMetrics,
    notices: Option<events::Sender>,
) -> Router {
    let shared = Arc::new(RouteState {
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

async fn mutate(State(shared): State<Arc<RouteState>>, request: Request<Body>) -> Response {
    answered(
        &shared,
        &shared.mutate,
        MUTATE_DEADLINE,
        request,
        RouteState::review,
    )
    .await
    .unwrap_or_else(|(status, why)| {
        shared.metrics.ended(&ReviewVerdict::Error, Duration::ZERO);
        sentence(status, why)
    })
}

async fn guard(State(shared): State<Arc<RouteState>>, request: Request<Body>) -> Response {
    answered(
        &shared,
        &shared.guard,
        GUARD_DEADLINE,
        request,
        RouteState::guarded,
    )
    .await
    .unwrap_or_else(|(status, why)| {
        shared.metrics.guarded(GuardOutcome::Error);
        sentence(status, why)
    })
}

/// Has `decide` answer the request, if its body arrives in time and is small enough.
async fn answered(
    shared: &Arc<RouteState>,
    lane: &Lane,
    deadline: Duration,
    request: Request<Body>,
    decide: Decide,
) -> Result<Response, BodyRefusal> {
    let state = Arc::clone(shared);
    let decided = lane.decide(request, move |body| decide(&state, body));
    match tokio::time::timeout(deadline, decided).await {
        Ok(decided) => decided.map(|(answer, claim)| sent(answer, claim)),
        Err(_) => Err((
            StatusCode::REQUEST_TIMEOUT,
            format!("the request took longer than {} ms\n", deadline.as_millis()),
        )),
    }
}

impl RouteState {
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

    fn respond(&self, answer: ReviewAnswer, took: Duration) -> Result<Vec<u8>, String> {
        self.metrics.ended(&answer.verdict, took);
        // One line for an unknown owner: the sender of such a review chooses its text.
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

    fn notify(&self, notice: ObjectEvent, owner_known: bool) {
        let ObjectEvent {
            namespace,
            statefulset,
            reason,
            message,
            ..
        } = &notice;
        if self.reviewer.may_log(namespace, owner_known) {
            tracing::info!(namespace, statefulset, reason, owner_known, "{message}");
        }
        if let Some(notices) = self.notices.as_ref().filter(|_| owner_known)
            && notices.try_send(notice).is_err()
        {
            self.metrics.notice_dropped();
        }
    }
}

/// Sends the answer to a review, charged until it is written, or the reason for its absence.
fn sent(body: Result<Vec<u8>, String>, claim: BudgetClaim) -> Response {
    match body {
        Ok(body) => (
            [(header::CONTENT_TYPE, "application/json")],
            claim.answer(body),
        )
            .into_response(),
        Err(why) => {
            // Counted by the metric; at level info any client could fill the log.
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
    use crate::core::gateways::Gateways;
    use crate::core::kube::statefulset::StatefulSetFacts;

    /// Number of Events from the review of a pod with its own time flags that claims to belong to
    /// `store` with this UID.
    fn events_of(namespace: &str, uid: &str) -> usize {
        let (ns, store, known_uid) = ("ns".to_owned(), "store".to_owned(), "u-1".to_owned());
        let facts = StatefulSetFacts {
            namespace: ns,
            name: store,
            uid: known_uid,
            replicas: 6,
            ..StatefulSetFacts::default()
        };
        let fleet = Gateways::new(Arc::new(Config::default()))
            .with_statefulset(facts)
            .unwrap();
        let reviewer = Reviewer::new(Arc::new(ArcSwap::from_pointee(fleet)), || {
            chrono::DateTime::UNIX_EPOCH
        });
        let (sender, mut receiver) = events::queue();
        let metrics = WebhookMetrics::new(&mut prometheus_client::registry::Registry::default());
        let shared = RouteState {
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
    fn a_pod_in_a_namespace_without_rights_is_skipped_with_a_warning() {
        let reviewer = Reviewer::new(
            Arc::new(ArcSwap::from_pointee(Gateways::new(Arc::new(
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
