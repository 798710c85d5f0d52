//! `timeshard demo` on a machine without thanos: what it prints, and that nothing outlives it,
//! however it ends.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::server::TIMESHARD;

const DEADLINE: Duration = Duration::from_mins(3);

/// A demo whose temporary directory is `tmp`, with nothing on its `PATH`.
fn demo(tmp: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(TIMESHARD);
    command
        .arg("demo")
        .args(more)
        .env("TMPDIR", tmp)
        .env("PATH", tmp);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Processes that have `tmp` in their command line: everything that a demo starts runs from there.
fn left(tmp: &Path) -> Vec<String> {
    let tmp = tmp.to_str().unwrap();
    let processes = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    processes
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(tmp))
        .collect()
}

fn files_in(tmp: &Path) -> usize {
    std::fs::read_dir(tmp).unwrap().count()
}

/// Reads what the demo prints until a line contains `text`.
fn read_until(child: &mut Child, text: &str) -> BufReader<std::process::ChildStdout> {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    while !shown.lines().last().is_some_and(|line| line.contains(text)) {
        assert!(
            output.read_line(&mut shown).unwrap() > 0,
            "{text:?} was never printed:\n{shown}"
        );
    }
    output
}

fn signal(child: &Child, signal: Signal) {
    kill_process(
        Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(),
        signal,
    )
    .unwrap();
}

#[test]
fn admission_alone_is_shown() {
    let tmp = tempfile::tempdir().unwrap();
    let output = demo(tmp.path(), &["--admission-only"])
        .wait_with_output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && shown.contains("every instant is served by at least 2 pods"),
        "{shown}"
    );
    assert!(
        shown.contains("thanos-store-gateway-5")
            && shown.contains("--min-time=-124d8h --max-time=1d"),
        "{shown}"
    );
    assert!(!shown.contains("serving"), "{shown}");
}

/// The whole demo, with the page. Without a page the demo ends by itself: see
/// [`shards_of_one_replica_stop_the_change_within_two_screens`].
#[test]
fn a_reshard_runs_through_the_injected_pods_and_the_page_shows_it_until_ctrl_c() {
    let tmp = tempfile::tempdir().unwrap();
    let mut child = demo(tmp.path(), &["--verbose", "--page", "127.0.0.1:0"]);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    let address = page_address(&mut child, &mut output, &mut shown);
    watch_a_rollout(&address);
    reads_the_admin_port(&address);
    while !shown.ends_with("Ctrl-C ends the demo.\n") {
        assert!(output.read_line(&mut shown).unwrap() > 0, "{shown}");
    }
    signal(&child, Signal::INT);
    output.read_to_string(&mut shown).unwrap();
    assert!(
        child.wait().unwrap().success() && shown.contains("Nothing is left behind."),
        "{shown}"
    );
    assert_eq!((left(tmp.path()), files_in(tmp.path())), (vec![], 0));
    shows_a_reshard(&shown);
}

/// Reads the output until the page is served, and returns its address.
fn page_address(child: &mut Child, output: &mut impl BufRead, shown: &mut String) -> String {
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).unwrap() == 0 {
            let mut why = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut why)
                .unwrap();
            panic!("{shown}{why}");
        }
        shown.push_str(&line);
        if let Some((_, url)) = line.trim_end().split_once("served from now on: http://") {
            return url.trim_end_matches('/').to_owned();
        }
    }
}

/// The admin port answers as a server's, so that `timeshard status` can be learned with it.
fn reads_the_admin_port(address: &str) {
    let get = |path: &str| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/readyz").starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics");
    for metric in [
        "timeshard_admission_requests_total",
        "timeshard_rollout_state{",
    ] {
        assert!(metrics.contains(metric), "{metric}: {metrics}");
    }
    let status = |args: &[&str]| {
        let server = format!("http://{address}");
        let output = Command::new(TIMESHARD)
            .args(args)
            .args(["--server", &server])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (table, said) = status(&["status"]);
    assert!(table.contains("/thanos-store-gateway: "), "{table}");
    assert_eq!(said, "");
    let (versions, _) = status(&["version"]);
    assert!(
        versions.contains(&format!("server      {}, http", env!("CARGO_PKG_VERSION"))),
        "{versions}"
    );
    let (settled, _) = status(&["status", "--until-settled", "--timeout", "2m"]);
    assert!(settled.contains("settled"), "{settled}");
}

