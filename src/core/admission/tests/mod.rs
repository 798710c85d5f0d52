use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::core::gateways::Gateways;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::names;
use crate::core::pod::PodView;

mod bounds;
mod command_line;
mod others;
mod pull_secrets;
mod random;
mod skipped;

const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// Decides a pod as the webhook does. Returns the patched pod, the patch and the remarks.
fn admit_with(config: &Config, pod: &Value) -> Result<(Value, Vec<Value>, Vec<Remark>), Skip> {
    let bytes = serde_json::to_vec(pod).unwrap();
    let view =
        PodView::parse(&bytes).map_err(|error| Skip::NoStore(format!("unreadable: {error}")))?;
    let candidate = eligible(&view)?;
    let gateways = Gateways::new(Arc::new(config.clone()));
    let facts = Facts::of(&gateways, "ns", (&candidate, &view), NOW);
    let injection = inject(&view, &candidate, &facts)?;
    let patch = serde_json::to_value(&injection.operations).unwrap();
    let operations: json_patch::Patch = serde_json::from_value(patch.clone()).unwrap();
    let mut after = pod.clone();
    json_patch::patch(&mut after, &operations).unwrap();
    Ok((after, patch.as_array().unwrap().clone(), injection.remarks))
}

fn admit(pod: &Value) -> Result<(Value, Vec<Value>, Vec<Remark>), Skip> {
    admit_with(&Config::default(), pod)
}

fn pod_of(spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "store-3",
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "u"}]}, "spec": spec})
}

fn store_with(extra: &Value) -> Value {
    let mut container =
        json!({"name": "thanos", "image": "thanos:v0.42.4", "args": ["store", "--data-dir=/d"]});
    merge(&mut container, extra);
    pod_of(&json!({"containers": [container]}))
}

fn merge(into: &mut Value, extra: &Value) {
    for (key, value) in extra.as_object().unwrap() {
        into[key] = value.clone();
    }
}

fn injected(pod: &Value) -> Value {
    admit(pod).unwrap_or_else(|skip| panic!("{skip}: {pod}")).0
}

