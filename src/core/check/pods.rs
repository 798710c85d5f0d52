//! The pods that there are: whether admission injected them, and which version their agents have.

use super::Report;
use super::api::listed;
use super::ids::{PODS_AGENTS, PODS_INJECTED};
use super::objects::Meta;
use super::sets::Gateway;
use super::snapshot::Snapshot;
use crate::core::names;
use crate::core::report::PodState;

pub(super) fn look(snapshot: &Snapshot, gateways: &[Gateway<'_>], report: &mut Report) {
    for gateway in gateways {
        injected(snapshot, gateway, report);
        agents(snapshot, gateway, report);
    }
}

fn opted_out(pod: &Meta) -> bool {
    [&pod.labels, &pod.annotations]
        .iter()
        .any(|map| map.get(names::INJECT).is_some_and(|value| value == "false"))
}

/// Checks that admission injected every pod that has not opted out.
fn injected(snapshot: &Snapshot, gateway: &Gateway<'_>, report: &mut Report) {
    let (check, title) = (&PODS_INJECTED, gateway.title());
    if let Some(Err(lack)) = snapshot
        .spaces
        .get(&gateway.namespace)
        .map(|space| &space.pods)
    {
        return report.lacks(check, &title, lack);
    }
    let bare = gateway
        .pods
        .iter()
        .filter(|pod| !pod.annotations.contains_key(names::STATUS_ANNOTATION) && !opted_out(pod));
    let bare: Vec<&str> = bare.map(|pod| pod.name.as_str()).collect();
    if bare.is_empty() {
        let message = match gateway.pods.len() {
            1 => "1 pod is injected".to_owned(),
            many => format!("{many} pods are injected"),
        };
        return report.pass(check, &title, message);
    }
    let message = format!(
        "admitted without injection, so nothing keeps the window right: {}",
        listed(&bare, ", ")
    );
    let hint = format!(
        "have them admitted anew, one after the other: kubectl -n {} delete pod NAME",
        gateway.namespace
    );
    report.warn(check, &title, message, hint);
}

/// Compares the agents' versions, as the leader knows them, with the server's.
fn agents(snapshot: &Snapshot, gateway: &Gateway<'_>, report: &mut Report) {
    let (check, title) = (&PODS_AGENTS, gateway.title());
    let Ok(status) = &snapshot.status else { return };
    let Some(Ok(said)) = status.report(&gateway.namespace, &gateway.name) else {
        return;
    };
    let present = || {
        said.pods
            .iter()
            .filter(|pod| !matches!(pod.state, PodState::Absent | PodState::NotInjected))
    };
    if !present().any(|pod| pod.agent_version.is_some()) {
        return report.skip(
            check,
            &title,
            "no agent has said yet of which version it is",
        );
    }
    let other = present()
        .filter_map(|pod| Some((pod, pod.agent_version.as_ref()?)))
        .filter(|(_, version)| **version != status.version);
    let other: Vec<String> = other
        .map(|(pod, version)| format!("{} ({version})", pod.pod))
        .collect();
    if other.is_empty() {
        report.pass(check, &title, PODS_AGENTS.title);
    } else {
        let message = format!(
            "agents of another version than the server's {}: {}",
            status.version,
            listed(&other, ", ")
        );
        report.warn(
            check,
            &title,
            message,
            "they go on working; kubectl rollout restart brings the new one when it suits",
        );
    }
}
