//! What the leader last found out about each StatefulSet, for `/status` and for metrics (`report_metrics`).
//!
//! Invariant: empty while this process does not lead, so that nobody reads what is out of date.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::seen::SetName;
use crate::core::report::{PodState, SetReport};

/// The reports, and how the looking itself goes.
#[derive(Debug, Default)]
pub struct Reports {
    inner: Mutex<Inner>,
    looks: AtomicU64,
    look_nanos: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    sets: BTreeMap<SetName, (SetReport, Instant)>,
    since: HashMap<(SetName, String), (PodState, Instant)>,
}

impl Reports {
    /// All of them, with the ages that they have now.
    #[must_use]
    pub fn all(&self) -> Vec<SetReport> {
        let inner = self.lock();
        let aged = inner.sets.iter().map(|(name, (report, at))| {
            let mut report = report.clone().aged_by(at.elapsed().as_secs());
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
        inner.sets.insert(name.clone(), (report, now));
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

    /// How many looks there were, and the seconds that they took.
    pub(super) fn looks(&self) -> (u64, f64) {
        #[allow(clippy::cast_precision_loss, reason = "seconds for people; 2^53 ns are 104 days of computing")]
        let seconds = self.look_nanos.load(Relaxed) as f64 / 1e9;
        (self.looks.load(Relaxed), seconds)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
