//! The wall clock. Everything else takes time as a value, so that tests can simulate it.
//!
//! Deliberately absent: monotonic time. Timeouts use tokio's clock, which tests can pause.

use chrono::{DateTime, Utc};

/// The current time.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where the wall clock is read"
)]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// The current time in seconds since 1970-01-01T00:00:00Z.
#[must_use]
pub fn unix_seconds() -> i64 {
    now().timestamp()
}
