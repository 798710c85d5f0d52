//! The webhook's certificate and the caBundle that the API server verifies it with.

use super::Report;
use super::ids::{WEBHOOK_CA, WEBHOOK_CERTIFICATE};
use super::snapshot::{Certificate, DryRun, Snapshot, Trouble};

/// A serving certificate that ends earlier should have been renewed already, in seconds.
const CERTIFICATE_WARN_SECONDS: i64 = 3 * 86_400;
/// An authority that ends earlier needs a hand, in seconds.
const AUTHORITY_WARN_SECONDS: i64 = 14 * 86_400;

/// Checks how long the caBundle is valid.
pub(super) fn authorities(snapshot: &Snapshot, subject: &str, report: &mut Report) {
    let issue = "with cert-manager see kubectl get certificate, and the annotation cert-manager.io/inject-ca-from; without it set the caBundle to the CA that signed the server's certificate";
    match &snapshot.authorities {
        None => report.skip(&WEBHOOK_CA, subject, "there is no caBundle to look at"),
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
                    "the caBundle ends in {}, and the webhook with it",
                    long(latest - now)
                );
                report.warn(&WEBHOOK_CA, subject, message, issue);
            } else {
                report.pass(
                    &WEBHOOK_CA,
                    subject,
                    format!("the caBundle is valid for {}", long(latest - now)),
                );
            }
        }
    }
}

/// Checks that the certificate that the server serves is trusted by the caBundle, as far as it can be seen from here.
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

fn judge(
    snapshot: &Snapshot,
    subject: &str,
    certificate: &Certificate,
    beside: &str,
    report: &mut Report,
) {
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
    report.fail(
        &WEBHOOK_CERTIFICATE,
        subject,
        format!("{from} {message}"),
        hint,
    );
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
