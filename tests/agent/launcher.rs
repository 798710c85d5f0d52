//! The launcher on real processes.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use crate::support::{self, Pod, children_of, wait_for};
use rustix::process::Signal;

/// The sidecar's order, without a sidecar.
fn order(pod: &Pod, request: u32, min: &str) {
    let text =
        format!(r#"{{"contract":1,"request":{request},"min_time":"{min}","max_time":"1d"}}"#);
    let temporary = pod.path("shared/.w");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, pod.path("shared/window.json")).unwrap();
}

fn judge(pod: &Pod, launch: u64) {
    let text = format!(r#"{{"launch":{launch},"outcome":"ready"}}"#);
    let temporary = pod.path("shared/.v");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, pod.path("shared/verdict.json")).unwrap();
}

fn pod(flags: &[&str]) -> Pod {
    let pod = Pod::stand_in(flags);
    // A copied program could be busy: other tests fork while it is written.
    symlink(support::AGENT, pod.path("shared/timeshard-agent")).unwrap();
    pod
}

fn wait_said(pod: &Pod, line: &str) {
    wait_for(line, || {
        let said = pod.said();
        said.iter()
            .any(|l| l.contains(line))
            .then_some(())
            .ok_or(format!("{said:?}\n{}", pod.logs()))
    });
}

fn wait_ready_mark(pod: &Pod, launch: u64) {
    judge(pod, launch);
    wait_for("the ready mark", || {
        let record = pod.record();
        (record["launch"] == launch && record["ready"] == true)
            .then_some(())
            .ok_or(record.to_string())
    });
}

#[test]
fn thanos_exit_code_is_the_launchers() {
    let mut pod = pod(&["--stand-in-exit-code=42"]);
    let mut launcher = pod.launcher();
    wait_said(&pod, "is ready with -100d .. 1d");
    launcher.signal(Signal::TERM);
    assert_eq!(launcher.code(), 42);
    pod.command.push("--stand-in-refuse-min=-100d".into());
    assert_eq!(pod.launcher().code(), 1);
    pod.command = vec!["/bin/sh".into(), "-c".into(), "kill -9 $$".into()];
    assert_eq!(pod.launcher().code(), 137);
}

#[test]
fn a_program_that_does_not_exist_is_named_with_the_way_out() {
    let mut pod = pod(&[]);
    for word in ["no-such-thanos", "/no/such/thanos"] {
        pod.command[0] = word.into();
        assert_eq!(pod.launcher().code(), 127);
    }
    let log = pod.logs();
    assert!(
        log.contains("no-such-thanos") && log.contains("thanos-timeshard.io/command"),
        "{log}"
    );
}

#[test]
fn an_order_restarts_in_place_and_a_bad_one_is_rolled_back() {
    let pod = pod(&["--stand-in-refuse-min=-13d"]);
    let mut launcher = pod.launcher();
    wait_said(&pod, "is ready with -100d .. 1d");
    wait_ready_mark(&pod, 1);
    order(&pod, 1, "-50d");
    wait_said(&pod, "is ready with -50d .. 1d");
    wait_ready_mark(&pod, 2);
    order(&pod, 2, "-13d");
    wait_for("the rollback", || {
        let record = pod.record();
        let rolled_back = record["launch"] == 4
            && record["min_time"] == "-50d"
            && record["failed"]["min_time"] == "-13d";
        rolled_back.then_some(()).ok_or(record.to_string())
    });
    wait_for("the last good window to be served again", || {
        let said = pod.said();
        let ready = said
            .iter()
            .filter(|line| line.contains("is ready with -50d"))
            .count();
        (ready == 2).then_some(()).ok_or(format!("{said:?}"))
    });
    fs::write(pod.path("shared/window.json"), "{torn").unwrap();
    launcher.signal(Signal::HUP);
    launcher.signal(Signal::USR1);
    wait_said(&pod, "SIGUSR1");
    assert_eq!(pod.record()["launch"], 4, "a torn file changes nothing");
    launcher.signal(Signal::INT);
    assert_eq!(launcher.code(), 0);
}

/// As with a disk that is full for a moment. The sidecar keeps the pod unready until it sees the
/// record.
#[test]
fn a_record_that_cannot_be_written_is_written_as_soon_as_it_can() {
    let pod = pod(&[]);
    let mut launcher = pod.launcher();
    wait_said(&pod, "is ready with -100d .. 1d");
    let in_the_way = pod.path("shared/.launcher.json.new");
    fs::create_dir(&in_the_way).unwrap();
    order(&pod, 1, "-50d");
    wait_said(&pod, "is ready with -50d .. 1d");
    wait_for("the log", || {
        pod.logs()
            .contains("it is tried again")
            .then_some(())
            .ok_or(pod.logs())
    });
    assert_eq!(pod.record()["launch"], 1);
    fs::remove_dir(&in_the_way).unwrap();
    wait_for("the record", || {
        let record = pod.record();
        (record["launch"] == 2 && record["state"] == "started")
            .then_some(())
            .ok_or(record.to_string())
    });
    launcher.signal(Signal::TERM);
    assert_eq!(launcher.code(), 0);
}

#[test]
fn a_child_that_ignores_sigterm_is_killed_for_a_restart() {
    let mut pod = pod(&["--stand-in-ignore-term"]);
    pod.launch_flags.push("--stop-grace=100ms".into());
    let _launcher = pod.launcher();
    wait_said(&pod, "is ready with -100d .. 1d");
    order(&pod, 1, "-50d");
    wait_said(&pod, "is ready with -50d .. 1d");
    assert!(pod.logs().contains("killing it"), "{}", pod.logs());
}

