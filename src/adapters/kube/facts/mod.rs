//! Facts of observed objects: what core decides on, converted as soon as an object is read, since
//! thousands of pods are kept in memory.

mod pod;
mod querier;
mod statefulset;
mod store_args;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

pub use self::pod::pod;
pub use self::querier::{configured_querier, querier};
pub use self::statefulset::{containers, statefulset};
pub use self::store_args::may_run_store;
use crate::core::kube::observed::{BudgetFacts, MapFacts, Selector, ServiceFacts};
use crate::core::kube::recognise;
use crate::core::model::names;
use crate::core::rollout::single_holders;

#[must_use]
pub fn budget(budget: &PodDisruptionBudget) -> BudgetFacts {
    let spec = budget.spec.as_ref();
    let status = budget.status.as_ref();
    BudgetFacts {
        name: budget.name_any(),
        ours: is_managed(&budget.metadata),
        resource_version: budget.resource_version().unwrap_or_default(),
        owner_uid: owner_uid(&budget.metadata),
        owner_name: statefulset_owner(&budget.metadata).map(|owner| owner.name.clone()),
        selector: spec.and_then(|spec| spec.selector.as_ref()).map(selector),
        max_unavailable: number(spec.and_then(|spec| spec.max_unavailable.as_ref())),
        min_available: number(spec.and_then(|spec| spec.min_available.as_ref())),
        observed: status.and_then(|status| status.observed_generation)
            >= budget.metadata.generation,
    }
}

/// The number; `None` for a percentage.
fn number(value: Option<&IntOrString>) -> Option<i32> {
    match value {
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(_)) | None => None,
    }
}

#[must_use]
pub fn service(service: &Service) -> ServiceFacts {
    let spec = service.spec.as_ref();
    let ports = spec
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    ServiceFacts {
        name: service.name_any(),
        ours: is_managed(&service.metadata),
        resource_version: service.resource_version().unwrap_or_default(),
        owner_uid: owner_uid(&service.metadata),
        selector: spec
            .and_then(|spec| spec.selector.clone())
            .unwrap_or_default(),
        publishes_not_ready: spec
            .and_then(|spec| spec.publish_not_ready_addresses)
            .unwrap_or(false),
        headless: spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None"),
        ports: ports
            .iter()
            .map(|port| (port.name.clone().unwrap_or_default(), port.port))
            .collect(),
    }
}

#[must_use]
pub fn configmap(map: ConfigMap) -> MapFacts {
    MapFacts {
        name: map.name_any(),
        uid: map.uid().unwrap_or_default(),
        resource_version: map.resource_version().unwrap_or_default(),
        owner_uid: owner_uid(&map.metadata),
        single_holders: map
            .annotations()
            .get(names::SINGLE_HOLDERS)
            .filter(|text| text.len() <= single_holders::MAX_BYTES)
            .cloned(),
        data: map.data.unwrap_or_default(),
    }
}

#[must_use]
pub fn selector(selector: &LabelSelector) -> Selector {
    let requirement = |r: &LabelSelectorRequirement| {
        (
            r.key.clone(),
            r.operator.clone(),
            r.values.clone().unwrap_or_default(),
        )
    };
    Selector {
        labels: selector.match_labels.clone().unwrap_or_default(),
        expressions: selector
            .match_expressions
            .iter()
            .flatten()
            .map(requirement)
            .collect(),
    }
}

/// The StatefulSet that owns an object.
fn statefulset_owner(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| recognise::is_statefulset(&owner.api_version, &owner.kind))
}

fn owner_uid(meta: &ObjectMeta) -> Option<String> {
    statefulset_owner(meta).map(|owner| owner.uid.clone())
}

/// Whether an object has timeshard's label.
#[must_use]
pub fn is_managed(meta: &ObjectMeta) -> bool {
    let labels: Option<&BTreeMap<String, String>> = meta.labels.as_ref();
    labels
        .and_then(|labels| labels.get(names::MANAGED_BY_LABEL))
        .is_some_and(|value| value == names::MANAGED_BY)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::adapters::kube::partial::{Partial, PartialKind};

    /// As a watch reads it.
    fn read<K: PartialKind>(object: Value) -> K {
        serde_json::from_value::<Partial<K>>(object).unwrap().0
    }

    #[test]
    fn a_configmap_is_cut_down() {
        let facts = |object: Value| configmap(read(object));
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "s"}]);
        let ours = facts(
            json!({"metadata": {"name": "x", "uid": "u", "resourceVersion": "7", "ownerReferences": owner}, "data": {"store-0.yaml": "a"}}),
        );
        assert_eq!(
            (
                ours.uid.as_str(),
                ours.resource_version.as_str(),
                ours.owner_uid.as_deref()
            ),
            ("u", "7", Some("s"))
        );
        assert_eq!(
            ours.data,
            BTreeMap::from([("store-0.yaml".to_owned(), "a".to_owned())])
        );
        assert_eq!(ours.single_holders, None);
        let annotated = |text: &str| {
            facts(json!({"metadata": {"annotations": {names::SINGLE_HOLDERS: text}}}))
                .single_holders
        };
        assert_eq!(annotated("{}").as_deref(), Some("{}"));
        assert_eq!(
            annotated(&"x".repeat(40_000)),
            None,
            "timeshard writes none as long"
        );
    }

    #[test]
    fn budgets_and_services_are_cut_down() {
        let meta = |ours: bool| {
            json!({"name": "x", "uid": "u", "resourceVersion": "7", "generation": 2,
                "labels": {names::MANAGED_BY_LABEL: if ours { names::MANAGED_BY } else { "Helm" }},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "s"}]})
        };
        let asked = |spec: Value, ours: bool, seen: i64| {
            let status = json!({"observedGeneration": seen, "currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0, "expectedPods": 1});
            budget(&read(
                json!({"metadata": meta(ours), "spec": spec, "status": status}),
            ))
        };
        let ours = asked(
            json!({"maxUnavailable": 0, "selector": {"matchLabels": {"a": "b"}}}),
            true,
            2,
        );
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert_eq!(
            (ours.ours, ours.observed, ours.max_unavailable),
            (true, true, Some(0))
        );
        assert_eq!(
            ours.selector,
            Some(Selector {
                labels,
                expressions: Vec::new()
            })
        );
        let theirs = asked(json!({"maxUnavailable": "50%"}), false, 1);
        assert_eq!(
            (
                theirs.ours,
                theirs.observed,
                theirs.max_unavailable,
                theirs.selector
            ),
            (false, false, None, None)
        );

        let spec = json!({"clusterIP": "None", "publishNotReadyAddresses": true, "selector": {"a": "b"}, "ports": [{"name": "grpc", "port": 10901}]});
        let store = service(&read(json!({"metadata": meta(false), "spec": spec})));
        assert_eq!(
            (store.headless, store.publishes_not_ready, store.ours),
            (true, true, false)
        );
        assert_eq!(store.ports, [("grpc".to_owned(), 10901)]);
    }
}
