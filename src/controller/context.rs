//! What every part of the leader works with.

use std::sync::Arc;
use std::time::Duration;

use super::poll::Poller;
use super::queriers::QuerierPoller;
use super::reports::Reports;
use super::write::Writer;
use crate::adapters::kube::cluster::Observed;
use crate::adapters::kube::events;
use crate::adapters::kube::lease::Leadership;
use crate::adapters::signals::Shutdown;
use crate::controller::cache::ClusterCache;

/// No write begins with less of the lease left: a write takes at most 2 s, and may have to wait for
/// its turn first.
const MIN_LEASE_LEFT: Duration = Duration::from_secs(3);

/// This server among its replicas.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Name of its pod.
    pub name: String,
    /// Namespace of all replicas' pods.
    pub namespace: String,
}

pub(super) struct LeaderContext {
    pub(super) observed: Arc<Observed>,
    pub(super) cache: Arc<ClusterCache>,
    pub(super) poller: Arc<Poller>,
    pub(super) queriers: Arc<QuerierPoller>,
    pub(super) writer: Arc<Writer>,
    pub(super) leadership: Leadership,
    pub(super) reports: Arc<Reports>,
    pub(super) events: events::Sender,
    pub(super) replica: Replica,
    pub(super) shutdown: Shutdown,
}

impl LeaderContext {
    /// Whether the lease lasts longer than a write may take.
    pub(super) fn lease_lasts(&self) -> bool {
        self.leadership
            .remaining()
            .is_some_and(|left| left >= MIN_LEASE_LEFT)
    }

    /// Whether this replica leads and its shutdown has not begun.
    pub(super) fn still_leads(&self) -> bool {
        self.lease_lasts() && !self.shutdown.is_draining()
    }
}
