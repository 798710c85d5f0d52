//! What the webhook does with a pod that it skips and whose user expected an injection: the answer over HTTP, the Events and the
//! counts together.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tower::Service as _;

use super::{Metrics, Reviewer, router};
use crate::adapters::events;
use crate::core::config::Config;
use crate::core::fleet::{Fleet, StatefulSetFacts};
use crate::core::notice::Notice;

/// What came of one review.
struct Outcome {
    response: Value,
    events: Vec<Notice>,
    metrics: String,
}

/// Reviews a pod of the StatefulSet `ns/store`, which the server knows.
async fn review(spec: &Value, annotations: &Value, dry_run: bool) -> Outcome {
    let facts = StatefulSetFacts {
        namespace: "ns".to_owned(),
        name: "store".to_owned(),
        uid: "u-1".to_owned(),
        replicas: 6,
        ..StatefulSetFacts::default()
    };
    let fleet = Fleet::new(Arc::new(Config::default()))
        .with_statefulset(facts)
        .unwrap();
    let reviewer = Reviewer::new(Arc::new(ArcSwap::from_pointee(fleet)), || {
        chrono::DateTime::UNIX_EPOCH
    });
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
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
        // A container beside it that is nothing special.
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
            warnings.len() == 1 && warning.starts_with("thanos-timeshard left this pod alone: "),
            "{spec}: {warning}"
        );
        let [
            Notice {
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
