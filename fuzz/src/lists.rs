//! Output of Thanos: lists of blocks, `meta.json`, `/metrics`, lists of stores; arguments of queriers.

use std::collections::BTreeMap;

use thanos_timeshard::core::agent::loading::meta::{BlockMeta, BlockRange, Ulid, range_at_front};
use thanos_timeshard::core::agent::loading::reading::{MAX_LINE_BYTES, Parser};
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::plan::Plan;
use thanos_timeshard::core::plan::bucket::{
    Balance, Inventory, Reader, ShardShares, Unreadable, Weights, suggest,
};
use thanos_timeshard::core::thanos::query::{asks_set, read_arguments};
use thanos_timeshard::core::thanos::stores::{StoreStatus, StoresError, StoresReader};

use crate::{now, text};

fn read(pieces: &[&[u8]]) -> Result<Inventory, Unreadable> {
    let mut reader = Reader::default();
    pieces.iter().try_for_each(|piece| reader.push(piece))?;
    reader.finish()
}

/// A list of blocks: the same in any pieces (the first two bytes are the cut), or refused with a place
/// within it.
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
        // The first mistake that is found is reported, which depends on the pieces.
        (Err(whole), Err(cut)) => [whole, cut]
            .into_iter()
            .for_each(|wrong| is_reported(wrong, list)),
        _ => panic!(
            "whole: {:?}, cut: {:?}",
            whole.as_ref().err(),
            cut.as_ref().err()
        ),
    }
}

fn is_reported(wrong: &Unreadable, list: &[u8]) {
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

/// Checks shares and better boundaries.
fn uses(inventory: &Inventory) {
    let config = Config::default();
    let plan = Plan::new(&config.sharding, Some(6));
    let shares = ShardShares::new(inventory, &plan, now());
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

/// thanos' `/metrics`: the same in any pieces.
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
    // A line in one piece is read at any length.
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

/// A block's `meta.json`: a range at its front is the range of the document, and a ULID reads back as
/// written.
pub fn block_meta(input: &[u8]) {
    let front = range_at_front(input);
    if let Some(meta) = BlockMeta::parse(input) {
        assert!(front.is_none_or(|front| front == meta.range));
        assert!(meta.sources.is_sorted() && meta.covers(&meta));
        for ulid in meta.sources {
            assert_eq!(Ulid::parse(&ulid.to_string()), Some(ulid));
            let range = BlockRange {
                ulid,
                min: meta.range.0,
                max: meta.range.1,
            }
            .to_ref();
            let written = serde_json::to_string(&range).expect("plain data");
            assert_eq!(
                serde_json::from_str::<thanos_timeshard::core::agent::loaded::BlockRef>(&written)
                    .expect(&written),
                range
            );
        }
    }
}

/// A querier's list of stores: the same in any pieces (the first two bytes are the cut), and nothing
/// that is kept of it is longer than the answer.
pub fn querier_stores(input: &[u8]) {
    let Some((cut, answer)) = input.split_first_chunk::<2>() else {
        return;
    };
    let cut = usize::from(u16::from_le_bytes(*cut)).min(answer.len());
    let (head, tail) = answer.split_at(cut);
    let read = |pieces: &[&[u8]]| {
        let mut reader = StoresReader::default();
        pieces.iter().try_for_each(|piece| reader.push(piece))?;
        let stores = reader.finish()?.0;
        let owned = |store: StoreStatus<'_>| (store.name.into_owned(), store.error);
        Ok::<_, StoresError>(stores.into_iter().map(owned).collect::<Vec<_>>())
    };
    let whole = read(&[answer]);
    assert_eq!(whole, read(&[head, tail]));
    if let Ok(stores) = whole {
        let kept: usize = stores.iter().map(|(name, _)| name.len()).sum();
        assert!(kept <= answer.len() && stores.len() <= answer.len());
        assert!(
            stores
                .iter()
                .all(|(_, error)| error.is_none_or(|fault| fault.0.len() < 30))
        );
    }
}

/// Arguments of `thanos query`, one a line: what is asked is a plain path, whatever they say.
pub fn querier_arguments(input: &[u8]) {
    let Some(input) = text(input) else { return };
    let args: Vec<&str> = input.lines().take(200).collect();
    let read = read_arguments(&args);
    assert!(read.endpoints.len() <= args.len() && read.endpoints.len() <= 16);
    if let Some(prefix) = &read.prefix {
        let path = format!("http://10.0.0.1:10902{prefix}/api/v1/stores");
        assert!(
            path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains(['?', '#', '%'])
        );
    }
    let _ = asks_set(&read, ("a", "b"), &BTreeMap::new(), |_| true);
}
