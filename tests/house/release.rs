//! Base images and actions are pinned by digest or commit, and a tag is the package's version. The
//! workflow `release` runs this first, so nothing is published from an image or action that could be
//! exchanged.

use serde_json::Value;

use crate::{at, files};

fn read(path: &str) -> String {
    std::fs::read_to_string(at(path)).unwrap()
}

/// Whether `text` begins with exactly `digits` hexadecimal digits.
fn is_hex(text: &str, digits: usize) -> bool {
    let found = text.chars().take_while(char::is_ascii_hexdigit).count();
    found == digits && !text[digits..].starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// The images in a Dockerfile that are not pinned.
fn loose_images(dockerfile: &str) -> Vec<&str> {
    let stages: Vec<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM "))
        .collect();
    assert!(!stages.is_empty(), "no FROM");
    let loose = |stage: &&str| {
        let image = stage
            .split(' ')
            .find(|part| !part.starts_with("--"))
            .unwrap();
        image != "scratch"
            && !image
                .split_once("@sha256:")
                .is_some_and(|(_, digest)| is_hex(digest, 64))
    };
    stages.into_iter().filter(loose).collect()
}

/// The actions in a workflow that are not pinned by commit, with their release as a comment.
fn loose_actions(workflow: &str) -> Vec<&str> {
    let used = workflow.lines().filter_map(|line| {
        line.trim_start()
            .trim_start_matches("- ")
            .strip_prefix("uses: ")
    });
    let loose = |used: &&str| {
        let pinned = used
            .split_once('@')
            .and_then(|(_, commit)| commit.split_once(" # v"))
            .is_some_and(|(commit, _)| is_hex(commit, 40));
        !pinned && !used.starts_with("./")
    };
    used.filter(loose).collect()
}

#[test]
fn unpinned_images_and_actions_are_found() {
    let digest = "a".repeat(64);
    for (image, loose) in [
        (format!("rust@sha256:{digest}"), false),
        (
            format!("--platform=$BUILDPLATFORM rust:1.95@sha256:{digest} AS build"),
            false,
        ),
        ("scratch".to_owned(), false),
        ("rust:1.95".to_owned(), true),
        (
            "--platform=$BUILDPLATFORM ${IMAGE} AS build".to_owned(),
            true,
        ),
        (format!("rust@sha256:{digest}b"), true),
        ("rust@sha256:abc".to_owned(), true),
    ] {
        assert_eq!(
            !loose_images(&format!("FROM {image}\nRUN true\n")).is_empty(),
            loose,
            "{image}"
        );
    }
    let commit = "0123456789".repeat(4);
    for (uses, loose) in [
        (format!("- uses: actions/checkout@{commit} # v7.0.1"), false),
        (format!("  uses: actions/checkout@{commit} # v7.0.1"), false),
        ("uses: ./.github/workflows/ci.yml".to_owned(), false),
        (format!("uses: actions/checkout@{commit}"), true),
        ("uses: actions/checkout@v7".to_owned(), true),
        ("- uses: actions/checkout@v7 # v7".to_owned(), true),
    ] {
        assert_eq!(!loose_actions(&uses).is_empty(), loose, "{uses}");
    }
}

#[test]
fn base_images_and_actions_are_pinned() {
    assert_eq!(loose_images(&read("Dockerfile")), [""; 0]);
    let workflows = files(".github/workflows", "yml");
    assert!(workflows.len() >= 2, "{workflows:?}");
    for workflow in workflows {
        let text = std::fs::read_to_string(&workflow).unwrap();
        assert_eq!(loose_actions(&text), [""; 0], "{}", workflow.display());
        // Write permissions are granted per job, never for all jobs.
        let permissions = serde_saphyr::from_str::<Value>(&text).unwrap()["permissions"].clone();
        let granted = permissions
            .as_object()
            .unwrap_or_else(|| panic!("{}: permissions are set", workflow.display()));
        assert!(
            granted.values().all(|right| right == "read"),
            "{}: {granted:?}",
            workflow.display()
        );
    }
}

/// The image is built with a Rust version that the package supports.
#[test]
fn the_builder_has_the_rust_that_the_package_needs() {
    let numbers = |version: &str| {
        version
            .split('.')
            .map(|n| n.parse::<u32>().unwrap())
            .collect::<Vec<_>>()
    };
    let dockerfile = read("Dockerfile");
    let (_, image) = dockerfile
        .split_once("/rust:")
        .expect("the builder is an image of Rust");
    let builder = image.split('-').next().unwrap();
    assert!(
        numbers(builder) >= numbers(env!("CARGO_PKG_RUST_VERSION")),
        "{builder}"
    );
}

/// The workflow passes the tag; `chart` and `deploy` compare chart, manifests and programs.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "tests take their knobs from the environment"
)]
fn a_release_is_tagged_with_its_version() {
    if let Ok(tag) = std::env::var("TIMESHARD_RELEASE") {
        assert_eq!(
            tag,
            concat!("v", env!("CARGO_PKG_VERSION")),
            "tag v + the version in Cargo.toml"
        );
    }
}
