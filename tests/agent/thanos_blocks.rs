//! The agent with a real `thanos store` on a bucket with an unreadable index. Set
//! `TIMESHARD_TEST_THANOS` to its path, and have promtool on PATH (Debian's package prometheus);
//! skipped otherwise.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{self, Pod, get, missing, real_thanos, wait_for, wait_missing};
use serde_json::Value;

const DAY: i64 = 86_400;
/// Blocks of the bucket, one for each day.
const DAYS: i64 = 20;

fn run(program: &Path, args: &[&str]) {
    let done = Command::new(program).args(args).output().unwrap();
    assert!(
        done.status.success(),
        "{}: {}",
        program.display(),
        String::from_utf8_lossy(&done.stderr)
    );
}

fn config_of(bucket: &Path) -> String {
    let file = bucket.with_extension("yaml");
    fs::write(
        &file,
        format!(
            "type: FILESYSTEM\nconfig: {{directory: {}}}\n",
            bucket.display()
        ),
    )
    .unwrap();
    file.display().to_string()
}

/// A pod with a bucket of [`DAYS`] blocks, in the order of their time.
fn pod(flags: &[&str]) -> Option<(Pod, Vec<String>)> {
    let thanos = real_thanos()?;
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("skipped: there is no promtool");
        return None;
    }
    let mut pod = Pod::new(&thanos);
    let midnight = thanos_timeshard::adapters::clock::unix_seconds() / DAY * DAY;
    let mut samples = "# TYPE x gauge\n".to_owned();
    for hour in (0..DAYS)
        .rev()
        .flat_map(|age| [0, 1].map(|half| midnight - (age + 1) * DAY + half * 1800))
    {
        writeln!(samples, "x 1 {hour}").unwrap();
    }
    fs::write(pod.path("samples"), samples + "# EOF\n").unwrap();
    let (blocks, config) = (pod.path("blocks"), config_of(&pod.path("bucket")));
    fs::create_dir(&blocks).unwrap();
    run(
        Path::new("promtool"),
        &[
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            pod.path("samples").to_str().unwrap(),
            blocks.to_str().unwrap(),
        ],
    );
    let path = format!("--path={}", blocks.display());
    run(
        &thanos,
        &[
            "tools",
            "bucket",
            "upload-blocks",
            &path,
            "--label=cluster=\"e2e\"",
            &format!("--objstore.config-file={config}"),
        ],
    );
    pod.command
        .push(format!("--data-dir={}", pod.path("data").display()).into());
    pod.command
        .push(format!("--objstore.config-file={config}").into());
    pod.command.extend(flags.iter().map(Into::into));
    pod.publish("-100d", "1d");
    let blocks = blocks_of(&pod.path("bucket"));
    assert_eq!(blocks.len(), usize::try_from(DAYS).unwrap());
    Some((pod, blocks))
}

fn blocks_of(bucket: &Path) -> Vec<String> {
    let mut blocks: Vec<String> = fs::read_dir(bucket)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    blocks.retain(|name| name.len() == 26);
    blocks.sort();
    blocks
}

fn index(pod: &Pod, block: &str) -> (PathBuf, PathBuf) {
    let index = pod.path("bucket").join(block).join("index");
    (index.clone(), index.with_extension("away"))
}

fn breaks(pod: &Pod, block: &str) {
    let (index, away) = index(pod, block);
    fs::rename(index, away).unwrap();
}

fn heals(pod: &Pod, block: &str) {
    let (index, away) = index(pod, block);
    fs::rename(away, index).unwrap();
}

#[test]
fn an_index_that_cannot_be_read_for_a_moment_is_loaded_before_the_pod_is_ready() {
    let Some((pod, blocks)) = pod(&[]) else {
        return;
    };
    breaks(&pod, &blocks[7]);
    let (_sidecar, _launcher) = pod.start();
    wait_for("a retry", || {
        assert!(!pod.ready());
        (pod.record()["restarts"].as_u64() >= Some(1))
            .then_some(())
            .ok_or(pod.logs())
    });
    heals(&pod, &blocks[7]);
    let status = wait_missing(&pod, &[]);
    let counts = (
        &status["blocks"]["expected"],
        &status["blocks"]["loaded"],
        &status["blocks"]["bucket"]["total"],
    );
    assert_eq!(counts, (&DAYS.into(), &DAYS.into(), &DAYS.into()));
}

