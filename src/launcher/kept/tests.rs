//! Real directories: named cases, and random sequences of starts, syncs and crashes against a model
//! of what thanos does with its data directory.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;
use crate::launcher::data_dir::{HEADER_FILE, META_FILE, headers};
use crate::testing::cases;

const DAY: i64 = 86_400;
/// 2026-11-26.
const NOW: i64 = 1_795_651_200;

struct DataDir(tempfile::TempDir);

impl DataDir {
    /// One block per day, the youngest a day old.
    fn new(days: i64) -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        for age in 1..=days {
            let meta = dir.path().join(META_DIR).join(ulid(age).to_string());
            fs::create_dir_all(&meta).unwrap();
            let max = (NOW - age * DAY) * 1000;
            // Not up to the edges of windows, which are whole days ago.
            let range = format!(
                "\"minTime\": {}, \"maxTime\": {}",
                max - DAY * 750,
                max - DAY * 250
            );
            let text = format!("{{\"ulid\": \"{}\", {range}, \"x\": 1}}", ulid(age));
            fs::write(meta.join(META_FILE), text).unwrap();
        }
        dir
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn header(&self, age: i64) -> PathBuf {
        data_dir::header(self.path(), ulid(age))
    }

    fn download(&self, age: i64) {
        let folder = self.path().join(ulid(age).to_string());
        fs::create_dir_all(&folder).unwrap();
        // As thanos: a new file in place of any old one.
        fs::write(folder.join("index-header.tmp"), age.to_string()).unwrap();
        fs::rename(folder.join("index-header.tmp"), folder.join(HEADER_FILE)).unwrap();
    }

    fn start(&self, days: (i64, i64), changed: bool) -> Prepared {
        let start = ComingStart {
            window: window(days),
            changed,
            unix_seconds: NOW,
        };
        prepare(self.path(), start, &AtomicBool::new(false)).unwrap()
    }

    /// Thanos loads its window and deletes all other folders; returns how many it downloaded.
    fn load(&self, days: (i64, i64), of: &BTreeSet<i64>) -> usize {
        let wanted: Vec<i64> = (days.1..days.0).filter(|age| of.contains(age)).collect();
        let missing: Vec<i64> = wanted
            .iter()
            .filter(|age| !self.header(**age).exists())
            .copied()
            .collect();
        for age in &missing {
            self.download(*age);
        }
        for ulid in data_dir::ids(self.path()).unwrap() {
            if !wanted.iter().any(|age| self::ulid(*age) == ulid) {
                fs::remove_dir_all(self.path().join(ulid.to_string())).unwrap();
            }
        }
        missing.len()
    }

    fn kept(&self) -> usize {
        kept(&self.path().join(KEPT_DIR)).map_or(0, |kept| kept.len())
    }
}

fn ulid(age: i64) -> Ulid {
    Ulid::parse(&format!("01K1H8R100000000000000{age:04}")).unwrap()
}

fn window((oldest, newest): (i64, i64)) -> Window {
    Window {
        min: format!("-{oldest}d").parse().unwrap(),
        max: format!("-{newest}d").parse().unwrap(),
    }
}

fn all(days: i64) -> BTreeSet<i64> {
    (1..=days).collect()
}

#[test]
fn a_rollback_downloads_nothing() {
    let dir = DataDir::new(30);
    let start = |days, changed| {
        let prepared = dir.start(days, changed);
        (
            prepared.restored,
            dir.load(days, &all(30)),
            prepared.problem,
        )
    };
    assert_eq!(start((30, 15), true), (0, 15, None));
    assert_eq!(start((20, 5), true), (0, 10, None));
    assert_eq!(start((30, 15), true), (10, 0, None));
    assert_eq!(start((20, 5), true), (10, 0, None));
    // A crash of thanos in between changes nothing.
    assert_eq!(start((20, 5), false), (0, 0, None));
    assert_eq!(start((30, 15), true), (10, 0, None));
    // Only the last window and the coming one are kept.
    assert_eq!(start((4, 1), true), (0, 3, None));
    assert_eq!(dir.kept(), 15);
    assert_eq!(start((7, 4), true), (0, 3, None));
    assert_eq!(dir.kept(), 3);
}

#[test]
fn kept_headers_take_no_room_of_their_own() {
    let dir = DataDir::new(4);
    dir.load((5, 2), &all(4));
    dir.start((5, 2), true);
    let links = |path: &Path| path.metadata().unwrap().nlink();
    assert_eq!(links(&dir.header(3)), 2);
    // A header that thanos has made again replaces the kept one.
    dir.download(3);
    dir.start((5, 2), false);
    assert_eq!(links(&dir.header(3)), 2);
    assert_eq!(dir.kept(), 3);
    assert!(!takes_too_much(dir.path()));
    // A sparse file: larger than any disk, and without blocks.
    let kept = dir.path().join(KEPT_DIR).join(ulid(9).to_string());
    let large = fs::File::create(kept).unwrap();
    if large.set_len(1 << 43).is_ok() {
        assert!(takes_too_much(dir.path()));
    }
}

#[test]
fn what_left_the_bucket_or_is_old_is_dropped() {
    let dir = DataDir::new(9);
    dir.load((10, 6), &all(9));
    dir.start((4, 1), true);
    dir.load((4, 1), &all(9));
    assert_eq!(dir.kept(), 4);
    let bucket: Vec<BlockRange> = [8, 9]
        .map(|age| BlockRange {
            ulid: ulid(age),
            min: 0,
            max: 1,
        })
        .to_vec();
    drop_vanished(dir.path(), &bucket);
    assert_eq!(dir.kept(), 2);
    // One of them is gone before the next start.
    fs::remove_dir_all(dir.path().join(META_DIR).join(ulid(9).to_string())).unwrap();
    assert_eq!(dir.start((10, 6), true).restored, 1);
    drop_all(dir.path());
    assert!(!dir.path().join(KEPT_DIR).exists());
    drop_vanished(dir.path(), &bucket);
}

