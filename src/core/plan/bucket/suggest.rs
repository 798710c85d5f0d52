//! Boundaries that make the heaviest shard as light as blocks and overlap allow.
//!
//! A shard's load only grows as its older boundary moves to the past, so bisection finds the
//! lightest possible maximum; each trial extends shard after shard as far as the limit allows.
//! Boundaries lie just before a block begins or ends, so that the older shard does not load the
//! newer one's block. If there are too few such edges, today's boundaries are candidates, too. Of
//! all solutions with that maximum, the one closest to even shares is taken.

use chrono::{DateTime, Utc};

use super::{Inventory, Weights};
use crate::core::config::{Config, Sharding};
use crate::core::model::duration::PromDuration;
use crate::core::model::names;
use crate::core::model::text::counted;
use crate::core::plan::Plan;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// Ages, newest first, as in the configuration.
    pub boundaries: Vec<PromDuration>,
    /// The sharding with these boundaries, checked like every configuration.
    pub sharding: Sharding,
    /// Whether each boundary is at the edge of a block.
    pub on_block_edges: bool,
}

/// Why there are no better boundaries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuggestion {
    #[error("there is one shard, so there is no boundary to move; raise total_shards")]
    OneShard,
    /// The plan has fewer shards than the configuration.
    #[error("{} for {shards} shards; scale to at least {shards} before moving boundaries", counted(*pods, "pod"))]
    TooFewPods {
        pods: u32,
        /// As configured.
        shards: u32,
    },
    #[error("no window contains a block that counts")]
    NothingLoaded,
    #[error("no other boundaries make the largest shard smaller")]
    AlreadyBest,
    /// The configuration would refuse the boundaries.
    #[error("{0}")]
    Refused(String),
}

/// Ages at which a boundary may be.
struct Candidates {
    /// Newest first.
    ages: Vec<PromDuration>,
    /// For each age, the weight of all blocks that begin before it.
    begun: Vec<u128>,
    /// For each age, the weight of all blocks that end before a newer shard's window, which reaches
    /// beyond the age by the overlap.
    ended: Vec<u128>,
    /// `begun` at the newest end of the plan.
    first: u128,
    /// `ended` at the oldest end of the plan.
    last: u128,
    /// Number of boundaries.
    wanted: usize,
}

/// Finds boundaries that make the heaviest shard lighter than under `plan`, the plan of this
/// configuration.
///
/// # Errors
/// [`NoSuggestion`] if there are none.
pub fn suggest(
    config: &Config,
    plan: &Plan,
    inventory: &Inventory,
    weights: &Weights,
    now: DateTime<Utc>,
) -> Result<Suggestion, NoSuggestion> {
    let sharding = &config.sharding;
    let (shards, pods) = (
        plan.shards().len(),
        plan.shards().iter().map(|shard| shard.replicas).sum(),
    );
    if let Some(asked) = sharding
        .total_shards()
        .filter(|asked| *asked as usize != shards)
    {
        return Err(NoSuggestion::TooFewPods {
            pods,
            shards: asked,
        });
    }
    if shards < 2 {
        return Err(NoSuggestion::OneShard);
    }
    if weights.total() == 0 {
        return Err(NoSuggestion::NothingLoaded);
    }
    let today = weights.heaviest(plan);
    let at_edges = block_edges(inventory, plan, sharding, now);
    let mut of_today: Vec<PromDuration> = at_edges
        .iter()
        .copied()
        .chain(plan.shards().iter().skip(1).map(|shard| shard.newest_age))
        .collect();
    of_today.sort_unstable();
    of_today.dedup();
    for (ages, on_block_edges) in [(at_edges, true), (of_today, false)] {
        let Some(boundaries) = Candidates::new(ages, shards - 1, plan, sharding, weights, now)
            .lightest(today, weights.total(), shards)
        else {
            continue;
        };
        let sharding = with(config, &boundaries)?;
        let better = Plan::new(
            &sharding,
            Some(plan.shards().iter().map(|shard| shard.replicas).sum()),
        );
        if weights.heaviest(&better) < today {
            return Ok(Suggestion {
                boundaries,
                sharding,
                on_block_edges,
            });
        }
    }
    Err(NoSuggestion::AlreadyBest)
}

/// Checks boundaries as the configuration does.
fn with(config: &Config, boundaries: &[PromDuration]) -> Result<Sharding, NoSuggestion> {
    let list: Vec<String> = boundaries.iter().map(ToString::to_string).collect();
    let key = format!("{}boundaries", names::PREFIX);
    config
        .sharding_for([(key.as_str(), format!("[{}]", list.join(", ")).as_str())])
        .map_err(|refusal| NoSuggestion::Refused(refusal.to_string()))
}

