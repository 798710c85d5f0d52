//! The observed part of a StatefulSet.

use std::collections::BTreeMap;

use crate::core::kube::max_unavailable::MaxUnavailable;
use crate::core::kube::observed::Selector;
use crate::core::model::names;
use crate::core::model::text::truncate;

/// Of an annotation's value in a message. Characters.
const MAX_VALUE_CHARS: usize = 48;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatefulSetFacts {
    pub namespace: String,
    pub name: String,
    /// `spec.replicas`; Kubernetes' default is 1.
    pub replicas: u32,
    /// `spec.ordinals.start`.
    pub ordinals_start: u32,
    /// Annotations with timeshard's prefix on the StatefulSet's own metadata.
    pub annotations: BTreeMap<String, String>,
    /// Differs after the StatefulSet was recreated.
    pub uid: String,
    /// `spec.selector`.
    pub selector: Selector,
    /// Whether the StatefulSet controller has observed the present generation.
    pub generation_observed: bool,
    /// The revision of new pods.
    pub update_revision: String,
    /// Whether the pods may run `thanos store`, as far as the arguments show.
    pub store: bool,
    /// The port in `--grpc-address`; `None` if it names none, and for Thanos' default.
    pub grpc_port: Option<u16>,
    /// Pods with a lower ordinal keep their revision. `None` with the strategy `OnDelete`.
    pub partition: Option<u32>,
    /// Pods that a rolling update replaces at once, if set. `None` with the strategy `OnDelete`.
    pub max_unavailable: Option<MaxUnavailable>,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: u32,
}

impl StatefulSetFacts {
    /// Whether both give the same plan: they differ at most in fields that only a rollout reads.
    #[must_use]
    pub fn plans_like(&self, other: &Self) -> bool {
        // A field that is not listed here counts as one that the plan depends on.
        let rollout_only = Self {
            uid: other.uid.clone(),
            selector: other.selector.clone(),
            generation_observed: other.generation_observed,
            update_revision: other.update_revision.clone(),
            partition: other.partition,
            max_unavailable: other.max_unavailable,
            min_ready_seconds: other.min_ready_seconds,
            store: other.store,
            grpc_port: other.grpc_port,
            ..self.clone()
        };
        rollout_only == *other
    }

    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }

    /// Returns the number of pods to plan for, and what is wrong with the target in the annotation.
    #[must_use]
    pub fn planned_pods(&self) -> (u32, Option<String>) {
        let key = names::TARGET_REPLICAS;
        match self.annotation(key).map(|text| (text, text.parse::<u32>())) {
            None => (self.replicas, None),
            // A higher target would plan for pods that do not exist.
            Some((_, Ok(target))) if target > 0 => (target.min(self.replicas), None),
            Some((text, _)) => {
                let text = truncate(text, MAX_VALUE_CHARS);
                let why = "write the number of pods to scale down to, at least 1";
                let problem = format!("annotation {key}: {text:?} is not accepted: {why}");
                (self.replicas, Some(problem))
            }
        }
    }
}
