//! Reports as text: a head for each StatefulSet, and its pods.
//!
//! Lines never wrap: the last column, the sentence, ends with `…` where the width does. No colours: what matters is in words.

use super::Failure;
use super::blocks;
use super::document::Document;
use crate::core::printable::acts;
use crate::core::report::{PodReport, PodState, SetReport, State};
use crate::core::window::Window;

/// Pods of one table; with more, those that are confirmed are counted only.
const MANY_PODS: usize = 200;
/// The least room that a sentence gets.
const LEAST_SENTENCE: usize = 20;
/// Gaps that are listed.
const MOST_GAPS: usize = 5;
/// Pods that are named in one line.
const MOST_NAMED: usize = 5;

/// The whole text.
pub(super) fn text(document: &Document, columns: usize) -> Result<String, Failure> {
    let tables: Vec<String> = document
        .reports()?
        .iter()
        .map(|set| one(set, &document.head.version, columns))
        .collect();
    Ok(tables.join("\n"))
}

fn one(set: &SetReport, version: &str, columns: usize) -> String {
    let mut lines = vec![headline(set), format!("  {}", progress(set))];
    lines.extend(gaps(set));
    lines.extend(blocks::lines(set));
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
    clean(&format!(
        "{}/{}: {}{message}",
        set.namespace,
        set.name,
        state(set.state)
    ))
}

const fn state(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::Settled => "settled",
        State::Rolling => "rolling",
        State::Waiting => "WAITING",
        State::Paused => "PAUSED",
        State::Blocked => "BLOCKED",
        State::Refused => "REFUSED",
    }
}

fn progress(set: &SetReport) -> String {
    if set.state == State::Unknown {
        return format!(
            "no leader has looked at it yet, so nothing is known of its pods; {} replicas, ConfigMap {}",
            set.replicas, set.configmap
        );
    }
    let plural = |n: u32, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let left = if set.steps_left == 0 && set.moves_left == 0 {
        "nothing left to do".to_owned()
    } else {
        format!(
            "{} in {} left, {}",
            plural(set.moves_left, "move"),
            plural(set.steps_left, "step"),
            remaining(set.eta_seconds)
        )
    };
    let least = set.minimum_ready_replicas;
    let served = if set.not_asked > 0 {
        format!(
            "what is served is not known yet: {} not asked",
            plural(set.not_asked, "sidecar")
        )
    } else if least == 0 {
        "SOME INSTANTS ARE SERVED BY NO POD".to_owned()
    } else {
        format!(
            "every instant is served by at least {}",
            plural(least, "pod")
        )
    };
    format!(
        "{left}; {served}; {}, ConfigMap {}",
        plural(set.replicas, "replica"),
        set.configmap
    )
}

/// An estimate in words; the leader's is a lower bound.
fn remaining(seconds: u64) -> String {
    match seconds {
        0..60 => "at least a minute".to_owned(),
        60..3_600 => format!("at least {} min", seconds.div_ceil(60)),
        3_600..86_400 => format!(
            "at least {} h {} min",
            seconds / 3_600,
            seconds % 3_600 / 60
        ),
        _ => format!(
            "at least {} d {} h",
            seconds / 86_400,
            seconds % 86_400 / 3_600
        ),
    }
}

