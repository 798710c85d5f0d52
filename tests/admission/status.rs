//! `timeshard status` against servers that answer this and that, directly and behind an API
//! server's proxy.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::server::TIMESHARD;
use server::Server;
pub(crate) use through_api_server::{before_api_server, with_kubeconfig};

mod following;
mod refusals;
mod server;
mod through_api_server;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn pod(ordinal: u32, shard: u32, windows: [&str; 3], state: &str, phase: &str) -> Value {
    let window = |text: &str| {
        text.split_once(" .. ")
            .map(|(min, max)| json!({"min_time": min, "max_time": max}))
    };
    json!({
        "pod": format!("store-{ordinal}"), "ordinal": ordinal, "shard": shard, "replica": ordinal % 2, "surplus": false,
        "desired": window(windows[0]), "published": window(windows[1]), "applied": window(windows[2]), "verified": true,
        "state": state, "phase": phase, "seconds_in_state": 200 * u64::from(ordinal), "restarts": ordinal,
        "agent_version": env!("CARGO_PKG_VERSION"), "why": null, "a key of a later version": 1,
    })
}

fn set(state: &str, message: &str, pods: &[Value]) -> Value {
    json!({
        "namespace": "monitoring", "name": "store", "configmap": "store-time-shards", "replicas": pods.len(), "state": state,
        "message": message, "moves_left": 0, "steps_left": 0, "eta_seconds": 0, "gaps": [], "gap_seconds": 0,
        "minimum_ready_replicas": 2, "warnings": [], "pods": pods, "later": {"x": []},
    })
}

fn document(sets: &[Value]) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"), "webhook_only": false, "synced": true, "watch_error": null, "namespaces": ["monitoring"],
        "statefulsets": sets, "leader": {"holder": "timeshard-a", "self": true}, "reports": "leader", "config_error": null, "later": 1,
    })
}

const OLD: &str = "-370d .. -246d16h";
const NEW: &str = "-370d .. -277d12h";
const HEAD: &str = "-93d12h .. 1d";

fn settled() -> Value {
    let pods = [
        pod(0, 0, [HEAD; 3], "confirmed", "serving"),
        pod(1, 1, [NEW; 3], "confirmed", "serving"),
    ];
    set("settled", "every pod serves its planned window", &pods)
}

fn rolling() -> Value {
    let mut pods = [
        pod(0, 0, [HEAD; 3], "confirmed", "serving"),
        pod(1, 0, [HEAD; 3], "joining", "serving"),
        pod(2, 1, [NEW, NEW, OLD], "settling", "draining"),
        pod(3, 1, [NEW, OLD, OLD], "confirmed", "serving"),
    ];
    pods[1]["why"] = json!("queriers learn of it within 12 s");
    pods[2]["verified"] = json!(false);
    (pods[2]["agent_version"], pods[3]["agent_version"]) = (json!(""), json!("0.0.9"));
    let mut set = set("rolling", "store-2 is given another window", &pods);
    set["moves_left"] = json!(1);
    set["steps_left"] = json!(1);
    set["eta_seconds"] = json!(270);
    set["minimum_ready_replicas"] = json!(1);
    set
}

