//! Time-sharded Thanos Store Gateways by admission.
//!
//! The map of the house; ARCHITECTURE.md walks through it. Imports flow one way:
//! `main -> cli -> {webhook, refresher, page, sidecar, launcher} -> adapters -> core`.

pub mod adapters;
#[cfg(feature = "agent")]
pub mod agent_cli;
#[cfg(feature = "server")]
pub mod cli;
pub mod core;
#[cfg(feature = "agent")]
pub mod launcher;
#[cfg(feature = "server")]
pub mod page;
#[cfg(feature = "server")]
pub mod refresher;
#[cfg(feature = "agent")]
pub mod sidecar;
pub mod stand_in;
#[cfg(feature = "server")]
pub mod webhook;
