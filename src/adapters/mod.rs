//! The edges: sockets, directories, certificates, clocks. The only files that name rustls or inotify.

#[cfg(feature = "server")]
pub mod admin;
pub mod clock;
#[cfg(feature = "server")]
pub mod cluster;
#[cfg(feature = "server")]
pub mod config_file;
pub mod dir_watch;
#[cfg(feature = "server")]
pub mod events;
pub mod files;
#[cfg(feature = "server")]
pub mod http_client;
#[cfg(feature = "server")]
pub mod lean;
#[cfg(feature = "server")]
pub mod lease;
pub mod logfmt;
#[cfg(feature = "server")]
pub mod serve;
pub mod signals;
#[cfg(feature = "server")]
pub mod tls;
#[cfg(feature = "server")]
pub mod watches;
