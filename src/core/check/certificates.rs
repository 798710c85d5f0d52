//! The webhook's certificate and the caBundle that the API server verifies it with.

use super::Report;
use super::ids::{WEBHOOK_CA, WEBHOOK_CERTIFICATE};
use super::snapshot::{Certificate, DryRun, Snapshot, Trouble};

/// A serving certificate that expires earlier should have been renewed already, in seconds.
const CERTIFICATE_WARN_SECONDS: i64 = 3 * 86_400;
/// A CA that expires earlier needs attention, in seconds.
const AUTHORITY_WARN_SECONDS: i64 = 14 * 86_400;

/// Checks how long the caBundle is valid.
pub(super) fn authorities(snapshot: &Snapshot, subject: &str, report: &mut Report) {
    let issue = "with cert-manager, see kubectl get certificate and the annotation cert-manager.io/inject-ca-from; without it, set the caBundle to the CA that signed the server's certificate";
    match &snapshot.authorities {
        None => report.skip(&WEBHOOK_CA, subject, "there is no caBundle"),
        Some(Err(why)) => report.fail(
            &WEBHOOK_CA,
            subject,
            format!("the caBundle cannot be used: {why}"),
            issue,
        ),
        Some(Ok(authorities)) => {
            let now = snapshot.now_seconds();
            let latest = authorities.iter().map(|(_, end)| *end).max().unwrap_or(0);
            if latest <= now {
                report.fail(
                    &WEBHOOK_CA,
                    subject,
                    format!(
                        "every certificate of the caBundle has expired, the last one {}",
                        ago(now - latest)
                    ),
                    issue,
                );
            } else if latest - now < AUTHORITY_WARN_SECONDS {
                let message = format!(
                    "the caBundle expires in {}; the webhook then stops working",
                    duration(latest - now)
                );
                report.warn(&WEBHOOK_CA, subject, message, issue);
            } else {
                report.pass(
                    &WEBHOOK_CA,
                    subject,
                    format!("the caBundle is valid for {}", duration(latest - now)),
                );
            }
        }
    }
}

/// Checks that the caBundle trusts the serving certificate, directly or by the Secret and the dry
/// run.
pub(super) fn certificate(snapshot: &Snapshot, subject: &str, report: &mut Report) {
    let trusted = matches!(&snapshot.dry_run, DryRun::Admitted { injected: true, .. });
    if !matches!(snapshot.authorities, Some(Ok(_))) {
        return report.skip(
            &WEBHOOK_CERTIFICATE,
            subject,
            "there is no usable caBundle to compare with",
        );
    }
    let unreachable = match &snapshot.served {
        Ok(shown) => return classify(snapshot, subject, shown, "", report),
        Err(why) => why,
    };
    match &snapshot.secret {
        Ok(Some(there)) if there.trouble.is_some() => classify(snapshot, subject, there, "", report),
        Ok(Some(there)) if trusted => {
            classify(snapshot, subject, there, "; the server is not reachable from here, but the dry run succeeded", report);
        }
        _ if trusted => {
            let end = snapshot.status.as_ref().ok().and_then(|status| status.certificate_not_after_unix_seconds);
            let from = "the serving certificate".to_owned();
            let shown = Certificate { from, not_after: end.unwrap_or(i64::MAX), trouble: None };
            classify(snapshot, subject, &shown, "; the API server accepts it: the dry run succeeded", report);
        }
        Ok(Some(there)) => report.warn(
            &WEBHOOK_CERTIFICATE,
            subject,
            format!("the server is not reachable from here ({unreachable}); {} matches the caBundle", there.from),
            "the serving certificate may be up to two minutes older than the Secret: see webhook-admission, or run this in a pod of the cluster",
        ),
        Ok(None) => report.warn(
            &WEBHOOK_CERTIFICATE,
            subject,
            format!("the server is not reachable from here ({unreachable}), and its Secret does not exist"),
            "see webhook-admission; create the Secret, with tls.crt and tls.key, or see kubectl get certificate",
        ),
        Err(lack) => {
            report.lacks(&WEBHOOK_CERTIFICATE, subject, lack);
            let hint = "see webhook-admission, or run this in a pod of the cluster";
            report.warn(&WEBHOOK_CERTIFICATE, subject, format!("the server is not reachable from here ({unreachable})"), hint);
        }
    }
}

fn classify(
    snapshot: &Snapshot,
    subject: &str,
    certificate: &Certificate,
    remark: &str,
    report: &mut Report,
) {
    let (from, now) = (&certificate.from, snapshot.now_seconds());
    let left = certificate.not_after.saturating_sub(now);
    let renew = "renew it: with cert-manager, see kubectl get certificate; without it, write a new tls.crt and tls.key into the Secret";
    let (message, hint) = match &certificate.trouble {
        Some(Trouble::UnknownIssuer) => (
            "is not signed by a CA of the caBundle: every store gateway is rejected".to_owned(),
            "set the caBundle to the CA that signed it (cert-manager: the annotation cert-manager.io/inject-ca-from), or restart the server if it never reloaded its certificate",
        ),
        Some(Trouble::Expired) => (format!("has expired {}: every store gateway is rejected", ago(-left)), renew),
        Some(Trouble::NotYetValid) => ("is not valid yet: every store gateway is rejected".to_owned(), "compare the clocks (api-clock)"),
        Some(Trouble::OtherName) => (
            "is for another name than the API server uses (SERVICE.NAMESPACE.svc): every store gateway is rejected".to_owned(),
            "issue it for that name",
        ),
        Some(Trouble::Other(why)) => (format!("would be rejected by the API server: {why}"), renew),
        None if left < CERTIFICATE_WARN_SECONDS => {
            return report.warn(&WEBHOOK_CERTIFICATE, subject, format!("{from} expires in {} and has not been renewed", duration(left)), renew);
        }
        None if certificate.not_after == i64::MAX => {
            return report.pass(&WEBHOOK_CERTIFICATE, subject, format!("{from} is trusted{remark}"));
        }
        None => return report.pass(&WEBHOOK_CERTIFICATE, subject, format!("{from} is trusted, for {}{remark}", duration(left))),
    };
    report.fail(
        &WEBHOOK_CERTIFICATE,
        subject,
        format!("{from} {message}"),
        hint,
    );
}

fn ago(seconds: i64) -> String {
    format!("{} ago", duration(seconds))
}

fn duration(seconds: i64) -> String {
    match seconds {
        s if s >= 2 * 86_400 => format!("{} days", s / 86_400),
        s if s >= 2 * 3_600 => format!("{} hours", s / 3_600),
        s if s >= 120 => format!("{} minutes", s / 60),
        s => format!("{} s", s.max(0)),
    }
}
