//! The page: its stream on real sockets, and in a real browser.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod browser;
mod looks;
mod relay;
mod scenes;
mod server;
mod story;
mod stream;
