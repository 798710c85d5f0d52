//! What remains to be removed for a StatefulSet that its user opted out
//! ([`names::MANAGED`](crate::core::model::names::MANAGED)).
//!
//! Running pods keep their windows, because a sidecar whose entry vanishes keeps the last good one.
//! Invariants: nothing is created or changed, only removed; a Service stays while a pod carries its
//! shard's label, because queriers may find the pod only through it; once nothing is left, the
//! cluster is not written.

use std::collections::BTreeMap;

use super::budgets::{self, BudgetWrite};
use super::report::{RolloutState, SetReport};
use super::services::{self, ServiceWrite};
use super::shard_objects::{Owner, ShardedSet};
use crate::core::config::Config;
use crate::core::gateways::{Gateway, Published};
use crate::core::kube::observed::{NamespaceFacts, PodFacts};
use crate::core::model::names;
use crate::core::model::text::counted;

/// What to remove, and the report meanwhile.
#[derive(Debug)]
pub struct Withdrawal {
    pub budgets: Vec<BudgetWrite>,
    pub services: Vec<ServiceWrite>,
    /// Whether the ConfigMap has entries to remove. The object itself stays: the server may not
    /// delete ConfigMaps, and it goes with the StatefulSet.
    pub empty_map: bool,
    /// Whether the ConfigMap still names pods that alone serve a block.
    pub single_holders: bool,
    pub report: SetReport,
}

/// Decides what to remove of a StatefulSet that is opted out. `None` for one that never was a store
/// gateway of timeshard's.
#[must_use]
pub fn withdraw(
    gateway: &Gateway,
    config: &Config,
    map: Option<&Published>,
    facts: &NamespaceFacts,
) -> Option<Withdrawal> {
    let known = gateway.facts();
    let set = ShardedSet {
        owner: Owner {
            name: known.name.clone(),
            uid: known.uid.clone(),
        },
        selector: known.selector.clone(),
        published: BTreeMap::new(),
        grpc_port: known.grpc_port,
    };
    let runs_store = |pod: &PodFacts| pod.injected || pod.store;
    if !known.store && map.is_none() && !set.pods(facts).any(runs_store) {
        return None;
    }
    let (services, kept) = services::leftover(&set, facts);
    let injected = set.pods(facts).filter(|pod| pod.injected).count();
    Some(Withdrawal {
        budgets: budgets::leftover(&set, facts),
        services,
        empty_map: map.is_some_and(|map| !map.facts.data.is_empty()),
        single_holders: map.is_some_and(|map| map.facts.single_holders.is_some()),
        report: SetReport {
            namespace: known.namespace.clone(),
            name: known.name.clone(),
            configmap: config.operator.configmap_of(&known.namespace, &known.name),
            replicas: known.replicas,
            // Nothing is left to do: `timeshard status --until-settled` does not wait for it.
            state: RolloutState::Settled,
            message: sentence(injected, kept),
            opted_out: true,
            ..SetReport::default()
        },
    })
}