fn args_of(pod: &Value) -> Vec<&str> {
    pod["spec"]["containers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect()
}

fn sidecar_of(pod: &Value) -> &Value {
    pod["spec"]["initContainers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|container| container["name"] == names::SIDECAR)
        .unwrap()
}

#[test]
fn the_shared_volume_does_not_keep_a_node() {
    for (given, want) in [
        (None, "timeshard-shared"),
        (Some(""), "timeshard-shared"),
        (Some("data"), "data,timeshard-shared"),
        (Some("timeshard-shared"), "timeshard-shared"),
        (Some("a,timeshard-shared,b"), "a,timeshard-shared,b"),
        (
            Some("timeshard-shared-2"),
            "timeshard-shared-2,timeshard-shared",
        ),
        // The autoscaler takes the blank for a part of the name.
        (
            Some("a, timeshard-shared"),
            "a, timeshard-shared,timeshard-shared",
        ),
    ] {
        let mut pod = store_with(&json!({}));
        if let Some(given) = given {
            pod["metadata"]["annotations"] = json!({names::SAFE_TO_EVICT_VOLUMES: given});
        }
        let (mut after, patch, _) = admit(&pod).unwrap();
        assert_eq!(
            after["metadata"]["annotations"][names::SAFE_TO_EVICT_VOLUMES],
            want,
            "{given:?}"
        );
        assert_eq!(
            patch.iter().any(|op| op["path"]
                .as_str()
                .unwrap()
                .ends_with("~1safe-to-evict-local-volumes")),
            given != Some(want)
        );
        assert_eq!(admit(&after).unwrap_err(), Skip::AlreadyInjected);
        // Another webhook may set the complete list later.
        after["metadata"]["annotations"][names::SAFE_TO_EVICT_VOLUMES] = json!("data");
        assert_eq!(
            injected(&after)["metadata"]["annotations"][names::SAFE_TO_EVICT_VOLUMES],
            "data,timeshard-shared"
        );
    }
}

#[test]
fn the_published_entry_wins_over_the_plan() {
    let pod = store_with(&json!({}));
    let bytes = serde_json::to_vec(&pod).unwrap();
    let view = PodView::parse(&bytes).unwrap();
    let candidate = eligible(&view).unwrap();
    let entry = Entry::parse("shard: 7\nreplica: 5\nmin_time: -9d\nmax_time: -8d\n", NOW).unwrap();
    let gateways = Gateways::new(Arc::new(Config::default()))
        .with_statefulset(StatefulSetFacts {
            namespace: "ns".to_owned(),
            name: "store".to_owned(),
            replicas: 6,
            ordinals_start: 3,
            ..StatefulSetFacts::default()
        })
        .unwrap();
    let place = |gateways: &Gateways| {
        let facts = Facts::of(gateways, "ns", (&candidate, &view), NOW);
        let injection = inject(&view, &candidate, &facts).unwrap();
        let Assignment { shard, replica, .. } = injection.assignment;
        (injection.source, injection.window, (shard, replica))
    };
    let (source, _, assigned) = place(&gateways);
    assert_eq!(
        (source, assigned),
        (ConfigSource::Plan, (0, 0)),
        "ordinals count from the start"
    );
    let entries = [("store-3".to_owned(), entry)].into();
    assert_eq!(
        place(&gateways.with_configmap("ns", "store-time-shards", entries)),
        (ConfigSource::Published, entry.window, (7, 5))
    );
}

#[test]
fn the_sidecar_fits_the_pod() {
    for (pod_user, own_user, want) in [
        (None, None, Value::Null),
        (Some(1001), None, json!(1001)),
        (Some(1001), Some(2002), json!(2002)),
        (Some(0), None, json!(65532)),
        (Some(1001), Some(0), json!(65532)),
        (Some(0), Some(1001), json!(1001)),
    ] {
        let context = |user: Option<i64>| user.map_or(json!({}), |user| json!({"runAsUser": user}));
        let mut pod = store_with(&json!({"securityContext": context(own_user)}));
        pod["spec"]["securityContext"] = context(pod_user);
        let pod = injected(&pod);
        let sidecar = sidecar_of(&pod);
        assert_eq!(
            sidecar["securityContext"]
                .get("runAsUser")
                .cloned()
                .unwrap_or_default(),
            want,
            "{pod_user:?} {own_user:?}"
        );
        assert_eq!(sidecar["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            sidecar["resources"]["requests"], sidecar["resources"]["limits"],
            "a Guaranteed pod stays Guaranteed"
        );
    }
}

#[test]
fn injected_containers_share_pod_level_resources() {
    let classic = Config::parse("injection: {native_sidecar: false}", "c").unwrap();
    for (resources, shared) in [
        (json!({"requests": {"cpu": "2", "memory": "4Gi"}}), true),
        (json!({"limits": {"memory": "4Gi"}}), true),
        (json!({"requests": {}, "limits": null}), false),
        (json!({"claims": [{"name": "x"}]}), false),
        (Value::Null, false),
    ] {
        let mut pod = store_with(&json!({"resources": {"requests": {"cpu": "1"}}}));
        pod["spec"]["resources"] = resources.clone();
        let after = injected(&pod);
        assert_eq!(
            sidecar_of(&after).get("resources").is_none(),
            shared,
            "{resources}"
        );
        assert_eq!(
            (
                &after["spec"]["resources"],
                &after["spec"]["containers"][0]["resources"]["requests"]["cpu"]
            ),
            (&resources, &json!("1"))
        );
        let (after, _, _) = admit_with(&classic, &pod).unwrap();
        let ours = [
            &after["spec"]["initContainers"][0],
            &after["spec"]["containers"][1],
        ];
        assert!(
            ours.iter()
                .all(|container| container.get("resources").is_none() == shared),
            "{resources}: {after}"
        );
    }
}

#[test]
fn a_sidecar_without_a_seccomp_profile_leaves_it_to_the_pod() {
    for native in [true, false] {
        for (profile, want) in [
            ("RuntimeDefault", json!({"type": "RuntimeDefault"})),
            ("none", Value::Null),
        ] {
            let text =
                format!("injection: {{native_sidecar: {native}, seccomp_profile: {profile}}}");
            let mut pod = store_with(&json!({}));
            pod["spec"]["securityContext"] =
                json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}});
            let (after, _, _) = admit_with(&Config::parse(&text, "c").unwrap(), &pod).unwrap();
            let all = [
                &after["spec"]["initContainers"],
                &after["spec"]["containers"],
            ];
            let ours = all
                .into_iter()
                .flat_map(|list| list.as_array().unwrap())
                .filter(|c| c["name"].as_str().unwrap().starts_with("config-sidecar"));
            let profiles: Vec<_> = ours
                .map(|container| {
                    container["securityContext"]
                        .get("seccompProfile")
                        .cloned()
                        .unwrap_or_default()
                })
                .collect();
            assert_eq!(
                profiles,
                vec![want.clone(); if native { 1 } else { 2 }],
                "{text}"
            );
            assert_eq!(
                after["spec"]["securityContext"],
                pod["spec"]["securityContext"]
            );
        }
    }
}

