//! Compares `docs/status-api.md` with the document that the server writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeZone as _, Utc};
use serde_json::{Value, json};

use crate::cli::page_source::{PageStatus, Sets};
use crate::controller::reports::Reports;
use crate::core::agent::last_load::LastLoad;
use crate::core::config::Config;
use crate::core::gateways::Gateways;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::window::Window;
use crate::core::rollout::report::{
    BlockReport, BlocksReport, ChangeKind, CoverageReport, ForecastReport, GapReport, MoveReport,
    PodReport, PodState, QuerierReport, QuerierState, RolloutReport, RolloutState, SetReport,
    SettingChange, StepReport,
};
use crate::core::server_status::{API_VERSION, LeaderStatus, ServerStatus};

/// Maps whose keys are names from the cluster.
const MAPS: [&str; 1] = ["namespaces_without_rights"];
/// Fields that an example cannot have together with the others.
const ONLY_SOMETIMES: [&str; 1] = ["statefulsets[].shards_total"];

fn text() -> String {
    "x".to_owned()
}

fn window() -> Window {
    serde_json::from_value(json!({"min_time": "-2d", "max_time": "1d"})).unwrap()
}

fn head() -> ServerStatus {
    ServerStatus {
        api_version: API_VERSION.to_owned(),
        version: text(),
        cluster_name: Some(text()),
        webhook_only: false,
        namespace: Some(text()),
        synced: Some(true),
        watch_error: Some(text()),
        namespaces: Some(vec![text()]),
        namespaces_without_rights: [(text(), text())].into(),
        not_taken_in: vec![text()],
        leader: Some(LeaderStatus {
            holder: Some(text()),
            is_self: true,
            error: Some(text()),
        }),
        certificate_not_after_unix_seconds: Some(1),
        certificate_error: Some(text()),
        config_error: Some(text()),
        ..ServerStatus::default()
    }
}

fn pod() -> PodReport {
    PodReport {
        pod: text(),
        ordinal: 0,
        shard: 0,
        replica: 0,
        surplus: false,
        desired: window(),
        published: Some(window()),
        applied: Some(window()),
        verified: true,
        state: PodState::Confirmed,
        phase: Some(text()),
        seconds_in_state: 1,
        since_unix_seconds: 1,
        drift_seconds: Some(1),
        restarts: 1,
        agent_version: Some(text()),
        blocks_expected: Some(1),
        blocks_missing: Some(1),
        blocks_unknown: Some(text()),
        last_load: Some(LastLoad {
            window: window(),
            millis: 1,
            blocks: Some(1),
            blocks_new: Some(1),
        }),
        why: Some(text()),
    }
}

fn blocks() -> BlocksReport {
    let block = BlockReport {
        missing_on: vec![text()],
        ..BlockReport::default()
    };
    BlocksReport {
        unserved: vec![block.clone()],
        missing: vec![block],
        outside_windows: Some(1),
        bucket_total: Some(1),
        ..BlocksReport::default()
    }
}

/// A report in which nothing is empty or unknown.
fn report() -> SetReport {
    let step = MoveReport {
        pod: text(),
        from: window(),
        to: window(),
    };
    SetReport {
        namespace: "ns".to_owned(),
        name: "store".to_owned(),
        // One pod of two shards: the history compares reports, and needs a second one.
        replicas: 2,
        gaps: vec![GapReport {
            from: text(),
            to: text(),
        }],
        gap_seconds: 1,
        warnings: vec![text()],
        required: Some(window()),
        retention_seconds: Some(1),
        coverage: vec![CoverageReport::default()],
        steps: vec![StepReport {
            moves: vec![step],
            more: 0,
            load_seconds: Some(1),
        }],
        moves_left: 1,
        rollout: Some(RolloutReport::default()),
        forecast: Some(ForecastReport {
            seconds: Some(1),
            running_wait_seconds: Some(1),
            running_load_seconds: Some(1),
            ..ForecastReport::default()
        }),
        setting_changes: vec![SettingChange::default()],
        blocks: blocks(),
        queriers: vec![QuerierReport {
            name: text(),
            state: QuerierState::Answers,
            why: Some(text()),
            waits_for: Some(text()),
            since_unix_seconds: Some(1),
        }],
        querier_wait_seconds: Some(1),
        pods: vec![pod()],
        ..SetReport::default()
    }
}

