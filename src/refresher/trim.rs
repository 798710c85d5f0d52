//! Observed objects, cut down to what a decision needs, at once as they come in: thousands of pods are held in memory.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodCondition, PodStatus, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use crate::adapters::cluster::selector;
use crate::adapters::store_words::run;
use crate::core::names;
use crate::core::observed::{BudgetFacts, PodFacts, ServiceFacts};
use crate::core::printable::short_line;
use crate::core::store_args::Runs;

/// What is kept of an address, which may be any text. Characters; those of IPv6 have at most 45.
const MAX_IP_CHARS: usize = 64;
/// What is kept of why a pod does not run. Characters.
const MAX_REASON_CHARS: usize = 100;
/// Why a container waits in an ordinary start.
const ORDINARY_WAITS: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// A pod, if a StatefulSet owns it.
pub(super) fn pod(pod: &Pod) -> Option<PodFacts> {
    let owner = statefulset(&pod.metadata)?;
    let inject = [
        pod.labels().get(names::INJECT),
        pod.annotations().get(names::INJECT),
    ];
    let says = |word: &str| inject.into_iter().flatten().any(|value| value == word);
    let spec = pod.spec.as_ref();
    let containers = spec
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default();
    let init_containers = spec
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default();
    let status = pod.status.as_ref();
    let ready = status.and_then(|status| condition(status, "Ready"));
    // Its address may be another pod's by now.
    let ended = status
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| ["Succeeded", "Failed"].contains(&phase));
    let injected = init_containers.iter().chain(containers).any(is_our_sidecar);
    let (store, time_flags) = runs_store(containers, says("true"));
    let ours = spec.and_then(|spec| {
        spec.volumes
            .iter()
            .flatten()
            .find(|volume| volume.name == names::CONFIG_VOLUME)
    });
    Some(PodFacts {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        statefulset: owner.name.clone(),
        owner_uid: owner.uid.clone(),
        ip: status
            .and_then(|status| status.pod_ip.as_deref())
            .filter(|ip| !ip.is_empty() && !ended)
            .map(|ip| short_line(ip, MAX_IP_CHARS)),
        injected,
        store,
        opted_out: says("false"),
        by_hand: time_flags && !injected,
        configmap: ours.and_then(|volume| Some(volume.config_map.as_ref()?.name.clone())),
        ready: ready.is_some_and(|ready| ready.status == "True"),
        ready_changed_unix_seconds: ready
            .and_then(|ready| ready.last_transition_time.as_ref())
            .map_or(0, |time| time.0.as_second()),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        revision: pod
            .labels()
            .get(names::REVISION_LABEL)
            .cloned()
            .unwrap_or_default(),
        shard_label: pod.labels().get(names::SHARD_LABEL).cloned(),
        stuck: status
            .and_then(stuck)
            .map(|reason| short_line(&reason, MAX_REASON_CHARS)),
        container_restarts: status.map_or(0, restarts),
        labels: pod.labels().clone(),
    })
}

/// A PodDisruptionBudget.
pub(super) fn budget(budget: &PodDisruptionBudget) -> BudgetFacts {
    let spec = budget.spec.as_ref();
    BudgetFacts {
        name: budget.name_any(),
        ours: is_ours(&budget.metadata),
        resource_version: budget.resource_version().unwrap_or_default(),
        owner_uid: owner_uid(&budget.metadata),
        owner_name: statefulset(&budget.metadata).map(|owner| owner.name.clone()),
        selector: spec.and_then(|spec| spec.selector.as_ref()).map(selector),
        max_unavailable: number(spec.and_then(|spec| spec.max_unavailable.as_ref())),
        min_available: number(spec.and_then(|spec| spec.min_available.as_ref())),
        observed: budget
            .status
            .as_ref()
            .and_then(|status| status.observed_generation)
            >= budget.metadata.generation,
    }
}

/// A percentage is nobody's number.
fn number(value: Option<&IntOrString>) -> Option<i32> {
    match value {
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(_)) | None => None,
    }
}