#[test]
fn the_sidecar_finds_thanos_where_it_listens() {
    for (args, url, grpc) in [
        (
            json!(["store"]),
            "http://127.0.0.1:10902",
            "127.0.0.1:10901",
        ),
        (
            json!([
                "store",
                "--http-address=:8080",
                "--grpc-address",
                "[::]:9090"
            ]),
            "http://127.0.0.1:8080",
            "127.0.0.1:9090",
        ),
        (
            json!(["store", "--http-address=$(POD_IP):8080"]),
            "http://$(POD_IP):8080",
            "127.0.0.1:10901",
        ),
        (
            json!(["store", "--http-address=0.0.0.0:$(PORT)"]),
            "http://127.0.0.1:10902",
            "127.0.0.1:10901",
        ),
    ] {
        let pod = injected(&store_with(&json!({"args": args})));
        let words = sidecar_of(&pod)["args"].as_array().unwrap();
        assert!(
            words.contains(&json!(format!("--thanos-url={url}"))),
            "{words:?}"
        );
        assert!(
            words.contains(&json!(format!("--grpc-address={grpc}"))),
            "{words:?}"
        );
    }
}

#[test]
fn a_liveness_probe_that_kills_a_long_load_keeps_the_window() {
    for (probe, unsafe_) in [
        (
            json!({"httpGet": {"path": "/-/ready", "port": 10902}}),
            true,
        ),
        (json!({"tcpSocket": {"port": 10901}}), true),
        (json!({"tcpSocket": {"port": "grpc"}}), true),
        (json!({"grpc": {"port": 10901}}), true),
        (
            json!({"httpGet": {"path": "/-/healthy", "port": 10902}}),
            false,
        ),
        (json!({"tcpSocket": {"port": 10902}}), false),
        (json!({"exec": {"command": ["true"]}}), false),
    ] {
        let mut pod = store_with(
            &json!({"livenessProbe": probe, "ports": [{"name": "grpc", "containerPort": 10901}]}),
        );
        let (after, _, remarks) = admit(&pod).unwrap();
        let off = sidecar_of(&after)["args"]
            .as_array()
            .unwrap()
            .contains(&json!("--reload=off"));
        assert_eq!((off, !remarks.is_empty()), (unsafe_, unsafe_), "{probe}");
        pod["metadata"]["annotations"] = json!({names::RELOAD_DESPITE_LIVENESS: "true"});
        let (after, _, remarks) = admit(&pod).unwrap();
        assert!(remarks.is_empty() && !after.to_string().contains("--reload=off"));
    }
}

