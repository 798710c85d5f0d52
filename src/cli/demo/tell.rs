//! What the demo says of a rollout while it runs, and of each pod at its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::super::{Failure, print, timeline};
use super::leader::Coverage;
use super::pod::{Running, states};
use crate::adapters::clock;
use crate::core::duration::PromDuration;
use crate::core::entry::{self, Entry};
use crate::core::reconcile::Decision;
use crate::core::report::{PodReport, PodState, SetReport};
use crate::core::rollout;
use crate::core::window::{Bound, Window};

/// Tells what happens, each thing once.
pub(super) struct Teller {
    began: Instant,
    steps: u32,
    /// What was said last of each pod.
    said: BTreeMap<String, String>,
}

impl Teller {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            steps: 0,
            said: BTreeMap::new(),
        }
    }

    /// Time counts from now.
    pub(super) fn begin(&mut self) {
        (self.began, self.steps) = (Instant::now(), 0);
    }

    pub(super) const fn steps(&self) -> u32 {
        self.steps
    }

    /// What is new about the pods. Whether anything is.
    pub(super) fn pods(&mut self, report: &SetReport) -> Result<bool, Failure> {
        let mut news = false;
        for pod in &report.pods {
            let Some(what) = what(pod, self.said.contains_key(&pod.pod)) else {
                continue;
            };
            if self.said.get(&pod.pod) != Some(&what) {
                print(&format!(
                    "   +{:5.2} s  {}  {what}\n",
                    self.began.elapsed().as_secs_f64(),
                    pod.pod
                ))?;
                self.said.insert(pod.pod.clone(), what);
                news = true;
            }
        }
        Ok(news)
    }

    /// A step that is about to be published as `data`.
    pub(super) fn step(
        &mut self,
        decision: &Decision,
        data: &BTreeMap<String, String>,
        required: Option<Window>,
    ) -> Result<(), Failure> {
        self.steps += 1;
        self.began = Instant::now();
        let (report, moving) = (
            &decision.report,
            decision
                .step
                .iter()
                .flat_map(|(_, pods)| pods)
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
        let all = (self.steps - 1).saturating_add(report.steps_left.max(1));
        let title = match moving.len() {
            0 => "only numbers change, no window does".to_owned(),
            1 => format!("{} changes alone", moving[0]),
            _ => format!("{} change together", listed(&moving)),
        };
        let mut text = format!("\n   Step {} of {all}: {title}.\n", self.steps);
        for pod in report
            .pods
            .iter()
            .filter(|pod| moving.contains(&pod.pod.as_str()))
        {
            let to = data
                .get(&entry::key(&pod.pod))
                .and_then(|text| Entry::parse(text, clock::now()).ok());
            let (from, to) = (
                pod.published.map(|window| window.to_string()),
                to.map(|entry| entry.window),
            );
            let hull = if to == Some(pod.desired) {
                ""
            } else {
                "   (on its way: the whole of old and new)"
            };
            let to = to.map(|window| window.to_string()).unwrap_or_default();
            let _ = writeln!(
                text,
                "      {}  {} -> {to}{hull}",
                pod.pod,
                from.unwrap_or_default()
            );
        }
        for (why, pods) in waiting(report, &moving, required) {
            let _ = writeln!(
                text,
                "      {} wait{}: {why}.",
                listed(&pods),
                if pods.len() == 1 { "s" } else { "" }
            );
        }
        if !decision.closed.is_empty() {
            let shards = decision
                .closed
                .iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            let _ = writeln!(
                text,
                "      In a cluster nobody could be evicted from shard {shards} during this step: their budgets are closed."
            );
        }
        print(&text)
    }
}

/// What a pod does, in words; `None` where there is nothing new to say.
fn what(pod: &PodReport, known: bool) -> Option<String> {
    let applied = pod
        .applied
        .map(|window| window.to_string())
        .unwrap_or_default();
    match (pod.phase.as_deref()?, pod.state) {
        ("draining", _) => Some(format!(
            "draining: not ready any more, {applied} -> {}",
            pod.published?
        )),
        ("restarting", _) => Some("restarting in place, with the new flags".to_owned()),
        ("serving", PodState::Confirmed) => {
            Some(format!("confirmed with {applied}: every querier knows it"))
        }
        ("serving", PodState::Joining) => Some(format!("serving {applied}, and ready")),
        // It runs what was injected, before there is an entry for it.
        ("serving", _) if !known => Some(format!("serving {applied}, and ready")),
        _ => None,
    }
}

