//! `timeshard inject` as scripts see it: accepted, skipped and refused input.

use serde_json::Value;

use crate::command_line::{plan, text, timeshard};

#[test]
fn inject_takes_lists_and_names_skipped_objects() {
    let input = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "query"}, "spec": {}},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "compact"}, "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "thanos", "args": ["compact"]}]}}}},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "store"}, "spec": {"replicas": 6, "ordinals": {"start": 5}, "serviceName": "store",
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            "template": {"metadata": {"labels": {"app": "store"}}, "spec": {"containers": [{"name": "t", "image": "thanos", "args": ["store"]}]}}}}]}"#;
    let output = timeshard(
        &["inject", "-f", "-", "-o", "json", "--namespace", "obs"],
        input,
    );
    let said = text(&output.stderr);
    for words in [
        "Service/s: not a workload",
        "Deployment/query: its pods",
        "StatefulSet/compact: no container runs thanos store (c runs thanos compact)",
        "StatefulSet/store: 6 pods: 3 shards of 2 replicas, newest -124d8h .. 1d, oldest -370d .. -246d16h",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let pods: Value = serde_json::from_slice(&output.stdout).unwrap();
    let shards: Vec<&str> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| {
            pod["metadata"]["labels"]["thanos-timeshard.io/shard"]
                .as_str()
                .unwrap()
        })
        .collect();
    assert_eq!(shards, ["0", "0", "1", "1", "2", "2"]);
    assert_eq!(
        (
            &pods["items"][0]["metadata"]["name"],
            &pods["items"][0]["metadata"]["namespace"]
        ),
        (&"store-5".into(), &"obs".into())
    );
    let again = timeshard(&["inject", "-f", "-", "-o", "patch"], &text(&output.stdout));
    let patches = text(&again.stdout);
    assert_eq!(patches.lines().count(), 6);
    assert!(
        patches.lines().all(|line| line.ends_with("\"patch\":[]}")),
        "{patches}"
    );
    let yaml = timeshard(&["inject", "-f", "-", "-n", "obs", "-o", "yaml"], input);
    let again = timeshard(&["inject", "-f", "-", "-o", "json"], &text(&yaml.stdout));
    assert_eq!(
        serde_json::from_slice::<Value>(&again.stdout).unwrap(),
        pods,
        "YAML and JSON hold the same pods"
    );
}

/// A store StatefulSet in YAML, with something in front of its spec.
fn store_yaml(head: &str, env: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: StatefulSet\n{head}metadata: {{name: store}}\nspec: {{replicas: 1, template: {{spec: {{containers: \
         [{{name: t, image: thanos, args: [store], env: [{{name: A, value: {env}}}]}}]}}}}}}\n"
    )
}

#[test]
fn inject_reads_what_kubectl_reads() {
    let comments = "# a long comment\n".repeat(200);
    let output = timeshard(
        &["inject", "-f", "-", "-o", "patch"],
        &store_yaml(&comments, "x"),
    );
    assert_eq!(
        text(&output.stdout).lines().count(),
        1,
        "{}",
        text(&output.stderr)
    );
    let output = timeshard(
        &["inject", "-f", "-", "-o", "patch"],
        &store_yaml("x: 1\nx: 2\n", "x"),
    );
    let said = text(&output.stderr);
    assert!(
        said.contains("standard input:4:1: duplicate key; the last value applies, as in kubectl"),
        "{said}"
    );
    assert_eq!(text(&output.stdout).lines().count(), 1, "{said}");
    let long = format!("sharding:\n{comments}  total_shards: 2\n");
    assert_eq!(plan(&long, &[])["pods"].as_array().unwrap().len(), 4);
}

