//! Keeps the index headers of the previous window, so that going back to it downloads none again.
//!
//! Thanos deletes the block folders outside its window as soon as it has loaded the window, and a
//! header costs several requests to the object store. So before each start the launcher links the
//! headers that are there into [`KEPT_DIR`], and links those of the coming window back.
//!
//! Invariants:
//! - thanos starts whatever happens here, and whatever it finds: it ignores folders not named by a
//!   ULID, downloads a header that it cannot read, and replaces a file instead of writing into it;
//! - kept are the headers of the last window and of the current one, which thanos has both while it
//!   changes windows: keeping never needs more room than that, only for longer;
//! - a file appears and disappears in one system call, so each moment is a good one to crash;
//! - one error (no hard links, another owner, a read-only or full disk) ends the keeping of this
//!   start, and nothing else.
//!
//! Deliberately absent: copies, and the `meta.json` files, which thanos caches itself.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::data_dir::{self, META_DIR};
use crate::core::agent::loading::candidates::CandidateRange;
use crate::core::agent::loading::meta::{BlockRange, Ulid};
use crate::core::model::window::Window;

/// In thanos' data directory; one file per block, named by its ULID.
pub(super) const KEPT_DIR: &str = "timeshard-kept";
/// Kept headers take at most this part of the free space: 1 / 2. Checked with each list of blocks
/// that the sidecar requests.
const MAX_OF_FREE: u64 = 2;

/// A start that is about to happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct ComingStart {
    pub(super) window: Window,
    /// Whether thanos had another window before.
    pub(super) changed: bool,
    pub(super) unix_seconds: i64,
}

/// The data directory right before a start.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// Blocks with an index header, sorted.
    pub(super) present: Vec<Ulid>,
    /// Of these, the ones that were linked back.
    pub(super) restored: usize,
    /// Why nothing, or not everything, is kept.
    pub(super) problem: Option<String>,
}

/// Keeps the headers that are there and brings back those of the coming window.
///
/// # Errors
/// The data directory cannot be listed; nothing was changed.
pub(super) fn prepare(dir: &Path, start: ComingStart, stop: &AtomicBool) -> io::Result<Prepared> {
    let mut prepared = Prepared {
        present: data_dir::headers(dir)?,
        ..Prepared::default()
    };
    if let Err(error) = keep_and_restore(dir, start, stop, &mut prepared) {
        prepared.problem = Some(error.to_string());
    }
    prepared.present.sort_unstable();
    Ok(prepared)
}

fn keep_and_restore(
    dir: &Path,
    start: ComingStart,
    stop: &AtomicBool,
    prepared: &mut Prepared,
) -> io::Result<()> {
    let kept_dir = dir.join(KEPT_DIR);
    if prepared.present.is_empty() && !kept_dir.is_dir() {
        return Ok(());
    }
    make_dir(&kept_dir)?;
    let mut kept = kept(&kept_dir)?;
    // What leaves makes room before anything is added.
    let spare: Vec<Ulid> = kept
        .keys()
        .filter(|ulid| prepared.present.binary_search(ulid).is_err())
        .copied()
        .collect();
    let metas = dir.join(META_DIR);
    let window = CandidateRange::of(start.window, start.unix_seconds).widened();
    let mut wanted = Vec::new();
    for ulid in spare {
        go_on(stop)?;
        match data_dir::range(&metas, ulid) {
            Some((min, max)) if window.holds(BlockRange { ulid, min, max }) => wanted.push(ulid),
            // The window is the one that it left: it may still go back.
            Some(_) if !start.changed => {}
            _ => {
                remove(&kept_dir, ulid)?;
                kept.remove(&ulid);
            }
        }
    }
    for ulid in &prepared.present {
        go_on(stop)?;
        let header = data_dir::header(dir, *ulid);
        let inode = data_dir::inode(&header);
        if kept.get(ulid).copied() != inode {
            if kept.contains_key(ulid) {
                remove(&kept_dir, *ulid)?;
            }
            link(&header, &file(&kept_dir, *ulid))?;
        }
    }
    for ulid in wanted {
        go_on(stop)?;
        make_dir(&dir.join(ulid.to_string()))?;
        link(&file(&kept_dir, ulid), &data_dir::header(dir, ulid))?;
        prepared.present.push(ulid);
        prepared.restored += 1;
    }
    Ok(())
}

/// Drops kept headers of blocks that are not in the bucket any more. `bucket` is sorted.
pub(super) fn drop_vanished(dir: &Path, bucket: &[BlockRange]) {
    let kept_dir = dir.join(KEPT_DIR);
    let Ok(kept) = kept(&kept_dir) else { return };
    for ulid in kept.into_keys() {
        if bucket
            .binary_search_by_key(&ulid, |block| block.ulid)
            .is_err()
        {
            // The next start, or the next list, tries again.
            let _ = remove(&kept_dir, ulid);
        }
    }
}

/// Drops all kept headers.
pub(super) fn drop_all(dir: &Path) {
    // Does not follow a link. Best effort: what remains is dropped the next time.
    let _ = fs::remove_dir_all(dir.join(KEPT_DIR));
}

/// Returns whether the headers that only this directory has take too much of the disk.
pub(super) fn takes_too_much(dir: &Path) -> bool {
    let kept_dir = dir.join(KEPT_DIR);
    let Ok(ids) = data_dir::ids(&kept_dir) else {
        return false;
    };
    let own = ids.into_iter().filter_map(|ulid| {
        let metadata = file(&kept_dir, ulid).symlink_metadata().ok()?;
        (metadata.nlink() == 1).then_some(metadata.len())
    });
    let own: u64 = own.sum();
    rustix::fs::statvfs(&kept_dir)
        .is_ok_and(|disk| own > disk.f_bavail.saturating_mul(disk.f_frsize) / MAX_OF_FREE)
}

/// Returns the kept headers and their inodes.
fn kept(kept_dir: &Path) -> io::Result<BTreeMap<Ulid, u64>> {
    let ids = data_dir::ids(kept_dir)?;
    let inode = |ulid: Ulid| Some((ulid, data_dir::inode(&file(kept_dir, ulid))?));
    Ok(ids.into_iter().filter_map(inode).collect())
}

fn file(kept_dir: &Path, ulid: Ulid) -> PathBuf {
    kept_dir.join(ulid.to_string())
}

/// Makes a directory unless it is there; a link to one does not count.
fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if dir.symlink_metadata()?.is_dir() {
                Ok(())
            } else {
                Err(named(dir, &io::Error::other("it is not a directory")))
            }
        }
        made => made.map_err(|error| named(dir, &error)),
    }
}

/// Links a file; one that is there already stays.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        // Thanos, or an earlier start, was faster; or thanos deleted the block.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
            ) =>
        {
            Ok(())
        }
        linked => linked.map_err(|error| named(to, &error)),
    }
}

fn remove(kept_dir: &Path, ulid: Ulid) -> io::Result<()> {
    let file = file(kept_dir, ulid);
    match fs::remove_file(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|error| named(&file, &error)),
    }
}

fn go_on(stop: &AtomicBool) -> io::Result<()> {
    if stop.load(Ordering::Relaxed) {
        Err(io::Error::other("it took too long"))
    } else {
        Ok(())
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
