//! How long the rest of a rollout takes, from what was measured in this set.
//!
//! A step takes what its pods wait for (drain, discovery delay, or the queriers) and the longest
//! load of its pods. A load is estimated from the blocks that are on the pod's disk and those that
//! it has to download, each at the rate of the set's last loads. Deliberately absent: a guess.
//! Before any pod has loaded, the time is unknown.

mod sizes;

use chrono::{DateTime, Utc};

pub use crate::core::agent::last_load::LastLoad;
use crate::core::model::duration::PromDuration;
use crate::core::model::text::counted;
use crate::core::model::window::Window;
use crate::core::rollout::report::{ForecastReport, SetReport, StepReport};

pub use sizes::{Sizes, Untried};

/// The overhead of a step: closing PDBs, writing the ConfigMap and syncing it to the pods, reading
/// the flags back, the next reconciliation. Measured in rollouts of 4 steps on a real cluster:
/// 4.25 s with the default periods, 3.75 s with short ones.
pub const STEP_OVERHEAD: PromDuration = PromDuration::from_secs(4);
/// A load with at most this share of downloaded blocks, 1 / 20, shows how long a block on the disk
/// takes; a load with more shows how long a downloaded one takes.
const FEW: u64 = 20;

/// What one pod reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodLoad {
    pub applied: Option<Window>,
    /// Blocks that it has loaded now.
    pub blocks: Option<u64>,
    /// Blocks of the bucket that are older than its window.
    pub older: Option<u64>,
    pub last_load: Option<LastLoad>,
}

/// How fast the pods of a set load. Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadRates {
    /// Of a block whose index header is on the disk.
    present: Option<f64>,
    /// Of a block that is downloaded.
    new: Option<f64>,
    /// The longest load.
    longest: Option<u64>,
    /// Pods that have measured a load.
    pods: usize,
}

impl LoadRates {
    #[must_use]
    pub fn new(pods: &[PodLoad]) -> Self {
        let loads = || pods.iter().filter_map(|pod| pod.last_load);
        let counts = || {
            loads().filter_map(|load| {
                let (present, new) = load.counts()?;
                let is_new = new.saturating_mul(FEW) > present.saturating_add(new);
                (present.saturating_add(new) > 0).then_some((load.millis, present, new, is_new))
            })
        };
        let present = median(
            counts()
                .filter(|(.., is_new)| !is_new)
                .map(|(millis, present, new, _)| number(millis) / number(present + new)),
        );
        let new = median(counts().filter(|(.., is_new)| *is_new).map(
            |(millis, before, new, _)| {
                // Without a rate of their own, blocks on the disk take as long as the others.
                present.map_or_else(
                    || number(millis) / number(before + new),
                    |rate| (number(millis) - rate * number(before)).max(0.0) / number(new),
                )
            },
        ));
        Self {
            present: present.or(new),
            new,
            longest: loads().map(|load| load.millis).max(),
            pods: loads().count(),
        }
    }

    /// Estimates a load from the blocks on the disk and those to download. Milliseconds; `None` if
    /// no load has shown it.
    fn estimate(self, present: u64, new: u64) -> Option<f64> {
        let loaded = self.present? * number(present);
        if new.saturating_mul(FEW) <= present.saturating_add(new) {
            Some(loaded + self.new.or(self.present)? * number(new))
        } else {
            Some(loaded + self.new? * number(new))
        }
    }
}

/// Estimates loads of one set.
#[derive(Clone, Debug)]
pub struct Forecast {
    sizes: Sizes,
    rates: LoadRates,
    now: DateTime<Utc>,
}

impl Forecast {
    #[must_use]
    pub fn new(pods: &[PodLoad], now: DateTime<Utc>) -> Self {
        Self {
            sizes: Sizes::new(pods, now),
            rates: LoadRates::new(pods),
            now,
        }
    }

