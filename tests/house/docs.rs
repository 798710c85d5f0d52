//! The documentation names only existing metrics, Event reasons, annotations and labels.

use std::collections::BTreeSet;

use thanos_timeshard::core::model::names::PREFIX;

use crate::{at, files};

fn pages() -> Vec<(String, String)> {
    let mut paths = files("docs", "md");
    paths.push(at("README.md"));
    paths
        .into_iter()
        .map(|path| {
            (
                path.display().to_string(),
                std::fs::read_to_string(&path).unwrap(),
            )
        })
        .collect()
}

fn sources() -> String {
    files("src", "rs")
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

/// The text after each `mark`, up to the first character that `part` rejects.
fn after<'a>(
    text: &'a str,
    mark: &'a str,
    part: fn(char) -> bool,
) -> impl Iterator<Item = &'a str> {
    text.split(mark)
        .skip(1)
        .map(move |rest| &rest[..rest.find(|c| !part(c)).unwrap_or(rest.len())])
}

/// `docs/metrics.md` is generated from the programs, so every metric in it exists.
#[test]
fn metrics_exist() {
    let reference = std::fs::read_to_string(at("docs/metrics.md")).unwrap();
    let mut seen = 0;
    for (page, text) in pages() {
        for name in after(&text, "`timeshard_", |c| c.is_ascii_lowercase() || c == '_') {
            assert!(
                reference.contains(&format!("`timeshard_{name}`")),
                "{page}: no metric timeshard_{name}"
            );
            seen += 1;
        }
    }
    assert!(seen > 3);
}

#[test]
fn reasons_of_events_exist() {
    let sources = sources();
    let mut seen = BTreeSet::new();
    for (page, text) in pages() {
        for reason in after(&text, "Event `", |c| c.is_ascii_alphabetic()) {
            assert!(
                sources.contains(&format!("\"{reason}\"")),
                "{page}: no Event has the reason {reason}"
            );
            seen.insert(reason.to_owned());
        }
    }
    assert!(seen.len() > 8, "{seen:?}");
}

#[test]
fn annotations_and_labels_exist() {
    let sources = sources();
    for (page, text) in pages() {
        for key in after(&text, PREFIX, |c| c.is_ascii_lowercase() || c == '-') {
            let is_name = sources.contains(&format!("\"{PREFIX}{key}\""));
            let is_key = sources.contains(&format!(
                "\"{}\"",
                key.trim_end_matches('-').replace('-', "_")
            ));
            // kubectl removes a key with a trailing dash; an empty key precedes a placeholder.
            assert!(
                key.is_empty()
                    || is_name
                    || is_key
                    || sources.contains(&format!("\"{PREFIX}{}\"", key.trim_end_matches('-'))),
                "{page}: {PREFIX}{key}"
            );
        }
    }
}
