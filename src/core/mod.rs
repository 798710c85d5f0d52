//! Every decision of the program, as pure functions.
//!
//! Architecture invariant: nothing here uses tokio, a Kubernetes client, a file, the environment or
//! a clock; time is passed in as a value. `tests/house` reads the `use` lines and fails otherwise.
//! The agent is built without the server's decisions.

#[cfg(feature = "cli")]
pub mod admission;
pub mod agent;
#[cfg(feature = "server")]
pub mod certificates;
#[cfg(feature = "cli")]
pub mod check;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "server")]
pub mod election;
pub mod fairness;
#[cfg(feature = "cli")]
pub mod gateways;
#[cfg(feature = "cli")]
pub mod kube;
pub mod model;
#[cfg(feature = "cli")]
pub mod plan;
#[cfg(feature = "cli")]
pub mod pod;
#[cfg(feature = "cli")]
pub mod rollout;
#[cfg(feature = "cli")]
pub mod server_status;
pub mod thanos;
