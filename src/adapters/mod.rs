//! The edges: sockets, directories, certificates, clocks. The only files that name rustls or inotify.

pub mod dir_watch;
