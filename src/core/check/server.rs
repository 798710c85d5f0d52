//! The server's Deployment, its status, and its configuration.

use std::collections::BTreeSet;

use super::Report;
use super::api::listed;
use super::ids::{
    CONFIG_APPLIED, CONFIG_SOUND, CONFIG_VALID, SERVER_LEADER, SERVER_PERMISSIONS, SERVER_REPLICAS,
    SERVER_STATUS, SERVER_VERSION,
};
use super::snapshot::Snapshot;
use crate::core::config::Config;
use crate::core::model::duration::PromDuration;
use crate::core::model::names;
use crate::core::plan::Plan;
use crate::core::server_status::ServerStatus;

/// Returns the configuration in force, if it is known.
pub(super) fn check(snapshot: &Snapshot, report: &mut Report) -> Option<Config> {
    permissions(snapshot, report);
    replicas(snapshot, report);
    version(snapshot, report);
    match &snapshot.status {
        Ok(status) => reported(status, report),
        Err(lack) => {
            report.lacks(&SERVER_STATUS, "", lack);
            report.skip(&SERVER_LEADER, "", "the server could not be reached");
        }
    }
    configuration(snapshot, report)
}

fn permissions(snapshot: &Snapshot, report: &mut Report) {
    match &snapshot.denied {
        Err(lack) => report.lacks(&SERVER_PERMISSIONS, "", lack),
        Ok(denied) if denied.sentences.is_empty() => {
            report.pass(&SERVER_PERMISSIONS, "", SERVER_PERMISSIONS.title);
        }
        Ok(denied) => report.fail(
            &SERVER_PERMISSIONS,
            "",
            format!(
                "the server's ServiceAccount may not {}",
                listed(&denied.sentences, "; ")
            ),
            "reapply the roles and bindings of deploy/, or upgrade the Helm release",
        ),
    }
}

fn replicas(snapshot: &Snapshot, report: &mut Report) {
    let deployments = match &snapshot.deployments {
        Ok(deployments) => deployments,
        Err(lack) => return report.lacks(&SERVER_REPLICAS, "", lack),
    };
    let Some(deployment) = deployments.first() else {
        return report.fail(
            &SERVER_REPLICAS,
            "",
            format!("no Deployment with the labels {} in namespace {}", names::SERVER_PODS, snapshot.system),
            "install it (helm install, or kubectl apply -k deploy/cert-manager), or set its namespace with --system-namespace",
        );
    };
    let subject = deployment.metadata.title();
    let (wanted, ready) = (
        deployment.spec.replicas.unwrap_or(1),
        deployment.status.ready_replicas,
    );
    let see = format!("kubectl -n {} get pods,events", snapshot.system);
    if wanted == 0 {
        let scale = format!(
            "kubectl -n {} scale deployment {} --replicas=2",
            snapshot.system, deployment.metadata.name
        );
        report.fail(
            &SERVER_REPLICAS,
            &subject,
            "the Deployment is scaled to 0 replicas: no store gateway can be created",
            scale,
        );
    } else if ready == 0 {
        report.fail(
            &SERVER_REPLICAS,
            &subject,
            format!("none of {wanted} replicas is ready: no store gateway can be created"),
            see,
        );
    } else if ready < wanted {
        report.warn(
            &SERVER_REPLICAS,
            &subject,
            format!("{ready} of {wanted} replicas are ready"),
            see,
        );
    } else if wanted < 2 {
        let hint = format!(
            "kubectl -n {} scale deployment {} --replicas=2",
            snapshot.system, deployment.metadata.name
        );
        report.warn(
            &SERVER_REPLICAS,
            &subject,
            "there is one replica: while it restarts, store gateways wait",
            hint,
        );
    } else if deployment.status.updated_replicas < wanted {
        report.warn(
            &SERVER_REPLICAS,
            &subject,
            "the Deployment is being updated",
            "wait for it: kubectl rollout status",
        );
    } else {
        report.pass(
            &SERVER_REPLICAS,
            &subject,
            format!("{ready} of {wanted} replicas are ready"),
        );
    }
}

fn version(snapshot: &Snapshot, report: &mut Report) {
    let pods = snapshot.server_pods.as_deref().unwrap_or_default();
    let running = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let images: BTreeSet<&str> = running
        .flat_map(|pod| &pod.spec.containers)
        .map(|container| container.image.as_str())
        .collect();
    if images.len() > 1 {
        let images: Vec<&str> = images.into_iter().collect();
        let hint = format!(
            "finish the rollout: kubectl -n {} rollout status deployment",
            snapshot.system
        );
        return report.warn(
            &SERVER_VERSION,
            "",
            format!("replicas run different images: {}", listed(&images, ", ")),
            hint,
        );
    }
    match &snapshot.status {
        Ok(status) if status.version == snapshot.version => {
            report.pass(
                &SERVER_VERSION,
                "",
                format!("server and command line have version {}", status.version),
            );
        }
        Ok(status) => report.warn(
            &SERVER_VERSION,
            "",
            format!(
                "the server has version {:?}, this command line {}",
                status.version, snapshot.version
            ),
            "use a command line of the server's version: checks differ between versions",
        ),
        Err(_) => report.skip(&SERVER_VERSION, "", "the server could not be reached"),
    }
}

