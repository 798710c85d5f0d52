//! Lists the blocks in thanos' data directory, when the sidecar asks.
//!
//! Invariants: the disk is read on a thread of its own, one list at a time, so that a disk that hangs delays neither a signal
//! nor the end of thanos; nothing happens without a wish. A block's time range is read once and then remembered (blocks are
//! immutable), so that a list of ten thousand blocks costs one directory and one `stat` for each block of the window.
//! What lies in the directory is not trusted: only small regular files are read, links are not followed, and everything has
//! a limit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tokio::sync::oneshot;

use crate::core::loaded::MAX_MISSING;
use crate::core::loading::args;
use crate::core::loading::candidates::{self, Range};
use crate::core::loading::meta::{self, Block, MAX_META_BYTES, Meta, PREFIX_BYTES, Ulid};
use crate::core::loading::narrow::{Metas, Narrowed, narrow};
use crate::core::names::CONTRACT;
use crate::core::shared_files::{BlockList, Inspect};

/// Beyond this many names in thanos' cache of `meta.json` files nothing is told.
const MAX_BLOCKS: usize = 200_000;
/// So many `meta.json` files are read as a whole for one list.
const MAX_DETAILS: usize = 4096;
/// A block that is younger may be too fresh for thanos now and wanted tomorrow, so its absence is not remembered. Milliseconds.
const SETTLED_MILLIS: i64 = 48 * 3600 * 1000;
/// Thanos' cache of the `meta.json` of every block in the bucket.
const META_DIR: &str = "meta-syncer";
const META_FILE: &str = "meta.json";
const HEADER_FILE: &str = "index-header";
/// Enough for reading JSON; there may be many launchers on a node. Bytes.
const STACK_BYTES: usize = 512 * 1024;

/// What one list leaves for the next.
#[derive(Debug, Default)]
struct Memory {
    /// Sorted by id.
    blocks: Vec<Block>,
    /// Blocks of the window that thanos does not load though it lacks nothing.
    filtered: BTreeSet<Ulid>,
}

/// Lists on request.
#[derive(Debug)]
pub(super) struct Inspector {
    dir: Result<PathBuf, &'static str>,
    memory: Option<Memory>,
    running: Option<oneshot::Receiver<(BlockList, Memory)>>,
    /// Launch and number of the last wish.
    last: Option<(u64, u64)>,
}

impl Inspector {
    /// For a thanos with these arguments.
    pub(super) fn new(args: &[OsString]) -> Self {
        Self {
            dir: args::data_dir(args),
            memory: Some(Memory::default()),
            running: None,
            last: None,
        }
    }

    /// Begins a list if the wish is a new one and about this start of thanos.
    pub(super) fn start(&mut self, wish: Option<Inspect>, launch: u64) {
        let Some(wish) = wish
            .filter(|wish| wish.launch == launch && self.last != Some((wish.launch, wish.number)))
        else {
            return;
        };
        let Some(mut memory) = self.memory.take() else {
            // A list is being made; its end brings the next look at the wish.
            return;
        };
        self.last = Some((wish.launch, wish.number));
        let (send, receive) = oneshot::channel();
        let dir = self.dir.clone();
        let list = move || {
            let list = dir
                .map_err(str::to_owned)
                .and_then(|dir| list(&wish, &dir, &mut memory))
                .unwrap_or_else(|why| unknown(&wish, why));
            // The launcher may be gone.
            let _ = send.send((list, memory));
        };
        match std::thread::Builder::new()
            .name("inspect".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(list)
        {
            Ok(_) => self.running = Some(receive),
            // Out of processes; the next wish tries again.
            Err(_) => self.memory = Some(Memory::default()),
        }
    }

    /// The next list; never while none is being made.
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
                Err(_) => self.memory = Some(Memory::default()),
            }
        }
    }
}

fn unknown(wish: &Inspect, why: String) -> BlockList {
    BlockList {
        contract: CONTRACT,
        number: wish.number,
        launch: wish.launch,
        unknown: Some(why),
        ..BlockList::default()
    }
}

