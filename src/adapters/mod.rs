//! The edges: sockets, TLS, directories, clocks, the cluster. Only these files name rustls or
//! inotify.

pub mod causes;
pub mod clock;
#[cfg(feature = "server")]
pub mod config_file;
#[cfg(feature = "agent")]
pub mod dir_watch;
pub mod exposition;
#[cfg(feature = "agent")]
pub mod fair_accept;
#[cfg(feature = "agent")]
pub mod files;
#[cfg(feature = "agent")]
pub mod handoff_files;
#[cfg(feature = "cli")]
pub mod host_names;
pub mod http_client;
#[cfg(feature = "server")]
pub mod https;
#[cfg(feature = "server")]
pub mod https_client;
#[cfg(feature = "cli")]
pub mod kube;
#[cfg(feature = "agent")]
pub mod listen;
pub mod lock;
pub mod log_text;
pub mod logfmt;
#[cfg(feature = "server")]
pub mod reload;
#[cfg(feature = "server")]
pub mod signals;
