//! Skipped pods whose user expected an injection: the HTTP response, Events and counts together.
//! Bodies that never end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use futures::stream::{self, StreamExt as _};
use http_body_util::BodyExt as _;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tower::Service as _;

use super::{WebhookMetrics, router};
use crate::adapters::kube::events;
use crate::core::admission::notice::ObjectEvent;
use crate::core::config::Config;
use crate::core::gateways::Gateways;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::names;
use crate::webhook::Reviewer;

/// The effects of one review.
struct Outcome {
    response: Value,
    events: Vec<ObjectEvent>,
    metrics: String,
}

/// Reviews a pod of the StatefulSet `ns/store`, which the server knows.
async fn review(spec: &Value, annotations: &Value, dry_run: bool) -> Outcome {
    review_with(&[], spec, annotations, dry_run).await
}

/// The same for a StatefulSet with annotations.
async fn review_with(
    on_the_set: &[(&str, &str)],
    spec: &Value,
    annotations: &Value,
    dry_run: bool,
) -> Outcome {
    let on_the_set = on_the_set.iter();
    let facts = StatefulSetFacts {
        namespace: "ns".to_owned(),
        name: "store".to_owned(),
        uid: "u-1".to_owned(),
        replicas: 6,
        annotations: on_the_set
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..StatefulSetFacts::default()
    };
    let fleet = Gateways::new(Arc::new(Config::default()))
        .with_statefulset(facts)
        .unwrap();
    let reviewer = Reviewer::new(Arc::new(ArcSwap::from_pointee(fleet)), || {
        chrono::DateTime::UNIX_EPOCH
    });
    let mut registry = Registry::default();
    let metrics = WebhookMetrics::new(&mut registry);
    let (sender, mut receiver) = events::queue();
    let owner =
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "u-1"});
    let pod = json!({"metadata": {"name": "store-0", "annotations": annotations, "ownerReferences": [owner]}, "spec": spec});
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "x", "kind": {"kind": "Pod"},
        "namespace": "ns", "operation": "CREATE", "dryRun": dry_run, "object": pod}});
    let request = Request::post("/mutate")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = router(reviewer, metrics, Some(sender))
        .call(request)
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let answer: Value =
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    Outcome {
        response: answer["response"].clone(),
        events: std::iter::from_fn(|| receiver.try_recv()).collect(),
        metrics: text,
    }
}

const COUNT: &str =
    "timeshard_admission_requests_total{outcome=\"skipped\",reason=\"wrapper\"} 1\n";

/// Members of one kind: a program that is not thanos, or whose name does not say so, starts it.
fn wrapped() -> [Value; 12] {
    let image = "quay.io/thanos/thanos:v0.42.4";
    let container = |command: &[&str], args: &[&str]| json!({"containers": [{"name": "t", "image": image, "command": command, "args": args}]});
    [
        container(
            &["/bin/sh", "/etc/gw/start.sh"],
            &["store", "--data-dir=/d"],
        ),
        container(&["/bin/sh", "-c", "exec thanos store --data-dir=/d"], &[]),
        container(
            &["/bin/bash", "-ec"],
            &["ulimit -n 1024\nexec /bin/thanos \\\n  store --data-dir=/d"],
        ),
        container(
            &["/usr/bin/dumb-init", "--", "/bin/thanos", "store"],
            &["--data-dir=/d"],
        ),
        container(&["/sbin/tini", "--"], &["thanos", "store", "--data-dir=/d"]),
        container(&["/usr/bin/env", "GOGC=50", "thanos", "store"], &[]),
        container(&["python3", "/run.py"], &["store", "--data-dir=/d"]),
        container(
            &["/usr/local/bin/thanos-v0.42"],
            &["store", "--data-dir=/d"],
        ),
        container(
            &["/entrypoint"],
            &["--log.level=debug", "store", "--data-dir=/d"],
        ),
        container(
            &["/vault/vault-env", "/bin/thanos"],
            &["store", "--data-dir=/d"],
        ),
        // No command: the image's entry point gets a program to start.
        json!({"containers": [{"name": "t", "image": image, "args": ["gosu", "1001", "thanos", "store", "--data-dir=/d"]}]}),
        // An ordinary container next to it.
        json!({"containers": [
            {"name": "proxy", "image": "envoy:v1", "args": ["-c", "/etc/envoy.yaml"]},
            {"name": "t", "image": image, "command": ["/bin/sh", "/run.sh"], "args": ["store"]}]}),
    ]
}