#[test]
fn yaml_that_begins_with_a_tab_is_quoted() {
    let output = timeshard(
        &["inject", "-f", "-", "-o", "yaml"],
        &store_yaml("", r#""\tx\ny""#),
    );
    let yaml = text(&output.stdout);
    assert!(yaml.contains(r#""\tx\ny""#), "{yaml}");
    let read: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(read["spec"]["containers"][0]["env"][0]["value"], "\tx\ny");
}

#[test]
fn a_statefulset_of_another_group_is_named() {
    let output = timeshard(
        &["inject", "-f", "-", "-o", "yaml"],
        &store_yaml("", "x").replace("apps/v1", "apps.kruise.io/v1beta1"),
    );
    assert!(
        text(&output.stderr).contains("StatefulSet/store: it is not a StatefulSet of apps/v1"),
        "{}",
        text(&output.stderr)
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn numbers_that_the_api_server_refuses_are_refused() {
    for bad in ["-1", "\"2\"", "99999999999"] {
        let output = timeshard(
            &["inject", "-f", "-"],
            &store_yaml("", "x").replace("replicas: 1", &format!("replicas: {bad}")),
        );
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text(&output.stderr).contains(&format!("spec.replicas is {bad}")),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn values_that_are_no_strings_are_refused_at_their_place_in_the_file() {
    let set = |metadata: &str, template: &str, args: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\n---\n# a comment\napiVersion: apps/v1\nkind: StatefulSet\nmetadata:\n  \
             name: gw\n  annotations: {metadata}\nspec:\n  template:\n    metadata:\n      annotations: {template}\n    spec:\n      \
             containers:\n      - {{name: t, image: thanos, args: {args}}}\n"
        )
    };
    for (input, places) in [
        (set("{thanos-timeshard.io/total-shards: 2}", "{}", "[store]"), vec!["10:51: StatefulSet/gw: metadata.annotations[thanos-timeshard.io/total-shards] is 2, but"]),
        (set("{}", "{thanos-timeshard.io/inject: false}", "[store]"), vec!["14:49: StatefulSet/gw: spec.template.metadata.annotations[thanos-timeshard.io/inject] is false, but"]),
        (set("{thanos-timeshard.io/pause: true}", "{}", "[store]"), vec!["10:44: "]),
        (set("{thanos-timeshard.io/overlap: 1.5}", "{}", "[store, --x, 10]"), vec!["10:46: ", "17:53: StatefulSet/gw: spec.template.spec.containers[0].args[2] is 10, but"]),
        (
            "{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": [\n {\"kind\": \"Pod\", \"metadata\": {\"name\": \"p\", \"labels\": {\"a\": 1}}}]}".to_owned(),
            vec!["2:60: Pod/p: metadata.labels.a is 1, but"],
        ),
    ] {
        let output = timeshard(&["inject", "-f", "-"], &input);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(2), true), "{said}");
        assert_eq!(said.lines().count(), places.len(), "{said}");
        for place in places {
            assert!(said.contains(&format!("standard input:{place}")) && said.contains("Kubernetes requires a string: quote it"), "{place}: {said}");
        }
    }
    let many = set(
        "{}",
        &format!(
            "{{{}}}",
            (0..30)
                .map(|i| format!("k{i}: 1"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        "[store]",
    );
    assert!(text(&timeshard(&["inject", "-f", "-"], &many).stderr).contains("more"));
}

#[test]
fn one_warning_for_all_pods_of_a_statefulset_and_one_pod_is_no_pods() {
    let set = store_yaml("", "x")
        .replace("replicas: 1", "replicas: 6")
        .replace(
            "args: [store]",
            "args: [store], livenessProbe: {grpc: {port: 10901}}",
        );
    let said = text(&timeshard(&["inject", "-f", "-", "-o", "patch"], &set).stderr);
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("liveness probe"))
        .collect();
    assert!(
        matches!(lines[..], [line] if line.starts_with("warning: StatefulSet/store: ") && line.ends_with(" (6 pods)")),
        "{said}"
    );
    let one = text(&timeshard(&["inject", "-f", "-", "-o", "patch"], &store_yaml("", "x")).stderr);
    assert!(
        one.contains("1 pod for 3 shards: only 1 shard is planned")
            && !one.contains("1 pods")
            && !one.contains("1 shards"),
        "{one}"
    );
    let plan = text(
        &timeshard(
            &["plan", "--config=-", "--replicas=1"],
            "sharding: {total_shards: 1, replicas_per_shard: 1}",
        )
        .stdout,
    );
    assert!(plan.contains("1 shard, 1 pod, "), "{plan}");
    let old = store_yaml("", "x").replace("image: thanos", "image: 'quay.io/thanos/thanos:v0.6.0'");
    let said = text(&timeshard(&["inject", "-f", "-"], &old).stderr);
    assert!(said.contains("use Thanos 0.7.0 or newer"), "{said}");
}

#[test]
fn objects_that_are_not_a_workload_yet_are_named_with_the_first_step() {
    for (api, kind, words) in [
        ("template.openshift.io/v1", "Template", "oc process"),
        ("helm.toolkit.fluxcd.io/v2", "HelmRelease", "helm template"),
        (
            "monitoring.thanos.io/v1alpha1",
            "ThanosStore",
            "kubectl get statefulsets",
        ),
    ] {
        let output = timeshard(
            &["inject", "-f", "-"],
            &format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: x}}\n"),
        );
        let said = text(&output.stderr);
        assert!(
            output.status.success()
                && said.contains(&format!("skipped {kind}/x: "))
                && said.contains(words),
            "{said}"
        );
    }
    for (config, words) in [
        (
            "apiVersion: v1\nkind: ConfigMap\ndata: {config.yaml: \"sharding: {}\"}\n",
            "a Kubernetes manifest with 1 object (ConfigMap); its ConfigMap has a configuration in the key config.yaml",
        ),
        (
            "apiVersion: apps/v1\nkind: StatefulSet\n",
            "this is a Kubernetes manifest with 1 object (StatefulSet), which timeshard inject -f reads",
        ),
        (
            "replicas: 2\nconfig:\n  sharding: {total_shards: 3}\n",
            "these are values of a Helm chart",
        ),
    ] {
        let output = timeshard(&["plan", "--config=-"], config);
        let said = text(&output.stderr);
        assert_eq!(
            (output.status.code(), said.lines().count()),
            (Some(2), 1),
            "{said}"
        );
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn inject_names_annotations_without_effect() {
    let set = store_yaml("", "x")
        .replace("{name: store}", "{name: store, annotations: {thanos-timeshard.io/total-shard: '4', thanos-timeshard.io/pause: 'true'}}");
    let output = timeshard(&["inject", "-f", "-"], &set);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let want = "warning: StatefulSet/store: annotation thanos-timeshard.io/total-shard is unknown and has no effect; did you mean \
                thanos-timeshard.io/total-shards?\n";
    assert_eq!(said.matches(want).count(), 1, "{said}");
    assert!(!said.contains("pause"), "{said}");
}

#[test]
fn what_inject_prints_by_default_is_no_manifest() {
    let set = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: store}\nspec: {replicas: 6, template: {spec: {containers: \
        [{name: t, image: thanos, args: [store]}]}}}\n";
    for args in [vec![], vec!["-o", "wide"]] {
        let output = timeshard(&[&["inject", "-f", "-"], &args[..]].concat(), set);
        let preview = text(&output.stdout);
        assert!(
            preview.starts_with("Preview of 6 pods: ") && preview.contains("Not a manifest"),
            "{preview}"
        );
        for words in [
            "store-5",
            "-370d",
            "+    - --min-time=-124d8h",
            "--- store-0, as created\n",
        ] {
            assert!(preview.contains(words), "{words}: {preview}");
        }
        // kubectl splits documents at lines that begin with ---.
        for document in preview.split("\n---") {
            let object = serde_saphyr::from_str::<Value>(document);
            assert!(
                object.is_err() || object.is_ok_and(|object| object.get("kind").is_none()),
                "{document}"
            );
        }
        let again = timeshard(&["inject", "-f", "-"], &preview);
        assert_eq!(again.status.code(), Some(2), "{}", text(&again.stderr));
    }
}

#[test]
fn the_last_of_several_manifests_of_one_object_applies() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (store_yaml("", "first"), store_yaml("", "second"));
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: store}\n";
    std::fs::write(dir.path().join("a.yaml"), &first).unwrap();
    std::fs::write(
        dir.path().join("b.yaml"),
        format!(
            "{service}---\n{second}---\n{}",
            second.replace("{name: store}", "{name: store, namespace: other}")
        ),
    )
    .unwrap();
    let folder = dir.path().to_str().unwrap();
    let output = timeshard(&["inject", "-f", folder, "-o", "json"], "");
    let said = text(&output.stderr);
    for line in [
        "a.yaml:1: StatefulSet/store: DIR/b.yaml:5 has the same kind, namespace and name, and the last one applies",
        "b.yaml:1: Service/store: not a workload",
    ] {
        let line = format!("skipped {folder}/{}\n", line.replace("DIR", folder));
        assert_eq!(said.matches(&line).count(), 1, "{line}: {said}");
    }
    let pods: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |pod: &Value| {
        let env = &pod["spec"]["containers"][0]["env"];
        let own = env
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == "A");
        (
            pod["metadata"]["namespace"].clone(),
            own.unwrap()["value"].clone(),
        )
    };
    let found: Vec<(Value, Value)> = pods["items"].as_array().unwrap().iter().map(of).collect();
    assert_eq!(
        found,
        [("default", "second"), ("other", "second")].map(|(a, b)| (a.into(), b.into()))
    );
    // A single file is not repeated in each line.
    let file = format!("{folder}/b.yaml");
    let said = text(&timeshard(&["inject", "-f", &file], "").stderr);
    assert!(
        said.contains("skipped Service/store: not a workload\n"),
        "{said}"
    );
}

#[test]
fn built_in_defaults_are_reported_once() {
    let set = store_yaml("", "x").replace("replicas: 1", "replicas: 6");
    let said = text(&timeshard(&["inject", "-f", "-"], &set).stderr);
    let line = "no --config: using the built-in defaults\n";
    assert_eq!(said.matches(line).count(), 1, "{said}");
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/config.yaml");
    let said = text(&timeshard(&["inject", "-f", "-", "--config", config], &set).stderr);
    assert!(!said.contains("no --config"), "{said}");
}