fn blocked() -> Value {
    let mut pod = pod(0, 0, [NEW, OLD, "none"], "unreachable", "");
    (pod["phase"], pod["surplus"]) = (Value::Null, json!(true));
    pod["why"] = json!(format!(
        "its sidecar does not answer on port 10908\u{1b}[31m {}",
        "x".repeat(400)
    ));
    let mut set = set("blocked", "store-0 alone serves that range", &[pod]);
    set["gaps"] = json!([{"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}]);
    (set["gap_seconds"], set["minimum_ready_replicas"]) = (json!(86_400), json!(0));
    set["warnings"] = json!(["one replica serves shard 0"]);
    set
}

#[test]
fn a_rollout_is_shown() {
    let output = Server::of(&document(&[rolling(), settled()])).status(&[]);
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
    let want = "\
monitoring/store: rolling: store-2 is given another window
  1 move in 1 step left, at least 5 min; every instant is served by at least 1 pod; 4 replicas, ConfigMap store-time-shards
  agents with another version than the server's 0.1.0, until these pods are recreated: store-2 (unknown), store-3 (0.0.9)
  POD      SHARD  STATE      PHASE     PUBLISHED          APPLIED                       DESIRED            AGE    RESTARTS  WHY
  store-0  0      confirmed  serving   -93d12h .. 1d      =                             =                  0s     0
  store-1  0      joining    serving   -93d12h .. 1d      =                             =                  3m20s  1         queriers learn of it within 12 s
  store-2  1      settling   draining  -370d .. -277d12h  -370d .. -246d16h unverified  =                  6m40s  2
  store-3  1      confirmed  serving   -370d .. -246d16h  =                             -370d .. -277d12h  10m    3

monitoring/store: settled: every pod serves its planned window
  nothing left to do; every instant is served by at least 2 pods; 2 replicas, ConfigMap store-time-shards
  POD      SHARD  STATE      PHASE    PUBLISHED          APPLIED  AGE    RESTARTS
  store-0  0      confirmed  serving  -93d12h .. 1d      =        0s     0
  store-1  1      confirmed  serving  -370d .. -277d12h  =        3m20s  1
";
    assert_eq!(
        text(&output.stdout).replace(env!("CARGO_PKG_VERSION"), "0.1.0"),
        want
    );
}

#[test]
fn problems_stand_out_and_exit_with_0() {
    let mut all = document(&[blocked()]);
    all["config_error"] = json!("config.yaml:2:3: no");
    let block =
        json!({"ulid": "01X", "from": "A", "to": "B", "missing_on": ["store-0"], "served_by": 0});
    all["statefulsets"][0]["blocks"] = json!({"known_pods": 2, "unknown_pods": 1, "unserved_total": 1, "unserved": [block], "missing_total": 0,
        "missing": [], "outside_windows": 14, "bucket_total": 511});
    let output = Server::of(&all).status(&["store"]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for words in [
        "monitoring/store: BLOCKED: store-0 alone serves that range\n",
        "SOME INSTANTS ARE SERVED BY NO POD",
        "  GAP: no ready pod serves 2026-01-01T00:00:00Z .. 2026-01-02T00:00:00Z (24h0m in all)\n",
        "  warning: one replica serves shard 0\n",
        "  BLOCK: no confirmed pod has loaded 01X (A .. B), missing on store-0\n",
        "  blocks outside every window: 14 of 511 in the bucket; queries do not find their samples (retention)\n",
        "  loaded blocks are unknown for 1 pod\n",
        "0 (extra)  UNREACHABLE  -      -370d .. -246d16h  -        -370d .. -277d12h",
        "port 10908 [31m xxx",
        "x…\n",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert!(
        table.lines().all(|line| line.chars().count() <= 200) && !table.contains('\u{1b}'),
        "{table}"
    );
    assert!(
        text(&output.stderr).contains("the last valid one stays in force: config.yaml:2:3: no"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_server_that_does_not_lead_reports_that_and_claims_nothing() {
    let mut all = document(&[set("unknown", "", &[])]);
    all["statefulsets"][0]["minimum_ready_replicas"] = json!(0);
    for (leader, words) in [
        (
            json!({"holder": "timeshard-b", "self": false, "error": "late"}),
            "is not the leader, so its reports may be empty or old; the leader is timeshard-b",
        ),
        (json!(null), "reports no leader"),
    ] {
        all["leader"] = leader;
        let output = Server::of(&all).status(&[]);
        let table = text(&output.stdout);
        assert!(
            table.contains("monitoring/store: unknown\n  no leader has reconciled it yet")
                && !table.contains("SOME"),
            "{table}"
        );
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn unpolled_sidecars_are_not_a_gap() {
    let mut set = blocked();
    set["not_asked"] = json!(6);
    let table = text(&Server::of(&document(&[set])).status(&[]).stdout);
    assert!(
        table.contains("coverage is unknown: 6 sidecars not polled yet") && !table.contains("GAP"),
        "{table}"
    );
}

#[test]
fn json_has_the_reports_unchanged() {
    let all = document(&[rolling()]);
    let output = Server::of(&all).status(&["-o", "json", "monitoring/store"]);
    let got: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        got,
        json!({"apiVersion": "cli.thanos-timeshard.io/v1", "kind": "Status",
            "statefulsets": all["statefulsets"], "leader": all["leader"], "version": all["version"]})
    );
    let yaml = Server::of(&all).status(&["-o", "yaml"]);
    assert_eq!(
        serde_saphyr::from_str::<Value>(&text(&yaml.stdout)).unwrap(),
        got
    );
}

#[test]
fn a_thousand_pods_are_not_listed() {
    let pods: Vec<Value> = (0..1000)
        .map(|i| {
            pod(
                i,
                0,
                [HEAD; 3],
                if i == 777 { "broken" } else { "confirmed" },
                "serving",
            )
        })
        .collect();
    let table = text(
        &Server::of(&document(&[set("waiting", "for store-777", &pods)]))
            .status(&[])
            .stdout,
    );
    assert!(
        table.contains("store-777")
            && table.contains("… and 999 more pods")
            && table.lines().count() < 10,
        "{table}"
    );
    let wide = text(
        &Server::of(&document(&[set(
            "waiting",
            "for store-777",
            &[rolling()["pods"][2].clone()],
        )]))
        .status(&["-o", "wide"])
        .stdout,
    );
    for column in ["REPLICA", "BLOCKS", "AGENT", "WHY", "DESIRED"] {
        assert!(wide.contains(column), "{column}: {wide}");
    }
}
