//! Metrics of the observed cluster.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Observed, lock};

/// A collector, so that the values are read at the scrape.
#[derive(Debug)]
pub struct ObservedMetrics(pub Arc<Observed>);

impl Collector for ObservedMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let mut gauge = |name, help, value: i64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        gauge(
            "timeshard_namespaces",
            "Labelled namespaces that are watched",
            count(self.0.namespaces().len()),
        )?;
        let fleet = self.0.fleet.load();
        gauge(
            "timeshard_statefulsets",
            "StatefulSets known in labelled namespaces",
            count(fleet.statefulsets().count()),
        )?;
        let refused = fleet
            .statefulsets()
            .filter(|known| known.problem.is_some())
            .count();
        let help = "StatefulSets with invalid annotations, so that the last valid ones are in force; /status shows why";
        gauge(
            "timeshard_statefulsets_with_refused_annotations",
            help,
            count(refused),
        )?;
        let help = "Labelled namespaces in which this server has no rights, so that their gateways are left unchanged; the log and /status name them";
        gauge(
            "timeshard_namespaces_without_rights",
            help,
            count(self.0.rights.all().len()),
        )?;
        let help = "1 once every labelled namespace was listed; while 0 the server is not ready";
        gauge(
            "timeshard_cache_synced",
            help,
            i64::from(self.0.is_synced()),
        )?;
        let help = "Objects in labelled namespaces that are ignored because they or their namespace are too large; the log names them, delete or shrink them";
        gauge(
            "timeshard_refused_objects",
            help,
            count(self.0.refused().iter().map(|refused| refused.count).sum()),
        )?;
        let help = "Approximate memory of the observed objects of all namespaces; at most 52 MiB, and from 36 MiB on only namespaces within an equal share grow";
        gauge(
            "timeshard_cache_bytes",
            help,
            count(lock(&self.0.ledger).bytes()),
        )?;
        let mut counter = |name, help, value: u64| {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        };
        let help = "Watches that failed. If it keeps growing, check RBAC and the API server";
        counter("timeshard_watch_errors", help, self.0.watches.broken())?;
        let help = "Unreadable entries of timeshard's ConfigMaps; the log names them";
        counter(
            "timeshard_unreadable_entries",
            help,
            self.0.bad_entries.load(Relaxed),
        )
    }
}
