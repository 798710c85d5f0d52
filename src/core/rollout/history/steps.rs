//! How long the last steps of a set took besides loading, as this leader observed them.

use std::collections::{BTreeSet, VecDeque};

use crate::core::rollout::report::{PodState, SetReport};

/// Steps remembered of a StatefulSet.
const MAX_STEPS: usize = 5;
/// A step with more pods is not measured: the loads of that many differ too much.
const MAX_PODS: usize = 1_000;

#[derive(Clone, Debug)]
struct RunningStep {
    began: i64,
    pods: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct StepTimes {
    running: Option<RunningStep>,
    /// In seconds, newest last.
    waits: VecDeque<u64>,
}

impl StepTimes {
    /// Notes the pods that were given another window, and whether those of the running step are all
    /// confirmed. `now`: seconds since the epoch.
    pub(super) fn observe(&mut self, published: &[&str], report: &SetReport, now: i64) {
        if !published.is_empty() {
            // A step that another one follows early was not a whole one.
            self.running = (published.len() <= MAX_PODS).then(|| RunningStep {
                began: now,
                pods: published.iter().map(|pod| (*pod).to_owned()).collect(),
            });
            return;
        }
        let Some(step) = &self.running else { return };
        let pods = || {
            report
                .pods
                .iter()
                .filter(|pod| step.pods.contains(&pod.pod))
        };
        if pods().any(|pod| pod.state != PodState::Confirmed) {
            return;
        }
        let loads = pods().map(|pod| {
            let load = pod
                .last_load
                .filter(|load| Some(load.window) == pod.published);
            load.map(|load| load.millis / 1000)
        });
        // Without each load, what is left of the step is unknown.
        let mut loads = loads;
        let load = loads.try_fold(0_u64, |longest, load| Some(longest.max(load?)));
        if let (Some(load), Ok(took)) = (load, u64::try_from(now - step.began)) {
            self.waits.push_back(took.saturating_sub(load));
            if self.waits.len() > MAX_STEPS {
                self.waits.pop_front();
            }
        }
        self.running = None;
    }

    /// Returns the median of the last steps.
    pub(super) fn wait_seconds(&self) -> Option<u64> {
        let mut waits: Vec<u64> = self.waits.iter().copied().collect();
        waits.sort_unstable();
        waits.get(waits.len() / 2).copied()
    }
}