#[test]
fn the_first_sigterm_drains_and_the_second_ends() {
    let mut pod = pod(&[]);
    pod.launch_flags.push("--termination-drain=1h".into());
    let mut launcher = pod.launcher();
    wait_said(&pod, "is ready");
    launcher.signal(Signal::TERM);
    wait_for("the drain to begin", || {
        let log = pod.logs();
        log.contains("goes on serving").then_some(()).ok_or(log)
    });
    assert_eq!(support::get(pod.http, "/-/ready").unwrap().0, 200);
    assert!(!pod.said().iter().any(|line| line.contains("SIGTERM")));
    launcher.signal(Signal::TERM);
    assert_eq!(launcher.code(), 0);
    pod.launch_flags = vec!["--termination-drain=200ms".into()];
    let mut launcher = pod.launcher();
    wait_for("ready", || {
        support::get(pod.http, "/-/ready")
            .and_then(|(code, _)| (code == 200).then_some(()).ok_or(code.to_string()))
    });
    launcher.signal(Signal::TERM);
    assert_eq!(launcher.code(), 0, "and by itself when the drain is over");
}

#[test]
fn orphans_are_reaped() {
    let pod = pod(&["--stand-in-orphans=20"]);
    let launcher = pod.launcher();
    wait_said(&pod, "is ready");
    wait_for("only thanos to be left", || {
        let children = children_of(launcher.pid());
        (children.len() == 1 && children[0].1 != "Z")
            .then_some(())
            .ok_or(format!("{children:?}"))
    });
}

/// `setsid` creates its own process group and session, and so does every `kubectl exec`.
#[test]
fn children_of_other_sessions_are_reaped() {
    let mut pod = pod(&[]);
    let orphans = "for i in 1 2 3 4 5; do setsid sleep 0.05 & done; exec setsid \"$0\" \"$@\"";
    let thanos = std::mem::take(&mut pod.command);
    pod.command = ["/bin/sh", "-c", orphans]
        .map(Into::into)
        .into_iter()
        .chain(thanos)
        .collect();
    let mut launcher = pod.launcher();
    wait_said(&pod, "is ready");
    wait_for("only thanos to be left", || {
        let children = children_of(launcher.pid());
        (children.len() == 1 && children[0].1 != "Z")
            .then_some(())
            .ok_or(format!("{children:?}"))
    });
    support::kill_children(launcher.pid());
    assert_eq!(
        launcher.code(),
        137,
        "the end of a thanos in another session is noticed"
    );
}

/// Orphans of a `kubectl exec` shell belong to another session; the subreaper inherits them.
#[test]
fn orphans_of_other_sessions_are_reaped() {
    let pod = pod(&["--stand-in-orphans=20", "--stand-in-orphans-in-sessions"]);
    let launcher = pod.launcher();
    wait_said(&pod, "is ready");
    wait_for("only thanos to be left", || {
        let children = children_of(launcher.pid());
        (children.len() == 1 && children[0].1 != "Z")
            .then_some(())
            .ok_or(format!("{children:?}"))
    });
}

#[test]
fn thanos_does_not_outlive_a_killed_launcher() {
    let pod = pod(&[]);
    let launcher = pod.launcher();
    wait_said(&pod, "is ready");
    launcher.signal(Signal::KILL);
    wait_for("the port to be free", || {
        support::get(pod.http, "/-/ready").map_or(Ok(()), |_| Err("it answers".to_owned()))
    });
    drop(launcher);
    order(&pod, 1, "-50d");
    let _next = pod.launcher();
    wait_said(&pod, "is ready with -50d .. 1d");
}

/// On cgroup v2 an OOM kills the whole container, including the launcher.
#[test]
fn an_attempt_that_ends_with_the_whole_container_is_given_up() {
    let pod = pod(&["--stand-in-never-ready-min=-13d"]);
    let launcher = pod.launcher();
    wait_said(&pod, "is ready with -100d .. 1d");
    wait_ready_mark(&pod, 1);
    order(&pod, 1, "-13d");
    wait_said(&pod, "starts with -13d");
    launcher.signal(Signal::KILL);
    drop(launcher);
    wait_for("the port to be free", || {
        support::get(pod.http, "/-/healthy").map_or(Ok(()), |_| Err("it answers".to_owned()))
    });
    let _next = pod.launcher();
    wait_for("the last good window", || {
        let record = pod.record();
        let good = record["launch"] == 3
            && record["min_time"] == "-100d"
            && record["failed"]["min_time"] == "-13d";
        good.then_some(()).ok_or(record.to_string())
    });
    wait_for("it to be served", || {
        support::get(pod.http, "/-/ready").map(drop)
    });
}

#[test]
fn a_flood_of_output_goes_through() {
    let pod = pod(&["--stand-in-flood-lines=20000"]);
    let mut launcher = pod.launcher_with(Stdio::null());
    wait_said(&pod, "is ready");
    launcher.signal(Signal::TERM);
    assert_eq!(launcher.code(), 0);
}

#[test]
fn an_idle_launcher_never_wakes_up() {
    let pod = pod(&[]);
    let launcher = pod.launcher();
    wait_said(&pod, "is ready");
    wait_ready_mark(&pod, 1);
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", launcher.pid())).unwrap();
        let line = status
            .lines()
            .find(|l| l.starts_with("voluntary_ctxt_switches"))
            .unwrap()
            .to_owned();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let a_second = || (0..100).for_each(|_| support::pause());
    let mut before = switches();
    // Its own record wakes it once more; then it sleeps.
    wait_for("it to sleep", || {
        a_second();
        let now = switches();
        let sleeps = now == std::mem::replace(&mut before, now);
        sleeps.then_some(()).ok_or_else(String::new)
    });
    let still = switches();
    a_second();
    assert_eq!(switches(), still);
}
