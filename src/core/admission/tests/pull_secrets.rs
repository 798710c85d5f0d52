//! `injection.image_pull_secrets`: the sidecar's image may be in a private registry.

use super::*;

/// Pods as they are, and the names of the pull secrets of the injected ones, in their order.
const CASES: [(&str, &[&str]); 5] = [
    ("{}", &["mirror", "backup"]),
    (r#"{"imagePullSecrets": null}"#, &["mirror", "backup"]),
    (r#"{"imagePullSecrets": []}"#, &["mirror", "backup"]),
    (
        r#"{"imagePullSecrets": [{"name": "z"}, {"name": "backup"}, {"name": "a"}]}"#,
        &["z", "backup", "a", "mirror"],
    ),
    (
        r#"{"imagePullSecrets": [{"name": "backup"}, {"name": "mirror"}, {}]}"#,
        &["backup", "mirror", ""],
    ),
];

fn config(native: bool) -> Config {
    let text =
        format!("injection: {{native_sidecar: {native}, image_pull_secrets: [mirror, backup]}}\n");
    Config::parse(&text, "c.yaml").unwrap()
}

fn secrets_of(pod: &Value) -> Vec<&str> {
    let secrets = pod["spec"]["imagePullSecrets"].as_array().unwrap();
    secrets
        .iter()
        .map(|secret| secret["name"].as_str().unwrap_or_default())
        .collect()
}

fn pod_with(spec: &str) -> Value {
    let mut pod = store_with(&json!({}));
    merge(&mut pod["spec"], &serde_json::from_str(spec).unwrap());
    pod
}

#[test]
fn missing_pull_secrets_are_added_behind_those_of_the_pod() {
    for native in [true, false] {
        for (spec, want) in CASES {
            let (after, _, _) = admit_with(&config(native), &pod_with(spec)).unwrap();
            assert_eq!(secrets_of(&after), want, "{spec}");
            assert_eq!(
                admit_with(&config(native), &after).unwrap_err(),
                Skip::AlreadyInjected
            );
        }
    }
}

#[test]
fn pull_secrets_that_another_webhook_dropped_return() {
    let (mut after, _, _) = admit_with(&config(true), &pod_with("{}")).unwrap();
    after["spec"]["imagePullSecrets"] = json!([{"name": "other"}]);
    let (again, patch, _) = admit_with(&config(true), &after).unwrap();
    assert_eq!(secrets_of(&again), ["other", "mirror", "backup"]);
    assert_eq!(patch.len(), 2, "{patch:?}");
}

#[test]
fn without_the_key_the_list_stays_as_it_is() {
    for spec in ["{}", r#"{"imagePullSecrets": [{"name": "own"}]}"#] {
        let before = pod_with(spec);
        let after = injected(&before);
        assert_eq!(
            after["spec"].get("imagePullSecrets"),
            before["spec"].get("imagePullSecrets")
        );
    }
}
