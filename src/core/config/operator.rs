//! The `operator` block: how often everything is resynced, the StatefulSet whose ConfigMap has a
//! name of its own, and the cluster's name.

use super::draft::SourceSpan;
use super::problem::{Problem, unknown_key};
use crate::core::model::yaml::{Keys, Node, NodeKind};

use crate::core::model::names;
use crate::core::model::text::is_control;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Seconds between full resyncs.
    pub update_interval_seconds: u32,
    /// Namespace of [`Self::statefulset_name`].
    pub namespace: String,
    /// The StatefulSet whose ConfigMap is called [`Self::configmap_name`].
    pub statefulset_name: String,
    pub configmap_name: String,
    /// The cluster's name for people: the page and `/status` show it. Empty: none.
    pub cluster_name: String,
}

/// The longest name of a cluster, in characters; an ARN of EKS fits.
const MAX_CLUSTER_CHARS: usize = 128;

impl Default for Operator {
    fn default() -> Self {
        Self {
            update_interval_seconds: 300,
            namespace: "monitoring".to_owned(),
            statefulset_name: "thanos-store-gateway".to_owned(),
            configmap_name: "thanos-store-config".to_owned(),
            cluster_name: String::new(),
        }
    }
}

impl Operator {
    /// Returns the name of a StatefulSet's ConfigMap.
    #[must_use]
    pub fn configmap_of(&self, namespace: &str, statefulset: &str) -> String {
        if namespace == self.namespace && statefulset == self.statefulset_name {
            self.configmap_name.clone()
        } else {
            format!("{statefulset}{}", names::CONFIGMAP_SUFFIX)
        }
    }

    pub(super) fn set(
        &mut self,
        place: &SourceSpan,
        key: &str,
        node: &Node,
        problems: &mut Vec<Problem>,
    ) {
        const KEYS: [&str; 5] = [
            "update_interval",
            "namespace",
            "statefulset_name",
            "configmap_name",
            "cluster_name",
        ];
        let (slot, max_chars) = match key {
            "update_interval" => {
                match &node.value {
                    NodeKind::Int(n) if (10..=86_400).contains(n) => {
                        self.update_interval_seconds = u32::try_from(*n).unwrap_or(300);
                    }
                    other => {
                        problems.push(place.not_accepted(other, "seconds from 10 to 86400"));
                    }
                }
                return;
            }
            "cluster_name" => return self.set_cluster_name(place, node, problems),
            "namespace" => (&mut self.namespace, names::MAX_LABEL_CHARS),
            "statefulset_name" => (&mut self.statefulset_name, names::MAX_SUBDOMAIN_CHARS),
            "configmap_name" => (&mut self.configmap_name, names::MAX_SUBDOMAIN_CHARS),
            other => return problems.push(place.refuse(unknown_key(other, &KEYS))),
        };
        match &node.value {
            NodeKind::Text(value) if names::is_name(value, max_chars) => slot.clone_from(value),
            other => {
                let right =
                    format!("a Kubernetes name (a-z, 0-9, -), at most {max_chars} characters");
                problems.push(place.not_accepted(other, &right));
            }
        }
    }

    fn set_cluster_name(&mut self, place: &SourceSpan, node: &Node, problems: &mut Vec<Problem>) {
        match &node.value {
            NodeKind::Text(value)
                if value.chars().count() <= MAX_CLUSTER_CHARS && !value.contains(is_control) =>
            {
                self.cluster_name.clone_from(value);
            }
            other => {
                let right = format!("one line of at most {MAX_CLUSTER_CHARS} characters");
                problems.push(place.not_accepted(other, &right));
            }
        }
    }

    /// Refuses the default name of another StatefulSet's ConfigMap: both would overwrite the same
    /// object.
    pub(super) fn check_name(&self, keys: &Keys, source: &str, problems: &mut Vec<Problem>) {
        let Some((_, node)) = keys.iter().find(|(name, _)| name.value == "configmap_name") else {
            return;
        };
        let taken = self
            .configmap_name
            .strip_suffix(names::CONFIGMAP_SUFFIX)
            .filter(|other| *other != self.statefulset_name);
        if let Some(other) = taken {
            let (name, own) = (&self.configmap_name, &self.statefulset_name);
            let why = format!(
                "{name:?} is not accepted: the ConfigMap of a StatefulSet {other} is called so; write a name that does not end in {suffix}, or {own}{suffix}",
                suffix = names::CONFIGMAP_SUFFIX
            );
            problems.push(SourceSpan::of(source, "operator.configmap_name", node).refuse(why));
        }
    }
}
