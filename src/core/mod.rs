//! What the program exists for, as pure functions: windows, configuration, mutation.
//!
//! Architecture invariant: nothing here knows tokio, a Kubernetes client, a file, the environment or a clock.
//! Time comes in as a value. `tests/layering.rs` reads the `use` lines and fails on anything else.

pub mod agent_status;
pub mod duration;
pub mod entry;
pub mod launch;
pub mod names;
pub mod reload;
pub mod shared_files;
pub mod time_flags;
pub mod window;
