//! The complete admission path on real sockets: the `timeshard` binary serves, a TLS client plays
//! the API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod admin_port;
mod bad_requests;
mod blocks;
mod check;
mod command_line;
mod demo;
mod golden;
mod guard;
mod inject;
mod mistakes;
mod recipes;
mod server;
mod status;
mod steps;
