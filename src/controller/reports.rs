//! The leader's last report on each StatefulSet, for `/status`, the page and metrics
//! (`report_metrics`).
//!
//! Invariant: empty while this process does not lead, so that no stale report is read.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::adapters::clock;
use crate::adapters::lock::lock;
use crate::controller::cache::SetName;
use crate::core::rollout::history::History;
use crate::core::rollout::report::{PodReport, SetReport};

/// The reports, and how many reconciles made them.
#[derive(Debug, Default)]
pub struct Reports {
    inner: Mutex<BTreeMap<SetName, Kept>>,
    reconciles: AtomicU64,
    nanos: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    report: Arc<SetReport>,
    at: Instant,
    history: History,
    /// Whether at some reconcile every pod had been asked; before that, coverage is unknown.
    asked: bool,
    /// Since when each pod has been in its state, by the monotonic clock.
    since: HashMap<String, Instant>,
}

impl Kept {
    fn new(at: Instant) -> Self {
        Self {
            report: Arc::default(),
            at,
            history: History::default(),
            asked: false,
            since: HashMap::new(),
        }
    }

    fn aged(&self) -> SetReport {
        let mut report = SetReport::clone(&self.report).aged_by(self.at.elapsed().as_secs());
        for pod in &mut report.pods {
            pod.seconds_in_state = self
                .since
                .get(&pod.pod)
                .map_or(0, |since| since.elapsed().as_secs());
        }
        report
    }
}

impl Reports {
    /// All reports with their ages now.
    #[must_use]
    pub fn all(&self) -> Vec<SetReport> {
        lock(&self.inner).values().map(Kept::aged).collect()
    }

    /// One report with its ages now.
    #[must_use]
    pub fn aged(&self, name: &SetName) -> Option<SetReport> {
        lock(&self.inner).get(name).map(Kept::aged)
    }

    /// All reports, their ages in seconds, and whether all pods were asked once; before that the
    /// coverage in the report is meaningless.
    pub(super) fn measured(&self) -> Vec<(Arc<SetReport>, u64, bool)> {
        lock(&self.inner)
            .values()
            .map(|kept| (kept.report.clone(), kept.at.elapsed().as_secs(), kept.asked))
            .collect()
    }

    /// All reports. One that did not change is the same `Arc` as before.
    #[must_use]
    pub fn latest(&self) -> BTreeMap<SetName, Arc<SetReport>> {
        lock(&self.inner)
            .iter()
            .map(|(name, kept)| (name.clone(), kept.report.clone()))
            .collect()
    }

    /// Replaces a report, made by a reconcile that took `took`.
    pub fn put(&self, name: &SetName, mut report: SetReport, took: Duration) {
        self.reconciles.fetch_add(1, Relaxed);
        self.nanos
            .fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        let (instant, now) = (Instant::now(), clock::now());
        let mut inner = lock(&self.inner);
        let known = inner.contains_key(name);
        let kept = inner
            .entry(name.clone())
            .or_insert_with(|| Kept::new(instant));
        kept.at = instant;
        kept.asked |= report.not_asked == 0;
        let before = kept.report.clone();
        let was: HashMap<&str, &PodReport> = before
            .pods
            .iter()
            .map(|pod| (pod.pod.as_str(), pod))
            .collect();
        let mut since = HashMap::with_capacity(report.pods.len());
        for pod in &mut report.pods {
            let same = was
                .get(pod.pod.as_str())
                .filter(|was| was.state == pod.state);
            pod.since_unix_seconds = same.map_or(now.timestamp(), |was| was.since_unix_seconds);
            let began = same
                .and_then(|_| kept.since.get(&pod.pod).copied())
                .unwrap_or(instant);
            since.insert(pod.pod.clone(), began);
        }
        kept.since = since;
        kept.history
            .observe(known.then_some(&*before), &mut report, now);
        if report != *before {
            kept.report = Arc::new(report);
        }
    }

    pub(super) fn remove(&self, name: &SetName) {
        lock(&self.inner).remove(name);
    }

    pub(super) fn clear(&self) {
        lock(&self.inner).clear();
    }

    /// Number of reconciles, and how many seconds they took.
    pub(super) fn reconciles(&self) -> (u64, f64) {
        #[allow(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
        let seconds = self.nanos.load(Relaxed) as f64 / 1e9;
        (self.reconciles.load(Relaxed), seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_did_not_change_is_the_same_value() {
        let (reports, name) = (Reports::default(), ("ns".to_owned(), "store".to_owned()));
        let put = |message: &str| {
            reports.put(
                &name,
                SetReport {
                    message: message.to_owned(),
                    ..SetReport::default()
                },
                Duration::ZERO,
            );
            reports.latest()[&name].clone()
        };
        let (first, second, third) = (put("a"), put("a"), put("b"));
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&second, &third));
        assert_eq!((third.message.as_str(), third.changes.len()), ("b", 1));
        reports.clear();
        assert!(reports.latest().is_empty() && reports.all().is_empty());
    }
}