/// A Service.
pub(super) fn service(service: &Service) -> ServiceFacts {
    let spec = service.spec.as_ref();
    let ports = spec
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    ServiceFacts {
        name: service.name_any(),
        ours: is_ours(&service.metadata),
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

fn statefulset(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.kind == "StatefulSet" && owner.api_version.starts_with("apps/"))
}

fn owner_uid(meta: &ObjectMeta) -> Option<String> {
    statefulset(meta).map(|owner| owner.uid.clone())
}

fn is_ours(meta: &ObjectMeta) -> bool {
    let labels: Option<&BTreeMap<String, String>> = meta.labels.as_ref();
    labels
        .and_then(|labels| labels.get(names::MANAGED_BY_LABEL))
        .is_some_and(|value| value == names::MANAGED_BY)
}

fn is_our_sidecar(container: &Container) -> bool {
    // Other tools put programs before ours, and move what was the command to the arguments.
    let mut words = [&container.command, &container.args]
        .into_iter()
        .flatten()
        .flatten();
    container.name == names::SIDECAR && words.any(|word| word == names::AGENT_IN_IMAGE)
}

/// Whether one of them runs thanos store, and whether that has time flags. A store behind a shell counts: nobody gives it
/// its window, either.
fn runs_store(containers: &[Container], vouched: bool) -> (bool, bool) {
    let flags = |runs: Runs<'_>| match runs {
        Runs::Store(store) | Runs::Program(_, store) => Some(!store.time_flags.is_empty()),
        Runs::Wrapper(_) => Some(false),
        _ => None,
    };
    let stores = containers
        .iter()
        .filter_map(|container| run(container, vouched, flags).flatten());
    stores.fold((false, false), |(_, flags), own| (true, flags || own))
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten()
}

fn restarts(status: &PodStatus) -> u32 {
    containers(status)
        .map(|container| u32::try_from(container.restart_count).unwrap_or(0))
        .fold(0, u32::saturating_add)
}

