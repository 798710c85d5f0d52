//! Which namespaces take part, and which seem to be meant to.

use super::Report;
use super::api::listed;
use super::ids::{NAMESPACE_LABELS, NAMESPACE_RIGHTS};
use super::objects::Object;
use super::snapshot::Snapshot;
use crate::core::names;

/// The label's value, if it is there.
fn value(namespace: &Object) -> Option<&str> {
    namespace
        .metadata
        .labels
        .get(names::NAMESPACE_LABEL)
        .map(String::as_str)
}

/// Whether it takes part.
#[must_use]
pub fn is_labelled(namespace: &Object) -> bool {
    value(namespace) == Some(names::INJECTION_ENABLED)
}

fn label(namespace: &str) -> String {
    format!(
        "kubectl label --overwrite namespace {namespace} {}={}",
        names::NAMESPACE_LABEL,
        names::INJECTION_ENABLED
    )
}

pub(super) fn look(snapshot: &Snapshot, report: &mut Report) {
    let all = match &snapshot.namespaces {
        Ok(all) => all,
        Err(lack) => return report.lacks(&NAMESPACE_LABELS, "", lack),
    };
    let check = &NAMESPACE_LABELS;
    if let Some(only) = &snapshot.only {
        match all
            .iter()
            .find(|namespace| namespace.metadata.name == *only)
        {
            None => {
                return report.fail(
                    check,
                    only,
                    "there is no such namespace",
                    "see kubectl get namespaces",
                );
            }
            Some(namespace) if value(namespace).is_none() => {
                return report.fail(
                    check,
                    only,
                    "the namespace is not labelled: its gateways get no window",
                    label(only),
                );
            }
            Some(_) => {}
        }
    }
    let looked_at = || {
        all.iter()
            .filter(|namespace| snapshot.looks_at(&namespace.metadata.name))
    };
    for namespace in looked_at() {
        let name = &namespace.metadata.name;
        match value(namespace) {
            Some(names::INJECTION_ENABLED) if name == "kube-system" => {
                let hint = format!(
                    "kubectl label namespace kube-system {}-",
                    names::NAMESPACE_LABEL
                );
                report.warn(check, name, "kube-system is labelled, and the webhook excludes it: its gateways get no window", hint);
            }
            Some(names::INJECTION_ENABLED) => report.pass(check, name, "the namespace is labelled"),
            Some("disabled" | "false") => {}
            Some(other) => {
                let message = format!(
                    "the label {} has the value {other:?}, which means nothing",
                    names::NAMESPACE_LABEL
                );
                report.warn(check, name, message, label(name));
            }
            None => left_behind(snapshot, name, report),
        }
    }
    rights(snapshot, all, report);
    if !looked_at().any(is_labelled) {
        report.warn(
            check,
            "",
            "no namespace is labelled, so no gateway is sharded",
            label("NAME"),
        );
    }
}

/// Labelled namespaces in which the server has no Role, where its rights are not those of the cluster.
fn rights(snapshot: &Snapshot, all: &[Object], report: &mut Report) {
    let denied = match &snapshot.denied {
        Ok(denied) => denied,
        Err(lack) => return report.lacks(&NAMESPACE_RIGHTS, "", lack),
    };
    let names = all
        .iter()
        .map(|namespace| &namespace.metadata.name)
        .filter(|name| snapshot.looks_at(name));
    let without: Vec<&String> = names
        .filter(|name| denied.namespaces.contains(name))
        .collect();
    for name in &without {
        let message = "the namespace is labelled, and the server has no rights in it: its gateways are left as they are";
        let hint = format!(
            "give it a Role there (rbac.namespaces of the chart, or deploy/components/namespaced), or: kubectl label namespace {name} {}-",
            names::NAMESPACE_LABEL
        );
        report.fail(&NAMESPACE_RIGHTS, name, message, hint);
    }
    if without.is_empty() {
        report.pass(&NAMESPACE_RIGHTS, "", NAMESPACE_RIGHTS.title);
    }
}

/// A namespace without the label where there is something of ours all the same.
fn left_behind(snapshot: &Snapshot, namespace: &str, report: &mut Report) {
    let mut found: Vec<String> = snapshot
        .maps
        .iter()
        .flatten()
        .filter(|map| map.namespace == namespace)
        .map(|map| format!("ConfigMap {}", map.name))
        .collect();
    let annotated = snapshot.statefulsets.iter().flatten().filter(|set| {
        let text = |pointer: &str| set.pointer(pointer).and_then(serde_json::Value::as_str);
        let annotations = set
            .pointer("/metadata/annotations")
            .and_then(serde_json::Value::as_object);
        text("/metadata/namespace") == Some(namespace)
            && annotations
                .into_iter()
                .flatten()
                .any(|(key, _)| key.starts_with(names::PREFIX))
    });
    let name = |set: &serde_json::Value| {
        set.pointer("/metadata/name")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    found.extend(annotated.map(|set| format!("StatefulSet {}", name(set))));
    if !found.is_empty() {
        let message = format!(
            "the namespace is not labelled, yet has objects that speak of sharding: {}",
            listed(&found, ", ")
        );
        let hint = format!("{}; or delete what is left", label(namespace));
        report.warn(&NAMESPACE_LABELS, namespace, message, hint);
    }
}
