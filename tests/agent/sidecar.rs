//! Sidecar, launcher and stand-in on real directories: the life of a pod.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use crate::support::{self, POD, Pod, get, wait_for};
use rustix::process::Signal;

fn wait_error(pod: &Pod, part: &str) {
    wait_for(part, || {
        let status = pod.status()?;
        let error = status["last_error"].as_str().unwrap_or_default();
        error
            .contains(part)
            .then_some(())
            .ok_or(format!("{status}"))
    });
}

#[test]
fn the_published_entry_is_what_thanos_first_starts_with() {
    let mut pod = Pod::stand_in(&[]);
    pod.publish("-30d", "24h");
    let (_sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    let mut status = wait_for("the list of blocks", || {
        let status = pod.status()?;
        status["blocks"]
            .is_object()
            .then(|| status.clone())
            .ok_or(format!("{status}"))
    });
    assert!(
        status["blocks"]
            .as_object_mut()
            .unwrap()
            .remove("last_sync_unix_seconds")
            .unwrap()
            .as_i64()
            > Some(1_700_000_000)
    );
    let load = status.as_object_mut().unwrap().remove("last_load").unwrap();
    assert_eq!(
        (&load["min_time"], &load["max_time"]),
        (&"-30d".into(), &"1d".into()),
        "{load}"
    );
    let expected = serde_json::json!({
        "pod": POD, "shard": 0, "replica": 0, "phase": "serving",
        "published": {"min_time": "-30d", "max_time": "1d"}, "applied": {"min_time": "-30d", "max_time": "1d"},
        "verified": true, "restarts": 0, "last_error": null,
        "agent_version": env!("CARGO_PKG_VERSION"), "contract": 2, "namespace": null, "uid": null, "generation": null, "order": null,
        "blocks": {"expected": 0, "loaded": 0, "missing_total": 0, "missing": [], "bucket": {"total": 0, "older": 0, "newer": 0}},
    });
    assert_eq!(status, expected);
    assert!(pod.ready());
    let mode = fs::metadata(pod.path("shared/timeshard-agent"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o755);
    for file in [
        "window.json",
        "verdict.json",
        "launcher.json",
        "inspect.json",
        "blocks.json",
    ] {
        assert_eq!(
            fs::metadata(pod.path("shared").join(file))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o644
        );
    }
    assert_eq!(get(pod.port, "/nothing").unwrap().0, 404);
}

#[test]
fn without_an_entry_the_arguments_hold_until_one_comes() {
    let mut pod = Pod::stand_in(&[]);
    let (_sidecar, _launcher) = pod.start();
    assert_eq!(
        pod.wait("serving", "-100d")["published"],
        serde_json::Value::Null
    );
    pod.swap(&[("store-1.yaml", "shard: 0\nmin_time: -9d\nmax_time: 1d\n")]);
    pod.swap(&[]);
    pod.publish("-30d", "1d");
    assert_eq!(pod.wait("serving", "-30d")["restarts"], 1);
}

/// Servers are upgraded months before the agents in running pods.
#[test]
fn the_known_keys_of_a_newer_servers_entry_are_followed() {
    let mut pod = Pod::stand_in(&[]);
    let newer = |min: &str| {
        format!(
            "contract: 9\nshard: 1\nreplica: 1\nmin_time: {min}\nmax_time: 1d\ndrain: 0s\nquantum: {{unit: 1h}}\nsteps: [1, 2]\n"
        )
    };
    pod.swap(&[("store-0.yaml", &newer("-30d"))]);
    let (_sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    pod.swap(&[("store-0.yaml", &newer("-60d"))]);
    let status = pod.wait("serving", "-60d");
    assert_eq!(
        (&status["shard"], &status["replica"], &status["last_error"]),
        (&1.into(), &1.into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&status["verified"], &status["restarts"]),
        (&true.into(), &1.into())
    );
}

#[test]
fn a_change_drains_and_the_same_window_written_differently_does_not() {
    let mut pod = Pod::stand_in(&[]);
    pod.publish("-30d", "1d");
    pod.sidecar_flags[0] = "--drain=3s".into();
    let (_sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    pod.publish("-720h", "24h");
    let began = Instant::now();
    pod.publish("-40d", "1d");
    let draining = pod.wait("draining", "-30d");
    assert_eq!(draining["published"]["min_time"], "-40d");
    assert!(!pod.ready());
    assert_eq!(
        get(pod.http, "/-/ready").unwrap().0,
        200,
        "thanos serves while queriers let go"
    );
    assert_eq!(pod.wait("serving", "-40d")["restarts"], 1);
    assert!(
        began.elapsed() >= Duration::from_millis(2_900),
        "{:?}",
        began.elapsed()
    );
    let (_, metrics) = get(pod.port, "/metrics").unwrap();
    for line in [
        "timeshard_agent_restarts_total 1",
        "timeshard_agent_orders_total 1",
        "timeshard_agent_applied_matches_published 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(
        pod.logs().matches("entry changed").count() == 2,
        "{}",
        pod.logs()
    );
}

#[test]
fn a_change_taken_back_during_the_drain_restarts_nothing() {
    let mut pod = Pod::stand_in(&[]);
    pod.publish("-30d", "1d");
    pod.sidecar_flags[0] = "--drain=1h".into();
    let (_sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    pod.publish("-40d", "1d");
    pod.wait("draining", "-30d");
    pod.publish("-30d", "1d");
    assert_eq!(pod.wait("serving", "-30d")["restarts"], 0);
    let entry = "shard: 0\nreplica: 0\nmin_time: -40d\nmax_time: 1d\ndrain: 10ms\n";
    pod.swap(&[(&format!("{POD}.yaml"), entry)]);
    pod.wait("serving", "-40d");
}

#[test]
fn a_bad_entry_keeps_the_last_good_window() {
    let mut pod = Pod::stand_in(&[]);
    pod.publish("-30d", "1d");
    let (_sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    let name = format!("{POD}.yaml");
    let large = format!("# {}", "x".repeat(20_000));
    for (content, part) in [
        (
            "shard: 0\nreplica: 0\nmin_time: -1d\nmax_time: -2d\n",
            "inverted",
        ),
        ("min_time: [", "the entry is invalid"),
        (
            "shard: 0\nreplica: 0\nmin_time: ''\nmax_time: 1d\n",
            "min_time",
        ),
        (large.as_str(), "larger than"),
    ] {
        pod.swap(&[(&name, content)]);
        wait_error(&pod, part);
        assert!(pod.ready());
    }
    pod.swap(&[(
        "store-7.yaml",
        "shard: 0\nreplica: 0\nmin_time: -3d\nmax_time: 1d\n",
    )]);
    wait_error(&pod, "no entry for this pod");
    fs::remove_dir_all(pod.path("config")).unwrap();
    fs::create_dir(pod.path("config")).unwrap();
    assert_eq!(pod.wait("serving", "-30d")["restarts"], 0);
    pod.publish("-50d", "1d");
    assert_eq!(
        pod.wait("serving", "-50d")["last_error"],
        serde_json::Value::Null
    );
}

#[test]
fn a_window_that_ends_thanos_rolls_back_and_the_pod_stays_ready() {
    let mut pod = Pod::stand_in(&["--stand-in-refuse-min=-13d"]);
    pod.publish("-30d", "1d");
    let (sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    pod.publish("-13d", "1d");
    let failed = pod.wait("failed", "-30d");
    assert!(
        failed["last_error"]
            .as_str()
            .unwrap()
            .contains("exit code 1"),
        "{failed}"
    );
    assert!(pod.ready());
    drop(sidecar);
    let _sidecar = pod.sidecar();
    pod.wait_started();
    let again = pod.wait("failed", "-30d");
    assert_eq!(
        again["restarts"], 2,
        "a restarted sidecar does not try it at once"
    );
    pod.publish("-40d", "1d");
    pod.wait("serving", "-40d");
}

#[test]
fn a_window_that_takes_too_long_rolls_back_if_a_timeout_is_set() {
    let mut pod = Pod::stand_in(&["--stand-in-never-ready-min=-13d"]);
    pod.sidecar_flags.push("--ready-timeout=2s".into());
    pod.publish("-30d", "1d");
    let (_sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    pod.publish("-13d", "1d");
    assert!(
        pod.wait("failed", "-30d")["last_error"]
            .as_str()
            .unwrap()
            .contains("ready timeout")
    );
}

#[test]
fn unreadable_flags_are_reported_and_do_not_block() {
    for flag in ["--stand-in-disable-web", "--stand-in-unauthorized"] {
        let mut pod = Pod::stand_in(&[flag]);
        pod.publish("-30d", "1d");
        let (_sidecar, _launcher) = pod.start();
        pod.wait("serving", "-30d");
        pod.publish("-40d", "1d");
        let status = pod.wait("serving", "-40d");
        assert_eq!(status["verified"], false);
        assert!(
            status["last_error"]
                .as_str()
                .unwrap()
                .contains("cannot be read"),
            "{status}"
        );
        assert!(pod.ready());
    }
}

#[test]
fn reload_off_only_reports() {
    let mut pod = Pod::stand_in(&[]);
    pod.sidecar_flags.push("--reload=off".into());
    pod.publish("-30d", "1d");
    let (_sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    pod.publish("-40d", "1d");
    wait_error(&pod, "reload is off");
    assert_eq!(pod.wait("serving", "-30d")["restarts"], 0);
    assert!(pod.ready());
}

#[test]
fn a_signal_reloads_a_program_that_honours_it() {
    let mut pod = Pod::stand_in(&[]);
    pod.sidecar_flags
        .extend(["--reload=signal", "--signal-timeout=2s"].map(String::from));
    // A unique name, so that the signal reaches only the stand-in of this test.
    let own = format!("stand-in-{}", pod.port);
    let program = pod.path(&own);
    symlink(support::stand_in(), &program).unwrap();
    pod.command[0] = program.into();
    pod.sidecar_flags.push(format!("--process-name={own}"));
    pod.publish("-30d", "1d");
    let honours = format!(
        "--stand-in-window-file={}",
        pod.path("shared/window.json").display()
    );
    pod.command.push(honours.into());
    let (_sidecar, launcher) = pod.start();
    pod.wait("serving", "-30d");
    pod.publish("-40d", "1d");
    assert_eq!(pod.wait("serving", "-40d")["restarts"], 0);
    drop(launcher);
    pod.command.pop();
    let _launcher = pod.launcher();
    wait_for("the second start", || {
        let record = pod.record();
        (record["launch"] == 2 && record["ready"] == true)
            .then_some(())
            .ok_or(record.to_string())
    });
    pod.publish("-50d", "1d");
    let status = pod.wait("failed", "-40d");
    assert!(
        status["last_error"]
            .as_str()
            .unwrap()
            .contains("stock Thanos ignores SIGHUP"),
        "{status}"
    );
}

#[test]
fn install_only_is_enough_for_the_first_start() {
    let mut pod = Pod::stand_in(&[]);
    pod.publish("-30d", "1d");
    pod.sidecar_flags.push("--install-only".into());
    assert_eq!(pod.sidecar().code(), 0);
    pod.sidecar_flags.pop();
    let _launcher = pod.launcher();
    let _sidecar = pod.sidecar();
    pod.wait_started();
    assert_eq!(pod.wait("serving", "-30d")["restarts"], 0);
}

#[test]
fn wrong_flags_are_refused_with_code_2() {
    let mut pod = Pod::stand_in(&[]);
    for flag in [
        "--drain=-1s",
        "--thanos-url=nonsense",
        "--no-such-flag",
        "--reload=maybe",
    ] {
        pod.sidecar_flags = vec![flag.into()];
        assert_eq!(pod.sidecar().code(), 2, "{flag}");
    }
}

#[test]
fn the_sidecar_ends_immediately_on_sigterm() {
    let mut pod = Pod::stand_in(&[]);
    pod.publish("-30d", "1d");
    let mut sidecar = pod.sidecar();
    pod.wait_started();
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.code(), 0);
}

/// Kills thanos, the launcher or the sidecar at points spread over a reload.
#[test]
fn a_kill_at_any_point_of_a_reload_ends_in_a_serving_thanos() {
    let mut pod = Pod::stand_in(&["--stand-in-ready-after-ms=20"]);
    pod.publish("-30d", "1d");
    pod.sidecar_flags[0] = "--drain=20ms".into();
    let (mut sidecar, mut launcher) = pod.start();
    let mut seed = 0x5eed_u64;
    let mut windows = ["-30d".to_owned(), "-30d".to_owned()];
    for round in 0..24 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let min = format!("-{}d", 31 + round);
        windows = [windows[1].clone(), min.clone()];
        pod.publish(&min, "1d");
        let until = Instant::now() + Duration::from_micros((seed >> 33) % 120_000);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        match round % 3 {
            0 => launcher.kill(),
            1 => sidecar.kill(),
            _ => support::kill_children(launcher.pid()),
        }
        let served = support::settle(&pod, &mut launcher, &mut sidecar, &format!("round {round}"));
        assert!(
            windows.contains(&served),
            "round {round}: {served}, not one of {windows:?}\n{}",
            pod.logs()
        );
        windows[1] = served;
    }
}

/// Opens this many connections to the sidecar from a loopback address, sends `bytes` on each, and
/// keeps them open.
fn crowd(
    from: &str,
    port: u16,
    count: usize,
    bytes: &[u8],
) -> (tokio::runtime::Runtime, Vec<tokio::net::TcpStream>) {
    use tokio::io::AsyncWriteExt as _;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let streams = runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..count {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket
                .bind((from.parse::<std::net::Ipv4Addr>().unwrap(), 0).into())
                .unwrap();
            let mut stream = socket
                .connect((std::net::Ipv4Addr::LOCALHOST, port).into())
                .await
                .unwrap();
            // Connections closed in favour of later ones do not matter.
            let _ = stream.write_all(bytes).await;
            streams.push(stream);
        }
        streams
    });
    (runtime, streams)
}

/// Anyone on the pod network may open connections and stay silent; kubelet must still get an answer
/// to its probes.
#[test]
fn silent_connections_keep_no_probe_out() {
    let mut pod = Pod::stand_in(&[]);
    pod.publish("-30d", "1d");
    let (_sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    // From another address than the probes', and from the same; without a byte, and with half a
    // header.
    for (from, bytes) in [
        ("127.0.0.2", &b""[..]),
        ("127.0.0.1", b""),
        ("127.0.0.2", b"GET /livez HTTP/1.1\r\nhost:"),
    ] {
        let crowd = crowd(from, pod.port, 200, bytes);
        for _ in 0..20 {
            let began = Instant::now();
            assert_eq!(
                get(pod.port, "/livez").map(|answer| answer.0),
                Ok(200),
                "{from}"
            );
            assert!(
                began.elapsed() < Duration::from_secs(1),
                "{from}: {:?}",
                began.elapsed()
            );
        }
        drop(crowd);
    }
}
