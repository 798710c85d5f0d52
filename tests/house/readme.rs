//! The README stays short, and each of its snippets is run by a test.

use std::path::Path;

use thanos_timeshard::core::config::Config;

use crate::at;

/// Lines of `sh` blocks that other tests run: the line, the file of the test, and what it runs there.
const RUN_ELSEWHERE: [(&str, &str, &str); 2] = [
    ("cargo run -- demo", "tests/admission/demo.rs", "demo"),
    ("cargo test --locked", ".ci/run", "cargo test --locked"),
];
/// Lines that need another machine: a network, Docker, or a cluster of kind.
const ANOTHER_MACHINE: [&str; 7] = [
    "git clone ",
    "kind create cluster",
    "docker build ",
    "kind load ",
    "kubectl apply -f https://",
    "kubectl -n cert-manager wait ",
    "kubectl -n timeshard-system rollout status ",
];

/// The language of a code block, the comment in front of it, and its lines.
type CodeBlock<'a> = (&'a str, Option<&'a str>, Vec<&'a str>);

fn blocks(text: &str) -> Vec<CodeBlock<'_>> {
    let mut found = Vec::new();
    let (mut open, mut before): (Option<CodeBlock<'_>>, &str) = (None, "");
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                let mark = before
                    .strip_prefix("<!-- ")
                    .and_then(|rest| rest.strip_suffix(" -->"));
                open = Some((language, mark, Vec::new()));
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some((_, _, lines)), None) => lines.push(line),
            (None, None) => {}
        }
        before = line;
    }
    found
}

#[test]
fn it_is_short() {
    let text = std::fs::read_to_string(at("README.md")).unwrap();
    for (number, line) in text.lines().enumerate() {
        let chars = line.chars().count();
        assert!(chars <= 120, "README.md:{}: {chars} characters", number + 1);
    }
    let prose = text.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(prose <= 140, "README.md has {prose} lines");
}

#[test]
fn every_snippet_is_run_by_a_test() {
    let text = std::fs::read_to_string(at("README.md")).unwrap();
    let blocks = blocks(&text);
    assert!(blocks.len() >= 5, "only {} blocks", blocks.len());
    let mut ran = 0;
    for (language, mark, lines) in blocks {
        match (language, mark) {
            ("yaml", _) => {
                let yaml = lines.join("\n");
                Config::parse(&yaml, "README.md").unwrap_or_else(|why| panic!("{yaml}\n{why}"));
            }
            ("sh", Some("reshard")) => lines.iter().for_each(|line| reshard(line)),
            ("sh", mark) => lines.iter().for_each(|line| is_run(line, mark)),
            ("text", _) => continue,
            other => panic!("a block of {other:?}: say here how it is run"),
        }
        ran += 1;
    }
    assert!(ran >= 4, "only {ran} blocks are run");
}

/// Checks that a test runs the line, or that it needs another machine.
fn is_run(line: &str, mark: Option<&str>) {
    if ANOTHER_MACHINE.iter().any(|start| line.starts_with(start)) {
        return;
    }
    // This scenario runs the block with the mark, line by line.
    if mark == Some("quick start") {
        let scenario = read("tests/e2e/scenarios/quickstart.sh");
        assert!(scenario.contains("as_written README.md \"quick start\""));
        return;
    }
    let (_, file, what) = RUN_ELSEWHERE
        .iter()
        .find(|(known, _, _)| *known == line)
        .unwrap_or_else(|| panic!("README.md: no test runs {line}"));
    assert!(read(file).contains(what), "{file} does not run {line}");
}

/// Checks that the scenario `cli` runs the command.
fn reshard(line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let (["kubectl", "-n", _, verb, ..] | ["timeshard", verb, ..]) = words[..] else {
        panic!("README.md: no test runs {line}")
    };
    let scenario = read("tests/e2e/scenarios/cli.sh");
    assert!(
        scenario.contains(&format!(" {verb} ")),
        "tests/e2e/scenarios/cli.sh does not run {line}"
    );
}

fn read(path: &str) -> String {
    std::fs::read_to_string(at(path))
        .unwrap_or_else(|why| panic!("{}: {why}", Path::new(path).display()))
}