/// Reads the page's stream until a rollout has begun and settled.
fn watch_a_rollout(address: &str) {
    let mut events = std::net::TcpStream::connect(address).unwrap();
    events.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(events, "GET /events HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
    let mut events = BufReader::new(events);
    let mut heard = String::new();
    while heard
        .find("\"state\":\"rolling\"")
        .is_none_or(|rolls| !heard[rolls..].contains("\"state\":\"settled\""))
    {
        assert!(events.read_line(&mut heard).unwrap() > 0, "{heard}");
    }
}

/// From three shards of two to four: each pod once, and no gap.
fn shows_a_reshard(shown: &str) {
    assert!(shown.contains("thanos is NOT the real one"), "{shown}");
    assert!(
        shown.contains("kubectl scale statefulset thanos-store-gateway --replicas=8"),
        "{shown}"
    );
    assert!(
        shown.contains("thanos-timeshard.io/total-shards=4"),
        "{shown}"
    );
    let lines = |words: &[&str]| {
        shown
            .lines()
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .count()
    };
    for (pod, old, new) in [
        (0, "-124d8h .. 1d", "-93d12h .. 1d"),
        (1, "-124d8h .. 1d", "-93d12h .. 1d"),
        (2, "-247d16h .. -123d8h", "-186d .. -92d12h"),
        (3, "-247d16h .. -123d8h", "-186d .. -92d12h"),
        (4, "-370d .. -246d16h", "-278d12h .. -185d"),
        (5, "-370d .. -246d16h", "-278d12h .. -185d"),
        (6, "-124d8h .. 1d", "-370d .. -277d12h"),
        (7, "-124d8h .. 1d", "-370d .. -277d12h"),
    ] {
        let pod = format!("thanos-store-gateway-{pod} ");
        let moved = format!("{old} -> {new}");
        assert_eq!(lines(&[&pod, " serving ", old]), 1, "{pod}{shown}");
        // Announced by its step, then done. A drain takes a second, so a busy machine may miss some.
        assert!((1..=2).contains(&lines(&[&pod, &moved])), "{pod}{shown}");
        assert!(lines(&[&pod, "draining", &moved]) <= 1, "{pod}{shown}");
        assert_eq!(lines(&[&pod, "confirmed with", new]), 1, "{pod}{shown}");
        // In the table: both windows, and the process of the launcher that stayed.
        assert_eq!(lines(&[&pod, old, new, "(same)"]), 1, "{pod}{shown}");
    }
    assert!(lines(&["draining and not ready"]) >= 1, "{shown}");
    // A restart takes a third of a second.
    assert!(lines(&["restarting in place"]) >= 1, "{shown}");
    assert_eq!(
        (lines(&["   Step "]), lines(&[" of 2: "])),
        (2, 2),
        "{shown}"
    );
    assert!(
        lines(&["PDBs of these shards would block evictions"]) >= 1,
        "{shown}"
    );
    assert!(
        shown.contains("8 pods serve the new windows after 2 steps"),
        "{shown}"
    );
    assert!(
        shown.contains("the stand-in's own flags confirm each window"),
        "{shown}"
    );
    assert!(
        shown.contains("samples, one every 100 ms: the whole retention was always served by at least 1 ready pod."),
        "{shown}"
    );
    assert!(
        shown.contains("Thanos restarted in place, at most once in a pod; no pod restarted"),
        "{shown}"
    );
}

#[test]
fn an_agent_that_does_not_exist_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let output = demo(tmp.path(), &["--agent", "/nowhere/timeshard-agent"])
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("--agent /nowhere/timeshard-agent: No such file"),
        "{output:?}"
    );
}

#[test]
fn shards_of_one_replica_stop_the_change_within_two_screens() {
    let tmp = tempfile::tempdir().unwrap();
    let config = tmp.path().join("config.yaml");
    std::fs::write(
        &config,
        "sharding: {total_shards: 8, replicas_per_shard: 1}\n",
    )
    .unwrap();
    let output = demo(
        tmp.path(),
        &["--replicas=8", "--config", config.to_str().unwrap()],
    )
    .wait_with_output()
    .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{shown}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        shown.contains("The change stops here, as it should:") && shown.contains("alone serves"),
        "{shown}"
    );
    assert!(
        shown.contains("samples, one every 100 ms: the whole retention was always served by at least 1 ready pod."),
        "{shown}"
    );
    assert!(shown.lines().count() <= 60, "{shown}");
    assert!(
        !shown.contains("Step 1") && shown.contains("Nothing is left behind."),
        "{shown}"
    );
    assert_eq!(
        (left(tmp.path()), files_in(tmp.path())),
        (Vec::new(), 1),
        "all but the configuration"
    );
}

#[test]
fn an_interrupted_demo_with_another_agent_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let agent = env!("CARGO_BIN_EXE_timeshard-agent");
    let mut child = demo(tmp.path(), &["--verbose", "--agent", agent]);
    let mut output = read_until(&mut child, "draining");
    assert!(
        left(tmp.path()).len() >= 20,
        "8 sidecars, launchers and stand-ins, of which four may be restarting: {:?}",
        left(tmp.path())
    );
    let sidecars = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path().join("exe")).ok())
        .filter(|program| program == Path::new(agent))
        .count();
    assert!(sidecars >= 6, "{sidecars} processes run {agent}");
    signal(&child, Signal::INT);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{rest}");
    assert!(
        String::from_utf8_lossy(&ended.stderr).contains("timeshard: interrupted"),
        "{ended:?}"
    );
    assert_eq!((left(tmp.path()), files_in(tmp.path())), (Vec::new(), 0));
}

#[test]
fn a_killed_demo_takes_its_processes_along() {
    let tmp = tempfile::tempdir().unwrap();
    let mut child = demo(tmp.path(), &["--verbose"]);
    read_until(&mut child, " serving ");
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    let deadline = Instant::now() + DEADLINE;
    while !left(tmp.path()).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", left(tmp.path()));
        std::thread::yield_now();
    }
}

#[test]
fn a_thanos_that_does_not_run_fails_with_its_log() {
    let tmp = tempfile::tempdir().unwrap();
    let thanos = tmp.path().join("thanos");
    let script = "#!/bin/sh\necho \"thanos, version 9.9 (none)\"\n[ \"$1\" = --version ] || { echo no such flag; exit 7; }\n";
    std::fs::write(&thanos, script).unwrap();
    std::fs::set_permissions(&thanos, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = demo(tmp.path(), &[]).wait_with_output().unwrap();
    let (shown, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(1), "{shown}{said}");
    assert!(
        shown.contains("thanos is the real one") && shown.contains("version 9.9"),
        "{shown}"
    );
    assert!(
        said.contains("the launcher has ended") && said.contains("no such flag"),
        "{said}"
    );
    assert_eq!(
        (left(tmp.path()), files_in(tmp.path())),
        (Vec::new(), 1),
        "all but this thanos"
    );
}
