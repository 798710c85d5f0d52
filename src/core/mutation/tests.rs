use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::core::fleet::Fleet;
use crate::core::names;
use crate::core::pod::PodView;

mod bounds;
mod others;

const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// Decides about a pod as the webhook does, and gives the pod after its patch.
fn admit_with(config: &Config, pod: &Value) -> Result<(Value, Vec<Value>, Vec<Remark>), Skip> {
    let bytes = serde_json::to_vec(pod).unwrap();
    let view = PodView::parse(&bytes).map_err(|error| Skip::NoStore(format!("unreadable: {error}")))?;
    let candidate = eligible(&view)?;
    let fleet = Fleet::new(Arc::new(config.clone()));
    let known = fleet.known("ns", &candidate.owner.name.0);
    let facts = Facts {
        config: fleet.config(),
        sharding: &known.sharding,
        plan: &known.plan,
        ordinals_start: 0,
        replace_time_flags: false,
        reload_despite_liveness: false,
        published: None,
        rendered: &known.rendered,
        namespace: "ns",
        now: NOW,
    };
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
    let mut container = json!({"name": "thanos", "image": "thanos:v0.42.4", "args": ["store", "--data-dir=/d"]});
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
    pod["spec"]["containers"][0]["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

fn sidecar_of(pod: &Value) -> &Value {
    pod["spec"]["initContainers"].as_array().unwrap().iter().find(|container| container["name"] == names::SIDECAR).unwrap()
}

/// Takes out of `after` exactly what an injection may have put in, by name; what is left must be `before`.
fn stripped(before: &Value, mut after: Value, index: usize) -> Value {
    let ours = |item: &Value| [names::SHARED_VOLUME, names::CONFIG_VOLUME, names::SIDECAR].iter().any(|name| item["name"] == *name);
    let was = &before["spec"];
    for (list, there) in [("volumes", was.get("volumes")), ("initContainers", was.get("initContainers"))] {
        after["spec"][list].as_array_mut().unwrap().retain(|item| !ours(item));
        if there.is_none() {
            after["spec"].as_object_mut().unwrap().shift_remove(list);
        }
    }
    let old = &was["containers"][index];
    let new = after["spec"]["containers"][index].as_object_mut().unwrap();
    new["volumeMounts"].as_array_mut().unwrap().retain(|item| !ours(item));
    let args = new["args"].as_array_mut().unwrap();
    assert!(args.iter().rev().take(2).all(|word| word.as_str().unwrap().contains("-time=")), "{args:?}");
    args.truncate(args.len() - 2);
    let command = new["command"].as_array_mut().unwrap();
    let end = command.iter().position(|word| word == "--").unwrap();
    command.drain(..=end);
    for key in ["volumeMounts", "args", "command"] {
        if old.get(key).is_none() {
            new.shift_remove(key);
        }
    }
    match was.get("terminationGracePeriodSeconds") {
        Some(seconds) => after["spec"]["terminationGracePeriodSeconds"] = seconds.clone(),
        None => drop(after["spec"].as_object_mut().unwrap().shift_remove("terminationGracePeriodSeconds")),
    }
    let list = |pod: &Value| pod["metadata"].get("annotations").and_then(|all| all.get(names::SAFE_TO_EVICT_VOLUMES)).cloned();
    match list(before) {
        Some(volumes) => after["metadata"]["annotations"][names::SAFE_TO_EVICT_VOLUMES] = volumes,
        None => drop(after["metadata"]["annotations"].as_object_mut().unwrap().shift_remove(names::SAFE_TO_EVICT_VOLUMES)),
    }
    for (mapping, key) in [("labels", names::SHARD_LABEL), ("annotations", names::STATUS_ANNOTATION)] {
        let metadata = after["metadata"].as_object_mut().unwrap();
        metadata[mapping].as_object_mut().unwrap().shift_remove(key);
        if before["metadata"].get(mapping).is_none() {
            metadata.shift_remove(mapping);
        }
    }
    after
}

fn any_json() -> impl Strategy<Value = Value> + Clone {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array), any_map(inner).prop_map(Value::Object),]
    })
}

fn any_map(value: impl Strategy<Value = Value> + Clone) -> impl Strategy<Value = Map<String, Value>> + Clone {
    // No name that we read: what has a meaning is generated by name elsewhere.
    prop::collection::btree_map("x[a-z/~ \"\\\\]{0,8}", value, 0..5).prop_map(|map| map.into_iter().collect())
}

