//! What happened to a StatefulSet, told from one report to the next.
//!
//! A look has no memory; here is the little that people want remembered: what changed last, since when there is a gap, how
//! much of a rollout is done. Invariants: bounded; nothing here is looked at when something is decided; a leader that comes
//! new begins with nothing.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};

use chrono::{DateTime, SecondsFormat, Utc};

use super::report::{
    BlockReport, ChangeKind, ChangeReport, PodReport, PodState, RolloutReport, SetReport, State,
};

/// Changes that are remembered of a StatefulSet.
pub const MOST_CHANGES: usize = 40;
/// Pods that are named in one of them.
const NAMED: usize = 5;
/// Blocks that are named in one of them: each takes some 75 characters.
const BLOCKS_NAMED: usize = 2;
/// Characters of another machine's sentence that are kept.
const MOST_CHARS: usize = 300;

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub struct History {
    changes: VecDeque<ChangeReport>,
    gap_since: Option<String>,
    rollout: Option<RolloutReport>,
    /// ULIDs of the unserved blocks that the last report named, as far as it knew. Bounded as the report's list is.
    unserved: BTreeSet<String>,
    /// Since when the blocks that the last report named have not been loaded, by ULID. Bounded likewise.
    blocks_since: HashMap<String, i64>,
}

impl History {
    /// Compares a report with the one before and writes into it what only memory knows.
    pub fn observe(
        &mut self,
        before: Option<&SetReport>,
        report: &mut SetReport,
        now: DateTime<Utc>,
    ) {
        let at = now.to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut news = Vec::new();
        match before {
            None => news.push((
                ChangeKind::Rollout,
                format!(
                    "this leader begins to look at it: {}",
                    count(report.replicas, "pod")
                ),
            )),
            Some(before) => compare(before, report, &mut news),
        }
        self.rollout(before, report, &at, &mut news);
        self.gap(report, &at, &mut news);
        self.blocks(report, now.timestamp(), &mut news);
        for (kind, text) in news {
            let text = text.chars().take(MOST_CHARS).collect();
            self.changes.push_front(ChangeReport {
                at: at.clone(),
                kind,
                text,
            });
        }
        self.changes.truncate(MOST_CHANGES);
        report.changes = self.changes.iter().cloned().collect();
        report.gap_since.clone_from(&self.gap_since);
        report.rollout.clone_from(&self.rollout);
    }

    fn rollout(
        &mut self,
        before: Option<&SetReport>,
        report: &SetReport,
        at: &str,
        news: &mut News,
    ) {
        if report.moves_left > 0 && self.rollout.is_none() {
            self.rollout = Some(RolloutReport {
                began: at.to_owned(),
                ..RolloutReport::default()
            });
            let (moves, steps) = (
                count(report.moves_left, "move"),
                count(report.steps_left, "step"),
            );
            news.push((
                ChangeKind::Rollout,
                format!("a rollout begins: {moves} in {steps}"),
            ));
        }
        let published = before
            .map(|before| published_anew(before, report))
            .unwrap_or_default();
        if !published.is_empty() {
            news.push((
                ChangeKind::Step,
                format!("another window is published for {}", named(&published)),
            ));
            if let Some(rollout) = &mut self.rollout {
                rollout.steps_done = rollout.steps_done.saturating_add(1);
                rollout.moves_done = rollout
                    .moves_done
                    .saturating_add(u32::try_from(published.len()).unwrap_or(u32::MAX));
            }
        }
        if report.state == State::Settled
            && let Some(done) = self.rollout.take()
        {
            let (moves, steps) = (
                count(done.moves_done, "move"),
                count(done.steps_done, "step"),
            );
            news.push((
                ChangeKind::Rollout,
                format!("the rollout is done, after {moves} in {steps}"),
            ));
        }
    }

    fn gap(&mut self, report: &SetReport, at: &str, news: &mut News) {
        if report.not_asked > 0 {
            // What is served is not known: neither a gap nor its end.
            return;
        }
        let gap = report.gap_seconds > 0;
        if gap && self.gap_since.is_none() {
            self.gap_since = Some(at.to_owned());
            let ranges: Vec<String> = report
                .gaps
                .iter()
                .take(NAMED)
                .map(ToString::to_string)
                .collect();
            news.push((
                ChangeKind::Gap,
                format!("no pod serves {}", ranges.join(", ")),
            ));
        } else if !gap && self.gap_since.take().is_some() {
            news.push((
                ChangeKind::Whole,
                "every instant is served again".to_owned(),
            ));
        }
    }

