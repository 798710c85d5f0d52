//! `timeshard demo` on a machine without thanos: what it shows, and that nothing outlives it, however it ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::server::TIMESHARD;

const DEADLINE: Duration = Duration::from_mins(1);

/// A demo whose temporary directory is `tmp`, with nothing on its `PATH`.
fn demo(tmp: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(TIMESHARD);
    command.arg("demo").args(more).env("TMPDIR", tmp).env("PATH", tmp);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Processes that have `tmp` in their command line: everything that a demo starts runs from there.
fn left(tmp: &Path) -> Vec<String> {
    let tmp = tmp.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    processes.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(tmp)).collect()
}

fn files_in(tmp: &Path) -> usize {
    std::fs::read_dir(tmp).unwrap().count()
}

/// Reads what the demo prints until a line holds `words`.
fn read_until(child: &mut Child, words: &str) -> BufReader<std::process::ChildStdout> {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    while !shown.lines().last().is_some_and(|line| line.contains(words)) {
        assert!(output.read_line(&mut shown).unwrap() > 0, "{words:?} never came:\n{shown}");
    }
    output
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn admission_alone_is_shown() {
    let tmp = tempfile::tempdir().unwrap();
    let output = demo(tmp.path(), &["--admission-only"]).wait_with_output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && shown.contains("every instant is served by at least 2 pods"), "{shown}");
    assert!(shown.contains("thanos-store-gateway-5") && shown.contains("--min-time=-124d8h --max-time=1d"), "{shown}");
    assert!(!shown.contains("serving"), "{shown}");
}

#[test]
fn windows_change_while_the_injected_pods_run() {
    let tmp = tempfile::tempdir().unwrap();
    let output = demo(tmp.path(), &[]).wait_with_output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("thanos is NOT the real one"), "{shown}");
    let lines = |words: &[&str]| shown.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
    for (pod, old, new) in [
        (0, "-124d8h .. 1d", "-15d .. 1d"),
        (1, "-124d8h .. 1d", "-15d .. 1d"),
        (2, "-247d16h .. -123d8h", "-91d .. -14d"),
        (3, "-247d16h .. -123d8h", "-91d .. -14d"),
        (4, "-370d .. -246d16h", "-400d .. -90d"),
        (5, "-370d .. -246d16h", "-400d .. -90d"),
    ] {
        let pod = format!("thanos-store-gateway-{pod} ");
        assert_eq!(lines(&[&pod, "serving", old]), 1, "{pod}{shown}");
        assert_eq!(lines(&[&pod, "draining", &format!("{old} -> {new}")]), 1, "{pod}{shown}");
        assert_eq!(lines(&[&pod, "serving", new]), 1, "{pod}{shown}");
        // In the table: both windows, and the process of the launcher that stayed.
        assert_eq!(lines(&[&pod, old, new, "(same)"]), 1, "{pod}{shown}");
    }
    // It takes a third of a second, which a busy machine may oversee in some of the pods.
    assert!(lines(&["restarting in place"]) >= 1, "{shown}");
    assert!(shown.contains("6 pods took over new windows while running"), "{shown}");
    assert!(shown.contains("the stand-in's own flags say so in each of them") && shown.contains("Nothing is left behind"), "{shown}");
    assert_eq!((left(tmp.path()), files_in(tmp.path())), (Vec::new(), 0));
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let mut child = demo(tmp.path(), &[]);
    let mut output = read_until(&mut child, "draining");
    assert!(left(tmp.path()).len() >= 18, "6 sidecars, launchers and stand-ins: {:?}", left(tmp.path()));
    signal(&child, Signal::INT);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{rest}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("timeshard: interrupted"), "{ended:?}");
    assert_eq!((left(tmp.path()), files_in(tmp.path())), (Vec::new(), 0));
}

#[test]
fn a_killed_demo_takes_its_processes_along() {
    let tmp = tempfile::tempdir().unwrap();
    let mut child = demo(tmp.path(), &[]);
    read_until(&mut child, "draining");
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
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{shown}{said}");
    assert!(shown.contains("thanos is the real one") && shown.contains("version 9.9"), "{shown}");
    assert!(said.contains("the launcher has ended") && said.contains("no such flag"), "{said}");
    assert_eq!((left(tmp.path()), files_in(tmp.path())), (Vec::new(), 1), "all but this thanos");
}
