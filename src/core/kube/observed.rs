//! The observed objects of a labelled namespace besides its StatefulSets: pods, queriers, timeshard's
//! ConfigMaps, PDBs and Services.
//!
//! Each type has only the fields that a decision needs, because thousands of pods are kept in memory.
//! Deliberately absent: watching, trimming and polling.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

use crate::core::agent::status::AgentStatus;
use crate::core::fairness::memory::{ENTRY_BYTES, bytes_of, bytes_of_map};

/// Memory of the leader's report on a pod.
pub const REPORT_BYTES: usize = 768;
/// Memory of the names that a querier lists which are not addresses of pods, such as groups.
pub const OTHER_NAMES_BYTES: usize = 32 * 1024;

/// A pod that a StatefulSet owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "facts that do not depend on each other"
)]
pub struct PodFacts {
    pub name: String,
    /// Differs after the pod was recreated.
    pub uid: String,
    /// Name of the owning StatefulSet.
    pub statefulset: String,
    /// UID of the owning StatefulSet: anyone can forge its name.
    pub owner_uid: String,
    pub ip: Option<String>,
    /// Whether it has timeshard's sidecar.
    pub injected: bool,
    /// Whether a container runs `thanos store`, also within a shell, as far as its arguments show.
    pub store: bool,
    /// Whether its user opted out of injection.
    pub opted_out: bool,
    /// Whether it is not injected because its user set its time flags.
    pub by_hand: bool,
    /// The ConfigMap that its sidecar reads.
    pub configmap: Option<String>,
    pub ready: bool,
    /// When the `Ready` condition last changed, in seconds since the epoch by the cluster's clock.
    /// Identifies a readiness; never compared with another clock.
    pub ready_changed_unix_seconds: i64,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Its revision of the StatefulSet.
    pub revision: String,
    /// The value of timeshard's shard label.
    pub shard_label: Option<String>,
    /// Why a container does not run, such as `CrashLoopBackOff` or `ErrImagePull`.
    pub stuck: Option<String>,
    /// Restarts of all containers.
    pub container_restarts: u32,
    /// For the selectors of PDBs and Services.
    pub labels: BTreeMap<String, String>,
}

/// What must not have changed of a pod while a step was decided; see [`PodFacts`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodMoment {
    pub uid: String,
    pub terminating: bool,
    pub ready: bool,
    pub ready_changed_unix_seconds: i64,
}

/// A ConfigMap with timeshard's label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapFacts {
    pub name: String,
    pub uid: String,
    /// Makes a write fail after a concurrent one.
    pub resource_version: String,
    /// UID of the owning StatefulSet.
    pub owner_uid: Option<String>,
    pub data: BTreeMap<String, String>,
    /// The text of [`crate::core::model::names::SINGLE_HOLDERS`]; `None` if it is longer than
    /// timeshard writes it.
    pub single_holders: Option<String>,
}

/// A label selector. Absent and null lists are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Selector {
    #[serde(rename = "matchLabels", deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Key, operator (`In`, `NotIn`, `Exists`, `DoesNotExist`) and values.
    #[serde(rename = "matchExpressions", deserialize_with = "expressions")]
    pub expressions: Vec<Expression>,
}

type Expression = (String, String, Vec<String>);

/// Go writes an empty list as null in some places.
///
/// # Errors
/// Those of the value.
pub fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn expressions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Expression>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Requirement {
        key: String,
        operator: String,
        #[serde(deserialize_with = "or_default")]
        values: Vec<String>,
    }
    let all: Vec<Requirement> = or_default(deserializer)?;
    Ok(all
        .into_iter()
        .map(|one| (one.key, one.operator, one.values))
        .collect())
}

/// A `PodDisruptionBudget`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetFacts {
    pub name: String,
    /// Whether it has timeshard's label.
    pub ours: bool,
    /// Makes a write fail after a concurrent one.
    pub resource_version: String,
    /// UID of the owning StatefulSet.
    pub owner_uid: Option<String>,
    /// Name of the owning StatefulSet.
    pub owner_name: Option<String>,
    /// `None` selects nothing.
    pub selector: Option<Selector>,
    /// If it is a number.
    pub max_unavailable: Option<i32>,
    /// If it is a number.
    pub min_available: Option<i32>,
    /// Whether the disruption controller has observed the present generation.
    pub observed: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    pub name: String,
    /// Whether it has timeshard's label.
    pub ours: bool,
    /// Makes a write fail after a concurrent one.
    pub resource_version: String,
    /// UID of the owning StatefulSet.
    pub owner_uid: Option<String>,
    /// Empty selects nothing.
    pub selector: BTreeMap<String, String>,
    /// `publishNotReadyAddresses`, which makes draining ineffective.
    pub publishes_not_ready: bool,
    pub headless: bool,
    /// Name and number.
    pub ports: Vec<(String, i32)>,
}

