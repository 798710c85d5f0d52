//! Time-sharded Thanos Store Gateways by admission.
//!
//! The map of the house; ARCHITECTURE.md walks through it. Imports flow one way:
//! `main -> cli -> {webhook, refresher, sidecar, launcher} -> adapters -> core`.

pub mod adapters;
#[cfg(feature = "server")]
pub mod cli;
pub mod core;
#[cfg(feature = "server")]
pub mod webhook;
