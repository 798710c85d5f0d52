//! `timeshard check` as a function: what was seen of a cluster in, findings out.
//!
//! Invariants: no snapshot panics; what could not be looked at is skipped with the right that is missing, and never passes;
//! whatever admission or the refresher decides is decided here by their own code. Gathering and printing are elsewhere.

mod api;
mod around;
mod blocks;
mod certificates;
mod corefile;
mod findings;
#[cfg(test)]
mod fixture;
pub mod ids;
mod install;
pub mod namespaces;
pub mod objects;
pub mod periods;
mod pods;
mod queriers;
pub mod rights;
mod rollouts;
mod server;
mod sets;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod webhook;

pub use findings::{Finding, Outcome, Report, Summary};
pub use install::{INSTALLED, Installed, Preflight};
pub use snapshot::{
    ApiFacts, Certificate, DnsFacts, DryRun, Got, Lack, ServerStatus, Snapshot, Space, Trouble,
};

/// What belongs together on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// The API server and the nodes.
    Api,
    /// Before anything is installed.
    Install,
    /// The server's Deployment.
    Server,
    /// Its configuration.
    Configuration,
    /// Its registration.
    Webhook,
    /// Which namespaces take part.
    Namespaces,
    /// The gateways.
    StatefulSets,
    /// What the leader says of them.
    Rollouts,
    /// Who asks them.
    Queriers,
}

impl Section {
    /// For people and for JSON.
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

/// Everything that can be known of an installation.
#[must_use]
pub fn run(snapshot: &Snapshot) -> Report {
    let mut report = Report::default();
    api::look(&snapshot.api, &mut report);
    if snapshot.api.version.is_err() {
        // Whatever else were said would be a guess.
        return report.sorted();
    }
    let config = server::look(snapshot, &mut report);
    api::kubelets(
        &snapshot.nodes,
        config
            .as_ref()
            .is_none_or(|config| config.injection.native_sidecar),
        &mut report,
    );
    webhook::look(snapshot, &mut report);
    namespaces::look(snapshot, &mut report);
    let gateways = sets::look(snapshot, config.as_ref(), &mut report);
    pods::look(snapshot, &gateways, &mut report);
    around::look(snapshot, &gateways, &mut report);
    rollouts::look(snapshot, &gateways, &mut report);
    let intervals = queriers::look(snapshot, &gateways, &mut report);
    periods::look(snapshot, &gateways, &intervals, &mut report);
    api::permissions(&mut report);
    report.sorted()
}

/// What can be known before anything is installed.
#[must_use]
pub fn pre(preflight: &Preflight) -> Report {
    let mut report = Report::default();
    api::look(&preflight.api, &mut report);
    if preflight.api.version.is_err() {
        return report.sorted();
    }
    api::kubelets(&preflight.nodes, true, &mut report);
    install::look(preflight, &mut report);
    api::permissions(&mut report);
    report.sorted()
}
