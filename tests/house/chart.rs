//! The Helm chart's values, their schema, their table and the program agree. With Helm,
//! `tests/e2e/scenarios/chart.sh` lints the chart and compares the rendered templates with `deploy/`.
//!
//! `UPDATE_GOLDEN=1 cargo test --test house chart` updates the table in `deploy/chart/README.md`
//! from `values.yaml`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;
use thanos_timeshard::core::config::{Config, SHARDING_KEYS};

use crate::{at, files};

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

/// A key of `values.yaml` with the description above it, in the order of the file.
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
fn the_readme_has_the_table_of_values() {
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
            "update it: UPDATE_GOLDEN=1 cargo test --test house chart"
        );
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
fn the_schema_rejects_unknown_keys() {
    strict(&schema(), "");
}

/// The keys that the program lists when it rejects an unknown one.
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

/// The paths of the schema's leaves. Lists, free-form objects and the configuration, which
/// `docs/configuration.md` documents key by key, are leaves.
fn leaves(schema: &Value, path: &str, found: &mut Vec<String>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    let Some(properties) = properties.filter(|_| !path.starts_with("config.")) else {
        return found.push(path.to_owned());
    };
    for (key, value) in properties {
        let below = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        leaves(value, &below, found);
    }
}

/// Blocks that the templates copy as a whole.
const WHOLE: [&str; 4] = ["affinity", "config", "resources", "strategy"];

fn templates() -> Vec<String> {
    let mut paths = files("deploy/chart/templates", "yaml");
    paths.extend(files("deploy/chart/templates", "tpl"));
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    paths.into_iter().map(read).collect()
}

/// Whether `text` has the word `.key`.
fn mentions(text: &str, key: &str) -> bool {
    let word = format!(".{key}");
    text.match_indices(&word).any(|(at, _)| {
        !text[at + word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn every_value_has_a_default_and_a_description_and_is_used() {
    let (values, templates) = (yaml("deploy/chart/values.yaml"), templates());
    let documented: Vec<Vec<String>> = described().into_iter().map(|key| key.path).collect();
    let mut all = Vec::new();
    leaves(&schema(), "", &mut all);
    assert!(all.len() > 80, "{all:?}");
    for leaf in all
        .iter()
        .filter(|leaf| !["global", "enabled"].contains(&leaf.as_str()))
    {
        let path: Vec<String> = leaf.split('.').map(str::to_owned).collect();
        // Of an object with a description of its own, such as a security context, single keys may
        // be absent.
        let own = documented.iter().any(|known| path.starts_with(known));
        assert!(own, "values.yaml has no description of {leaf}");
        if documented.contains(&path) {
            default(&values, &path);
        }
        // A helper gets a block as its argument, so its last key may be in another file.
        let whole = path.len() == 1 || WHOLE.contains(&path[0].as_str());
        let block = format!(".Values.{}", path[0]);
        assert!(
            templates.iter().any(|template| template.contains(&block))
                && (whole
                    || templates
                        .iter()
                        .any(|template| mentions(template, &path[path.len() - 1]))),
            "no template uses {leaf}"
        );
    }
}