/// A pod that runs `thanos query`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuerierFacts {
    pub name: String,
    /// Differs after the pod was recreated.
    pub uid: String,
    /// `None` before it has one, and once its containers have ended.
    pub ip: Option<String>,
    /// The port of `--http-address`; `None` if that is no number.
    pub port: Option<u16>,
    /// The prefix of its paths, empty or with a leading slash; `None` if it cannot be asked for.
    pub prefix: Option<String>,
    /// Whether it serves HTTPS or wants authentication (`--http.config`).
    pub http_config: bool,
    /// The endpoints that its arguments name, as text.
    pub endpoints: Vec<String>,
    /// Whether these are all.
    pub told: bool,
}

/// The observed objects of a namespace by name, without StatefulSets and ConfigMaps.
#[derive(Clone, Debug, Default)]
pub struct NamespaceFacts {
    pub pods: BTreeMap<String, PodFacts>,
    pub queriers: BTreeMap<String, QuerierFacts>,
    /// Pods of which it is not known whether they are queriers: too large, or too many.
    pub unread_pods: BTreeSet<String>,
    pub budgets: BTreeMap<String, BudgetFacts>,
    pub services: BTreeMap<String, ServiceFacts>,
}

/// The last response of a pod's sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodAnswer {
    Status(Box<AgentStatus>),
    /// The reason.
    Unreachable(String),
}

impl PodAnswer {
    #[must_use]
    pub fn status(&self) -> Option<&AgentStatus> {
        match self {
            Self::Status(status) => Some(status),
            Self::Unreachable(_) => None,
        }
    }
}

impl PodFacts {
    #[must_use]
    pub fn moment(&self) -> PodMoment {
        PodMoment {
            uid: self.uid.clone(),
            terminating: self.terminating,
            ready: self.ready,
            ready_changed_unix_seconds: self.ready_changed_unix_seconds,
        }
    }

    /// Estimates the memory it takes.
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
        // The time since which it is ready is kept next to it.
        let polled = if self.injected {
            REPORT_BYTES + size_of::<AgentStatus>()
        } else {
            0
        };
        polled
            + 2 * size_of::<Self>()
            + bytes_of(texts)
            + bytes_of(optional.into_iter().flatten())
            + bytes_of_map(&self.labels)
    }

    /// Parses the shard label.
    #[must_use]
    pub fn shard(&self) -> Option<u32> {
        self.shard_label.as_ref()?.parse().ok()
    }

    /// Whether its sidecar can be polled.
    #[must_use]
    pub fn can_be_asked(&self) -> bool {
        self.injected && !self.terminating && self.ip.is_some()
    }

    /// Whether it runs thanos store without the sidecar unintentionally. `replace` allows replacing
    /// time flags that the user set.
    #[must_use]
    pub fn forgotten(&self, replace: bool) -> bool {
        self.store && !self.injected && !self.opted_out && (!self.by_hand || replace)
    }
}

impl QuerierFacts {
    /// Estimates the memory it takes, with the names that it lists besides pods.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = bytes_of([&self.name, &self.uid]) + bytes_of(&self.endpoints);
        let optional = bytes_of(self.ip.iter().chain(&self.prefix));
        2 * size_of::<Self>() + texts + optional + OTHER_NAMES_BYTES
    }
}

impl MapFacts {
    /// Estimates the memory it takes, with its entries.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// A parsed entry and the report on its pod.
        const PARSED_BYTES: usize = 192 + REPORT_BYTES;
        let texts = [&self.name, &self.uid, &self.resource_version];
        let optional = [&self.owner_uid, &self.single_holders];
        let texts = bytes_of(texts) + bytes_of(optional.into_iter().flatten());
        size_of::<Self>() + texts + bytes_of_map(&self.data) + PARSED_BYTES * self.data.len()
    }
}

impl BudgetFacts {
    /// Estimates the memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + 3 * ENTRY_BYTES
            + bytes_of([&self.name])
            + self.selector.as_ref().map_or(0, Selector::bytes)
    }
}

impl ServiceFacts {
    /// Estimates the memory it takes.
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
    /// Estimates the memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let expressions = self.expressions.iter().map(|(key, operator, values)| {
            key.len() + operator.len() + ENTRY_BYTES + bytes_of(values)
        });
        bytes_of_map(&self.labels) + expressions.sum::<usize>()
    }

    /// Whether a pod with these labels is selected. An unknown operator selects nothing.
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