fn sentence(injected: usize, services: usize) -> String {
    let annotation = format!("opted out by annotation {}: \"false\"", names::MANAGED);
    let pods = match injected {
        0 => String::new(),
        1 => "; 1 pod keeps its last window until it is replaced".to_owned(),
        many => format!("; {many} pods keep their last windows until they are replaced"),
    };
    let services = match services {
        0 => String::new(),
        many => format!(
            ", and {} until then",
            counted(u64::try_from(many).unwrap_or(u64::MAX), "shard Service")
                + if many == 1 { " stays" } else { " stay" }
        ),
    };
    format!("{annotation}{pods}{services}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::gateways::Gateways;
    use crate::core::kube::observed::{BudgetFacts, MapFacts, ServiceFacts};
    use crate::core::kube::statefulset::StatefulSetFacts;

    fn fleet() -> Gateways {
        let facts = StatefulSetFacts {
            namespace: "ns".to_owned(),
            name: "store".to_owned(),
            uid: "set".to_owned(),
            replicas: 2,
            store: true,
            annotations: [(names::MANAGED.to_owned(), "false".to_owned())].into(),
            ..StatefulSetFacts::default()
        };
        Gateways::new(Arc::new(Config::default()))
            .with_statefulset(facts)
            .unwrap()
    }

    /// Two pods, of which the second one was admitted after the opt-out; objects of both shards.
    fn facts() -> NamespaceFacts {
        let mut facts = NamespaceFacts::default();
        for (index, injected) in [(0, true), (1, false)] {
            let pod = PodFacts {
                name: format!("store-{index}"),
                statefulset: "store".to_owned(),
                injected,
                store: true,
                shard_label: injected.then(|| index.to_string()),
                ..PodFacts::default()
            };
            facts.pods.insert(pod.name.clone(), pod);
        }
        for (shard, ours) in [(0, true), (1, true), (2, false)] {
            let name = format!("store-shard-{shard}");
            let budget = BudgetFacts {
                name: name.clone(),
                ours,
                owner_uid: Some("set".to_owned()),
                ..BudgetFacts::default()
            };
            let service = ServiceFacts {
                name: name.clone(),
                ours,
                owner_uid: Some("set".to_owned()),
                selector: [(names::SHARD_LABEL.to_owned(), shard.to_string())].into(),
                ..ServiceFacts::default()
            };
            facts.budgets.insert(name.clone(), budget);
            facts.services.insert(name, service);
        }
        facts
    }

    fn map(entries: bool) -> Published {
        let data = [("store-0.yaml".to_owned(), "shard: 0\n".to_owned())];
        let facts = MapFacts {
            data: data.into_iter().filter(|_| entries).collect(),
            single_holders: entries.then(|| "{}".to_owned()),
            ..MapFacts::default()
        };
        Published {
            facts,
            ..Published::default()
        }
    }

    #[test]
    fn only_own_objects_go_and_a_service_stays_while_a_pod_is_found_through_it() {
        let (fleet, facts) = (fleet(), facts());
        let gateway = fleet.known("ns", "store");
        let found = withdraw(gateway, fleet.config(), Some(&map(true)), &facts).unwrap();
        let budgets: Vec<&str> = found.budgets.iter().map(BudgetWrite::name).collect();
        let services: Vec<&str> = found.services.iter().map(ServiceWrite::name).collect();
        assert_eq!(budgets, ["store-shard-0", "store-shard-1"]);
        assert_eq!(services, ["store-shard-1"]);
        assert!(found.empty_map && found.single_holders);
        assert_eq!(
            found.report.message,
            "opted out by annotation thanos-timeshard.io/managed: \"false\"; 1 pod keeps its last window until it is replaced, and 1 shard Service stays until then"
        );
        assert_eq!(
            (found.report.opted_out, found.report.state),
            (true, RolloutState::Settled)
        );
    }

    #[test]
    fn once_everything_is_gone_nothing_is_written() {
        let (fleet, mut facts) = (fleet(), facts());
        facts.budgets.retain(|_, budget| !budget.ours);
        facts.services.retain(|_, service| !service.ours);
        let gateway = fleet.known("ns", "store");
        let found = withdraw(gateway, fleet.config(), Some(&map(false)), &facts).unwrap();
        assert!(found.budgets.is_empty() && found.services.is_empty());
        assert!(!found.empty_map && !found.single_holders);
    }

    #[test]
    fn another_workload_with_the_annotation_has_no_report() {
        let (fleet, facts) = (fleet(), NamespaceFacts::default());
        let mut other = fleet.known("ns", "store").facts().clone();
        other.store = false;
        let fleet = fleet.with_statefulset(other).unwrap();
        let gateway = fleet.known("ns", "store");
        assert!(withdraw(gateway, fleet.config(), None, &facts).is_none());
    }
}
