//! The API server, what the caller may see of it, and the nodes.

use super::Report;
use super::ids::{API_CLOCK, API_PERMISSIONS, API_REACHABLE, API_VERSION, NODE_KUBELETS};
use super::objects::NodeView;
use super::snapshot::{ApiFacts, Got};

/// The newest Kubernetes that the end-to-end tests run on.
const NEWEST_TESTED: (u32, u32) = (1, 36);
/// The first with `matchConditions` in webhooks.
const FIRST_MATCH_CONDITIONS: (u32, u32) = (1, 28);
/// The first whose kubelets run native sidecars without a feature gate.
const FIRST_NATIVE_SIDECARS: (u32, u32) = (1, 29);
/// The first with every API that the server uses (`policy/v1`, `discovery.k8s.io/v1`, `events.k8s.io/v1`).
const FIRST_USABLE: (u32, u32) = (1, 21);
/// A clock that is off by more is worth a look, in milliseconds. The API server tells whole seconds only.
const CLOCK_WARN_MS: u64 = 10_000;
/// A clock that is off by more breaks certificates and leases, in milliseconds.
const CLOCK_FAIL_MS: u64 = 300_000;
/// Names that are listed in one sentence.
pub(super) const MOST_NAMED: usize = 10;

pub(super) fn look(api: &ApiFacts, report: &mut Report) {
    let version = match &api.version {
        Ok(version) => version,
        Err(lack) => {
            report.fail(
                &API_REACHABLE,
                "",
                format!("could not {}: {}", lack.what, lack.why),
                "check KUBECONFIG and its current context: kubectl version",
            );
            return;
        }
    };
    report.pass(
        &API_REACHABLE,
        "",
        format!("the API server answers: Kubernetes {}", version.git_version),
    );
    match numbers(&version.git_version).or_else(|| numbers(&format!("{}.{}", version.major, version.minor))) {
        None => report.warn(
            &API_VERSION,
            "",
            format!("the version {:?} cannot be read", version.git_version),
            "compare it with the supported ones by hand",
        ),
        Some(at) if at < FIRST_USABLE => {
            report.fail(
                &API_VERSION,
                "",
                format!("Kubernetes {} lacks APIs that the server uses", show(at)),
                "use Kubernetes 1.28 or newer",
            );
        }
        Some(at) if at < FIRST_MATCH_CONDITIONS => report.warn(
            &API_VERSION,
            "",
            format!("Kubernetes {} has no matchConditions, so every pod of labelled namespaces waits for the webhook", show(at)),
            "register the webhook with failurePolicy Ignore, as the chart does there, or use Kubernetes 1.28 or newer",
        ),
        Some(at) if at > NEWEST_TESTED => report.warn(
            &API_VERSION,
            "",
            format!("Kubernetes {} is newer than {}, the newest this version was tested with", show(at), show(NEWEST_TESTED)),
            "look for a newer version of timeshard",
        ),
        Some(at) => report.pass(&API_VERSION, "", format!("Kubernetes {} is supported", show(at))),
    }
    clock(api.ahead_ms, report);
}

fn clock(ahead_ms: Option<i64>, report: &mut Report) {
    let Some(ahead) = ahead_ms else {
        report.skip(&API_CLOCK, "", "the API server did not say what time it is");
        return;
    };
    let seconds = ahead.unsigned_abs() / 1000;
    let (off, which) = (
        ahead.unsigned_abs(),
        if ahead > 0 { "ahead of" } else { "behind" },
    );
    let message = format!("the API server's clock is {seconds} s {which} the one of this machine");
    let hint = "synchronise clocks (NTP) on the control plane, the nodes and this machine: windows and certificates depend on them";
    if off > CLOCK_FAIL_MS {
        report.fail(&API_CLOCK, "", message, hint);
    } else if off > CLOCK_WARN_MS {
        report.warn(&API_CLOCK, "", message, hint);
    } else {
        report.pass(
            &API_CLOCK,
            "",
            "the API server's clock and this machine's agree",
        );
    }
}

/// Comes last: what was skipped for want of a right is told once, together.
pub(super) fn permissions(report: &mut Report) {
    if report.missing.is_empty() {
        report.pass(&API_PERMISSIONS, "", API_PERMISSIONS.title);
        return;
    }
    let missing: Vec<&String> = report.missing.iter().collect();
    let message = format!(
        "some checks are skipped, because you may not {}",
        listed(&missing, "; ")
    );
    report.warn(
        &API_PERMISSIONS,
        "",
        message,
        "run it as an administrator, or grant the ClusterRole that docs/checks.md has",
    );
}

pub(super) fn kubelets(nodes: &Got<Vec<NodeView>>, native_sidecars: bool, report: &mut Report) {
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(lack) => return report.lacks(&NODE_KUBELETS, "", lack),
    };
    if nodes.is_empty() {
        return report.skip(&NODE_KUBELETS, "", "there are no nodes");
    }
    if !native_sidecars {
        return report.pass(
            &NODE_KUBELETS,
            "",
            "injection.native_sidecar is false, so any kubelet will do",
        );
    }
    let version = |node: &&NodeView| numbers(&node.status.node_info.kubelet_version);
    let old: Vec<String> = nodes
        .iter()
        .filter(|node| version(node).is_some_and(|at| at < FIRST_NATIVE_SIDECARS))
        .map(|node| {
            format!(
                "{} ({})",
                node.metadata.name, node.status.node_info.kubelet_version
            )
        })
        .collect();
    if old.is_empty() {
        report.pass(
            &NODE_KUBELETS,
            "",
            format!(
                "the kubelets of all {} nodes run native sidecars",
                nodes.len()
            ),
        );
    } else {
        report.fail(
            &NODE_KUBELETS,
            "",
            format!(
                "kubelets older than {} take the sidecar for an init container that never ends: {}",
                show(FIRST_NATIVE_SIDECARS),
                listed(&old, ", ")
            ),
            "set injection.native_sidecar: false in the configuration, or upgrade these nodes",
        );
    }
}

/// Major and minor of `v1.36.2-gke.1`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    let digits = |part: &str| {
        part.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse::<u32>()
            .ok()
    };
    Some((digits(parts.next()?)?, digits(parts.next()?)?))
}

fn show((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

/// Some of many, and how many more.
pub(super) fn listed<T: AsRef<str>>(all: &[T], between: &str) -> String {
    let some: Vec<&str> = all.iter().take(MOST_NAMED).map(AsRef::as_ref).collect();
    let more = all.len().saturating_sub(some.len());
    if more == 0 {
        some.join(between)
    } else {
        format!("{} and {more} more", some.join(between))
    }
}
