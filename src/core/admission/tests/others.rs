//! Programs before thanos, and injected pods that other webhooks and tools changed.

use super::*;

fn containers(pod: &Value) -> &Value {
    &pod["spec"]["containers"][0]
}

fn behind(container: &Value) -> Value {
    let mut pod = store_with(container);
    pod["metadata"]["annotations"] = json!({names::INJECT: "true", names::COMMAND_ANNOTATION: "[\"/bin/sh\", \"/etc/gw/start.sh\"]"});
    pod
}

fn program_words(pod: &Value) -> Vec<&str> {
    let command = containers(pod)["command"].as_array().unwrap();
    let end = command.iter().position(|word| word == "--").unwrap();
    command[end + 1..]
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect()
}

#[test]
fn any_program_before_thanos_is_skipped_with_a_warning() {
    for container in [
        json!({"command": ["/bin/sh", "/etc/gw/start.sh"]}),
        json!({"command": ["/etc/gw/a-name-that-is-longer-than-anyone-would-want-it.sh"], "args": ["--log.level=debug", "store"]}),
        json!({"command": ["tini", "--", "/bin/thanos", "store"], "args": ["--data-dir=/d"]}),
        json!({"image": "mine", "command": ["/opt/thanos-0.40.1-linux"]}),
        json!({"image": "mine", "command": ["gosu", "1001"], "args": ["env", "A=b", "thanos", "store"]}),
    ] {
        let skip = admit(&store_with(&container)).unwrap_err();
        assert!(
            matches!(&skip, Skip::Program(_)) && skip.label() == "wrapper" && skip.surprises(),
            "{skip:?}: {container}"
        );
        let said = format!("thanos-timeshard skipped this pod: {skip}");
        assert!(
            said.chars().count() <= crate::core::admission::notice::MAX_WARNING_CHARS,
            "{}: {said}",
            said.chars().count()
        );
    }
}

#[test]
fn a_program_that_the_annotation_names_is_injected() {
    let tail = ["--min-time=-247d16h", "--max-time=-123d8h"];
    for (container, command, args) in [
        (
            json!({"command": ["/bin/sh", "/etc/gw/start.sh"]}),
            vec![],
            vec!["store", "--data-dir=/d"],
        ),
        (
            json!({"command": ["/x.sh"], "args": ["--log.level", "debug", "store"]}),
            vec![],
            vec!["--log.level", "debug", "store"],
        ),
        (
            json!({"command": ["tini", "--", "thanos", "store"], "args": ["-x"]}),
            vec!["store"],
            vec!["-x"],
        ),
        (
            json!({"command": ["tini"], "args": ["--", "thanos", "store", "-x"]}),
            vec![],
            vec!["store", "-x"],
        ),
        (
            json!({"command": ["/opt/thanos-0.40"], "args": ["store"]}),
            vec![],
            vec!["store"],
        ),
    ] {
        let pod = injected(&behind(&container));
        assert_eq!(
            program_words(&pod),
            [vec!["/bin/sh", "/etc/gw/start.sh"], command].concat(),
            "{container}"
        );
        let got = args_of(&pod);
        let (own, ours) = got.split_at(got.len() - 2);
        assert_eq!(own, args, "{container}");
        assert!(
            ours.iter()
                .zip(tail)
                .all(|(got, want)| got.split('=').next() == want.split('=').next()),
            "{ours:?}"
        );
        assert_eq!(
            admit(&pod).unwrap_err(),
            Skip::AlreadyInjected,
            "{container}"
        );
    }
    // Time flags of the user's own are respected there, too.
    let flags = behind(&json!({"command": ["/x.sh"], "args": ["store", "--min-time=-1d"]}));
    assert_eq!(
        admit(&flags).unwrap_err(),
        Skip::TimeFlags("--min-time".to_owned())
    );
    // Half of the two is not enough.
    for (inject, command) in [("false", "[\"/x\"]"), ("true", "/x"), ("true", "[]")] {
        let mut pod = behind(&json!({"command": ["/x.sh"]}));
        pod["metadata"]["annotations"] =
            json!({names::INJECT: inject, names::COMMAND_ANNOTATION: command});
        assert!(admit(&pod).is_err(), "{inject} {command}");
    }
}

#[test]
fn parts_of_an_injection_that_others_removed_are_restored_once() {
    let whole = injected(&store_with(&json!({})));
    let grace = whole["spec"]["terminationGracePeriodSeconds"].clone();
    let mut policy = whole.clone();
    policy["spec"]["initContainers"][0]
        .as_object_mut()
        .unwrap()
        .shift_remove("restartPolicy");
    assert_eq!(
        injected(&policy)["spec"]["initContainers"],
        whole["spec"]["initContainers"]
    );
    let mut command = whole.clone();
    command["spec"]["containers"][0]
        .as_object_mut()
        .unwrap()
        .shift_remove("command");
    let after = injected(&command);
    assert_eq!(containers(&after)["command"], containers(&whole)["command"]);
    assert_eq!(args_of(&after), args_of(&whole));
    assert_eq!(
        after["spec"]["terminationGracePeriodSeconds"], grace,
        "raised once"
    );
    for program in [json!(["thanos"]), json!(["/bin/thanos"])] {
        let mut replaced = whole.clone();
        replaced["spec"]["containers"][0]["command"] = program;
        let after = injected(&replaced);
        assert_eq!(containers(&after)["command"][0], names::AGENT_IN_SHARED_DIR);
        assert_eq!(
            after["spec"]["terminationGracePeriodSeconds"], grace,
            "raised once"
        );
    }
}

