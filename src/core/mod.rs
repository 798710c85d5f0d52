//! What the program exists for, as pure functions: windows, configuration, mutation.
//!
//! Architecture invariant: nothing here knows tokio, a Kubernetes client, a file, the environment or a clock.
//! Time comes in as a value. `tests/layering.rs` reads the `use` lines and fails on anything else.

pub mod config;
pub mod duration;
pub mod entry;
pub mod fleet;
pub mod located;
pub mod mutation;
pub mod names;
pub mod notice;
pub mod patch;
pub mod plan;
pub mod pod;
pub mod sidecar_spec;
pub mod store_args;
pub mod window;
