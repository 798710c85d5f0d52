//! What the leader last found out about each StatefulSet, for `/status` and for metrics.
//!
//! Invariant: empty while this process does not lead, so that nobody reads what is out of date.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use tokio::time::Instant;

use super::seen::SetName;
use crate::core::report::{PodState, SetReport};

/// StatefulSets with metrics of their own; further ones are only in the sums. Bounds what a scrape holds.
const MOST_LABELLED: usize = 1_000;

/// The reports, and how the looking itself goes.
#[derive(Debug, Default)]
pub struct Reports {
    inner: Mutex<Inner>,
    looks: AtomicU64,
    look_nanos: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    sets: BTreeMap<SetName, SetReport>,
    since: HashMap<(SetName, String), (PodState, Instant)>,
}

impl Reports {
    /// All of them, with the ages that they have now.
    #[must_use]
    pub fn all(&self) -> Vec<SetReport> {
        let inner = self.lock();
        let aged = inner.sets.iter().map(|(name, report)| {
            let mut report = report.clone();
            for pod in &mut report.pods {
                let since = inner.since.get(&(name.clone(), pod.pod.clone()));
                pod.seconds_in_state = since.map_or(0, |(_, since)| since.elapsed().as_secs());
            }
            report
        });
        aged.collect()
    }

    /// Replaces one.
    pub(super) fn put(&self, name: &SetName, report: SetReport, took: Duration) {
        self.looks.fetch_add(1, Relaxed);
        self.look_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        let mut inner = self.lock();
        let now = Instant::now();
        for pod in &report.pods {
            let slot = inner.since.entry((name.clone(), pod.pod.clone())).or_insert((pod.state, now));
            if slot.0 != pod.state {
                *slot = (pod.state, now);
            }
        }
        let gone = |pod: &String| report.pods.iter().all(|known| known.pod != *pod);
        inner.since.retain(|(set, pod), _| set != name || !gone(pod));
        inner.sets.insert(name.clone(), report);
    }

    /// Forgets one.
    pub(super) fn remove(&self, name: &SetName) {
        let mut inner = self.lock();
        inner.sets.remove(name);
        inner.since.retain(|(set, _), _| set != name);
    }

    /// Forgets all: somebody else leads.
    pub(super) fn clear(&self) {
        *self.lock() = Inner::default();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: String,
    statefulset: String,
}

/// Registered as a collector, so that the values are those of the scrape.
#[derive(Debug)]
pub struct ReportMetrics(pub Arc<Reports>);

/// A metric of each StatefulSet: name, help, value.
type PerSet = (&'static str, &'static str, fn(&SetReport) -> i64);

const PER_SET: [PerSet; 6] = [
    (
        "timeshard_coverage_gap_seconds",
        "Length of the retention that no ready pod serves; when it is not 0, queries are incomplete: timeshard status says what is missing",
        |report| i64::try_from(report.gap_seconds).unwrap_or(i64::MAX),
    ),
    (
        "timeshard_minimum_confirmed_replicas",
        "The fewest ready pods that any instant of the retention has; 1 means that the next failure is a gap",
        |report| i64::from(report.minimum_confirmed_replicas),
    ),
    (
        "timeshard_rollout_moves_left",
        "Pods whose published window is not the planned one; when it stays, timeshard status says what the rollout waits for",
        |report| i64::from(report.moves_left),
    ),
    ("timeshard_rollout_steps_left", "Steps until every window is as planned, if nothing fails", |report| i64::from(report.steps_left)),
    ("timeshard_confirmed_pods", "Pods that serve what is published and that every querier knows", |report| {
        count(report, |state| state == PodState::Confirmed)
    }),
    (
        "timeshard_pods_not_as_published",
        "Pods that do not serve what is published, or cannot be asked; when it stays, look at these pods' sidecars",
        |report| count(report, |state| !matches!(state, PodState::Confirmed | PodState::Joining | PodState::Absent)),
    ),
];

fn count(report: &SetReport, of: impl Fn(PodState) -> bool) -> i64 {
    i64::try_from(report.pods.iter().filter(|pod| of(pod.state)).count()).unwrap_or(i64::MAX)
}

impl Collector for ReportMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        {
            let inner = self.0.lock();
            for (name, help, value) in PER_SET {
                let family = Family::<Labels, Gauge>::default();
                for ((namespace, statefulset), report) in inner.sets.iter().take(MOST_LABELLED) {
                    let labels = Labels { namespace: namespace.clone(), statefulset: statefulset.clone() };
                    family.get_or_create(&labels).set(value(report));
                }
                family.encode(encoder.encode_descriptor(name, help, None, family.metric_type())?)?;
            }
            let managed = ConstGauge::new(i64::try_from(inner.sets.len()).unwrap_or(i64::MAX));
            let help = "StatefulSets that this replica keeps; 0 on followers";
            managed.encode(encoder.encode_descriptor("timeshard_managed_statefulsets", help, None, managed.metric_type())?)?;
        }
        let looks = ConstCounter::new(self.0.looks.load(Relaxed));
        let help = "Looks at one StatefulSet; when it stands still on the leader, nothing is kept right";
        looks.encode(encoder.encode_descriptor("timeshard_reconciles", help, None, looks.metric_type())?)?;
        #[allow(clippy::cast_precision_loss, reason = "seconds for people; 2^53 ns are 104 days of computing")]
        let seconds = ConstCounter::new(self.0.look_nanos.load(Relaxed) as f64 / 1e9);
        let help = "Seconds spent on these looks, waiting for the API server included";
        seconds.encode(encoder.encode_descriptor("timeshard_reconcile_seconds", help, None, seconds.metric_type())?)
    }
}
