//! The API server, the caller's rights, and the nodes.

use super::Report;
use super::ids::{API_CLOCK, API_PERMISSIONS, API_REACHABLE, API_VERSION, NODE_KUBELETS};
use super::objects::NodeView;
use super::snapshot::{ApiFacts, Got};
use crate::core::model::text::listed_with;

/// The newest Kubernetes that the end-to-end tests run on.
const NEWEST_TESTED: (u32, u32) = (1, 36);
/// The first with `matchConditions` in webhooks.
const FIRST_MATCH_CONDITIONS: (u32, u32) = (1, 28);
/// The first whose kubelets run native sidecars without a feature gate.
const FIRST_NATIVE_SIDECARS: (u32, u32) = (1, 29);
/// The first with every API that the server uses (`policy/v1`, `discovery.k8s.io/v1`,
/// `events.k8s.io/v1`).
const FIRST_USABLE: (u32, u32) = (1, 21);
/// A clock that is off by more is a warning, in milliseconds. The API server reports only whole
/// seconds.
const CLOCK_WARN_MS: u64 = 10_000;
/// A clock that is off by more breaks certificates and leases, in milliseconds.
const CLOCK_FAIL_MS: u64 = 300_000;
/// How many names one sentence lists.
const MAX_NAMES: usize = 10;

pub(super) fn check(api: &ApiFacts, report: &mut Report) {
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
            format!("cannot parse the version {:?}", version.git_version),
            "compare it with the supported versions yourself",
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
            format!("Kubernetes {} is newer than {}, the newest version that this release was tested with", show(at), show(NEWEST_TESTED)),
            "upgrade timeshard",
        ),
        Some(at) => report.pass(&API_VERSION, "", format!("Kubernetes {} is supported", show(at))),
    }
    clock(api.ahead_ms, report);
}

fn clock(ahead_ms: Option<i64>, report: &mut Report) {
    let Some(ahead) = ahead_ms else {
        report.skip(&API_CLOCK, "", "the API server's response had no Date");
        return;
    };
    let seconds = ahead.unsigned_abs() / 1000;
    let (off, which) = (
        ahead.unsigned_abs(),
        if ahead > 0 { "ahead of" } else { "behind" },
    );
    let message = format!("the API server's clock is {seconds} s {which} this machine's");
    let hint = "synchronise the clocks (NTP) of control plane, nodes and this machine: windows and certificates depend on them";
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

/// Runs last: reports all missing rights of the caller in one finding.
pub(super) fn permissions(report: &mut Report) {
    if report.missing.is_empty() {
        report.pass(&API_PERMISSIONS, "", API_PERMISSIONS.title);
        return;
    }
    let missing: Vec<&String> = report.missing.iter().collect();
    let message = format!(
        "some checks are skipped because you may not {}",
        listed(&missing, "; ")
    );
    report.warn(
        &API_PERMISSIONS,
        "",
        message,
        "run it as an administrator, or grant the ClusterRole in docs/checks.md",
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
            "injection.native_sidecar is false, so any kubelet is supported",
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
                "the kubelets of all {} nodes support native sidecars",
                nodes.len()
            ),
        );
    } else {
        report.fail(
            &NODE_KUBELETS,
            "",
            format!(
                "kubelets older than {} wait for the sidecar like for any init container, so gateways never start: {}",
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

/// Joins the first [`MAX_NAMES`] and counts the rest.
pub(super) fn listed<T: AsRef<str>>(all: &[T], between: &str) -> String {
    listed_with(all, between, MAX_NAMES)
}
