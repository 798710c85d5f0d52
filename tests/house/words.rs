//! Words that the texts avoid, because a reader has to stop at them, with what to write instead.
//!
//! Covers code, documentation, manifests and scripts. A name that others decide (a user `nobody`)
//! is on the list of exceptions.

use std::path::PathBuf;

use regex::Regex;

use crate::{at, files};

/// What is avoided, as a regular expression without case, and what to write.
const AVOIDED: [(&str, &str); 14] = [
    ("anew", "again"),
    ("beside", "next to, besides, in parallel to"),
    (
        "somebody|anybody",
        "the actor: kubelet, another client, the user; or anyone",
    ),
    (
        "nobody|everybody",
        "no pod, no client, no one; every pod, all",
    ),
    ("whoever|whom", "the actor; anyone who"),
    ("shall", "will, must or should"),
    ("farewell", "shutdown"),
    ("of ours", "managed by timeshard"),
    ("left alone", "skipped"),
    (
        "looks? at|looked at",
        "reconciles, observes, polls, reads, checks",
    ),
    ("(is|are) (said|told)", "the actor: reports, warns, logs"),
    ("custodian", "manager"),
    ("tenure", "term"),
    (
        "by every default|every period as it is",
        "with default settings",
    ),
];

/// A file's end and a text in one of its lines that is accepted.
const EXCEPTIONS: [(&str, &str); 2] = [
    ("tests/e2e/cluster/images.sh", "nobody:x:65534"),
    ("tests/house/words.rs", ""),
];

fn texts() -> Vec<PathBuf> {
    let mut all = Vec::new();
    for (folder, extensions) in [
        ("src", &["rs", "js", "css", "html"][..]),
        ("tests", &["rs", "sh", "md"]),
        ("examples", &["rs"]),
        ("benches", &["rs", "sh", "md"]),
        ("fuzz/src", &["rs"]),
        ("docs", &["md"]),
        ("deploy", &["yaml", "md", "txt", "json"]),
    ] {
        for extension in extensions {
            all.extend(files(folder, extension));
        }
    }
    for file in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "CODE_OF_CONDUCT.md",
        ".github/ISSUE_TEMPLATE/config.yml",
        ".github/ISSUE_TEMPLATE/fault.yml",
        ".github/ISSUE_TEMPLATE/feature.yml",
        "deploy/release/render",
        "Cargo.toml",
        "Dockerfile",
        ".ci/run",
        "tests/e2e/run",
        "tests/e2e/matrix",
    ] {
        all.push(at(file));
    }
    // What others wrote, and what tools build there.
    all.retain(|path| {
        let path = path.to_string_lossy();
        !path.contains("/target/") && !path.contains("/node_modules/")
    });
    all
}

#[test]
fn texts_are_plain() {
    let avoided: Vec<(Regex, &str)> = AVOIDED
        .iter()
        .map(|(word, instead)| (Regex::new(&format!(r"(?i)\b({word})\b")).unwrap(), *instead))
        .collect();
    let texts = texts();
    assert!(texts.len() > 500, "only {} texts were found", texts.len());
    let mut found = Vec::new();
    for path in texts {
        let name = path.to_string_lossy();
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let accepted = |line: &str| {
            EXCEPTIONS
                .iter()
                .any(|(file, part)| name.ends_with(file) && line.contains(part))
        };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !accepted(line)) {
            for (word, instead) in &avoided {
                if let Some(hit) = word.find(line) {
                    found.push(format!(
                        "{name}:{}: {:?}: write {instead}",
                        number + 1,
                        hit.as_str()
                    ));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
