//! The guard over HTTPS: what the API server sends, and what it never sends. Nothing of that is
//! ever refused here, since this server has no cluster and knows of no published windows.

use std::path::Path;

use serde_json::{Value, json};

use crate::bad_requests::{assert_mutations_are_answered, reviewer};
use crate::server::{Server, post_to};

fn server() -> Server {
    Server::start(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config.yaml"))
}

fn store(replicas: u32) -> Value {
    json!({"metadata": {"name": "store"}, "spec": {"replicas": replicas,
        "template": {"spec": {"containers": [{"name": "t", "image": "thanos", "args": ["store", "--data-dir=/d"]}]}}}})
}

fn review(operation: &str, old: &Value, new: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "uid-1",
        "kind": {"group": "apps", "version": "v1", "kind": "StatefulSet"}, "resource": {"group": "apps", "version": "v1", "resource": "statefulsets"},
        "name": "store", "namespace": "monitoring", "operation": operation, "object": new, "oldObject": old, "dryRun": false}})
}

fn response(server: &Server, review: &Value) -> Value {
    let (status, body) = post_to(&mut server.tls(), "/guard", review.to_string().as_bytes());
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&answer["apiVersion"], &answer["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    assert_eq!(
        (&answer["response"]["uid"], &answer["response"]["allowed"]),
        (&json!("uid-1"), &json!(true))
    );
    assert!(answer["response"].get("patch").is_none());
    answer["response"]
        .get("warnings")
        .cloned()
        .unwrap_or_else(|| json!([]))
}

#[test]
fn changes_are_answered_with_warnings() {
    let mut server = server();
    let summary = "6 pods: 3 shards of 2 replicas, newest -124d8h .. 1d, oldest -370d .. -246d16h";
    assert_eq!(
        response(&server, &review("CREATE", &Value::Null, &store(6))),
        json!([summary])
    );
    assert_eq!(
        response(&server, &review("UPDATE", &store(6), &store(6))),
        json!([])
    );
    assert_eq!(
        response(&server, &review("UPDATE", &store(6), &store(0))),
        json!(["no pods: nothing is served"])
    );
    assert_eq!(
        response(&server, &review("DELETE", &store(6), &Value::Null)),
        json!([]),
        "nothing is published"
    );
    let scale =
        |replicas: u32| json!({"metadata": {"name": "store"}, "spec": {"replicas": replicas}});
    let mut scaled = review("UPDATE", &scale(6), &scale(1));
    scaled["request"]["subResource"] = json!("scale");
    assert_eq!(
        response(&server, &scaled),
        json!([]),
        "a StatefulSet that is not known"
    );
    let mut huge = store(6);
    huge["spec"]["replicas"] = json!(i64::MAX);
    huge["spec"]["ordinals"] = json!({"start": i64::MAX});
    response(&server, &review("UPDATE", &huge, &store(6)));
    response(&server, &review("UPDATE", &store(6), &huge));
    let mut deployment = review("CREATE", &Value::Null, &store(6));
    deployment["request"]["resource"]["resource"] = json!("deployments");
    assert_eq!(
        response(&server, &deployment),
        json!([]),
        "not a StatefulSet"
    );
    server.assert_well();
}

#[test]
fn an_unreadable_statefulset_passes_with_a_warning() {
    let mut server = server();
    for object in [
        json!("set"),
        json!({"spec": {"replicas": "many"}}),
        json!({"spec": {"template": {"spec": {"containers": "none"}}}}),
    ] {
        let warnings = response(&server, &review("CREATE", &Value::Null, &object));
        assert!(
            warnings[0]
                .as_str()
                .unwrap()
                .starts_with("thanos-timeshard cannot read this object"),
            "{warnings}"
        );
    }
    server.assert_well();
}

#[test]
fn a_body_that_is_no_review_gets_a_sentence() {
    let mut server = server();
    let no_uid = {
        let mut review = review("CREATE", &Value::Null, &store(6));
        review["request"]["uid"] = json!("");
        review.to_string()
    };
    for (body, words) in [
        ("", "the body is empty"),
        ("[]", "expected kind \"AdmissionReview\""),
        (no_uid.as_str(), "has no uid"),
    ] {
        let (status, text) = post_to(&mut server.tls(), "/guard", body.as_bytes());
        assert!(
            status == 400 && text.contains(words),
            "{body}: {status} {text}"
        );
    }
    let (status, text) = post_to(&mut server.tls(), "/guard", &vec![b' '; 8 << 20]);
    assert_eq!(status, 413, "{text}");
    server.assert_well();
}

#[test]
fn mutations_of_a_good_review_are_all_answered_and_never_denied() {
    let reviewer = reviewer();
    assert_mutations_are_answered(
        (&review("UPDATE", &store(6), &store(2)), 4_000),
        "/guard",
        |body| reviewer.guard(body).body,
        |response| response["uid"].is_string() && response["allowed"] == true,
    );
}
