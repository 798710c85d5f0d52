//! The agent with a real `thanos store` on an empty bucket. Set `TIMESHARD_TEST_THANOS` to its
//! path; skipped otherwise.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use thanos_timeshard::core::model::window::Bound;
use thanos_timeshard::core::thanos::flags;

use crate::support::{self, Pod, get, real_thanos, wait_for};

fn pod(flags: &[&str]) -> Option<Pod> {
    let mut pod = Pod::new(&real_thanos()?);
    let bucket = format!(
        "type: FILESYSTEM\nconfig: {{directory: {}}}\n",
        pod.path("bucket").display()
    );
    fs::write(pod.path("bucket.yaml"), bucket).unwrap();
    let (data, config) = (pod.path("data"), pod.path("bucket.yaml"));
    pod.command
        .push(format!("--data-dir={}", data.display()).into());
    pod.command
        .push(format!("--objstore.config-file={}", config.display()).into());
    pod.command.extend(flags.iter().map(Into::into));
    Some(pod)
}

/// Thanos' own value of `--min-time`; it writes -35d as -5w.
fn effective_min(pod: &Pod) -> Option<Bound> {
    let (_, body) = get(pod.http, "/api/v1/status/flags").unwrap();
    let (_, text) = body.split_once("\"min-time\":\"")?;
    flags::effective_bound(text.split('"').next()?)
}

#[test]
fn a_published_window_reaches_the_effective_flags() {
    let Some(mut pod) = pod(&[]) else { return };
    pod.publish("-30d", "24h");
    let (_sidecar, _launcher) = pod.start();
    assert_eq!(pod.wait("serving", "-30d")["verified"], true);
    // Relative, absolute, and unlimited: every form is understood.
    for (min, max) in [
        ("-124d8h", "1d"),
        ("\"2026-01-31T00:00:00Z\"", "\"2026-02-28T12:30:00.5Z\""),
        ("-36h", "-1ms"),
        ("-370d", "-246d16h"),
    ] {
        pod.publish(min, max);
        let status = wait_for(min, || {
            let status = pod.status()?;
            let done = status["phase"] == "serving" && status["applied"] == status["published"];
            done.then(|| status.clone())
                .ok_or(format!("{status}\n{}", pod.logs()))
        });
        assert_eq!(
            (&status["verified"], &status["last_error"]),
            (&true.into(), &serde_json::Value::Null)
        );
    }
    assert_eq!(pod.record()["restarts"], 4);
    assert!(pod.ready());
}

