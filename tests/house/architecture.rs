//! The guides for developers name only files and functions that exist, and the two walks through the
//! code can be followed: few files, none twice, each of which names the next.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;

use crate::{at, files};

/// The walks: heading, the words in a header before the next file, and the most files.
const WALKS: [(&str, &str, usize); 2] = [
    ("## Follow one review", "Next for a review:", 12),
    ("## Follow one window", "Next for a window:", 16),
];

/// Folders with files that the guides name.
const FOLDERS: [&str; 10] = [
    "src", "tests", "docs", "deploy", "certs", "benches", "fuzz", "examples", ".ci", ".github",
];

fn guides() -> [(&'static str, String); 2] {
    ["ARCHITECTURE.md", "CONTRIBUTING.md"]
        .map(|page| (page, std::fs::read_to_string(at(page)).unwrap()))
}

/// The texts between backticks, outside code blocks.
fn quoted(page: &str) -> Vec<String> {
    let mut code = false;
    let lines = page.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    });
    let prose = lines.collect::<Vec<_>>().join(" ");
    prose
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Every file and folder, and every end of its path.
fn ends() -> BTreeSet<String> {
    let mut ends = BTreeSet::new();
    let mut folders: Vec<_> = FOLDERS.map(at).to_vec();
    ends.extend(FOLDERS.map(str::to_owned));
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let inside = path.strip_prefix(at("")).unwrap();
            if inside.ends_with("target") || inside.ends_with("node_modules") {
                continue;
            }
            let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
            ends.extend((0..parts.len()).map(|from| parts[from..].join("/")));
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    ends
}

#[test]
fn named_files_exist() {
    let path = Regex::new(r"^[a-z.][\w.-]*(/[\w.-]+)*/?$").unwrap();
    let is_file = Regex::new(r"/|\.(rs|md|js|css|html|ya?ml|json|sh|toml)$").unwrap();
    // Written by a run, or with a part to fill in.
    let skipped = Regex::new(r"^target/|[A-Z]{4}").unwrap();
    let ends = ends();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (page, text) in guides() {
        for name in quoted(&text) {
            if !path.is_match(&name) || !is_file.is_match(&name) || skipped.is_match(&name) {
                continue;
            }
            seen += 1;
            let plain = name.trim_end_matches('/');
            if !ends.contains(plain) && !at(plain).exists() {
                wrong.push(format!("{page}: {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "no such file:\n{}", wrong.join("\n"));
    assert!(seen > 150, "{seen}");
}

/// A function or a type with its module or type: one file has both names.
#[test]
fn named_functions_exist() {
    let name = Regex::new(r"(?:^|::)(\w+)::(\w+)$").unwrap();
    let sources: Vec<(String, String)> = files("src", "rs")
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            (path.display().to_string(), text)
        })
        .collect();
    let mut seen = 0;
    for (page, text) in guides() {
        for full in quoted(&text) {
            let Some(found) = name.captures(&full) else {
                continue;
            };
            let (of, last) = (&found[1], &found[2]);
            // A library that is not used.
            if of == "json_patch" {
                continue;
            }
            let defined = Regex::new(&format!(r"\b(fn|struct|enum|mod|const) {last}\b")).unwrap();
            let owner = Regex::new(&format!(r"\b(impl(<.*>)?|struct|enum|trait) {of}\b")).unwrap();
            let exists = sources.iter().any(|(path, text)| {
                let is_there = path.contains(&format!("/{of}")) || owner.is_match(text);
                is_there && defined.is_match(text)
            });
            assert!(exists, "{page}: {full}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

/// The files of a walk, in order.
fn walk(page: &str, heading: &str) -> Vec<String> {
    let step = Regex::new(r"^\d+\. `([\w/]+\.rs)`").unwrap();
    let section = page.split_once(heading).unwrap().1;
    let section = section.split("\n## ").next().unwrap();
    let steps = section.lines().filter_map(|line| step.captures(line));
    steps.map(|found| found[1].to_owned()).collect()
}

/// The module documentation of a file, in one line.
fn header(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[test]
fn walks_can_be_followed() {
    let page = std::fs::read_to_string(at("ARCHITECTURE.md")).unwrap();
    for (heading, next, most) in WALKS {
        let walk = walk(&page, heading);
        assert!((8..=most).contains(&walk.len()), "{heading}: {walk:?}");
        let distinct: BTreeSet<_> = walk.iter().collect();
        assert_eq!(distinct.len(), walk.len(), "{heading}: a file comes twice");
        for (number, file) in walk.iter().enumerate() {
            let header = header(&at("src").join(file));
            assert!(header.contains("In: "), "{file}: what comes in");
            assert!(header.contains("Out"), "{file}: what goes out");
            let expected = walk.get(number + 1).map(|file| format!("{next} `{file}`"));
            match expected {
                Some(expected) => assert!(header.contains(&expected), "{file}: {expected}"),
                None => assert!(!header.contains(next), "{file} is the last one"),
            }
        }
    }
}
