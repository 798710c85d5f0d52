//! Checks that the whole retention is served while the pods change.
//!
//! Invariant: judges only by what the sidecars answer, never by what the leader decided.

use std::time::Duration;

use super::super::Failure;
use crate::adapters::clock;
use crate::core::config::Sharding;
use crate::core::kube::observed::PodAnswer;
use crate::core::model::window::Window;
use crate::core::rollout::planner;

/// The pause between two samples.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// The samples so far.
#[derive(Default)]
pub(super) struct Coverage {
    /// The range that must be served; `None` until every pod is confirmed for the first time.
    required: Option<Window>,
    /// Whether the configuration permits a gap during a rollout.
    gap_allowed: bool,
    samples: u32,
    /// Samples in which no ready pod served some instant.
    gaps: u32,
    /// The fewest ready pods that served any instant.
    fewest: Option<u32>,
}

impl Coverage {
    /// Requires what both shardings serve, from now on.
    pub(super) fn require(&mut self, before: &Sharding, after: &Sharding) {
        self.required = Some(before.required_by_both(after));
        self.gap_allowed = after.allow_coverage_gap();
    }

    /// Takes one sample. Fails on a gap that the configuration does not permit.
    pub(super) fn sample<'a>(
        &mut self,
        answers: impl Iterator<Item = &'a PodAnswer>,
    ) -> Result<(), Failure> {
        let Some(required) = self.required else {
            return Ok(());
        };
        let served = |answer: &PodAnswer| match answer {
            PodAnswer::Status(status) if status.phase.is_ready() => status.applied,
            _ => None,
        };
        let windows: Vec<Window> = answers.filter_map(served).collect();
        let (fewest, holes) = planner::coverage(&windows, required, clock::now());
        self.samples += 1;
        self.fewest = Some(self.fewest.map_or(fewest, |before| before.min(fewest)));
        self.gaps += u32::from(!holes.is_empty());
        match holes.first() {
            Some((from, to)) if !self.gap_allowed => Err(Failure::Failed(format!(
                "no ready pod served {from} .. {to} for a moment; this must never happen"
            ))),
            _ => Ok(()),
        }
    }

    /// Sums up the samples in a sentence.
    pub(super) fn sentence(&self) -> String {
        let samples = format!(
            "{} samples, one every {} ms",
            self.samples,
            SAMPLE_EVERY.as_millis()
        );
        if self.gaps > 0 {
            return format!(
                "{samples}: in {} of them no ready pod served some part of the retention, which allow_coverage_gap permits.",
                self.gaps
            );
        }
        let fewest = self.fewest.unwrap_or(0);
        format!(
            "{samples}: the whole retention was always served by at least {fewest} ready pod{}.",
            if fewest == 1 { "" } else { "s" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::agent::status::{AgentStatus, Phase};

    fn answer(phase: Phase, window: &str) -> PodAnswer {
        let (min, max) = window.split_once(" .. ").unwrap();
        PodAnswer::Status(Box::new(AgentStatus {
            phase,
            applied: Some(Window {
                min: min.parse().unwrap(),
                max: max.parse().unwrap(),
            }),
            ..AgentStatus::default()
        }))
    }

    #[test]
    fn a_sample_fails_where_no_ready_pod_serves_an_instant() {
        let mut coverage = Coverage::default();
        coverage.sample([].iter()).unwrap();
        coverage.require(&Sharding::default(), &Sharding::default());
        let newer = answer(Phase::Serving, "-100d .. 1d");
        let older = answer(Phase::Serving, "-370d .. -99d");
        coverage
            .sample([&newer, &newer, &older].into_iter())
            .unwrap();
        assert_eq!(
            coverage.sentence(),
            "1 samples, one every 100 ms: the whole retention was always served by at least 1 ready pod."
        );
        for older in [
            answer(Phase::Draining, "-370d .. -99d"),
            answer(Phase::Serving, "-370d .. -101d"),
            answer(Phase::Serving, "-369d .. -99d"),
        ] {
            coverage.sample([&newer, &older].into_iter()).unwrap_err();
        }
        coverage.gap_allowed = true;
        coverage.sample([&newer].into_iter()).unwrap();
        assert_eq!(
            (coverage.samples, coverage.gaps, coverage.fewest),
            (5, 4, Some(0))
        );
    }
}
