//! Alerts, runbooks, dashboard and the page of metrics agree. With Prometheus and both programs,
//! `tests/e2e/scenarios/monitoring.sh` evaluates every expression.
//!
//! `UPDATE_GOLDEN=1 cargo test --test house monitoring` updates the copies of the alerts and of the
//! dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::at;

const ALERTS: &str = "deploy/monitoring/alerts.yaml";
pub(crate) const DASHBOARD: &str = "deploy/monitoring/dashboard.json";
const RUNBOOKS: &str =
    "https://github.com/thanos-timeshard/thanos-timeshard/blob/main/docs/runbooks.md";
/// Labels that Prometheus adds to every series of a pod.
const OF_TARGETS: [&str; 5] = ["cluster", "instance", "job", "namespace", "pod"];
/// The label of sidecars' series that deploy/components/monitoring adds.
const OF_SIDECARS: &str = "thanos_timeshard_io_shard";
/// Metrics of Thanos that the dashboard uses, as in its pkg/store/bucket.go, pkg/block/fetcher.go
/// and libraries.
const OF_THANOS: [&str; 10] = [
    "grpc_server_handled_total",
    "process_resident_memory_bytes",
    "thanos_blocks_meta_sync_failures_total",
    "thanos_bucket_store_block_load_failures_total",
    "thanos_bucket_store_blocks_loaded",
    "thanos_bucket_store_queries_dropped_total",
    "thanos_bucket_store_series_data_size_fetched_bytes_sum",
    "thanos_bucket_store_series_get_all_duration_seconds_count",
    "thanos_bucket_store_series_get_all_duration_seconds_sum",
    "thanos_objstore_bucket_operation_failures_total",
];

fn read(path: &str) -> String {
    std::fs::read_to_string(at(path)).unwrap()
}

fn rules() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&read(ALERTS)).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

#[test]
fn the_copies_are_up_to_date() {
    let groups = &read(ALERTS)[read(ALERTS).find("groups:").unwrap()..];
    let indented: String = groups.lines().map(|line| format!("  {line}\n")).collect();
    let rule = "# Written from alerts.yaml by UPDATE_GOLDEN=1 cargo test --test house monitoring\n\
                apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: timeshard\n  \
                namespace: timeshard-system\n  labels:\n    app.kubernetes.io/name: thanos-timeshard\nspec:\n";
    for (path, want) in [
        (
            "deploy/monitoring/prometheusrule.yaml",
            rule.to_owned() + &indented,
        ),
        ("deploy/chart/files/alerts.yaml", groups.to_owned()),
        ("deploy/chart/files/dashboard.json", read(DASHBOARD)),
    ] {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), want).unwrap();
        } else {
            assert!(
                read(path) == want,
                "{path} is out of date; update it: UPDATE_GOLDEN=1 cargo test --test house monitoring"
            );
        }
    }
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let runbooks = read("docs/runbooks.md");
    let sections: BTreeSet<&str> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let rules = rules();
    for rule in &rules {
        let name = text(rule, "/alert");
        assert_eq!(
            text(rule, "/annotations/runbook_url"),
            format!("{RUNBOOKS}#{}", name.to_lowercase()),
            "{name}"
        );
        assert!(
            matches!(text(rule, "/labels/severity"), "critical" | "warning"),
            "{name}"
        );
        assert!(
            !text(rule, "/for").is_empty() && text(rule, "/annotations/summary").len() < 80,
            "{name}"
        );
        assert!(
            text(rule, "/annotations/description").ends_with('.'),
            "{name}"
        );
    }
    let alerts: BTreeSet<&str> = rules.iter().map(|rule| text(rule, "/alert")).collect();
    assert_eq!((alerts.len(), &alerts), (rules.len(), &sections));
}

/// The metrics of the page with their labels, by the names that they have in `PromQL`.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let page = read("docs/metrics.md");
    let mut metrics = BTreeMap::new();
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (name, rest) = row.split_once("` | ").unwrap();
        let columns: Vec<&str> = rest.split(" | ").collect();
        let mut labels: BTreeSet<String> = columns[2]
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        let suffixes: &[&str] = if columns[0] == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        labels.extend((columns[0] == "histogram").then(|| "le".to_owned()));
        metrics.extend(
            suffixes
                .iter()
                .map(|suffix| (format!("{name}{suffix}"), labels.clone())),
        );
    }
    metrics
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The metrics that an expression names, each with the labels that it selects by.
fn named(expression: &str) -> Vec<(&str, Vec<&str>)> {
    let starts = expression
        .match_indices("timeshard_")
        .map(|(place, _)| place);
    let starts = starts.filter(|place| !expression[..*place].ends_with(is_word));
    starts
        .map(|place| {
            let rest = &expression[place..];
            let (name, rest) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
            let matchers = rest
                .strip_prefix('{')
                .map_or("", |rest| rest.split_once('}').unwrap().0);
            (
                name,
                matchers
                    .split(", ")
                    .filter(|matcher| !matcher.is_empty())
                    .map(|m| m.split(['=', '!']).next().unwrap())
                    .collect(),
            )
        })
        .collect()
}

