//! The cluster: clients, watches, the Lease, Events, and reading objects.

pub mod annotate;
#[cfg(feature = "server")]
pub mod certificates;
pub mod check;
#[cfg(feature = "server")]
pub mod cluster;
#[cfg(feature = "server")]
pub mod events;
pub mod facts;
#[cfg(feature = "server")]
pub mod leader_status;
#[cfg(feature = "server")]
pub mod lease;
pub mod partial;
pub mod pod_proxy;
pub mod rights;
pub mod server_status;
pub mod trimming_client;
pub mod user_client;
#[cfg(feature = "server")]
pub mod watch;
