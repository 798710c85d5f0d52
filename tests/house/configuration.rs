//! The reference of the configuration file is generated from the chart's schema, which `chart.rs`
//! compares with the program's keys.
//!
//! `UPDATE_GOLDEN=1 cargo test --test house configuration` updates the tables in
//! `docs/configuration.md`.

use std::fmt::Write as _;

use serde_json::Value;
use thanos_timeshard::core::config::Config;

use crate::at;

const PAGE: &str = "docs/configuration.md";
const SCHEMA: &str = "deploy/chart/values.schema.json";

/// The accepted values, as text.
fn accepted(schema: &Value) -> String {
    let integer = |low: &Value, high: &Value| format!("{low} to {high}");
    if let Some(reference) = schema["$ref"].as_str() {
        return match reference.rsplit('/').next() {
            Some("duration") => "duration",
            Some("amount") => "number",
            Some("signed_duration") => "duration, also negative",
            Some("signed_amount") => "number, also negative",
            Some("name") => "name of an object",
            Some("quantity") => "quantity",
            other => panic!("no text for {other:?} in {SCHEMA}"),
        }
        .to_owned();
    }
    if let Some(choices) = schema["enum"].as_array() {
        return choices
            .iter()
            .map(|choice| format!("`{}`", choice.as_str().unwrap()))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(several) = schema["anyOf"].as_array() {
        return several
            .iter()
            .map(accepted)
            .collect::<Vec<_>>()
            .join(" or ");
    }
    if let Some(value) = schema["const"].as_str() {
        return format!("`{value}`");
    }
    match schema["type"].as_str() {
        Some("integer") => integer(&schema["minimum"], &schema["maximum"]),
        Some("array") => match accepted(&schema["items"]).as_str() {
            "name of an object" => "list of names of objects".to_owned(),
            item => format!("list of {item}"),
        },
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("string") => "text".to_owned(),
        other => panic!("no text for {other:?} in {SCHEMA}"),
    }
}

/// The keys of a block, or of each item of a list.
fn properties(schema: &Value) -> &serde_json::Map<String, Value> {
    let block = schema.get("items").unwrap_or(schema);
    block["properties"].as_object().unwrap()
}

/// One block's table, its keys in the order of the file.
fn table(block: &str, schema: &Value, text: &str) -> String {
    let from = text.find(&format!("\"{block}\": {{")).unwrap();
    let mut keys: Vec<_> = properties(schema).iter().collect();
    keys.sort_by_key(|(key, _)| text[from..].find(&format!("\"{key}\": {{")));
    let mut table = "| key | accepted | default | meaning |\n|-|-|-|-|\n".to_owned();
    for (key, schema) in keys {
        let meaning = schema["description"]
            .as_str()
            .unwrap_or_else(|| panic!("{SCHEMA}: {block}.{key} has no description"));
        let default = match &schema["default"] {
            Value::Null => String::new(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        writeln!(
            table,
            "| `{key}` | {} | {default} | {meaning} |",
            accepted(schema)
        )
        .unwrap();
    }
    table
}

fn blocks() -> (Value, String) {
    let text = std::fs::read_to_string(at(SCHEMA)).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    (
        schema["properties"]["config"]["properties"].clone(),
        text[text.find("\"config\": {").unwrap()..].to_owned(),
    )
}

#[test]
fn the_page_has_the_tables_of_the_schema() {
    let (blocks, text) = blocks();
    let mut page = std::fs::read_to_string(at(PAGE)).unwrap();
    let before = page.clone();
    for (block, schema) in blocks.as_object().unwrap() {
        let begin = format!(
            "<!-- {block}: written by UPDATE_GOLDEN=1 cargo test --test house configuration -->\n"
        );
        let end = format!("<!-- end of {block} -->\n");
        let from = page
            .find(&begin)
            .unwrap_or_else(|| panic!("{PAGE} has no line {begin}"))
            + begin.len();
        let to = page
            .find(&end)
            .unwrap_or_else(|| panic!("{PAGE} has no line {end}"));
        page.replace_range(from..to, &table(block, schema, &text));
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(at(PAGE), page).unwrap();
    } else {
        assert_eq!(
            before, page,
            "update it: UPDATE_GOLDEN=1 cargo test --test house configuration"
        );
    }
}

/// The schema's defaults are the program's: setting a key to its default changes nothing.
#[test]
fn defaults_of_the_schema_are_those_of_the_program() {
    let default_config = Config::default();
    let (blocks, _) = blocks();
    let mut checked = 0;
    for (block, schema) in blocks.as_object().unwrap() {
        for (key, schema) in properties(schema) {
            let default = &schema["default"];
            if !default.is_null() {
                let config = Config::parse(&format!("{block}:\n  {key}: {default}\n"), "x")
                    .unwrap_or_else(|why| panic!("{block}.{key}: {why}"));
                assert_eq!(
                    (&config.operator, &config.sharding, &config.injection),
                    (
                        &default_config.operator,
                        &default_config.sharding,
                        &default_config.injection
                    ),
                    "{block}.{key}"
                );
                checked += 1;
            }
        }
    }
    assert!(checked >= 20, "only {checked} defaults");
}
