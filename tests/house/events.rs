//! `docs/events.md` has every reason of an Event that the program sends, and no other.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{at, files};

/// Where reasons are written.
const SENDERS: [&str; 7] = [
    "src/controller",
    "src/core/admission/reasons.rs",
    "src/core/gateways",
    "src/core/plan/mod.rs",
    "src/core/rollout",
    "src/webhook",
    "src/adapters/kube/rights.rs",
];
/// Other words in capitals there: kinds of objects, and values that Kubernetes defines.
const OTHERS: [&str; 23] = [
    "AdmissionReview",
    "Always",
    "AlwaysAllow",
    "ConfigMap",
    "DeleteOptions",
    "DoesNotExist",
    "Exists",
    "Forbidden",
    "IfHealthyBudget",
    "Namespace",
    "None",
    "NotIn",
    "OnDelete",
    "Orphan",
    "Pod",
    "PodDisruptionBudget",
    "PodDisruptionBudgets",
    "RollingUpdate",
    "Service",
    "Services",
    "StatefulSet",
    "Watch",
    "Writer",
];

/// Words in camel case that are whole string literals, without those of tests.
fn literals(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("\nmod tests {").next().unwrap_or_default();
    let is_word = |word: &&str| {
        word.len() > 2
            && word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.contains(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_alphabetic())
    };
    let parts = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    parts
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .filter(is_word)
        .map(str::to_owned)
        .collect()
}

fn sent() -> BTreeSet<String> {
    let is_test =
        |path: &Path| path.iter().any(|part| part == "tests") || path.ends_with("tests.rs");
    let of = |place: &&str| {
        if Path::new(place).extension().is_some() {
            vec![at(place)]
        } else {
            files(place, "rs")
        }
    };
    let mut found: BTreeSet<String> = SENDERS
        .iter()
        .flat_map(of)
        .filter(|path| !is_test(path))
        .flat_map(|path| literals(&path))
        .collect();
    found.retain(|word| !OTHERS.contains(&word.as_str()));
    found
}

#[test]
fn the_page_has_every_event_of_the_program() {
    let page = std::fs::read_to_string(at("docs/events.md")).unwrap();
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(reason, _)| reason.to_owned())
        .collect();
    assert!(documented.len() > 25, "{documented:?}");
    assert_eq!(documented, sent(), "docs/events.md, and the program");
}
