//! Lists the blocks in thanos' data directory when the sidecar requests it.
//!
//! Invariants: a separate thread reads the disk, one list at a time, so that a hanging disk delays
//! neither a signal nor the end of thanos; without a request nothing happens. A block's time range
//! is read once and then remembered (blocks are immutable), so that a list of ten thousand blocks
//! costs one directory and one `stat` for each block of the window.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tokio::sync::oneshot;

use super::data_dir::{self, META_DIR, details};
use super::kept;
use crate::core::agent::handoff::{BlockList, Inspect};
use crate::core::agent::loaded::MAX_MISSING;
use crate::core::agent::loading::args;
use crate::core::agent::loading::candidates::{self, CandidateRange};
use crate::core::agent::loading::meta::{BlockMeta, BlockRange, Ulid};
use crate::core::agent::loading::narrow::{Metas, Narrowed, narrow};
use crate::core::model::names::CONTRACT;

/// The limit of complete `meta.json` files read for one list.
const MAX_DETAILS: usize = 4096;
/// A younger block may be too fresh for thanos now and wanted tomorrow, so its absence is not
/// remembered. Milliseconds.
const SETTLED_MILLIS: i64 = 48 * 3600 * 1000;
/// Enough to parse JSON; a node may run many launchers.
const STACK_BYTES: usize = 512 * 1024;

/// Kept from one list to the next.
#[derive(Debug, Default)]
struct InspectorMemory {
    /// Sorted by id.
    blocks: Vec<BlockRange>,
    /// Blocks of the window that thanos did not load although it lacked none.
    filtered: BTreeSet<Ulid>,
}

#[derive(Debug)]
pub(super) struct Inspector {
    dir: Result<PathBuf, &'static str>,
    memory: Option<InspectorMemory>,
    running: Option<oneshot::Receiver<(BlockList, InspectorMemory)>>,
    /// Launch and number of the last request.
    last: Option<(u64, u64)>,
}

impl Inspector {
    pub(super) fn new(args: &[OsString]) -> Self {
        Self {
            dir: args::data_dir(args),
            memory: Some(InspectorMemory::default()),
            running: None,
            last: None,
        }
    }

