//! The webhook's registration: whom it holds up, whether the API server trusts it, who else changes pods.

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
use crate::core::names;
use crate::core::observed::Selector;

/// What the API server asks before it calls, as `deploy/` has it.
const MATCH_CONDITIONS: [&str; 3] = ["statefulset-pod", "may-run-thanos-store", "not-opted-out"];
/// What restores a registration that was changed.
const APPLY_AGAIN: &str = "apply deploy/ again, or upgrade the Helm release";
/// A longer timeout holds up a pod for longer than anybody expects, in seconds.
const LONGEST_TIMEOUT_SECONDS: i64 = 10;

/// Registrations of ours, in the order in which the API server calls them.
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

/// The registration of ours, if there is one.
#[must_use]
pub fn ours_of<'a>(all: &'a [WebhookConfiguration], system: &str) -> Option<&'a Webhook> {
    ours(all, system).first().map(|(_, webhook)| *webhook)
}

pub(super) fn look(snapshot: &Snapshot, report: &mut Report) {
    admission(snapshot, report);
    let all = match &snapshot.webhooks {
        Ok(all) => all,
        Err(lack) => return report.lacks(&WEBHOOK_REGISTERED, "", lack),
    };
    let ours = ours(all, &snapshot.system);
    let Some((config, webhook)) = ours.first() else {
        let hint = "apply deploy/ again, or upgrade the Helm release: without it store gateways are created without a window";
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
        let hint = "keep the one whose server is there, and delete the others: kubectl delete mutatingwebhookconfiguration NAME";
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
            "no other webhook changes pods of labelled namespaces",
        );
    } else if webhook.reinvocation_policy.as_deref() == Some("IfNeeded") {
        let message = format!(
            "{} change pods of labelled namespaces, too; ours is called again after them",
            listed(&others, ", ")
        );
        report.pass(&WEBHOOK_OTHERS, subject, message);
    } else {
        let message = format!(
            "{} change pods of labelled namespaces, too, and ours is not called again after them",
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
            "its rules leave out the creation of pods: no gateway gets a window",
            APPLY_AGAIN,
        );
    }
    namespace_selector(snapshot, subject, webhook, report);
    if Selector::from(webhook.object_selector.clone()).selects(&labels(&[(names::INJECT, "false")]))
    {
        let message = format!(
            "its objectSelector does not leave out pods labelled {}=false",
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
    let namespaces = Selector::from(webhook.namespace_selector.clone());
    if namespaces.selects(&labels(&[("kubernetes.io/metadata.name", "default")])) {
        report.fail(
            &WEBHOOK_SCOPE,
            subject,
            "its namespaceSelector selects namespaces without our label: pods of the whole cluster wait for it",
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
    let left_out: Vec<&str> = snapshot
        .namespaces
        .iter()
        .flatten()
        .filter(|namespace| {
            snapshot.spaces.contains_key(&namespace.metadata.name)
                && !namespaces.selects(&namespace.metadata.labels)
        })
        .map(|namespace| namespace.metadata.name.as_str())
        .collect();
    if !left_out.is_empty() {
        let message = format!(
            "its namespaceSelector leaves out labelled namespaces: {}",
            listed(&left_out, ", ")
        );
        report.fail(
            &WEBHOOK_SCOPE,
            subject,
            message,
            "unlabel these, or change the selector (the chart's webhook.namespaceExpressions)",
        );
    }
}

/// Checks that the API server asks only for pods that may be gateways: without it, other pods wait for the server, too.
fn match_conditions(subject: &str, webhook: &Webhook, report: &mut Report) {
    let missing: Vec<&str> = MATCH_CONDITIONS
        .into_iter()
        .filter(|name| {
            !webhook
                .match_conditions
                .iter()
                .any(|there| there.name == *name)
        })
        .collect();
    if !missing.is_empty() && webhook.failure_policy.as_deref() != Some("Ignore") {
        let message = format!(
            "matchConditions are missing ({}): while no server answers, other pods of labelled namespaces wait, too",
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
            "failurePolicy is Ignore: a gateway that is created while no server answers loads the whole bucket",
            "set failurePolicy: Fail where Kubernetes has matchConditions (1.28)",
        );
    }
    // The API server fills in 10.
    let timeout = webhook.timeout_seconds.unwrap_or(10);
    if !(2..=LONGEST_TIMEOUT_SECONDS).contains(&timeout) {
        let message =
            format!("timeoutSeconds is {timeout}: a pod fails too early or waits for long");
        report.warn(&WEBHOOK_POLICY, subject, message, "set timeoutSeconds: 5");
    }
    if !["None", "NoneOnDryRun"].contains(&webhook.side_effects.as_str()) {
        let message = format!(
            "sideEffects is {:?}: every dry run of a gateway is refused",
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
            "it is registered by a URL and not by a Service",
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
                "apply deploy/ again",
            );
        }
        Ok(Some(service)) if !service.ports.iter().any(|(_, number)| *number == port) => {
            return report.fail(
                &WEBHOOK_SERVICE,
                &name,
                format!("the Service has no port {port}"),
                "apply deploy/ again",
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
            "no address is ready behind the Service: store gateways cannot be created",
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
            "a gateway's pod, created as a dry run, came back without sidecar, launcher or window",
            "see the other checks of this section: nothing calls the server, or another webhook takes away what it adds (webhook-others)",
        ),
        DryRun::Refused { namespace, message } if message.contains(names::WEBHOOK) => report.fail(
            &WEBHOOK_ADMISSION,
            namespace,
            format!("the API server cannot call the webhook: {message}"),
            "see the other checks of this section; on managed clusters also the firewall between control plane and nodes (port 8443)",
        ),
        DryRun::Refused { namespace, message } => report.warn(
            &WEBHOOK_ADMISSION,
            namespace,
            format!("a gateway's pod, created as a dry run, was refused by somebody else: {message}"),
            "so admission could not be tried; a gateway that fits that policy is admitted",
        ),
    }
}

/// Webhooks of others that change pods of labelled namespaces.
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
        let selector = Selector::from(webhook.namespace_selector.clone());
        webhook.sees_pods()
            && spaces
                .iter()
                .any(|space| selector.selects(&space.metadata.labels))
    };
    let not_ours = |webhook: &Webhook| !ours.iter().any(|(_, our)| std::ptr::eq(*our, webhook));
    all.iter()
        .flat_map(|config| &config.webhooks)
        .filter(|webhook| not_ours(webhook) && reaches(webhook))
        .map(|webhook| webhook.name.clone())
        .collect()
}
