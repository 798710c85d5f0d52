//! Thanos' command line: whether a container runs `thanos store` or `thanos query`, and the flags
//! that bound a store's time.

#[cfg(feature = "cli")]
pub mod args;
#[cfg(feature = "agent")]
pub mod flags;
#[cfg(feature = "cli")]
pub mod query;
#[cfg(feature = "cli")]
pub mod stores;
