//! The webhook's registration: whom it holds up, whether the API server trusts it, who else changes pods.

use std::collections::BTreeMap;

use super::Report;
use super::api::listed;
use super::ids::{
    WEBHOOK_ADMISSION, WEBHOOK_CA, WEBHOOK_CERTIFICATE, WEBHOOK_OTHERS, WEBHOOK_POLICY, WEBHOOK_REGISTERED, WEBHOOK_SCOPE, WEBHOOK_SERVICE,
};
use super::objects::{Webhook, WebhookConfiguration};
use super::snapshot::{Certificate, DryRun, Snapshot, Trouble};
use crate::core::names;
use crate::core::observed::Selector;

/// What the API server asks before it calls, as `deploy/` has it.
const MATCH_CONDITIONS: [&str; 3] = ["statefulset-pod", "may-run-thanos-store", "not-opted-out"];
/// A longer timeout holds up a pod for longer than anybody expects, in seconds.
const LONGEST_TIMEOUT_SECONDS: i64 = 10;
/// A serving certificate that ends earlier should have been renewed already, in seconds.
const CERTIFICATE_WARN_SECONDS: i64 = 3 * 86_400;
/// An authority that ends earlier needs a hand, in seconds.
const AUTHORITY_WARN_SECONDS: i64 = 14 * 86_400;

/// Registrations of ours, in the order in which the API server calls them.
pub(super) fn ours<'a>(all: &'a [WebhookConfiguration], system: &str) -> Vec<(&'a WebhookConfiguration, &'a Webhook)> {
    let is = |webhook: &Webhook| {
        let service = webhook.client_config.service.as_ref();
        let leads_here =
            |service: &&super::objects::ServiceRef| service.namespace == system && service.path.as_deref() == Some(names::MUTATE_PATH);
        webhook.name == names::WEBHOOK || service.as_ref().is_some_and(leads_here)
    };
    all.iter().flat_map(|config| config.webhooks.iter().map(move |webhook| (config, webhook))).filter(|(_, webhook)| is(webhook)).collect()
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
        return report.fail(&WEBHOOK_REGISTERED, "", format!("no MutatingWebhookConfiguration has the webhook {}", names::WEBHOOK), hint);
    };
    let subject = config.metadata.name.as_str();
    if ours.len() > 1 {
        let names: Vec<&str> = ours.iter().map(|(config, _)| config.metadata.name.as_str()).collect();
        let hint = "keep the one whose server is there, and delete the others: kubectl delete mutatingwebhookconfiguration NAME";
        report.warn(
            &WEBHOOK_REGISTERED,
            subject,
            format!("the webhook is registered {} times: {}", ours.len(), listed(&names, ", ")),
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
        report.pass(&WEBHOOK_OTHERS, subject, "no other webhook changes pods of labelled namespaces");
    } else if webhook.reinvocation_policy.as_deref() == Some("IfNeeded") {
        let message = format!("{} change pods of labelled namespaces, too; ours is called again after them", listed(&others, ", "));
        report.pass(&WEBHOOK_OTHERS, subject, message);
    } else {
        let message = format!("{} change pods of labelled namespaces, too, and ours is not called again after them", listed(&others, ", "));
        report.warn(&WEBHOOK_OTHERS, subject, message, "set reinvocationPolicy: IfNeeded, as deploy/ has it");
    }
}

