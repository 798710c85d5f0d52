//! A value that is loaded again while it is in use: load, validate, compare, swap.
//!
//! Invariants: users only see validated values; a failed load keeps the last good value, is
//! counted, and is logged once per distinct failure; reading is one atomic load.

use std::fmt::{self, Display};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::lock::lock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    /// The loaded value equals the current one.
    Unchanged,
    Swapped,
    /// Loading failed; the last good value stays in use.
    Kept,
}

/// Counts since the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ReloadCounts {
    pub swapped: u64,
    pub failed: u64,
    /// Failures that differ from the failure before.
    pub distinct_failures: u64,
}

#[derive(Debug, Default)]
struct ReloadHistory {
    counts: ReloadCounts,
    last_failure: Option<String>,
}

/// A value and the history of its reloads. Values are equal if swapping them changes nothing.
#[derive(Debug)]
pub struct Reloaded<T> {
    what: &'static str,
    current: ArcSwap<T>,
    history: Mutex<ReloadHistory>,
}

impl<T: PartialEq> Reloaded<T> {
    /// `what` names the value in log messages.
    #[must_use]
    pub fn new(what: &'static str, value: T) -> Self {
        Self {
            what,
            current: ArcSwap::from_pointee(value),
            history: Mutex::default(),
        }
    }

    pub fn current(&self) -> Guard<Arc<T>> {
        self.current.load()
    }

    /// Swaps the value if it was loaded and differs.
    pub fn publish<E: Display>(&self, loaded: Result<T, E>) -> ReloadResult {
        let value = match loaded {
            Ok(value) => value,
            Err(error) => {
                self.refuse(&error.to_string());
                return ReloadResult::Kept;
            }
        };
        let mut history = lock(&self.history);
        history.last_failure = None;
        if value == **self.current.load() {
            return ReloadResult::Unchanged;
        }
        self.current.store(Arc::new(value));
        history.counts.swapped += 1;
        ReloadResult::Swapped
    }

    /// Counts a failed load, and logs it if it differs from the last failure.
    pub fn refuse(&self, failure: &str) {
        let mut history = lock(&self.history);
        history.counts.failed += 1;
        if history.last_failure.as_deref() != Some(failure) {
            history.counts.distinct_failures += 1;
            history.last_failure = Some(failure.to_owned());
            tracing::warn!(
                error = failure,
                "{} not reloaded; the last good one stays in use",
                self.what
            );
        }
    }

    /// Returns the error of the last reload; `None` once one has succeeded.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        lock(&self.history).last_failure.clone()
    }

    #[must_use]
    pub fn counts(&self) -> ReloadCounts {
        lock(&self.history).counts
    }
}

impl ReloadCounts {
    /// Encodes swaps and failures as one family with the label `result`.
    ///
    /// # Errors
    /// The encoder's.
    pub fn encode(
        self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (result, count) in [("ok", self.swapped), ("failed", self.failed)] {
            ConstCounter::new(count).encode(family.encode_family(&[("result", result)])?)?;
        }
        Ok(())
    }
}