    /// Begins a list if the request is new and about this start of thanos. `drop_kept`: no window
    /// change is recent enough to be taken back.
    pub(super) fn start(&mut self, request: Option<Inspect>, launch: u64, drop_kept: bool) {
        let Some(request) = request.filter(|request| {
            request.launch == launch && self.last != Some((request.launch, request.number))
        }) else {
            return;
        };
        let Some(mut memory) = self.memory.take() else {
            // A list is being made; the request is read again when it ends.
            return;
        };
        self.last = Some((request.launch, request.number));
        let (send, receive) = oneshot::channel();
        let dir = self.dir.clone();
        let list = move || {
            let list = dir
                .map_err(str::to_owned)
                .and_then(|dir| {
                    let list = list(&request, &dir, &mut memory)?;
                    if drop_kept || kept::takes_too_much(&dir) {
                        kept::drop_all(&dir);
                    } else {
                        kept::drop_vanished(&dir, &memory.blocks);
                    }
                    Ok(list)
                })
                .unwrap_or_else(|why| unknown(&request, why));
            // The launcher may be gone.
            let _ = send.send((list, memory));
        };
        match std::thread::Builder::new()
            .name("inspect".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(list)
        {
            Ok(_) => self.running = Some(receive),
            // Out of processes; the next request tries again.
            Err(_) => self.memory = Some(InspectorMemory::default()),
        }
    }

    /// Returns the next list; never resolves while none is being made.
    pub(super) async fn done(&mut self) -> BlockList {
        loop {
            let Some(running) = &mut self.running else {
                return std::future::pending().await;
            };
            let done = running.await;
            self.running = None;
            match done {
                Ok((list, memory)) => {
                    self.memory = Some(memory);
                    return list;
                }
                Err(_) => self.memory = Some(InspectorMemory::default()),
            }
        }
    }
}

fn unknown(request: &Inspect, why: String) -> BlockList {
    BlockList {
        contract: CONTRACT,
        number: request.number,
        launch: request.launch,
        unknown: Some(why),
        ..BlockList::default()
    }
}

fn list(request: &Inspect, dir: &Path, memory: &mut InspectorMemory) -> Result<BlockList, String> {
    let metas = dir.join(META_DIR);
    let ids = data_dir::ids(&metas).map_err(|error| {
        format!(
            "thanos' data directory cannot be listed: {}: {error}",
            metas.display()
        )
    })?;
    refresh(&mut memory.blocks, &ids, &metas);
    let range = CandidateRange::of(request.window, request.synced_unix_seconds);
    let split = |range: CandidateRange| -> (Vec<BlockRange>, Vec<BlockRange>) {
        memory
            .blocks
            .iter()
            .filter(|block| range.holds(**block))
            .partition(|block| data_dir::inode(&data_dir::header(dir, block.ulid)).is_some())
    };
    let (loaded, mut candidates) = split(range);
    if (candidates.len() as u64) < request.missing {
        candidates = split(range.widened()).1;
    }
    let mut found = if request.missing == 0 {
        let settled = request
            .synced_unix_seconds
            .saturating_mul(1000)
            .saturating_sub(SETTLED_MILLIS);
        memory.filtered = candidates
            .iter()
            .map(|block| block.ulid)
            .filter(|ulid| ulid.millis() < settled)
            .collect();
        Narrowed::default()
    } else {
        narrow(
            candidates,
            &loaded,
            &memory.filtered,
            request.missing,
            &mut Details {
                dir: metas,
                known: BTreeMap::new(),
            },
        )
    };
    found
        .candidates
        .sort_unstable_by_key(|block| Reverse((block.max, block.ulid)));
    Ok(BlockList {
        contract: CONTRACT,
        number: request.number,
        launch: request.launch,
        unknown: None,
        bucket: candidates::count(&memory.blocks, range),
        candidates_total: found.candidates.len() as u64,
        candidates: found
            .candidates
            .iter()
            .take(MAX_MISSING)
            .map(|block| block.to_ref())
            .collect(),
        covered: found.covered,
    })
}

/// Updates the remembered blocks to `ids`; only new ones are read. A block without a readable
/// `meta.json` is no block to thanos either.
fn refresh(blocks: &mut Vec<BlockRange>, ids: &[Ulid], metas: &Path) {
    let before = std::mem::replace(blocks, Vec::with_capacity(ids.len()));
    let mut before = before.into_iter().peekable();
    for ulid in ids {
        while before.next_if(|block| block.ulid < *ulid).is_some() {}
        let known = before.next_if(|block| block.ulid == *ulid);
        blocks.extend(known.or_else(|| {
            data_dir::range(metas, *ulid).map(|(min, max)| BlockRange {
                ulid: *ulid,
                min,
                max,
            })
        }));
    }
}

/// Details of blocks, each read at most once per list.
struct Details {
    dir: PathBuf,
    known: BTreeMap<Ulid, Option<BlockMeta>>,
}

impl Metas for Details {
    fn meta(&mut self, ulid: Ulid) -> Option<BlockMeta> {
        if self.known.len() >= MAX_DETAILS && !self.known.contains_key(&ulid) {
            return None;
        }
        self.known
            .entry(ulid)
            .or_insert_with(|| details(&self.dir, ulid))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::data_dir::{HEADER_FILE, META_FILE};
    use super::*;
    use crate::core::agent::loading::meta::MAX_META_BYTES;
    use rustix::fs::Mode;
    use std::fs;
    use std::os::unix::fs::symlink;

    const DAY: i64 = 86_400_000;
    /// 2026-11-26.
    const NOW: i64 = 1_795_651_200;

    struct Bucket(tempfile::TempDir);

    impl Bucket {
        fn new() -> Self {
            let bucket = Self(tempfile::tempdir().unwrap());
            fs::create_dir(bucket.0.path().join(META_DIR)).unwrap();
            bucket
        }

        /// A block made `age` days ago, of the day before that.
        fn block(&self, age: i64, sources: &[i64]) -> String {
            let (name, max) = (name(age), NOW * 1000 - age * DAY);
            let sources: Vec<String> = sources.iter().map(|age| self::name(*age)).collect();
            let meta = serde_json::json!({"compaction": {"sources": sources}, "thanos": {"labels": {"a": "b"}, "downsample": {"resolution": 0}}});
            let text = format!(
                "{{\n\t\"ulid\": \"{name}\",\n\t\"minTime\": {},\n\t\"maxTime\": {max},\n\t{}",
                max - DAY,
                &meta.to_string()[1..]
            );
            let dir = self.0.path().join(META_DIR).join(&name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(META_FILE), text).unwrap();
            name
        }

        fn load(&self, name: &str) {
            fs::create_dir_all(self.0.path().join(name)).unwrap();
            fs::write(self.0.path().join(name).join(HEADER_FILE), "x").unwrap();
        }

        fn list(&self, missing: u64, memory: &mut InspectorMemory) -> Result<BlockList, String> {
            let window = crate::core::model::window::Window {
                min: "-10d".parse().unwrap(),
                max: "-1d".parse().unwrap(),
            };
            let request = Inspect {
                contract: 2,
                number: 1,
                launch: 1,
                window,
                synced_unix_seconds: NOW,
                missing,
            };
            list(&request, self.0.path(), memory)
        }
    }

    fn name(age: i64) -> String {
        // Only the time of a ULID matters here.
        let millis = u128::try_from(NOW * 1000 - age * DAY).unwrap();
        let digits = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        (0..26)
            .rev()
            .map(|at| char::from(digits[((millis << 80 | 0xabc) >> (5 * at) & 31) as usize]))
            .collect()
    }

    fn names(list: &BlockList) -> Vec<&str> {
        list.candidates
            .iter()
            .map(|block| block.ulid.as_str())
            .collect()
    }

    #[test]
    fn a_block_of_the_window_without_an_index_header_is_named() {
        let (bucket, mut memory) = (Bucket::new(), InspectorMemory::default());
        for age in 0..15 {
            let name = bucket.block(age, &[age]);
            if age != 4 {
                bucket.load(&name);
            }
        }
        let list = bucket.list(1, &mut memory).unwrap();
        assert_eq!(names(&list), [name(4)]);
        assert_eq!(
            (list.bucket.total, list.bucket.older, list.bucket.newer),
            (15, 4, 0)
        );
        bucket.load(&name(4));
        assert_eq!(
            names(&bucket.list(1, &mut memory).unwrap()),
            [] as [&str; 0]
        );
        fs::remove_dir_all(bucket.0.path().join(META_DIR).join(name(14))).unwrap();
        assert_eq!(bucket.list(0, &mut memory).unwrap().bucket.total, 14);
    }

    #[test]
    fn what_thanos_filtered_while_it_lacked_nothing_is_not_named_later() {
        let (bucket, mut memory) = (Bucket::new(), InspectorMemory::default());
        bucket.block(3, &[3]);
        // Too fresh to be remembered.
        bucket.block(1, &[1]);
        bucket.list(0, &mut memory).unwrap();
        bucket.block(5, &[5]);
        assert_eq!(
            names(&bucket.list(2, &mut memory).unwrap()),
            [name(1), name(5)]
        );
        assert_eq!(
            names(&bucket.list(3, &mut memory).unwrap()),
            [name(1), name(3), name(5)]
        );
    }

    #[test]
    fn other_files_neither_block_nor_count() {
        let (bucket, mut memory) = (Bucket::new(), InspectorMemory::default());
        bucket.block(2, &[2]);
        let metas = bucket.0.path().join(META_DIR);
        let odd = |age: i64| {
            let dir = metas.join(name(age));
            fs::create_dir(&dir).unwrap();
            dir.join(META_FILE)
        };
        rustix::fs::mknodat(
            rustix::fs::CWD,
            odd(3),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        symlink("/dev/zero", odd(4)).unwrap();
        symlink(META_FILE, odd(5)).unwrap();
        fs::create_dir(odd(6)).unwrap();
        fs::write(odd(7), vec![b'{'; 3 * MAX_META_BYTES]).unwrap();
        fs::write(odd(8), "{}").unwrap();
        fs::write(metas.join("meta.json"), "{}").unwrap();
        fs::write(metas.join(name(9)), "a file").unwrap();
        let list = bucket.list(1, &mut memory).unwrap();
        assert_eq!(
            (names(&list), list.bucket.total),
            (vec![name(2).as_str()], 1)
        );
        fs::remove_dir_all(&metas).unwrap();
        assert!(
            bucket
                .list(1, &mut memory)
                .unwrap_err()
                .contains("cannot be listed")
        );
    }

    #[test]
    fn many_are_counted_and_the_newest_are_named() {
        let (bucket, mut memory) = (Bucket::new(), InspectorMemory::default());
        for n in 0..300 {
            let name = Ulid::parse(&bucket.block(2, &[2])).unwrap().to_string();
            let metas = bucket.0.path().join(META_DIR);
            fs::rename(
                metas.join(&name),
                metas.join(format!("{}{n:06}", &name[..20])),
            )
            .unwrap();
        }
        let list = bucket.list(300, &mut memory).unwrap();
        assert_eq!(
            (list.candidates_total, list.candidates.len()),
            (300, MAX_MISSING)
        );
        assert!(list.candidates[0].ulid.ends_with("000299"));
    }
}
