//! The serving edge on real sockets: rotation, drain, bad peers, protocols, the admin port.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod admin;
mod bad_peers;
mod clients;
mod drain;
mod hostile;
mod process;
mod protocols;
mod rotation;
mod support;
