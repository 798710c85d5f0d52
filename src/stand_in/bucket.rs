//! The stand-in's bucket store: a folder of `<ULID>.json` files as bucket, loaded into a data
//! directory as thanos does it.
//!
//! Each file is the block's `meta.json`. A block cannot be loaded while `<ULID>.broken` exists next
//! to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::adapters::clock;
use crate::core::agent::loading::candidates::CandidateRange;
use crate::core::agent::loading::meta::{BlockMeta, BlockRange, Ulid};
use crate::core::model::window::Window;

/// Finding duplicates compares every block with every other; with more blocks they are not
/// searched.
const MAX_COMPARED: usize = 1000;

/// The loaded blocks, and the counts that thanos reports.
#[derive(Debug, Default)]
pub(super) struct StandInBucket {
    dir: PathBuf,
    data: PathBuf,
    loaded: Vec<Ulid>,
    expected: usize,
    syncs: u64,
    loads: u64,
    failures: u64,
}

impl StandInBucket {
    pub(super) fn new(dir: &Path, data: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            data: data.to_owned(),
            ..Self::default()
        }
    }

    /// Syncs immediately. Ignores errors of the disk.
    pub(super) fn sync(&mut self, window: Window) {
        self.syncs += 1;
        let range = CandidateRange::of(window, clock::unix_seconds());
        let metas = self.metas();
        let mut wanted: Vec<(Ulid, &BlockMeta)> =
            metas.iter().map(|(ulid, meta)| (*ulid, meta)).collect();
        wanted.retain(|(ulid, meta)| {
            range.holds(BlockRange {
                ulid: *ulid,
                min: meta.range.0,
                max: meta.range.1,
            })
        });
        if wanted.len() <= MAX_COMPARED {
            let all = wanted.clone();
            wanted.retain(|(ulid, meta)| {
                !all.iter()
                    .any(|(other, theirs)| replaces((*other, theirs), (*ulid, meta)))
            });
        }
        self.expected = wanted.len();
        for (ulid, _) in &wanted {
            if self.loaded.contains(ulid) {
                continue;
            }
            self.loads += 1;
            let folder = self.data.join(ulid.to_string());
            if self.dir.join(format!("{ulid}.broken")).exists() {
                self.failures += 1;
                let _ = fs::remove_dir_all(folder);
            } else {
                let _ = fs::create_dir_all(&folder)
                    .and_then(|()| fs::write(folder.join("index-header"), "stand-in"));
                self.loaded.push(*ulid);
            }
        }
        let gone: Vec<Ulid> = self
            .loaded
            .iter()
            .copied()
            .filter(|ulid| wanted.iter().all(|(other, _)| other != ulid))
            .collect();
        for ulid in gone {
            self.loaded.retain(|other| *other != ulid);
            let _ = fs::remove_dir_all(self.data.join(ulid.to_string()));
        }
        self.clean_up();
    }

    /// Deletes folders of blocks that are not loaded, as thanos does after its first sync.
    fn clean_up(&self) {
        for entry in fs::read_dir(&self.data).into_iter().flatten().flatten() {
            let block = entry.file_name().to_str().and_then(Ulid::parse);
            if block.is_some_and(|block| !self.loaded.contains(&block)) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Reads the bucket and keeps thanos' cache of it.
    fn metas(&self) -> BTreeMap<Ulid, BlockMeta> {
        let cache = self.data.join("meta-syncer");
        let _ = fs::create_dir_all(&cache);
        let mut metas = BTreeMap::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(ulid) = name
                .to_str()
                .and_then(|name| Ulid::parse(name.strip_suffix(".json")?))
            else {
                continue;
            };
            let Ok(bytes) = fs::read(entry.path()) else {
                continue;
            };
            let Some(meta) = BlockMeta::parse(&bytes) else {
                continue;
            };
            let folder = cache.join(ulid.to_string());
            if !folder.exists() {
                let _ = fs::create_dir_all(&folder)
                    .and_then(|()| fs::write(folder.join("meta.json"), bytes));
            }
            metas.insert(ulid, meta);
        }
        for entry in fs::read_dir(&cache).into_iter().flatten().flatten() {
            if entry
                .file_name()
                .to_str()
                .and_then(Ulid::parse)
                .is_some_and(|ulid| !metas.contains_key(&ulid))
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        metas
    }

    /// The body of `/metrics`.
    pub(super) fn metrics(&self, other_series: u32) -> String {
        let mut text = "# stand-in\n".to_owned();
        for n in 0..other_series {
            let _ = writeln!(
                text,
                "thanos_objstore_bucket_operation_duration_seconds_bucket{{bucket=\"x\",operation=\"get_range\",le=\"{n}\"}} {n}"
            );
        }
        let loaded = self.loads - self.failures;
        for (name, value) in [
            (
                "thanos_blocks_meta_synced{state=\"loaded\"}",
                self.expected as u64,
            ),
            (
                "thanos_bucket_store_blocks_loaded",
                self.loaded.len() as u64,
            ),
            ("thanos_blocks_meta_syncs_total", self.syncs),
            ("thanos_blocks_meta_sync_duration_seconds_count", self.syncs),
            ("thanos_blocks_meta_sync_failures_total", 0),
            ("thanos_bucket_store_block_loads_total", self.loads),
            (
                "thanos_bucket_store_block_load_failures_total",
                self.failures,
            ),
            (
                "thanos_bucket_store_block_load_duration_seconds_count",
                loaded,
            ),
        ] {
            // Writing into a String does not fail.
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }
}

/// Whether thanos would drop `block` as a duplicate of `other`.
fn replaces((other, theirs): (Ulid, &BlockMeta), (block, ours): (Ulid, &BlockMeta)) -> bool {
    let more = theirs.sources.len() > ours.sources.len()
        || (theirs.sources.len() == ours.sources.len() && other < block);
    other != block && more && theirs.covers(ours)
}
