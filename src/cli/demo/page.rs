//! The server's admin port, showing the reports of the demo's leader: the page, `/status`,
//! `/metrics`, `/readyz`.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use serde_json::{Map, Value};

use super::super::page_source::PageStatus;
use super::super::{Failure, page_source};
use crate::adapters::https::admin::{self, Admin};
use crate::adapters::kube::cluster::Observed;
use crate::adapters::signals::Shutdown;
use crate::adapters::{clock, listen};
use crate::controller::ReportMetrics;
use crate::controller::reports::Reports;
use crate::core::rollout::report::SetReport;
use crate::core::server_status::{LeaderStatus, ServerStatus};
use crate::page::{self, feed};

pub(super) struct DemoPage {
    reports: Arc<Reports>,
    address: SocketAddr,
}

impl DemoPage {
    /// Serves the port until the program ends. The webhook's metrics are in `registry`.
    pub(super) fn open(
        address: SocketAddr,
        observed: &Arc<Observed>,
        mut registry: Registry,
        shutdown: Shutdown,
    ) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::Failed(format!(
                "--page {address}: cannot listen: {error}; choose another port: --page 127.0.0.1:8081"
            ))
        };
        let listener = listen::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        // Keeps the address as given: a wildcard socket reports the IPv6 one.
        let address = SocketAddr::new(address.ip(), bound.port());
        let reports = Arc::<Reports>::default();
        registry.register_collector(Box::new(ReportMetrics(reports.clone())));
        let (seen, found) = (observed.clone(), reports.clone());
        let source = move || feed::PageFacts {
            head: head(&seen).into(),
            sets: page_source::sets(&seen.fleet.load(), &found.latest(), clock::now()),
        };
        let (seen, found) = (observed.clone(), reports.clone());
        let status = move |out: &mut dyn io::Write| write_status(&seen, &found, out);
        let admin = Admin {
            ready: Arc::new(|| Ok(())),
            metrics: Arc::new(registry),
            status: Arc::new(status),
            shutdown: shutdown.clone(),
        };
        let pages = page::router(feed::Feed::new(Box::new(source)), shutdown);
        tokio::spawn(admin::serve(listener, admin::router(admin).merge(pages)));
        Ok(Self { reports, address })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(super) fn put(&self, report: &SetReport) {
        self.reports.put(
            &(report.namespace.clone(), report.name.clone()),
            report.clone(),
            Duration::ZERO,
        );
    }
}

/// The part of `/status` about the server, as `timeshard serve` writes it.
fn head(observed: &Observed) -> Map<String, Value> {
    let fleet = observed.fleet.load();
    let namespaces: BTreeSet<String> = fleet
        .statefulsets()
        .map(|known| known.facts().namespace.clone())
        .collect();
    let status = ServerStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        synced: Some(true),
        namespaces: Some(namespaces.into_iter().collect()),
        leader: Some(LeaderStatus {
            holder: Some("timeshard demo".to_owned()),
            is_self: true,
            error: None,
        }),
        ..ServerStatus::default()
    };
    // Strings and lists of them always serialize.
    let value = serde_json::to_value(status).unwrap_or_default();
    value.as_object().cloned().unwrap_or_default()
}

fn write_status(observed: &Observed, reports: &Reports, out: &mut dyn io::Write) -> io::Result<()> {
    let fleet = observed.fleet.load_full();
    let document = PageStatus {
        head: head(observed),
        statefulsets: page_source::Sets {
            fleet: &fleet,
            reports: Some(reports),
            now: clock::now(),
        },
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    out.write_all(b"\n")
}