#[test]
fn a_broken_index_is_named_and_a_later_sync_heals_it() {
    let Some((mut pod, blocks)) = pod(&["--sync-block-duration=1s"]) else {
        return;
    };
    breaks(&pod, &blocks[7]);
    pod.sidecar_flags.push("--load-retry=2s".into());
    let (_sidecar, _launcher) = pod.start();
    let status = wait_missing(&pod, &[&blocks[7]]);
    let block = &status["blocks"]["missing"][0];
    assert!(
        block["min_time"].as_str() < block["max_time"].as_str(),
        "{block}"
    );
    let restarts = status["restarts"].clone();
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_secs(5) {
        let status = pod.status().unwrap();
        assert_eq!(missing(&status).unwrap(), [blocks[7].as_str()], "{status}");
        support::pause();
    }
    // A narrower window has fewer blocks; the missing one stays missing.
    pod.publish("-18d", "1d");
    pod.wait("serving", "-18d");
    let status = wait_missing(&pod, &[&blocks[7]]);
    assert!(
        status["blocks"]["bucket"]["older"].as_u64() >= Some(1),
        "{status}"
    );
    heals(&pod, &blocks[7]);
    assert_eq!(
        wait_missing(&pod, &[])["restarts"].as_u64(),
        restarts.as_u64().map(|n| n + 1)
    );
    // The bucket cannot be listed: no sync succeeds. Thanos then expects no blocks, which must not
    // hide the missing one.
    let before = pod.status().unwrap()["blocks"]["last_sync_unix_seconds"]
        .as_i64()
        .unwrap();
    let odd = pod.path("bucket/01K1H8R1000000000000000902");
    fs::create_dir(&odd).unwrap();
    symlink("meta.json", odd.join("meta.json")).unwrap();
    wait_for("failed syncs", || {
        let (_, text) = get(pod.http, "/metrics")?;
        let line = text
            .lines()
            .find(|line| line.starts_with("thanos_blocks_meta_sync_failures_total"))
            .unwrap();
        line.ends_with(|digit: char| ('2'..='9').contains(&digit))
            .then_some(())
            .ok_or(line.to_owned())
    });
    let status = pod.status().unwrap();
    assert_eq!(missing(&status), Some(vec![]), "{status}");
    let during = status["blocks"]["last_sync_unix_seconds"].as_i64().unwrap();
    fs::remove_dir_all(&odd).unwrap();
    wait_for("a sync", || {
        let status = pod.status()?;
        (status["blocks"]["last_sync_unix_seconds"].as_i64() > Some(during.max(before)))
            .then_some(())
            .ok_or(status.to_string())
    });
}