#[test]
fn an_odd_directory_keeps_nothing_and_stops_nothing() {
    let fresh = || {
        let dir = DataDir::new(9);
        dir.load((9, 5), &all(9));
        dir
    };
    let problem = |dir: &DataDir| dir.start((4, 0), true).problem.unwrap_or_default();
    let dir = fresh();
    fs::write(dir.path().join(KEPT_DIR), "a file").unwrap();
    assert!(problem(&dir).contains("not a directory"));
    let (dir, elsewhere) = (fresh(), tempfile::tempdir().unwrap());
    symlink(elsewhere.path(), dir.path().join(KEPT_DIR)).unwrap();
    assert!(problem(&dir).contains("not a directory"));
    drop_all(dir.path());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);

    // Neither a link nor a folder is kept or brought back as a header.
    let dir = fresh();
    dir.start((4, 0), true);
    let kept_dir = dir.path().join(KEPT_DIR);
    fs::create_dir(kept_dir.join(ulid(3).to_string())).unwrap();
    symlink("/dev/zero", kept_dir.join(ulid(2).to_string())).unwrap();
    fs::write(kept_dir.join("a file"), "x").unwrap();
    dir.load((4, 3), &all(9));
    // Block 3 was loaded by thanos meanwhile; the folder in its place cannot be replaced.
    assert_eq!(dir.start((3, 0), true).restored, 0);
    // A file where thanos has a folder.
    let dir = fresh();
    dir.start((4, 0), true);
    dir.load((4, 0), &all(9));
    fs::write(dir.path().join(ulid(7).to_string()), "a file").unwrap();
    let problem = dir.start((9, 5), true).problem.unwrap();
    assert!(problem.contains("not a directory"), "{problem}");

    assert!(
        prepare(
            &dir.path().join("gone"),
            ComingStart {
                window: window((1, 0)),
                changed: true,
                unix_seconds: NOW
            },
            &AtomicBool::new(false)
        )
        .is_err()
    );
    let dir = fresh();
    let stopped = prepare(
        dir.path(),
        ComingStart {
            window: window((4, 0)),
            changed: true,
            unix_seconds: NOW,
        },
        &AtomicBool::new(true),
    );
    assert_eq!(
        stopped.unwrap().problem.as_deref(),
        Some("it took too long")
    );
}

#[test]
fn a_read_only_directory_keeps_nothing() {
    let dir = DataDir::new(4);
    dir.load((5, 0), &all(4));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let prepared = dir.start((2, 0), true);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Permissions do not bind root.
    assert_eq!(
        prepared.problem.is_none(),
        rustix::process::geteuid().is_root()
    );
    assert_eq!(prepared.present.len(), 4);
}

#[derive(Clone, Debug)]
enum Happening {
    /// A start with this window; the launcher may be killed while it prepares.
    Start { days: (i64, i64), killed: bool },
    /// The block leaves the bucket.
    Vanish(i64),
    /// The list that a sync causes.
    Tend,
}

fn happening() -> impl Strategy<Value = Happening> {
    let days = (0_i64..12, 1_i64..8).prop_map(|(newest, length)| (newest + length, newest));
    prop_oneof![
        6 => (days, prop::bool::weighted(0.2))
            .prop_map(|(days, killed)| Happening::Start { days, killed }),
        1 => (1_i64..20).prop_map(Happening::Vanish),
        1 => Just(Happening::Tend),
    ]
}

proptest! {
    #![proptest_config(cases(64))]

    /// Whatever happens: headers are what thanos wrote, kept are at most the two last windows, and a
    /// return to the last window downloads nothing.
    #[test]
    fn any_history_is_safe(happenings in prop::collection::vec(happening(), 1..12)) {
        let dir = DataDir::new(20);
        let mut bucket = all(20);
        let (mut now, mut before) = ((0, 0), (0, 0));
        for happening in happenings {
            match happening {
                Happening::Vanish(age) => {
                    bucket.remove(&age);
                    let meta = dir.path().join(META_DIR).join(ulid(age).to_string());
                    let _ = fs::remove_dir_all(meta);
                }
                Happening::Tend => {
                    let blocks: Vec<BlockRange> = bucket
                        .iter()
                        .map(|age| BlockRange { ulid: ulid(*age), min: 0, max: 1 })
                        .collect();
                    let mut blocks = blocks;
                    blocks.sort_by_key(|block| block.ulid);
                    drop_vanished(dir.path(), &blocks);
                }
                Happening::Start { days, killed } => {
                    let changed = days != now;
                    if killed {
                        // As a kill between two system calls: the first removal or link is done.
                        let stop = AtomicBool::new(true);
                        let start = ComingStart { window: window(days), changed, unix_seconds: NOW };
                        prepare(dir.path(), start, &stop).unwrap();
                    }
                    let prepared = dir.start(days, changed);
                    prop_assert_eq!(&prepared.problem, &None);
                    let downloads = dir.load(days, &bucket);
                    if days == before {
                        prop_assert_eq!(downloads, 0);
                    }
                    if changed {
                        (before, now) = (now, days);
                    }
                    let most = (now.0 - now.1) + (before.0 - before.1);
                    prop_assert!(dir.kept() <= usize::try_from(most).unwrap());
                    for found in headers(dir.path()).unwrap() {
                        let text = fs::read_to_string(data_dir::header(dir.path(), found)).unwrap();
                        prop_assert_eq!(ulid(text.parse().unwrap()), found);
                    }
                }
            }
        }
    }
}