fn reported(status: &ServerStatus, report: &mut Report) {
    let from = status.from.as_str();
    let mut healthy = true;
    let mut fail = |problem: Option<String>, hint: &str| {
        if let Some(problem) = problem {
            healthy = false;
            report.fail(&SERVER_STATUS, from, problem, hint);
        }
    };
    fail(
        status.watch_error.as_ref().map(|error| {
            format!("a watch on the cluster fails, so the last known state stays in force: {error}")
        }),
        "see server-permissions, and the server's log",
    );
    fail(
        status
            .certificate_error
            .as_ref()
            .map(|error| format!("its certificate cannot be reloaded: {error}")),
        "check the Secret and its issuer: kubectl get certificate",
    );
    fail(
        (status.synced == Some(false))
            .then(|| "it has not listed the labelled namespaces yet".to_owned()),
        "wait a few seconds; if it persists, see server-permissions and the server's log",
    );
    if status.webhook_only {
        healthy = false;
        report.warn(
            &SERVER_STATUS,
            from,
            "it runs with --webhook-only: no window ever changes",
            "remove --webhook-only",
        );
    }
    if healthy {
        report.pass(&SERVER_STATUS, from, SERVER_STATUS.title);
    }
    leader(status, report);
}

fn leader(status: &ServerStatus, report: &mut Report) {
    let Some(leader) = &status.leader else {
        let hint = "remove --no-refresher, unless you manage the ConfigMaps yourself";
        return report.warn(
            &SERVER_LEADER,
            "",
            "the server runs without a refresher: it publishes nothing and moves no window",
            hint,
        );
    };
    match (&leader.error, &leader.holder) {
        (Some(error), _) => {
            let message = format!("the Lease {} cannot be acquired: {error}", names::LEASE);
            report.fail(
                &SERVER_LEADER,
                "",
                message,
                "see server-permissions, and kubectl describe lease",
            );
        }
        (None, None) => {
            let hint = "a new leader takes over within 15 s; if none does, see server-permissions and the server's log";
            report.fail(
                &SERVER_LEADER,
                "",
                "no replica leads, so no window moves",
                hint,
            );
        }
        (None, Some(holder)) if leader.is_self => {
            report.pass(&SERVER_LEADER, "", format!("{holder} leads"));
        }
        (None, Some(holder)) => {
            let message = format!(
                "{holder} leads but could not be reached; {} answered, which knows less",
                status.from
            );
            report.warn(
                &SERVER_LEADER,
                "",
                message,
                "try again; if it persists, check that pod",
            );
        }
    }
}

fn configuration(snapshot: &Snapshot, report: &mut Report) -> Option<Config> {
    let (config, of_server) = match &snapshot.config {
        Err(lack) if lack.forbidden => {
            report.lacks(&CONFIG_VALID, "", lack);
            return None;
        }
        Err(lack) => {
            let hint = "reapply deploy/: without it, no new replica of the server starts";
            report.fail(
                &CONFIG_VALID,
                "",
                format!("could not {}: {}", lack.what, lack.why),
                hint,
            );
            return None;
        }
        Ok(None) => {
            report.pass(
                &CONFIG_VALID,
                "",
                "the server has no --config, so the built-in defaults apply",
            );
            (Config::default(), true)
        }
        Ok(Some(text)) => match Config::parse(&text.text, &text.source) {
            Ok(config) => {
                report.pass(&CONFIG_VALID, &text.source, CONFIG_VALID.title);
                (config, text.of_server)
            }
            Err(refusal) => {
                let hint = "correct it; a running server keeps the last valid one, but a new replica does not start";
                report.fail(&CONFIG_VALID, &text.source, refusal.to_string(), hint);
                return None;
            }
        },
    };
    sound(&config, report);
    match &snapshot.status {
        _ if !of_server => report.skip(
            &CONFIG_APPLIED,
            "",
            "a local file was checked instead of the server's",
        ),
        Ok(status) => match &status.config_error {
            None => report.pass(&CONFIG_APPLIED, "", CONFIG_APPLIED.title),
            Some(error) => {
                let message = format!(
                    "the server rejected the last edit and keeps an older configuration: {error}"
                );
                report.fail(
                    &CONFIG_APPLIED,
                    "",
                    message,
                    "correct the ConfigMap; kubelet syncs it to the server within two minutes",
                );
            }
        },
        Err(_) => report.skip(&CONFIG_APPLIED, "", "the server could not be reached"),
    }
    Some(config)
}

fn sound(config: &Config, report: &mut Report) {
    let sharding = &config.sharding;
    let mut remarks: Vec<String> = Plan::new(sharding, None)
        .notes()
        .iter()
        .map(ToString::to_string)
        .collect();
    if sharding.termination_drain() == PromDuration::ZERO {
        remarks.push("termination_drain is 0s: queriers still query a deleted pod after it has ended, so queries fail at each deletion; use 90s with Thanos' defaults".to_owned());
    }
    if sharding.allow_coverage_gap() {
        remarks.push(
            "allow_coverage_gap is true: a shard with one replica restarts although no other pod serves its window meanwhile".to_owned(),
        );
    }
    if remarks.is_empty() {
        report.pass(&CONFIG_SOUND, "", CONFIG_SOUND.title);
    }
    for remark in remarks {
        report.warn(
            &CONFIG_SOUND,
            "",
            remark,
            "timeshard plan --config FILE shows the resulting windows",
        );
    }
}
