//! The agent with a real `thanos store` on an empty bucket. Set `TIMESHARD_TEST_THANOS` to its path; skipped otherwise.

#![cfg(feature = "agent")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may stop at the first surprise")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use thanos_timeshard::core::time_flags;
use thanos_timeshard::core::window::Bound;

use support::{Pod, get, real_thanos, wait_for};

fn pod(flags: &[&str]) -> Option<Pod> {
    let mut pod = Pod::new(&real_thanos()?);
    let bucket = format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", pod.path("bucket").display());
    fs::write(pod.path("bucket.yaml"), bucket).unwrap();
    let (data, config) = (pod.path("data"), pod.path("bucket.yaml"));
    pod.command.push(format!("--data-dir={}", data.display()).into());
    pod.command.push(format!("--objstore.config-file={}", config.display()).into());
    pod.command.extend(flags.iter().map(Into::into));
    Some(pod)
}

/// What thanos itself says about `--min-time`; it writes -35d as -5w.
fn effective_min(pod: &Pod) -> Option<Bound> {
    let (_, body) = get(pod.http, "/api/v1/status/flags").unwrap();
    let (_, text) = body.split_once("\"min-time\":\"")?;
    time_flags::effective_bound(text.split('"').next()?)
}

#[test]
fn a_published_window_reaches_the_effective_flags() {
    let Some(mut pod) = pod(&[]) else { return };
    pod.publish("-30d", "24h");
    let (_sidecar, _launcher) = pod.start();
    assert_eq!(pod.wait("serving", "-30d")["verified"], true);
    // Relative, absolute, and everything: what thanos says is understood.
    for (min, max) in
        [("-124d8h", "1d"), ("\"2026-01-31T00:00:00Z\"", "\"2026-02-28T12:30:00.5Z\""), ("-36h", "-1ms"), ("-370d", "-246d16h")]
    {
        pod.publish(min, max);
        let status = wait_for(min, || {
            let status = pod.status()?;
            let done = status["phase"] == "serving" && status["applied"] == status["published"];
            done.then(|| status.clone()).ok_or(format!("{status}\n{}", pod.logs()))
        });
        assert_eq!((&status["verified"], &status["last_error"]), (&true.into(), &serde_json::Value::Null));
    }
    assert_eq!(pod.record()["restarts"], 4);
    assert!(pod.ready());
}

#[test]
fn a_window_that_makes_thanos_exit_is_given_up() {
    let Some(mut pod) = pod(&[]) else { return };
    pod.publish("-30d", "1d");
    pod.sidecar_flags[0] = "--drain=3s".into();
    let (_sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    // Not inverted when it is published, but by the time the drain is over; thanos ends at once with it.
    let soon = thanos_timeshard::adapters::clock::now() + Duration::from_millis(1_500);
    pod.publish("-1s", &format!("\"{}\"", soon.to_rfc3339()));
    let failed = pod.wait("failed", "-30d");
    assert!(failed["last_error"].as_str().unwrap().contains("exit code 1"), "{failed}");
    assert_eq!(effective_min(&pod), "-30d".parse().ok());
    assert!(pod.ready());
    // From here on no start succeeds, whatever the window: that is not the window's fault, and kubelet's to see.
    fs::remove_file(pod.path("bucket.yaml")).unwrap();
    fs::create_dir(pod.path("bucket.yaml")).unwrap();
    pod.publish("-50d", "1d");
    wait_for("both windows to fail", || {
        let record = pod.record();
        let failed = record["failed"]["min_time"] == "-50d" && record["state"] == "exited";
        failed.then_some(()).ok_or(record.to_string())
    });
    assert_eq!(pod.record()["min_time"], "-30d");
}

#[test]
fn thanos_behind_authentication_or_without_web_still_reloads() {
    let Some(mut first) = pod(&["--web.disable"]) else { return };
    let Some(mut second) = pod(&[]) else { return };
    let web = second.path("web.yaml");
    // bcrypt of a password that nobody needs.
    let hash = "$2y$05$QC4kKjiIkRK1JTdcu.TGPe8oO0mCmxvQ0cXcbjpgzyNHJ0UZAqJ6a";
    fs::write(&web, format!("basic_auth_users:\n  user: {hash}\n")).unwrap();
    second.command.push(format!("--http.config={}", web.display()).into());
    for pod in [&mut first, &mut second] {
        pod.publish("-30d", "1d");
        let (_sidecar, _launcher) = pod.start();
        pod.wait("serving", "-30d");
        pod.publish("-40d", "1d");
        let status = pod.wait("serving", "-40d");
        assert_eq!(status["verified"], false, "{status}");
        assert!(status["last_error"].as_str().unwrap().contains("cannot be read"), "{status}");
    }
}

#[test]
fn kills_at_any_point_end_in_a_serving_thanos() {
    let Some(mut pod) = pod(&[]) else { return };
    pod.publish("-30d", "1d");
    let (mut sidecar, mut launcher) = pod.start();
    pod.wait("serving", "-30d");
    let mut seed = 7_u64;
    let mut old = "-30d".to_owned();
    for round in 0..12 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let new = format!("-{}d", 31 + round);
        pod.publish(&new, "1d");
        let until = Instant::now() + Duration::from_micros((seed >> 33) % 400_000);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        match round % 3 {
            0 => launcher.signal(Signal::KILL),
            1 => sidecar.signal(Signal::KILL),
            _ => support::kill_children(launcher.pid()),
        }
        let served = support::settle(&pod, &mut launcher, &mut sidecar, &format!("round {round}"));
        assert!(served == old || served == new, "round {round}: {served} is neither {old} nor {new}");
        assert_eq!(effective_min(&pod), served.parse().ok());
        old = served;
    }
}
