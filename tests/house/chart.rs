//! The Helm chart's values, their schema, their table and the program say the same. What its templates become is compared with
//! `deploy/` by `tests/e2e/scenarios/chart.sh`, which has a Helm.
//!
//! `UPDATE_GOLDEN=1 cargo test --test house chart` writes the table in `deploy/chart/README.md` anew, from `values.yaml`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;
use thanos_timeshard::core::config::{Config, SHARDING_KEYS};
use thanos_timeshard::core::names;

use crate::at;

const BEGIN: &str = "<!-- values: written by UPDATE_GOLDEN=1 cargo test --test house chart -->\n";
const END: &str = "<!-- end of values -->\n";

fn read(path: &str) -> String {
    std::fs::read_to_string(at(path)).unwrap()
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&read("deploy/chart/values.schema.json")).unwrap()
}

/// A key of `values.yaml` with the description before it, in the order of the file.
struct Described {
    path: Vec<String>,
    text: String,
}

fn described() -> Vec<Described> {
    let (mut found, mut parents, mut text) = (Vec::new(), Vec::<(usize, String)>::new(), None);
    for line in read("deploy/chart/values.yaml").lines() {
        let trimmed = line.trim_start();
        if let Some(description) = trimmed.strip_prefix("# -- ") {
            text = Some(description.to_owned());
        } else if let Some((key, _)) = trimmed
            .split_once(':')
            .filter(|_| !trimmed.starts_with(['#', '-']))
        {
            let depth = line.len() - trimmed.len();
            parents.retain(|(above, _)| *above < depth);
            parents.push((depth, key.to_owned()));
            if let Some(text) = text.take() {
                found.push(Described {
                    path: parents.iter().map(|(_, key)| key.clone()).collect(),
                    text,
                });
            }
        }
    }
    found
}

fn default<'a>(values: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(values, |value, key| {
        value
            .get(key)
            .unwrap_or_else(|| panic!("no {key} in {value}"))
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
        Value::Null => panic!("a default of null has no type"),
    }
}

fn table() -> String {
    let values = yaml("deploy/chart/values.yaml");
    let mut table = "| key | type | default | description |\n|-|-|-|-|\n".to_owned();
    for Described { path, text } in described() {
        let default = default(&values, &path);
        writeln!(
            table,
            "| `{}` | {} | `{default}` | {} |",
            path.join("."),
            kind(default),
            text.replace('|', "\\|")
        )
        .unwrap();
    }
    table
}

#[test]
fn the_table_of_values_is_that_of_the_file() {
    let readme = read("deploy/chart/README.md");
    let (before, rest) = readme
        .split_once(BEGIN)
        .expect("the README marks its table");
    let (now, after) = rest.split_once(END).expect("and its end");
    let want = table();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(
            at("deploy/chart/README.md"),
            format!("{before}{BEGIN}{want}{END}{after}"),
        )
        .unwrap();
    } else {
        assert_eq!(
            now, want,
            "write it anew: UPDATE_GOLDEN=1 cargo test --test house chart"
        );
    }
}

/// Every leaf of the values, as a path.
fn leaves(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match value.as_object().filter(|map| !map.is_empty()) {
        None => found.push(path.clone()),
        Some(map) => {
            for (key, value) in map {
                path.push(key.clone());
                leaves(value, path, found);
                path.pop();
            }
        }
    }
}

#[test]
fn every_value_is_described_and_in_the_schema() {
    let (described, schema) = (described(), schema());
    let mut found = Vec::new();
    leaves(
        &yaml("deploy/chart/values.yaml"),
        &mut Vec::new(),
        &mut found,
    );
    assert!(found.len() > 30, "{found:?}");
    for path in found {
        let name = path.join(".");
        assert!(
            described.iter().any(|d| path.starts_with(&d.path)),
            "{name}: no `# --` before it or a key above it"
        );
        let mut at = &schema;
        for key in &path {
            let Some(properties) = at.get("properties") else {
                break;
            };
            at = properties
                .get(key)
                .unwrap_or_else(|| panic!("{name}: not in values.schema.json"));
        }
    }
}

fn strict(schema: &Value, path: &str) {
    if schema.get("properties").is_some() {
        assert_eq!(
            schema["additionalProperties"], false,
            "{path}: a misspelt key would pass"
        );
    }
    match schema {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| strict(value, &format!("{path}/{key}"))),
        Value::Array(list) => list.iter().for_each(|value| strict(value, path)),
        _ => {}
    }
}

