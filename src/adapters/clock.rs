//! The wall clock, and waiting for a deadline that may be absent.
//!
//! Everything else takes time as a value, so that tests can simulate it. Deadlines use tokio's
//! clock, which tests can pause.

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep_until};

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

/// Waits until the deadline; for ever without one.
pub async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
