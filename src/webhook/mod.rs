//! Admission over HTTP: `AdmissionReview` in, `AdmissionReview` out, around `core::mutation`.
//!
//! Invariants: no call to the API server, no lock on the way, every answer to a readable review carries the request's
//! uid, and every request counts in exactly one outcome. TLS, accepting and draining are adapters.

mod metrics;
mod review;
mod routes;

pub use metrics::Metrics;
pub use review::{Answer, MAX_WARNING_CHARS, Reviewer};
pub use routes::{MAX_BODY_BYTES, router};