#[test]
fn the_schema_lets_no_unknown_key_pass() {
    strict(&schema(), "");
}

/// The keys that the program names when it is given one that it does not know.
fn known_keys(block: &str) -> BTreeSet<String> {
    let refusal = Config::parse(&format!("{block}:\n  qqqqqqqqqqqqqqqqqqqq: 1\n"), "x")
        .unwrap_err()
        .to_string();
    let (_, keys) = refusal.split_once("the keys here are ").unwrap();
    keys.split(", ").map(|key| key.trim().to_owned()).collect()
}

#[test]
fn the_schema_has_the_keys_of_the_configuration() {
    let schema = schema();
    for block in ["operator", "sharding", "injection"] {
        let properties = &schema["properties"]["config"]["properties"][block]["properties"];
        let keys: BTreeSet<String> = properties.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, known_keys(block), "{block}");
    }
    assert_eq!(
        known_keys("sharding"),
        SHARDING_KEYS.into_iter().map(str::to_owned).collect()
    );
}

#[test]
fn the_chart_is_of_this_version() {
    let (chart, values) = (
        yaml("deploy/chart/Chart.yaml"),
        yaml("deploy/chart/values.yaml"),
    );
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    let image = format!(
        "{}:{}",
        values["image"]["repository"].as_str().unwrap(),
        chart["appVersion"].as_str().unwrap()
    );
    assert_eq!(image, Config::default().injection.agent_image);
    assert_eq!(
        values["config"]["operator"]["namespace"],
        Config::default().operator.namespace.as_str()
    );
}

/// A template as it is rendered where all its conditions hold: without the lines that are Helm's alone.
fn unconditional(template: &str) -> String {
    template
        .lines()
        .filter(|line| !(line.starts_with("{{-") && line.ends_with("}}")))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Rights have their reasons in `deploy/`, where they are compared with the code; the chart's are the same text.
#[test]
fn rights_and_service_are_those_of_the_base() {
    let namespace = format!("namespace: {}\n", names::SYSTEM_NAMESPACE);
    for file in [
        "clusterrole",
        "clusterrolebinding",
        "role",
        "rolebinding",
        "service",
        "serviceaccount",
    ] {
        let base = read(&format!("deploy/base/{file}.yaml"))
            .replace(&namespace, "namespace: {{ .Release.Namespace }}\n");
        assert_eq!(
            unconditional(&read(&format!("deploy/chart/templates/{file}.yaml"))),
            base,
            "{file}.yaml"
        );
    }
    let own = read("deploy/self-signed/rights.yaml")
        .replace(&namespace, "namespace: {{ .Release.Namespace }}\n");
    let own = format!("{{{{- if include \"timeshard.selfSigned\" . }}}}\n{own}{{{{- end }}}}\n");
    assert_eq!(read("deploy/chart/templates/self-signed.yaml"), own);
    let without_comments = |text: &str| {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let component = |file: &str| {
        without_comments(&read(&format!(
            "deploy/components/namespaced/gateways/{file}.yaml"
        )))
    };
    let gateways = format!(
        "---\n{}---\n{}",
        component("role"),
        component("rolebinding")
    )
    .replace("namespace: default\n", "namespace: {{ . }}\n")
    .replace(&namespace, "namespace: {{ $.Release.Namespace }}\n");
    assert_eq!(
        without_comments(&unconditional(&read(
            "deploy/chart/templates/gateways.yaml"
        ))),
        gateways
    );
}

/// The policies name the server's namespace, and the ConfigMap that the configuration names.
#[test]
fn policies_are_those_of_the_component() {
    let operator = Config::default().operator;
    let of_base = |text: &str| {
        text.replace("{{ .Release.Namespace }}", names::SYSTEM_NAMESPACE)
            .replace(
                "{{ .Values.config.operator.namespace }}",
                &operator.namespace,
            )
            .replace(
                "{{ .Values.config.operator.configmap_name }}",
                &operator.configmap_name,
            )
    };
    let template = read("deploy/chart/templates/policies.yaml");
    assert!(
        template.contains("{{ .Release.Namespace }}")
            && template.contains("{{ .Values.config.operator.configmap_name }}")
    );
    assert_eq!(
        of_base(&unconditional(&template)),
        read("deploy/components/policy/policies.yaml")
    );
}
