//! Core is pure, edges are made in adapters, and files stay readable.

use std::path::Path;

use crate::{at, files};

/// The crates that core may use. All others (tokio, kube, hyper, rustix, …) are edges.
const CORE_CRATES: [&str; 9] = [
    "std",
    "chrono",
    "serde",
    "serde_json",
    "serde_saphyr",
    "strsim",
    "self",
    "super",
    "crate",
];
/// Edges of the standard library, and the clock.
const CORE_BANS: [&str; 9] = [
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::SystemTime",
    "std::time::Instant",
    "Utc::now",
    "use kube::",
];

/// Only adapters may name these: they make sockets, handshakes and directory watches.
const ADAPTERS_ONLY: [&str; 3] = ["rustls::", "tokio_rustls::", "rustix::fs::inotify"];

/// Lines of a file, at rustfmt's defaults. Functions: clippy's `too_many_lines`, in `clippy.toml`.
const MAX_LINES: usize = 500;

/// The code of a file without comments and unit tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap()
        .to_owned();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether a file is `tests.rs`, or in a folder `tests`.
fn is_test(path: &Path) -> bool {
    let inside = path.strip_prefix(at("src")).unwrap();
    inside
        .with_extension("")
        .components()
        .any(|part| part.as_os_str() == "tests")
}

#[test]
fn core_knows_no_edge() {
    let mut wrong = Vec::new();
    for path in files("src/core", "rs")
        .into_iter()
        .filter(|path| !is_test(path))
    {
        let code = code(&path);
        for line in code.lines().filter_map(|line| {
            line.trim_start()
                .strip_prefix("use ")
                .or(line.trim_start().strip_prefix("pub use "))
        }) {
            let first: String = line
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            let own = at("src/core").join(&first).exists()
                || path.with_extension("").join(format!("{first}.rs")).exists();
            let sibling = path.parent().unwrap().join(format!("{first}.rs")).exists()
                || path.parent().unwrap().join(&first).exists();
            if !CORE_CRATES.contains(&first.as_str()) && !own && !sibling {
                wrong.push(format!("{}: use {line}", path.display()));
            }
        }
        wrong.extend(
            CORE_BANS
                .iter()
                .filter(|ban| code.contains(*ban))
                .map(|ban| format!("{}: {ban}", path.display())),
        );
        if code.contains("tokio") {
            wrong.push(format!("{}: tokio", path.display()));
        }
    }
    assert!(wrong.is_empty(), "core is pure:\n{}", wrong.join("\n"));
}

#[test]
fn edges_are_made_in_adapters() {
    let mut wrong = Vec::new();
    for path in files("src", "rs")
        .into_iter()
        .filter(|path| !is_test(path) && !path.starts_with(at("src/adapters")))
    {
        let code = code(&path);
        wrong.extend(
            ADAPTERS_ONLY
                .iter()
                .filter(|name| code.contains(*name))
                .map(|name| format!("{}: {name}", path.display())),
        );
    }
    assert!(
        wrong.is_empty(),
        "named outside adapters:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn files_stay_readable() {
    let mut long = Vec::new();
    let folders = ["src", "tests", "examples", "benches", "fuzz/src"];
    for path in folders.iter().flat_map(|folder| files(folder, "rs")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > MAX_LINES {
            long.push(format!("{}: {lines} lines", path.display()));
        }
        assert!(
            !path.starts_with(at("src")) || is_test(&path) || text.starts_with("//!"),
            "{}: a file begins with a `//!` header",
            path.display()
        );
    }
    assert!(
        long.is_empty(),
        "at most {MAX_LINES} lines:\n{}",
        long.join("\n")
    );
}
