//! Facts of a pod.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition, PodStatus};
use kube::ResourceExt as _;

use super::statefulset_owner;
use super::store_args::run;
use crate::core::kube::observed::PodFacts;
use crate::core::kube::recognise;
use crate::core::model::names;
use crate::core::model::text::short_line;
use crate::core::thanos::args::Runs;

/// How much of an address is kept, which may be any text. Characters; IPv6 takes at most 45.
const MAX_IP_CHARS: usize = 64;
/// How much is kept of the reason why a pod does not run. Characters.
const MAX_REASON_CHARS: usize = 100;
/// Reasons for which a container waits in a normal start.
const ORDINARY_WAITS: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Facts of a pod; `None` unless a StatefulSet owns it.
#[must_use]
pub fn pod(pod: &Pod) -> Option<PodFacts> {
    let owner = statefulset_owner(&pod.metadata)?;
    let inject = [
        pod.labels().get(names::INJECT),
        pod.annotations().get(names::INJECT),
    ];
    let is_set_to = |word: &str| inject.into_iter().flatten().any(|value| value == word);
    let spec = pod.spec.as_ref();
    let containers = spec
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default();
    let init_containers = spec
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default();
    let status = pod.status.as_ref();
    let ready = status.and_then(|status| condition(status, "Ready"));
    let injected = init_containers.iter().chain(containers).any(is_sidecar);
    let (store, time_flags) = runs_store(containers, is_set_to("true"));
    let config_volume = spec.and_then(|spec| {
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
        ip: address(pod),
        injected,
        store,
        opted_out: is_set_to("false"),
        by_hand: time_flags && !injected,
        configmap: config_volume.and_then(|volume| Some(volume.config_map.as_ref()?.name.clone())),
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

/// The pod's address, unless its containers have ended: another pod may have it then.
pub(super) fn address(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let ended = status
        .phase
        .as_deref()
        .is_some_and(|phase| ["Succeeded", "Failed"].contains(&phase));
    let ip = status.pod_ip.as_deref();
    ip.filter(|ip| !ip.is_empty() && !ended)
        .map(|ip| short_line(ip, MAX_IP_CHARS))
}

fn is_sidecar(container: &Container) -> bool {
    let args = [&container.command, &container.args];
    recognise::is_sidecar(
        &container.name,
        args.into_iter().flatten().flatten().map(String::as_str),
    )
}

/// Whether a container runs thanos store, and whether with time flags. A store behind a shell
/// counts: it has no window, either.
fn runs_store(containers: &[Container], vouched: bool) -> (bool, bool) {
    let flags = |runs: Runs<'_>| match runs {
        Runs::Store(store) | Runs::Program(_, store) => Some(!store.time_flags.is_empty()),
        Runs::Wrapper(_) => Some(false),
        _ => None,
    };
    let stores = containers
        .iter()
        .filter_map(|container| run(container, vouched, flags));
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
    use crate::adapters::kube::partial::Partial;

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

    fn facts(object: Value) -> Option<PodFacts> {
        pod(&serde_json::from_value::<Partial<Pod>>(object).unwrap().0)
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
        // Another container may have the name of the sidecar.
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
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        });
        assert!(terminating.terminating);
    }
}
