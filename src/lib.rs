//! Time-sharded Thanos Store Gateways by admission.
//!
//! The map of the house; ARCHITECTURE.md walks through it. Imports flow one way:
//! `main -> cli -> {webhook, refresher, sidecar, launcher} -> adapters -> core`.

pub mod adapters;
pub mod core;
#[cfg(feature = "server")]
pub mod webhook;
