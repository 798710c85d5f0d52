//! `timeshard check` as a function: a snapshot of a cluster in, findings out.
//!
//! Invariants: no snapshot panics; a check without its input is skipped, with the missing right, and
//! never passes; decisions of admission and the leader are made by their own code. Gathering is in
//! `adapters/kube/check`, printing in `cli/check`.

mod api;
mod asked;
mod blocks;
mod certificates;
mod corefile;
mod findings;
mod gateway;
pub mod ids;
mod install;
pub mod namespaces;
pub mod objects;
pub mod periods;
mod pods;
mod queriers;
pub mod rights;
mod rollouts;
mod selectors;
mod server;
mod sets;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod webhook;

pub use findings::{CheckOutcome, Finding, Report, Summary};
pub use install::{INSTALLED, Installed, Preflight};
pub use snapshot::{ApiFacts, Certificate, DnsFacts, DryRun, Got, Lack, Snapshot, Space, Trouble};

pub use crate::core::server_status::ServerStatus;

/// A group of checks in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// API server and nodes.
    Api,
    /// Only with `--pre`.
    Install,
    Server,
    Configuration,
    Webhook,
    Namespaces,
    StatefulSets,
    /// The leader's reports.
    Rollouts,
    Queriers,
}

impl Section {
    /// The name in text and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Install => "install",
            Self::Server => "server",
            Self::Configuration => "configuration",
            Self::Webhook => "webhook",
            Self::Namespaces => "namespaces",
            Self::StatefulSets => "statefulsets",
            Self::Rollouts => "rollouts",
            Self::Queriers => "queriers",
        }
    }
}

/// Checks an installation.
#[must_use]
pub fn run(snapshot: &Snapshot) -> Report {
    let mut report = Report::default();
    api::check(&snapshot.api, &mut report);
    if snapshot.api.version.is_err() {
        // Every other check would be a guess.
        return report.sorted();
    }
    let config = server::check(snapshot, &mut report);
    api::kubelets(
        &snapshot.nodes,
        config
            .as_ref()
            .is_none_or(|config| config.injection.native_sidecar),
        &mut report,
    );
    webhook::check(snapshot, &mut report);
    namespaces::check(snapshot, &mut report);
    let gateways = sets::check(snapshot, config.as_ref(), &mut report);
    pods::check(snapshot, &gateways, &mut report);
    selectors::check(snapshot, &gateways, &mut report);
    rollouts::check(snapshot, &gateways, &mut report);
    let intervals = queriers::check(snapshot, config.as_ref(), &gateways, &mut report);
    periods::check(snapshot, &gateways, &intervals, &mut report);
    api::permissions(&mut report);
    report.sorted()
}

/// Checks a cluster before installation.
#[must_use]
pub fn pre(preflight: &Preflight) -> Report {
    let mut report = Report::default();
    api::check(&preflight.api, &mut report);
    if preflight.api.version.is_err() {
        return report.sorted();
    }
    api::kubelets(&preflight.nodes, true, &mut report);
    install::check(preflight, &mut report);
    api::permissions(&mut report);
    report.sorted()
}