/// The labels in `by (...)` and `on (...)`.
fn grouped(expression: &str) -> Vec<&str> {
    let lists = ["by (", "on ("]
        .into_iter()
        .flat_map(|word| expression.split(word).skip(1));
    lists
        .flat_map(|rest| rest.split_once(')').unwrap().0.split(", "))
        .collect()
}

fn check(place: &str, expression: &str, known: &BTreeMap<String, BTreeSet<String>>) {
    let metrics = named(expression);
    assert!(
        !metrics.is_empty(),
        "{place}: {expression} uses no metric of timeshard"
    );
    let mut labels: BTreeSet<&str> = OF_TARGETS.into();
    labels.insert(OF_SIDECARS);
    // A label that the expression itself makes.
    if expression.contains(r#""statefulset", "$1", "pod""#) {
        labels.insert("statefulset");
    }
    for selected in expression
        .match_indices('{')
        .map(|(place, _)| &expression[..place])
    {
        let name = selected.rsplit(|c| !is_word(c)).next().unwrap();
        let foreign = !name.is_empty() && !name.starts_with("timeshard_");
        assert!(
            !foreign || OF_THANOS.contains(&name),
            "{place}: {expression}: {name} is not listed as a metric of Thanos"
        );
    }
    for (name, selected) in metrics {
        let own = known
            .get(name)
            .unwrap_or_else(|| panic!("{place}: {expression}: docs/metrics.md has no {name}"));
        labels.extend(own.iter().map(String::as_str));
        for label in selected {
            assert!(
                own.contains(label) || OF_TARGETS.contains(&label),
                "{place}: {expression}: {name} has no label {label}"
            );
        }
    }
    for label in grouped(expression) {
        assert!(
            labels.contains(label),
            "{place}: {expression}: no metric in it has the label {label}"
        );
    }
}

/// Panels with something to draw, by their titles.
pub(crate) fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|panel| panel["type"] != "row")
        .collect()
}

#[test]
fn every_query_uses_documented_metrics_and_labels() {
    let known = documented();
    assert!(known.len() > 50, "{known:?}");
    for rule in rules() {
        check(text(&rule, "/alert"), text(&rule, "/expr"), &known);
    }
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            check(text(panel, "/title"), text(target, "/expr"), &known);
        }
    }
    for variable in dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|variable| variable["type"] == "query")
    {
        let query = text(variable, "/query/query");
        let (selector, label) = query
            .strip_prefix("label_values(")
            .unwrap()
            .strip_suffix(')')
            .unwrap()
            .rsplit_once(", ")
            .unwrap();
        check("a variable", &format!("{selector} by ({label})"), &known);
    }
}

#[test]
fn the_alerts_fire_when_they_should_and_not_during_a_rollout() {
    let promtool = |arguments: &[&str]| {
        Command::new("promtool")
            .args(arguments)
            .current_dir(at("deploy/monitoring"))
            .output()
    };
    for arguments in [
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts_test.yaml"],
    ] {
        match promtool(&arguments) {
            Ok(result) => {
                let output = String::from_utf8_lossy(&result.stdout)
                    + String::from_utf8_lossy(&result.stderr);
                assert!(
                    result.status.success(),
                    "promtool {}: {output}",
                    arguments.join(" ")
                );
            }
            Err(error) => {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "promtool (Debian package prometheus): {error}"
                );
                return println!("skipped: no promtool here (Debian package prometheus)");
            }
        }
    }
    // Each alert is expected by name somewhere in the tests.
    let tests = read("deploy/monitoring/alerts_test.yaml");
    for rule in rules() {
        let name = text(&rule, "/alert");
        let expected = [
            format!("alertname=\"{name}\""),
            format!("alertname: {name}\n"),
        ];
        assert!(
            expected.iter().any(|part| tests.contains(part)),
            "alerts_test.yaml: {name} is never expected"
        );
    }
}
