//! How the agent finds out which blocks its thanos has loaded.
//!
//! The sidecar sees thanos' `/metrics` ([`reading`]): how many blocks passed the filters and how many are loaded. [`judge`]
//! decides which of these readings can be believed while syncs run. The launcher sees thanos' data directory: [`args`] says
//! where it is, [`meta`] reads the `meta.json` of a block, [`candidates`] and [`narrow`] find the blocks that are in the window
//! but have no index header.
//!
//! Deliberately absent: files, HTTP and time; and thanos' own list of blocks (`/api/v1/blocks`), which thanos builds as one
//! JSON document of hundreds of MiB on a large bucket.

pub mod args;
pub mod candidates;
pub mod judge;
pub mod meta;
pub mod narrow;
pub mod reading;