    #[must_use]
    pub const fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// Estimates how long a pod takes that goes from one window to another, in seconds. Where the
    /// blocks are unknown, as long as the pod's last load, or as the longest one of the set; `None`
    /// before any load was measured.
    #[must_use]
    pub fn load_seconds(
        &self,
        last: Option<LastLoad>,
        from: Option<Window>,
        to: Window,
    ) -> Option<u64> {
        let estimate = || {
            let all = self.sizes.blocks(to)?;
            let present = match from.map(|from| self.common(from, to)) {
                Some(Some(common)) => self.sizes.blocks(common)?.min(all),
                Some(None) | None => 0,
            };
            self.rates.estimate(present, all - present)
        };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and saturating"
        )]
        let millis = estimate()
            .map(|millis| millis as u64)
            .or(last.map(|load| load.millis))
            .or(self.rates.longest)?;
        Some(millis.div_ceil(1000))
    }

    /// Returns the part that two windows share.
    fn common(&self, a: Window, b: Window) -> Option<Window> {
        let min = if a.min.at(self.now) > b.min.at(self.now) {
            a.min
        } else {
            b.min
        };
        let max = if a.max.at(self.now) < b.max.at(self.now) {
            a.max
        } else {
            b.max
        };
        (min.at(self.now) < max.at(self.now)).then_some(Window { min, max })
    }

    /// Says what the estimates rest on.
    #[must_use]
    pub fn basis(&self) -> String {
        let rates = self.rates;
        if rates.pods == 0 {
            return "unknown, no pod has loaded yet".to_owned();
        }
        let last = format!("the last loads of {}", counted(rates.pods as u64, "pod"));
        match (rates.present, rates.new) {
            (Some(present), Some(new)) => format!(
                "from {last}: {} for 1,000 blocks downloaded, {} for 1,000 on the disk",
                per_thousand(new),
                per_thousand(present)
            ),
            (Some(present), None) => format!(
                "from {last}: {} for 1,000 blocks on the disk; no pod has downloaded many, so a download counts as the last load",
                per_thousand(present)
            ),
            (None, _) => format!("as long as {last}, whose blocks are unknown"),
        }
    }
}

/// Adds the steps up. `measured_wait`: what a step of this set took besides loading, where queriers
/// end the waits; it counts only if it is shorter.
pub fn add_up(report: &mut SetReport, measured_wait: Option<u64>) {
    let listed = u32::try_from(report.steps.len()).unwrap_or(u32::MAX);
    let Some(forecast) = &mut report.forecast else {
        return;
    };
    if let Some(wait) = measured_wait.filter(|_| forecast.waits_can_end_early) {
        forecast.step_measured = wait < forecast.step_seconds;
        forecast.step_seconds = forecast.step_seconds.min(wait);
        if let Some(running) = &mut forecast.running_wait_seconds {
            *running = (*running).min(wait);
        }
    }
    let wait = forecast.step_seconds;
    let running = match forecast.running_wait_seconds {
        Some(left) => forecast
            .running_load_seconds
            .map(|load| left.saturating_add(load)),
        None => Some(0),
    };
    let steps = |step: &StepReport| Some(wait.saturating_add(step.load_seconds?));
    // More steps than are listed take as long as the longest of these.
    let more = u64::from(report.steps_left.saturating_sub(listed));
    let longest = report.steps.iter().filter_map(steps).max();
    let rest = if more == 0 {
        Some(0)
    } else {
        longest.map(|longest| longest.saturating_mul(more))
    };
    forecast.seconds = report
        .steps
        .iter()
        .map(steps)
        .chain([running, rest])
        .try_fold(0, |sum: u64, part| Some(sum.saturating_add(part?)));
    report.eta_seconds = forecast
        .seconds
        .unwrap_or_else(|| least(forecast, report.steps_left));
}

/// The waits alone.
fn least(forecast: &ForecastReport, steps: u32) -> u64 {
    u64::from(steps)
        .saturating_mul(forecast.step_seconds)
        .saturating_add(forecast.running_wait_seconds.unwrap_or(0))
}

fn per_thousand(millis: f64) -> String {
    // Milliseconds for one are seconds for a thousand.
    if millis < 10.0 {
        format!("{millis:.1} s")
    } else {
        format!("{millis:.0} s")
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[allow(
    clippy::cast_precision_loss,
    reason = "blocks and milliseconds are below 2^53"
)]
const fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
