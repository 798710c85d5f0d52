//! What the leader says of blocks: whether every block of the bucket within the retention is loaded by a confirmed pod.
//!
//! Ready and the right flags do not show that: thanos skips a block that it cannot load and serves the rest.

use super::Report;
use super::api::listed;
use super::ids::{BUCKET_OUTSIDE, ROLLOUT_BLOCKS};
use crate::core::report::{BlockReport, PodReport, SetReport};
use crate::core::text;

/// Blocks outside every window up to this share of the bucket, in percent, are what a compactor has yet to delete.
const EXPECTED_OUTSIDE_PERCENT: u64 = 5;
/// Pods that are named with a block.
const MAX_PODS: usize = 3;

pub(super) fn look(title: &str, said: &SetReport, report: &mut Report) {
    if said.replicas == 0 {
        return report.skip(&ROLLOUT_BLOCKS, title, "it has 0 replicas");
    }
    if said.not_asked > 0 {
        let message = format!(
            "the leader has not asked {} of its sidecars yet",
            said.not_asked
        );
        return report.skip(&ROLLOUT_BLOCKS, title, message);
    }
    loaded(title, said, report);
    outside(title, said, report);
}

fn loaded(title: &str, said: &SetReport, report: &mut Report) {
    let (check, blocks) = (&ROLLOUT_BLOCKS, &said.blocks);
    let before = report.findings.len();
    if blocks.unserved_total > 0 {
        let message = format!(
            "no confirmed pod has loaded {}, so queries over their time lack samples and say success: {}",
            counted(blocks.unserved_total),
            named(&blocks.unserved)
        );
        let hint = "look at thanos' log of the pods whose windows hold the block (index missing or unreadable in the bucket?); thanos tries \
                    again at each sync";
        report.fail(check, title, message, hint);
    }
    if blocks.missing_total > 0 {
        let message = format!(
            "{} missing on some pod and served by another: {}",
            counted(blocks.missing_total),
            named(&blocks.missing)
        );
        report.warn(
            check,
            title,
            message,
            "a rollout waits for them; look at thanos' log of these pods",
        );
    }
    let pods = || said.pods.iter().filter(|pod| pod.blocks_unknown.is_some());
    let shown = |pod: &PodReport| {
        format!(
            "{} ({})",
            pod.pod,
            pod.blocks_unknown.as_deref().unwrap_or_default()
        )
    };
    let unknown: Vec<String> = pods().map(shown).collect();
    if !unknown.is_empty() {
        let message = format!(
            "loaded blocks are not known, and count as complete, for {}",
            listed(&unknown, ", ")
        );
        report.skip(check, title, message);
    } else if blocks.known_pods == 0 {
        report.skip(
            check,
            title,
            "no pod says which blocks it has loaded (an agent or a server of an earlier version?)",
        );
    }
    if report.findings.len() == before {
        report.pass(
            check,
            title,
            format!(
                "every block within the retention is loaded, as {} told",
                text::counted(blocks.known_pods, "pod")
            ),
        );
    }
}

fn outside(title: &str, said: &SetReport, report: &mut Report) {
    let check = &BUCKET_OUTSIDE;
    let Some(outside) = said.blocks.outside_windows else {
        return report.skip(check, title, "no pod says how many blocks the bucket has");
    };
    let total = said.blocks.bucket_total.unwrap_or(outside);
    let message = format!("{outside} of {total} blocks of the bucket lie outside every window");
    if outside.saturating_mul(100) > total.saturating_mul(EXPECTED_OUTSIDE_PERCENT) {
        let hint = "set retention to what the bucket keeps if these blocks are wanted; if not, nothing is wrong";
        return report.warn(
            check,
            title,
            format!("{message}: no query finds their samples"),
            hint,
        );
    }
    report.pass(check, title, message);
}

fn counted(total: u32) -> String {
    format!("{total} block{}", if total == 1 { "" } else { "s" })
}

fn named(blocks: &[BlockReport]) -> String {
    let one = |block: &BlockReport| {
        let more = block.missing_on.len().saturating_sub(MAX_PODS);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let pods = block
            .missing_on
            .iter()
            .take(MAX_PODS)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        let pods = if pods.is_empty() {
            pods
        } else {
            format!(" not on {pods}{more}")
        };
        format!("{} ({} .. {}){pods}", block.ulid, block.from, block.to)
    };
    listed(&blocks.iter().map(one).collect::<Vec<_>>(), "; ")
}
