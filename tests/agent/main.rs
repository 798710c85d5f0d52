//! The agent as real processes: sidecar, launcher, and the stand-in or a real thanos. Also a real
//! querier, whose answers the server reads.

#![cfg(feature = "agent")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests may stop at the first surprise"
)]

mod blocks;
mod figures;
mod launcher;
mod loads;
#[cfg(feature = "server")]
mod querier;
mod sidecar;
#[path = "../support/mod.rs"]
mod support;
mod thanos;
mod thanos_blocks;
