//! The recent changes of a StatefulSet, found by comparing each report with the one before.
//!
//! A reconcile has no memory; this is what users want remembered: the last changes, the start of a
//! gap, the progress of a rollout. Invariants: bounded; no decision depends on it; a new leader
//! starts with an empty history.

mod steps;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};

use chrono::{DateTime, SecondsFormat, Utc};

use super::forecast;
use super::report::{
    BlockReport, ChangeKind, ChangeReport, PodReport, PodState, RolloutReport, RolloutState,
    SetReport, SettingChange,
};
use crate::core::model::text::{counted, listed, truncate};

use steps::StepTimes;

/// Changes remembered of a StatefulSet.
pub const MAX_CHANGES: usize = 40;
/// Changes of settings remembered of a StatefulSet.
pub const MAX_SETTING_CHANGES: usize = 12;
/// Pods, or ranges, that one change lists.
const MAX_NAMED: usize = 5;
/// Blocks that one change lists; each takes about 75 characters.
const MAX_BLOCKS_NAMED: usize = 2;
/// Longest text of a change, in characters: it may quote another machine.
const MAX_CHARS: usize = 300;
/// Longest value of a setting, in characters.
const MAX_VALUE_CHARS: usize = 100;

#[derive(Clone, Debug, Default)]
pub struct History {
    changes: VecDeque<ChangeReport>,
    setting_changes: VecDeque<SettingChange>,
    gap_since: Option<String>,
    rollout: Option<RolloutReport>,
    /// ULIDs of the unserved blocks that the last report listed. Bounded like the report's list.
    unserved: BTreeSet<String>,
    /// By ULID, since when the blocks that the last report listed have not been loaded, in seconds
    /// since the epoch. Bounded like the report's list.
    blocks_since: HashMap<String, i64>,
    steps: StepTimes,
}

impl History {
    /// Compares a report with the one before, and fills in the fields that need memory.
    /// `report.setting_changes` has the changes since then, without their time.
    pub fn observe(
        &mut self,
        before: Option<&SetReport>,
        report: &mut SetReport,
        now: DateTime<Utc>,
    ) {
        let at = now.to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut changes = Changes::new();
        match before {
            None => changes.push((
                ChangeKind::Rollout,
                format!(
                    "this leader starts to manage it: {}",
                    counted(report.replicas, "pod")
                ),
            )),
            Some(before) => {
                replicas(before, report);
                compare(before, report, &mut changes);
            }
        }
        self.settings(report, &at, &mut changes);
        self.rollout(before, report, &at, &mut changes);
        self.gap(report, &at, &mut changes);
        self.blocks(report, now.timestamp(), &mut changes);
        for (kind, text) in changes {
            let text = truncate(&text, MAX_CHARS).into_owned();
            self.changes.push_front(ChangeReport {
                at: at.clone(),
                kind,
                text,
            });
        }
        self.changes.truncate(MAX_CHANGES);
        self.steps
            .observe(&published(before, report), report, now.timestamp());
        forecast::add_up(report, self.steps.wait_seconds());
        report.changes = self.changes.iter().cloned().collect();
        report.gap_since.clone_from(&self.gap_since);
        report.rollout.clone_from(&self.rollout);
    }

    fn settings(&mut self, report: &mut SetReport, at: &str, changes: &mut Changes) {
        for mut setting in std::mem::take(&mut report.setting_changes) {
            for value in [&mut setting.old, &mut setting.new] {
                *value = truncate(value, MAX_VALUE_CHARS).into_owned();
            }
            let SettingChange { key, old, new, .. } = &setting;
            let text = format!("{key} went from {old} to {new}");
            changes.push((ChangeKind::Rollout, text));
            at.clone_into(&mut setting.at);
            self.setting_changes.push_front(setting);
        }
        self.setting_changes.truncate(MAX_SETTING_CHANGES);
        report.setting_changes = self.setting_changes.iter().cloned().collect();
    }

    fn rollout(
        &mut self,
        before: Option<&SetReport>,
        report: &SetReport,
        at: &str,
        changes: &mut Changes,
    ) {
        if report.moves_left > 0 && self.rollout.is_none() {
            self.rollout = Some(RolloutReport {
                began: at.to_owned(),
                steps_expected: report.steps_left,
                ..RolloutReport::default()
            });
            let (moves, steps) = (
                counted(report.moves_left, "move"),
                counted(report.steps_left, "step"),
            );
            changes.push((
                ChangeKind::Rollout,
                format!("a rollout begins: {moves}, expected in {steps}"),
            ));
        }
        let published = published(before, report);
        if !published.is_empty() {
            changes.push((
                ChangeKind::Step,
                format!(
                    "another window is published for {}",
                    listed(&published, MAX_NAMED)
                ),
            ));
            if let Some(rollout) = &mut self.rollout {
                rollout.steps_done = rollout.steps_done.saturating_add(1);
                rollout.moves_done = rollout
                    .moves_done
                    .saturating_add(u32::try_from(published.len()).unwrap_or(u32::MAX));
            }
        }
        if report.state == RolloutState::Settled
            && let Some(done) = self.rollout.take()
        {
            let (moves, steps) = (
                counted(done.moves_done, "move"),
                counted(done.steps_done, "step"),
            );
            changes.push((
                ChangeKind::Rollout,
                format!("the rollout is done, after {moves} in {steps}"),
            ));
        }
    }