fn strings(map: Map<String, Value>) -> Value {
    map.into_iter().map(|(key, value)| (key, Value::from(value.to_string()))).collect::<Map<_, _>>().into()
}

/// A store gateway's pod full of things we do not know, in every form that manifests have.
fn any_pod() -> impl Strategy<Value = (Value, usize)> {
    let unknown = || any_map(any_json());
    let form = prop_oneof![
        Just(json!({"image": "thanos:v0.42.4", "args": ["store", "--data-dir=/d"]})),
        Just(
            json!({"image": "quay.io/thanos/thanos@sha256:0", "args": ["--log.level", "debug", "store", "--objstore.config=type: S3\nconfig: {}\n"]})
        ),
        Just(json!({"image": "x", "command": ["/bin/thanos"], "args": ["store", "$(EXTRA)", ""]})),
        Just(json!({"image": "x", "command": ["/bin/thanos", "store", "--data-dir=C:\\d"]})),
    ];
    let others = prop::collection::vec(unknown(), 0..3);
    let lists = prop::option::of(prop::collection::vec(unknown(), 0..3));
    let maps = prop::option::of(unknown());
    let safe = prop::option::of("(|data|a,b |timeshard-shared|a,timeshard-shared,b|timeshard-shared-2)");
    let rest = (unknown(), prop::option::of(0_i64..10_000), unknown(), unknown(), safe);
    (form, others, lists.clone(), lists.clone(), lists, maps.clone(), maps, rest).prop_map(
        |(form, others, volumes, inits, mounts, labels, annotations, (own, grace, spec_extra, meta_extra, safe))| {
            let named = |prefix: &str, items: Vec<Map<String, Value>>| -> Value {
                let name = |(i, mut item): (usize, Map<String, Value>)| {
                    item.insert("name".to_owned(), json!(format!("{prefix}~/{i}")));
                    Value::Object(item)
                };
                items.into_iter().enumerate().map(name).collect()
            };
            let mut thanos = Value::Object(own);
            merge(&mut thanos, &form);
            thanos["name"] = json!("thanos/store~0");
            if let Some(mounts) = mounts {
                thanos["volumeMounts"] = named("mount", mounts);
            }
            let mut containers = named("other", others).as_array().unwrap().clone();
            let index = containers.len();
            containers.push(thanos);
            let mut pod = pod_of(&json!({}));
            pod["spec"] = Value::Object(spec_extra);
            pod["spec"]["containers"] = Value::Array(containers);
            merge(&mut pod["metadata"], &Value::Object(meta_extra));
            for (key, list) in [("volumes", volumes), ("initContainers", inits)] {
                if let Some(list) = list {
                    pod["spec"][key] = named(key, list);
                }
            }
            for (key, map) in [("labels", labels), ("annotations", annotations)] {
                if let Some(map) = map {
                    pod["metadata"][key] = strings(map);
                }
            }
            if let (Some(safe), true) = (safe, pod["metadata"].get("annotations").is_some()) {
                pod["metadata"]["annotations"][names::SAFE_TO_EVICT_VOLUMES] = json!(safe);
            }
            if let Some(grace) = grace {
                pod["spec"]["terminationGracePeriodSeconds"] = json!(grace);
            }
            (pod, index)
        },
    )
}

/// What other injectors do to a pod between our two passes.
fn meddle(pod: &mut Value, index: usize, what: &[u8]) {
    let mut index = index;
    for kind in what {
        match kind % 6 {
            0 => {
                pod["spec"]["containers"].as_array_mut().unwrap().insert(0, json!({"name": "istio-proxy", "image": "istio"}));
                index += 1;
            }
            1 => pod["spec"]["volumes"].as_array_mut().unwrap().insert(0, json!({"name": "istio-data", "emptyDir": {}})),
            2 => pod["metadata"]["labels"]["example.com/injected"] = json!("true"),
            3 => {
                if let Some(args) = pod["spec"]["containers"][index]["args"].as_array_mut() {
                    args.insert(0, json!("--log.format=json"));
                }
            }
            4 => pod["spec"]["initContainers"].as_array_mut().unwrap().insert(0, json!({"name": "istio-init", "image": "istio"})),
            _ => pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "agent", "args": ["thanos", "receive"]})),
        }
    }
}

