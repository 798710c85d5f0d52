//! Which namespaces are labelled, and which probably should be.

use super::Report;
use super::api::listed;
use super::ids::{NAMESPACE_LABELS, NAMESPACE_RIGHTS};
use super::objects::Object;
use super::snapshot::Snapshot;
use crate::core::model::names;

fn value(namespace: &Object) -> Option<&str> {
    namespace
        .metadata
        .labels
        .get(names::NAMESPACE_LABEL)
        .map(String::as_str)
}

#[must_use]
pub fn is_labelled(namespace: &Object) -> bool {
    value(namespace) == Some(names::INJECTION_ENABLED)
}

pub(super) fn check(snapshot: &Snapshot, report: &mut Report) {
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
                    "the namespace does not exist",
                    "see kubectl get namespaces",
                );
            }
            Some(namespace) if value(namespace).is_none() => {
                return report.fail(
                    check,
                    only,
                    "the namespace is not labelled: its gateways get no window",
                    names::label_command(only),
                );
            }
            Some(_) => {}
        }
    }
    let included = || {
        all.iter()
            .filter(|namespace| snapshot.includes(&namespace.metadata.name))
    };
    for namespace in included() {
        let name = &namespace.metadata.name;
        match value(namespace) {
            Some(names::INJECTION_ENABLED) if name == "kube-system" => {
                let hint = format!(
                    "kubectl label namespace kube-system {}-",
                    names::NAMESPACE_LABEL
                );
                report.warn(check, name, "kube-system is labelled, but the webhook excludes it: its gateways get no window", hint);
            }
            Some(names::INJECTION_ENABLED) => report.pass(check, name, "the namespace is labelled"),
            Some("disabled" | "false") => {}
            Some(other) => {
                let message = format!(
                    "the label {} has the value {other:?}, which has no meaning",
                    names::NAMESPACE_LABEL
                );
                report.warn(check, name, message, names::label_command(name));
            }
            None => leftovers(snapshot, name, report),
        }
    }
    rights(snapshot, all, report);
    if !included().any(is_labelled) {
        report.warn(
            check,
            "",
            "no namespace is labelled, so no gateway is sharded",
            names::label_command("NAME"),
        );
    }
}

/// Finds labelled namespaces in which the server has no Role, if it has no `ClusterRole`.
fn rights(snapshot: &Snapshot, all: &[Object], report: &mut Report) {
    let denied = match &snapshot.denied {
        Ok(denied) => denied,
        Err(lack) => return report.lacks(&NAMESPACE_RIGHTS, "", lack),
    };
    let names = all
        .iter()
        .map(|namespace| &namespace.metadata.name)
        .filter(|name| snapshot.includes(name));
    let without: Vec<&String> = names
        .filter(|name| denied.namespaces.contains(name))
        .collect();
    for name in &without {
        let message = "the namespace is labelled, but the server has no rights in it: its gateways are skipped";
        let hint = format!(
            "grant a Role there (rbac.namespaces of the chart, or deploy/components/namespaced), or: kubectl label namespace {name} {}-",
            names::NAMESPACE_LABEL
        );
        report.fail(&NAMESPACE_RIGHTS, name, message, hint);
    }
    if without.is_empty() {
        report.pass(&NAMESPACE_RIGHTS, "", NAMESPACE_RIGHTS.title);
    }
}

/// Finds objects of timeshard in a namespace without the label.
fn leftovers(snapshot: &Snapshot, namespace: &str, report: &mut Report) {
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
            "the namespace is not labelled, but has objects of timeshard: {}",
            listed(&found, ", ")
        );
        let hint = format!(
            "{}; or delete these objects",
            names::label_command(namespace)
        );
        report.warn(&NAMESPACE_LABELS, namespace, message, hint);
    }
}
