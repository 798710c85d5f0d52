//! The pods that the StatefulSet controller would create, and names of objects in messages.

use serde_json::{Map, Value, json};

use super::max_unavailable::MaxUnavailable;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::names;

/// Returns an object's name in messages, such as `StatefulSet/store`.
#[must_use]
pub fn title(object: &Value) -> String {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    format!("{}/{}", text("/kind"), text("/metadata/name"))
}

/// Returns an object's namespace, or the default; an empty one is none.
#[must_use]
pub fn namespace(object: &Value, default: &str) -> String {
    object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or(default)
        .to_owned()
}

/// Returns the facts that the server would observe. `replicas` overrides `spec.replicas`.
#[must_use]
pub fn facts(object: &Value, namespace: &str, replicas: Option<u32>) -> StatefulSetFacts {
    let number = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_u64)
            .and_then(|n| u32::try_from(n).ok())
    };
    let annotations = object
        .pointer("/metadata/annotations")
        .and_then(Value::as_object);
    StatefulSetFacts {
        namespace: namespace.to_owned(),
        name: object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        // Kubernetes' default is one replica.
        replicas: replicas.or(number("/spec/replicas")).unwrap_or(1),
        ordinals_start: number("/spec/ordinals/start").unwrap_or(0),
        annotations: annotations
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.starts_with(names::PREFIX))
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        min_ready_seconds: number("/spec/minReadySeconds").unwrap_or(0),
        max_unavailable: object
            .pointer("/spec/updateStrategy")
            .and_then(MaxUnavailable::of_strategy),
        // The other fields only matter to a rollout.
        ..StatefulSetFacts::default()
    }
}

/// Returns a number of the spec that the API server would refuse.
#[must_use]
pub fn unusable_number(object: &Value) -> Option<(&'static str, String)> {
    let fits = |value: &Value| {
        value.is_null()
            || value
                .as_i64()
                .is_some_and(|n| (0..=i64::from(i32::MAX)).contains(&n))
    };
    [
        ("/spec/replicas", "spec.replicas"),
        ("/spec/ordinals/start", "spec.ordinals.start"),
    ]
    .into_iter()
    .filter_map(|(pointer, key)| Some((key, object.pointer(pointer)?)))
    .find(|(_, value)| !fits(value))
    .map(|(key, value)| (key, value.to_string()))
}

#[must_use]
pub fn pods(statefulset: &Value, facts: &StatefulSetFacts) -> Vec<Value> {
    (facts.ordinals_start..facts.ordinals_start.saturating_add(facts.replicas))
        .map(|ordinal| pod(statefulset, facts, ordinal))
        .collect()
}

/// Returns a pod with everything that the controller adds to the template: name, namespace, owner,
/// labels, host name, claims.
#[must_use]
pub fn pod(statefulset: &Value, facts: &StatefulSetFacts, ordinal: u32) -> Value {
    let name = format!("{}-{ordinal}", facts.name);
    let template = statefulset
        .pointer("/spec/template")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut metadata = template
        .get("metadata")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("generateName".to_owned(), json!(format!("{}-", facts.name)));
    metadata.insert("namespace".to_owned(), json!(facts.namespace));
    let labels = member(&mut metadata, "labels");
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), json!(name));
    labels.insert(
        names::POD_INDEX_LABEL.to_owned(),
        json!(ordinal.to_string()),
    );
    let uid = statefulset
        .pointer("/metadata/uid")
        .cloned()
        .unwrap_or_else(|| json!("00000000-0000-0000-0000-000000000000"));
    metadata.insert(
        "ownerReferences".to_owned(),
        json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": facts.name, "uid": uid, "controller": true, "blockOwnerDeletion": true}]),
    );
    let mut spec = template
        .get("spec")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    spec.insert("hostname".to_owned(), json!(name));
    if let Some(service) = statefulset.pointer("/spec/serviceName") {
        spec.insert("subdomain".to_owned(), service.clone());
    }
    claims(statefulset, &name, &mut spec);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// Adds a volume for each claim template. As in the controller, it replaces the template's volume of
/// the same name.
fn claims(statefulset: &Value, pod: &str, spec: &mut Map<String, Value>) {
    let templates = statefulset
        .pointer("/spec/volumeClaimTemplates")
        .and_then(Value::as_array);
    let names: Vec<&str> = templates
        .into_iter()
        .flatten()
        .filter_map(|claim| claim.pointer("/metadata/name")?.as_str())
        .collect();
    if names.is_empty() {
        return;
    }
    let Value::Array(volumes) = spec.entry("volumes").or_insert_with(|| json!([])) else {
        return;
    };
    volumes.retain(|volume| {
        !volume
            .get("name")
            .and_then(Value::as_str)
            .is_some_and(|name| names.contains(&name))
    });
    volumes.extend(names.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": format!("{name}-{pod}")}})));
}

fn member<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = map.entry(key).or_insert_with(|| json!({}));
    if !slot.is_object() {
        *slot = json!({});
    }
    #[allow(clippy::unreachable, reason = "made an object just above")]
    slot.as_object_mut().unwrap_or_else(|| unreachable!())
}

/// Returns the review that the API server would send for the creation of this pod.
#[must_use]
pub fn review(pod: &Value, namespace: &str, uid: &str) -> Value {
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "name": pod.pointer("/metadata/name"), "namespace": namespace, "operation": "CREATE", "object": pod, "oldObject": null, "dryRun": true}})
}
