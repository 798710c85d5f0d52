//! Admission over HTTP: `AdmissionReview` in, `AdmissionReview` out, around `core::admission`.
//!
//! Invariants: no call to the API server; no lock except a short one when a body is charged; every
//! answer to a readable review carries the request's uid; every request counts in exactly one
//! outcome. TLS, accepting and draining are adapters.

mod envelope;
mod guard;
#[cfg(feature = "server")]
mod http;
mod review;

pub use guard::{GuardOutcome, Guarded};
#[cfg(feature = "server")]
pub use http::{MAX_BODY_BYTES, WebhookMetrics, router};
pub use review::{ReviewAnswer, ReviewVerdict, Reviewer};
