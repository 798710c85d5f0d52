//! Invariants for any bytes, by kind of input; each function panics if one is violated. `fuzz/run`
//! calls them with the seeds and generated inputs.

mod admission;
mod agent;
mod configuration;
mod lists;

pub use admission::{review, statefulset_review};
pub use agent::{agent_status, entry, shared_files};
pub use configuration::{annotations, configuration};
pub use lists::{block_list, block_meta, querier_arguments, querier_stores, thanos_metrics};

use chrono::{DateTime, Utc};

/// The clock of every target: 2026-11-20.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_132_800, 0).expect("an instant of the calendar")
}

/// Returns the input as text; readers of text get nothing else.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}
