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
use crate::adapters::clock;
use crate::core::history::History;
use crate::core::report::{PodReport, PodState, SetReport};

/// StatefulSets with metrics of their own; further ones are only in the sums. Bounds what a scrape holds.
const MOST_LABELLED: usize = 1_000;

/// The reports, and how the looking itself goes.
#[derive(Debug, Default)]
pub struct Reports {
    inner: Mutex<BTreeMap<SetName, Kept>>,
    looks: AtomicU64,
    look_nanos: AtomicU64,
}

/// What is kept of a StatefulSet.
#[derive(Debug, Default)]
struct Kept {
    report: Arc<SetReport>,
    history: History,
    /// Since when each pod is in its state, by a clock that is never set.
    since: HashMap<String, Instant>,
}

impl Reports {
    /// All of them, with the ages that they have now.
    #[must_use]
    pub fn all(&self) -> Vec<SetReport> {
        let aged = |kept: &Kept| {
            let mut report = SetReport::clone(&kept.report);
            for pod in &mut report.pods {
                pod.seconds_in_state = kept.since.get(&pod.pod).map_or(0, |since| since.elapsed().as_secs());
            }
            report
        };
        self.lock().values().map(aged).collect()
    }

    /// All of them as they were put. One that says nothing new is the same value as before.
    #[must_use]
    pub fn latest(&self) -> BTreeMap<SetName, Arc<SetReport>> {
        self.lock().iter().map(|(name, kept)| (name.clone(), kept.report.clone())).collect()
    }

    /// Replaces one.
    pub fn put(&self, name: &SetName, mut report: SetReport, took: Duration) {
        self.looks.fetch_add(1, Relaxed);
        self.look_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        let (instant, now) = (Instant::now(), clock::now());
        let mut inner = self.lock();
        let known = inner.contains_key(name);
        let kept = inner.entry(name.clone()).or_default();
        let before = kept.report.clone();
        let was: HashMap<&str, &PodReport> = before.pods.iter().map(|pod| (pod.pod.as_str(), pod)).collect();
        let mut since = HashMap::with_capacity(report.pods.len());
        for pod in &mut report.pods {
            let same = was.get(pod.pod.as_str()).filter(|was| was.state == pod.state);
            pod.since_unix_seconds = same.map_or(now.timestamp(), |was| was.since_unix_seconds);
            let began = same.and_then(|_| kept.since.get(&pod.pod).copied()).unwrap_or(instant);
            since.insert(pod.pod.clone(), began);
        }
        kept.since = since;
        kept.history.observe(known.then_some(&*before), &mut report, now);
        if report != *before {
            kept.report = Arc::new(report);
        }
    }

    /// Forgets one.
    pub(super) fn remove(&self, name: &SetName) {
        self.lock().remove(name);
    }

    /// Forgets all: somebody else leads.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SetName, Kept>> {
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
                for ((namespace, statefulset), kept) in inner.iter().take(MOST_LABELLED) {
                    let labels = Labels { namespace: namespace.clone(), statefulset: statefulset.clone() };
                    family.get_or_create(&labels).set(value(&kept.report));
                }
                family.encode(encoder.encode_descriptor(name, help, None, family.metric_type())?)?;
            }
            let managed = ConstGauge::new(i64::try_from(inner.len()).unwrap_or(i64::MAX));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_new_is_the_same_value() {
        let (reports, name) = (Reports::default(), ("ns".to_owned(), "store".to_owned()));
        let put = |message: &str| {
            reports.put(&name, SetReport { message: message.to_owned(), ..SetReport::default() }, Duration::ZERO);
            reports.latest()[&name].clone()
        };
        let (first, second, third) = (put("a"), put("a"), put("b"));
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&second, &third));
        assert_eq!((third.message.as_str(), third.changes.len()), ("b", 1));
        reports.clear();
        assert!(reports.latest().is_empty() && reports.all().is_empty());
    }
}
