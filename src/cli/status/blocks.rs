//! What `timeshard status` says of blocks that are not loaded: a line for each fact, none where all is well.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::core::report::{BlockReport, PodReport, SetReport};

/// Blocks of one kind that are listed.
const MAX_BLOCKS: usize = 5;
/// Pods that are named in one line.
const MAX_PODS: usize = 4;
/// Characters of a pod's reason that are shown.
const MAX_REASON: usize = 120;

/// Lines for the head of a StatefulSet's table.
pub(super) fn lines(set: &SetReport) -> Vec<String> {
    if set.not_asked > 0 {
        return Vec::new();
    }
    let blocks = &set.blocks;
    let mut lines = list(
        "BLOCK: no confirmed pod has loaded",
        &blocks.unserved,
        blocks.unserved_total,
    );
    lines.extend(list(
        "block served, but not by every pod:",
        &blocks.missing,
        blocks.missing_total,
    ));
    lines.extend(outside(blocks.outside_windows, blocks.bucket_total));
    lines.extend(unknown(set));
    lines
}

/// A line for each of the first blocks, the last of them with the number of further ones.
fn list(title: &str, named: &[BlockReport], total: u32) -> Vec<String> {
    let mut lines: Vec<String> = named
        .iter()
        .take(MAX_BLOCKS)
        .map(|block| format!("  {title} {}", one(block)))
        .collect();
    let more = usize::try_from(total)
        .unwrap_or(usize::MAX)
        .saturating_sub(lines.len());
    match lines.last_mut() {
        Some(last) if more > 0 => last.push_str(&format!(", and {more} more ({total} in all)")),
        None if total > 0 => lines.push(format!("  {title} {total} blocks")),
        _ => {}
    }
    lines
}

fn one(block: &BlockReport) -> String {
    let since = DateTime::<Utc>::from_timestamp(block.since_unix_seconds, 0)
        .filter(|_| block.since_unix_seconds > 0)
        .map_or_else(String::new, |since| {
            format!(
                ", since {}",
                since.to_rfc3339_opts(SecondsFormat::Secs, true)
            )
        });
    let pods = if block.missing_on.is_empty() {
        String::new()
    } else {
        format!(", missing on {}", first(&block.missing_on, MAX_PODS))
    };
    format!(
        "{} ({} .. {}){since}{pods}",
        block.ulid, block.from, block.to
    )
}

/// Blocks that the configured windows leave out on purpose or by mistake.
fn outside(outside: Option<u64>, bucket: Option<u64>) -> Option<String> {
    let outside = outside.filter(|outside| *outside > 0)?;
    let of = bucket.map_or_else(String::new, |bucket| format!(" of {bucket}"));
    Some(format!(
        "  blocks outside every window: {outside}{of} in the bucket; no query finds their samples (retention)"
    ))
}

fn unknown(set: &SetReport) -> Option<String> {
    let pods: Vec<&PodReport> = set
        .pods
        .iter()
        .filter(|pod| pod.blocks_unknown.is_some())
        .collect();
    let total = pods
        .len()
        .max(usize::try_from(set.blocks.unknown_pods).unwrap_or(usize::MAX));
    if total == 0 {
        return None;
    }
    let names: Vec<String> = pods.iter().map(|pod| pod.pod.clone()).collect();
    let why = pods
        .first()
        .and_then(|pod| pod.blocks_unknown.as_deref())
        .map_or_else(String::new, |why| {
            let why: String = why.chars().take(MAX_REASON).collect();
            format!(" ({why})")
        });
    let plural = if total == 1 { "" } else { "s" };
    let which = if names.is_empty() {
        String::new()
    } else {
        format!(": {}{why}", first(&names, MAX_PODS))
    };
    Some(format!(
        "  loaded blocks are not known for {total} pod{plural}{which}"
    ))
}

fn first(all: &[String], most: usize) -> String {
    let more = all.len().saturating_sub(most);
    let names = all
        .iter()
        .take(most)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        format!("{names} and {more} more")
    } else {
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::report::BlocksReport;

    fn block(ulid: &str, pods: &[&str]) -> BlockReport {
        BlockReport {
            ulid: ulid.to_owned(),
            from: "2026-01-01T00:00:00Z".to_owned(),
            to: "2026-01-03T00:00:00Z".to_owned(),
            missing_on: pods.iter().map(|pod| (*pod).to_owned()).collect(),
            served_by: 0,
            since_unix_seconds: 1_795_262_400,
        }
    }

    #[test]
    fn nothing_is_said_where_all_is_well_or_not_known_yet() {
        assert_eq!(lines(&SetReport::default()), Vec::<String>::new());
        let blocks = BlocksReport {
            unserved_total: 1,
            unserved: vec![block("X", &[])],
            ..BlocksReport::default()
        };
        assert_eq!(
            lines(&SetReport {
                not_asked: 1,
                blocks,
                ..SetReport::default()
            }),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_fact_has_a_line() {
        let blocks = BlocksReport {
            unserved_total: 9,
            unserved: (0..7)
                .map(|i| block(&format!("X{i}"), &["store-2", "store-3"]))
                .collect(),
            missing_total: 1,
            missing: vec![block(
                "Y",
                &["store-0", "store-1", "store-2", "store-3", "store-4"],
            )],
            outside_windows: Some(14),
            bucket_total: Some(511),
            unknown_pods: 2,
            ..BlocksReport::default()
        };
        let lines = lines(&SetReport {
            blocks,
            ..SetReport::default()
        });
        let (from, to) = ("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z");
        assert_eq!(lines.len(), MAX_BLOCKS + 3);
        assert_eq!(
            lines[4],
            format!(
                "  BLOCK: no confirmed pod has loaded X4 ({from} .. {to}), since 2026-11-21T12:00:00Z, missing on store-2, store-3, and 4 more (9 in all)"
            )
        );
        assert!(
            lines[5].ends_with("missing on store-0, store-1, store-2, store-3 and 1 more"),
            "{}",
            lines[5]
        );
        assert_eq!(
            lines[6],
            "  blocks outside every window: 14 of 511 in the bucket; no query finds their samples (retention)"
        );
        assert_eq!(lines[7], "  loaded blocks are not known for 2 pods");
    }
}