/// As the compactor leaves it: the result, and its sources for another two days.
#[test]
fn a_compacted_block_that_cannot_be_loaded_is_named_and_its_sources_are_not() {
    let Some((mut pod, sources)) = pod(&["--sync-block-duration=1s"]) else {
        return;
    };
    pod.sidecar_flags.push("--load-retry=0s".into());
    let (_sidecar, _launcher) = pod.start();
    wait_missing(&pod, &[]);
    let (bucket, compacted) = (pod.path("bucket"), pod.path("compacted"));
    run(
        Path::new("cp"),
        &["-r", bucket.to_str().unwrap(), compacted.to_str().unwrap()],
    );
    let work = format!("--data-dir={}", pod.path("compact").display());
    let config = format!("--objstore.config-file={}", config_of(&compacted));
    run(
        &real_thanos().unwrap(),
        &[
            "compact",
            &work,
            &config,
            "--consistency-delay=0s",
            "--http-address=127.0.0.1:0",
        ],
    );
    let made = blocks_of(&compacted)
        .into_iter()
        .filter(|block| !sources.contains(block));
    let results: Vec<String> = made
        .filter(|block| !compacted.join(block).join("deletion-mark.json").exists())
        .collect();
    let result = results.first().expect("something was compacted");
    let meta: Value =
        serde_json::from_slice(&fs::read(compacted.join(result).join("meta.json")).unwrap())
            .unwrap();
    let replaced = meta["compaction"]["sources"].as_array().unwrap().len();
    fs::rename(
        compacted.join(result).join("index"),
        compacted.join(result).join("index.away"),
    )
    .unwrap();
    fs::rename(compacted.join(result), bucket.join(result)).unwrap();
    let status = wait_missing(&pod, &[result]);
    assert_eq!(
        status["blocks"]["expected"].as_u64(),
        Some(sources.len() as u64 - replaced as u64 + 1),
        "{status}"
    );
    heals(&pod, result);
    wait_missing(&pod, &[]);
}

#[test]
fn a_thanos_that_shows_nothing_is_reported() {
    for (flags, why) in [
        (
            &[
                "--store.enable-index-header-lazy-reader",
                "--store.index-header-lazy-download-strategy=lazy",
            ][..],
            "lazily",
        ),
        (&["--no-cache-index-header"], "--no-cache-index-header"),
    ] {
        let Some((pod, _)) = pod(flags) else { return };
        let (_sidecar, _launcher) = pod.start();
        wait_for(why, || {
            let status = pod.status()?;
            let said = status["blocks_unknown"]
                .as_str()
                .is_some_and(|unknown| unknown.contains(why));
            if said && pod.ready() {
                Ok(())
            } else {
                Err(format!("{status}\n{}", pod.logs()))
            }
        });
    }
    // Lazily mapped headers are still downloaded at load.
    let Some((pod, blocks)) = pod(&[
        "--store.enable-index-header-lazy-reader",
        "--sync-block-duration=1s",
    ]) else {
        return;
    };
    breaks(&pod, &blocks[3]);
    let (_sidecar, _launcher) = pod.start();
    wait_for("a retry", || {
        (pod.record()["restarts"].as_u64() >= Some(1))
            .then_some(())
            .ok_or(pod.logs())
    });
    heals(&pod, &blocks[3]);
    wait_missing(&pod, &[]);
}

/// Thanos deletes the folders outside its window, ignores the kept headers, and takes those that
/// come back for its own.
#[test]
fn a_rollback_downloads_no_index_header_again() {
    let Some((mut pod, _)) = pod(&[]) else { return };
    pod.publish("-100d", "-10d12h");
    let (_sidecar, _launcher) = pod.start();
    let loaded = |pod: &Pod, min: &str| {
        wait_for(&format!("a load from {min}"), || {
            let status = pod.status()?;
            let load = &status["last_load"];
            let counts = load["blocks"].as_u64().zip(load["blocks_new"].as_u64());
            counts
                .filter(|_| load["min_time"] == min && status["phase"] == "serving")
                .ok_or_else(|| format!("{status}\n{}", pod.logs()))
        })
    };
    let (all, new) = loaded(&pod, "-100d");
    assert!(all > 5 && all == new, "{all} {new}");
    pod.publish("-5d12h", "1d");
    let (few, new) = loaded(&pod, "-5d12h");
    assert!(few < all && new == few, "{few} {new}");
    let folders = || blocks_of(&pod.path("data")).len() as u64;
    assert_eq!(folders(), few);
    // A header that is cut off, as after a crash of the node, is made again.
    let kept = pod.path("data/timeshard-kept");
    let some = fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(&some).unwrap();
    fs::write(&some, "cut").unwrap();
    pod.publish("-99d", "-10d12h");
    assert_eq!(loaded(&pod, "-99d"), (all, 0));
    wait_missing(&pod, &[]);
}
