//! Alerts, runbooks, dashboard and the page of metrics fit together. That every expression can be evaluated, and finds what it
//! names, is for `tests/e2e/scenarios/monitoring.sh`, which has a Prometheus and both programs.
//!
//! `UPDATE_GOLDEN=1 cargo test --test house monitoring` writes the copies of the alerts and of the dashboard anew.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::at;

const ALERTS: &str = "deploy/monitoring/alerts.yaml";
const DASHBOARD: &str = "deploy/monitoring/dashboard.json";
const RUNBOOKS: &str = "https://github.com/thanos-timeshard/timeshard/blob/main/docs/runbooks.md";
/// Labels that Prometheus gives to whatever it scrapes from a pod.
const OF_TARGETS: [&str; 3] = ["instance", "namespace", "pod"];

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

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

#[test]
fn the_copies_are_of_the_files() {
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
                "{path} is out of date; write it anew: UPDATE_GOLDEN=1 cargo test --test house monitoring"
            );
        }
    }
}

#[test]
fn every_alert_leads_to_its_runbook_and_every_runbook_belongs_to_an_alert() {
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
        "{place}: {expression} asks for none of our metrics"
    );
    let mut labels: BTreeSet<&str> = OF_TARGETS.into();
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
            "{place}: {expression}: nothing there has the label {label}"
        );
    }
}

/// Panels with something to draw, by their titles.
fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|panel| panel["type"] != "row")
        .collect()
}

#[test]
fn every_query_asks_for_a_metric_and_labels_that_there_are() {
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
fn the_dashboard_is_one_that_can_be_imported() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    assert_eq!(
        (text(&dashboard, "/uid"), &dashboard["id"]),
        ("thanos-timeshard", &Value::Null)
    );
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| text(v, "/name"))
        .collect();
    assert_eq!(variables, ["datasource", "namespace", "statefulset"]);
    let all = dashboard["panels"].as_array().unwrap();
    let rows: Vec<&str> = all
        .iter()
        .filter(|panel| panel["type"] == "row")
        .map(|row| text(row, "/title"))
        .collect();
    assert_eq!(
        rows,
        [
            "Coverage",
            "Rollout",
            "Admission",
            "Agents",
            "Certificates and configuration"
        ]
    );
    let ids: BTreeSet<u64> = all
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), all.len());
    let mut taken = BTreeSet::new();
    for panel in all {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for cell in (at("y")..at("y") + at("h"))
            .flat_map(|y| (at("x")..at("x") + at("w")).map(move |x| (x, y)))
        {
            assert!(
                cell.0 < 24 && taken.insert(cell),
                "{} lies over another panel",
                text(panel, "/title")
            );
        }
    }
    for panel in panels(&dashboard) {
        assert_eq!(text(panel, "/datasource/uid"), "${datasource}");
        assert!(
            !text(panel, "/description").is_empty(),
            "{}",
            text(panel, "/title")
        );
    }
}

#[test]
fn the_alerts_fire_when_they_should_and_not_in_a_rollout() {
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
            Ok(said) => {
                let output =
                    String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
                assert!(
                    said.status.success(),
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
            "alerts_test.yaml: {name} is expected nowhere"
        );
    }
}