/// Returns the ages just before a block begins or ends, in whole seconds, newest first.
fn block_edges(
    inventory: &Inventory,
    plan: &Plan,
    sharding: &Sharding,
    now: DateTime<Utc>,
) -> Vec<PromDuration> {
    let origin = plan.origin(now).timestamp_millis();
    let age =
        |edge: i64| PromDuration::from_secs((origin.saturating_sub(edge)).div_euclid(1_000) + 1);
    let inside = |age: &PromDuration| {
        *age > PromDuration::ZERO && sharding.retention().limit().is_none_or(|end| *age < end)
    };
    let mut ages: Vec<PromDuration> = inventory
        .blocks()
        .iter()
        .flat_map(|block| [age(block.min), age(block.max)])
        .filter(inside)
        .collect();
    ages.sort_unstable();
    ages.dedup();
    ages
}

impl Candidates {
    fn new(
        ages: Vec<PromDuration>,
        wanted: usize,
        plan: &Plan,
        sharding: &Sharding,
        weights: &Weights,
        now: DateTime<Utc>,
    ) -> Self {
        let origin = plan.origin(now).timestamp_millis();
        let (oldest, newest) = weights.span();
        let begun = ages
            .iter()
            .map(|age| weights.begun(origin - age.as_millis()))
            .collect();
        let oldest_age =
            |age: &PromDuration| (*age + sharding.overlap()).min(sharding.retention().covered());
        let ended = ages
            .iter()
            .map(|age| weights.ended(origin - oldest_age(age).as_millis()))
            .collect();
        Self {
            ages,
            begun,
            ended,
            first: weights.begun(newest),
            last: weights.ended(oldest),
            wanted,
        }
    }

    /// Returns the boundaries with the lightest heaviest shard, if it is lighter than `today`.
    fn lightest(&self, today: u128, total: u128, shards: usize) -> Option<Vec<PromDuration>> {
        if self.ages.len() < self.wanted {
            return None;
        }
        let (mut too_little, mut enough) = (
            (total / shards as u128).saturating_sub(1),
            today.checked_sub(1)?,
        );
        if !self.fits(enough) {
            return None;
        }
        while enough - too_little.min(enough) > 1 {
            let middle = too_little + (enough - too_little) / 2;
            if self.fits(middle) {
                enough = middle;
            } else {
                too_little = middle;
            }
        }
        Some(self.closest_to_even(enough, total, shards))
    }

    /// Returns the oldest candidate at which a shard that begins with `begun` may end; `None` if it
    /// is too heavy everywhere.
    fn furthest(&self, begun: u128, limit: u128) -> Option<usize> {
        self.ended
            .partition_point(|ended| begun.saturating_sub(*ended) <= limit)
            .checked_sub(1)
    }

    /// Returns the last candidate that leaves enough of them for the boundaries after this one.
    fn cap(&self, boundary: usize) -> usize {
        self.ages.len() - self.wanted + boundary
    }

    /// Whether all shards can be within the limit.
    fn fits(&self, limit: u128) -> bool {
        let (mut begun, mut next) = (self.first, 0);
        for boundary in 0..self.wanted {
            let Some(at) = self
                .furthest(begun, limit)
                .map(|at| at.min(self.cap(boundary)))
                .filter(|at| *at >= next)
            else {
                return false;
            };
            (begun, next) = (self.begun[at], at + 1);
        }
        begun.saturating_sub(self.last) <= limit
    }

    /// Chooses boundaries within a limit that fits, each as close as possible to the end of that
    /// many even shares.
    fn closest_to_even(&self, limit: u128, total: u128, shards: usize) -> Vec<PromDuration> {
        // The newest candidate for each boundary with which the older shards still fit.
        let mut newest = vec![0; self.wanted];
        let mut ended = self.last;
        for (boundary, at) in newest.iter_mut().enumerate().rev() {
            *at = self
                .begun
                .partition_point(|begun| begun.saturating_sub(ended) > limit)
                .max(boundary);
            ended = self.ended.get(*at).copied().unwrap_or(ended);
        }
        let (mut begun, mut next) = (self.first, 0);
        let mut chosen = Vec::with_capacity(self.wanted);
        for (boundary, newest) in newest.into_iter().enumerate() {
            let low = newest.max(next);
            let high = self
                .furthest(begun, limit)
                .unwrap_or(low)
                .min(self.cap(boundary))
                .max(low);
            // The weight that is newer than a boundary: all blocks, less those that began there.
            let want = self
                .first
                .saturating_sub(total * (boundary as u128 + 1) / shards as u128);
            let ideal = self.begun.partition_point(|begun| *begun > want);
            let far = |at: usize| {
                self.begun
                    .get(at)
                    .map_or(u128::MAX, |begun| begun.abs_diff(want))
            };
            let ideal = if ideal > 0 && far(ideal - 1) <= far(ideal) {
                ideal - 1
            } else {
                ideal
            };
            let at = ideal.clamp(low, high).min(self.ages.len() - 1);
            (begun, next) = (self.begun[at], at + 1);
            chosen.push(self.ages[at]);
        }
        chosen
    }
}
