//! What the program exists for, as pure functions: windows, configuration, mutation.
//!
//! Architecture invariant: nothing here knows tokio, a Kubernetes client, a file, the environment or a clock.
//! Time comes in as a value. What only the server decides about is left out of the agent. `tests/house` reads the `use` lines and fails on anything else.

pub mod agent_status;
#[cfg(feature = "server")]
pub mod budgets;
#[cfg(feature = "server")]
pub mod config;
pub mod duration;
#[cfg(feature = "server")]
pub mod election;
pub mod entry;
#[cfg(feature = "server")]
pub mod fleet;
#[cfg(feature = "server")]
pub mod history;
pub mod launch;
#[cfg(feature = "server")]
pub mod located;
#[cfg(feature = "server")]
pub mod mutation;
pub mod names;
#[cfg(feature = "server")]
pub mod notice;
#[cfg(feature = "server")]
pub mod observed;
#[cfg(feature = "server")]
pub mod owned;
#[cfg(feature = "server")]
pub mod patch;
#[cfg(feature = "server")]
pub mod plan;
#[cfg(feature = "server")]
pub mod pod;
#[cfg(feature = "server")]
pub mod reconcile;
pub mod reload;
#[cfg(feature = "server")]
pub mod report;
#[cfg(feature = "server")]
pub mod rollout;
#[cfg(feature = "server")]
pub mod shard_services;
pub mod shared_files;
#[cfg(feature = "server")]
pub mod sidecar_spec;
#[cfg(feature = "server")]
pub mod store_args;
pub mod time_flags;
pub mod window;
