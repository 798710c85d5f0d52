//! What the leader does in the background; so far, what it sees.
//!
//! `observe` watches the cluster, `poll` asks sidecars, `seen` holds what both found until someone decides.

pub mod observe;
pub mod poll;
mod readiness;
pub mod seen;
mod trim;
