//! `timeshard status` against servers that answer this and that, directly and behind an API server's proxy.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::server::TIMESHARD;

const PATIENCE: Duration = Duration::from_secs(20);

type Answers = dyn Fn(&str, usize) -> (u16, String) + Send + Sync;

/// A server that answers as it is told: the path and how many were asked before give status and body.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(answers: impl Fn(&str, usize) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, log, count): (Arc<Answers>, _, _) = (Arc::new(answers), asked.clone(), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, log, count) = (answers.clone(), log.clone(), count.clone());
                std::thread::spawn(move || answer(stream, &*answers, &log, &count));
            }
        });
        Self { port, asked }
    }

    /// A `timeshard serve` that always says the same.
    fn of(document: &Value) -> Self {
        let body = document.to_string();
        Self::new(move |_, _| (200, body.clone()))
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn status(&self, args: &[&str]) -> Output {
        Command::new(TIMESHARD).args(["status", "--server", &self.url()]).args(args).output().unwrap()
    }
}

fn answer(stream: TcpStream, answers: &Answers, log: &Mutex<Vec<String>>, count: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
    let Some(path) = head.split(' ').nth(1).map(str::to_owned) else { return };
    log.lock().unwrap().push(path.clone());
    let (code, body) = answers(&path, count.fetch_add(1, Relaxed));
    let head =
        format!("HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let mut stream = stream;
    // A client that has read enough may be gone.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn pod(ordinal: u32, shard: u32, windows: [&str; 3], state: &str, phase: &str) -> Value {
    let window = |text: &str| text.split_once(" .. ").map(|(min, max)| json!({"min_time": min, "max_time": max}));
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
    let pods = [pod(0, 0, [HEAD; 3], "confirmed", "serving"), pod(1, 1, [NEW; 3], "confirmed", "serving")];
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
    pod["why"] = json!(format!("its sidecar does not answer on port 10908\u{1b}[31m {}", "x".repeat(400)));
    let mut set = set("blocked", "store-0 alone serves that range", &[pod]);
    set["gaps"] = json!([{"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}]);
    (set["gap_seconds"], set["minimum_ready_replicas"]) = (json!(86_400), json!(0));
    set["warnings"] = json!(["one replica serves shard 0"]);
    set
}

#[test]
fn a_rollout_is_shown() {
    let output = Server::of(&document(&[rolling(), settled()])).status(&[]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let want = "\
monitoring/store: rolling: store-2 is given another window
  1 move in 1 step left, at least 5 min; every instant is served by at least 1 pod; 4 replicas, ConfigMap store-time-shards
  agents of another version than the server's 0.1.0, until these pods are recreated: store-2 (unknown), store-3 (0.0.9)
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
    assert_eq!(text(&output.stdout).replace(env!("CARGO_PKG_VERSION"), "0.1.0"), want);
}

#[test]
fn what_is_wrong_stands_out_and_is_no_failure() {
    let mut all = document(&[blocked()]);
    all["config_error"] = json!("config.yaml:2:3: no");
    let block = json!({"ulid": "01X", "from": "A", "to": "B", "missing_on": ["store-0"], "served_by": 0});
    all["statefulsets"][0]["blocks"] = json!({"known_pods": 2, "unknown_pods": 1, "unserved_total": 1, "unserved": [block], "missing_total": 0,
        "missing": [], "outside_windows": 14, "bucket_total": 511});
    let output = Server::of(&all).status(&["store"]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for words in [
        "monitoring/store: BLOCKED: store-0 alone serves that range\n",
        "SOME INSTANTS ARE SERVED BY NO POD",
        "  GAP: nobody serves 2026-01-01T00:00:00Z .. 2026-01-02T00:00:00Z (24h0m in all)\n",
        "  warning: one replica serves shard 0\n",
        "  BLOCK: no confirmed pod has loaded 01X (A .. B), missing on store-0\n",
        "  blocks outside every window: 14 of 511 in the bucket; no query finds their samples (retention)\n",
        "  loaded blocks are not known for 1 pod\n",
        "0 (extra)  UNREACHABLE  -      -370d .. -246d16h  -        -370d .. -277d12h",
        "port 10908 [31m xxx",
        "x…\n",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert!(table.lines().all(|line| line.chars().count() <= 200) && !table.contains('\u{1b}'), "{table}");
    assert!(text(&output.stderr).contains("the last good one in force: config.yaml:2:3: no"), "{}", text(&output.stderr));
}

#[test]
fn a_server_that_does_not_lead_says_so_and_claims_nothing() {
    let mut all = document(&[set("unknown", "", &[])]);
    all["statefulsets"][0]["minimum_ready_replicas"] = json!(0);
    for (leader, words) in [
        (
            json!({"holder": "timeshard-b", "self": false, "error": "late"}),
            "does not lead, so its reports may be empty or old; the leader is timeshard-b",
        ),
        (json!(null), "says nothing of a leader"),
    ] {
        all["leader"] = leader;
        let output = Server::of(&all).status(&[]);
        let table = text(&output.stdout);
        assert!(table.contains("monitoring/store: unknown\n  no leader has looked at it yet") && !table.contains("SOME"), "{table}");
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
}

#[test]
fn what_nobody_was_asked_about_is_no_gap() {
    let mut set = blocked();
    set["not_asked"] = json!(6);
    let table = text(&Server::of(&document(&[set])).status(&[]).stdout);
    assert!(table.contains("what is served is not known yet: 6 sidecars not asked") && !table.contains("GAP"), "{table}");
}

#[test]
fn json_holds_the_reports_as_they_are() {
    let all = document(&[rolling()]);
    let output = Server::of(&all).status(&["-o", "json", "monitoring/store"]);
    let got: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(got, json!({"statefulsets": all["statefulsets"], "leader": all["leader"], "version": all["version"]}));
}

#[test]
fn a_thousand_pods_are_not_listed() {
    let pods: Vec<Value> = (0..1000).map(|i| pod(i, 0, [HEAD; 3], if i == 777 { "broken" } else { "confirmed" }, "serving")).collect();
    let table = text(&Server::of(&document(&[set("waiting", "for store-777", &pods)])).status(&[]).stdout);
    assert!(table.contains("store-777") && table.contains("… and 999 more pods") && table.lines().count() < 10, "{table}");
}

#[test]
fn what_cannot_be_shown_is_a_sentence() {
    let late = json!({"namespace": "monitoring", "name": "store", "state": "dancing"});
    let follower =
        json!({"version": "1", "namespaces": ["monitoring"], "statefulsets": [], "leader": {"holder": "timeshard-b", "self": false}});
    for (answer, args, words) in [
        (
            (200, document(&[settled()]).to_string()),
            vec!["absent"],
            "no StatefulSet absent in labelled namespaces; there are: monitoring/store",
        ),
        (
            (200, document(&[settled()]).to_string()),
            vec!["store", "-n", "other"],
            "kubectl label namespace other thanos-timeshard.io/injection=enabled",
        ),
        ((200, document(&[settled()]).to_string()), vec!["-n", "other"], "namespace other is not labelled"),
        ((200, document(&[]).to_string()), vec!["-n", "monitoring"], "no StatefulSet in namespace monitoring"),
        ((200, document(&[late]).to_string()), vec![], "the report on monitoring/store cannot be read by this version"),
        ((200, follower.to_string()), vec!["store"], "it does not lead; the leader is timeshard-b: ask that one"),
        ((200, "<html>".to_owned()), vec![], "is not that of timeshard serve"),
        ((200, "[]".to_owned()), vec![], "there is no list statefulsets"),
        ((200, " ".repeat(17 * 1024 * 1024)), vec![], "longer than 16777216 bytes"),
        ((503, "draining\nx".to_owned()), vec![], "answers 503: draining; is it the admin port"),
    ] {
        let output = Server::new(move |_, _| answer.clone()).status(&args);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
    }
    let nobody = Command::new(TIMESHARD).args(["status", "--server", "http://127.0.0.1:1"]).output().unwrap();
    assert!(text(&nobody.stderr).contains("http://127.0.0.1:1/status: Connection refused"), "{}", text(&nobody.stderr));
    for (args, words) in [
        (["--server", "https://x"], "write http://HOST:PORT"),
        (["--timeout", "1m"], "--until-settled"),
        (["--system-namespace", "a/b"], "write a namespace's name"),
        (["a/b/c", "d"], "write NAME or NAMESPACE/NAME"),
    ] {
        let output = Command::new(TIMESHARD).arg("status").args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(words), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn waiting_ends_when_all_is_settled_or_nothing_moves() {
    let stages = [document(&[rolling()]), json!({"broken": 1}), document(&[settled()])].map(|stage| stage.to_string());
    let output = Server::new(move |_, n| (200, stages[n.min(2)].clone())).status(&["--until-settled"]);
    let lines = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{lines}");
    let said: Vec<&str> = lines.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    let want = [
        "monitoring/store: rolling: store-2 is given another window",
        "monitoring/store-1: -93d12h .. 1d joining (serving): queriers learn of it within 12 s",
        "monitoring/store-2: -370d .. -277d12h settling (draining)",
        "monitoring/store: settled: every pod serves its planned window",
        "monitoring/store-1: -370d .. -277d12h confirmed",
    ];
    assert_eq!(said, want);
    assert!(text(&output.stderr).contains("there is no list statefulsets"), "{}", text(&output.stderr));

    // A server that has just begun has not listed what is not settled, or nothing at all.
    let mut part = document(&[settled()]);
    part["synced"] = json!(false);
    let mut nothing_yet = document(&[]);
    nothing_yet["synced"] = json!(false);
    let stages = [part, nothing_yet, document(&[settled(), rolling()]), document(&[settled(), settled()])].map(|stage| stage.to_string());
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    let output = Server::new(move |_, n| {
        count.fetch_max(n + 1, std::sync::atomic::Ordering::Relaxed);
        (200, stages[n.min(3)].clone())
    })
    .status(&["--until-settled"]);
    assert_eq!((output.status.code(), asked.load(std::sync::atomic::Ordering::Relaxed)), (Some(0), 4), "{}", text(&output.stderr));

    let stopped = Server::of(&document(&[settled(), blocked()])).status(&["--until-settled"]);
    assert_eq!(stopped.status.code(), Some(3));
    assert!(text(&stopped.stderr).contains("monitoring/store: BLOCKED"), "{}", text(&stopped.stderr));

    let nothing = Server::of(&document(&[])).status(&["--until-settled"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(text(&nothing.stderr).contains("no StatefulSet to wait for"), "{}", text(&nothing.stderr));

    let late = Server::of(&document(&[rolling()])).status(&["--until-settled", "--timeout=1s", "-o", "json"]);
    assert_eq!(late.status.code(), Some(1));
    assert!(text(&late.stderr).contains("not settled after 1s: monitoring/store: rolling"), "{}", text(&late.stderr));
    assert_eq!(text(&late.stdout).lines().count(), 1);
}

#[test]
fn a_watch_ends_in_order_with_ctrl_c() {
    let server = Server::of(&document(&[settled()]));
    let mut child = Command::new(TIMESHARD).args(["status", "--watch", "--server", &server.url()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.ends_with("monitoring/store: settled: every pod serves its planned window\n"), "{line}");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let begun = Instant::now();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest.as_str()), (Some(0), ""));
    assert!(begun.elapsed() < PATIENCE);
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/timeshard-system/leases/timeshard-refresher";
const PODS: &str = "/api/v1/namespaces/timeshard-system/pods?";

fn lease(holder: &str) -> String {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "timeshard-refresher"}, "spec": {"holderIdentity": holder}}).to_string()
}

fn pods() -> String {
    let pod = |name: &str, ready: &str| json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
    let items = [pod("timeshard-a", "True"), pod("timeshard-b", "False"), pod("timeshard-c", "True")];
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}).to_string()
}

fn refusal(code: u16, message: &str) -> (u16, String) {
    let reason = if code == 404 { "NotFound" } else { "Other" };
    (
        code,
        json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "reason": reason, "message": message, "code": code})
            .to_string(),
    )
}

/// What the command says with this API server.
fn in_cluster(answers: impl Fn(&str, usize) -> (u16, String) + Send + Sync + 'static) -> (Output, Vec<String>) {
    before_api_server(&["status", "-o", "json"], answers)
}

/// Runs a command before an API server that answers as it is told, and gives what that was asked.
pub(crate) fn before_api_server(
    args: &[&str],
    answers: impl Fn(&str, usize) -> (u16, String) + Send + Sync + 'static,
) -> (Output, Vec<String>) {
    let server = Server::new(answers);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "clusters": [{"name": "x", "cluster": {"server": server.url()}}],
        "users": [{"name": "x", "user": {}}], "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    (with_kubeconfig(args, &path), server.asked.lock().unwrap().clone())
}

pub(crate) fn with_kubeconfig(args: &[&str], path: &Path) -> Output {
    Command::new(TIMESHARD).args(args).env("KUBECONFIG", path).env_remove("KUBERNETES_SERVICE_HOST").output().unwrap()
}

fn proxied(pod: &str) -> String {
    format!("/api/v1/namespaces/timeshard-system/pods/{pod}:8080/proxy/status")
}

#[test]
fn the_leader_is_asked_through_the_api_server() {
    let body = document(&[settled()]).to_string();
    let (output, asked) = in_cluster(move |path, _| (200, if path == LEASE { lease("timeshard-c") } else { body.clone() }));
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    assert_eq!(asked, [LEASE.to_owned(), proxied("timeshard-c")]);
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["statefulsets"][0]["name"], "store");
}

#[test]
fn without_a_leader_any_ready_replica_is_asked() {
    for (holder, words) in [("", "no replica leads"), ("../x", "no replica leads"), ("timeshard-gone", "timeshard-gone holds the Lease")] {
        let body = document(&[settled()]).to_string();
        let (output, asked) = in_cluster(move |path, _| match path {
            LEASE if holder.is_empty() => refusal(404, "there is none"),
            LEASE => (200, lease(holder)),
            path if path.starts_with(PODS) => (200, pods()),
            path if path.contains("timeshard-c") => (200, body.clone()),
            _ => refusal(503, "error trying to reach service"),
        });
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
        assert!(asked.contains(&proxied("timeshard-a")) && asked.last() == Some(&proxied("timeshard-c")), "{asked:?}");
    }
}

#[test]
fn what_the_api_server_refuses_is_a_sentence() {
    let forbidden = |verb: &'static str| {
        move |path: &str, _: usize| match path {
            LEASE if verb == "get leases" => refusal(403, "leases is forbidden"),
            LEASE if verb == "list pods" => (200, lease("")),
            LEASE => (200, lease("timeshard-a")),
            _ => refusal(403, "pods is forbidden: User \"jane\" cannot do that"),
        }
    };
    for verb in ["get leases", "list pods", "get pods/proxy"] {
        let (output, _) = in_cluster(forbidden(verb));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("you may not {verb} in namespace timeshard-system: ")) && said.contains("--server"), "{said}");
    }
    let (output, _) = in_cluster(|path, _| {
        if path == LEASE {
            refusal(404, "x")
        } else {
            (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}).to_string())
        }
    });
    assert!(
        text(&output.stderr).contains("no ready pod of timeshard serve answers in namespace timeshard-system"),
        "{}",
        text(&output.stderr)
    );
    let none = with_kubeconfig(&["status", "-o", "json"], Path::new("/nonexistent"));
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("no cluster: ") && text(&none.stderr).contains("set KUBECONFIG"), "{}", text(&none.stderr));
}
