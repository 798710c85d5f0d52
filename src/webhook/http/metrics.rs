//! Metrics of the webhook. Handles are resolved once, so that a request touches only atomics.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::core::admission::SKIP_LABELS;
use crate::core::admission::guard::CONCERN_LABELS;
use crate::webhook::guard::GuardOutcome as Guarded;
use crate::webhook::review::ReviewVerdict;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug)]
pub struct WebhookMetrics {
    injected: Counter,
    skipped: [Counter; SKIP_LABELS.len()],
    denied: Counter,
    errors: Counter,
    guard: Guard,
    notices_dropped: Counter,
    duration: Histogram,
}

#[derive(Clone, Debug)]
struct Guard {
    allowed: Counter,
    warned: Counter,
    warned_of: [Counter; CONCERN_LABELS.len()],
    denied: [Counter; CONCERN_LABELS.len()],
    errors: Counter,
}

/// Upper bounds, from a quarter of a millisecond to the longest timeout of a webhook. Seconds.
const BUCKETS: [f64; 13] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0,
];

impl WebhookMetrics {
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let requests = Family::<OutcomeLabels, Counter>::default();
        let of = |outcome, reason| requests.get_or_create_owned(&OutcomeLabels { outcome, reason });
        let guarded = Family::<OutcomeLabels, Counter>::default();
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
            "Admission requests by outcome; the outcomes add up to all requests. If skipped grows for a gateway, see the reason; if error grows, see the API server's log",
            requests,
        );
        registry.register(
            "timeshard_guard_requests",
            "Changes of StatefulSets by outcome. warned with a reason: mode deny would have denied it. If denied or warned grows, find out who scales or edits gateways",
            guarded,
        );
        registry.register_with_unit(
            "timeshard_admission_duration",
            "Time from the complete request to the answer. If it nears the webhook's timeout, raise the server's CPU limit",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "timeshard_admission_notices_dropped",
            "Events dropped because the queue was full; the log has them",
            metrics.notices_dropped.clone(),
        );
        metrics
    }

    pub(super) fn ended(&self, verdict: &ReviewVerdict, took: Duration) {
        match verdict {
            ReviewVerdict::Injected => &self.injected,
            ReviewVerdict::Skipped(skip) => &self.skipped[skip.index()],
            ReviewVerdict::Denied => &self.denied,
            ReviewVerdict::Error => &self.errors,
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
    fn new(requests: &Family<OutcomeLabels, Counter>) -> Self {
        let of = |outcome, reason| requests.get_or_create_owned(&OutcomeLabels { outcome, reason });
        Self {
            allowed: of("allowed", ""),
            warned: of("warned", ""),
            warned_of: CONCERN_LABELS.map(|reason| of("warned", reason)),
            denied: CONCERN_LABELS.map(|reason| of("denied", reason)),
            errors: of("error", "unreadable_review"),
        }
    }
}
