//! `timeshard check` has the rights and names of `deploy/`, and every check is documented.

use std::collections::BTreeSet;

use thanos_timeshard::core::check::rights::{Right, Where, install, server};
use thanos_timeshard::core::check::{INSTALLED, ids};
use thanos_timeshard::core::model::names;

use crate::at;
use crate::deploy::{documents, granted, the};

#[test]
fn every_check_has_its_entry_and_every_entry_its_check() {
    let document = std::fs::read_to_string(at(ids::DOCUMENT)).unwrap();
    let anchors: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let wanted: Vec<&str> = ids::ALL.iter().map(|check| check.id).collect();
    assert_eq!(
        anchors, wanted,
        "the entries are in the order of the checks"
    );
    for check in ids::ALL {
        let (_, entry) = document
            .split_once(&format!("### {}\n\n", check.id))
            .unwrap();
        assert!(
            entry.lines().next().is_some_and(|line| line.len() > 20),
            "{} is not documented",
            check.id
        );
    }
    let sections: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    assert!(
        ids::ALL
            .iter()
            .all(|check| sections.contains(&check.section.name()))
    );
}

fn listed(rights: &[Right], holds: impl Fn(&Right) -> bool) -> BTreeSet<String> {
    rights
        .iter()
        .filter(|right| holds(right))
        .map(|right| format!("{} {}.{}", right.verb, right.resource, right.group))
        .collect()
}

#[test]
fn the_checked_rights_are_the_granted_ones() {
    let rights = server();
    assert_eq!(
        listed(&rights, |right| right.place != Where::System),
        granted(&the("ClusterRole"))
    );
    assert_eq!(
        listed(&rights, |right| right.place == Where::System),
        granted(&the("Role"))
    );
}

#[test]
fn the_check_before_installation_knows_every_object() {
    let mut made: BTreeSet<(String, String)> = documents("deploy/base")
        .iter()
        .filter(|object| {
            !["Namespace", "Kustomization"].contains(&object["kind"].as_str().unwrap())
        })
        .map(|object| {
            (
                object["kind"].as_str().unwrap().to_owned(),
                object["metadata"]["name"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    // The Deployment mounts it; cert-manager or the server creates it.
    made.insert(("Secret".to_owned(), "timeshard-tls".to_owned()));
    let known: BTreeSet<(String, String)> = INSTALLED
        .iter()
        .map(|one| (one.kind.to_owned(), one.name().to_owned()))
        .collect();
    assert_eq!(known, made);
    let creates: BTreeSet<String> = install(false)
        .iter()
        .filter(|right| right.verb == "create")
        .map(|right| right.resource.to_owned())
        .collect();
    let kinds: BTreeSet<String> = documents("deploy/base")
        .iter()
        .map(|object| plural(object["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(
        creates,
        &kinds - &BTreeSet::from(["kustomizations".to_owned()])
    );
}

fn plural(kind: &str) -> String {
    let lower = kind.to_ascii_lowercase();
    lower
        .strip_suffix('y')
        .map_or_else(|| format!("{lower}s"), |stem| format!("{stem}ies"))
}

#[test]
fn the_webhook_is_found_by_its_name() {
    assert_eq!(
        the("MutatingWebhookConfiguration")["webhooks"][0]["name"],
        names::WEBHOOK
    );
}
