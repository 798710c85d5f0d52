//! How the agent finds out which blocks its thanos has loaded.
//!
//! The sidecar reads thanos' `/metrics` ([`reading`]): how many blocks passed the filters and how
//! many are loaded. [`filter`] decides which readings can be trusted while a sync runs. The
//! launcher reads thanos' data directory: [`args`] finds it, [`meta`] parses a block's `meta.json`,
//! [`candidates`] and [`narrow`] find the blocks of the window that have no index header.
//!
//! Deliberately absent: files, HTTP and time; and thanos' own list of blocks (`/api/v1/blocks`),
//! which thanos builds as one JSON document of hundreds of MiB on a large bucket.

pub mod args;
pub mod candidates;
pub mod filter;
pub mod meta;
pub mod narrow;
pub mod reading;