#[test]
fn a_program_before_the_launcher_or_the_sidecar_changes_nothing() {
    let whole = injected(&store_with(&json!({})));
    // Before the command; some tools also move the command to the arguments.
    let mut before = whole.clone();
    before["spec"]["containers"][0]["command"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!("/vault/vault-env"));
    let mut moved = whole.clone();
    let words = [&containers(&whole)["command"], &containers(&whole)["args"]]
        .map(|list| list.as_array().unwrap().clone())
        .concat();
    moved["spec"]["containers"][0]["command"] = json!(["/vault/vault-env"]);
    moved["spec"]["containers"][0]["args"] = json!(words);
    let mut sidecar = whole.clone();
    sidecar["spec"]["initContainers"][0]["command"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!("/vault/vault-env"));
    for pod in [before, moved, sidecar] {
        assert_eq!(admit(&pod).unwrap_err(), Skip::AlreadyInjected, "{pod}");
    }
}

#[test]
fn a_command_that_hides_thanos_after_the_injection_is_reported_as_undone() {
    let whole = injected(&store_with(&json!({})));
    for command in [
        json!(["/bin/sh", "/other.sh"]),
        json!(["sh", "-c", "exec thanos store"]),
        json!(["/bin/sleep"]),
    ] {
        let mut pod = whole.clone();
        pod["spec"]["containers"][0]["command"] = command;
        let skip = admit(&pod).unwrap_err();
        assert!(
            matches!(&skip, Skip::Undone(_)) && skip.surprises(),
            "{skip:?}"
        );
        let said = format!("thanos-timeshard skipped this pod: {skip}");
        assert!(
            said.chars().count() <= crate::core::admission::notice::MAX_WARNING_CHARS,
            "{}: {said}",
            said.chars().count()
        );
    }
}

/// The mounts at the token's path, by injected container.
fn in_the_tokens_place(pod: &Value) -> Vec<(String, Vec<String>)> {
    let all = ["initContainers", "containers"]
        .into_iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    let ours = all.filter(|container| {
        container["name"]
            .as_str()
            .unwrap()
            .starts_with(names::SIDECAR)
    });
    let at_it =
        |mount: &&Value| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount";
    let mounts = |container: &Value| {
        let mounts = container["volumeMounts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(at_it);
        mounts
            .map(|mount| format!("{} {}", mount["name"].as_str().unwrap(), mount["readOnly"]))
            .collect()
    };
    ours.map(|container| {
        (
            container["name"].as_str().unwrap().to_owned(),
            mounts(container),
        )
    })
    .collect()
}

#[test]
fn no_injected_container_gets_the_pods_token() {
    let classic = Config::parse("injection: {native_sidecar: false}", "c").unwrap();
    for (config, ours) in [
        (Config::default(), vec![names::SIDECAR]),
        (classic, vec![names::SIDECAR_INSTALL, names::SIDECAR]),
    ] {
        let token =
            json!({"name": "kube-api-access-x7z", "mountPath": names::TOKEN_DIR, "readOnly": true});
        // As the API server hands it over: it has given the token to what is there.
        let pod = store_with(&json!({"volumeMounts": [token]}));
        let (whole, _, _) = admit_with(&config, &pod).unwrap();
        let want: Vec<_> = ours
            .iter()
            .map(|name| ((*name).to_owned(), vec!["timeshard-config true".to_owned()]))
            .collect();
        assert_eq!(in_the_tokens_place(&whole), want);
        assert_eq!(
            whole["spec"]["containers"][0]["volumeMounts"][0], token,
            "thanos keeps it"
        );
        for spoil in [
            |mounts: &mut Value| *mounts = json!([]),
            |mounts: &mut Value| mounts.as_array_mut().unwrap().truncate(2),
            // A sidecar of an earlier version, copied from a running pod.
            |mounts: &mut Value| mounts[2]["name"] = json!("kube-api-access-x7z"),
        ] {
            let mut pod = whole.clone();
            for list in ["initContainers", "containers"] {
                for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                    if container["name"]
                        .as_str()
                        .unwrap()
                        .starts_with(names::SIDECAR)
                    {
                        spoil(&mut container["volumeMounts"]);
                    }
                }
            }
            let (again, _, _) = admit_with(&config, &pod).unwrap();
            assert_eq!(in_the_tokens_place(&again), want);
            assert_eq!(
                admit_with(&config, &again).unwrap_err(),
                Skip::AlreadyInjected
            );
        }
        let mut bare = whole.clone();
        for list in ["initContainers", "containers"] {
            for container in bare["spec"][list].as_array_mut().into_iter().flatten() {
                container
                    .as_object_mut()
                    .unwrap()
                    .shift_remove("volumeMounts");
            }
        }
        assert_eq!(
            in_the_tokens_place(&admit_with(&config, &bare).unwrap().0),
            want
        );
    }
}
