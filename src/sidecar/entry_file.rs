//! This pod's entry in the mounted `ConfigMap`: read with limits, never trusted.
//!
//! Deliberately absent: other pods' entries. A directory that holds only those has no entry for this pod.

use std::path::Path;

use chrono::{DateTime, Utc};

use crate::adapters::files;
use crate::core::entry::{self, Entry, MAX_ENTRY_BYTES};

/// Reads the entry of `pod`; `None` if the directory holds none, an error with a sentence if it is not usable.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub(super) fn read(dir: &Path, pod: &str, now: DateTime<Utc>) -> Result<Option<Entry>, String> {
    let key = entry::key(pod);
    let bytes =
        files::read(&dir.join(&key), MAX_ENTRY_BYTES).map_err(|error| format!("{key}: {error}"))?;
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    let text =
        std::str::from_utf8(&bytes).map_err(|error| format!("{key}: it is not UTF-8: {error}"))?;
    Entry::parse(text, now)
        .map(Some)
        .map_err(|error| format!("{key}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::clock;

    #[test]
    fn only_a_good_entry_of_this_pod_counts() {
        let dir = tempfile::tempdir().unwrap();
        let read = || read(dir.path(), "store-0", clock::now());
        assert_eq!(read(), Ok(None));
        let good = "shard: 1\nreplica: 0\nmin_time: -2d\nmax_time: -1d\n";
        std::fs::write(dir.path().join("store-1.yaml"), good).unwrap();
        assert_eq!(read(), Ok(None));
        let path = dir.path().join("store-0.yaml");
        std::fs::write(&path, good).unwrap();
        assert_eq!(read().unwrap().unwrap().shard, 1);
        let large = vec![b'a'; MAX_ENTRY_BYTES + 1];
        for bad in [&b"\xff\xfe"[..], b"", b"shard: 0", &large] {
            std::fs::write(&path, bad).unwrap();
            assert!(read().unwrap_err().starts_with("store-0.yaml: "));
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(read().is_err());
        assert_eq!(
            super::read(&dir.path().join("gone"), "store-0", clock::now()),
            Ok(None)
        );
    }
}