proptest! {
    #[test]
    fn nothing_else_changes((pod, index) in any_pod()) {
        let (after, _, _) = admit(&pod).unwrap_or_else(|skip| panic!("{skip}: {pod}"));
        prop_assert_eq!(stripped(&pod, after, index), pod);
    }

    #[test]
    fn a_second_pass_adds_nothing((pod, index) in any_pod(), what in prop::collection::vec(any::<u8>(), 0..6)) {
        let mut once = injected(&pod);
        prop_assert_eq!(admit(&once).unwrap_err(), Skip::AlreadyInjected);
        meddle(&mut once, index, &what);
        prop_assert_eq!(admit(&once).unwrap_err(), Skip::AlreadyInjected, "{}", once);
    }

    #[test]
    fn no_pod_panics(spec in any_json(), metadata in any_json(), container in any_json(), words in prop::collection::vec("\\PC{0,12}|--min-time|store|--|@x|thanos", 0..6)) {
        let _ = admit(&json!({"metadata": metadata, "spec": spec}));
        let mut pod = store_with(&json!({"args": words, "command": words}));
        let _ = admit(&pod);
        pod["spec"]["containers"][0]["x"] = container.clone();
        pod["spec"]["initContainers"] = container;
        let _ = admit(&pod);
    }
}

#[test]
fn windows_and_launcher_are_added_behind_what_was_there() {
    let pod = injected(&store_with(&json!({})));
    assert_eq!(args_of(&pod), ["store", "--data-dir=/d", "--min-time=-247d16h", "--max-time=-123d8h"]);
    let command = "/run/timeshard/timeshard-agent launch --shared-dir=/run/timeshard --termination-drain=1m30s -- thanos";
    assert_eq!(pod["spec"]["containers"][0]["command"], command.split(' ').collect::<Value>());
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 120);
    assert_eq!(pod["metadata"]["labels"][names::SHARD_LABEL], "1");
    let status: Value = serde_json::from_str(pod["metadata"]["annotations"][names::STATUS_ANNOTATION].as_str().unwrap()).unwrap();
    assert_eq!((&status["shard"], &status["replica"], &status["source"]), (&json!(1), &json!(1), &json!("plan")));
    assert_eq!(
        pod["spec"]["volumes"][1],
        json!({"name": "timeshard-config", "configMap": {"name": "store-time-shards", "optional": true}})
    );
}

#[test]
fn the_shared_volume_keeps_no_node() {
    for (given, want) in [
        (None, "timeshard-shared"),
        (Some(""), "timeshard-shared"),
        (Some("data"), "data,timeshard-shared"),
        (Some("timeshard-shared"), "timeshard-shared"),
        (Some("a,timeshard-shared,b"), "a,timeshard-shared,b"),
        (Some("timeshard-shared-2"), "timeshard-shared-2,timeshard-shared"),
        // The autoscaler takes the blank for a part of the name.
        (Some("a, timeshard-shared"), "a, timeshard-shared,timeshard-shared"),
    ] {
        let mut pod = store_with(&json!({}));
        if let Some(given) = given {
            pod["metadata"]["annotations"] = json!({names::SAFE_TO_EVICT_VOLUMES: given});
        }
        let (mut after, patch, _) = admit(&pod).unwrap();
        assert_eq!(after["metadata"]["annotations"][names::SAFE_TO_EVICT_VOLUMES], want, "{given:?}");
        assert_eq!(patch.iter().any(|op| op["path"].as_str().unwrap().ends_with("~1safe-to-evict-local-volumes")), given != Some(want));
        assert_eq!(admit(&after).unwrap_err(), Skip::AlreadyInjected);
        // Somebody else may set the whole list after us.
        after["metadata"]["annotations"][names::SAFE_TO_EVICT_VOLUMES] = json!("data");
        assert_eq!(injected(&after)["metadata"]["annotations"][names::SAFE_TO_EVICT_VOLUMES], "data,timeshard-shared");
    }
}

