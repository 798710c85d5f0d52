//! The webhook's registration: what it matches, whether the API server can call it, and which other
//! webhooks change pods.

use std::collections::BTreeMap;

use super::Report;
use super::api::listed;
use super::certificates::{authorities, certificate};
use super::ids::{
    WEBHOOK_ADMISSION, WEBHOOK_OTHERS, WEBHOOK_POLICY, WEBHOOK_REGISTERED, WEBHOOK_SCOPE,
    WEBHOOK_SERVICE,
};
use super::objects::{Webhook, WebhookConfiguration};
use super::snapshot::{DryRun, Snapshot};
use crate::core::model::names;

/// The `matchConditions` of `deploy/`.
const MATCH_CONDITIONS: [&str; 3] = ["statefulset-pod", "may-run-thanos-store", "not-opted-out"];
const APPLY_AGAIN: &str = "reapply deploy/, or upgrade the Helm release";
/// A longer timeout delays pods too much, in seconds.
const MAX_TIMEOUT_SECONDS: i64 = 10;

/// Returns timeshard's registrations, in the order in which the API server calls them.
pub(super) fn ours<'a>(
    all: &'a [WebhookConfiguration],
    system: &str,
) -> Vec<(&'a WebhookConfiguration, &'a Webhook)> {
    let is = |webhook: &Webhook| {
        let service = webhook.client_config.service.as_ref();
        let leads_here = |service: &&super::objects::ServiceRef| {
            service.namespace == system && service.path.as_deref() == Some(names::MUTATE_PATH)
        };
        webhook.name == names::WEBHOOK || service.as_ref().is_some_and(leads_here)
    };
    all.iter()
        .flat_map(|config| config.webhooks.iter().map(move |webhook| (config, webhook)))
        .filter(|(_, webhook)| is(webhook))
        .collect()
}

/// Returns timeshard's first registration.
#[must_use]
pub fn ours_of<'a>(all: &'a [WebhookConfiguration], system: &str) -> Option<&'a Webhook> {
    ours(all, system).first().map(|(_, webhook)| *webhook)
}

pub(super) fn check(snapshot: &Snapshot, report: &mut Report) {
    admission(snapshot, report);
    let all = match &snapshot.webhooks {
        Ok(all) => all,
        Err(lack) => return report.lacks(&WEBHOOK_REGISTERED, "", lack),
    };
    let ours = ours(all, &snapshot.system);
    let Some((config, webhook)) = ours.first() else {
        let hint = "reapply deploy/, or upgrade the Helm release: without it, store gateways are created without a window";
        return report.fail(
            &WEBHOOK_REGISTERED,
            "",
            format!(
                "no MutatingWebhookConfiguration has the webhook {}",
                names::WEBHOOK
            ),
            hint,
        );
    };
    let subject = config.metadata.name.as_str();
    if ours.len() > 1 {
        let names: Vec<&str> = ours
            .iter()
            .map(|(config, _)| config.metadata.name.as_str())
            .collect();
        let hint = "keep the one whose server exists, and delete the others: kubectl delete mutatingwebhookconfiguration NAME";
        report.warn(
            &WEBHOOK_REGISTERED,
            subject,
            format!(
                "the webhook is registered {} times: {}",
                ours.len(),
                listed(&names, ", ")
            ),
            hint,
        );
    } else {
        report.pass(&WEBHOOK_REGISTERED, subject, WEBHOOK_REGISTERED.title);
    }
    scope(snapshot, subject, webhook, report);
    let others = others(snapshot, all, &ours);
    policy(subject, webhook, report);
    service(snapshot, subject, webhook, report);
    authorities(snapshot, subject, report);
    certificate(snapshot, subject, report);
    if others.is_empty() {
        report.pass(
            &WEBHOOK_OTHERS,
            subject,
            "no other webhook mutates pods of labelled namespaces",
        );
    } else if webhook.reinvocation_policy.as_deref() == Some("IfNeeded") {
        let message = format!(
            "these webhooks also mutate pods of labelled namespaces, and timeshard's is called again after them: {}",
            listed(&others, ", ")
        );
        report.pass(&WEBHOOK_OTHERS, subject, message);
    } else {
        let message = format!(
            "these webhooks also mutate pods of labelled namespaces, and timeshard's is not called again after them: {}",
            listed(&others, ", ")
        );
        report.warn(
            &WEBHOOK_OTHERS,
            subject,
            message,
            "set reinvocationPolicy: IfNeeded, as deploy/ has it",
        );
    }
}

