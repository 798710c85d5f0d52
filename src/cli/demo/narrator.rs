//! What the demo prints about a rollout: one line a step, and with `--verbose` every pod's changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tokio::time::Instant;

use super::super::{Failure, print, timeline};
use super::pod::{PodProcess, states};
use crate::adapters::clock;
use crate::core::model::entry::{self, Entry};
use crate::core::rollout::reconcile::Decision;
use crate::core::rollout::report::{PodReport, PodState, SetReport};

/// Prints each change once.
pub(super) struct Narrator {
    verbose: bool,
    began: Instant,
    steps: u32,
    /// The last line about each pod.
    printed: BTreeMap<String, String>,
}

impl Narrator {
    pub(super) fn new(verbose: bool) -> Self {
        Self {
            verbose,
            began: Instant::now(),
            steps: 0,
            printed: BTreeMap::new(),
        }
    }

    /// Restarts the clock and the count of steps.
    pub(super) fn begin(&mut self) {
        (self.began, self.steps) = (Instant::now(), 0);
    }

    pub(super) const fn steps(&self) -> u32 {
        self.steps
    }

    /// Prints a text that only `--verbose` shows.
    pub(super) fn detail(&self, text: &str) -> Result<(), Failure> {
        if self.verbose { print(text) } else { Ok(()) }
    }

    /// Prints the pods' changes. Returns whether there were any.
    pub(super) fn pods(&mut self, report: &SetReport) -> Result<bool, Failure> {
        let mut changed = false;
        for pod in &report.pods {
            let Some(line) = line(pod, self.printed.contains_key(&pod.pod)) else {
                continue;
            };
            if self.printed.get(&pod.pod) != Some(&line) {
                let seconds = self.began.elapsed().as_secs_f64();
                self.detail(&format!("   +{seconds:5.2} s  {}  {line}\n", pod.pod))?;
                self.printed.insert(pod.pod.clone(), line);
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Prints a step that is about to be published as `data`.
    pub(super) fn step(
        &mut self,
        decision: &Decision,
        data: &BTreeMap<String, String>,
    ) -> Result<(), Failure> {
        self.steps += 1;
        self.began = Instant::now();
        let report = &decision.report;
        let moving: Vec<&str> = decision
            .step
            .iter()
            .flat_map(|(_, pods)| pods)
            .map(String::as_str)
            .collect();
        let all = (self.steps - 1).saturating_add(report.steps_left.max(1));
        let title = match moving.len() {
            0 => "only shard numbers change, no window does".to_owned(),
            1 => format!("{} changes alone", moving[0]),
            _ => format!("{} change together", listed(&moving)),
        };
        print(&format!("   Step {} of {all}: {title}.\n", self.steps))?;
        let mut text = String::new();
        for pod in report
            .pods
            .iter()
            .filter(|pod| moving.contains(&pod.pod.as_str()))
        {
            let (Some(from), Some(to)) = (pod.published, published_as(&pod.pod, data)) else {
                continue;
            };
            let union = if to.window == pod.desired {
                ""
            } else {
                "   (in between: the old and the new window)"
            };
            let _ = writeln!(text, "      {}  {from} -> {}{union}", pod.pod, to.window);
        }
        if !decision.closed.is_empty() {
            let shards: Vec<String> = decision.closed.iter().map(u32::to_string).collect();
            let _ = writeln!(
                text,
                "      In a cluster, the PDBs of these shards would block evictions during this step: {}.",
                shards.join(", ")
            );
        }
        self.detail(&text)
    }
}

fn published_as(pod: &str, data: &BTreeMap<String, String>) -> Option<Entry> {
    Entry::parse(data.get(&entry::key(pod))?, clock::now()).ok()
}

/// Describes a pod's state; `None` for states that are not worth a line. A pod is `known` once a
/// line about it was printed.
fn line(pod: &PodReport, known: bool) -> Option<String> {
    let applied = pod
        .applied
        .map(|window| window.to_string())
        .unwrap_or_default();
    match (pod.phase.as_deref()?, pod.state) {
        ("draining", _) => Some(format!(
            "draining and not ready, {applied} -> {}",
            pod.published?
        )),
        ("restarting", _) => Some("restarting in place, with the new flags".to_owned()),
        ("serving", PodState::Confirmed) => Some(format!(
            "confirmed with {applied}: every querier has discovered it"
        )),
        ("serving", PodState::Joining) => Some(format!("serving {applied}, and ready")),
        // Before it has an entry it runs what was injected.
        ("serving", _) if !known => Some(format!("serving {applied}, and ready")),
        _ => None,
    }
}

/// Lists pods of one StatefulSet: the first by its name, the others by their ordinals.
fn listed(pods: &[&str]) -> String {
    let short = |(i, pod): (usize, &&str)| {
        if i == 0 {
            (*pod).to_owned()
        } else {
            pod.rfind('-').map_or("", |at| &pod[at..]).to_owned()
        }
    };
    let mut names: Vec<String> = pods.iter().enumerate().map(short).collect();
    match names.pop() {
        Some(last) if !names.is_empty() => format!("{} and {last}", names.join(", ")),
        last => last.unwrap_or_default(),
    }
}

/// A pod at one moment.
pub(super) struct Moment {
    pub(super) report: PodReport,
    pub(super) running: PodProcess,
}

/// Compares each pod before and after; `who` plays thanos. New pods have no moment before.
pub(super) fn table(before: &[Moment], after: &[Moment], who: &str) -> String {
    let who = who.trim_start_matches("the ").to_uppercase();
    let (flags, process) = (format!("{who} FLAGS"), format!("{who} PID"));
    let mut table = timeline::plain_table(&[
        "   POD",
        "WINDOW BEFORE",
        "WINDOW NOW",
        "RESTARTS",
        &flags,
        "LAUNCHER PID",
        &process,
    ]);
    let id = |id: Option<u32>| id.map_or_else(|| "?".to_owned(), |id| id.to_string());
    let changed = |old: Option<Option<u32>>, new: Option<u32>| match old {
        Some(old) if old == new => format!("{} (same)", id(new)),
        Some(old) => format!("{} -> {}", id(old), id(new)),
        None => id(new),
    };
    for (i, Moment { report, running }) in after.iter().enumerate() {
        let Some(window) = report.applied else {
            continue;
        };
        let flags = match &running.flags {
            Some(flags) if states(flags, window) => format!("{} .. {}", flags.0, flags.1),
            Some(flags) => format!("{} .. {} (DIFFERENT)", flags.0, flags.1),
            None => "not readable".to_owned(),
        };
        let old = before.get(i);
        let restarts = old.map_or(0, |old| old.report.restarts);
        table.add_row([
            format!("   {}", report.pod),
            old.and_then(|old| old.report.applied)
                .map_or_else(|| "(new)".to_owned(), |window| window.to_string()),
            window.to_string(),
            report.restarts.saturating_sub(restarts).to_string(),
            flags,
            changed(old.map(|old| old.running.launcher), running.launcher),
            changed(old.map(|old| old.running.thanos), running.thanos),
        ]);
    }
    format!("{table}\n   Thanos prints whole weeks as such: -2w is -14d.\n")
}
