//! The edges: sockets, directories, certificates, clocks. The only files that name rustls or inotify.

#[cfg(feature = "server")]
pub mod admin;
pub mod clock;
pub mod dir_watch;
#[cfg(feature = "server")]
pub mod serve;
pub mod signals;
#[cfg(feature = "server")]
pub mod tls;
