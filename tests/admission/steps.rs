//! `plan --from OLD --to NEW` as a reviewer's program sees it: an independent checker, from the
//! documents alone.

use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::TIMESHARD;
use checker::{Kept, check};

mod checker;
mod random;

const AT: &str = "--at=2026-11-21T00:00:00Z";

/// Two configuration files.
struct Pair(TempDir);

impl Pair {
    fn new(old: &str, new: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("old.yaml"), old).unwrap();
        std::fs::write(dir.path().join("new.yaml"), new).unwrap();
        Self(dir)
    }

    fn plan(&self, args: &[&str]) -> Output {
        Command::new(TIMESHARD)
            .arg("plan")
            .arg(AT)
            .args(args)
            .current_dir(&self.0)
            .output()
            .unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.plan(&[&["-o", "json"], args].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn rollout(&self, more: &[&str]) -> Value {
        self.json(&[&["--from=old.yaml", "--to=new.yaml"], more].concat())
    }

    fn table(&self, more: &[&str]) -> (String, String) {
        let output = self.plan(&[&["--from=old.yaml", "--to=new.yaml"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let pair = Pair::new("sharding: {total_shards: 3}", "sharding: {total_shards: 4}");
    let all = ["--replicas", "8"];
    let old = pair.json(&["--config=old.yaml", all[0], all[1]]);
    let new = pair.json(&["--config=new.yaml", all[0], all[1]]);
    let good = pair.rollout(&[]);
    assert_eq!(
        check(&old, &new, &good, 86_400, Kept::HeldBeforeTheStep),
        Ok(())
    );
    let at_once = json!({"steps": [{"pods": new["pods"]}]});
    assert!(
        check(&old, &new, &at_once, 86_400, Kept::HeldBeforeTheStep)
            .unwrap_err()
            .contains("no pod stays")
    );
    let mut short = good;
    short["steps"].as_array_mut().unwrap().pop();
    assert!(
        check(&old, &new, &short, 86_400, Kept::HeldBeforeTheStep)
            .unwrap_err()
            .contains("ends at")
    );
}

#[test]
fn the_document_is_the_contract() {
    let pair = Pair::new(
        "sharding: {total_shards: 1}",
        "sharding: {total_shards: 1, retention: 100d}",
    );
    let step = |pod: &str| json!({"pods": [{"pod": pod, "min_time": "-100d", "max_time": "1d"}]});
    let timed = |pod: &str, at: u32| {
        let mut step = step(pod);
        step["fewest_holders"] = json!(1);
        step["starts_at_seconds"] = json!(at);
        step["load_seconds"] = json!(300);
        step
    };
    let want = json!({
        "apiVersion": "cli.thanos-timeshard.io/v1",
        "kind": "Rollout",
        "steps": [timed("thanos-store-gateway-0", 0), timed("thanos-store-gateway-1", 484)],
        "warnings": ["afterwards no pod serves samples older than 100d (before: 370d), and queries do not say that they are missing"],
        "complete": true,
        "duration": {
            "seconds": 968,
            "each_step": {"drain_seconds": 90, "load_time_seconds": 300, "discovery_delay_seconds": 90, "overhead_seconds": 4},
            "loads": "assumed: give --load-time, or --status for what was measured",
        },
        "restarts": [{"pod": "thanos-store-gateway-0", "times": 1}, {"pod": "thanos-store-gateway-1", "times": 1}],
        "holders_before": 2,
        "holders_after": 2,
    });
    assert_eq!(pair.rollout(&[]), want);
    let yaml = pair.plan(&["--from=old.yaml", "--to=new.yaml", "-o", "yaml"]);
    assert_eq!(
        serde_saphyr::from_str::<Value>(&text(&yaml.stdout)).unwrap(),
        want
    );
}

#[test]
fn the_table_answers_a_reviewers_questions() {
    let (table, said) =
        Pair::new("sharding: {total_shards: 3}", "sharding: {total_shards: 4}").table(&[]);
    for words in [
        "total_shards: 3 -> 4\n",
        "restarts in place: 8 pods of 8 (8 once), in 2 steps: at least 6m for drain (1m30s) and discovery_delay (1m30s)",
        ", about 16m8s if the longest load takes 5m\neach step: 1m30s drain, at most 5m load (assumed: give --load-time, or --status for what was measured), 1m30s discovery_delay, 4s overhead\n",
        "served by at least 2 confirmed pods before, 1 in every step, 2 after\n",
        "-124d8h .. 1d",
        "-93d12h .. 1d",
        "1 of 1",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert_eq!(said, "");
    let same = Pair::new("sharding: {drain: 60s}", "sharding: {drain: 90s}")
        .table(&[])
        .0;
    assert_eq!(same, "drain: 1m -> 1m30s\n\nno pod restarts\n");
}

/// What the end-to-end scenario `reshard` measured from 3 to 4 shards of 2 on a real cluster, whose
/// bucket loads in no time, when that took 4 steps.
#[test]
fn the_forecast_is_near_what_was_measured() {
    for (periods, measured) in [
        (", drain: 60s, discovery_delay: 60s", 497),
        (", drain: 17s, discovery_delay: 20s", 163),
    ] {
        let config = |shards: u32| format!("sharding: {{total_shards: {shards}{periods}}}");
        let rollout = Pair::new(&config(3), &config(4)).rollout(&["--load-time=0s"]);
        let steps = i64::try_from(rollout["steps"].as_array().unwrap().len()).unwrap();
        let said = rollout["duration"]["seconds"].as_i64().unwrap() * 4 / steps;
        assert!(
            (said - measured).abs() * 100 <= measured * 3,
            "{said} s where {measured} s were measured"
        );
    }
}

#[test]
fn the_fewest_pods_that_serve_an_instant_are_counted() {
    let rollout = Pair::new(
        "sharding: {replicas_per_shard: 3}",
        "sharding: {replicas_per_shard: 3, total_shards: 4}",
    )
    .rollout(&[]);
    assert_eq!(
        (&rollout["holders_before"], &rollout["holders_after"]),
        (&json!(3), &json!(3))
    );
    for step in rollout["steps"].as_array().unwrap() {
        assert!(step["fewest_holders"].as_i64().unwrap() >= 2, "{step}");
    }
    // No pod serves a longer retention before, which is no gap of the rollout.
    let longer =
        Pair::new("sharding: {retention: 100d}", "sharding: {retention: 200d}").rollout(&[]);
    assert!(
        longer["steps"]
            .as_array()
            .unwrap()
            .iter()
            .all(|step| step["fewest_holders"] != 0),
        "{longer}"
    );
    // One replica that goes leaves a gap, and the step says so.
    let gap = "sharding: {replicas_per_shard: 1, allow_coverage_gap: true, total_shards: ";
    let alone = Pair::new(&format!("{gap}3}}"), &format!("{gap}4}}")).rollout(&[]);
    assert!(
        alone["steps"]
            .as_array()
            .unwrap()
            .iter()
            .any(|step| step["fewest_holders"] == 0),
        "{alone}"
    );
}

#[test]
fn a_change_of_numbers_is_no_step() {
    let pair = Pair::new(
        "sharding: {total_shards: 1, replicas_per_shard: 2}",
        "sharding: {total_shards: 1, replicas_per_shard: 4}",
    );
    assert_eq!(pair.rollout(&[])["steps"], json!([]));
}

#[test]
fn one_replica_stops_the_rollout_or_leaves_a_gap() {
    let (old, new) = (
        "sharding: {total_shards: 3, replicas_per_shard: 1}",
        "sharding: {total_shards: 4, replicas_per_shard: 1}",
    );
    let pair = Pair::new(old, new);
    let (table, said) = pair.table(&["--replicas", "3"]);
    assert!(table.contains("BLOCKED with "), "{table}");
    assert!(
        said.contains("alone serves 20") && said.contains("allow_coverage_gap: true"),
        "{said}"
    );
    let warnings = pair.rollout(&["--replicas", "3"])["warnings"].to_string();
    assert!(warnings.contains("thanos-store-gateway-"), "{warnings}");
    let (table, said) = Pair::new(old, &new.replace('}', ", allow_coverage_gap: true}"))
        .table(&["--replicas", "4"]);
    assert!(
        !table.contains("BLOCKED") && said.contains("leaves a gap: while thanos-store-gateway-"),
        "{table}{said}"
    );
}

#[test]
fn bad_input_exits_with_2_and_a_sentence() {
    let pair = Pair::new(
        "sharding: {total_shards: auto}",
        "sharding:\n  total_shards: 0\n",
    );
    for (args, words) in [
        (vec!["--from=old.yaml"], "--to"),
        (
            vec!["--from=old.yaml", "--to=old.yaml", "--load-time=-5m"],
            "a load takes at least 0s",
        ),
        (vec!["--load-time=5m"], "--from"),
        (vec!["--to=old.yaml"], "--from"),
        (
            vec!["--from=old.yaml", "--to=old.yaml", "--config=old.yaml"],
            "cannot be used with",
        ),
        (vec!["--from=old.yaml", "--to=old.yaml"], "--replicas N"),
        (
            vec!["--from=old.yaml", "--to=new.yaml"],
            "new.yaml:2:17: sharding.total_shards: 0",
        ),
        (
            vec!["--from=absent.yaml", "--to=old.yaml"],
            "absent.yaml: cannot be read",
        ),
        (
            vec!["--from=-", "--to=-"],
            "standard input can be read once",
        ),
        (
            vec![
                "--from=old.yaml",
                "--to=old.yaml",
                "--replicas=4",
                "-o",
                "svg",
            ],
            "-o svg draws one configuration",
        ),
    ] {
        let output = pair.plan(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            text(&output.stderr).contains(words),
            "{args:?}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn switching_services_off_is_warned_about() {
    let pair = Pair::new(
        "sharding: {shard_services: true}",
        "sharding: {total_shards: 4}",
    );
    let warnings = pair.rollout(&[])["warnings"].to_string();
    assert!(
        warnings.contains("move queriers off the shard Services first"),
        "{warnings}"
    );
}

/// The status of pods that load 1,000 blocks in 20 s.
fn measured(name: &str) -> Value {
    let pod = |ordinal: u32| {
        let window = json!({"min_time": "-370d", "max_time": "1d"});
        json!({
            "pod": format!("{name}-{ordinal}"), "ordinal": ordinal, "shard": 0, "replica": ordinal, "surplus": false,
            "desired": window, "published": window, "applied": window, "verified": true, "state": "confirmed",
            "phase": "serving", "seconds_in_state": 1, "restarts": 0, "agent_version": "0.1.0", "why": null,
            "blocks_expected": 1000, "blocks_missing": 0,
            "last_load": {"min_time": "-370d", "max_time": "1d", "seconds": 20.0, "blocks": 1000, "blocks_new": 1000},
        })
    };
    json!({
        "namespace": "monitoring", "name": name, "configmap": "c", "replicas": 2, "state": "settled", "message": "",
        "moves_left": 0, "steps_left": 0, "eta_seconds": 0, "gaps": [], "gap_seconds": 0, "minimum_ready_replicas": 2,
        "warnings": [], "pods": [pod(0), pod(1)],
    })
}

#[test]
fn measured_loads_replace_the_assumption() {
    let pair = Pair::new(
        "sharding: {total_shards: 1}",
        "sharding: {total_shards: 1, retention: 185d}",
    );
    let write = |document: &Value| {
        std::fs::write(pair.0.path().join("status.json"), document.to_string()).unwrap();
    };
    write(&json!({"statefulsets": [measured("store"), measured("thanos-store-gateway")]}));
    let rollout = pair.rollout(&["--status=status.json"]);
    // Half of the blocks, which are on the disk: as fast as the first load at worst.
    assert_eq!(rollout["steps"][0]["load_seconds"], 10);
    assert_eq!(rollout["duration"]["seconds"], 2 * (90 + 90 + 4 + 10));
    let (table, _) = pair.table(&["--status=status.json"]);
    assert!(
        table.contains("at most 10s load (measured in status.json: from the last loads of 2 pods"),
        "{table}"
    );
    // The only one, whatever its name is.
    write(&json!({"statefulsets": [measured("store")]}));
    assert_eq!(pair.rollout(&["--status=status.json"]), {
        let mut same = rollout;
        same["duration"]["loads"] =
            pair.rollout(&["--status=status.json"])["duration"]["loads"].clone();
        same
    });
    let mut silent = measured("store");
    for pod in silent["pods"].as_array_mut().unwrap() {
        pod["last_load"] = Value::Null;
    }
    write(&json!({"statefulsets": [silent]}));
    let assumed = pair.rollout(&["--status=status.json"]);
    assert_eq!(assumed["steps"][0]["load_seconds"], 300);
    assert_eq!(
        assumed["duration"]["loads"],
        "assumed: no pod of status.json has measured a load yet"
    );
    for (document, why) in [
        (
            json!({"statefulsets": [measured("a"), measured("b")]}),
            "no StatefulSets thanos-store-gateway among a, b",
        ),
        (json!({"sets": []}), "has no list statefulsets"),
        (json!({"statefulsets": [{"name": "a"}]}), "cannot read"),
    ] {
        write(&document);
        let output = pair.plan(&["--from=old.yaml", "--to=new.yaml", "--status=status.json"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text(&output.stderr).contains(why),
            "{}",
            text(&output.stderr)
        );
    }
    let both = pair.plan(&[
        "--from=old.yaml",
        "--to=new.yaml",
        "--status=x",
        "--load-time=1m",
    ]);
    assert_eq!(both.status.code(), Some(2));
}