#[test]
fn everything_in_command_keeps_its_words() {
    let pod = pod_of(&json!({"containers": [{"name": "t", "image": "x", "command": ["/bin/thanos", "store", "--data-dir=/d"]}]}));
    let pod = injected(&pod);
    let command: Vec<&str> = pod["spec"]["containers"][0]["command"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(command[4..], ["--", "/bin/thanos", "store", "--data-dir=/d"]);
    assert_eq!(args_of(&pod), ["--min-time=-247d16h", "--max-time=-123d8h"]);
}

#[test]
fn flags_stay_before_a_bare_double_dash() {
    let pod = injected(&store_with(&json!({"args": ["store", "--", "x"]})));
    let args = args_of(&pod);
    assert_eq!((args[0], args[3], args[4]), ("store", "--", "x"));
}

#[test]
fn time_flags_of_the_user_are_respected_unless_we_may_replace_them() {
    let args = json!({"args": ["store", "--max-time", "-2w", "--min-time=-1y", "--data-dir=/d", "--min-time=-5d"]});
    let mut pod = store_with(&args);
    assert_eq!(admit(&pod).unwrap_err().label(), "time_flags");
    pod["metadata"]["annotations"] = json!({names::REPLACE_TIME_FLAGS: "true"});
    let pod = injected(&pod);
    assert_eq!(args_of(&pod), ["store", "--max-time", "-123d8h", "--min-time=-247d16h", "--data-dir=/d"]);
    let in_command =
        pod_of(&json!({"containers": [{"name": "t", "command": ["thanos", "store", "--min-time=-1y", "--min-time", "-5d", "-x"]}]}));
    let mut in_command = in_command;
    in_command["metadata"]["annotations"] = json!({names::REPLACE_TIME_FLAGS: "true"});
    let pod = injected(&in_command);
    let command: Vec<&str> = pod["spec"]["containers"][0]["command"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(command[5..], ["thanos", "store", "--min-time=-247d16h", "-x"]);
    assert_eq!(args_of(&pod), ["--max-time=-123d8h"]);
}

#[test]
fn the_published_entry_wins_over_the_plan() {
    let pod = store_with(&json!({}));
    let bytes = serde_json::to_vec(&pod).unwrap();
    let view = PodView::parse(&bytes).unwrap();
    let candidate = eligible(&view).unwrap();
    let config = Config::default();
    let plan = Plan::new(&config.sharding, None);
    let entry = Entry::parse("shard: 7\nreplica: 5\nmin_time: -9d\nmax_time: -8d\n", NOW).unwrap();
    let facts = Facts {
        config: &config,
        sharding: &config.sharding,
        plan: &plan,
        ordinals_start: 0,
        replace_time_flags: false,
        reload_despite_liveness: false,
        published: Some(&entry),
        rendered: &RenderedSidecar::default(),
        namespace: "ns",
        now: NOW,
    };
    let injection = inject(&view, &candidate, &facts).unwrap();
    assert_eq!((injection.source, injection.window), (Source::Published, entry.window));
    assert_eq!((injection.assignment.shard, injection.assignment.replica), (7, 5));
    let later = inject(&view, &candidate, &Facts { ordinals_start: 3, published: None, ..facts }).unwrap();
    assert_eq!((later.assignment.shard, later.assignment.replica), (0, 0), "ordinals count from the start");
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
        assert_eq!(sidecar["securityContext"].get("runAsUser").cloned().unwrap_or_default(), want, "{pod_user:?} {own_user:?}");
        assert_eq!(sidecar["securityContext"]["runAsNonRoot"], true);
        assert_eq!(sidecar["resources"]["requests"], sidecar["resources"]["limits"], "a Guaranteed pod stays Guaranteed");
    }
}

#[test]
fn ours_share_what_the_pod_has_for_all() {
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
        assert_eq!(sidecar_of(&after).get("resources").is_none(), shared, "{resources}");
        assert_eq!(
            (&after["spec"]["resources"], &after["spec"]["containers"][0]["resources"]["requests"]["cpu"]),
            (&resources, &json!("1"))
        );
        let (after, _, _) = admit_with(&classic, &pod).unwrap();
        let ours = [&after["spec"]["initContainers"][0], &after["spec"]["containers"][1]];
        assert!(ours.iter().all(|container| container.get("resources").is_none() == shared), "{resources}: {after}");
    }
}

