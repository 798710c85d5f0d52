//! What the leader says of each gateway: how far it is, whether pods serve what is published, whether anything is missing.

use super::Report;
use super::api::listed;
use super::blocks;
use super::ids::{ROLLOUT_COVERAGE, ROLLOUT_DRIFT, ROLLOUT_STATE};
use super::sets::Gateway;
use super::snapshot::Snapshot;
use crate::core::report::{PodReport, PodState, SetReport, State};
use crate::core::text::counted;

/// A pod that is on its way for longer is worth a look, in seconds. Large shards load for hours.
const LONG_SETTLING_SECONDS: u64 = 3 * 3_600;

pub(super) fn look(snapshot: &Snapshot, gateways: &[Gateway<'_>], report: &mut Report) {
    let Ok(status) = &snapshot.status else {
        return report.skip(
            &ROLLOUT_STATE,
            "",
            "the server could not be asked: see server-status",
        );
    };
    if status.leader.as_ref().is_none_or(|leader| !leader.is_self) {
        return report.skip(
            &ROLLOUT_STATE,
            "",
            "only a leader knows how far rollouts are, and none was asked: see server-leader",
        );
    }
    for gateway in gateways {
        let title = gateway.title();
        match status.report(&gateway.namespace, &gateway.name) {
            None => report.warn(
                &ROLLOUT_STATE,
                &title,
                "the server does not know this StatefulSet",
                "try again in some seconds; if it stays, see namespace-labels, server-permissions and the server's log",
            ),
            Some(Err(why)) => {
                report.warn(
                    &ROLLOUT_STATE,
                    &title,
                    format!("the server's report cannot be read by this version: {why}"),
                    "see server-version",
                );
            }
            Some(Ok(said)) => {
                state(&title, &said, report);
                drift(&title, &said, report);
                coverage(&title, &said, report);
                blocks::look(&title, &said, report);
            }
        }
    }
}

fn state(title: &str, said: &SetReport, report: &mut Report) {
    let (check, message) = (&ROLLOUT_STATE, said.message.clone());
    if said.replicas == 0 {
        return report.skip(check, title, "it has 0 replicas");
    }
    let watch = format!("timeshard status {title} --watch");
    match said.state {
        State::Settled => report.pass(check, title, message),
        State::Rolling => {
            let message = format!(
                "a rollout is under way, {} to go, at least {} s: {message}",
                counted(said.moves_left, "pod"),
                said.eta_seconds
            );
            report.warn(check, title, message, watch);
        }
        State::Waiting => report.warn(check, title, format!("it waits: {message}"), watch),
        State::Paused => report.warn(check, title, message, "remove the annotation to go on"),
        State::Unknown => report.warn(
            check,
            title,
            "the leader has not looked at it yet",
            "try again in some seconds",
        ),
        State::Blocked => report.fail(
            check,
            title,
            format!("the rollout is stuck: {message}"),
            watch,
        ),
        State::Refused => report.fail(
            check,
            title,
            format!("nothing can be published: {message}"),
            watch,
        ),
    }
}

fn drift(title: &str, said: &SetReport, report: &mut Report) {
    let check = &ROLLOUT_DRIFT;
    let before = report.findings.len();
    let with = |holds: fn(&PodReport) -> bool| -> Vec<String> {
        let shown = |pod: &PodReport| {
            pod.why
                .as_ref()
                .map_or_else(|| pod.pod.clone(), |why| format!("{} ({why})", pod.pod))
        };
        said.pods
            .iter()
            .filter(|pod| holds(pod))
            .map(shown)
            .collect()
    };
    let broken = with(|pod| pod.state == PodState::Broken);
    if !broken.is_empty() {
        let message = format!(
            "pods do not serve what is published, and will not by waiting: {}",
            listed(&broken, ", ")
        );
        report.fail(
            check,
            title,
            message,
            "look at the container thanos of these pods: kubectl logs",
        );
    }
    let silent = with(|pod| pod.state == PodState::Unreachable);
    if !silent.is_empty() {
        let message = format!(
            "the leader cannot ask these pods' sidecars, so no window changes: {}",
            listed(&silent, ", ")
        );
        report.fail(
            check,
            title,
            message,
            "let the server reach port 10908 of the gateways: NetworkPolicy, service mesh",
        );
    }
    let slow =
        with(|pod| pod.state == PodState::Settling && pod.seconds_in_state > LONG_SETTLING_SECONDS);
    if !slow.is_empty() {
        let message = format!(
            "pods have been on their way for more than {} h: {}",
            LONG_SETTLING_SECONDS / 3_600,
            listed(&slow, ", ")
        );
        report.warn(
            check,
            title,
            message,
            "look at the container thanos of these pods: kubectl logs",
        );
    }
    let unverified = with(|pod| pod.state == PodState::Confirmed && !pod.verified);
    if !unverified.is_empty() && report.findings.len() == before {
        let message = format!(
            "serving what is published, as far as the launcher tells (thanos' own flags cannot be read): {}",
            listed(&unverified, ", ")
        );
        return report.pass(check, title, message);
    }
    if report.findings.len() == before {
        report.pass(check, title, ROLLOUT_DRIFT.title);
    }
}

fn coverage(title: &str, said: &SetReport, report: &mut Report) {
    let check = &ROLLOUT_COVERAGE;
    if said.replicas == 0 {
        return report.skip(check, title, "it has 0 replicas");
    }
    if said.not_asked > 0 {
        let message = format!(
            "the leader has not asked {} of its sidecars yet, so what is served is not known",
            said.not_asked
        );
        return report.warn(check, title, message, "try again in some seconds");
    }
    if said.gap_seconds > 0 {
        let gaps: Vec<String> = said.gaps.iter().map(ToString::to_string).collect();
        let message = format!(
            "no ready pod serves {} s of the retention: {}",
            said.gap_seconds,
            listed(&gaps, ", ")
        );
        return report.fail(
            check,
            title,
            message,
            format!("queries over that time are incomplete: timeshard status {title}"),
        );
    }
    match said.minimum_ready_replicas {
        n if n < 2 => {
            let message =
                format!("some instant is served by {n} pod only: its restart costs queries");
            report.warn(
                check,
                title,
                message,
                format!(
                    "timeshard status {title} shows which; two replicas for each shard avoid it"
                ),
            );
        }
        n => report.pass(
            check,
            title,
            format!("every instant is served by at least {n} pods"),
        ),
    }
}