fn list(wish: &Inspect, dir: &Path, memory: &mut Memory) -> Result<BlockList, String> {
    let metas = dir.join(META_DIR);
    let ids = ids(&metas)?;
    refresh(&mut memory.blocks, &ids, &metas);
    let range = Range::of(wish.window, wish.synced_unix_seconds);
    let split = |range: Range| -> (Vec<Block>, Vec<Block>) {
        memory
            .blocks
            .iter()
            .filter(|block| range.holds(**block))
            .partition(|block| has_header(dir, block.ulid))
    };
    let (loaded, mut candidates) = split(range);
    if (candidates.len() as u64) < wish.missing {
        candidates = split(range.widened()).1;
    }
    let mut found = if wish.missing == 0 {
        let settled = wish
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
            wish.missing,
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
        number: wish.number,
        launch: wish.launch,
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

/// The blocks that thanos' cache names, sorted.
fn ids(metas: &Path) -> Result<Vec<Ulid>, String> {
    let cannot = |error: io::Error| {
        format!(
            "thanos' data directory cannot be listed: {}: {error}",
            metas.display()
        )
    };
    let mut ids = Vec::new();
    for (seen, entry) in std::fs::read_dir(metas).map_err(cannot)?.enumerate() {
        if seen >= MAX_BLOCKS {
            return Err(format!(
                "{} has more than {MAX_BLOCKS} entries",
                metas.display()
            ));
        }
        ids.extend(
            entry
                .map_err(cannot)?
                .file_name()
                .to_str()
                .and_then(Ulid::parse),
        );
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Brings the remembered blocks to what `ids` says; only new ones are read. What has no readable `meta.json` is no block to
/// thanos either.
fn refresh(blocks: &mut Vec<Block>, ids: &[Ulid], metas: &Path) {
    let before = std::mem::replace(blocks, Vec::with_capacity(ids.len()));
    let mut before = before.into_iter().peekable();
    for ulid in ids {
        while before.next_if(|block| block.ulid < *ulid).is_some() {}
        let known = before.next_if(|block| block.ulid == *ulid);
        blocks.extend(known.or_else(|| {
            range(metas, *ulid).map(|(min, max)| Block {
                ulid: *ulid,
                min,
                max,
            })
        }));
    }
}

fn range(metas: &Path, ulid: Ulid) -> Option<(i64, i64)> {
    let mut file = open(metas, ulid)?;
    let mut prefix = [0; PREFIX_BYTES];
    let read = file.read(&mut prefix).ok()?;
    meta::range_at_front(&prefix[..read]).or_else(|| details(metas, ulid).map(|meta| meta.range))
}

fn details(metas: &Path, ulid: Ulid) -> Option<Meta> {
    let mut bytes = Vec::new();
    open(metas, ulid)?
        .take(MAX_META_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .ok()?;
    (bytes.len() <= MAX_META_BYTES).then(|| Meta::parse(&bytes))?
}

/// Opens a block's `meta.json`, if it is a regular file; a pipe or a device could block, and a link could lead anywhere.
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

fn has_header(dir: &Path, ulid: Ulid) -> bool {
    dir.join(ulid.to_string())
        .join(HEADER_FILE)
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.is_file())
}

/// Details of blocks, each read once for a list.
struct Details {
    dir: PathBuf,
    known: BTreeMap<Ulid, Option<Meta>>,
}

impl Metas for Details {
    fn meta(&mut self, ulid: Ulid) -> Option<Meta> {
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
    use super::*;
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

        fn list(&self, missing: u64, memory: &mut Memory) -> Result<BlockList, String> {
            let window = crate::core::window::Window {
                min: "-10d".parse().unwrap(),
                max: "-1d".parse().unwrap(),
            };
            let wish = Inspect {
                contract: 2,
                number: 1,
                launch: 1,
                window,
                synced_unix_seconds: NOW,
                missing,
            };
            list(&wish, self.0.path(), memory)
        }
    }

    fn name(age: i64) -> String {
        // The time is all that matters of a ULID here.
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
        let (bucket, mut memory) = (Bucket::new(), Memory::default());
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
        let (bucket, mut memory) = (Bucket::new(), Memory::default());
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
    fn what_is_no_block_neither_blocks_nor_counts() {
        let (bucket, mut memory) = (Bucket::new(), Memory::default());
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
        let (bucket, mut memory) = (Bucket::new(), Memory::default());
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
