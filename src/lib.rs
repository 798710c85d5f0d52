//! Time-sharded Thanos Store Gateways by admission. ARCHITECTURE.md describes the modules.
//!
//! Imports flow one way: `main -> cli -> {webhook, controller, page, sidecar, launcher} -> adapters
//! -> core`.

pub mod adapters;
#[cfg(feature = "agent")]
pub mod agent_cli;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "server")]
pub mod controller;
pub mod core;
#[cfg(feature = "agent")]
pub mod launcher;
#[cfg(feature = "server")]
pub mod page;
#[cfg(feature = "agent")]
pub mod sidecar;
#[cfg(feature = "agent")]
pub mod stand_in;
#[cfg(test)]
mod testing;
#[cfg(feature = "cli")]
pub mod webhook;