#[test]
fn probes_and_hooks_of_the_user_stay() {
    let own = json!({
        "livenessProbe": {"httpGet": {"path": "/-/healthy", "port": 10902}}, "readinessProbe": {"tcpSocket": {"port": 1}},
        "startupProbe": {"exec": {"command": ["x"]}}, "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}}
    });
    let pod = injected(&store_with(&own));
    for key in [
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ] {
        assert_eq!(pod["spec"]["containers"][0][key], own[key]);
    }
}

#[test]
fn keys_on_the_pod_are_ignored_with_a_remark() {
    let mut pod = store_with(&json!({}));
    pod["metadata"]["annotations"] = json!({"thanos-timeshard.io/total-shards": "9"});
    let (_, _, remarks) = admit(&pod).unwrap();
    assert_eq!(
        remarks,
        [Remark::KeyOnPod(
            "thanos-timeshard.io/total-shards".to_owned()
        )]
    );
    pod["metadata"]["annotations"] =
        json!({"thanos-timeshard.io/injct": "false", "example.com/x": "y"});
    let (_, _, remarks) = admit(&pod).unwrap();
    assert_eq!(
        remarks.iter().map(|remark| (remark.reason(), remark.to_string())).collect::<Vec<_>>(),
        [(
            "UnknownAnnotation",
            "annotation thanos-timeshard.io/injct is unknown and has no effect; did you mean thanos-timeshard.io/inject?".to_owned()
        )]
    );
}

#[test]
fn the_classic_form_for_old_clusters() {
    let config = Config::parse("injection: {native_sidecar: false}", "c").unwrap();
    let pod = store_with(&json!({}));
    let (after, _, _) = admit_with(&config, &pod).unwrap();
    assert_eq!(
        after["spec"]["initContainers"][0]["name"],
        names::SIDECAR_INSTALL
    );
    assert_eq!(after["spec"]["containers"][1]["name"], names::SIDECAR);
    assert!(
        after["spec"]["containers"][1]
            .get("restartPolicy")
            .is_none()
            && after["spec"]["containers"][1].get("startupProbe").is_none()
    );
    assert_eq!(
        admit_with(&config, &after).unwrap_err(),
        Skip::AlreadyInjected
    );
}

#[test]
fn without_a_termination_drain_the_pod_ends_no_later() {
    let config = Config::parse("sharding: {termination_drain: 0s}", "c").unwrap();
    let (after, _, _) = admit_with(&config, &store_with(&json!({}))).unwrap();
    assert!(after["spec"].get("terminationGracePeriodSeconds").is_none());
}

#[test]
fn the_signal_form_shares_the_process_namespace() {
    let config = Config::parse("sharding: {reload: signal}", "c").unwrap();
    let (after, _, _) = admit_with(&config, &store_with(&json!({}))).unwrap();
    assert_eq!(after["spec"]["shareProcessNamespace"], true);
    assert!(
        sidecar_of(&after)["args"]
            .as_array()
            .unwrap()
            .contains(&json!("--reload=signal"))
    );
}

#[test]
fn the_sidecar_never_searches_the_processes_of_a_node() {
    let mut pod = store_with(&json!({}));
    pod["spec"]["hostPID"] = json!(true);
    let config = Config::parse("sharding: {reload: signal}", "c").unwrap();
    let (after, _, remarks) = admit_with(&config, &pod).unwrap();
    assert_eq!(
        (remarks, after["spec"].get("shareProcessNamespace")),
        (vec![Remark::HostPid], None)
    );
    assert!(!after.to_string().contains("--reload="));
    let (_, _, remarks) = admit(&pod).unwrap();
    assert!(
        remarks.is_empty(),
        "nothing is wrong with it otherwise: {remarks:?}"
    );
}
