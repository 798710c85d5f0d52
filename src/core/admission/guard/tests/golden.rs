//! The guard's sentences in files, so that a rewording is one command.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::GuardVerdict;

const NAMES: [&str; 9] = [
    "annotations",
    "creation",
    "deletion",
    "opt-out",
    "replacement",
    "rollout",
    "scale-down",
    "template",
    "unready-and-single",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/guard")
}

/// Compares verdicts with `tests/golden/guard/NAME.txt`. `UPDATE_GOLDEN=1 cargo test --lib guard`
/// writes the file, to be read before it is committed.
#[allow(
    clippy::disallowed_methods,
    reason = "tests take their knobs from the environment"
)]
pub(super) fn assert_golden(name: &str, cases: &[(&str, &GuardVerdict)]) {
    assert!(NAMES.contains(&name), "{name} is not in NAMES");
    let mut text = String::new();
    for (case, verdict) in cases {
        writeln!(text, "# {case}").unwrap();
        if let Some(denial) = &verdict.denial {
            writeln!(text, "denied: {denial}").unwrap();
        }
        for warning in &verdict.warnings {
            writeln!(text, "warning: {warning}").unwrap();
        }
        text.push('\n');
    }
    let path = folder().join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text,
        golden,
        "UPDATE_GOLDEN=1 cargo test --lib guard writes {}",
        path.display()
    );
}

#[test]
fn no_golden_is_stale() {
    let files = std::fs::read_dir(folder()).unwrap();
    let mut found: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, NAMES.map(|name| format!("{name}.txt")));
}
