//! Imports flow one way: `main -> cli -> roles -> adapters -> core`, and roles never import each other.

use std::path::Path;

use crate::{at, files};

/// What a module of the library may name of the library, besides itself.
fn may_import(module: &str) -> &'static [&'static str] {
    match module {
        "core" => &[],
        "adapters" => &["core"],
        // Roles: one job each, put together by the command lines only.
        "webhook" | "refresher" | "page" | "sidecar" | "launcher" | "stand_in" => {
            &["adapters", "core"]
        }
        "agent_cli" => &["sidecar", "launcher", "adapters", "core"],
        "cli" => &[
            "webhook",
            "refresher",
            "page",
            "stand_in",
            "agent_cli",
            "adapters",
            "core",
        ],
        other => panic!(
            "src/{other} has no place in the layering; give it one here and in ARCHITECTURE.md"
        ),
    }
}

/// What core is made of. Anything else (tokio, kube, hyper, rustix, …) is an edge.
const CORE_CRATES: [&str; 7] = [
    "std",
    "chrono",
    "serde",
    "serde_json",
    "serde_saphyr",
    "super",
    "crate",
];
/// Edges of the standard library, and the clock.
const CORE_BANS: [&str; 8] = [
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::SystemTime",
    "std::time::Instant",
    "Utc::now",
];

/// Only adapters name these: where a socket, a handshake or a directory watch is made is an adapter.
const ADAPTERS_ONLY: [&str; 3] = ["rustls::", "tokio_rustls::", "rustix::fs::inotify"];

/// The library's top module of a file, such as `core` for `src/core/plan.rs`.
fn module(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(at("src")).unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    let name = first.strip_suffix(".rs").unwrap_or(first).to_owned();
    (!matches!(name.as_str(), "lib" | "main" | "bin")).then_some(name)
}

/// The code of a file: comments and unit tests do not count.
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

/// `tests.rs`, and whatever is in a folder `tests` beside it.
fn is_test(path: &Path) -> bool {
    let inside = path.strip_prefix(at("src")).unwrap();
    inside.file_name().is_some_and(|name| name == "tests.rs")
        || inside.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn imports_flow_one_way() {
    let mut wrong = Vec::new();
    for path in files("src", "rs").into_iter().filter(|path| !is_test(path)) {
        let Some(own) = module(&path) else { continue };
        let allowed = may_import(&own);
        for used in code(&path).split("crate::").skip(1) {
            let target: String = used
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if target != own && !allowed.contains(&target.as_str()) {
                wrong.push(format!("{}: {own} imports {target}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that go back up:\n{}",
        wrong.join("\n")
    );
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
            let sibling = path.parent().unwrap().join(format!("{first}.rs")).exists();
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
    for path in files("src", "rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        let limit = if is_test(&path) { 600 } else { 420 };
        let lines = text.lines().count();
        if lines > limit {
            long.push(format!(
                "{}: {lines} lines, at most {limit}",
                path.display()
            ));
        }
        assert!(
            path.ends_with("tests.rs") || text.starts_with("//!"),
            "{}: a file begins with what it is for",
            path.display()
        );
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}
