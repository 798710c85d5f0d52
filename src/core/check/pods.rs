//! Running pods: whether admission injected them, and which version their agents have.

use super::Report;
use super::api::listed;
use super::gateway::CheckedGateway;
use super::ids::{PODS_AGENTS, PODS_INJECTED};
use super::snapshot::Snapshot;
use crate::core::rollout::report::PodState;

pub(super) fn check(snapshot: &Snapshot, gateways: &[CheckedGateway<'_>], report: &mut Report) {
    for gateway in gateways {
        injected(snapshot, gateway, report);
        agents(snapshot, gateway, report);
    }
}

/// Checks that admission injected every pod that has not opted out.
fn injected(snapshot: &Snapshot, gateway: &CheckedGateway<'_>, report: &mut Report) {
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
        .filter(|pod| !pod.injected && !pod.opted_out);
    let bare: Vec<&str> = bare.map(|pod| pod.name.as_str()).collect();
    if bare.is_empty() {
        let message = match gateway.pods.len() {
            1 => "1 pod is injected".to_owned(),
            many => format!("{many} pods are injected"),
        };
        return report.pass(check, &title, message);
    }
    let message = format!(
        "admitted without injection, so timeshard does not manage their windows: {}",
        listed(&bare, ", ")
    );
    let hint = format!(
        "delete them one at a time so that they are admitted again: kubectl -n {} delete pod NAME",
        gateway.namespace
    );
    report.warn(check, &title, message, hint);
}

/// Compares the agents' versions, as the leader knows them, with the server's.
fn agents(snapshot: &Snapshot, gateway: &CheckedGateway<'_>, report: &mut Report) {
    let (check, title) = (&PODS_AGENTS, gateway.title());
    let Ok(status) = &snapshot.status else { return };
    let Some(Ok(set)) = status.report(&gateway.namespace, &gateway.name) else {
        return;
    };
    let present = || {
        set.pods
            .iter()
            .filter(|pod| !matches!(pod.state, PodState::Absent | PodState::NotInjected))
    };
    if !present().any(|pod| pod.agent_version.is_some()) {
        return report.skip(check, &title, "no agent has reported its version yet");
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
            "agents with another version than the server's {}: {}",
            status.version,
            listed(&other, ", ")
        );
        report.warn(
            check,
            &title,
            message,
            "they keep working; kubectl rollout restart updates them at your convenience",
        );
    }
}
