//! Bodies of the leader's requests, as JSON. The same decision gives the same bytes.
//!
//! Complete objects where timeshard is the only writer (PDBs, Services); patches elsewhere: other
//! labels and annotations of a ConfigMap stay, and on pods and StatefulSets timeshard writes one
//! annotation.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::core::admission::patch::token;
use crate::core::kube::observed::Selector;
use crate::core::model::names;
use crate::core::rollout::budgets::{Budget, Limit};
use crate::core::rollout::services::{PORT_NAME, ShardService};
use crate::core::rollout::shard_objects::Owner;

/// A `PodDisruptionBudget`; `resource_version` is that of the one to replace.
pub(super) fn budget(namespace: &str, budget: &Budget, resource_version: Option<&str>) -> Value {
    let mut spec = match budget.limit {
        Limit::KeepAvailable(pods) => {
            json!({"minAvailable": pods, "unhealthyPodEvictionPolicy": "AlwaysAllow"})
        }
        Limit::Closed => {
            json!({"maxUnavailable": 0, "unhealthyPodEvictionPolicy": "IfHealthyBudget"})
        }
    };
    spec["selector"] = selector(&budget.selector);
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(namespace, &budget.name, &budget.owner, resource_version),
        "spec": spec,
    })
}

/// A shard's Service; `resource_version` is that of the one to replace.
pub(super) fn service(
    namespace: &str,
    service: &ShardService,
    resource_version: Option<&str>,
) -> Value {
    let port = service.port;
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(namespace, &service.name, &service.owner, resource_version),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": false,
            "selector": service.selector,
            "ports": [{"name": PORT_NAME, "protocol": "TCP", "port": port, "targetPort": port}],
        },
    })
}

pub(super) fn map(
    namespace: &str,
    name: &str,
    owner: &Owner,
    data: &BTreeMap<String, String>,
) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(namespace, name, owner, None), "data": data})
}

/// Operations (RFC 6902) that give a ConfigMap its `data` and owner. Replacing the resource version
/// by the one that was seen makes Kubernetes refuse the patch if another client wrote meanwhile.
pub(super) fn map_patch(
    resource_version: &str,
    has_labels: bool,
    owner: &Owner,
    data: &BTreeMap<String, String>,
) -> Vec<Value> {
    let mut operations = vec![
        json!({"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version}),
    ];
    if !has_labels {
        operations.push(json!({"op": "add", "path": "/metadata/labels", "value": {}}));
    }
    let label = format!("/metadata/labels/{}", token(names::MANAGED_BY_LABEL));
    operations.push(json!({"op": "add", "path": label, "value": names::MANAGED_BY}));
    operations.push(
        json!({"op": "add", "path": "/metadata/ownerReferences", "value": [reference(owner)]}),
    );
    operations.push(json!({"op": "add", "path": "/data", "value": data}));
    operations
}

/// A merge patch (RFC 7386) of a ConfigMap's annotation; an empty text removes it. The resource
/// version makes Kubernetes refuse the patch if another client wrote meanwhile.
pub(super) fn single_holders(resource_version: &str, text: &str) -> Value {
    let value = if text.is_empty() {
        Value::Null
    } else {
        json!(text)
    };
    json!({"metadata": {"resourceVersion": resource_version, "annotations": {names::SINGLE_HOLDERS: value}}})
}

/// A merge patch (RFC 7386) that touches a pod and, with `shard`, relabels it. The UID makes
/// Kubernetes refuse the patch for a newer pod of the same name.
pub(super) fn nudge(uid: &str, at: &str, shard: Option<&str>) -> Value {
    let mut metadata = json!({"uid": uid, "annotations": {names::HURRIED: at}});
    if let Some(shard) = shard {
        metadata["labels"] = json!({names::SHARD_LABEL: shard});
    }
    json!({"metadata": metadata})
}

/// Operations that remove the annotation of a target that was reached, unless it or the replicas
/// changed meanwhile. A resource version would conflict with every change of the status.
pub(super) fn drop_target(uid: &str, value: &str, replicas: u32) -> Value {
    let path = format!("/metadata/annotations/{}", token(names::TARGET_REPLICAS));
    json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": "/spec/replicas", "value": replicas},
        {"op": "test", "path": path, "value": value},
        {"op": "remove", "path": path},
    ])
}

/// Options that delete only the version that was seen.
pub(super) fn delete(resource_version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": resource_version}})
}

/// A selector as the query parameter of a list.
pub(super) fn selector_text(selector: &Selector) -> String {
    let equal = selector
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let further =
        selector
            .expressions
            .iter()
            .map(|(key, operator, values)| match operator.as_str() {
                "In" => format!("{key} in ({})", values.join(",")),
                "NotIn" => format!("{key} notin ({})", values.join(",")),
                "DoesNotExist" => format!("!{key}"),
                _ => key.clone(),
            });
    equal.chain(further).collect::<Vec<_>>().join(",")
}

fn selector(selector: &Selector) -> Value {
    let mut value = json!({"matchLabels": selector.labels});
    if !selector.expressions.is_empty() {
        let one = |(key, operator, values): &(String, String, Vec<String>)| {
            let mut one = json!({"key": key, "operator": operator});
            if !values.is_empty() {
                one["values"] = json!(values);
            }
            one
        };
        value["matchExpressions"] = selector.expressions.iter().map(one).collect();
    }
    value
}

fn metadata(namespace: &str, name: &str, owner: &Owner, resource_version: Option<&str>) -> Value {
    let mut metadata = json!({
        "name": name,
        "namespace": namespace,
        "labels": {names::MANAGED_BY_LABEL: names::MANAGED_BY},
        "ownerReferences": [reference(owner)],
    });
    if let Some(version) = resource_version {
        metadata["resourceVersion"] = json!(version);
    }
    metadata
}

/// Neither the controller nor blocking deletion: the object is garbage collected with its
/// StatefulSet, nothing more.
fn reference(owner: &Owner) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": owner.name,
        "uid": owner.uid,
        "controller": false,
        "blockOwnerDeletion": false,
    })
}
