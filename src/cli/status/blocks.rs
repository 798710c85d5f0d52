//! Lines of `timeshard status` about blocks that are not loaded; none if all are.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::core::model::text::{counted, listed, truncate};
use crate::core::rollout::report::{BlockReport, PodReport, SetReport};

/// How many blocks of one kind are listed.
const MAX_BLOCKS: usize = 5;
/// How many pods one line names.
const MAX_PODS: usize = 4;
/// In characters, for a pod's reason.
pub(super) const MAX_REASON: usize = 120;

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
        "block not served by every pod:",
        &blocks.missing,
        blocks.missing_total,
    ));
    lines.extend(outside(blocks.outside_windows, blocks.bucket_total));
    lines.extend(unknown(set));
    lines
}

/// Lists the first blocks; the last line counts the rest.
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
        format!(", missing on {}", listed(&block.missing_on, MAX_PODS))
    };
    format!(
        "{} ({} .. {}){since}{pods}",
        block.ulid, block.from, block.to
    )
}

/// Counts blocks outside the configured windows, intended or not.
fn outside(outside: Option<u64>, bucket: Option<u64>) -> Option<String> {
    let outside = outside.filter(|outside| *outside > 0)?;
    let of = bucket.map_or_else(String::new, |bucket| format!(" of {bucket}"));
    Some(format!(
        "  blocks outside every window: {outside}{of} in the bucket; queries do not find their samples (retention)"
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
            format!(" ({})", truncate(why, MAX_REASON))
        });
    let which = if names.is_empty() {
        String::new()
    } else {
        format!(": {}{why}", listed(&names, MAX_PODS))
    };
    Some(format!(
        "  loaded blocks are unknown for {}{which}",
        counted(total, "pod")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rollout::report::BlocksReport;

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
    fn no_line_if_all_is_loaded_or_unknown() {
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
            "  blocks outside every window: 14 of 511 in the bucket; queries do not find their samples (retention)"
        );
        assert_eq!(lines[7], "  loaded blocks are unknown for 2 pods");
    }
}
