//! `plan --blocks` on what Thanos 0.42.4 printed of a real bucket: 100 days of a growing number of
//! series, compacted and downsampled by `thanos compact`, with a bar in a label. Counted here once
//! more from the list alone.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::server::TIMESHARD;

const AT: &str = "--at=2026-11-21T00:00:00Z";
const CONFIG: &str = "sharding: {total_shards: 3, data_retention_days: 100, shard_overlap_days: 1}";
fn golden(name: &str) -> String {
    format!("{}/tests/golden/blocks/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// With the list's file, and the configuration on standard input.
fn plan(list: &str, config: &str, more: &[&str]) -> Output {
    let args = ["plan", AT, "--config=-", "--blocks", list];
    let mut child = Command::new(TIMESHARD)
        .args(args)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its flags does not read.
    let _ = child.stdin.take().unwrap().write_all(config.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn document(list: &str, config: &str, more: &[&str]) -> Value {
    let output = plan(&golden(list), config, &[&["-o", "json"], more].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn millis(stamp: &Value) -> i64 {
    chrono::DateTime::parse_from_rfc3339(stamp.as_str().unwrap())
        .unwrap()
        .timestamp_millis()
}

/// Oldest and newest instant, and bytes, of each block of `ls.json`.
fn blocks() -> Vec<(i64, i64, u64)> {
    let text = std::fs::read_to_string(golden("ls.json")).unwrap();
    let metas = serde_json::Deserializer::from_str(&text)
        .into_iter::<Value>()
        .map(Result::unwrap);
    let bytes = |meta: &Value| {
        meta["thanos"]["files"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|file| file["size_bytes"].as_u64())
            .sum()
    };
    metas
        .map(|meta| {
            (
                meta["minTime"].as_i64().unwrap(),
                meta["maxTime"].as_i64().unwrap(),
                bytes(&meta),
            )
        })
        .collect()
}

/// What each shard loads, from the windows of the plan's pods: blocks and bytes.
fn loads(plan: &Value) -> Vec<(u64, u64)> {
    let pods: Vec<&Value> = plan["pods"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pod| pod["replica"] == 0)
        .collect();
    let load = |pod: &&Value| {
        let (from, to) = (millis(&pod["from"]), millis(&pod["to"]));
        blocks()
            .iter()
            .filter(|(min, max, _)| *max >= from && *min <= to)
            .fold((0, 0), |(n, sum), block| (n + 1, sum + block.2))
    };
    pods.iter().map(load).collect()
}

fn shown(rows: &Value) -> Vec<(u64, u64)> {
    rows.as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                row["blocks"].as_u64().unwrap(),
                row["bytes"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_real_bucket_is_counted_and_a_pasted_suggestion_holds_what_it_says() {
    let plan = document("ls.json", CONFIG, &[]);
    let (found, counted) = (&plan["blocks"], loads(&plan));
    assert_eq!(shown(&found["shards"]), counted);
    assert_eq!(
        found["listed"],
        json!({"blocks": 30, "bytes": blocks().iter().map(|block| block.2).sum::<u64>(), "samples": 688_854})
    );
    let kinds: Vec<(&str, u64, u64)> = found["kinds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| {
            (
                kind["resolution"].as_str().unwrap(),
                kind["level"].as_u64().unwrap(),
                kind["blocks"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        kinds,
        [
            ("raw", 1, 4),
            ("raw", 2, 5),
            ("raw", 4, 7),
            ("5m", 4, 7),
            ("1h", 4, 7)
        ]
    );
    let again = |rows: &Value| {
        rows["within_overlap"]["bytes"].as_u64().unwrap()
            + rows["across_edges"]["bytes"].as_u64().unwrap()
    };
    let sum = |loads: &[(u64, u64)]| loads.iter().map(|load| load.1).sum::<u64>();
    assert_eq!(
        sum(&counted) - found["loaded"]["bytes"].as_u64().unwrap(),
        again(&found["loaded_again"])
    );
    // The suggestion, pasted.
    let better = &found["suggestion"];
    assert_eq!(better["on_block_edges"], true);
    let ages: Vec<&str> = better["boundaries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|age| age.as_str().unwrap())
        .collect();
    let pasted = CONFIG.replace(
        "total_shards: 3",
        &format!("total_shards: 3, boundaries: [{}]", ages.join(", ")),
    );
    let next = document("ls.json", &pasted, &[]);
    assert_eq!(loads(&next), shown(&better["shards"]));
    assert_eq!(shown(&next["blocks"]["shards"]), shown(&better["shards"]));
    assert_eq!(next["blocks"]["imbalance"], better["imbalance"]);
    assert!(loads(&next).iter().map(|load| load.1).max() < counted.iter().map(|load| load.1).max());
    // It is the best there is, so there is no further one.
    assert_eq!(
        (
            &next["blocks"]["suggestion"],
            &next["blocks"]["no_suggestion"]
        ),
        (
            &Value::Null,
            &json!("no other boundaries make the largest shard smaller")
        )
    );
}

#[test]
fn an_answer_of_the_api_gives_the_same_as_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("blocks.json");
    let text = std::fs::read_to_string(golden("ls.json")).unwrap();
    let metas: Vec<Value> = serde_json::Deserializer::from_str(&text)
        .into_iter::<Value>()
        .map(Result::unwrap)
        .collect();
    let answer = json!({"status": "success", "data": {"label": "", "blocks": metas, "refreshedAt": "2026-11-21T00:00:00Z", "err": null}});
    let log = "ts=2026-11-21T00:00:00Z caller=main.go:1 level=info msg=x\n";
    let json = document("ls.json", CONFIG, &[]);
    for (content, named) in [
        (answer.to_string(), "/api/v1/blocks"),
        (
            format!("{log}{text}{log}"),
            "thanos tools bucket ls -o json",
        ),
    ] {
        std::fs::write(&file, content).unwrap();
        let output = plan(file.to_str().unwrap(), CONFIG, &["-o", "json"]);
        assert!(
            output.status.success(),
            "{}",
            super::blocks::text(&output.stderr)
        );
        let mut found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["blocks"]["format"], named);
        found["blocks"]["format"] = json["blocks"]["format"].clone();
        assert_eq!(found["blocks"], json["blocks"]);
    }
}

#[test]
fn every_other_form_is_refused_with_the_command_that_prints_json() {
    for list in ["ls-wide.txt", "inspect.txt", "inspect.csv", "inspect.tsv"] {
        let output = plan(&golden(list), CONFIG, &[]);
        let said = text(&output.stderr);
        assert_eq!(
            (output.status.code(), output.stdout.is_empty()),
            (Some(2), true),
            "{list}: {said}"
        );
        assert!(
            said.contains(":1:1: ")
                && said.contains("`thanos tools bucket ls -o json --objstore.config-file=FILE`"),
            "{list}: {said}"
        );
    }
}

#[test]
fn the_table_ends_in_a_block_for_the_configuration() {
    let output = plan(&golden("ls.json"), CONFIG, &[]);
    let table = text(&output.stdout);
    for words in [
        "30 blocks (14.8 MiB), as `thanos tools bucket ls -o json` prints them\n",
        "loaded more than once: 0 blocks (0 B) within the overlap, 6 blocks (4.2 MiB) across an edge\n",
        "imbalance: 1.88 (the largest shard, of an even share by bytes)\n",
        "\n# imbalance 1.88 -> 1.56, by bytes\nsharding:\n  total_shards: 3\n  boundaries: [16d10m, 44d10m]\n",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let recent = text(
        &plan(
            &golden("ls.json"),
            CONFIG,
            &["--balance", "recent", "--half-life", "10d"],
        )
        .stdout,
    );
    assert!(
        recent.contains("by bytes, newer ones counting more (half-life 10d)\n"),
        "{recent}"
    );
    let short = text(
        &plan(
            &golden("ls.json"),
            "sharding: {total_shards: 2, retention: 20d}",
            &[],
        )
        .stdout,
    );
    assert!(short.contains("in no window: 15 blocks (8.1 MiB) older than the retention, 0 blocks (0 B) in the future"), "{short}");
    let picture = text(&plan(&golden("ls.json"), CONFIG, &["-o", "svg"]).stdout);
    assert!(
        picture.starts_with("<svg ")
            && picture
                .contains("shard 0: 18 blocks (9.3 MiB), 1.88 of an even share, suggested 1.36"),
        "{picture}"
    );
    let yaml: Value = serde_saphyr::from_str(&text(
        &plan(&golden("ls.json"), CONFIG, &["-o", "yaml"]).stdout,
    ))
    .unwrap();
    assert_eq!(
        yaml["blocks"]["suggestion"]["boundaries"],
        json!(["16d10m", "44d10m"])
    );
}

#[test]
fn what_cannot_be_read_exits_with_2_and_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("list");
    let list = std::fs::read_to_string(golden("ls.json")).unwrap();
    let path = file.to_str().unwrap();
    for (content, words) in [
        (
            String::new(),
            "list:1:1: there is no block: give the JSON of `thanos tools bucket ls -o json",
        ),
        (
            list[..list.len() / 2].to_owned(),
            ": the text ends within this block",
        ),
        (
            format!("{list}{list}"),
            "was listed already on line 1: list each block once",
        ),
        (
            list.replacen("\"maxTime\": 1", "\"maxTime\": -1", 1),
            "list:1:1: block ",
        ),
        (
            "{\"kind\": \"List\"}".to_owned(),
            "list:1:16: not the meta.json of a block: missing field `ulid`",
        ),
    ] {
        std::fs::write(&file, content).unwrap();
        let output = plan(path, CONFIG, &[]);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(
            text(&output.stderr).contains(words),
            "{words}: {}",
            text(&output.stderr)
        );
    }
    for (args, words) in [
        (vec!["--blocks=-"], "cannot be used multiple times"),
        (vec!["--balance=weight"], "invalid value 'weight'"),
        (vec!["--half-life=0s"], "write a duration of at least 1s"),
    ] {
        let output = plan(path, CONFIG, &args);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text(&output.stderr).contains(words),
            "{words}: {}",
            text(&output.stderr)
        );
    }
    let both = plan("-", CONFIG, &[]);
    assert!(
        both.status.code() == Some(2)
            && text(&both.stderr).contains("standard input can be read once"),
        "{}",
        text(&both.stderr)
    );
    let absent = plan("/nowhere/list", CONFIG, &[]);
    assert!(
        absent.status.code() == Some(2)
            && text(&absent.stderr).contains("/nowhere/list: cannot be read"),
        "{}",
        text(&absent.stderr)
    );
}