fn scope(snapshot: &Snapshot, subject: &str, webhook: &Webhook, report: &mut Report) {
    let before = report.findings.len();
    if !webhook.sees_pods() {
        report.fail(
            &WEBHOOK_SCOPE,
            subject,
            "its rules do not match the creation of pods: no gateway gets a window",
            APPLY_AGAIN,
        );
    }
    namespace_selector(snapshot, subject, webhook, report);
    if webhook
        .object_selector
        .selects(&labels(&[(names::INJECT, "false")]))
    {
        let message = format!(
            "its objectSelector does not exclude pods labelled {}=false",
            names::INJECT
        );
        report.warn(&WEBHOOK_SCOPE, subject, message, APPLY_AGAIN);
    }
    match_conditions(subject, webhook, report);
    if report.findings.len() == before {
        report.pass(&WEBHOOK_SCOPE, subject, WEBHOOK_SCOPE.title);
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// Checks that the namespaceSelector selects the labelled namespaces and no others.
fn namespace_selector(snapshot: &Snapshot, subject: &str, webhook: &Webhook, report: &mut Report) {
    let namespaces = &webhook.namespace_selector;
    if namespaces.selects(&labels(&[("kubernetes.io/metadata.name", "default")])) {
        report.fail(
            &WEBHOOK_SCOPE,
            subject,
            "its namespaceSelector selects namespaces without timeshard's label: pods of the whole cluster wait for it",
            format!("select {} In [{}]; {APPLY_AGAIN}", names::NAMESPACE_LABEL, names::INJECTION_ENABLED),
        );
    } else if namespaces.selects(&labels(&[
        (names::NAMESPACE_LABEL, names::INJECTION_ENABLED),
        ("kubernetes.io/metadata.name", "kube-system"),
    ])) {
        report.warn(
            &WEBHOOK_SCOPE,
            subject,
            "its namespaceSelector does not exclude kube-system",
            APPLY_AGAIN,
        );
    }
    let excluded: Vec<&str> = snapshot
        .namespaces
        .iter()
        .flatten()
        .filter(|namespace| {
            snapshot.spaces.contains_key(&namespace.metadata.name)
                && !namespaces.selects(&namespace.metadata.labels)
        })
        .map(|namespace| namespace.metadata.name.as_str())
        .collect();
    if !excluded.is_empty() {
        let message = format!(
            "its namespaceSelector excludes labelled namespaces: {}",
            listed(&excluded, ", ")
        );
        report.fail(
            &WEBHOOK_SCOPE,
            subject,
            message,
            "remove their label, or change the selector (the chart's webhook.namespaceExpressions)",
        );
    }
}

/// Checks that the API server calls the webhook only for possible gateways; otherwise other pods also
/// wait for the server.
fn match_conditions(subject: &str, webhook: &Webhook, report: &mut Report) {
    let missing: Vec<&str> = MATCH_CONDITIONS
        .into_iter()
        .filter(|name| {
            !webhook
                .match_conditions
                .iter()
                .any(|condition| condition.name == *name)
        })
        .collect();
    if !missing.is_empty() && webhook.failure_policy.as_deref() != Some("Ignore") {
        let message = format!(
            "matchConditions are missing ({}): while no server answers, other pods of labelled namespaces also wait",
            listed(&missing, ", ")
        );
        report.warn(
            &WEBHOOK_SCOPE,
            subject,
            message,
            format!("{APPLY_AGAIN}; before Kubernetes 1.28, set failurePolicy: Ignore"),
        );
    }
}

fn policy(subject: &str, webhook: &Webhook, report: &mut Report) {
    let before = report.findings.len();
    if webhook.failure_policy.as_deref() == Some("Ignore") {
        report.warn(
            &WEBHOOK_POLICY,
            subject,
            "failurePolicy is Ignore: a gateway created while no server answers loads the whole bucket",
            "set failurePolicy: Fail where Kubernetes has matchConditions (1.28)",
        );
    }
    // The API server's default is 10.
    let timeout = webhook.timeout_seconds.unwrap_or(10);
    if !(2..=MAX_TIMEOUT_SECONDS).contains(&timeout) {
        let message = format!("timeoutSeconds is {timeout}: pods fail too early or wait too long");
        report.warn(&WEBHOOK_POLICY, subject, message, "set timeoutSeconds: 5");
    }
    if !["None", "NoneOnDryRun"].contains(&webhook.side_effects.as_str()) {
        let message = format!(
            "sideEffects is {:?}: every dry run of a gateway is rejected",
            webhook.side_effects
        );
        report.fail(
            &WEBHOOK_POLICY,
            subject,
            message,
            "set sideEffects: NoneOnDryRun",
        );
    }
    if report.findings.len() == before {
        report.pass(
            &WEBHOOK_POLICY,
            subject,
            format!("failurePolicy Fail, timeout {timeout} s"),
        );
    }
}

fn service(snapshot: &Snapshot, subject: &str, webhook: &Webhook, report: &mut Report) {
    let Some(wanted) = &webhook.client_config.service else {
        return report.skip(
            &WEBHOOK_SERVICE,
            subject,
            "it is registered by URL, not by Service",
        );
    };
    let name = format!("{}/{}", wanted.namespace, wanted.name);
    let port = i32::from(wanted.port.unwrap_or(443));
    match &snapshot.service {
        Err(lack) => return report.lacks(&WEBHOOK_SERVICE, &name, lack),
        Ok(None) => {
            return report.fail(
                &WEBHOOK_SERVICE,
                &name,
                "the Service that the API server calls does not exist",
                "reapply deploy/",
            );
        }
        Ok(Some(service)) if !service.ports.iter().any(|(_, number)| *number == port) => {
            return report.fail(
                &WEBHOOK_SERVICE,
                &name,
                format!("the Service has no port {port}"),
                "reapply deploy/",
            );
        }
        Ok(Some(_)) => {}
    }
    let slices = match &snapshot.endpoints {
        Ok(slices) => slices,
        Err(lack) => return report.lacks(&WEBHOOK_SERVICE, &name, lack),
    };
    let ready = slices
        .iter()
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| endpoint.conditions.ready != Some(false))
        .count();
    if ready == 0 {
        let hint = "see server-replicas; if replicas are ready, compare the Service's selector with their labels";
        report.fail(
            &WEBHOOK_SERVICE,
            &name,
            "no address behind the Service is ready: store gateways cannot be created",
            hint,
        );
    } else {
        report.pass(
            &WEBHOOK_SERVICE,
            &name,
            format!(
                "{ready} ready address{} behind the Service",
                if ready == 1 { "" } else { "es" }
            ),
        );
    }
}

fn admission(snapshot: &Snapshot, report: &mut Report) {
    match &snapshot.dry_run {
        DryRun::NotTried(why) => report.skip(&WEBHOOK_ADMISSION, "", why.clone()),
        DryRun::Admitted { namespace, injected: true } => {
            report.pass(&WEBHOOK_ADMISSION, namespace, "a gateway's pod, created as a dry run, is injected");
        }
        DryRun::Admitted { namespace, injected: false } => report.fail(
            &WEBHOOK_ADMISSION,
            namespace,
            "a gateway's pod, created as a dry run, lacks sidecar, launcher or window",
            "see the other checks of this section: the server is not called, or another webhook removes what it adds (webhook-others)",
        ),
        DryRun::Refused { namespace, message } if message.contains(names::WEBHOOK) => report.fail(
            &WEBHOOK_ADMISSION,
            namespace,
            format!("the API server cannot call the webhook: {message}"),
            "see the other checks of this section, and on managed clusters the firewall between control plane and nodes (port 8443)",
        ),
        DryRun::Refused { namespace, message } => report.warn(
            &WEBHOOK_ADMISSION,
            namespace,
            format!("a gateway's pod, created as a dry run, was rejected by another policy: {message}"),
            "admission could not be tested; gateways that comply with that policy are admitted",
        ),
    }
}

/// Returns other webhooks that mutate pods of labelled namespaces.
fn others(
    snapshot: &Snapshot,
    all: &[WebhookConfiguration],
    ours: &[(&WebhookConfiguration, &Webhook)],
) -> Vec<String> {
    let spaces: Vec<_> = snapshot
        .namespaces
        .iter()
        .flatten()
        .filter(|one| snapshot.spaces.contains_key(&one.metadata.name))
        .collect();
    let reaches = |webhook: &Webhook| {
        webhook.sees_pods()
            && spaces
                .iter()
                .any(|space| webhook.namespace_selector.selects(&space.metadata.labels))
    };
    let not_ours = |webhook: &Webhook| !ours.iter().any(|(_, our)| std::ptr::eq(*our, webhook));
    all.iter()
        .flat_map(|config| &config.webhooks)
        .filter(|webhook| not_ours(webhook) && reaches(webhook))
        .map(|webhook| webhook.name.clone())
        .collect()
}
