//! What thanos' data directory shows: the bucket's `meta.json` files and the loaded index headers.
//!
//! The content of the directory is not trusted: only small regular files are read, links are not
//! followed, and everything has a limit.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::core::agent::loading::meta::{self, BlockMeta, MAX_META_BYTES, PREFIX_BYTES, Ulid};

/// A directory with more entries is not listed.
pub(super) const MAX_BLOCKS: usize = 200_000;
/// Thanos' cache of the `meta.json` of every block in the bucket.
pub(super) const META_DIR: &str = "meta-syncer";
pub(super) const META_FILE: &str = "meta.json";
pub(super) const HEADER_FILE: &str = "index-header";

/// Returns the blocks that have an entry in `dir`, sorted.
///
/// # Errors
/// The file system's; more than [`MAX_BLOCKS`] entries.
pub(super) fn ids(dir: &Path) -> io::Result<Vec<Ulid>> {
    let mut ids = Vec::new();
    for (seen, entry) in std::fs::read_dir(dir)?.enumerate() {
        if seen >= MAX_BLOCKS {
            return Err(io::Error::other(format!("more than {MAX_BLOCKS} entries")));
        }
        ids.extend(entry?.file_name().to_str().and_then(Ulid::parse));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Reads a block's time range, in milliseconds since 1970, from thanos' cache `metas`.
pub(super) fn range(metas: &Path, ulid: Ulid) -> Option<(i64, i64)> {
    let mut file = open(metas, ulid)?;
    let mut prefix = [0; PREFIX_BYTES];
    let read = file.read(&mut prefix).ok()?;
    meta::range_at_front(&prefix[..read]).or_else(|| details(metas, ulid).map(|meta| meta.range))
}

pub(super) fn details(metas: &Path, ulid: Ulid) -> Option<BlockMeta> {
    let mut bytes = Vec::new();
    open(metas, ulid)?
        .take(MAX_META_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .ok()?;
    (bytes.len() <= MAX_META_BYTES).then(|| BlockMeta::parse(&bytes))?
}

/// Opens a block's `meta.json` if it is a regular file: a pipe or a device could block, and a link
/// could lead anywhere.
fn open(metas: &Path, ulid: Ulid) -> Option<File> {
    let path = metas.join(ulid.to_string()).join(META_FILE);
    let file: File = rustix::fs::open(
        &path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?
    .into();
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file())
        .then_some(file)
}

pub(super) fn header(dir: &Path, ulid: Ulid) -> PathBuf {
    dir.join(ulid.to_string()).join(HEADER_FILE)
}

/// Returns the inode of a regular file; `None` if there is none.
pub(super) fn inode(file: &Path) -> Option<u64> {
    file.symlink_metadata()
        .ok()
        .filter(std::fs::Metadata::is_file)
        .map(|metadata| metadata.ino())
}

/// Returns the blocks with an index header, sorted: while thanos runs, those that it has loaded.
///
/// # Errors
/// As [`ids`].
pub(super) fn headers(dir: &Path) -> io::Result<Vec<Ulid>> {
    let mut ids = ids(dir)?;
    ids.retain(|ulid| inode(&header(dir, *ulid)).is_some());
    Ok(ids)
}
