//! Blocks that thanos could not load: sidecar, launcher and stand-in on a real data directory.

use std::time::{Duration, Instant};

use crate::support::{self, POD, Pod, get, missing, wait_for, wait_missing};
use serde_json::{Value, json};

fn pod(flags: &[&str]) -> Pod {
    let mut pod = Pod::stand_in(flags);
    pod.publish("-30d", "1d");
    pod
}

#[test]
fn what_is_loaded_and_what_lies_outside_the_window_is_reported() {
    let mut pod = pod(&[]);
    for age in [1, 2, 40, 50] {
        pod.block(age, &[]);
    }
    pod.sidecar_flags
        .extend(["--namespace=monitoring", "--uid=u-1"].map(String::from));
    let (_sidecar, _launcher) = pod.start();
    let status = wait_missing(&pod, &[]);
    let blocks = &status["blocks"];
    assert!(blocks["last_sync_unix_seconds"].as_i64().unwrap() > 1_700_000_000);
    assert_eq!(
        blocks["bucket"],
        json!({"total": 4, "older": 2, "newer": 0})
    );
    assert_eq!(
        (
            &blocks["expected"],
            &blocks["loaded"],
            &blocks["missing_total"]
        ),
        (&2.into(), &2.into(), &0.into())
    );
    assert_eq!(
        (&status["namespace"], &status["uid"], &status["restarts"]),
        (&"monitoring".into(), &"u-1".into(), &0.into())
    );
    let (_, metrics) = get(pod.port, "/metrics").unwrap();
    for line in [
        "timeshard_agent_blocks_known 1",
        "timeshard_agent_blocks_expected 2",
        "timeshard_agent_blocks_missing 0",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[test]
fn a_block_that_cannot_be_loaded_for_a_moment_is_there_when_the_pod_turns_ready() {
    let pod = pod(&[]);
    pod.block(1, &[]);
    let broken = pod.block(2, &[]);
    pod.breaks(&broken, true);
    let (_sidecar, _launcher) = pod.start();
    wait_for("the first retry", || {
        assert!(!pod.ready(), "{}", pod.logs());
        let record = pod.record();
        (record["restarts"].as_u64() >= Some(1))
            .then_some(())
            .ok_or(pod.logs())
    });
    pod.breaks(&broken, false);
    let status = wait_missing(&pod, &[]);
    assert_eq!(
        (&status["phase"], &status["blocks"]["loaded"]),
        (&"serving".into(), &2.into())
    );
    assert!(
        pod.logs().contains("to load its blocks again"),
        "{}",
        pod.logs()
    );
    let (_, metrics) = get(pod.port, "/metrics").unwrap();
    assert!(
        !metrics.contains("timeshard_agent_load_retries_total 0"),
        "{metrics}"
    );
}

#[test]
fn a_block_that_stays_broken_is_named_and_heals_without_flapping() {
    let mut pod = pod(&["--stand-in-sync-every-ms=300"]);
    pod.block(1, &[]);
    let broken = pod.block(2, &[]);
    pod.breaks(&broken, true);
    pod.sidecar_flags.push("--load-retry=1s500ms".into());
    let began = Instant::now();
    let (_sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let status = wait_missing(&pod, &[&broken]);
    assert_eq!(
        (&status["phase"], &status["blocks"]["missing_total"]),
        (&"serving".into(), &1.into())
    );
    let restarts = status["restarts"].as_u64().unwrap();
    // Several syncs later nothing has changed, and a change of the window does not wait for the
    // block.
    let settled = Instant::now();
    while settled.elapsed() < Duration::from_secs(1) {
        assert_eq!(missing(&pod.status().unwrap()).unwrap(), [broken.as_str()]);
        support::pause();
    }
    pod.publish("-20d", "1d");
    assert_eq!(pod.wait("serving", "-20d")["restarts"], restarts + 1);
    wait_missing(&pod, &[&broken]);
    pod.breaks(&broken, false);
    assert_eq!(wait_missing(&pod, &[])["restarts"], restarts + 1);
    let healed = |logs: &str| {
        logs.matches("thanos has loaded all blocks of its window")
            .count()
    };
    wait_for("the line that says so", || {
        Some(pod.logs())
            .filter(|logs| healed(logs) > 0)
            .ok_or_else(String::new)
    });
    let logs = pod.logs();
    assert_eq!(healed(&logs), 1, "{logs}");
    assert!(
        logs.matches("thanos has not loaded all blocks").count() <= 3 && logs.contains(&broken),
        "{logs}"
    );
}

/// Thanos syncs again as soon as it is ready; a block that this sync loads needs no restart.
#[test]
fn the_second_sync_is_awaited() {
    let pod = pod(&["--stand-in-second-sync-after-ms=2500"]);
    let broken = pod.block(2, &[]);
    pod.breaks(&broken, true);
    let (_sidecar, _launcher) = pod.start();
    wait_for("thanos", || {
        get(pod.http, "/-/ready")
            .and_then(|(code, _)| (code == 200).then_some(()).ok_or(code.to_string()))
    });
    pod.breaks(&broken, false);
    assert_eq!(wait_missing(&pod, &[])["restarts"], 0);
}

/// 902 was compacted from the blocks of two days, which stay in the bucket until a compactor
/// deletes them.
#[test]
fn a_compaction_whose_result_cannot_be_loaded_names_only_the_result() {
    let mut pod = pod(&["--stand-in-sync-every-ms=300"]);
    for age in [1, 2, 3] {
        pod.block(age, &[]);
    }
    pod.sidecar_flags.push("--load-retry=0s".into());
    let (_sidecar, _launcher) = pod.start();
    wait_missing(&pod, &[]);
    pod.breaks("01K1H8R1000000000000000902", true);
    let meta = std::fs::read_to_string(pod.path("bucket/01K1H8R1000000000000000002.json")).unwrap();
    let mut meta: Value = serde_json::from_str(&meta).unwrap();
    meta["compaction"]["sources"] =
        json!(["01K1H8R1000000000000000002", "01K1H8R1000000000000000003"]);
    meta["minTime"] = (meta["minTime"].as_i64().unwrap() - 86_400_000).into();
    std::fs::write(
        pod.path("bucket/01K1H8R1000000000000000902.json"),
        meta.to_string(),
    )
    .unwrap();
    let status = wait_missing(&pod, &["01K1H8R1000000000000000902"]);
    assert_eq!(
        (&status["blocks"]["expected"], &status["blocks"]["loaded"]),
        (&2.into(), &1.into())
    );
    pod.breaks("01K1H8R1000000000000000902", false);
    assert_eq!(wait_missing(&pod, &[])["blocks"]["loaded"], 2);
}

#[test]
fn what_cannot_be_known_is_said_and_delays_nothing() {
    const LAZY: [&str; 2] = [
        "--store.enable-index-header-lazy-reader",
        "--store.index-header-lazy-download-strategy=lazy",
    ];
    for (flags, why) in [
        (&LAZY[..], "downloads index headers lazily"),
        (&["--no-cache-index-header"], "--no-cache-index-header"),
        (&["--stand-in-unauthorized"], "/-/ready answers 401"),
        (&["--data-dir=/proc/no-such-directory"], "cannot be listed"),
    ] {
        let mut pod = pod(flags);
        pod.command.retain(|arg| {
            !flags[0].starts_with("--data-dir")
                || arg.to_str() == Some(flags[0])
                || !arg.to_string_lossy().starts_with("--data-dir")
        });
        let broken = pod.block(2, &[]);
        pod.breaks(&broken, true);
        let (_sidecar, _launcher) = pod.start();
        let status = wait_for(why, || {
            let status = pod.status()?;
            let said = status["blocks_unknown"]
                .as_str()
                .is_some_and(|unknown| unknown.contains(why));
            if said && pod.ready() {
                Ok(status)
            } else {
                Err(format!("{status}\n{}", pod.logs()))
            }
        });
        assert_eq!(
            (&status["blocks"], &status["restarts"]),
            (&Value::Null, &0.into()),
            "{status}"
        );
    }
}

fn numbered(pod: &mut Pod, min: &str, rest: &str) {
    pod.swap(&[(
        &format!("{POD}.yaml"),
        &format!("shard: 0\nreplica: 0\nmin_time: {min}\nmax_time: 1d\n{rest}"),
    )]);
}

#[test]
fn an_edit_and_a_backup_make_no_pod_unready() {
    let mut pod = Pod::stand_in(&[]);
    numbered(&mut pod, "-30d", "generation: 7\n");
    let (sidecar, _launcher) = pod.start();
    assert_eq!(pod.wait("serving", "-30d")["generation"], 7);
    for rest in ["generation: 7\n", "generation: 6\n", ""] {
        numbered(&mut pod, "-40d", rest);
        wait_for("the refusal", || {
            assert!(pod.ready());
            let status = pod.status()?;
            let error = status["last_error"].as_str().unwrap_or_default();
            let named = error.contains("-40d")
                && error.contains("generation 7")
                && error.contains(rest.trim().trim_start_matches("generation: "));
            named.then_some(()).ok_or(status.to_string())
        });
    }
    let (_, metrics) = get(pod.port, "/metrics").unwrap();
    assert!(
        metrics.contains("timeshard_agent_entry_errors_total 3"),
        "{metrics}"
    );
    // The same with a sidecar that has just started.
    drop(sidecar);
    let _sidecar = pod.sidecar();
    pod.wait_started();
    let status = pod.wait("serving", "-30d");
    assert_eq!(
        (&status["generation"], &status["restarts"]),
        (&7.into(), &0.into())
    );
    numbered(&mut pod, "-40d", "generation: 8\norder: 3\n");
    let status = pod.wait("serving", "-40d");
    assert_eq!(
        (
            &status["generation"],
            &status["order"],
            &status["last_error"]
        ),
        (&8.into(), &3.into(), &Value::Null)
    );
}

#[test]
fn a_drain_goes_on_after_a_restart_and_ends_when_it_is_released() {
    let mut pod = Pod::stand_in(&[]);
    pod.sidecar_flags[0] = "--drain=1h".into();
    numbered(&mut pod, "-30d", "generation: 7\n");
    let (sidecar, _launcher) = pod.start();
    pod.wait("serving", "-30d");
    numbered(&mut pod, "-40d", "generation: 8\norder: 3\n");
    pod.wait("draining", "-30d");
    drop(sidecar);
    let _sidecar = pod.sidecar();
    pod.wait_started();
    pod.wait("draining", "-30d");
    numbered(&mut pod, "-40d", "generation: 9\norder: 3\nreleased: 2\n");
    wait_for("the entry", || {
        pod.status().and_then(|status| {
            (status["generation"] == 9)
                .then_some(())
                .ok_or(status.to_string())
        })
    });
    pod.wait("draining", "-30d");
    numbered(&mut pod, "-40d", "generation: 10\norder: 3\nreleased: 3\n");
    assert_eq!(pod.wait("serving", "-40d")["restarts"], 1);
}
