//! What the webhook counts. Every handle is resolved once, so that a request touches atomics only.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::guard::Outcome as Guarded;
use super::review::Verdict;
use crate::core::guard::CONCERN_LABELS;
use crate::core::mutation::SKIP_LABELS;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
    reason: &'static str,
}

/// The webhook's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    injected: Counter,
    skipped: [Counter; SKIP_LABELS.len()],
    denied: Counter,
    errors: Counter,
    guard: Guard,
    notices_dropped: Counter,
    duration: Histogram,
}

/// The guard's requests.
#[derive(Clone, Debug)]
struct Guard {
    allowed: Counter,
    warned: Counter,
    warned_of: [Counter; CONCERN_LABELS.len()],
    denied: [Counter; CONCERN_LABELS.len()],
    errors: Counter,
}

/// Seconds; from a quarter of a millisecond to the longest timeout an API server allows. Upper bounds.
const BUCKETS: [f64; 13] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0,
];

impl Metrics {
    /// Registers the webhook's metrics.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let requests = Family::<Outcome, Counter>::default();
        let of = |outcome, reason| requests.get_or_create_owned(&Outcome { outcome, reason });
        let guarded = Family::<Outcome, Counter>::default();
        let metrics = Self {
            injected: of("injected", ""),
            skipped: SKIP_LABELS.map(|reason| of("skipped", reason)),
            denied: of("denied", "unreadable_pod"),
            errors: of("error", "unreadable_review"),
            guard: Guard::new(&guarded),
            notices_dropped: Counter::default(),
            duration: Histogram::new(BUCKETS),
        };
        registry.register(
            "timeshard_admission_requests",
            "Admission requests by outcome; all outcomes together are all requests. Look at the reason when skipped grows for a gateway, and at the API server's log when error grows",
            requests,
        );
        registry.register(
            "timeshard_guard_requests",
            "Changes of StatefulSets by outcome; look at who scales or edits gateways when denied grows, or warned with a reason, which mode deny would have denied",
            guarded,
        );
        registry.register_with_unit(
            "timeshard_admission_duration",
            "Time from the whole request read to the answer; raise the server's CPU limit when it nears the webhook's timeout",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "timeshard_admission_notices_dropped",
            "Events not written because too many waited; the log has them",
            metrics.notices_dropped.clone(),
        );
        metrics
    }

    pub(super) fn ended(&self, verdict: &Verdict, took: Duration) {
        match verdict {
            Verdict::Injected => &self.injected,
            Verdict::Skipped(skip) => &self.skipped[skip.index()],
            Verdict::Denied => &self.denied,
            Verdict::Error => &self.errors,
        }
        .inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn guarded(&self, outcome: Guarded) {
        match outcome {
            Guarded::Allowed => &self.guard.allowed,
            Guarded::Warned(None) => &self.guard.warned,
            Guarded::Warned(Some(concern)) => &self.guard.warned_of[concern.index()],
            Guarded::Denied(concern) => &self.guard.denied[concern.index()],
            Guarded::Error => &self.guard.errors,
        }
        .inc();
    }

    pub(super) fn notice_dropped(&self) {
        self.notices_dropped.inc();
    }
}

impl Guard {
    fn new(requests: &Family<Outcome, Counter>) -> Self {
        let of = |outcome, reason| requests.get_or_create_owned(&Outcome { outcome, reason });
        Self {
            allowed: of("allowed", ""),
            warned: of("warned", ""),
            warned_of: CONCERN_LABELS.map(|reason| of("warned", reason)),
            denied: CONCERN_LABELS.map(|reason| of("denied", reason)),
            errors: of("error", "unreadable_review"),
        }
    }
}
