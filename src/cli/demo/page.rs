//! The page of the demo: the server's own, on what the demo's leader finds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::{Failure, page_source};
use crate::adapters::cluster::Observed;
use crate::adapters::signals::Shutdown;
use crate::adapters::{admin, clock, listen};
use crate::core::report::SetReport;
use crate::page::{self, feed};
use crate::refresher::reports::Reports;

/// What the page shows, and where it is.
pub(super) struct Page {
    reports: Arc<Reports>,
    address: SocketAddr,
}

impl Page {
    /// Serves it until the program ends.
    pub(super) fn open(
        address: SocketAddr,
        observed: &Arc<Observed>,
        shutdown: Shutdown,
    ) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::Failed(format!("--page {address}: cannot be listened on: {error}"))
        };
        let listener = listen::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        // As it was asked for: the socket for every address names that of IPv6.
        let address = SocketAddr::new(address.ip(), bound.port());
        let reports = Arc::<Reports>::default();
        let (observed, found) = (observed.clone(), reports.clone());
        let source = move || {
            let fleet = observed.fleet.load();
            let namespaces: Vec<String> = fleet
                .statefulsets()
                .map(|known| known.facts().namespace.clone())
                .collect();
            let head = json!({
                "version": env!("CARGO_PKG_VERSION"), "webhook_only": false, "namespace": null, "synced": true, "watch_error": null,
                "namespaces": namespaces, "leader": {"holder": "timeshard demo", "self": true, "error": null},
                "certificate_not_after_unix_seconds": null, "certificate_error": null, "config_error": null,
            });
            feed::Known {
                head,
                sets: page_source::sets(&fleet, &found.latest(), clock::now()),
            }
        };
        tokio::spawn(admin::serve(
            listener,
            page::router(feed::Feed::new(Box::new(source)), shutdown),
        ));
        Ok(Self { reports, address })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// What the leader has found.
    pub(super) fn put(&self, report: &SetReport) {
        self.reports.put(
            &(report.namespace.clone(), report.name.clone()),
            report.clone(),
            Duration::ZERO,
        );
    }
}
