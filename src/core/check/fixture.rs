//! Snapshots for tests.
