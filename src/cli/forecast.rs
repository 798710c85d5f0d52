//! What a rollout costs before anyone starts it: how long its steps take, and who holds what meanwhile.
//!
//! A step takes its drain, one load (its pods load side by side), the delay in which queriers learn of the pods again, and
//! what the server and kubelet take around that. What only happens once somebody looks (a pod that fails) is not here.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::core::config::Sharding;
use crate::core::duration::PromDuration;
use crate::core::rollout::{Change, Member, coverage};
use crate::core::window::Window;

/// Around a step's drain, load and delay: budgets closed and seen closed, the ConfigMap written and brought to the pods,
/// the flags read back, the next look. Measured in changes of 4 steps on a real cluster: 4.25 s with the default periods,
/// 3.75 s with short ones.
const AROUND_A_STEP: PromDuration = PromDuration::from_secs(4);

/// How long a step takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepTime {
    drain: PromDuration,
    load: PromDuration,
    discovery_delay: PromDuration,
}

/// The whole rollout and what one step is made of, in seconds.
#[derive(Debug, Serialize)]
pub(super) struct Duration {
    seconds: i64,
    each_step: Parts,
}

#[allow(
    clippy::struct_field_names,
    reason = "the unit stands in each name of the document"
)]
#[derive(Debug, Serialize)]
struct Parts {
    drain_seconds: i64,
    load_time_seconds: i64,
    discovery_delay_seconds: i64,
    overhead_seconds: i64,
}

impl StepTime {
    pub(super) fn new(sharding: &Sharding, load: PromDuration) -> Self {
        Self {
            drain: sharding.drain(),
            load,
            discovery_delay: sharding.discovery_delay(),
        }
    }

    pub(super) fn load(self) -> PromDuration {
        self.load
    }

    /// What this many steps take.
    pub(super) fn of(self, steps: usize) -> PromDuration {
        times(
            self.drain + self.load + self.discovery_delay + AROUND_A_STEP,
            steps,
        )
    }

    /// What they take if nothing else took any time.
    pub(super) fn least(self, steps: usize) -> PromDuration {
        times(self.drain + self.discovery_delay, steps)
    }

    pub(super) fn duration(self, steps: usize) -> Duration {
        Duration {
            seconds: self.of(steps).as_secs(),
            each_step: Parts {
                drain_seconds: self.drain.as_secs(),
                load_time_seconds: self.load.as_secs(),
                discovery_delay_seconds: self.discovery_delay.as_secs(),
                overhead_seconds: AROUND_A_STEP.as_secs(),
            },
        }
    }

    pub(super) fn sentence(self) -> String {
        format!(
            "each step: {} drain, {} load (--load-time), {} discovery_delay, {AROUND_A_STEP} for what is around them",
            self.drain, self.load, self.discovery_delay
        )
    }
}

fn times(each: PromDuration, count: usize) -> PromDuration {
    PromDuration::from_secs(
        each.as_secs()
            .saturating_mul(i64::try_from(count).unwrap_or(i64::MAX)),
    )
}

/// The fewest confirmed pods that any instant has, step by step.
#[derive(Debug)]
pub(super) struct Holders {
    windows: Vec<Window>,
    /// What both configurations serve: a retention that grows is held by nobody yet.
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

    /// These pods are away, then they are back with their new windows.
    pub(super) fn step(&mut self, changes: &[Change]) {
        let mut stays = vec![true; self.windows.len()];
        for change in changes
            .iter()
            .filter(|change| self.windows[change.member] != change.to.window)
        {
            stays[change.member] = false;
        }
        let held: Vec<Window> = self
            .windows
            .iter()
            .zip(&stays)
            .filter(|(_, stays)| **stays)
            .map(|(window, _)| *window)
            .collect();
        self.during.push(coverage(&held, self.both, self.now).0);
        for change in changes {
            self.windows[change.member] = change.to.window;
        }
    }

    /// The last step restarts nobody, so it is none.
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
            "each instant that both configurations serve is held by at least {} before, {fewest} in every step, {} after",
            pods(self.before),
            self.after()
        )
    }
}

fn pods(count: u32) -> String {
    format!("{count} confirmed pod{}", if count == 1 { "" } else { "s" })
}
