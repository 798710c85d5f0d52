//! How long a window takes to load, and index headers that stay for a rollback: sidecar, launcher
//! and stand-in on a real data directory.

use std::fs;

use crate::support::{Pod, wait_for};
use serde_json::Value;

/// Blocks that ended 1 to 9 days ago.
fn pod() -> Pod {
    let pod = Pod::stand_in(&[]);
    for age in 1..10 {
        pod.block(age, &[]);
    }
    pod
}

/// Publishes a window and waits for its measured load; returns the loaded and the downloaded blocks.
fn load(pod: &mut Pod, min: &str, max: &str) -> (Value, Value) {
    pod.publish(min, max);
    loaded(pod, min)
}

fn loaded(pod: &Pod, min: &str) -> (Value, Value) {
    wait_for(&format!("a load from {min}"), || {
        let status = pod.status()?;
        let load = &status["last_load"];
        let done = status["phase"] == "serving" && load["min_time"] == min;
        if done
            && load["seconds"]
                .as_f64()
                .is_some_and(|seconds| seconds < 60.0)
        {
            Ok((load["blocks"].clone(), load["blocks_new"].clone()))
        } else {
            Err(format!("{status}\n{}", pod.logs()))
        }
    })
}

#[test]
fn a_load_is_measured_and_a_rollback_downloads_nothing() {
    let mut pod = pod();
    pod.publish("-30d", "-5d12h");
    let (mut sidecar, _launcher) = pod.start();
    assert_eq!(loaded(&pod, "-30d"), (5.into(), 5.into()));
    assert_eq!(load(&mut pod, "-4d12h", "1d"), (4.into(), 4.into()));
    assert_eq!(load(&mut pod, "-29d", "-5d12h"), (5.into(), 0.into()));
    // Of the last two windows; the third is gone.
    assert_eq!(load(&mut pod, "-7d12h", "1d"), (7.into(), 0.into()));
    assert_eq!(load(&mut pod, "-3d12h", "1d"), (3.into(), 0.into()));
    assert_eq!(load(&mut pod, "-31d", "1d"), (9.into(), 2.into()));
    sidecar.kill();
    let _sidecar = pod.sidecar();
    assert_eq!(loaded(&pod, "-31d"), (9.into(), 2.into()));
}

#[test]
fn nothing_is_kept_where_that_is_switched_off() {
    let mut pod = pod();
    pod.launch_flags.push("--keep-headers=0s".into());
    let kept = pod.path("data").join("timeshard-kept");
    fs::create_dir_all(&kept).unwrap();
    pod.publish("-30d", "-5d12h");
    let (_sidecar, _launcher) = pod.start();
    assert_eq!(loaded(&pod, "-30d"), (5.into(), 5.into()));
    assert!(!kept.exists());
    assert_eq!(load(&mut pod, "-4d12h", "1d"), (4.into(), 4.into()));
    assert_eq!(load(&mut pod, "-29d", "-5d12h"), (5.into(), 5.into()));
    assert!(!kept.exists());
}

#[test]
fn an_old_window_is_not_kept() {
    let mut pod = pod();
    pod.launch_flags.push("--keep-headers=1ms".into());
    let kept = pod.path("data").join("timeshard-kept");
    pod.publish("-30d", "-5d12h");
    let (_sidecar, _launcher) = pod.start();
    loaded(&pod, "-30d");
    load(&mut pod, "-4d12h", "1d");
    // The list of blocks that follows a load drops them.
    wait_for("the end of the kept headers", || {
        if kept.exists() {
            Err(pod.logs())
        } else {
            Ok(())
        }
    });
}

#[test]
fn without_index_headers_only_the_time_is_measured() {
    let mut pod = Pod::stand_in(&["--no-cache-index-header"]);
    pod.block(1, &[]);
    pod.publish("-30d", "1d");
    let (_sidecar, _launcher) = pod.start();
    assert_eq!(loaded(&pod, "-30d").1, Value::Null);
}
