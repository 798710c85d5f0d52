//! Admission over HTTP: `AdmissionReview` in, `AdmissionReview` out, around `core::mutation` and `core::guard`.
//!
//! Invariants: no call to the API server, no lock on the way but a short one where a body is charged, every answer to a readable review carries the request's
//! uid, and every request counts in exactly one outcome. TLS, accepting and draining are adapters.

mod body;
mod guard;
mod metrics;
mod review;
mod routes;
#[cfg(test)]
mod tests;

pub use body::MAX_BODY_BYTES;
pub use guard::{Guarded, Outcome};
pub use metrics::Metrics;
pub use review::{Answer, Reviewer, Verdict};
pub use routes::router;