/// Pods that have yet to change and do not in this step, by the reason.
fn waiting<'a>(
    report: &'a SetReport,
    moving: &[&str],
    required: Option<Window>,
) -> BTreeMap<String, Vec<&'a str>> {
    let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let now = clock::now();
    let open = |pod: &&PodReport| {
        pod.published.is_some_and(|window| window != pod.desired)
            && !moving.contains(&pod.pod.as_str())
    };
    for pod in report.pods.iter().filter(open) {
        let Some(own) = pod.published else { continue };
        let stays =
            |other: &&PodReport| other.pod != pod.pod && !moving.contains(&other.pod.as_str());
        let windows: Vec<Window> = report
            .pods
            .iter()
            .filter(stays)
            .filter_map(|other| other.published)
            .collect();
        let (fewest, holes) = rollout::coverage(&windows, within(own, required, now), now);
        let why = match holes.first() {
            Some((from, to)) => format!(
                "nobody would serve {} .. {} meanwhile",
                age(*from, now),
                age(*to, now)
            ),
            None if fewest < 2 => {
                "one pod alone would serve part of the same time meanwhile".to_owned()
            }
            None => "after this step".to_owned(),
        };
        reasons.entry(why).or_default().push(&pod.pod);
    }
    reasons
}

/// The part of a window that must be served.
fn within(window: Window, required: Option<Window>, now: DateTime<Utc>) -> Window {
    let Some(required) = required else {
        return window;
    };
    let min = window.min.at(now).max(required.min.at(now));
    let max = window.max.at(now).min(required.max.at(now));
    Window {
        min: Bound::Absolute(min),
        max: Bound::Absolute(max),
    }
}

fn age(instant: DateTime<Utc>, now: DateTime<Utc>) -> PromDuration {
    PromDuration::from_secs(((instant - now).num_milliseconds() + 500).div_euclid(1_000))
}

/// Pods of one StatefulSet: the first by its name, the others by their ordinals.
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
    pub(super) running: Running,
}

/// What became of each pod; `who` plays thanos. Pods that came in between have no moment before.
pub(super) fn table(before: &[Moment], after: &[Moment], who: &str) -> String {
    let who = who.trim_start_matches("the ").to_uppercase();
    let (says, process) = (format!("{who} NOW STATES"), format!("{who} PID"));
    let mut table = timeline::plain_table(&[
        "   POD",
        "SHARD",
        "WINDOW BEFORE",
        "WINDOW NOW",
        "RESTARTS",
        &says,
        "LAUNCHER PID",
        &process,
    ]);
    let mut weeks = "";
    let id = |id: Option<u32>| id.map_or_else(|| "?".to_owned(), |id| id.to_string());
    for (i, Moment { report, running }) in after.iter().enumerate() {
        let Some(window) = report.applied else {
            continue;
        };
        if running
            .flags
            .as_ref()
            .is_some_and(|(min, max)| min.ends_with('w') || max.ends_with('w'))
        {
            weeks = "   Thanos writes whole weeks as such: -2w is -14d.\n";
        }
        let flags = match &running.flags {
            Some(flags) if states(flags, window) => format!("{} .. {}", flags.0, flags.1),
            Some(flags) => format!("{} .. {} (DIFFERENT)", flags.0, flags.1),
            None => "not readable".to_owned(),
        };
        let changed = |old: Option<String>, new: String, same: &str| match old {
            Some(old) if old == new => format!("{new}{same}"),
            Some(old) => format!("{old} -> {new}"),
            None => new,
        };
        let old = before.get(i);
        // A report has the planned shard.
        let shard = old
            .filter(|_| report.published != Some(report.desired))
            .map_or(report.shard, |old| old.report.shard);
        table.add_row([
            format!("   {}", report.pod),
            changed(
                old.map(|old| old.report.shard.to_string()),
                shard.to_string(),
                "",
            ),
            old.and_then(|old| old.report.applied)
                .map_or_else(|| "(new)".to_owned(), |window| window.to_string()),
            window.to_string(),
            (report.restarts - old.map_or(0, |old| old.report.restarts.min(report.restarts)))
                .to_string(),
            flags,
            changed(
                old.map(|old| id(old.running.launcher)),
                id(running.launcher),
                " (same)",
            ),
            changed(
                old.map(|old| id(old.running.thanos)),
                id(running.thanos),
                "",
            ),
        ]);
    }
    format!("{table}\n{weeks}")
}

/// What the looks found, in words.
pub(super) fn coverage(found: &Coverage) -> String {
    let Coverage {
        looks,
        gaps,
        fewest,
        ..
    } = *found;
    let when = format!(
        "{looks} looks at what the sidecars answer, {} ms apart",
        super::leader::LOOK_EVERY.as_millis()
    );
    if gaps > 0 {
        return format!(
            "In {gaps} of {when}, no ready pod served a part of the retention, which allow_coverage_gap permits."
        );
    }
    let fewest = fewest.unwrap_or(0);
    format!(
        "At every moment every instant of the retention was served by a ready pod, as {when} from before the change to its end, \
         found: the fewest for any instant were {fewest}."
    )
}