    fn gap(&mut self, report: &SetReport, at: &str, changes: &mut Changes) {
        if report.not_asked > 0 {
            // Unknown coverage is neither a gap nor its end.
            return;
        }
        let gap = report.gap_seconds > 0;
        if gap && self.gap_since.is_none() {
            self.gap_since = Some(at.to_owned());
            let ranges: Vec<String> = report
                .gaps
                .iter()
                .take(MAX_NAMED)
                .map(ToString::to_string)
                .collect();
            changes.push((
                ChangeKind::Gap,
                format!("no pod serves {}", ranges.join(", ")),
            ));
        } else if !gap && self.gap_since.take().is_some() {
            changes.push((
                ChangeKind::Whole,
                "every instant is served again".to_owned(),
            ));
        }
    }

    /// Notes which blocks became unserved and which are served again, and fills in since when each
    /// has not been loaded.
    fn blocks(&mut self, report: &mut SetReport, now: i64, changes: &mut Changes) {
        let blocks = &mut report.blocks;
        if report.not_asked > 0 || blocks.known_pods == 0 {
            // If it is unknown which blocks are loaded, that is neither a loss nor its end.
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
            changes.push((
                ChangeKind::Gap,
                format!(
                    "no confirmed pod has loaded {}",
                    listed(&lost, MAX_BLOCKS_NAMED)
                ),
            ));
        }
        let unserved: BTreeSet<String> = blocks
            .unserved
            .iter()
            .map(|block| block.ulid.clone())
            .collect();
        // A truncated list does not show which blocks are served again.
        let cut =
            usize::try_from(blocks.unserved_total).unwrap_or(usize::MAX) > blocks.unserved.len();
        let served: Vec<&str> = self
            .unserved
            .difference(&unserved)
            .filter(|_| !cut)
            .map(String::as_str)
            .collect();
        if !served.is_empty() {
            changes.push((
                ChangeKind::Whole,
                format!("{} served again", are(&served, MAX_BLOCKS_NAMED)),
            ));
        }
        self.unserved = unserved;
    }
}

type Changes = Vec<(ChangeKind, String)>;

/// Adds a change of `spec.replicas` to those of the settings.
fn replicas(before: &SetReport, report: &mut SetReport) {
    if before.replicas != report.replicas {
        report.setting_changes.push(SettingChange {
            key: "spec.replicas".to_owned(),
            old: before.replicas.to_string(),
            new: report.replicas.to_string(),
            ..SettingChange::default()
        });
    }
}

fn compare(before: &SetReport, report: &SetReport, changes: &mut Changes) {
    if before.state != report.state {
        match report.state {
            RolloutState::Waiting | RolloutState::Paused => {
                changes.push((ChangeKind::Rollout, report.message.clone()));
            }
            RolloutState::Blocked | RolloutState::Refused => {
                changes.push((ChangeKind::Trouble, report.message.clone()));
            }
            RolloutState::Unknown | RolloutState::Settled | RolloutState::Rolling => {}
        }
    }
    let was: HashMap<&str, PodState> = before
        .pods
        .iter()
        .map(|pod| (pod.pod.as_str(), pod.state))
        .collect();
    let came_to = |state: PodState| -> Vec<&PodReport> {
        let newly = |pod: &&PodReport| {
            pod.state == state && was.get(pod.pod.as_str()).is_some_and(|was| *was != state)
        };
        report.pods.iter().filter(newly).collect()
    };
    for (state, is) in [
        (PodState::Absent, "gone"),
        (PodState::Terminating, "being deleted"),
        (PodState::NotInjected, "not injected"),
        (PodState::Unreachable, "unreachable"),
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
        changes.push((
            ChangeKind::Trouble,
            format!("{} {is}{why}", are(&names, MAX_NAMED)),
        ));
    }
    let confirmed: Vec<&str> = came_to(PodState::Confirmed)
        .iter()
        .map(|pod| pod.pod.as_str())
        .collect();
    if !confirmed.is_empty() {
        changes.push((
            ChangeKind::Confirmed,
            format!(
                "{} confirmed: known to every querier",
                are(&confirmed, MAX_NAMED)
            ),
        ));
    }
}

fn published<'a>(before: Option<&SetReport>, report: &'a SetReport) -> Vec<&'a str> {
    before
        .map(|before| republished(before, report))
        .unwrap_or_default()
}

/// Pods whose published window changed.
fn republished<'a>(before: &SetReport, report: &'a SetReport) -> Vec<&'a str> {
    let was: HashMap<&str, _> = before
        .pods
        .iter()
        .filter_map(|pod| Some((pod.pod.as_str(), pod.published?)))
        .collect();
    let changed = |pod: &&PodReport| {
        pod.published
            .is_some_and(|now| was.get(pod.pod.as_str()).is_some_and(|was| *was != now))
    };
    report
        .pods
        .iter()
        .filter(changed)
        .map(|pod| pod.pod.as_str())
        .collect()
}

/// A list and its verb.
fn are(names: &[&str], most: usize) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", listed(names, most))
}
