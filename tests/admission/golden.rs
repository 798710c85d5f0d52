//! Golden files: each pod in the folders goes through the command line and through the webhook, with
//! its folder's `config.yaml`, and both must give the content of the `.json` next to it. A stale or missing golden fails;
//! `UPDATE_GOLDEN=1 cargo test --test admission golden` writes them, to be read before they are
//! committed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::{Server, TIMESHARD};

const FOLDERS: [&str; 2] = ["tests/golden", "tests/golden/pull-secrets"];

fn stems(folder: &Path, extension: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|e| e == extension));
    files
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|stem| stem != "config")
        .collect()
}

/// What the command line makes of a case: patch, warnings, and why it was skipped.
fn by_command_line(folder: &Path, case: &str) -> Value {
    let output = Command::new(TIMESHARD)
        .args(["inject", "-o", "patch", "-f"])
        .arg(folder.join(format!("{case}.yaml")))
        .arg("--config")
        .arg(folder.join("config.yaml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{case}: {output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let after = |prefix: &str| -> Vec<String> {
        let lines = said.lines().filter_map(|line| line.strip_prefix(prefix));
        lines
            .map(|line| line.split_once(": ").unwrap().1.to_owned())
            .collect()
    };
    let patch = String::from_utf8(output.stdout).unwrap();
    let patch = patch
        .lines()
        .next()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["patch"].clone());
    json!({"skipped": after("skipped ").first(), "warnings": after("warning: "), "patch": patch})
}

/// What the webhook makes of it. It does not say why it skips, unless that is worth a warning.
fn by_webhook(server: &Server, folder: &Path, case: &str) -> Value {
    let text = std::fs::read_to_string(folder.join(format!("{case}.yaml"))).unwrap();
    let response = server.review(&serde_saphyr::from_str::<Value>(&text).unwrap());
    assert_eq!(response["allowed"], true, "{case}");
    let patch = response["patch"]
        .as_str()
        .map(|text| serde_json::from_slice::<Value>(&STANDARD.decode(text).unwrap()).unwrap());
    json!({"warnings": response.get("warnings").cloned().unwrap_or_else(|| json!([])), "patch": patch})
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "tests take their knobs from the environment"
)]
fn every_pod_gives_what_its_golden_says() {
    let update = std::env::var("UPDATE_GOLDEN").is_ok();
    let wrong: Vec<String> = FOLDERS
        .iter()
        .flat_map(|folder| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            differing(&folder, update)
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "not what the goldens say (UPDATE_GOLDEN=1 writes them):\n{}",
        wrong.join("\n")
    );
}

/// The cases of a folder that differ from their goldens, unless those are updated.
fn differing(folder: &Path, update: bool) -> Vec<String> {
    let server = Server::start(&folder.join("config.yaml"));
    let mut wrong = Vec::new();
    for case in stems(folder, "yaml") {
        let got = by_command_line(folder, &case);
        let hooked = by_webhook(&server, folder, &case);
        assert_eq!(
            got["patch"], hooked["patch"],
            "{case}: command line and webhook differ"
        );
        assert_eq!(
            got["warnings"], hooked["warnings"],
            "{case}: command line and webhook differ"
        );
        let path = folder.join(format!("{case}.json"));
        let text = serde_json::to_string_pretty(&got).unwrap() + "\n";
        if update {
            std::fs::write(&path, &text).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
            wrong.push(format!("{case}: now\n{text}"));
        }
    }
    let stale: Vec<String> = stems(folder, "json")
        .difference(&stems(folder, "yaml"))
        .cloned()
        .collect();
    assert!(stale.is_empty(), "goldens without a pod: {stale:?}");
    wrong
}
