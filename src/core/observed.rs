//! What a server knows of a labelled namespace beside its StatefulSets: pods, our ConfigMaps, budgets, Services.
//!
//! Each type holds what a decision needs and nothing else: thousands of pods are held in memory. Watching, trimming and
//! asking are elsewhere; here is only what was seen.

use std::collections::BTreeMap;

use super::agent_status::AgentStatus;
use super::kept::{ENTRY_BYTES, bytes_of, bytes_of_map};

/// What the leader says of a pod, in memory. Bytes.
pub const REPORT_BYTES: usize = 768;

/// What is observed of a pod that a StatefulSet owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "facts that do not depend on each other"
)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Its UID: a recreated pod has another one.
    pub uid: String,
    /// Name of the StatefulSet that owns it.
    pub statefulset: String,
    /// UID of that StatefulSet: a name alone anybody can claim.
    pub owner_uid: String,
    /// Its address, once it has one.
    pub ip: Option<String>,
    /// Whether it has our sidecar.
    pub injected: bool,
    /// Whether a container runs `thanos store`, also behind a shell, as far as its words tell.
    pub store: bool,
    /// Whether its user keeps it from being injected.
    pub opted_out: bool,
    /// Whether it is not injected and its user set its time flags, which are respected.
    pub by_hand: bool,
    /// The ConfigMap that its sidecar reads.
    pub configmap: Option<String>,
    /// Its `Ready` condition.
    pub ready: bool,
    /// When the `Ready` condition last changed, in seconds since the epoch by the cluster's clock; tells one readiness
    /// from the next, never compared with another clock.
    pub ready_changed_unix_seconds: i64,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// The StatefulSet's revision that it was made from.
    pub revision: String,
    /// The value of our shard label.
    pub shard_label: Option<String>,
    /// Why a container does not run (`CrashLoopBackOff`, `ErrImagePull`, …), if one does not for a reason of its own.
    pub stuck: Option<String>,
    /// Restarts of all containers.
    pub container_restarts: u32,
    /// Its labels, for the selectors of budgets and Services.
    pub labels: BTreeMap<String, String>,
}

/// What is observed of a ConfigMap that carries our label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapFacts {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// For writes that fail when somebody else wrote in between.
    pub resource_version: String,
    /// UID of the StatefulSet that owns it, if one does.
    pub owner_uid: Option<String>,
    /// Its data.
    pub data: BTreeMap<String, String>,
    /// Our annotation that names blocks which one pod alone has loaded ([`super::names::SINGLE_HOLDERS`]), as it stands there;
    /// `None` without one, and for one that is too long to be ours.
    pub single_holders: Option<String>,
}

/// A label selector, as budgets and Services have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Labels that must have these values.
    pub labels: BTreeMap<String, String>,
    /// Further requirements: key, operator (`In`, `NotIn`, `Exists`, `DoesNotExist`), values.
    pub expressions: Vec<(String, String, Vec<String>)>,
}

/// What is observed of a `PodDisruptionBudget`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetFacts {
    /// Its name.
    pub name: String,
    /// Whether it carries our label.
    pub ours: bool,
    /// For writes that fail when somebody else wrote in between.
    pub resource_version: String,
    /// UID of the StatefulSet that owns it, if one does.
    pub owner_uid: Option<String>,
    /// Name of that StatefulSet.
    pub owner_name: Option<String>,
    /// Which pods it selects; `None` selects nothing.
    pub selector: Option<Selector>,
    /// `maxUnavailable`, if it is a number.
    pub max_unavailable: Option<i32>,
    /// `minAvailable`, if it is a number.
    pub min_available: Option<i32>,
    /// Whether the controller has seen the budget as it is now.
    pub observed: bool,
}

/// What is observed of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Its name.
    pub name: String,
    /// Whether it carries our label.
    pub ours: bool,
    /// For writes that fail when somebody else wrote in between.
    pub resource_version: String,
    /// UID of the StatefulSet that owns it, if one does.
    pub owner_uid: Option<String>,
    /// Which pods it selects; empty selects nothing.
    pub selector: BTreeMap<String, String>,
    /// Whether its endpoints include pods that are not ready, which makes draining ineffective.
    pub publishes_not_ready: bool,
    /// Whether it is headless.
    pub headless: bool,
    /// Its ports: name and number.
    pub ports: Vec<(String, i32)>,
}

/// Everything that is observed of a namespace, beside its StatefulSets and our ConfigMaps.
#[derive(Clone, Debug, Default)]
pub struct NamespaceFacts {
    /// Pods by name.
    pub pods: BTreeMap<String, PodFacts>,
    /// All budgets (`PodDisruptionBudget`), by name.
    pub budgets: BTreeMap<String, BudgetFacts>,
    /// All Services, by name.
    pub services: BTreeMap<String, ServiceFacts>,
}

