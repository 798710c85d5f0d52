//! The agent's figures, as the README states them. Not part of a plain test run:
//! `cargo test --release --no-default-features --features agent --test agent_figures -- --ignored --nocapture --test-threads=1`

#![cfg(feature = "agent")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may stop at the first surprise")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Pod, Process, stand_in};

const ROUNDS: usize = 200;

/// Busy, so that the pause between two looks is no part of the figure.
fn spin_until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited too long");
        std::thread::yield_now();
    }
}

fn quantiles(what: &str, mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{what}: median {median:.2?}, p99 {p99:.2?} of {}", times.len());
    (median, p99)
}

#[test]
#[ignore = "a benchmark"]
fn swap_to_window_file() {
    let mut pod = Pod::stand_in(&[]);
    pod.publish("-1d", "1d");
    let _sidecar = pod.sidecar();
    pod.wait_started();
    let file = pod.path("shared/window.json");
    let times = (0..ROUNDS).map(|round| {
        let min = format!("-{}d", round + 2);
        let began = Instant::now();
        pod.publish(&min, "1d");
        spin_until(|| fs::read_to_string(&file).is_ok_and(|text| text.contains(&min)));
        began.elapsed()
    });
    let (_, p99) = quantiles("ConfigMap swap to window file written", times.collect());
    assert!(p99 < Duration::from_millis(50));
}

#[test]
#[ignore = "a benchmark"]
fn what_the_launcher_adds_to_a_restart() {
    let pod = Pod::stand_in(&[]);
    let count = |what: &str| pod.said().iter().filter(|line| line.contains(what)).count();
    let starts = |n: usize| spin_until(|| count("is ready") == n);
    let plain: Vec<Duration> = (0..50)
        .map(|round| {
            let start = || Process(Command::new(stand_in()).args(&pod.command[1..]).stderr(Stdio::null()).spawn().unwrap());
            let mut first = start();
            starts(2 * round + 1);
            first.signal(Signal::TERM);
            // Seen as the launcher's is seen, so that the two figures compare.
            spin_until(|| count("got SIGTERM") == round + 1);
            let began = Instant::now();
            first.0.wait().unwrap();
            let _second = start();
            starts(2 * round + 2);
            began.elapsed()
        })
        .collect();
    let (plain, _) = quantiles("SIGTERM to ready again without a launcher", plain);
    symlink(support::AGENT, pod.path("shared/timeshard-agent")).unwrap();
    let (before, stopped) = (count("is ready"), count("got SIGTERM"));
    let _launcher = pod.launcher();
    starts(before + 1);
    let launched: Vec<Duration> = (1..=50)
        .map(|round| {
            let order = format!(r#"{{"contract":1,"request":{round},"min_time":"-{round}d","max_time":"1d"}}"#);
            fs::write(pod.path("shared/.w"), order).unwrap();
            fs::rename(pod.path("shared/.w"), pod.path("shared/window.json")).unwrap();
            spin_until(|| count("got SIGTERM") == stopped + round);
            let began = Instant::now();
            starts(before + 1 + round);
            began.elapsed()
        })
        .collect();
    let (launched, _) = quantiles("SIGTERM to ready again with the launcher", launched);
    println!("the launcher adds {:.2?}", launched.saturating_sub(plain));
    assert!(launched.saturating_sub(plain) < Duration::from_millis(10));
}

#[test]
#[ignore = "a benchmark; a release build linked statically is what the figures are for"]
fn memory_and_wake_ups() {
    let mut pod = Pod::stand_in(&[]);
    pod.sidecar_flags = vec!["--drain=0s".into()];
    pod.publish("-30d", "1d");
    let (sidecar, launcher) = pod.start();
    pod.wait("serving", "-30d");
    for min in ["-31d", "-32d", "-33d"] {
        pod.publish(min, "1d");
        pod.wait("serving", min);
    }
    let figure = |pid: u32, key: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let ticks = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let words: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap()
    };
    let switches = "voluntary_ctxt_switches";
    let before = (figure(launcher.pid(), switches), ticks(sidecar.pid()));
    let idle = Instant::now();
    while idle.elapsed() < Duration::from_secs(30) {
        // kubelet's readiness probe.
        assert!(pod.ready());
        (0..100).for_each(|_| support::pause());
    }
    let wakes = figure(launcher.pid(), switches) - before.0;
    let cpu = ticks(sidecar.pid()) - before.1;
    let (launcher, sidecar) = (figure(launcher.pid(), "VmRSS"), figure(sidecar.pid(), "VmRSS"));
    println!("launcher: {launcher} KiB RSS, {wakes} wake-ups in 30 s; sidecar: {sidecar} KiB RSS, {cpu} ticks of 10 ms in 30 s");
    assert!(launcher <= 3 * 1024 && wakes == 0 && sidecar <= 8 * 1024 && cpu <= 3);
}
