//! What the sidecar and the launcher decide, the files between them, and what `/status` says.

pub mod handoff;
pub mod last_load;
#[cfg(feature = "agent")]
pub mod launcher;
pub mod loaded;
#[cfg(feature = "agent")]
pub mod loading;
#[cfg(feature = "agent")]
pub mod sidecar;
pub mod status;