/// The document of a server that leads, as it is written.
fn document() -> Value {
    let facts = StatefulSetFacts {
        namespace: "ns".to_owned(),
        name: "store".to_owned(),
        replicas: 2,
        store: true,
        annotations: [(
            "thanos-timeshard.io/total-shards".to_owned(),
            "many".to_owned(),
        )]
        .into(),
        ..StatefulSetFacts::default()
    };
    let fleet = Gateways::new(Arc::new(Config::default()))
        .with_statefulset(facts)
        .unwrap();
    let reports = Reports::default();
    let name = ("ns".to_owned(), "store".to_owned());
    reports.put(&name, report(), Duration::ZERO);
    let mut drifting = report();
    drifting.message = text();
    reports.put(&name, drifting, Duration::ZERO);
    let head = serde_json::to_value(head()).unwrap();
    let status = PageStatus {
        head: head.as_object().unwrap().clone(),
        statefulsets: Sets {
            fleet: &fleet,
            reports: Some(&reports),
            now: Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap(),
        },
    };
    serde_json::to_value(status).unwrap()
}

/// Kinds of the fields, by the path of their object.
type Fields = BTreeMap<String, BTreeMap<String, &'static str>>;

fn is_window(value: &Value) -> bool {
    value.as_object().is_some_and(|object| {
        object
            .keys()
            .map(String::as_str)
            .eq(["min_time", "max_time"])
    })
}

fn collect(path: &str, value: &Value, fields: &mut Fields) {
    let Value::Object(object) = value else {
        panic!("{path}: {value} is no object");
    };
    for (key, value) in object {
        let inner = format!("{path}.{key}").trim_start_matches('.').to_owned();
        let kind = match value {
            _ if MAPS.contains(&inner.as_str()) => "map",
            _ if is_window(value) => "window",
            Value::Object(_) => {
                collect(&inner, value, fields);
                "object"
            }
            Value::Array(items) => {
                let first = items.first();
                let first = first.unwrap_or_else(|| panic!("the example has no {inner}: add one"));
                if first.is_object() {
                    collect(&format!("{inner}[]"), first, fields);
                }
                "list"
            }
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "boolean",
            Value::Null => panic!("the example has no {inner}: add one"),
        };
        let object = fields.entry(path.to_owned()).or_default();
        object.insert(key.clone(), kind);
    }
}

/// The page's tables: path, field, kind, unit.
fn documented(page: &str) -> Vec<(String, String, String, String)> {
    let mut path = None;
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            path = Some(title.trim_matches('`').replace("The document", ""));
        } else if let (Some(path), Some(row)) = (&path, line.strip_prefix("| `")) {
            let cells: Vec<&str> = row.split(" |").map(str::trim).collect();
            for field in cells[0].split(", ") {
                let field = field.trim_matches('`').to_owned();
                rows.push((
                    path.clone(),
                    field,
                    cells[1].to_owned(),
                    cells[2].to_owned(),
                ));
            }
        }
    }
    rows
}

#[test]
fn the_page_has_every_field_with_its_type_and_unit() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/status-api.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut fields = Fields::new();
    collect("", &document(), &mut fields);
    assert!(
        page.contains(API_VERSION) && fields.len() > 10,
        "{fields:?}"
    );
    let mut seen = BTreeSet::new();
    for (path, field, kind, unit) in documented(&page) {
        let place = format!("{path}.{field}").trim_start_matches('.').to_owned();
        if !ONLY_SOMETIMES.contains(&place.as_str()) {
            let written = fields.get(&path).and_then(|object| object.get(&field));
            assert_eq!(
                written.copied(),
                Some(kind.as_str()),
                "docs/status-api.md: {place}: the server writes another type, or none"
            );
        }
        // Numbers in an order have no unit.
        let counts = kind != "number" || ["ordinal", "shard", "replica"].contains(&field.as_str());
        assert!(counts || !unit.is_empty(), "{place} has no unit");
        assert!(seen.insert((path, field)), "{place} is there twice");
    }
    for (path, object) in &fields {
        for field in object.keys() {
            assert!(
                seen.contains(&(path.clone(), field.clone())),
                "docs/status-api.md does not describe {field} of {path:?}"
            );
        }
    }
}

#[test]
fn the_page_has_every_state_and_kind() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/status-api.md");
    let page = std::fs::read_to_string(page).unwrap();
    let name = |value: Value| format!("`{}`", value.as_str().unwrap());
    let pods = [
        PodState::Absent,
        PodState::NotInjected,
        PodState::Terminating,
        PodState::Unreachable,
        PodState::Settling,
        PodState::Joining,
        PodState::Confirmed,
        PodState::Broken,
    ];
    let kinds = [
        ChangeKind::Gap,
        ChangeKind::Whole,
        ChangeKind::Rollout,
        ChangeKind::Step,
        ChangeKind::Confirmed,
        ChangeKind::Trouble,
        ChangeKind::Other,
    ];
    let states = RolloutState::ALL.iter().map(|state| json!(state));
    let pods = pods.iter().map(|state| json!(state));
    let kinds = kinds.iter().map(|kind| json!(kind));
    let queriers = QuerierState::ALL.iter().map(|state| json!(state));
    for value in states.chain(pods).chain(kinds).chain(queriers) {
        let name = name(value);
        assert!(page.contains(&name), "docs/status-api.md has no {name}");
    }
}
