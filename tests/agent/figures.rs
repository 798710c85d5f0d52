//! The agent's figures, as in the README. Not part of a plain test run: `cargo test --release
//! --no-default-features --features agent --test agent figures -- --ignored --nocapture
//! --test-threads=1`

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{self, Pod, Process, stand_in};
use rustix::process::Signal;

const ROUNDS: usize = 200;

/// Polls without a pause, which would be part of the figure.
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
    println!(
        "{what}: median {median:.2?}, p99 {p99:.2?} of {}",
        times.len()
    );
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
            let start = || {
                Process(
                    Command::new(stand_in())
                        .args(&pod.command[1..])
                        .stderr(Stdio::null())
                        .spawn()
                        .unwrap(),
                )
            };
            let mut first = start();
            starts(2 * round + 1);
            first.signal(Signal::TERM);
            // Observed in the same way as the launcher's, so that the two figures compare.
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
            let order = format!(
                r#"{{"contract":1,"request":{round},"min_time":"-{round}d","max_time":"1d"}}"#
            );
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

/// Reads a number from `/proc/PID/status`.
fn figure(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with(key))
        .unwrap()
        .to_owned();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// CPU time, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
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
    let (launcher, sidecar) = (
        figure(launcher.pid(), "VmRSS"),
        figure(sidecar.pid(), "VmRSS"),
    );
    println!(
        "launcher: {launcher} KiB RSS, {wakes} wake-ups in 30 s; sidecar: {sidecar} KiB RSS, {cpu} ticks of 10 ms in 30 s"
    );
    assert!(launcher <= 3584 && wakes == 0 && sidecar <= 8 * 1024 && cpu <= 3);
}

/// Puts a block for each of the last days into the stand-in's bucket, each with the `meta.json` of
/// 60 chunk files.
fn write_daily_blocks(bucket: &Path, days: i64) {
    let files: String = (0..60)
        .map(|n| format!("{{\"rel_path\": \"chunks/{n:06}\", \"size_bytes\": 536870912}},\n\t\t"))
        .collect();
    let today = thanos_timeshard::adapters::clock::unix_seconds() / 86_400;
    for age in 0..days {
        let (name, max) = (
            format!("01K1H8R10000000000000{age:05}"),
            (today - age) * 86_400_000,
        );
        let meta = format!(
            "{{\n\t\"ulid\": \"{name}\",\n\t\"minTime\": {},\n\t\"maxTime\": {max},\n\t\"stats\": {{}},\n\t\
             \"compaction\": {{\"level\": 1, \"sources\": [\"{name}\"]}},\n\t\"version\": 1,\n\t\
             \"thanos\": {{\"labels\": {{\"cluster\": \"x\"}}, \"downsample\": {{\"resolution\": 0}}, \"files\": [{files}{{}}]}}}}",
            max - 86_400_000
        );
        fs::write(bucket.join(format!("{name}.json")), meta).unwrap();
    }
}

/// Ten thousand blocks, half of them in the window, each with a `meta.json` as large as a compacted
/// block's.
#[test]
#[ignore = "a benchmark; a release build linked statically is what the figures are for"]
fn ten_thousand_blocks() {
    let mut pod = Pod::stand_in(&["--stand-in-other-series=3000"]);
    pod.sidecar_flags = vec!["--drain=0s".into(), "--load-retry=0s".into()];
    pod.publish("-5000d", "1d");
    write_daily_blocks(&pod.path("bucket"), 10_000);
    fs::write(pod.path("bucket/01K1H8R1000000000000000100.broken"), "").unwrap();
    let (sidecar, launcher) = pod.start();
    let listed = |missing: u64| {
        support::wait_for("the list", || {
            let status = pod.status()?;
            let blocks = &status["blocks"];
            let done = blocks["bucket"]["total"] == 10_000
                && blocks["missing_total"] == missing
                && pod.ready();
            done.then(|| status.clone())
                .ok_or(format!("{status}\n{}", pod.logs()))
        })
    };
    let status = listed(1);
    assert_eq!(
        support::missing(&status).unwrap(),
        ["01K1H8R1000000000000000100"]
    );
    let first = ticks(launcher.pid());
    // Another window: one more list, of known blocks.
    fs::remove_file(pod.path("bucket/01K1H8R1000000000000000100.broken")).unwrap();
    let mut pod = pod;
    pod.publish("-4000d", "1d");
    pod.wait("serving", "-4000d");
    let listed = support::wait_for("the list", || {
        let status = pod.status()?;
        let done = status["blocks"]["missing_total"] == 0
            && status["blocks"]["bucket"]["older"].as_u64() > Some(5_900);
        done.then(|| status.clone()).ok_or(format!("{status}"))
    });
    assert!(listed.to_string().len() < 64 * 1024);
    let second = ticks(launcher.pid()) - first;
    let switches = "voluntary_ctxt_switches";
    let before = (
        figure(launcher.pid(), switches),
        ticks(launcher.pid()),
        ticks(sidecar.pid()),
    );
    let idle = Instant::now();
    while idle.elapsed() < Duration::from_mins(1) {
        // kubelet's readiness probe.
        assert!(pod.ready());
        (0..100).for_each(|_| support::pause());
    }
    let wakes = figure(launcher.pid(), switches) - before.0;
    let (spent, looked) = (
        ticks(launcher.pid()) - before.1,
        ticks(sidecar.pid()) - before.2,
    );
    let rss = |pid: u32| (figure(pid, "VmRSS"), figure(pid, "VmHWM"));
    let (of_launcher, of_sidecar) = (rss(launcher.pid()), rss(sidecar.pid()));
    println!(
        "10000 blocks: launcher {} KiB RSS ({} at most), sidecar {} KiB ({} at most); the first list took {first} ticks of 10 ms, one with a \
         restart {second}; at rest for 60 s: launcher {spent} ticks and {wakes} wake-ups, sidecar {looked} ticks",
        of_launcher.0, of_launcher.1, of_sidecar.0, of_sidecar.1
    );
    assert!(of_launcher.1 + of_sidecar.1 <= 16 * 1024 && spent + looked <= 12 && wakes == 0);
}