fn scope(snapshot: &Snapshot, subject: &str, webhook: &Webhook, report: &mut Report) {
    let before = report.findings.len();
    let namespaces = Selector::from(webhook.namespace_selector.clone());
    let objects = Selector::from(webhook.object_selector.clone());
    let labels =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>();
    let again = "apply deploy/ again, or upgrade the Helm release";
    if !webhook.sees_pods() {
        report.fail(&WEBHOOK_SCOPE, subject, "its rules leave out the creation of pods: no gateway gets a window", again);
    }
    if namespaces.selects(&labels(&[("kubernetes.io/metadata.name", "default")])) {
        report.fail(
            &WEBHOOK_SCOPE,
            subject,
            "its namespaceSelector selects namespaces without our label: pods of the whole cluster wait for it",
            format!("select {} In [{}]; {again}", names::NAMESPACE_LABEL, names::INJECTION_ENABLED),
        );
    } else if namespaces
        .selects(&labels(&[(names::NAMESPACE_LABEL, names::INJECTION_ENABLED), ("kubernetes.io/metadata.name", "kube-system")]))
    {
        report.warn(&WEBHOOK_SCOPE, subject, "its namespaceSelector does not exclude kube-system", again);
    }
    let left_out: Vec<&str> = snapshot
        .namespaces
        .iter()
        .flatten()
        .filter(|namespace| snapshot.spaces.contains_key(&namespace.metadata.name) && !namespaces.selects(&namespace.metadata.labels))
        .map(|namespace| namespace.metadata.name.as_str())
        .collect();
    if !left_out.is_empty() {
        let message = format!("its namespaceSelector leaves out labelled namespaces: {}", listed(&left_out, ", "));
        report.fail(&WEBHOOK_SCOPE, subject, message, "unlabel these, or change the selector (the chart's webhook.namespaceExpressions)");
    }
    if objects.selects(&labels(&[(names::INJECT, "false")])) {
        let message = format!("its objectSelector does not leave out pods labelled {}=false", names::INJECT);
        report.warn(&WEBHOOK_SCOPE, subject, message, again);
    }
    let missing: Vec<&str> =
        MATCH_CONDITIONS.into_iter().filter(|name| !webhook.match_conditions.iter().any(|there| there.name == *name)).collect();
    if !missing.is_empty() && webhook.failure_policy.as_deref() != Some("Ignore") {
        let message = format!(
            "matchConditions are missing ({}): while no server answers, other pods of labelled namespaces wait, too",
            listed(&missing, ", ")
        );
        report.warn(&WEBHOOK_SCOPE, subject, message, format!("{again}; before Kubernetes 1.28, set failurePolicy: Ignore"));
    }
    if report.findings.len() == before {
        report.pass(&WEBHOOK_SCOPE, subject, WEBHOOK_SCOPE.title);
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
        let message = format!("timeoutSeconds is {timeout}: a pod fails too early or waits for long");
        report.warn(&WEBHOOK_POLICY, subject, message, "set timeoutSeconds: 5");
    }
    if !["None", "NoneOnDryRun"].contains(&webhook.side_effects.as_str()) {
        let message = format!("sideEffects is {:?}: every dry run of a gateway is refused", webhook.side_effects);
        report.fail(&WEBHOOK_POLICY, subject, message, "set sideEffects: NoneOnDryRun");
    }
    if report.findings.len() == before {
        report.pass(&WEBHOOK_POLICY, subject, format!("failurePolicy Fail, timeout {timeout} s"));
    }
}

fn service(snapshot: &Snapshot, subject: &str, webhook: &Webhook, report: &mut Report) {
    let Some(wanted) = &webhook.client_config.service else {
        return report.skip(&WEBHOOK_SERVICE, subject, "it is registered by a URL and not by a Service");
    };
    let name = format!("{}/{}", wanted.namespace, wanted.name);
    let port = i32::from(wanted.port.unwrap_or(443));
    match &snapshot.service {
        Err(lack) => return report.lacks(&WEBHOOK_SERVICE, &name, lack),
        Ok(None) => {
            return report.fail(&WEBHOOK_SERVICE, &name, "the Service that the API server calls does not exist", "apply deploy/ again");
        }
        Ok(Some(service)) if !service.ports.iter().any(|(_, number)| *number == port) => {
            return report.fail(&WEBHOOK_SERVICE, &name, format!("the Service has no port {port}"), "apply deploy/ again");
        }
        Ok(Some(_)) => {}
    }
    let slices = match &snapshot.endpoints {
        Ok(slices) => slices,
        Err(lack) => return report.lacks(&WEBHOOK_SERVICE, &name, lack),
    };
    let ready = slices.iter().flat_map(|slice| &slice.endpoints).filter(|endpoint| endpoint.conditions.ready != Some(false)).count();
    if ready == 0 {
        let hint = "see server-replicas; if replicas are ready, compare the Service's selector with their labels";
        report.fail(&WEBHOOK_SERVICE, &name, "no address is ready behind the Service: store gateways cannot be created", hint);
    } else {
        report.pass(&WEBHOOK_SERVICE, &name, format!("{ready} ready address{} behind the Service", if ready == 1 { "" } else { "es" }));
    }
}

fn authorities(snapshot: &Snapshot, subject: &str, report: &mut Report) {
    let issue = "with cert-manager see kubectl get certificate, and the annotation cert-manager.io/inject-ca-from; without it set the caBundle to the CA that signed the server's certificate";
    match &snapshot.authorities {
        None => report.skip(&WEBHOOK_CA, subject, "there is no caBundle to look at"),
        Some(Err(why)) => report.fail(&WEBHOOK_CA, subject, format!("the caBundle cannot be used: {why}"), issue),
        Some(Ok(authorities)) => {
            let now = snapshot.now_seconds();
            let latest = authorities.iter().map(|(_, end)| *end).max().unwrap_or(0);
            if latest <= now {
                report.fail(
                    &WEBHOOK_CA,
                    subject,
                    format!("every certificate of the caBundle has expired, the last one {}", ago(now - latest)),
                    issue,
                );
            } else if latest - now < AUTHORITY_WARN_SECONDS {
                let message = format!("the caBundle ends in {}, and the webhook with it", long(latest - now));
                report.warn(&WEBHOOK_CA, subject, message, issue);
            } else {
                report.pass(&WEBHOOK_CA, subject, format!("the caBundle is valid for {}", long(latest - now)));
            }
        }
    }
}