fn stuck(status: &PodStatus) -> Option<String> {
    let waits = containers(status)
        .find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.as_ref());
    let waits = waits.filter(|reason| !ORDINARY_WAITS.contains(&reason.as_str()));
    let unscheduled = || {
        condition(status, "PodScheduled")
            .filter(|scheduled| scheduled.status == "False")?
            .reason
            .clone()
    };
    waits
        .cloned()
        .or_else(unscheduled)
        .or_else(|| status.reason.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::adapters::lean::{Lean, Read};
    use crate::core::observed::Selector;

    fn injected() -> Value {
        json!({
            "metadata": {
                "name": "store-4", "uid": "u4", "managedFields": [{"manager": "x"}],
                "labels": {"app": "store", names::SHARD_LABEL: "2", names::REVISION_LABEL: "store-66"},
                "annotations": {"long": "text"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "s"}],
            },
            "spec": {
                "initContainers": [{"name": names::SIDECAR, "command": [names::AGENT_IN_IMAGE, "sidecar"], "restartPolicy": "Always"}],
                "containers": [{"name": "thanos", "image": "x", "command": [names::AGENT_IN_SHARED_DIR, "launch", "--", "thanos"], "args": ["store"]}],
                "volumes": [{"name": "data"}, {"name": names::CONFIG_VOLUME, "configMap": {"name": "store-time-shards", "optional": true}}],
            },
            "status": {
                "phase": "Running", "podIP": "fd00::7",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}],
                "initContainerStatuses": [{"name": names::SIDECAR, "image": "", "imageID": "", "ready": true, "restartCount": 2}],
                "containerStatuses": [{"name": "thanos", "image": "", "imageID": "", "ready": true, "restartCount": 1}],
            },
        })
    }

    /// As a watch reads it.
    fn read<K: Read>(object: Value) -> K {
        serde_json::from_value::<Lean<K>>(object).unwrap().0
    }

    fn facts(object: Value) -> Option<PodFacts> {
        pod(&read(object))
    }

    fn changed(change: impl FnOnce(&mut Value)) -> PodFacts {
        let mut object = injected();
        change(&mut object);
        facts(object).unwrap()
    }

    #[test]
    fn a_pod_is_cut_down_to_what_is_decided_on() {
        let label = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let want = PodFacts {
            name: "store-4".to_owned(),
            uid: "u4".to_owned(),
            statefulset: "store".to_owned(),
            owner_uid: "s".to_owned(),
            ip: Some("fd00::7".to_owned()),
            injected: true,
            store: true,
            opted_out: false,
            by_hand: false,
            configmap: Some("store-time-shards".to_owned()),
            ready: true,
            ready_changed_unix_seconds: 1_767_225_605,
            terminating: false,
            revision: "store-66".to_owned(),
            shard_label: Some("2".to_owned()),
            stuck: None,
            container_restarts: 3,
            labels: [
                ("app", "store"),
                (names::SHARD_LABEL, "2"),
                (names::REVISION_LABEL, "store-66"),
            ]
            .map(label)
            .into(),
        };
        assert_eq!(facts(injected()), Some(want));
        let bare = facts(
            json!({"metadata": {"ownerReferences": injected()["metadata"]["ownerReferences"]}}),
        )
        .unwrap();
        assert_eq!(
            bare,
            PodFacts {
                statefulset: "store".to_owned(),
                owner_uid: "s".to_owned(),
                ..PodFacts::default()
            }
        );
    }

    #[test]
    fn only_pods_of_statefulsets_are_kept() {
        for owners in [
            json!([]),
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "x"}]),
        ] {
            let mut object = injected();
            object["metadata"]["ownerReferences"] = owners;
            assert_eq!(facts(object), None);
        }
    }

    #[test]
    fn a_store_without_sidecar_is_told_from_other_pods() {
        let runs = |container: Value, annotations: Value| {
            let without = changed(|object| {
                object["spec"] = json!({"containers": [container]});
                object["metadata"]["annotations"] = annotations;
            });
            assert!(!without.injected);
            (without.store, without.opted_out)
        };
        let store =
            json!({"name": "c", "image": "quay.io/thanos/thanos:v0.42.4", "args": ["store"]});
        assert_eq!(runs(store.clone(), json!({})), (true, false));
        assert_eq!(runs(store, json!({names::INJECT: "false"})), (true, true));
        assert_eq!(
            runs(
                json!({"name": "c", "image": "thanos", "args": ["query"]}),
                json!({})
            ),
            (false, false)
        );
        let shell = json!({"name": "c", "command": ["sh", "-c", "exec /bin/thanos --log.level=info store"]});
        assert_eq!(runs(shell, json!({})), (true, false));
        let renamed = json!({"name": "c", "image": "mine", "args": ["store"]});
        assert_eq!(runs(renamed.clone(), json!({})), (false, false));
        assert_eq!(runs(renamed, json!({names::INJECT: "true"})), (true, false));
        // Somebody else's container may have our sidecar's name.
        assert_eq!(
            runs(
                json!({"name": names::SIDECAR, "command": ["sh"]}),
                json!({})
            ),
            (false, false)
        );
    }

    #[test]
    fn why_a_pod_does_not_run_is_kept() {
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let stuck = |reason| {
            changed(|object| object["status"]["containerStatuses"][0]["state"] = waiting(reason))
                .stuck
        };
        assert_eq!(
            stuck("CrashLoopBackOff").as_deref(),
            Some("CrashLoopBackOff")
        );
        assert_eq!(stuck("PodInitializing"), None);
        let unscheduled =
            json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]);
        assert_eq!(
            changed(|object| object["status"]["conditions"] = unscheduled)
                .stuck
                .as_deref(),
            Some("Unschedulable")
        );
        let evicted = changed(|object| {
            object["status"]["phase"] = json!("Failed");
            object["status"]["reason"] = json!("Evicted");
        });
        assert_eq!(
            (evicted.stuck.as_deref(), evicted.ip),
            (Some("Evicted"), None),
            "its address may be another pod's"
        );
        let terminating = changed(|object| {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")
        });
        assert!(terminating.terminating);
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
