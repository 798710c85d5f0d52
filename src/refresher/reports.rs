//! What the leader last found out about each StatefulSet, for `/status`, for the page and for metrics (`report_metrics`).
//!
//! Invariant: empty while this process does not lead, so that nobody reads what is out of date.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::seen::SetName;
use crate::adapters::clock;
use crate::core::history::History;
use crate::core::report::{PodReport, SetReport};

/// The reports, and how the looking itself goes.
#[derive(Debug, Default)]
pub struct Reports {
    inner: Mutex<BTreeMap<SetName, Kept>>,
    looks: AtomicU64,
    look_nanos: AtomicU64,
}

/// What is kept of a StatefulSet.
#[derive(Debug)]
struct Kept {
    report: Arc<SetReport>,
    /// When it was put.
    at: Instant,
    history: History,
    /// Whether every pod that was there at some look had been asked; before, what is served is not known.
    asked: bool,
    /// Since when each pod is in its state, by a clock that is never set.
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
    /// All of them, with the ages that they have now.
    #[must_use]
    pub fn all(&self) -> Vec<SetReport> {
        self.lock().values().map(Kept::aged).collect()
    }

    /// One of them, with the ages that it has now.
    #[must_use]
    pub fn aged(&self, name: &SetName) -> Option<SetReport> {
        self.lock().get(name).map(Kept::aged)
    }

    /// All of them as they were put, the seconds since then, and whether what each of them says to be served can be believed: not
    /// before all its pods were asked once.
    pub(super) fn measured(&self) -> Vec<(Arc<SetReport>, u64, bool)> {
        self.lock()
            .values()
            .map(|kept| (kept.report.clone(), kept.at.elapsed().as_secs(), kept.asked))
            .collect()
    }

    /// All of them as they were put. One that says nothing new is the same value as before.
    #[must_use]
    pub fn latest(&self) -> BTreeMap<SetName, Arc<SetReport>> {
        self.lock()
            .iter()
            .map(|(name, kept)| (name.clone(), kept.report.clone()))
            .collect()
    }

    /// Replaces one.
    pub fn put(&self, name: &SetName, mut report: SetReport, took: Duration) {
        self.looks.fetch_add(1, Relaxed);
        self.look_nanos
            .fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        let (instant, now) = (Instant::now(), clock::now());
        let mut inner = self.lock();
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

    /// Forgets one.
    pub(super) fn remove(&self, name: &SetName) {
        self.lock().remove(name);
    }

    /// Forgets all: somebody else leads.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// How many looks there were, and the seconds that they took.
    pub(super) fn looks(&self) -> (u64, f64) {
        #[allow(
            clippy::cast_precision_loss,
            reason = "seconds for people; 2^53 ns are 104 days of computing"
        )]
        let seconds = self.look_nanos.load(Relaxed) as f64 / 1e9;
        (self.looks.load(Relaxed), seconds)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SetName, Kept>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_new_is_the_same_value() {
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
