//! Estimates a rollout before it starts: how long its steps take, and how many pods serve each
//! instant meanwhile.
//!
//! A step takes its drain, one load (its pods load in parallel), the discovery delay, and the
//! overhead of the server and kubelet. Failures of pods are not considered.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::core::config::Sharding;
use crate::core::model::duration::PromDuration;
use crate::core::model::text::counted;
use crate::core::model::window::Window;
use crate::core::rollout::forecast::STEP_OVERHEAD;
use crate::core::rollout::planner::{Member, WindowChange, coverage};

/// How long the steps take.
#[derive(Clone, Debug)]
pub(super) struct StepTime {
    drain: PromDuration,
    discovery_delay: PromDuration,
    /// The longest load of each step.
    loads: Vec<PromDuration>,
    /// What the loads rest on.
    basis: String,
}

/// The complete rollout and the parts of one step, in seconds.
#[derive(Debug, Serialize)]
pub(super) struct Duration {
    seconds: i64,
    each_step: StepParts,
    /// What the loads rest on.
    loads: String,
}

#[allow(clippy::struct_field_names, reason = "each JSON key ends in its unit")]
#[derive(Debug, Serialize)]
struct StepParts {
    drain_seconds: i64,
    load_time_seconds: i64,
    discovery_delay_seconds: i64,
    overhead_seconds: i64,
}

impl StepTime {
    pub(super) fn new(sharding: &Sharding, basis: String) -> Self {
        Self {
            drain: sharding.drain(),
            discovery_delay: sharding.discovery_delay(),
            loads: Vec::new(),
            basis,
        }
    }

    pub(super) fn add_step(&mut self, load: PromDuration) {
        self.loads.push(load);
    }

    pub(super) fn load_of(&self, step: usize) -> PromDuration {
        self.loads.get(step).copied().unwrap_or(PromDuration::ZERO)
    }

    pub(super) fn longest_load(&self) -> PromDuration {
        let longest = self.loads.iter().copied().max();
        longest.unwrap_or(PromDuration::ZERO)
    }

    /// The time of the first steps.
    pub(super) fn of(&self, steps: usize) -> PromDuration {
        let waits = times(self.drain + self.discovery_delay + STEP_OVERHEAD, steps);
        let loads = self.loads.iter().take(steps);
        loads.fold(waits, |sum, load| sum + *load)
    }

    /// The configured periods alone, without load and overhead.
    pub(super) fn minimum(&self, steps: usize) -> PromDuration {
        times(self.drain + self.discovery_delay, steps)
    }

    pub(super) fn duration(&self, steps: usize) -> Duration {
        Duration {
            seconds: self.of(steps).as_secs(),
            each_step: StepParts {
                drain_seconds: self.drain.as_secs(),
                load_time_seconds: self.longest_load().as_secs(),
                discovery_delay_seconds: self.discovery_delay.as_secs(),
                overhead_seconds: STEP_OVERHEAD.as_secs(),
            },
            loads: self.basis.clone(),
        }
    }

    pub(super) fn sentence(&self) -> String {
        format!(
            "each step: {} drain, at most {} load ({}), {} discovery_delay, {STEP_OVERHEAD} overhead",
            self.drain,
            self.longest_load(),
            self.basis,
            self.discovery_delay
        )
    }
}

fn times(each: PromDuration, count: usize) -> PromDuration {
    PromDuration::from_secs(
        each.as_secs()
            .saturating_mul(i64::try_from(count).unwrap_or(i64::MAX)),
    )
}

/// The fewest confirmed pods that serve any instant, step by step.
#[derive(Debug)]
pub(super) struct Holders {
    windows: Vec<Window>,
    /// The range that both configurations serve; no pod serves an extended retention yet.
    both: Window,
    now: DateTime<Utc>,
    before: u32,
    during: Vec<u32>,
}

impl Holders {
    pub(super) fn new(
        members: &[Member],
        old: &Sharding,
        new: &Sharding,
        now: DateTime<Utc>,
    ) -> Self {
        let both = old.required_by_both(new);
        let windows: Vec<Window> = members
            .iter()
            .map(|member| member.published.window)
            .collect();
        let before = coverage(&windows, both, now).0;
        Self {
            windows,
            both,
            now,
            before,
            during: Vec::new(),
        }
    }

    /// Counts without these pods, then gives them their new windows.
    pub(super) fn step(&mut self, changes: &[WindowChange]) {
        let mut stays = vec![true; self.windows.len()];
        for change in changes
            .iter()
            .filter(|change| self.windows[change.member] != change.to.window)
        {
            stays[change.member] = false;
        }
        let served: Vec<Window> = self
            .windows
            .iter()
            .zip(&stays)
            .filter(|(_, stays)| **stays)
            .map(|(window, _)| *window)
            .collect();
        self.during.push(coverage(&served, self.both, self.now).0);
        for change in changes {
            self.windows[change.member] = change.to.window;
        }
    }

    /// Drops the last step, which restarts no pod.
    pub(super) fn forget_step(&mut self) {
        self.during.pop();
    }

    pub(super) fn before(&self) -> u32 {
        self.before
    }

    pub(super) fn during(&self) -> &[u32] {
        &self.during
    }

    pub(super) fn after(&self) -> u32 {
        coverage(&self.windows, self.both, self.now).0
    }

    pub(super) fn sentence(&self) -> String {
        let fewest = self.during.iter().copied().min().unwrap_or(self.before);
        format!(
            "each instant that both configurations serve is served by at least {} before, {fewest} in every step, {} after",
            pods(self.before),
            self.after()
        )
    }
}

fn pods(count: u32) -> String {
    counted(count, "confirmed pod")
}
