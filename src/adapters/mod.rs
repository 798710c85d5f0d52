//! The edges: sockets, directories, certificates, clocks. The only files that name rustls or inotify.

pub mod clock;
pub mod dir_watch;
pub mod files;
pub mod logfmt;
