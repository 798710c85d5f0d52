//! The leader's report on each gateway: its progress, whether pods serve the published windows, and
//! whether any range is missing.

use super::Report;
use super::api::listed;
use super::blocks;
use super::gateway::CheckedGateway;
use super::ids::{ROLLOUT_COVERAGE, ROLLOUT_DRIFT, ROLLOUT_STATE};
use super::snapshot::Snapshot;
use crate::core::model::text::counted;
use crate::core::rollout::report::{PodReport, PodState, RolloutState, SetReport};

/// A pod that has been settling for longer is a warning, in seconds. Large shards load for hours.
const LONG_SETTLING_SECONDS: u64 = 3 * 3_600;

pub(super) fn check(snapshot: &Snapshot, gateways: &[CheckedGateway<'_>], report: &mut Report) {
    let Ok(status) = &snapshot.status else {
        return report.skip(
            &ROLLOUT_STATE,
            "",
            "the server could not be reached: see server-status",
        );
    };
    if status.leader.as_ref().is_none_or(|leader| !leader.is_self) {
        return report.skip(
            &ROLLOUT_STATE,
            "",
            "only the leader knows the rollouts, and it could not be reached: see server-leader",
        );
    }
    for gateway in gateways {
        let title = gateway.title();
        match status.report(&gateway.namespace, &gateway.name) {
            None => report.warn(
                &ROLLOUT_STATE,
                &title,
                "the server does not know this StatefulSet",
                "try again in a few seconds; if it persists, see namespace-labels, server-permissions and the server's log",
            ),
            Some(Err(why)) => {
                report.warn(
                    &ROLLOUT_STATE,
                    &title,
                    format!("this version cannot read the server's report: {why}"),
                    "see server-version",
                );
            }
            Some(Ok(set)) => {
                state(&title, &set, report);
                drift(&title, &set, report);
                coverage(&title, &set, report);
                blocks::check(&title, &set, report);
            }
        }
    }
}

fn state(title: &str, set: &SetReport, report: &mut Report) {
    let (check, message) = (&ROLLOUT_STATE, set.message.clone());
    if set.replicas == 0 {
        return report.skip(check, title, "it has 0 replicas");
    }
    let watch = format!("timeshard status {title} --watch");
    match set.state {
        RolloutState::Settled => report.pass(check, title, message),
        RolloutState::Rolling => {
            let message = format!(
                "a rollout is in progress, {} left, at least {} s: {message}",
                counted(set.moves_left, "pod"),
                set.eta_seconds
            );
            report.warn(check, title, message, watch);
        }
        RolloutState::Waiting => report.warn(check, title, format!("it waits: {message}"), watch),
        RolloutState::Paused => {
            report.warn(check, title, message, "remove the annotation to continue");
        }
        RolloutState::Unknown => report.warn(
            check,
            title,
            "the leader has not reconciled it yet",
            "try again in a few seconds",
        ),
        RolloutState::Blocked => report.fail(
            check,
            title,
            format!("the rollout is stuck: {message}"),
            watch,
        ),
        RolloutState::Refused => report.fail(
            check,
            title,
            format!("nothing can be published: {message}"),
            watch,
        ),
    }
}

fn drift(title: &str, set: &SetReport, report: &mut Report) {
    let check = &ROLLOUT_DRIFT;
    let before = report.findings.len();
    let with = |holds: fn(&PodReport) -> bool| -> Vec<String> {
        let shown = |pod: &PodReport| {
            pod.why
                .as_ref()
                .map_or_else(|| pod.pod.clone(), |why| format!("{} ({why})", pod.pod))
        };
        set.pods
            .iter()
            .filter(|pod| holds(pod))
            .map(shown)
            .collect()
    };
    let broken = with(|pod| pod.state == PodState::Broken);
    if !broken.is_empty() {
        let message = format!(
            "pods do not serve their published window, and waiting does not help: {}",
            listed(&broken, ", ")
        );
        report.fail(
            check,
            title,
            message,
            "see the log of the container thanos of these pods: kubectl logs",
        );
    }
    let silent = with(|pod| pod.state == PodState::Unreachable);
    if !silent.is_empty() {
        let message = format!(
            "the leader cannot reach these pods' sidecars, so the rollout waits: {}",
            listed(&silent, ", ")
        );
        report.fail(
            check,
            title,
            message,
            "allow the server to reach port 10908 of the gateways (NetworkPolicy? service mesh?)",
        );
    }
    let slow =
        with(|pod| pod.state == PodState::Settling && pod.seconds_in_state > LONG_SETTLING_SECONDS);
    if !slow.is_empty() {
        let message = format!(
            "pods have been settling for more than {} h: {}",
            LONG_SETTLING_SECONDS / 3_600,
            listed(&slow, ", ")
        );
        report.warn(
            check,
            title,
            message,
            "see the log of the container thanos of these pods: kubectl logs",
        );
    }
    let unverified = with(|pod| pod.state == PodState::Confirmed && !pod.verified);
    if !unverified.is_empty() && report.findings.len() == before {
        let message = format!(
            "serving their published window as the launcher reports (thanos' own flags cannot be read): {}",
            listed(&unverified, ", ")
        );
        return report.pass(check, title, message);
    }
    if report.findings.len() == before {
        report.pass(check, title, ROLLOUT_DRIFT.title);
    }
}

fn coverage(title: &str, set: &SetReport, report: &mut Report) {
    let check = &ROLLOUT_COVERAGE;
    if set.replicas == 0 {
        return report.skip(check, title, "it has 0 replicas");
    }
    if set.not_asked > 0 {
        let message = format!(
            "the leader has not polled {} of its sidecars yet, so coverage is unknown",
            set.not_asked
        );
        return report.warn(check, title, message, "try again in a few seconds");
    }
    if set.gap_seconds > 0 {
        let gaps: Vec<String> = set.gaps.iter().map(ToString::to_string).collect();
        let message = format!(
            "{} serves {} s of the retention: {}",
            set.unserved_by(),
            set.gap_seconds,
            listed(&gaps, ", ")
        );
        if let Some(who) = set.served_unseen() {
            return report.warn(
                check,
                title,
                format!("{message}; {who}"),
                "delete them one at a time to have them injected, as pods-injected says",
            );
        }
        return report.fail(
            check,
            title,
            message,
            format!("queries over that range are incomplete: timeshard status {title}"),
        );
    }
    match set.minimum_ready_replicas {
        n if n < 2 => {
            let message =
                format!("some instant is served by only {n} pod: its restart affects queries");
            report.warn(
                check,
                title,
                message,
                format!(
                    "timeshard status {title} shows which; two replicas in each shard avoid this"
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
