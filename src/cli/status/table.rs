//! Reports as text: a heading for each StatefulSet, and its pods.
//!
//! Lines never wrap: `…` truncates the last column. No colours: problems are in capitals.

use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, Width, presets};

use super::Failure;
use super::blocks;
use super::document::StatusDocument;
use super::queriers;
use super::time_left;
use crate::adapters::clock;
use crate::core::model::text::{counted, is_control, listed};
use crate::core::model::window::Window;
use crate::core::rollout::report::{PodReport, PodState, RolloutState, SetReport};

/// How many pods a table lists; beyond that, confirmed pods are only counted.
const MAX_PODS: usize = 200;
/// The minimum width of the last column.
const MIN_SENTENCE: u16 = 20;
const MAX_GAPS: usize = 5;
/// How many pods one line names.
const MAX_NAMES: usize = 5;

/// Returns a table for each StatefulSet, of this width; `None` shows every column and pod in full.
pub(super) fn text(document: &StatusDocument, columns: Option<usize>) -> Result<String, Failure> {
    let tables: Vec<String> = document
        .reports()?
        .iter()
        .map(|set| one(set, &document.head.version, columns))
        .collect();
    Ok(tables.join("\n"))
}

fn one(set: &SetReport, version: &str, columns: Option<usize>) -> String {
    if set.opted_out {
        return headline(set) + "\n";
    }
    let mut lines = vec![headline(set), format!("  {}", progress(set))];
    lines.extend(time_left::line(set));
    lines.extend(gaps(set));
    lines.extend(blocks::lines(set));
    lines.extend(queriers::lines(set, clock::unix_seconds()));
    lines.extend(
        set.warnings
            .iter()
            .map(|warning| format!("  warning: {warning}")),
    );
    lines.extend(other_agents(set, version));
    let mut text: String = lines.iter().map(|line| clean(line) + "\n").collect();
    if !set.pods.is_empty() {
        text.push_str(&pods(&set.pods, columns));
    }
    text
}

/// `namespace/name: state: message`.
pub(super) fn headline(set: &SetReport) -> String {
    let message = if set.message.is_empty() {
        String::new()
    } else {
        format!(": {}", set.message)
    };
    if set.opted_out {
        return clean(&format!("{}/{}{message}", set.namespace, set.name));
    }
    clean(&format!(
        "{}/{}: {}{message}",
        set.namespace,
        set.name,
        state(set.state)
    ))
}

const fn state(state: RolloutState) -> &'static str {
    match state {
        RolloutState::Unknown => "unknown",
        RolloutState::Settled => "settled",
        RolloutState::Rolling => "rolling",
        RolloutState::Waiting => "WAITING",
        RolloutState::Paused => "PAUSED",
        RolloutState::Blocked => "BLOCKED",
        RolloutState::Refused => "REFUSED",
    }
}

fn progress(set: &SetReport) -> String {
    if set.state == RolloutState::Unknown {
        return format!(
            "no leader has reconciled it yet, so its pods are unknown; {} replicas, ConfigMap {}",
            set.replicas, set.configmap
        );
    }
    let left = time_left::left(set);
    let least = set.minimum_ready_replicas;
    let served = if set.not_asked > 0 {
        format!(
            "coverage is unknown: {} not polled yet",
            counted(set.not_asked, "sidecar")
        )
    } else if least == 0 {
        "SOME INSTANTS ARE SERVED BY NO POD".to_owned()
    } else {
        format!(
            "every instant is served by at least {}",
            counted(least, "pod")
        )
    };
    format!(
        "{left}; {served}; {}, ConfigMap {}",
        counted(set.replicas, "replica"),
        set.configmap
    )
}

fn gaps(set: &SetReport) -> Vec<String> {
    if set.not_asked > 0 {
        return Vec::new();
    }
    let mut lines: Vec<String> = set
        .gaps
        .iter()
        .take(MAX_GAPS)
        .map(|gap| format!("  GAP: {} serves {gap}", set.unserved_by()))
        .collect();
    if let Some(last) = lines.last_mut() {
        let more = set.gaps.len().saturating_sub(MAX_GAPS);
        let more = if more > 0 {
            format!(" and {more} more ranges")
        } else {
            String::new()
        };
        last.push_str(&format!("{more} ({} in all)", age(set.gap_seconds)));
        lines.extend(set.served_unseen().map(|who| format!("  {who}")));
    }
    lines
}

fn other_agents(set: &SetReport, version: &str) -> Option<String> {
    let others: Vec<String> = set
        .pods
        .iter()
        .filter_map(|pod| Some((pod, pod.agent_version.as_ref()?)))
        .filter(|(_, agent)| agent.as_str() != version)
        .map(|(pod, agent)| {
            format!(
                "{} ({})",
                pod.pod,
                if agent.is_empty() { "unknown" } else { agent }
            )
        })
        .collect();
    (!others.is_empty())
        .then(|| format!("  agents with another version than the server's {version}, until these pods are recreated: {}", listed(&others, MAX_NAMES)))
}

/// The optional columns of a table.
#[derive(Clone, Copy)]
struct Columns {
    desired: bool,
    why: bool,
    /// Replica, blocks, agent.
    wide: bool,
}