#[tokio::test]
async fn a_wrapped_thanos_is_skipped_with_a_warning_an_event_and_a_count() {
    for spec in wrapped() {
        let Outcome {
            response,
            events,
            metrics,
        } = review(&spec, &json!({}), false).await;
        assert_eq!(response["allowed"], true, "{spec}");
        assert!(response.get("patch").is_none(), "{spec}");
        let warnings = response["warnings"]
            .as_array()
            .unwrap_or_else(|| panic!("no warning: {spec}"));
        let warning = warnings[0].as_str().unwrap();
        assert!(
            warnings.len() == 1 && warning.starts_with("thanos-timeshard skipped this pod: "),
            "{spec}: {warning}"
        );
        let [
            ObjectEvent {
                namespace,
                statefulset,
                uid,
                reason,
                message,
            },
        ] = events.as_slice()
        else {
            panic!("{spec}: {events:?}")
        };
        assert_eq!(
            [namespace, statefulset, uid, *reason],
            ["ns", "store", "u-1", "NotInjected"],
            "{spec}"
        );
        assert!(
            message.starts_with(warning.trim_end_matches('…')),
            "{spec}: {message}"
        );
        assert!(metrics.contains(COUNT), "{spec}: {metrics}");
    }
}

#[tokio::test]
async fn a_dry_run_of_a_wrapped_thanos_has_no_event() {
    for spec in wrapped() {
        let Outcome {
            response,
            events,
            metrics,
        } = review(&spec, &json!({}), true).await;
        assert!(
            response["warnings"].is_array() && metrics.contains(COUNT),
            "{spec}"
        );
        assert_eq!(events, [], "{spec}");
    }
}

#[tokio::test]
async fn pods_of_an_opted_out_statefulset_are_skipped_silently() {
    let store = json!({"containers": [{"name": "t", "image": "thanos", "args": ["store"]}]});
    // Neither what admission would inject nor what would surprise another user.
    for spec in wrapped().into_iter().chain([store.clone()]) {
        let Outcome {
            response,
            events,
            metrics,
        } = review_with(&[(names::MANAGED, "false")], &spec, &json!({}), false).await;
        assert_eq!(response["allowed"], true, "{spec}");
        assert!(
            response.get("warnings").is_none()
                && response.get("patch").is_none()
                && events.is_empty(),
            "{spec}: {response} {events:?}"
        );
        assert!(
            metrics.contains("{outcome=\"skipped\",reason=\"statefulset_opted_out\"} 1\n"),
            "{spec}: {metrics}"
        );
    }
    for value in ["true", "no"] {
        let outcome = review_with(&[(names::MANAGED, value)], &store, &json!({}), false).await;
        assert!(outcome.response["patch"].is_string(), "{value}");
    }
}

#[tokio::test]
async fn programs_that_do_not_start_a_store_are_skipped_silently() {
    for spec in [
        json!({"containers": [{"name": "q", "image": "thanos", "command": ["/bin/sh", "/run.sh"], "args": ["query"]}]}),
        json!({"containers": [{"name": "q", "image": "thanos", "args": ["receive"]}]}),
        json!({"containers": [{"name": "m", "image": "minio", "command": ["/bin/sh", "-c", "minio server /data"]}]}),
    ] {
        let Outcome {
            response,
            events,
            metrics,
        } = review(&spec, &json!({}), false).await;
        assert!(
            response.get("warnings").is_none() && events.is_empty(),
            "{spec}: {response} {events:?}"
        );
        assert!(
            metrics.contains("{outcome=\"skipped\",reason=\"no_store\"} 1\n"),
            "{spec}: {metrics}"
        );
    }
}

fn webhook() -> Router {
    let gateways = Gateways::new(Arc::new(Config::default()));
    let reviewer = Reviewer::new(Arc::new(ArcSwap::from_pointee(gateways)), || {
        chrono::DateTime::UNIX_EPOCH
    });
    router(
        reviewer,
        WebhookMetrics::new(&mut Registry::default()),
        None,
    )
}

/// Has clients announce 7 MB, send this much and stop, then has a small review answered. The clock
/// stands still until everything waits, so a review that waits for the clients takes time.
async fn a_small_review_does_not_wait_behind(clients: usize, sent: usize) {
    let webhook = webhook();
    for _ in 0..clients {
        let part = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b' '; sent]))]);
        let request = Request::post("/mutate")
            .header("content-length", "7000000")
            .body(Body::from_stream(part.chain(stream::pending())))
            .unwrap();
        let mut webhook = webhook.clone();
        tokio::spawn(async move { webhook.call(request).await });
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let started = tokio::time::Instant::now();
    let response = webhook
        .clone()
        .call(Request::post("/mutate").body(Body::from("{}")).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn announced_bodies_delay_no_small_one() {
    a_small_review_does_not_wait_behind(16, 0).await;
}

#[tokio::test(start_paused = true)]
async fn large_bodies_without_their_last_byte_delay_no_small_one() {
    a_small_review_does_not_wait_behind(5, 6_999_999).await;
}
