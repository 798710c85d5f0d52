//! The reference of the configuration file is written from the chart's schema, which `chart.rs` holds to the program's own keys.
//!
//! `UPDATE_GOLDEN=1 cargo test --test house configuration` writes the tables in `docs/configuration.md` anew.

use std::fmt::Write as _;

use serde_json::Value;
use thanos_timeshard::core::config::Config;

use crate::at;

const PAGE: &str = "docs/configuration.md";
const SCHEMA: &str = "deploy/chart/values.schema.json";

/// What is accepted, as a person writes it.
fn accepted(schema: &Value) -> String {
    let whole = |low: &Value, high: &Value| format!("{low} to {high}");
    if let Some(reference) = schema["$ref"].as_str() {
        return match reference.rsplit('/').next() {
            Some("duration") => "duration",
            Some("amount") => "number",
            Some("signed_duration") => "duration, also negative",
            Some("signed_amount") => "number, also negative",
            Some("name") => "name of an object",
            Some("quantity") => "quantity",
            other => panic!("no words for {other:?} in {SCHEMA}"),
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
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`");
    }
    match schema["type"].as_str() {
        Some("integer") => whole(&schema["minimum"], &schema["maximum"]),
        Some("array") => format!("list of {}", accepted(&schema["items"])),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("string") => "text".to_owned(),
        other => panic!("no words for {other:?} in {SCHEMA}"),
    }
}

/// One block's table, its keys in the order of the file.
fn table(block: &str, schema: &Value, text: &str) -> String {
    let from = text.find(&format!("\"{block}\": {{")).unwrap();
    let mut keys: Vec<_> = schema["properties"].as_object().unwrap().iter().collect();
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
            "write it anew: UPDATE_GOLDEN=1 cargo test --test house configuration"
        );
    }
}

/// A default that is written down is the program's: a file that says nothing and one that says the default are the same to it.
#[test]
fn a_default_of_the_schema_is_that_of_the_program() {
    let nothing = Config::default();
    let (blocks, _) = blocks();
    let mut said = 0;
    for (block, schema) in blocks.as_object().unwrap() {
        for (key, schema) in schema["properties"].as_object().unwrap() {
            let default = &schema["default"];
            if !default.is_null() {
                let config = Config::parse(&format!("{block}:\n  {key}: {default}\n"), "x")
                    .unwrap_or_else(|why| panic!("{block}.{key}: {why}"));
                assert_eq!(
                    (&config.operator, &config.sharding, &config.injection),
                    (&nothing.operator, &nothing.sharding, &nothing.injection),
                    "{block}.{key}"
                );
                said += 1;
            }
        }
    }
    assert!(said >= 20, "only {said} defaults");
}
