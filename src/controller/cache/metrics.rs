//! Metrics of the cache.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

use super::ClusterCache;

/// A collector, so that the values are read at the scrape.
#[derive(Debug)]
pub struct CacheMetrics(pub Arc<ClusterCache>);

impl Collector for CacheMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let (mut pods, mut injected) = (0, 0);
        self.0.each_pod(|_, pod| {
            pods += 1;
            injected += i64::from(pod.injected);
        });
        let mut gauge = |name, help, value: i64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(
            "timeshard_pods",
            "Pods of StatefulSets in labelled namespaces; every replica watches them",
            pods,
        )?;
        gauge(
            "timeshard_injected_pods",
            "Pods with the timeshard sidecar; every replica watches them",
            injected,
        )
    }
}
