//! The files between sidecar and launcher ([`handoff`]) on disk.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files;
use crate::core::agent::handoff::{self, MAX_FILE_BYTES};

/// Whether a write must survive a crash of the node. Waiting for the disk takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Synced,
    Unsynced,
}

/// Reads a document; `None` if it is absent or unreadable.
#[must_use]
pub fn read<T: for<'de> Deserialize<'de>>(dir: &Path, name: &str) -> Option<T> {
    let bytes = files::read(&dir.join(name), MAX_FILE_BYTES)
        .ok()
        .flatten()?;
    handoff::decode(&bytes)
}

/// Replaces a document atomically.
///
/// # Errors
/// The file system's.
pub fn write<T: Serialize>(
    dir: &Path,
    name: &str,
    document: &T,
    durability: Durability,
) -> io::Result<()> {
    let bytes = handoff::encode(document)?;
    let replace = match durability {
        Durability::Synced => files::replace::<&[u8]>,
        Durability::Unsynced => files::replace_unsynced::<&[u8]>,
    };
    replace(dir, name, &bytes, files::MODE_DATA)
}