#[test]
fn a_sidecar_without_a_seccomp_profile_leaves_it_to_the_pod() {
    for native in [true, false] {
        for (profile, want) in [("RuntimeDefault", json!({"type": "RuntimeDefault"})), ("none", Value::Null)] {
            let text = format!("injection: {{native_sidecar: {native}, seccomp_profile: {profile}}}");
            let mut pod = store_with(&json!({}));
            pod["spec"]["securityContext"] = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}});
            let (after, _, _) = admit_with(&Config::parse(&text, "c").unwrap(), &pod).unwrap();
            let all = [&after["spec"]["initContainers"], &after["spec"]["containers"]];
            let ours = all
                .into_iter()
                .flat_map(|list| list.as_array().unwrap())
                .filter(|c| c["name"].as_str().unwrap().starts_with("config-sidecar"));
            let profiles: Vec<_> =
                ours.map(|container| container["securityContext"].get("seccompProfile").cloned().unwrap_or_default()).collect();
            assert_eq!(profiles, vec![want.clone(); if native { 1 } else { 2 }], "{text}");
            assert_eq!(after["spec"]["securityContext"], pod["spec"]["securityContext"]);
        }
    }
}

#[test]
fn the_sidecar_finds_thanos_where_it_listens() {
    for (args, url, grpc) in [
        (json!(["store"]), "http://127.0.0.1:10902", "127.0.0.1:10901"),
        (json!(["store", "--http-address=:8080", "--grpc-address", "[::]:9090"]), "http://127.0.0.1:8080", "127.0.0.1:9090"),
        (json!(["store", "--http-address=$(POD_IP):8080"]), "http://$(POD_IP):8080", "127.0.0.1:10901"),
        (json!(["store", "--http-address=0.0.0.0:$(PORT)"]), "http://127.0.0.1:10902", "127.0.0.1:10901"),
    ] {
        let pod = injected(&store_with(&json!({"args": args})));
        let words = sidecar_of(&pod)["args"].as_array().unwrap();
        assert!(words.contains(&json!(format!("--thanos-url={url}"))), "{words:?}");
        assert!(words.contains(&json!(format!("--grpc-address={grpc}"))), "{words:?}");
    }
}

#[test]
fn a_liveness_probe_that_kills_a_long_load_keeps_the_window() {
    for (probe, unsafe_) in [
        (json!({"httpGet": {"path": "/-/ready", "port": 10902}}), true),
        (json!({"tcpSocket": {"port": 10901}}), true),
        (json!({"tcpSocket": {"port": "grpc"}}), true),
        (json!({"grpc": {"port": 10901}}), true),
        (json!({"httpGet": {"path": "/-/healthy", "port": 10902}}), false),
        (json!({"tcpSocket": {"port": 10902}}), false),
        (json!({"exec": {"command": ["true"]}}), false),
    ] {
        let mut pod = store_with(&json!({"livenessProbe": probe, "ports": [{"name": "grpc", "containerPort": 10901}]}));
        let (after, _, remarks) = admit(&pod).unwrap();
        let off = sidecar_of(&after)["args"].as_array().unwrap().contains(&json!("--reload=off"));
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
    for key in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        assert_eq!(pod["spec"]["containers"][0][key], own[key]);
    }
}

#[test]
fn the_command_annotation_names_the_program() {
    let with = |value: &str| {
        let mut pod = store_with(&json!({}));
        pod["metadata"]["annotations"] = json!({names::COMMAND_ANNOTATION: value});
        let (after, _, remarks) = admit(&pod).unwrap();
        (after["spec"]["containers"][0]["command"].as_array().unwrap().last().unwrap().clone(), remarks)
    };
    assert_eq!(with("[\"/x/thanos\"]"), (json!("/x/thanos"), Vec::new()));
    for bad in ["/x/thanos", "[]", "[1]", ""] {
        assert_eq!(with(bad), (json!("thanos"), vec![Remark::BadCommandAnnotation]), "{bad}");
    }
}

#[test]
fn keys_on_the_pod_are_ignored_with_a_remark() {
    let mut pod = store_with(&json!({}));
    pod["metadata"]["annotations"] = json!({"thanos-timeshard.io/total-shards": "9"});
    let (_, _, remarks) = admit(&pod).unwrap();
    assert_eq!(remarks, [Remark::KeyOnPod("thanos-timeshard.io/total-shards".to_owned())]);
    pod["metadata"]["annotations"] = json!({"thanos-timeshard.io/injct": "false", "example.com/x": "y"});
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
    assert_eq!(after["spec"]["initContainers"][0]["name"], names::SIDECAR_INSTALL);
    assert_eq!(after["spec"]["containers"][1]["name"], names::SIDECAR);
    assert!(after["spec"]["containers"][1].get("restartPolicy").is_none() && after["spec"]["containers"][1].get("startupProbe").is_none());
    assert_eq!(admit_with(&config, &after).unwrap_err(), Skip::AlreadyInjected);
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
    assert!(sidecar_of(&after)["args"].as_array().unwrap().contains(&json!("--reload=signal")));
}