fn pods(all: &[PodReport], columns: Option<usize>) -> String {
    let wide = columns.is_none();
    let shown: Vec<&PodReport> = all
        .iter()
        .filter(|pod| wide || all.len() <= MAX_PODS || pod.state != PodState::Confirmed)
        .take(if wide { usize::MAX } else { MAX_PODS })
        .collect();
    // Omits columns with the same value for every pod.
    let with = Columns {
        desired: wide || shown.iter().any(|pod| pod.published != Some(pod.desired)),
        why: wide || shown.iter().any(|pod| pod.why.is_some()),
        wide,
    };
    let mut header = vec!["POD", "SHARD"];
    header.extend(wide.then_some("REPLICA"));
    header.extend(["STATE", "PHASE", "PUBLISHED", "APPLIED"]);
    header.extend(with.desired.then_some("DESIRED"));
    header.extend(["AGE", "RESTARTS"]);
    header.extend(wide.then_some(["BLOCKS", "AGENT"]).into_iter().flatten());
    header.extend(with.why.then_some("WHY"));
    let mut rows = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    rows.extend(shown.iter().map(|pod| row(pod, with)));
    let rest = all.len() - shown.len();
    let more = if rest > 0 {
        format!("  … and {rest} more pods; -o wide and -o json have them all\n")
    } else {
        String::new()
    };
    let limit = columns.filter(|_| with.why);
    aligned(&rows, limit) + &more
}

fn row(pod: &PodReport, with: Columns) -> Vec<String> {
    let or_none =
        |window: Option<Window>| window.map_or("-".to_owned(), |window| window.to_string());
    let extra = if pod.surplus { " (extra)" } else { "" };
    let applied = match pod.applied {
        applied @ Some(_) if applied == pod.published => "=".to_owned(),
        applied => or_none(applied),
    };
    let unverified = if pod.applied.is_some() && !pod.verified {
        " unverified"
    } else {
        ""
    };
    let mut row = vec![pod.pod.clone(), format!("{}{extra}", pod.shard)];
    row.extend(with.wide.then(|| pod.replica.to_string()));
    row.extend([
        pod_state(pod.state).to_owned(),
        pod.phase.clone().unwrap_or_else(|| "-".to_owned()),
        or_none(pod.published),
        format!("{applied}{unverified}"),
    ]);
    if with.desired {
        row.push(if pod.published == Some(pod.desired) {
            "=".to_owned()
        } else {
            pod.desired.to_string()
        });
    }
    row.extend([age(pod.seconds_in_state), pod.restarts.to_string()]);
    if with.wide {
        let agent = pod.agent_version.as_deref().unwrap_or("-");
        row.extend([loaded_blocks(pod), agent.to_owned()]);
    }
    if with.why {
        row.push(pod.why.clone().unwrap_or_default());
    }
    row.iter().map(|cell| clean(cell)).collect()
}

/// Loaded and expected blocks.
fn loaded_blocks(pod: &PodReport) -> String {
    match (pod.blocks_expected, pod.blocks_missing) {
        (Some(expected), Some(missing)) => {
            format!("{}/{expected}", expected.saturating_sub(missing))
        }
        _ => "-".to_owned(),
    }
}

pub(super) const fn pod_state(state: PodState) -> &'static str {
    match state {
        PodState::Absent => "absent",
        PodState::NotInjected => "not injected",
        PodState::Terminating => "terminating",
        PodState::Unreachable => "UNREACHABLE",
        PodState::Settling => "settling",
        PodState::Joining => "joining",
        PodState::Confirmed => "confirmed",
        PodState::Broken => "BROKEN",
    }
}

/// Aligns the columns; truncates the last one to the remaining width, if there is a limit.
fn aligned(rows: &[Vec<String>], limit: Option<usize>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_truncation_indicator("…");
    for row in rows {
        let mut row = Row::from(row);
        row.max_height(1);
        table.add_row(row);
    }
    if let Some(columns) = limit {
        table.set_width(u16::try_from(columns).unwrap_or(u16::MAX));
    }
    for column in table.column_iter_mut() {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    if limit.is_some()
        && let Some(last) = table.column_iter_mut().last()
    {
        last.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(MIN_SENTENCE)));
    }
    table
        .lines()
        .map(|line| format!(" {}\n", line.trim_end()))
        .collect()
}

/// Formats an age like `kubectl`.
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{minutes}m{}s", seconds % 60),
        600..7_200 => format!("{minutes}m"),
        7_200..172_800 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// Replaces control characters: texts come from other machines.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if is_control(c) { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::text::truncate;

    #[test]
    fn times_are_readable() {
        for (seconds, want) in [
            (0, "0s"),
            (119, "119s"),
            (200, "3m20s"),
            (3_600, "60m"),
            (7_500, "2h5m"),
            (200_000, "2d7h"),
        ] {
            assert_eq!(age(seconds), want);
        }
    }

    #[test]
    fn an_opted_out_statefulset_is_one_line() {
        let set = SetReport {
            namespace: "ns".to_owned(),
            name: "store".to_owned(),
            state: RolloutState::Settled,
            message: "opted out by annotation".to_owned(),
            opted_out: true,
            ..SetReport::default()
        };
        assert_eq!(
            one(&set, "0.1.0", Some(80)),
            "ns/store: opted out by annotation\n"
        );
    }

    #[test]
    fn lines_do_not_wrap_and_have_no_control_characters() {
        assert_eq!(truncate("a sentence", 5), "a se…");
        assert_eq!(clean("\u{1b}[2Jx\ny"), " [2Jx y");
        let rows = [
            vec!["POD".to_owned(), "WHY".to_owned()],
            vec!["store-0".to_owned(), "x".repeat(300)],
        ];
        let text = aligned(&rows, Some(60));
        assert_eq!(
            text.lines().map(|line| line.chars().count()).max(),
            Some(60)
        );
        assert!(text.ends_with("…\n"));
    }
}
