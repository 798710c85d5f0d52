//! The controller: the leader keeps each StatefulSet's ConfigMap, PDBs and Services up to date and
//! moves running pods to new windows without affecting queries.
//!
//! `watch` fills `cache` on every replica. On the leader `poll` asks the sidecars and `queriers` the
//! queriers, `term` is the event loop, `reconcile` gathers one StatefulSet, has
//! `core::rollout::reconcile` decide and carries the decision out through `write`. `sweep` and
//! `shutdown` release PDBs that no leader maintains any longer; `reports` holds the results for
//! users. Deliberately absent: decisions, which core makes.

pub mod cache;
mod context;
mod gathered;
mod memory;
pub mod poll;
mod queriers;
mod reconcile;
mod report_metrics;
pub mod reports;
mod shutdown;
mod sweep;
mod term;
mod turn;
pub mod watch;
pub mod write;

use std::sync::Arc;

use kube::Client;
use prometheus_client::registry::Registry;

use self::context::LeaderContext;
pub use self::context::Replica;
use self::poll::{PollMetrics, Poller};
use self::queriers::QuerierPoller;
pub use self::report_metrics::ReportMetrics;
use self::reports::Reports;
use self::term::LeaderTerm;
use self::write::Writer;
use crate::adapters::kube::events;
use crate::adapters::kube::lease::Leadership;
use crate::adapters::signals::{Shutdown, ShutdownStage};
use crate::controller::cache::ClusterCache;
use crate::core::kube::pod_address::Asked;

/// A replica that may lead.
pub struct Controller {
    context: LeaderContext,
}

impl Controller {
    /// Registers the controller's metrics. [`watch::follow`], which runs on every replica, must
    /// fill `cache`. Events on StatefulSets go to `events`, without waiting.
    #[must_use]
    pub fn new(
        client: Client,
        cache: Arc<ClusterCache>,
        leadership: Leadership,
        events: events::Sender,
        (replica, shutdown): (Replica, Shutdown),
        asked: Asked,
        registry: &mut Registry,
    ) -> Self {
        let context = LeaderContext {
            observed: cache.observed.clone(),
            poller: Poller::new(cache.clone(), asked),
            queriers: QuerierPoller::new(cache.clone(), asked),
            cache,
            writer: Arc::new(Writer::new(client, registry)),
            leadership,
            reports: Arc::<Reports>::default(),
            events,
            replica,
            shutdown,
        };
        registry.register_collector(Box::new(PollMetrics(context.poller.clone())));
        registry.register_collector(Box::new(ReportMetrics(context.reports.clone())));
        Self { context }
    }

    /// The leader's reports; empty while this replica does not lead.
    #[must_use]
    pub fn reports(&self) -> Arc<Reports> {
        self.context.reports.clone()
    }

    /// Leads while this replica holds the lease. Returns once the shutdown has begun and nothing
    /// is left to do; the lease must be renewed until then.
    pub async fn run(self) {
        let context = &self.context;
        let (mut shutdown, mut leadership) = (context.shutdown.clone(), context.leadership.clone());
        while !shutdown.is_draining() {
            if leadership.remaining().is_some() {
                tokio::select! {
                    () = LeaderTerm::new(context).run() => {}
                    () = lost(&mut leadership) => {}
                    () = shutdown::overdue(context.shutdown.clone()) => {}
                }
                context.reports.clear();
            }
            tokio::select! {
                () = leadership.changed() => {}
                () = shutdown.reached(ShutdownStage::Draining) => {}
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