fn gaps(set: &SetReport) -> Vec<String> {
    if set.not_asked > 0 {
        return Vec::new();
    }
    let mut lines: Vec<String> = set
        .gaps
        .iter()
        .take(MOST_GAPS)
        .map(|gap| format!("  GAP: nobody serves {gap}"))
        .collect();
    if let Some(last) = lines.last_mut() {
        let more = set.gaps.len().saturating_sub(MOST_GAPS);
        let more = if more > 0 {
            format!(" and {more} more ranges")
        } else {
            String::new()
        };
        last.push_str(&format!("{more} ({} in all)", age(set.gap_seconds)));
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
    let more = if others.len() > MOST_NAMED {
        format!(" and {} more", others.len() - MOST_NAMED)
    } else {
        String::new()
    };
    let named = others.get(..others.len().min(MOST_NAMED))?.join(", ");
    (!named.is_empty())
        .then(|| format!("  agents of another version than the server's {version}, until these pods are recreated: {named}{more}"))
}

fn pods(all: &[PodReport], columns: usize) -> String {
    let shown: Vec<&PodReport> = all
        .iter()
        .filter(|pod| all.len() <= MANY_PODS || pod.state != PodState::Confirmed)
        .take(MANY_PODS)
        .collect();
    // A column that would say the same of every pod is left out.
    let planned = shown.iter().any(|pod| pod.published != Some(pod.desired));
    let sentences = shown.iter().any(|pod| pod.why.is_some());
    let mut header = vec!["POD", "SHARD", "STATE", "PHASE", "PUBLISHED", "APPLIED"];
    header.extend(planned.then_some("DESIRED"));
    header.extend(["AGE", "RESTARTS"]);
    header.extend(sentences.then_some("WHY"));
    let mut rows = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    rows.extend(shown.iter().map(|pod| row(pod, planned, sentences)));
    let rest = all.len() - shown.len();
    let more = if rest > 0 {
        format!("  … and {rest} more pods; -o json has them all\n")
    } else {
        String::new()
    };
    aligned(&rows, sentences, columns) + &more
}

fn row(pod: &PodReport, planned: bool, sentences: bool) -> Vec<String> {
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
    let mut row = vec![
        pod.pod.clone(),
        format!("{}{extra}", pod.shard),
        pod_state(pod.state).to_owned(),
        pod.phase.clone().unwrap_or_else(|| "-".to_owned()),
        or_none(pod.published),
        format!("{applied}{unverified}"),
    ];
    if planned {
        row.push(if pod.published == Some(pod.desired) {
            "=".to_owned()
        } else {
            pod.desired.to_string()
        });
    }
    row.extend([age(pod.seconds_in_state), pod.restarts.to_string()]);
    if sentences {
        row.push(pod.why.clone().unwrap_or_default());
    }
    row.iter().map(|cell| clean(cell)).collect()
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

/// Columns under each other; a last one of sentences takes what room is left.
fn aligned(rows: &[Vec<String>], sentences: bool, columns: usize) -> String {
    let length = |text: &str| text.chars().count();
    let count = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..count)
        .map(|i| rows.iter().map(|row| length(&row[i])).max().unwrap_or(0))
        .collect();
    let before: usize = widths
        .iter()
        .take(count.saturating_sub(1))
        .map(|width| width + 2)
        .sum::<usize>()
        + 2;
    let room = if sentences {
        columns.saturating_sub(before).max(LEAST_SENTENCE)
    } else {
        usize::MAX
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line.push_str("  ");
            if i + 1 == count {
                line.push_str(&short(cell, room));
            } else {
                line.push_str(cell);
                line.push_str(&" ".repeat(width - length(cell)));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// At most `room` characters.
pub(super) fn short(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        text.to_owned()
    } else {
        text.chars()
            .take(room.saturating_sub(1))
            .chain(['…'])
            .collect()
    }
}

/// An age as `kubectl` writes it.
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

/// Without characters that a terminal would obey: sentences come from other machines.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if acts(c) { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_for_people() {
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
        for (seconds, want) in [
            (5, "a minute"),
            (61, "2 min"),
            (4_800, "1 h 20 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(remaining(seconds), format!("at least {want}"));
        }
    }

    #[test]
    fn lines_do_not_wrap_and_terminals_are_not_told_what_to_do() {
        assert_eq!(short("a sentence", 5), "a se…");
        assert_eq!(clean("\u{1b}[2Jx\ny"), " [2Jx y");
        let rows = [
            vec!["POD".to_owned(), "WHY".to_owned()],
            vec!["store-0".to_owned(), "x".repeat(300)],
        ];
        let text = aligned(&rows, true, 60);
        assert_eq!(
            text.lines().map(|line| line.chars().count()).max(),
            Some(60)
        );
        assert!(text.ends_with("…\n"));
    }
}