/// What a pod's sidecar answered last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its document.
    Status(Box<AgentStatus>),
    /// Why there is none.
    Unreachable(String),
}

impl Answer {
    /// Its document, if there is one.
    #[must_use]
    pub fn status(&self) -> Option<&AgentStatus> {
        match self {
            Self::Status(status) => Some(status),
            Self::Unreachable(_) => None,
        }
    }
}

impl PodFacts {
    /// What it takes in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = [
            &self.name,
            &self.uid,
            &self.statefulset,
            &self.owner_uid,
            &self.revision,
        ];
        let optional = [&self.ip, &self.configmap, &self.shard_label, &self.stuck];
        // How long it has been ready is kept beside it.
        let asked = if self.injected {
            REPORT_BYTES + size_of::<AgentStatus>()
        } else {
            0
        };
        asked
            + 2 * size_of::<Self>()
            + bytes_of(texts)
            + bytes_of(optional.into_iter().flatten())
            + bytes_of_map(&self.labels)
    }
    /// The number in its shard label, if it is one.
    #[must_use]
    pub fn shard(&self) -> Option<u32> {
        self.shard_label.as_ref()?.parse().ok()
    }

    /// Whether its sidecar may answer.
    #[must_use]
    pub fn can_be_asked(&self) -> bool {
        self.injected && !self.terminating && self.ip.is_some()
    }

    /// Whether it runs thanos store without our sidecar although nobody wanted that. `replace` says that time flags set by
    /// hand may be replaced.
    #[must_use]
    pub fn forgotten(&self, replace: bool) -> bool {
        self.store && !self.injected && !self.opted_out && (!self.by_hand || replace)
    }
}

impl MapFacts {
    /// What it takes in memory, about, with the entries that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// An entry as it is read, and what is said of its pod.
        const READ_BYTES: usize = 192 + REPORT_BYTES;
        let texts = [&self.name, &self.uid, &self.resource_version];
        let optional = [&self.owner_uid, &self.single_holders];
        let texts = bytes_of(texts) + bytes_of(optional.into_iter().flatten());
        size_of::<Self>() + texts + bytes_of_map(&self.data) + READ_BYTES * self.data.len()
    }
}

impl BudgetFacts {
    /// What it takes in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + 3 * ENTRY_BYTES
            + bytes_of([&self.name])
            + self.selector.as_ref().map_or(0, Selector::bytes)
    }
}

impl ServiceFacts {
    /// What it takes in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let ports = bytes_of(self.ports.iter().map(|(name, _)| name));
        size_of::<Self>()
            + 3 * ENTRY_BYTES
            + bytes_of([&self.name])
            + bytes_of_map(&self.selector)
            + ports
    }
}

impl Selector {
    /// What it takes in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let expressions = self.expressions.iter().map(|(key, operator, values)| {
            key.len() + operator.len() + ENTRY_BYTES + bytes_of(values)
        });
        bytes_of_map(&self.labels) + expressions.sum::<usize>()
    }

    /// Whether a pod with these labels is selected. An operator that Kubernetes does not have selects nothing.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |key: &String, values: &[String]| {
            labels.get(key).is_some_and(|value| values.contains(value))
        };
        self.labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self
                .expressions
                .iter()
                .all(|(key, operator, values)| match operator.as_str() {
                    "In" => has(key, values),
                    "NotIn" => !has(key, values),
                    "Exists" => labels.contains_key(key),
                    "DoesNotExist" => !labels.contains_key(key),
                    _ => false,
                })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_selects_as_kubernetes_does() {
        let labels = BTreeMap::from([
            ("app".to_owned(), "store".to_owned()),
            ("tier".to_owned(), "a".to_owned()),
        ]);
        let expression = |key: &str, operator: &str, values: &[&str]| Selector {
            labels: BTreeMap::new(),
            expressions: vec![(
                key.to_owned(),
                operator.to_owned(),
                values.iter().map(|v| (*v).to_owned()).collect(),
            )],
        };
        for (selector, selects) in [
            (Selector::default(), true),
            (
                Selector {
                    labels: BTreeMap::from([("app".to_owned(), "store".to_owned())]),
                    expressions: vec![],
                },
                true,
            ),
            (
                Selector {
                    labels: BTreeMap::from([("app".to_owned(), "query".to_owned())]),
                    expressions: vec![],
                },
                false,
            ),
            (expression("tier", "In", &["a", "b"]), true),
            (expression("tier", "NotIn", &["a"]), false),
            (expression("gone", "NotIn", &["a"]), true),
            (expression("gone", "Exists", &[]), false),
            (expression("gone", "DoesNotExist", &[]), true),
            (expression("tier", "Near", &["a"]), false),
        ] {
            assert_eq!(selector.selects(&labels), selects, "{selector:?}");
        }
    }
}
