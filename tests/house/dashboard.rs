//! The dashboard: its variables select every query, each panel links to documentation, and the
//! queries that join Thanos' metrics to shards give what their panels say (with promtool).
//!
//! `monitoring` compares the metrics and labels that the queries use.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::at;
use crate::monitoring::{DASHBOARD, panels, text};

const DOCS: &str = "https://github.com/thanos-timeshard/thanos-timeshard/blob/main/docs/";
const SELECTION: &str = r#"{cluster=~"$cluster", job=~"$job""#;

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(at(DASHBOARD)).unwrap()).unwrap()
}

/// The anchors of a page of the documentation, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(at("docs").join(page)).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| heading.replace(' ', "-"))
        .collect()
}

/// Checks that a URL leads to a page, and to a heading of it, in this checkout.
fn leads_to_documentation(place: &str, url: &str) {
    let path = url
        .strip_prefix(DOCS)
        .unwrap_or_else(|| panic!("{place}: {url} is not below {DOCS}"));
    let (page, anchor) = path.split_once('#').unwrap_or((path, ""));
    let anchors = anchors(page);
    assert!(
        anchor.is_empty() || anchors.contains(anchor),
        "{place}: docs/{page} has no heading for #{anchor}"
    );
}

#[test]
fn its_variables_select_every_query() {
    let dashboard = dashboard();
    let names: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| text(variable, "/name"))
        .collect();
    let wanted = ["datasource", "cluster", "job", "namespace", "statefulset"];
    assert_eq!(names, wanted);
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64()), "{} twice", panel["id"]);
    }
    for panel in panels(&dashboard) {
        let title = text(panel, "/title");
        for target in panel["targets"].as_array().unwrap() {
            let expression = text(target, "/expr");
            for (place, _) in expression.match_indices("timeshard_") {
                let (before, rest) = expression.split_at(place);
                if before.ends_with('_') {
                    continue; // thanos_timeshard_io_shard, a label
                }
                let name = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let selector = &rest[name.unwrap_or(rest.len())..];
                assert!(selector.starts_with(SELECTION), "{title}: {rest}");
            }
        }
    }
    let kinds: Vec<&str> = panels(&dashboard)
        .into_iter()
        .map(|panel| text(panel, "/type"))
        .collect();
    assert!(kinds.contains(&"state-timeline"), "{kinds:?}");
}

#[test]
fn every_panel_links_to_documentation() {
    let dashboard = dashboard();
    for panel in panels(&dashboard) {
        let title = text(panel, "/title");
        let links = panel["links"].as_array();
        let links = links.unwrap_or_else(|| panic!("{title} has no links"));
        assert!(!links.is_empty(), "{title} has no links");
        for link in links {
            leads_to_documentation(title, text(link, "/url"));
        }
    }
    for link in dashboard["links"].as_array().unwrap() {
        leads_to_documentation("the dashboard", text(link, "/url"));
    }
}

/// The page's links are made in its scripts.
#[test]
fn the_page_links_to_documentation_that_exists() {
    let read = |name: &str| std::fs::read_to_string(at("src/page/assets").join(name)).unwrap();
    let html = read("page.html");
    for url in html.split("href=\"https://").skip(1) {
        let url = url.split_once('"').unwrap().0;
        leads_to_documentation("page.html", &format!("https://{url}"));
    }
    let script = read("findings.js");
    assert!(script.contains(&format!("const DOCS = '{DOCS}'")));
    let quoted = script.split("'Timeshard").skip(1);
    let alerts: BTreeSet<&str> = quoted
        .map(|rest| rest.split_once('\'').unwrap().0)
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        let url = format!("{DOCS}runbooks.md#timeshard{}", alert.to_lowercase());
        leads_to_documentation("findings.js", &url);
    }
}

/// The first query of a panel, as Grafana sends it with "All" selected.
fn query(dashboard: &Value, title: &str) -> String {
    let panel = panels(dashboard)
        .into_iter()
        .find(|panel| text(panel, "/title") == title)
        .unwrap_or_else(|| panic!("no panel {title}"));
    let mut expression = text(panel, "/targets/0/expr").replace("$__rate_interval", "2m");
    for variable in ["$cluster", "$job", "$namespace", "$statefulset"] {
        expression = expression.replace(variable, ".*");
    }
    expression
}

/// Four pods of two StatefulSets, and a rollout.
fn series() -> Vec<Value> {
    let mut series = Vec::new();
    let mut add = |series_text: String, values: &str| {
        series.push(json!({"series": series_text, "values": values}));
    };
    for (pod, shard, blocks) in [
        ("store-0", 0, 100),
        ("store-1", 0, 120),
        ("store-2", 1, 80),
        ("other-0", 0, 7),
    ] {
        let of = format!("namespace=\"m\",pod=\"{pod}\"");
        let loaded = format!("thanos_bucket_store_blocks_loaded{{{of},job=\"thanos\"}}");
        add(loaded, &format!("{blocks}x10"));
        let verified = "timeshard_agent_applied_verified";
        let shard = format!("thanos_timeshard_io_shard=\"{shard}\"");
        // Also a pod whose window could not be verified.
        add(format!("{verified}{{{of},job=\"agents\",{shard}}}"), "0x10");
        let fetched = "thanos_bucket_store_series_data_size_fetched_bytes_sum";
        add(format!("{fetched}{{{of},job=\"thanos\"}}"), "0+60x10");
    }
    for (state, value) in [("rolling", "1x10"), ("settled", "0x10")] {
        let of = format!("namespace=\"m\",statefulset=\"store\",state=\"{state}\"");
        add(format!("timeshard_rollout_state{{{of}}}"), value);
    }
    let phase = "timeshard_agent_phase{namespace=\"m\",pod=\"store-0\",phase=\"failed\"}";
    add(phase.to_owned(), "1x10");
    series
}

#[test]
fn thanos_metrics_are_summed_by_shard_and_states_become_a_timeline() {
    let dashboard = dashboard();
    let series = series();
    let of = |set: &str, shard: u32| {
        format!("{{namespace=\"m\", statefulset=\"{set}\", thanos_timeshard_io_shard=\"{shard}\"}}")
    };
    let shards = |numbers: [u32; 3]| {
        let [other, first, second] = numbers;
        json!([
            {"labels": of("other", 0), "value": other},
            {"labels": of("store", 0), "value": first},
            {"labels": of("store", 1), "value": second},
        ])
    };
    let cases = [
        ("Blocks loaded per shard", shards([7, 120, 80])),
        ("Bytes fetched per shard", shards([1, 2, 1])),
        (
            "Rollout over time",
            json!([{"labels": "{namespace=\"m\", statefulset=\"store\"}", "value": 2}]),
        ),
        (
            "Pods over time",
            json!([{"labels": "{namespace=\"m\", pod=\"store-0\"}", "value": 5}]),
        ),
    ];
    let case = |(title, samples): (&str, Value)| json!({"expr": query(&dashboard, title), "eval_time": "5m", "exp_samples": samples});
    let cases: Vec<Value> = cases.into_iter().map(case).collect();
    let tests = json!({"evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": cases}]});
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tests.yaml");
    std::fs::write(&file, tests.to_string()).unwrap();
    match Command::new("promtool")
        .args(["test", "rules"])
        .arg(&file)
        .output()
    {
        Ok(result) => assert!(
            result.status.success(),
            "{}{}",
            String::from_utf8_lossy(&result.stdout),
            String::from_utf8_lossy(&result.stderr)
        ),
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "promtool (Debian package prometheus): {error}"
            );
            println!("skipped: no promtool here (Debian package prometheus)");
        }
    }
}
