//! What the refresher sends, as JSON. The same decision gives the same bytes.
//!
//! Whole objects where nobody else has a say in them (budgets, Services); patches where others do: a ConfigMap's other
//! labels and annotations stay, and of pods and StatefulSets one annotation is ours.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::core::budgets::{Budget, Limit};
use crate::core::names;
use crate::core::observed::Selector;
use crate::core::owned::Owner;
use crate::core::shard_services::{PORT_NAME, ShardService};

/// A `PodDisruptionBudget`; with a resource version, in place of the one that has it.
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

/// A shard's Service; with a resource version, in place of the one that has it.
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

/// A new ConfigMap.
pub(super) fn map(
    namespace: &str,
    name: &str,
    owner: &Owner,
    data: &BTreeMap<String, String>,
) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(namespace, name, owner, None), "data": data})
}

/// Operations (RFC 6902) that make a ConfigMap say `data` and be the StatefulSet's. Replacing the resource version by the
/// one that was seen makes Kubernetes refuse them when somebody else wrote in between.
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
    let label = format!("/metadata/labels/{}", pointer(names::MANAGED_BY_LABEL));
    operations.push(json!({"op": "add", "path": label, "value": names::MANAGED_BY}));
    operations.push(
        json!({"op": "add", "path": "/metadata/ownerReferences", "value": [reference(owner)]}),
    );
    operations.push(json!({"op": "add", "path": "/data", "value": data}));
    operations
}

/// A merge patch (RFC 7386) of a ConfigMap's annotation; an empty text removes it. The resource version makes Kubernetes refuse
/// it when somebody else wrote in between.
pub(super) fn single_holders(resource_version: &str, text: &str) -> Value {
    let value = if text.is_empty() {
        Value::Null
    } else {
        json!(text)
    };
    json!({"metadata": {"resourceVersion": resource_version, "annotations": {names::SINGLE_HOLDERS: value}}})
}

/// A merge patch (RFC 7386) that touches a pod, and with `shard` relabels it. The UID makes Kubernetes refuse it for a pod
/// of the same name that was made since.
pub(super) fn hurry(uid: &str, at: &str, shard: Option<&str>) -> Value {
    let mut metadata = json!({"uid": uid, "annotations": {names::HURRIED: at}});
    if let Some(shard) = shard {
        metadata["labels"] = json!({names::SHARD_LABEL: shard});
    }
    json!({"metadata": metadata})
}

/// Operations that remove the annotation that was reached, unless it or the replicas changed since: the resource version
/// would be refused with every change of the status.
pub(super) fn drop_target(uid: &str, value: &str, replicas: u32) -> Value {
    let path = format!("/metadata/annotations/{}", pointer(names::TARGET_REPLICAS));
    json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": "/spec/replicas", "value": replicas},
        {"op": "test", "path": path, "value": value},
        {"op": "remove", "path": path},
    ])
}

/// Options that delete only what was seen.
pub(super) fn delete(resource_version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": resource_version}})
}

/// A selector as the query of a list has it.
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

/// Not the controller, and not in the way of a deletion: what is ours goes with its StatefulSet, and that is all.
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

/// A key as part of a JSON pointer (RFC 6901).
fn pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
