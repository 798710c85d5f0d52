//! Facts of a StatefulSet.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::selector;
use super::store_args::{grpc_port, may_run_store};
use crate::core::kube::max_unavailable::MaxUnavailable;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::names;

#[must_use]
pub fn statefulset(namespace: &str, set: &StatefulSet) -> StatefulSetFacts {
    let (spec, status) = (set.spec.as_ref(), set.status.as_ref());
    let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
    let partition = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition);
    let unsigned = |number: Option<i32>| number.and_then(|n| u32::try_from(n).ok());
    StatefulSetFacts {
        namespace: namespace.to_owned(),
        name: set.name_any(),
        replicas: unsigned(spec.and_then(|spec| spec.replicas)).unwrap_or(1),
        ordinals_start: unsigned(spec.and_then(|spec| spec.ordinals.as_ref()?.start)).unwrap_or(0),
        annotations: set
            .annotations()
            .iter()
            .filter(|(key, _)| key.starts_with(names::PREFIX))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        uid: set.uid().unwrap_or_default(),
        selector: spec
            .map(|spec| selector(&spec.selector))
            .unwrap_or_default(),
        generation_observed: status.and_then(|status| status.observed_generation)
            >= set.metadata.generation,
        update_revision: status
            .and_then(|status| status.update_revision.clone())
            .unwrap_or_default(),
        store: may_run_store(containers(set)),
        grpc_port: grpc_port(containers(set)),
        partition: match strategy.and_then(|strategy| strategy.type_.as_deref()) {
            Some("OnDelete") => None,
            _ => Some(unsigned(partition).unwrap_or(0)),
        },
        max_unavailable: strategy.and_then(max_unavailable),
        min_ready_seconds: unsigned(spec.and_then(|spec| spec.min_ready_seconds)).unwrap_or(0),
    }
}

fn max_unavailable(strategy: &StatefulSetUpdateStrategy) -> Option<MaxUnavailable> {
    let replaces = strategy.type_.as_deref() != Some("OnDelete");
    match strategy
        .rolling_update
        .as_ref()?
        .max_unavailable
        .as_ref()
        .filter(|_| replaces)?
    {
        IntOrString::Int(pods) => u32::try_from(*pods).ok().map(MaxUnavailable::Pods),
        IntOrString::String(text) => MaxUnavailable::percent(text),
    }
}

/// The containers of the pod template.
#[must_use]
pub fn containers(set: &StatefulSet) -> &[Container] {
    let pod = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    pod.map(|pod| pod.containers.as_slice()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use std::collections::BTreeMap;

    use crate::adapters::kube::partial::Partial;
    use crate::core::kube::observed::Selector;

    fn observed(strategy: &Value, observed_generation: &Value) -> StatefulSetFacts {
        let set = json!({"metadata": {"name": "store", "uid": "u1", "generation": 3, "annotations": {"other": "x"}},
            "spec": {"replicas": 6, "serviceName": "", "template": {}, "updateStrategy": strategy,
                     "selector": {"matchLabels": {"app": "store"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a"]}]}},
            "status": {"replicas": 6, "observedGeneration": observed_generation, "updateRevision": "store-2"}});
        statefulset(
            "ns",
            &serde_json::from_value::<Partial<StatefulSet>>(set)
                .unwrap()
                .0,
        )
    }

    #[test]
    fn everything_a_rollout_depends_on_is_read() {
        let labels = BTreeMap::from([("app".to_owned(), "store".to_owned())]);
        let expressions = vec![("tier".to_owned(), "In".to_owned(), vec!["a".to_owned()])];
        let want = StatefulSetFacts {
            namespace: "ns".to_owned(),
            name: "store".to_owned(),
            replicas: 6,
            uid: "u1".to_owned(),
            selector: Selector {
                labels,
                expressions,
            },
            generation_observed: true,
            update_revision: "store-2".to_owned(),
            partition: Some(0),
            ..StatefulSetFacts::default()
        };
        assert_eq!(observed(&Value::Null, &json!(3)), want);
        assert!(!observed(&Value::Null, &json!(2)).generation_observed);
        assert!(!observed(&Value::Null, &Value::Null).generation_observed);
        let partitioned = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 4}});
        assert_eq!(observed(&partitioned, &json!(3)).partition, Some(4));
        assert_eq!(
            observed(&json!({"type": "OnDelete"}), &json!(3)).partition,
            None
        );
        let at_once = |kind: &str, value: Value| {
            observed(
                &json!({"type": kind, "rollingUpdate": {"maxUnavailable": value}}),
                &json!(3),
            )
            .max_unavailable
        };
        assert_eq!(
            at_once("RollingUpdate", json!(2)),
            Some(MaxUnavailable::Pods(2))
        );
        assert_eq!(
            at_once("RollingUpdate", json!("50%")),
            Some(MaxUnavailable::Percent(50))
        );
        assert_eq!(at_once("OnDelete", json!(2)), None);
        let pod = json!({"containers": [{"name": "thanos", "image": "thanos", "args": ["store", "--grpc-address=:9090"]}]});
        let set = json!({"metadata": {"name": "store"}, "spec": {"serviceName": "", "template": {"spec": pod}, "selector": {}}});
        let read = statefulset(
            "ns",
            &serde_json::from_value::<Partial<StatefulSet>>(set)
                .unwrap()
                .0,
        );
        assert_eq!((read.store, read.grpc_port), (true, Some(9090)));
    }
}
