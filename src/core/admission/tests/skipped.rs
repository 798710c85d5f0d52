//! Pods that are skipped, and the smallest differences that matter.

use super::*;

/// Checks that a pod is skipped, with this metric label and a sentence.
fn assert_skipped(label: &str, pod: &Value) {
    let skip = admit(pod).map(|(after, _, _)| after).unwrap_err();
    assert_eq!(skip.label(), label, "{skip}: {pod}");
    assert!(!skip.to_string().is_empty());
}

#[test]
fn a_pod_without_a_recognisable_store_is_skipped_with_a_reason() {
    let own = &store_with(&json!({}))["spec"]["containers"][0];
    for (label, pod) in [
        ("no_store", store_with(&json!({"args": ["query"]}))),
        ("no_store", store_with(&json!({"args": []}))),
        (
            "unknown_image",
            store_with(&json!({"image": "mirror/store"})),
        ),
        (
            "wrapper",
            store_with(&json!({"command": ["sh", "-c", "exec thanos store"]})),
        ),
        (
            "args_file",
            store_with(&json!({"args": ["store", "@/etc/flags"]})),
        ),
        ("several_stores", pod_of(&json!({"containers": [own, own]}))),
        ("no_store", pod_of(&json!({"containers": []}))),
        ("no_store", pod_of(&json!({}))),
    ] {
        assert_skipped(label, &pod);
    }
}

#[test]
fn a_pod_that_opted_out_or_has_no_ordinal_or_taken_names_is_skipped_with_a_reason() {
    for (label, pointer, value) in [
        (
            "opted_out",
            "/metadata/labels",
            json!({names::INJECT: "false"}),
        ),
        (
            "opted_out",
            "/metadata/annotations",
            json!({names::INJECT: "false"}),
        ),
        (
            "not_statefulset",
            "/metadata/ownerReferences",
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x"}]),
        ),
        (
            "not_statefulset",
            "/metadata/ownerReferences",
            json!([{"apiVersion": "other/v1", "kind": "StatefulSet", "name": "store"}]),
        ),
        ("not_statefulset", "/metadata/ownerReferences", Value::Null),
        ("no_ordinal", "/metadata/name", json!("store-x")),
        ("no_ordinal", "/metadata/name", json!("store-+1")),
        ("no_ordinal", "/metadata/name", json!("store-99999999999")),
        ("windows", "/spec/os", json!({"name": "windows"})),
        (
            "name_taken",
            "/spec/initContainers",
            json!([{"name": "config-sidecar", "image": "someone-else"}]),
        ),
        (
            "name_taken",
            "/spec/volumes",
            json!([{"name": "timeshard-shared", "emptyDir": {}}]),
        ),
        (
            "name_taken",
            "/spec/volumes",
            json!([{"name": "timeshard-config", "secret": {}}]),
        ),
        (
            "name_taken",
            "/spec/containers/0/ports",
            json!([{"containerPort": 10908}]),
        ),
        (
            "name_taken",
            "/spec/containers/0/args",
            json!(["store", "--http-address=0.0.0.0:10908"]),
        ),
        (
            "name_taken",
            "/spec/containers/0/args",
            json!(["store", "--grpc-address", "[::]:10908"]),
        ),
        (
            "name_taken",
            "/spec/containers/0/volumeMounts",
            json!([{"name": "x", "mountPath": "/run/timeshard/"}]),
        ),
    ] {
        let mut pod = store_with(&json!({}));
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[key] = value;
        assert_skipped(label, &pod);
    }
}

#[test]
fn a_vouched_image_is_taken_for_thanos() {
    let mut pod = store_with(&json!({"image": "mirror/store"}));
    pod["metadata"]["labels"] = json!({names::INJECT: "true"});
    assert!(admit(&pod).is_ok());
}

#[test]
fn the_pod_index_label_helps_where_the_name_does_not() {
    let mut pod = store_with(&json!({}));
    pod["metadata"]["name"] = json!("renamed");
    pod["metadata"]["labels"] = json!({names::POD_INDEX_LABEL: "5"});
    assert_eq!(
        injected(&pod)["metadata"]["labels"][names::SHARD_LABEL],
        "2"
    );
}
