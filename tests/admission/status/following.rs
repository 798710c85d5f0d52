//! `--until-settled` and `--watch`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn waiting_prints_each_change_and_ends_when_all_is_settled() {
    let stages = [
        document(&[rolling()]),
        json!({"broken": 1}),
        document(&[settled()]),
    ]
    .map(|stage| stage.to_string());
    let output =
        Server::new(move |_, n| (200, stages[n.min(2)].clone())).status(&["--until-settled"]);
    let lines = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{lines}");
    let said: Vec<&str> = lines
        .lines()
        .map(|line| line.split_once(' ').unwrap().1)
        .collect();
    let want = [
        "monitoring/store: rolling: store-2 is given another window",
        "monitoring/store-1: -93d12h .. 1d joining (serving): queriers learn of it within 12 s",
        "monitoring/store-2: -370d .. -277d12h settling (draining)",
        "monitoring/store: settled: every pod serves its planned window",
        "monitoring/store-1: -370d .. -277d12h confirmed",
    ];
    assert_eq!(said, want);
    assert!(
        text(&output.stderr).contains("it has no list statefulsets"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_server_that_has_not_listed_everything_is_waited_for() {
    // Part of it is not listed yet; then nothing at all.
    let mut part = document(&[settled()]);
    part["synced"] = json!(false);
    let mut nothing_yet = document(&[]);
    nothing_yet["synced"] = json!(false);
    let stages = [
        part,
        nothing_yet,
        document(&[settled(), rolling()]),
        document(&[settled(), settled()]),
    ]
    .map(|stage| stage.to_string());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let output = Server::new(move |_, n| {
        count.fetch_max(n + 1, Ordering::Relaxed);
        (200, stages[n.min(3)].clone())
    })
    .status(&["--until-settled"]);
    assert_eq!(
        (output.status.code(), asked.load(Ordering::Relaxed)),
        (Some(0), 4),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn waiting_ends_when_nothing_moves_or_nothing_is_there() {
    let stopped = Server::of(&document(&[settled(), blocked()])).status(&["--until-settled"]);
    assert_eq!(stopped.status.code(), Some(3));
    assert!(
        text(&stopped.stderr).contains("monitoring/store: BLOCKED"),
        "{}",
        text(&stopped.stderr)
    );

    let nothing = Server::of(&document(&[])).status(&["--until-settled"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(
        text(&nothing.stderr).contains("no StatefulSet to wait for"),
        "{}",
        text(&nothing.stderr)
    );
}

#[test]
fn waiting_ends_with_its_timeout() {
    let late = Server::of(&document(&[rolling()])).status(&[
        "--until-settled",
        "--timeout=1s",
        "-o",
        "json",
    ]);
    assert_eq!(late.status.code(), Some(1));
    assert!(
        text(&late.stderr).contains("not settled after 1s: monitoring/store: rolling"),
        "{}",
        text(&late.stderr)
    );
    assert_eq!(text(&late.stdout).lines().count(), 1);
}

#[test]
fn a_watch_ends_in_order_with_ctrl_c() {
    let server = Server::of(&document(&[settled()]));
    let mut child = Command::new(TIMESHARD)
        .args(["status", "--watch", "--server", &server.url()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(
        line.ends_with("monitoring/store: settled: every pod serves its planned window\n"),
        "{line}"
    );
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let begun = Instant::now();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest.as_str()), (Some(0), ""));
    assert!(begun.elapsed() < PATIENCE);
}
