//! Narrows the blocks without an index header to those that thanos could not load.
//!
//! A block of the window has no index header because its load failed or because thanos filtered it:
//! a compacted block replaced it, its labels are excluded, it is marked for deletion or too fresh.
//! Naming too many blocks is safe, naming too few is not, so a candidate is dropped only while at
//! least as many remain as are missing:
//! - first those that had no index header when thanos had loaded everything it wanted (the launcher
//!   remembers them);
//! - then duplicates: a loaded block, or another candidate, has all their samples.
//!
//! A block whose sources are all loaded is always dropped: its samples are served.

use std::collections::BTreeSet;

use super::meta::{BlockMeta, BlockRange, Ulid};

/// The number of candidates examined in detail; a longer list is kept as it is.
pub const MAX_CANDIDATES: usize = 1024;

/// Reads details of blocks, within its own limits.
pub trait Metas {
    /// Returns `None` if the details cannot be read.
    fn meta(&mut self, ulid: Ulid) -> Option<BlockMeta>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowed {
    /// Blocks that may be missing.
    pub candidates: Vec<BlockRange>,
    /// Blocks that thanos counts as missing, dropped because all their sources are loaded.
    pub covered: u64,
}

/// Drops the candidates that thanos does not lack. `loaded` are the blocks of the window with an
/// index header, `remembered` those that thanos filtered before, `missing` is how many blocks
/// thanos lacks by its own counts.
pub fn narrow(
    mut candidates: Vec<BlockRange>,
    loaded: &[BlockRange],
    remembered: &BTreeSet<Ulid>,
    missing: u64,
    metas: &mut impl Metas,
) -> Narrowed {
    let missing = usize::try_from(missing).unwrap_or(usize::MAX);
    let filtered = candidates
        .iter()
        .filter(|block| remembered.contains(&block.ulid))
        .count();
    if candidates.len() - filtered >= missing {
        candidates.retain(|block| !remembered.contains(&block.ulid));
    }
    if candidates.is_empty() || candidates.len() > MAX_CANDIDATES {
        return Narrowed {
            candidates,
            covered: 0,
        };
    }
    let details: Vec<(BlockRange, Option<BlockMeta>)> = candidates
        .iter()
        .map(|block| (*block, metas.meta(block.ulid)))
        .collect();
    let mut kept = Vec::with_capacity(candidates.len());
    let (mut covered, mut left) = (0, candidates.len());
    for (block, meta) in &details {
        let Some(meta) = meta.as_ref().filter(|meta| !meta.sources.is_empty()) else {
            kept.push(*block);
            continue;
        };
        let around: Vec<BlockMeta> = loaded
            .iter()
            .filter(|other| overlap(other, block))
            .filter_map(|other| metas.meta(other.ulid))
            .collect();
        // Thanos itself filters a block that one loaded block replaces. It counts a block as
        // missing only if several loaded blocks replace it together.
        if around.iter().any(|other| other.covers(meta)) {
            left -= 1;
            continue;
        }
        let held: BTreeSet<Ulid> = around
            .iter()
            .filter(|other| other.group == meta.group)
            .flat_map(|other| other.sources.clone())
            .collect();
        if meta.sources.iter().all(|source| held.contains(source)) {
            covered += 1;
            left -= 1;
            continue;
        }
        let replaces = |(other, details): &(BlockRange, Option<BlockMeta>)| {
            let more = |details: &BlockMeta| {
                let (theirs, ours) = (details.sources.len(), meta.sources.len());
                theirs > ours || (theirs == ours && other.ulid < block.ulid)
            };
            other.ulid != block.ulid
                && details
                    .as_ref()
                    .is_some_and(|details| details.covers(meta) && more(details))
        };
        if left > missing && details.iter().any(replaces) {
            left -= 1;
            continue;
        }
        kept.push(*block);
    }
    Narrowed {
        candidates: kept,
        covered,
    }
}

const fn overlap(one: &BlockRange, other: &BlockRange) -> bool {
    one.max >= other.min && one.min <= other.max
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn ulid(n: u8) -> Ulid {
        Ulid::parse(&format!("01K1H8R1000000000000A1B2{n:02}")).unwrap()
    }

    struct Fake(BTreeMap<Ulid, BlockMeta>, u32);

    impl Metas for Fake {
        fn meta(&mut self, ulid: Ulid) -> Option<BlockMeta> {
            self.1 += 1;
            self.0.get(&ulid).cloned()
        }
    }

    /// Number, hours, sources, group.
    type Given<'a> = (u8, (i64, i64), &'a [u8], &'a str);

    fn bucket(blocks: &[Given<'_>]) -> (Fake, impl Fn(&[u8]) -> Vec<BlockRange>) {
        let metas = blocks.iter().map(|(n, range, sources, group)| {
            let mut sources: Vec<Ulid> = sources.iter().map(|source| ulid(*source)).collect();
            sources.sort_unstable();
            (
                ulid(*n),
                BlockMeta {
                    range: *range,
                    sources,
                    group: (*group).to_owned(),
                },
            )
        });
        let metas: BTreeMap<Ulid, BlockMeta> = metas.collect();
        let ranges: BTreeMap<Ulid, (i64, i64)> = metas
            .iter()
            .map(|(ulid, meta)| (*ulid, meta.range))
            .collect();
        let of = move |numbers: &[u8]| {
            let block = |n: &u8| {
                let (min, max) = ranges[&ulid(*n)];
                BlockRange {
                    ulid: ulid(*n),
                    min,
                    max,
                }
            };
            numbers.iter().map(block).collect::<Vec<_>>()
        };
        (Fake(metas, 0), of)
    }

    fn numbers(narrowed: &Narrowed) -> Vec<u8> {
        (0..100)
            .filter(|n| {
                narrowed
                    .candidates
                    .iter()
                    .any(|block| block.ulid == ulid(*n))
            })
            .collect()
    }

    /// 9 was compacted from 1 and 2, which are still in the bucket; 3 has the same source as 1, but
    /// other labels.
    #[test]
    fn a_compaction_whose_result_cannot_be_loaded_names_the_result() {
        let (mut metas, of) = bucket(&[
            (1, (0, 10), &[1], "a"),
            (2, (10, 20), &[2], "a"),
            (3, (0, 10), &[1], "b"),
            (4, (20, 30), &[4], "a"),
            (9, (0, 20), &[1, 2], "a"),
        ]);
        let none = BTreeSet::new();
        let narrowed = narrow(of(&[1, 2, 9]), &of(&[3, 4]), &none, 1, &mut metas);
        assert_eq!((numbers(&narrowed), narrowed.covered), (vec![9], 0));
        // Never fewer than thanos lacks by its own counts.
        assert_eq!(
            numbers(&narrow(of(&[1, 2, 9]), &of(&[3, 4]), &none, 3, &mut metas)),
            [1, 2, 9]
        );
        // While the sources are loaded, nothing is missing.
        let narrowed = narrow(of(&[9]), &of(&[1, 2, 3, 4]), &none, 1, &mut metas);
        assert_eq!((numbers(&narrowed), narrowed.covered), (vec![], 1));
        assert_eq!(
            numbers(&narrow(of(&[9]), &of(&[2, 3, 4]), &none, 1, &mut metas)),
            [9]
        );
        // The result is loaded: its sources are filtered, whatever the counts say.
        let narrowed = narrow(of(&[1, 2]), &of(&[9, 4]), &none, 0, &mut metas);
        assert_eq!((numbers(&narrowed), narrowed.covered), (vec![], 0));
    }

    #[test]
    fn what_thanos_filtered_before_is_dropped_while_enough_remain() {
        let (mut metas, of) = bucket(&[
            (1, (0, 10), &[1], "a"),
            (2, (10, 20), &[2], "a"),
            (3, (20, 30), &[3], "a"),
        ]);
        let remembered = BTreeSet::from([ulid(1), ulid(3)]);
        assert_eq!(
            numbers(&narrow(of(&[1, 2, 3]), &[], &remembered, 1, &mut metas)),
            [2]
        );
        assert_eq!(
            numbers(&narrow(of(&[1, 2, 3]), &[], &remembered, 2, &mut metas)),
            [1, 2, 3]
        );
        metas.1 = 0;
        let many: Vec<BlockRange> = (0..=MAX_CANDIDATES)
            .map(|_| BlockRange {
                ulid: ulid(50),
                min: 0,
                max: 0,
            })
            .collect();
        assert_eq!(
            narrow(many.clone(), &[], &remembered, 1, &mut metas).candidates,
            many
        );
        assert_eq!(metas.1, 0, "nothing is read beyond the limit");
        // Of two blocks with equal sources thanos keeps the one with the smaller id.
        let (mut metas, of) = bucket(&[(1, (0, 10), &[7], "a"), (2, (0, 10), &[7], "a")]);
        assert_eq!(
            numbers(&narrow(of(&[1, 2]), &[], &BTreeSet::new(), 1, &mut metas)),
            [1]
        );
    }
}