    /// Tells which blocks became unserved and which are served again, and fills in since when each has not been loaded.
    fn blocks(&mut self, report: &mut SetReport, now: i64, news: &mut News) {
        let blocks = &mut report.blocks;
        if report.not_asked > 0 || blocks.known_pods == 0 {
            // Which blocks are loaded is not known: neither a loss nor its end.
            return;
        }
        let mut since = HashMap::new();
        for block in blocks.unserved.iter_mut().chain(&mut blocks.missing) {
            if block.since_unix_seconds == 0 {
                block.since_unix_seconds =
                    self.blocks_since.get(&block.ulid).copied().unwrap_or(now);
            }
            since.insert(block.ulid.clone(), block.since_unix_seconds);
        }
        self.blocks_since = since;
        let shown =
            |block: &BlockReport| format!("{} ({} .. {})", block.ulid, block.from, block.to);
        let lost: Vec<String> = blocks
            .unserved
            .iter()
            .filter(|block| !self.unserved.contains(&block.ulid))
            .map(shown)
            .collect();
        if !lost.is_empty() {
            let lost: Vec<&str> = lost.iter().map(String::as_str).collect();
            news.push((
                ChangeKind::Gap,
                format!(
                    "no confirmed pod has loaded {}",
                    listed(&lost, BLOCKS_NAMED)
                ),
            ));
        }
        let unserved: BTreeSet<String> = blocks
            .unserved
            .iter()
            .map(|block| block.ulid.clone())
            .collect();
        // A list that was cut does not show which blocks came back.
        let cut =
            usize::try_from(blocks.unserved_total).unwrap_or(usize::MAX) > blocks.unserved.len();
        let back: Vec<&str> = self
            .unserved
            .difference(&unserved)
            .filter(|_| !cut)
            .map(String::as_str)
            .collect();
        if !back.is_empty() {
            let verb = if back.len() == 1 { "is" } else { "are" };
            news.push((
                ChangeKind::Whole,
                format!("{} {verb} served again", listed(&back, BLOCKS_NAMED)),
            ));
        }
        self.unserved = unserved;
    }
}

type News = Vec<(ChangeKind, String)>;

fn compare(before: &SetReport, report: &SetReport, news: &mut News) {
    if before.replicas != report.replicas {
        news.push((
            ChangeKind::Rollout,
            format!(
                "spec.replicas went from {} to {}",
                before.replicas, report.replicas
            ),
        ));
    }
    if before.state != report.state {
        match report.state {
            State::Waiting | State::Paused => {
                news.push((ChangeKind::Rollout, report.message.clone()))
            }
            State::Blocked | State::Refused => {
                news.push((ChangeKind::Trouble, report.message.clone()))
            }
            State::Unknown | State::Settled | State::Rolling => {}
        }
    }
    let was: HashMap<&str, PodState> = before
        .pods
        .iter()
        .map(|pod| (pod.pod.as_str(), pod.state))
        .collect();
    let came_to = |state: PodState| -> Vec<&PodReport> {
        let news = |pod: &&PodReport| {
            pod.state == state && was.get(pod.pod.as_str()).is_some_and(|was| *was != state)
        };
        report.pods.iter().filter(news).collect()
    };
    for (state, words) in [
        (PodState::Absent, "gone"),
        (PodState::Terminating, "being deleted"),
        (PodState::NotInjected, "there without injection"),
        (PodState::Unreachable, "not to be asked"),
        (PodState::Broken, "not serving what is published"),
    ] {
        let pods = came_to(state);
        let Some(first) = pods.first() else { continue };
        let names: Vec<&str> = pods.iter().map(|pod| pod.pod.as_str()).collect();
        let why = first
            .why
            .as_ref()
            .filter(|_| matches!(state, PodState::Unreachable | PodState::Broken));
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        let verb = if names.len() == 1 { "is" } else { "are" };
        news.push((
            ChangeKind::Trouble,
            format!("{} {verb} {words}{why}", named(&names)),
        ));
    }
    let confirmed: Vec<&str> = came_to(PodState::Confirmed)
        .iter()
        .map(|pod| pod.pod.as_str())
        .collect();
    if !confirmed.is_empty() {
        let verb = if confirmed.len() == 1 { "is" } else { "are" };
        news.push((
            ChangeKind::Confirmed,
            format!(
                "{} {verb} confirmed: every querier knows",
                named(&confirmed)
            ),
        ));
    }
}

/// Pods whose published window was replaced by another one.
fn published_anew<'a>(before: &SetReport, report: &'a SetReport) -> Vec<&'a str> {
    let was: HashMap<&str, _> = before
        .pods
        .iter()
        .filter_map(|pod| Some((pod.pod.as_str(), pod.published?)))
        .collect();
    let anew = |pod: &&PodReport| {
        pod.published
            .is_some_and(|now| was.get(pod.pod.as_str()).is_some_and(|was| *was != now))
    };
    report
        .pods
        .iter()
        .filter(anew)
        .map(|pod| pod.pod.as_str())
        .collect()
}

fn named(pods: &[&str]) -> String {
    listed(pods, NAMED)
}

/// The first `most` of them, and how many more there are.
fn listed(all: &[&str], most: usize) -> String {
    let names = all[..all.len().min(most)].join(", ");
    let more = all.len().saturating_sub(most);
    if more == 0 {
        names
    } else {
        format!("{names} and {more} more")
    }
}

fn count(number: u32, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
