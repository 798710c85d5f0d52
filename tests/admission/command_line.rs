//! The command line as scripts see it: exit codes, what goes where, and an independent check of
//! plans.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use proptest::test_runner::{RngAlgorithm, TestRng};
use rand::RngExt as _;
use serde_json::Value;

use thanos_timeshard::core::config::{Config, SHARDING_KEYS};
use thanos_timeshard::core::model::names;
use thanos_timeshard::core::plan::Plan;

use crate::server::TIMESHARD;

/// Random configurations that the program plans as well; the library plans all.
const PRINTED_SEEDS: u8 = 6;

pub(crate) fn timeshard(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(TIMESHARD)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its flags does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn plan(config: &str, more: &[&str]) -> Value {
    let output = timeshard(
        &[
            &[
                "plan",
                "--config=-",
                "-o",
                "json",
                "--at=2026-11-21T00:00:00Z",
            ],
            more,
        ]
        .concat(),
        config,
    );
    assert!(
        output.status.success(),
        "{config}: {}",
        text(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn seconds(stamp: &Value) -> i64 {
    chrono::DateTime::parse_from_rfc3339(stamp.as_str().unwrap())
        .unwrap()
        .timestamp()
}

/// From the JSON alone: every instant from `now - retention` to `now + buffer` has at least `least`
/// pods.
fn assert_covered(plan: &Value, buffer: i64, least: usize) {
    let windows: Vec<(i64, i64)> = plan["pods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| (seconds(&pod["from"]), seconds(&pod["to"])))
        .collect();
    assert_held(
        &windows,
        plan["retention_seconds"]
            .as_i64()
            .unwrap_or(100 * 365 * 86_400),
        buffer,
        least,
        &plan.to_string(),
    );
}

/// The moment at which plans are made.
fn now() -> chrono::DateTime<chrono::Utc> {
    "2026-11-21T00:00:00Z".parse().unwrap()
}

/// Every instant of the retention, and of the buffer after now, lies in at least `least` of the
/// windows.
fn assert_held(windows: &[(i64, i64)], retention: i64, buffer: i64, least: usize, what: &str) {
    let now = now().timestamp();
    let (from, to) = (now - retention, now + buffer);
    let mut instants: Vec<i64> = windows
        .iter()
        .flat_map(|(a, b)| [a - 1, *a, *b, b + 1])
        .chain([from, to])
        .collect();
    instants.retain(|instant| (from..=to).contains(instant));
    for instant in instants {
        let holders = windows
            .iter()
            .filter(|(a, b)| (*a..=*b).contains(&instant))
            .count();
        assert!(holders >= least, "{holders} pods at {instant}: {what}");
    }
}

#[test]
fn the_compatibility_configuration_gives_the_documented_windows() {
    let config = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/config.yaml"
    ))
    .unwrap();
    let plan = plan(&config, &[]);
    let pods = plan["pods"].as_array().unwrap();
    let rows: Vec<_> = pods
        .iter()
        .map(|p| {
            (
                p["shard"].as_u64().unwrap(),
                p["replica"].as_u64().unwrap(),
                p["min_time"].as_str().unwrap(),
                p["max_time"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            (0, 0, "-124d8h", "1d"),
            (0, 1, "-124d8h", "1d"),
            (1, 0, "-247d16h", "-123d8h"),
            (1, 1, "-247d16h", "-123d8h"),
            (2, 0, "-370d", "-246d16h"),
            (2, 1, "-370d", "-246d16h"),
        ]
    );
    assert_eq!(plan["pods"][0]["pod"], "thanos-store-gateway-0");
    assert_eq!(
        (&plan["warnings"], plan["retention_seconds"].as_i64()),
        (&Value::Array(Vec::new()), Some(370 * 86_400))
    );
}

#[test]
fn random_configurations_cover_every_instant() {
    for seed in 0..150_u8 {
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let (shards, replicas) = (rng.random_range(1..20), rng.random_range(1..4));
        let (days, buffer) = (rng.random_range(30..1000), rng.random_range(0..72));
        let overlap = rng.random_range(30..3_000);
        let config = format!(
            "sharding: {{total_shards: {shards}, replicas_per_shard: {replicas}, data_retention_days: {days}, overlap: {overlap}m, future_buffer_hours: {buffer}}}"
        );
        let pods: u32 = rng.random_range(1..60);
        if seed < PRINTED_SEEDS {
            assert_covered(&plan(&config, &[]), buffer * 3_600, replicas);
            assert_covered(
                &plan(&config, &["--replicas", &pods.to_string()]),
                buffer * 3_600,
                1,
            );
        }
        let sharding = Config::parse(&config, "test").unwrap().sharding;
        let covered = |pods: u32, least: usize| {
            let (plan, now) = (Plan::new(&sharding, Some(pods)), now());
            let windows = (0..pods).map(|pod| plan.window(plan.assign(pod).shard, now));
            let seconds: Vec<_> = windows
                .map(|window| {
                    (
                        window.min.at(now).timestamp(),
                        window.max.at(now).timestamp(),
                    )
                })
                .collect();
            assert_held(&seconds, days * 86_400, buffer * 3_600, least, &config);
        };
        covered(sharding.nominal_pods().unwrap(), replicas);
        covered(pods, 1);
    }
}

#[test]
fn for_ever_leaves_the_oldest_window_open_and_a_negative_buffer_ends_the_newest_before_now() {
    const OPEN: &str = "0000-01-01T00:00:00Z";
    let config = "sharding: {retention: forever, boundaries: [14d, 90d], future_buffer: -22h}";
    let open = plan(config, &[]);
    assert_eq!(open["retention_seconds"], Value::Null);
    assert!(open.as_object().unwrap().contains_key("retention_seconds"));
    let windows: Vec<_> = open["pods"]
        .as_array()
        .unwrap()
        .iter()
        .step_by(2)
        .map(|pod| [&pod["min_time"], &pod["max_time"]])
        .collect();
    assert_eq!(
        windows,
        [["-15d", "-22h"], ["-91d", "-14d"], [OPEN, "-90d"]]
    );
    assert_eq!(
        (&open["pods"][4]["from"], &open["pods"][0]["to"]),
        (&OPEN.into(), &"2026-11-20T02:00:00Z".into())
    );
    assert_covered(&open, -22 * 3_600, 2);
    // Fewer pods than shards: the oldest of them is open.
    for pods in 1..9 {
        assert_covered(
            &plan(config, &["--replicas", &pods.to_string()]),
            -22 * 3_600,
            1,
        );
    }
    let absolute = plan(
        "sharding: {retention: forever, boundaries: [14d], window_format: absolute, future_buffer_hours: -2}",
        &[],
    );
    assert_eq!(
        (
            &absolute["pods"][2]["min_time"],
            &absolute["pods"][2]["max_time"]
        ),
        (&OPEN.into(), &"2026-11-07T00:00:00Z".into())
    );
    let table = text(&timeshard(&["plan", "--config=-"], config).stdout);
    for words in [
        "the beginning",
        "forever retention",
        "-22h future buffer (the newest window ends before now)",
        "\n         older  ",
        "at least 2 pods",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let svg = text(&timeshard(&["plan", "--config=-", "-o", "svg"], config).stdout);
    assert!(
        svg.contains("3 shards over all time") && svg.contains(">\nolder\n<"),
        "{svg}"
    );
    let set = "kind: StatefulSet\nmetadata: {name: s, annotations: {thanos-timeshard.io/retention: forever, thanos-timeshard.io/boundaries: '[30d]', thanos-timeshard.io/future-buffer: -2h}}\n\
        spec: {replicas: 4, template: {spec: {containers: [{name: t, image: thanos, args: [store]}]}}}";
    let output = timeshard(&["inject", "-f", "-", "-o", "patch"], set);
    let patches = text(&output.stdout);
    for words in [
        "--max-time=-2h",
        "--min-time=-31d",
        "--min-time=0000-01-01T00:00:00Z",
        "--max-time=-30d",
    ] {
        assert!(
            patches.contains(words),
            "{words}: {patches} {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn ten_thousand_pods_are_planned() {
    let plan = plan("sharding: {total_shards: 5000}", &[]);
    assert_eq!(plan["pods"].as_array().unwrap().len(), 10_000);
    let table = timeshard(
        &["plan", "--config=-"],
        "sharding: {total_shards: 10000, replicas_per_shard: 1}",
    );
    assert!(
        text(&table.stdout).contains("every instant is served by at least 1 pod\n"),
        "{}",
        text(&table.stdout)
    );
}

#[test]
fn other_outputs_hold_the_same_plan() {
    let yaml = timeshard(&["plan", "-o", "yaml", "--at", "2026-11-21T00:00:00Z"], "");
    let yaml: Value = serde_saphyr::from_str(&text(&yaml.stdout)).unwrap();
    assert_eq!(yaml, plan("sharding: {total_shards: 3}", &[]));
    let svg = text(&timeshard(&["plan", "-o", "svg"], "").stdout);
    assert!(
        svg.starts_with("<svg") && svg.contains("shard 2 · 2 pods") && svg.contains("role=\"img\""),
        "{svg}"
    );
    let table = text(&timeshard(&["plan"], "").stdout);
    assert!(
        table.contains("-247d16h") && table.contains("every instant is served by at least 2 pods"),
        "{table}"
    );
}

/// Expects exit code 2, this text on standard error and nothing on standard output.
fn assert_refused(args: &[&str], input: &str, words: &str) {
    let output = timeshard(args, input);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.contains(words), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?}");
}

#[test]
fn bad_input_of_plan_exits_with_2_and_a_sentence() {
    for (args, input, words) in [
        (
            vec!["plan", "--config=-"],
            "sharding: {total_shards: 0}",
            "standard input:1:26: sharding.total_shards: 0",
        ),
        (
            vec!["plan", "--config=/nonexistent"],
            "",
            "/nonexistent: cannot be read",
        ),
        (
            vec!["plan", "--config=-"],
            "sharding: {total_shards: auto}",
            "--replicas N",
        ),
        (
            vec!["plan", "--config=-"],
            "sharding:\n  retention: forever",
            "standard input:2:14: sharding.retention: forever cannot be split into equal shards",
        ),
        (
            vec!["plan", "--config=-"],
            "sharding: {retention: for ever}",
            "or forever",
        ),
        (
            vec!["plan", "--config=-"],
            "sharding: {future_buffer: -22h, boundaries: [22h]}",
            "standard input:1:27: sharding.future_buffer: the newest window would begin at an age of 22h and end at 22h, but must be at least 30m long",
        ),
        (
            vec!["plan", "--config=-"],
            "sharding: {future_buffer_hours: -9000}",
            "the newest window would begin at an age of 123d8h and end at 375d",
        ),
        (
            vec!["plan", "--config=-", "--replicas=6"],
            "sharding: {future_buffer: -371d, total_shards: auto}",
            "the newest window would begin",
        ),
        (vec!["plan", "--at", "yesterday"], "", "RFC 3339"),
        (vec!["plan", "--replicas", "-1"], "", "--replicas"),
        (vec!["plan", "--from", "x"], "", "--from"),
    ] {
        assert_refused(&args, input, words);
    }
}

#[test]
fn bad_input_of_other_commands_exits_with_2_and_a_sentence() {
    for (args, input, words) in [
        (
            vec!["inject", "-f", "-"],
            "kind: StatefulSet\nmetadata: {name: x, annotations: {thanos-timeshard.io/retention: forever}}",
            "annotation thanos-timeshard.io/retention:1:1: retention: forever cannot be split",
        ),
        (vec!["inject"], "", "--filename"),
        (
            vec!["inject", "-f", "-"],
            "",
            "contains no Kubernetes object",
        ),
        (vec!["inject", "-f", "-"], "a: [", "standard input:"),
        (vec!["inject", "-f", "-"], "just text", "has no kind"),
        (
            vec!["inject", "-f", "-"],
            "kind: StatefulSet\nspec: {replicas: 200000}\nmetadata: {name: x}",
            "spec.replicas is 200000",
        ),
        (
            vec!["inject", "-f", "-"],
            "kind: StatefulSet\nmetadata: {name: x, annotations: {thanos-timeshard.io/total-shards: '0'}}",
            "annotation thanos-timeshard.io/total-shards:1:1",
        ),
        (
            vec!["serve", "--webhook-only", "--cert-dir=/nonexistent"],
            "",
            "/nonexistent/tls.crt",
        ),
        (
            vec!["serve", "--webhook-only", "--config=-"],
            "",
            "must be a file",
        ),
        (vec!["frobnicate"], "", "frobnicate"),
    ] {
        assert_refused(&args, input, words);
    }
}

#[test]
fn the_exit_code_of_plan_is_for_gaps_and_warnings() {
    for (args, config, code, words) in [
        (vec![], "sharding: {total_shards: 3}", 0, ""),
        (
            vec!["--replicas=2"],
            "sharding: {total_shards: 3}",
            3,
            "--exit-code: 2 warnings",
        ),
        (
            vec!["-o", "json"],
            "sharding: {replicas_per_shard: 1}",
            3,
            "--exit-code: 1 warning",
        ),
    ] {
        let all = [&["plan", "--config=-", "--exit-code"], &args[..]].concat();
        let output = timeshard(&all, config);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(
            said.contains(words) && !output.stdout.is_empty(),
            "{args:?}: {said}"
        );
        let without = timeshard(&[&["plan", "--config=-"], &args[..]].concat(), config);
        assert_eq!(without.status.code(), Some(0), "{args:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let old = file(
        "old.yaml",
        "sharding: {total_shards: 2, replicas_per_shard: 1}",
    );
    let new = file(
        "new.yaml",
        "sharding: {total_shards: 3, replicas_per_shard: 1}",
    );
    let blocked = timeshard(&["plan", "--from", &old, "--to", &new, "--exit-code"], "");
    let said = text(&blocked.stderr);
    assert_eq!(blocked.status.code(), Some(3), "{said}");
    assert!(
        said.contains("--exit-code: the rollout would leave a gap, "),
        "{said}"
    );
}

#[test]
fn every_command_has_help() {
    for command in [
        "plan",
        "inject",
        "demo",
        "status",
        "check",
        "dashboard",
        "reshard",
        "pause",
        "resume",
        "scale-down",
        "version",
        "completion",
        "serve",
    ] {
        let output = timeshard(&[command, "--help"], "");
        assert!(
            output.status.success()
                && text(&output.stdout).contains(&format!("Usage: timeshard {command}"))
                && text(&output.stdout).contains("Examples:\n"),
            "{command}"
        );
    }
    assert!(
        text(&timeshard(&["serve", "--help"], "").stdout).contains("[env: TIMESHARD_CERT_DIR=")
    );
    for command in ["plan", "inject", "serve"] {
        let help = text(&timeshard(&[command, "--help"], "").stdout);
        let keys = SHARDING_KEYS.map(|key| key.replace('_', "-"));
        let names = [
            names::TARGET_REPLICAS,
            names::PAUSE,
            names::INJECT,
            names::COMMAND_ANNOTATION,
            names::REPLACE_TIME_FLAGS,
        ]
        .map(|name| name.strip_prefix(names::PREFIX).unwrap().to_owned());
        for word in keys
            .iter()
            .chain(&names)
            .map(String::as_str)
            .chain([names::NAMESPACE_LABEL, "y, w, d, h, m, s, ms"])
        {
            assert!(help.contains(word), "{command}: {word}");
        }
    }
}
