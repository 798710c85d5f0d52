//! The gateways that the checks share: a StatefulSet with its plan, its pods and what selects them.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::Value;

use super::objects::Workload;
use super::snapshot::Snapshot;
use crate::core::admission::Candidate;
use crate::core::gateways::Gateway;
use crate::core::kube::observed::{PodFacts, Selector, ServiceFacts};

/// A StatefulSet whose pods are injected.
pub(super) struct CheckedGateway<'a> {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    /// `None` when the configuration is not known.
    pub(super) known: Option<Gateway>,
    /// The template's labels, without those that admission adds.
    pub(super) labels: BTreeMap<String, String>,
    /// `spec.selector`.
    pub(super) selector: Selector,
    /// The port of `--grpc-address`.
    pub(super) grpc_port: Option<u16>,
    /// `spec.serviceName`.
    pub(super) service: String,
    /// Empty if the caller may not list pods.
    pub(super) pods: Vec<&'a PodFacts>,
}

impl<'a> CheckedGateway<'a> {
    pub(super) fn new(
        snapshot: &'a Snapshot,
        object: &Value,
        namespace: &str,
        candidate: &Candidate<'_>,
        (known, planned): (&Gateway, bool),
    ) -> Self {
        let name = known.facts().name.clone();
        let template: Workload = serde_json::from_value(object.clone()).unwrap_or_default();
        let pods = snapshot
            .spaces
            .get(namespace)
            .and_then(|space| space.pods.as_deref().ok())
            .unwrap_or_default();
        let own = |pod: &&PodFacts| pod.statefulset == name && !pod.terminating;
        Self {
            uid: template.metadata.uid.clone(),
            labels: template.spec.template.metadata.labels,
            selector: object
                .pointer("/spec/selector")
                .and_then(|selector| Selector::deserialize(selector).ok())
                .unwrap_or_default(),
            grpc_port: candidate.store.grpc_port(),
            service: object
                .pointer("/spec/serviceName")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            known: planned.then(|| known.clone()),
            pods: pods.iter().filter(own).collect(),
            namespace: namespace.to_owned(),
            name,
        }
    }

    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Labels of its pods, or the template's if there are none.
    pub(super) fn pod_labels(&self) -> Vec<&BTreeMap<String, String>> {
        if self.pods.is_empty() {
            vec![&self.labels]
        } else {
            self.pods.iter().map(|pod| &pod.labels).collect()
        }
    }

    /// Whether a Service selects its pods.
    pub(super) fn is_selected_by(&self, service: &ServiceFacts) -> bool {
        let has = |labels: &&BTreeMap<String, String>| {
            service
                .selector
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        };
        let of_shard = service.ours && service.owner_uid.as_ref() == Some(&self.uid);
        of_shard
            || (!service.selector.is_empty()
                && (has(&&self.labels) || self.pod_labels().iter().any(has)))
    }
}