#[test]
fn a_window_that_makes_thanos_exit_is_given_up() {
    let Some(mut pod) = pod(&[]) else { return };
    pod.publish("-30d", "1d");
    pod.sidecar_flags[0] = "--drain=6s".into();
    let (_sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    // Not inverted when published, but after the drain; thanos then exits immediately.
    let soon = thanos_timeshard::adapters::clock::now() + Duration::from_secs(4);
    pod.publish("-1s", &format!("\"{}\"", soon.to_rfc3339()));
    let failed = pod.wait("failed", "-30d");
    assert!(
        failed["last_error"]
            .as_str()
            .unwrap()
            .contains("exit code 1"),
        "{failed}"
    );
    assert_eq!(effective_min(&pod), "-30d".parse().ok());
    assert!(pod.ready());
    // From here on no start succeeds, whatever the window. That is not the fault of the window, and
    // kubelet handles it.
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

/// If the flags cannot be read, the window that the launcher started thanos with counts, unverified
/// and with the reason.
#[test]
fn thanos_whose_flags_cannot_be_read_still_reloads() {
    let Some(without_web) = pod(&["--web.disable"]) else {
        return;
    };
    let configured = |text: &dyn Fn(&Pod) -> String| {
        let mut pod = pod(&[])?;
        fs::write(pod.path("web.yaml"), text(&pod)).unwrap();
        let flag = format!("--http.config={}", pod.path("web.yaml").display());
        pod.command.push(flag.into());
        Some(pod)
    };
    // bcrypt of an unused password.
    let hash = "$2y$05$QC4kKjiIkRK1JTdcu.TGPe8oO0mCmxvQ0cXcbjpgzyNHJ0UZAqJ6a";
    let Some(with_password) = configured(&|_| format!("basic_auth_users:\n  user: {hash}\n"))
    else {
        return;
    };
    let Some(with_tls) = configured(&|pod| {
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x -keyout key -out cert".split(' '))
            .current_dir(pod.dir.path())
            .output()
            .expect("openssl");
        assert!(made.status.success(), "{made:?}");
        format!(
            "tls_server_config:\n  cert_file: {}\n  key_file: {}\n",
            pod.path("cert").display(),
            pod.path("key").display()
        )
    }) else {
        return;
    };
    let Some(mut elsewhere) = pod(&[]) else {
        return;
    };
    // The sidecar gets a port without a listener, as with addresses that it could not find in the
    // pod.
    elsewhere.http = support::free_port();
    for (mut pod, reason) in [
        (without_web, "404"),
        (with_password, "401"),
        (with_tls, "400"),
        (elsewhere, "refused"),
    ] {
        pod.publish("-30d", "1d");
        let (_sidecar, _launcher) = pod.start();
        pod.wait("serving", "-30d");
        pod.publish("-40d", "1d");
        let status = pod.wait("serving", "-40d");
        assert_eq!(status["verified"], false, "{status}");
        let error = status["last_error"].as_str().unwrap();
        assert!(
            error.contains("cannot be read") && error.contains(reason),
            "{reason}: {status}"
        );
        assert!(pod.ready());
        assert_eq!(pod.record()["restarts"], 1);
    }
}

/// The stages of a reload, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    Published,
    Draining,
    Ordered,
    Stopping,
    Started,
    Ready,
}

const POINTS: [Point; 6] = [
    Point::Published,
    Point::Draining,
    Point::Ordered,
    Point::Stopping,
    Point::Started,
    Point::Ready,
];

fn point(pod: &Pod, launch: u64, min: &str) -> Point {
    let record = pod.record();
    let ordered =
        fs::read_to_string(pod.path("shared/window.json")).is_ok_and(|text| text.contains(min));
    match (
        record["launch"].as_u64() > Some(launch),
        record["ready"] == true,
    ) {
        (true, true) => Point::Ready,
        (true, false) => Point::Started,
        (false, _) if record["state"] == "stopping" => Point::Stopping,
        (false, _) if ordered => Point::Ordered,
        (false, _)
            if pod
                .status()
                .is_ok_and(|status| status["phase"] == "draining") =>
        {
            Point::Draining
        }
        (false, _) => Point::Published,
    }
}

/// At each stage of a reload, after a seeded delay, each of the processes is killed, and both
/// agents together.
#[test]
fn kills_at_any_point_end_in_a_serving_thanos() {
    let Some(mut pod) = pod(&[]) else { return };
    pod.publish("-30d", "1d");
    pod.sidecar_flags[0] = "--drain=50ms".into();
    let (mut sidecar, mut launcher) = pod.start();
    pod.wait("serving", "-30d");
    let mut seed = 7_u64;
    let mut old = "-30d".to_owned();
    let mut kept = 0;
    for (round, (at, victim)) in POINTS
        .iter()
        .flat_map(|at| (0..4).map(move |victim| (*at, victim)))
        .enumerate()
    {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let new = format!("-{}d", 31 + round);
        let launch = pod.record()["launch"].as_u64().unwrap();
        pod.publish(&new, "1d");
        let deadline = Instant::now() + Duration::from_mins(1);
        while point(&pod, launch, &new) < at {
            assert!(
                Instant::now() < deadline,
                "round {round}: no reload came to {at:?}\n{}",
                pod.logs()
            );
        }
        let until = Instant::now() + Duration::from_micros((seed >> 33) % 30_000);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        match victim {
            0 => launcher.kill(),
            1 => sidecar.kill(),
            2 => support::kill_children(launcher.pid()),
            _ => [&mut launcher, &mut sidecar]
                .into_iter()
                .for_each(support::Process::kill),
        }
        let served = support::settle(
            &pod,
            &mut launcher,
            &mut sidecar,
            &format!("round {round}, {at:?}"),
        );
        assert!(
            served == old || served == new,
            "round {round}: {served} is neither {old} nor {new}\n{}",
            pod.logs()
        );
        assert_eq!(effective_min(&pod), served.parse().ok());
        wait_for("the pod to be ready", || {
            pod.ready().then_some(()).ok_or(pod.logs())
        });
        kept += u32::from(served == old);
        old = served;
    }
    println!("{kept} of 24 kills left the old window");
}
