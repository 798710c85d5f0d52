//! What the leader does in the background: it keeps every StatefulSet's ConfigMap right and moves running pods to new
//! windows, so that no query notices.
//!
//! `observe` watches the cluster on every replica, `poll` asks sidecars, `seen` holds what both found; `drive` takes what is news, `look`
//! gathers one StatefulSet, has `core::reconcile` decide, and `write` carries it out; `release` lets go of what nobody keeps
//! any more; `reports` is what people see.
//! Deliberately absent: deciding. Every replica of the server watches; only the one with the lease asks, decides and writes.

mod bodies;
mod drive;
mod look;
mod memory;
mod notify;
pub mod observe;
mod pace;
pub mod poll;
mod readiness;
mod release;
mod report_metrics;
pub mod reports;
pub mod seen;
mod trim;
mod turn;
pub mod write;

use std::sync::Arc;

use kube::Client;
use prometheus_client::registry::Registry;

use self::drive::Tenure;
use self::poll::{PollMetrics, Poller};
pub use self::release::Replica;
use self::report_metrics::ReportMetrics;
use self::reports::Reports;
use self::seen::Seen;
use self::write::Writer;
use crate::adapters::cluster::Observed;
use crate::adapters::events;
use crate::adapters::lease::Leadership;
use crate::adapters::signals::{Shutdown, Stage};
use crate::core::pod_address::Asked;

/// What a replica needs to lead.
pub struct Refresher {
    observed: Arc<Observed>,
    seen: Arc<Seen>,
    poller: Arc<Poller>,
    writer: Arc<Writer>,
    leadership: Leadership,
    reports: Arc<Reports>,
    notices: events::Sender,
    replica: Replica,
    shutdown: Shutdown,
}

impl Refresher {
    /// Registers its metrics and does nothing yet. `seen` is kept by [`observe::follow`], which runs on every replica. What a StatefulSet's user should know goes to `notices`, without waiting.
    #[must_use]
    pub fn new(
        client: Client,
        seen: Arc<Seen>,
        leadership: Leadership,
        notices: events::Sender,
        (replica, shutdown): (Replica, Shutdown),
        asked: Asked,
        registry: &mut Registry,
    ) -> Self {
        let observed = seen.observed.clone();
        let (poller, writer) = (
            Poller::new(seen.clone(), asked),
            Arc::new(Writer::new(client, registry)),
        );
        let reports = Arc::<Reports>::default();
        registry.register_collector(Box::new(PollMetrics(poller.clone())));
        registry.register_collector(Box::new(ReportMetrics(reports.clone())));
        Self {
            observed,
            seen,
            poller,
            writer,
            leadership,
            reports,
            notices,
            replica,
            shutdown,
        }
    }

    /// What was found out, while this replica leads.
    #[must_use]
    pub fn reports(&self) -> Arc<Reports> {
        self.reports.clone()
    }

    /// Leads whenever the lease is held, until the shutdown begins and nothing is left to do. The lease must be kept until
    /// then.
    pub async fn run(mut self) {
        let mut shutdown = self.shutdown.clone();
        while !shutdown.is_draining() {
            if self.leadership.remaining().is_some() {
                let tenure = Tenure::new(&self).run();
                let mut leadership = self.leadership.clone();
                tokio::select! {
                    () = tenure => {}
                    () = lost(&mut leadership) => {}
                    () = release::overdue(self.shutdown.clone()) => {}
                }
                self.reports.clear();
                self.leadership = leadership;
            }
            tokio::select! {
                () = self.leadership.changed() => {}
                () = shutdown.reached(Stage::Draining) => {}
            }
        }
    }
}

/// Waits until this replica no longer leads.
async fn lost(leadership: &mut Leadership) {
    while leadership.remaining().is_some() {
        leadership.changed().await;
    }
}