#[test]
fn nobody_looks_for_thanos_among_the_processes_of_a_node() {
    let mut pod = store_with(&json!({}));
    pod["spec"]["hostPID"] = json!(true);
    let config = Config::parse("sharding: {reload: signal}", "c").unwrap();
    let (after, _, remarks) = admit_with(&config, &pod).unwrap();
    assert_eq!((remarks, after["spec"].get("shareProcessNamespace")), (vec![Remark::HostPid], None));
    assert!(!after.to_string().contains("--reload="));
    let (_, _, remarks) = admit(&pod).unwrap();
    assert!(remarks.is_empty(), "nothing is wrong with it otherwise: {remarks:?}");
}

#[test]
fn everyone_else_is_left_alone_with_a_reason() {
    let own = store_with(&json!({}));
    let mut cases: Vec<(&str, Value)> = vec![
        ("no_store", store_with(&json!({"args": ["query"]}))),
        ("no_store", store_with(&json!({"args": []}))),
        ("unknown_image", store_with(&json!({"image": "mirror/store"}))),
        ("wrapper", store_with(&json!({"command": ["sh", "-c", "exec thanos store"]}))),
        ("args_file", store_with(&json!({"args": ["store", "@/etc/flags"]}))),
        ("several_stores", pod_of(&json!({"containers": [own["spec"]["containers"][0], own["spec"]["containers"][0]]}))),
        ("no_store", pod_of(&json!({"containers": []}))),
        ("no_store", pod_of(&json!({}))),
    ];
    let mut with = |label: &'static str, pointer: &str, value: Value| {
        let mut pod = own.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[key] = value;
        cases.push((label, pod));
    };
    with("opted_out", "/metadata/labels", json!({names::INJECT: "false"}));
    with("opted_out", "/metadata/annotations", json!({names::INJECT: "false"}));
    with("not_statefulset", "/metadata/ownerReferences", json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x"}]));
    with("not_statefulset", "/metadata/ownerReferences", json!([{"apiVersion": "other/v1", "kind": "StatefulSet", "name": "store"}]));
    with("not_statefulset", "/metadata/ownerReferences", Value::Null);
    with("no_ordinal", "/metadata/name", json!("store-x"));
    with("no_ordinal", "/metadata/name", json!("store-+1"));
    with("no_ordinal", "/metadata/name", json!("store-99999999999"));
    with("windows", "/spec/os", json!({"name": "windows"}));
    with("name_taken", "/spec/initContainers", json!([{"name": "config-sidecar", "image": "someone-else"}]));
    with("name_taken", "/spec/volumes", json!([{"name": "timeshard-shared", "emptyDir": {}}]));
    with("name_taken", "/spec/volumes", json!([{"name": "timeshard-config", "secret": {}}]));
    with("name_taken", "/spec/containers/0/ports", json!([{"containerPort": 10908}]));
    with("name_taken", "/spec/containers/0/args", json!(["store", "--http-address=0.0.0.0:10908"]));
    with("name_taken", "/spec/containers/0/args", json!(["store", "--grpc-address", "[::]:10908"]));
    with("name_taken", "/spec/containers/0/volumeMounts", json!([{"name": "x", "mountPath": "/run/timeshard/"}]));
    for (label, pod) in cases {
        let skip = admit(&pod).map(|(after, _, _)| after).unwrap_err();
        assert_eq!(skip.label(), label, "{skip}: {pod}");
        assert!(!skip.to_string().is_empty());
    }
}

#[test]
fn a_vouched_image_is_taken_for_thanos() {
    let mut pod = store_with(&json!({"image": "mirror/store"}));
    pod["metadata"]["labels"] = json!({names::INJECT: "true"});
    assert!(admit(&pod).is_ok());
}

#[test]
fn the_pod_index_label_helps_where_the_name_does_not() {
    let mut pod = store_with(&json!({}));
    pod["metadata"]["name"] = json!("renamed");
    pod["metadata"]["labels"] = json!({names::POD_INDEX_LABEL: "5"});
    assert_eq!(injected(&pod)["metadata"]["labels"][names::SHARD_LABEL], "2");
}
