//! What thanos writes: lists of blocks, `meta.json`, `/metrics`.

use thanos_timeshard::core::blocks::{
    Balance, Inventory, Reader, Shares, Unreadable, Weights, suggest,
};
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::loading::meta::{Block, Meta, Ulid, range_at_front};
use thanos_timeshard::core::loading::reading::{MAX_LINE_BYTES, Parser};
use thanos_timeshard::core::plan::Plan;

use crate::now;

fn read(pieces: &[&[u8]]) -> Result<Inventory, Unreadable> {
    let mut reader = Reader::default();
    pieces.iter().try_for_each(|piece| reader.push(piece))?;
    reader.finish()
}

/// A list of blocks: the same however it is cut into pieces (the first two bytes say where), refused with a place within it.
pub fn block_list(input: &[u8]) {
    let Some((cut, list)) = input.split_first_chunk::<2>() else {
        return;
    };
    let (head, tail) = list.split_at(usize::from(u16::from_le_bytes(*cut)).min(list.len()));
    let whole = read(&[list]);
    let cut = read(&[head, tail]);
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => {
            assert_eq!(whole.blocks(), cut.blocks());
            uses(whole);
        }
        // Of a wrong list the mistake that is seen first is told, so pieces may tell another one.
        (Err(whole), Err(cut)) => [whole, cut]
            .into_iter()
            .for_each(|wrong| is_told(wrong, list)),
        _ => panic!(
            "whole: {:?}, cut: {:?}",
            whole.as_ref().err(),
            cut.as_ref().err()
        ),
    }
}

fn is_told(wrong: &Unreadable, list: &[u8]) {
    let why = &wrong.why;
    assert!(
        !why.is_empty()
            && why.len() <= 4_000
            && !why.contains(char::is_control)
            && !why.contains("EOF"),
        "{wrong:?}"
    );
    let lines: Vec<&[u8]> = list.split(|byte| *byte == b'\n').collect();
    let longest = lines.iter().map(|line| line.len()).max().unwrap_or(0) as u64;
    assert!(
        (1..=lines.len() as u64 + 1).contains(&wrong.line)
            && (1..=longest + 1).contains(&wrong.column),
        "{wrong}"
    );
}

/// Shares and better boundaries are found for any blocks.
fn uses(inventory: &Inventory) {
    let config = Config::default();
    let plan = Plan::new(&config.sharding, Some(6));
    let shares = Shares::new(inventory, &plan, now());
    let blocks = inventory.blocks().len() as u64;
    assert_eq!(
        shares.loaded.blocks + shares.older.blocks + shares.future.blocks,
        blocks
    );
    let weights = Weights::new(
        inventory,
        Balance {
            measure: inventory.best_measure(),
            half_life: None,
        },
        &plan,
        now(),
    );
    if let Ok(better) = suggest(&config, &plan, inventory, &weights, now()) {
        assert!(weights.heaviest(&Plan::new(&better.sharding, Some(6))) < weights.heaviest(&plan));
    }
}

/// thanos' `/metrics`: the same however it is cut into pieces.
pub fn thanos_metrics(input: &[u8]) {
    let Some((cut, text)) = input.split_first_chunk::<2>() else {
        return;
    };
    let (head, tail) = text.split_at(usize::from(u16::from_le_bytes(*cut)).min(text.len()));
    let read = |pieces: &[&[u8]]| {
        let mut parser = Parser::default();
        pieces.iter().for_each(|piece| parser.push(piece));
        parser.finish(0)
    };
    let whole = read(&[text]);
    // A line that came in one piece is read at any length.
    if text
        .split(|byte| *byte == b'\n')
        .all(|line| line.len() <= MAX_LINE_BYTES)
    {
        assert_eq!(whole, read(&[head, tail]));
    }
    match whole {
        Ok(reading) => {
            let _ = (reading.missing(), reading.is_idle(), reading.good_syncs());
        }
        Err(why) => assert!(why.starts_with("/metrics has no "), "{why}"),
    }
}

/// A block's `meta.json`: a range at its front is the range of the whole document, and a ULID is written as it was read.
pub fn block_meta(input: &[u8]) {
    let front = range_at_front(input);
    if let Some(meta) = Meta::parse(input) {
        assert!(front.is_none_or(|front| front == meta.range));
        assert!(meta.sources.is_sorted() && meta.covers(&meta));
        for ulid in meta.sources {
            assert_eq!(Ulid::parse(&ulid.to_string()), Some(ulid));
            let told = Block {
                ulid,
                min: meta.range.0,
                max: meta.range.1,
            }
            .to_ref();
            let written = serde_json::to_string(&told).expect("plain data");
            assert_eq!(
                serde_json::from_str::<thanos_timeshard::core::loaded::BlockRef>(&written)
                    .expect(&written),
                told
            );
        }
    }
}