fn certificate(snapshot: &Snapshot, subject: &str, report: &mut Report) {
    let trusted = matches!(&snapshot.dry_run, DryRun::Admitted { injected: true, .. });
    if !matches!(snapshot.authorities, Some(Ok(_))) {
        return report.skip(&WEBHOOK_CERTIFICATE, subject, "there is no usable caBundle to compare with");
    }
    let unreachable = match &snapshot.served {
        Ok(shown) => return judge(snapshot, subject, shown, "", report),
        Err(why) => why,
    };
    match &snapshot.secret {
        Ok(Some(there)) if there.trouble.is_some() => judge(snapshot, subject, there, "", report),
        Ok(Some(there)) if trusted => {
            judge(snapshot, subject, there, "; the server cannot be connected to from here, and the dry run got through", report);
        }
        _ if trusted => {
            let end = snapshot.status.as_ref().ok().and_then(|status| status.certificate_not_after_unix_seconds);
            let from = "what the server serves".to_owned();
            let shown = Certificate { from, not_after: end.unwrap_or(i64::MAX), trouble: None };
            judge(snapshot, subject, &shown, "; the API server talks to it: the dry run got through", report);
        }
        Ok(Some(there)) => report.warn(
            &WEBHOOK_CERTIFICATE,
            subject,
            format!("the server cannot be connected to from here ({unreachable}); {} fits the caBundle", there.from),
            "what is served may be older than the Secret for up to two minutes: see webhook-admission, or run this in a pod of the cluster",
        ),
        Ok(None) => report.warn(
            &WEBHOOK_CERTIFICATE,
            subject,
            format!("the server cannot be connected to from here ({unreachable}), and its Secret is not there"),
            "see webhook-admission; make the Secret, with tls.crt and tls.key, or look at kubectl get certificate",
        ),
        Err(lack) => {
            report.lacks(&WEBHOOK_CERTIFICATE, subject, lack);
            let hint = "see webhook-admission, or run this in a pod of the cluster";
            report.warn(&WEBHOOK_CERTIFICATE, subject, format!("the server cannot be connected to from here ({unreachable})"), hint);
        }
    }
}

fn judge(snapshot: &Snapshot, subject: &str, certificate: &Certificate, beside: &str, report: &mut Report) {
    let (from, now) = (&certificate.from, snapshot.now_seconds());
    let left = certificate.not_after.saturating_sub(now);
    let renew = "renew it: with cert-manager see kubectl get certificate; without it write a new tls.crt and tls.key into the Secret";
    let (message, hint) = match &certificate.trouble {
        Some(Trouble::UnknownIssuer) => (
            "is not signed by an authority of the caBundle: every store gateway is refused".to_owned(),
            "set the caBundle to the CA that signed it (cert-manager: the annotation cert-manager.io/inject-ca-from), or restart what was never reloaded",
        ),
        Some(Trouble::Expired) => (format!("has expired {}: every store gateway is refused", ago(-left)), renew),
        Some(Trouble::NotYetValid) => ("is not valid yet: every store gateway is refused".to_owned(), "compare the clocks: see api-clock"),
        Some(Trouble::OtherName) => (
            "is for another name than the API server calls (SERVICE.NAMESPACE.svc): every store gateway is refused".to_owned(),
            "issue it for that name",
        ),
        Some(Trouble::Other(why)) => (format!("would be refused by the API server: {why}"), renew),
        None if left < CERTIFICATE_WARN_SECONDS => {
            return report.warn(&WEBHOOK_CERTIFICATE, subject, format!("{from} ends in {}, and nobody has renewed it", long(left)), renew);
        }
        None if certificate.not_after == i64::MAX => {
            return report.pass(&WEBHOOK_CERTIFICATE, subject, format!("{from} is trusted{beside}"));
        }
        None => return report.pass(&WEBHOOK_CERTIFICATE, subject, format!("{from} is trusted, for {}{beside}", long(left))),
    };
    report.fail(&WEBHOOK_CERTIFICATE, subject, format!("{from} {message}"), hint);
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
fn others(snapshot: &Snapshot, all: &[WebhookConfiguration], ours: &[(&WebhookConfiguration, &Webhook)]) -> Vec<String> {
    let spaces: Vec<_> = snapshot.namespaces.iter().flatten().filter(|one| snapshot.spaces.contains_key(&one.metadata.name)).collect();
    let reaches = |webhook: &Webhook| {
        let selector = Selector::from(webhook.namespace_selector.clone());
        webhook.sees_pods() && spaces.iter().any(|space| selector.selects(&space.metadata.labels))
    };
    let not_ours = |webhook: &Webhook| !ours.iter().any(|(_, our)| std::ptr::eq(*our, webhook));
    all.iter()
        .flat_map(|config| &config.webhooks)
        .filter(|webhook| not_ours(webhook) && reaches(webhook))
        .map(|webhook| webhook.name.clone())
        .collect()
}

fn ago(seconds: i64) -> String {
    format!("{} ago", long(seconds))
}

fn long(seconds: i64) -> String {
    match seconds {
        s if s >= 2 * 86_400 => format!("{} days", s / 86_400),
        s if s >= 2 * 3_600 => format!("{} hours", s / 3_600),
        s if s >= 120 => format!("{} minutes", s / 60),
        s => format!("{} s", s.max(0)),
    }
}
