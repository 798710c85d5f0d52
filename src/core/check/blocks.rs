//! Whether every block of the bucket within the retention is loaded by a confirmed pod, as the
//! leader reports.
//!
//! Readiness and the right flags do not show that: thanos skips a block that it cannot load and
//! serves the rest.

use super::Report;
use super::api::listed;
use super::ids::{BUCKET_OUTSIDE, ROLLOUT_BLOCKS};
use crate::core::model::text;
use crate::core::rollout::report::{BlockReport, PodReport, SetReport};

/// In percent of the bucket: up to so many blocks outside every window are probably waiting for the
/// compactor to delete them.
const EXPECTED_OUTSIDE_PERCENT: u64 = 5;
/// How many pods a block is listed with.
const MAX_PODS: usize = 3;

pub(super) fn check(title: &str, set: &SetReport, report: &mut Report) {
    if set.replicas == 0 {
        return report.skip(&ROLLOUT_BLOCKS, title, "it has 0 replicas");
    }
    if set.not_asked > 0 {
        let message = format!(
            "the leader has not polled {} of its sidecars yet",
            set.not_asked
        );
        return report.skip(&ROLLOUT_BLOCKS, title, message);
    }
    loaded(title, set, report);
    outside(title, set, report);
}

fn loaded(title: &str, set: &SetReport, report: &mut Report) {
    let (check, blocks) = (&ROLLOUT_BLOCKS, &set.blocks);
    let before = report.findings.len();
    if blocks.unserved_total > 0 {
        let message = format!(
            "no confirmed pod has loaded {}, so queries over their range succeed with missing samples: {}",
            text::counted(blocks.unserved_total, "block"),
            named(&blocks.unserved)
        );
        let hint = "see thanos' log of the pods whose windows contain the block (index missing or unreadable in the bucket?); thanos retries \
                    at each sync";
        report.fail(check, title, message, hint);
    }
    if blocks.missing_total > 0 {
        let message = format!(
            "{} missing on some pods but served by others: {}",
            text::counted(blocks.missing_total, "block"),
            named(&blocks.missing)
        );
        report.warn(
            check,
            title,
            message,
            "rollouts wait for them; see thanos' log of these pods",
        );
    }
    let pods = || set.pods.iter().filter(|pod| pod.blocks_unknown.is_some());
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
            "loaded blocks are unknown, and count as complete, for {}",
            listed(&unknown, ", ")
        );
        report.skip(check, title, message);
    } else if blocks.known_pods == 0 {
        report.skip(
            check,
            title,
            "no pod reports its loaded blocks (agent or server of an earlier version?)",
        );
    }
    if report.findings.len() == before {
        report.pass(
            check,
            title,
            format!(
                "every block within the retention is loaded, as {} reported",
                text::counted(blocks.known_pods, "pod")
            ),
        );
    }
}

fn outside(title: &str, set: &SetReport, report: &mut Report) {
    let check = &BUCKET_OUTSIDE;
    let Some(outside) = set.blocks.outside_windows else {
        return report.skip(
            check,
            title,
            "no pod reports how many blocks the bucket has",
        );
    };
    let total = set.blocks.bucket_total.unwrap_or(outside);
    let message = format!("{outside} of {total} blocks of the bucket are outside every window");
    if outside.saturating_mul(100) > total.saturating_mul(EXPECTED_OUTSIDE_PERCENT) {
        let hint =
            "raise retention to the bucket's if these blocks are needed; otherwise ignore this";
        return report.warn(
            check,
            title,
            format!("{message}: queries do not find their samples"),
            hint,
        );
    }
    report.pass(check, title, message);
}

fn named(blocks: &[BlockReport]) -> String {
    let one = |block: &BlockReport| {
        let pods = if block.missing_on.is_empty() {
            String::new()
        } else {
            format!(" not on {}", text::listed(&block.missing_on, MAX_PODS))
        };
        format!("{} ({} .. {}){pods}", block.ulid, block.from, block.to)
    };
    listed(&blocks.iter().map(one).collect::<Vec<_>>(), "; ")
}
