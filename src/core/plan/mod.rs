//! The plan: the shard of each pod and the window of each shard.
//!
//! Invariants (property-tested in `plan/tests.rs`): every instant from `now - retention` to `now +
//! future_buffer` is in a window; adjacent windows overlap by at least the configured overlap; the
//! oldest window ends exactly at the retention; with enough pods every instant has at least the
//! configured number of replicas. Deliberately absent: published and running windows.

pub mod bucket;

use std::fmt;

use chrono::{DateTime, Utc};

use super::config::{MAX_PODS, Sharding, WindowFormat};
use crate::core::model::duration::PromDuration;
use crate::core::model::text::{counted, listed};
use crate::core::model::window::{Bound, Window};

/// A time window and how many pods serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Age of the newer edge, without future buffer.
    pub newest_age: PromDuration,
    /// Age of the older edge, with overlap; `None` for the oldest window with `retention: forever`.
    pub oldest_age: Option<PromDuration>,
    /// Pods that serve it, without surplus ones.
    pub replicas: u32,
    /// Index of its first pod.
    first_index: u32,
}

/// A pod's place in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Newest first.
    pub shard: u32,
    /// Number within the shard.
    pub replica: u32,
    /// Whether the plan does not need the pod.
    pub surplus: bool,
}

/// A remark on a plan for its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    NoPods,
    /// Fewer pods than shards: fewer shards are planned, and the oldest is larger.
    FewerShards {
        pods: u32,
        /// As configured.
        shards: u32,
    },
    /// Fewer pods than the plan needs: the newest shards get more replicas than the others.
    FewerReplicas {
        pods: u32,
        /// Pods that would fill the plan.
        wanted: u32,
        /// Replicas of each shard, newest first.
        replicas: Vec<u32>,
    },
    /// More pods than the plan needs: extra replicas of the newest shard.
    Surplus {
        pods: u32,
        /// Pods that fill the plan.
        wanted: u32,
    },
    /// Shards with one replica are unserved while it restarts.
    SingleReplica {
        /// Newest first.
        shards: Vec<u32>,
    },
    /// A shard is shorter than the overlap and loads mostly the same blocks as the next one.
    WideOverlap {
        /// The first such shard.
        shard: u32,
        /// Without the overlap.
        length: PromDuration,
        overlap: PromDuration,
    },
    /// Pods restart while queriers may still use them.
    ShortDrain {
        drain: PromDuration,
        discovery_delay: PromDuration,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    shards: Vec<Shard>,
    planned_pods: u32,
    future_buffer: PromDuration,
    format: WindowFormat,
    quantum: PromDuration,
    /// How old an absolute window may be before every pod has the next one.
    lag: PromDuration,
    notes: Vec<Note>,
}

impl Plan {
    /// Plans for `pods` pods (`spec.replicas`, or the target while scaling down). `None` means as many
    /// as fill the plan; with `total_shards: auto` that is one shard.
    #[must_use]
    pub fn new(sharding: &Sharding, pods: Option<u32>) -> Self {
        let pods = pods
            .unwrap_or_else(|| {
                sharding
                    .nominal_pods()
                    .unwrap_or_else(|| sharding.replicas_of(0))
            })
            .min(MAX_PODS);
        let asked = sharding
            .total_shards()
            .unwrap_or_else(|| (pods / sharding.replicas_of(0)).clamp(1, sharding.max_shards()));
        let count = asked.min(pods);
        let replicas = share(sharding, count, asked, pods);
        let edges = edges(sharding, asked, count);
        let mut first_index = 0;
        let mut shards = Vec::with_capacity(replicas.len());
        for (i, replicas) in replicas.iter().copied().enumerate() {
            let retention = sharding.retention().limit();
            // The oldest shard ends at the retention; without a limit it has no end.
            let edge = edges.get(i + 1).copied().or(retention);
            let oldest_age = edge
                .map(|edge| edge + sharding.overlap())
                .map(|age| retention.map_or(age, |end| age.min(end)));
            shards.push(Shard {
                newest_age: edges[i],
                oldest_age,
                replicas,
                first_index,
            });
            first_index += replicas;
        }
        let mut plan = Self {
            shards,
            planned_pods: first_index,
            future_buffer: sharding.future_buffer(),
            format: sharding.window_format(),
            quantum: sharding.quantum(),
            lag: sharding.quantum() + sharding.rollout_time(),
            notes: Vec::new(),
        };
        plan.notes = plan.notes_on(sharding, asked, pods);
        plan
    }

    /// Newest first.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Most important first.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Returns the place of the pod with this index (ordinal minus `spec.ordinals.start`). Pods that
    /// the plan does not need are extra replicas of the newest shard.
    #[must_use]
    pub fn assign(&self, index: u32) -> Assignment {
        let surplus = index >= self.planned_pods;
        if surplus {
            let first = self.shards.first().map_or(0, |shard| shard.replicas);
            return Assignment {
                shard: 0,
                replica: first + (index - self.planned_pods),
                surplus,
            };
        }
        // Shards are never empty, so the last one that begins at or before the index has it.
        let shard = self
            .shards
            .partition_point(|shard| shard.first_index <= index)
            .saturating_sub(1);
        Assignment {
            shard: u32::try_from(shard).unwrap_or(u32::MAX),
            replica: index - self.shards[shard].first_index,
            surplus,
        }
    }

    /// Returns the window of a shard. `now` matters for absolute windows only.
    #[must_use]
    pub fn window(&self, shard: u32, now: DateTime<Utc>) -> Window {
        let Some(found) = self.shards.get(shard as usize).or(self.shards.last()) else {
            // Without pods any window will do.
            return Window::relative(
                PromDuration::ZERO.min(self.future_buffer - PromDuration::from_secs(1)),
                self.future_buffer,
            );
        };
        let newest = if found.newest_age == PromDuration::ZERO {
            self.future_buffer
        } else {
            -found.newest_age
        };
        match self.format {
            WindowFormat::Relative => {
                let min = found
                    .oldest_age
                    .map_or(Bound::BEGINNING, |age| Bound::Relative(-age));
                Window {
                    min,
                    max: Bound::Relative(newest),
                }
            }
            WindowFormat::Absolute => {
                let base = self.origin(now);
                let lag = if found.newest_age == PromDuration::ZERO {
                    self.lag
                } else {
                    PromDuration::ZERO
                };
                let at = |age: PromDuration| Bound::Absolute(Bound::Relative(age).at(base));
                Window {
                    min: found.oldest_age.map_or(Bound::BEGINNING, |age| at(-age)),
                    max: at(newest + lag),
                }
            }
        }
    }

    /// Returns the instant that ages refer to: now, or the last quantum for absolute windows.
    #[must_use]
    pub fn origin(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self.format {
            WindowFormat::Relative => now,
            WindowFormat::Absolute => floor(now, self.quantum),
        }
    }

    fn notes_on(&self, sharding: &Sharding, asked: u32, pods: u32) -> Vec<Note> {
        let mut notes = Vec::new();
        let wanted: u32 = (0..asked).map(|shard| sharding.replicas_of(shard)).sum();
        if pods == 0 {
            return vec![Note::NoPods];
        }
        if pods < asked {
            notes.push(Note::FewerShards {
                pods,
                shards: asked,
            });
        } else if pods < wanted && sharding.total_shards().is_some() {
            notes.push(Note::FewerReplicas {
                pods,
                wanted,
                replicas: self.shards.iter().map(|shard| shard.replicas).collect(),
            });
        } else if pods > wanted {
            notes.push(Note::Surplus { pods, wanted });
        }
        let single: Vec<u32> = (0..)
            .zip(&self.shards)
            .filter(|(i, shard)| shard.replicas == 1 && !(*i == 0 && pods > wanted))
            .map(|(i, _)| i)
            .collect();
        if !single.is_empty() {
            notes.push(Note::SingleReplica { shards: single });
        }
        let overlap = sharding.overlap();
        let length = |pair: &[Shard]| pair[1].newest_age - pair[0].newest_age;
        if let Some((shard, pair)) = (0..)
            .zip(self.shards.windows(2))
            .find(|(_, pair)| length(pair) < overlap)
        {
            notes.push(Note::WideOverlap {
                shard,
                length: length(pair),
                overlap,
            });
        }
        let (drain, discovery_delay) = (sharding.drain(), sharding.discovery_delay());
        if drain < discovery_delay {
            notes.push(Note::ShortDrain {
                drain,
                discovery_delay,
            });
        }
        notes
    }
}

/// Returns the last multiple of `quantum` since the epoch at or before `now`.
fn floor(now: DateTime<Utc>, quantum: PromDuration) -> DateTime<Utc> {
    let step = quantum.as_millis().max(1);
    DateTime::from_timestamp_millis(now.timestamp_millis().div_euclid(step) * step).unwrap_or(now)
}

/// Returns the replicas of `count` of the `asked` shards. If there are too few pods, the largest
/// shard loses one, the oldest first among equals, so that the newest shards keep the larger share.
fn share(sharding: &Sharding, count: u32, asked: u32, pods: u32) -> Vec<u32> {
    if count < asked {
        return vec![1; count as usize];
    }
    let mut replicas: Vec<u32> = (0..count)
        .map(|shard| sharding.replicas_of(shard))
        .collect();
    let mut excess = replicas.iter().sum::<u32>().saturating_sub(pods);
    while excess > 0 {
        let Some(largest) = replicas.iter().copied().max() else {
            break;
        };
        // One level at a time, so that the loop runs at most as often as a shard has replicas.
        for slot in replicas.iter_mut().rev().filter(|slot| **slot == largest) {
            if excess == 0 {
                break;
            }
            *slot -= 1;
            excess -= 1;
        }
    }
    replicas
}

/// Returns the ages at which `count` of the `asked` shards begin, newest first. With fewer shards
/// than asked for, the oldest one reaches to the retention and the others keep their places.
fn edges(sharding: &Sharding, asked: u32, count: u32) -> Vec<PromDuration> {
    let retention = sharding.retention().covered();
    let equal = |i: u32| {
        // In whole seconds, so that 12 shards of 370 days end at 370 days.
        let seconds = i128::from(retention.as_secs()) * i128::from(i) / i128::from(asked.max(1));
        PromDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
    };
    match sharding.boundaries() {
        [] => (0..count).map(equal).collect(),
        given => std::iter::once(PromDuration::ZERO)
            .chain(given.iter().copied())
            .take(count as usize)
            .collect(),
    }
}

/// Numbers in one sentence.
const MAX_LISTED: usize = 20;

impl Note {
    /// The reason of the Event.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoPods => "NoPods",
            Self::FewerShards { .. } | Self::FewerReplicas { .. } | Self::Surplus { .. } => {
                "ReplicasDoNotFit"
            }
            Self::SingleReplica { .. } => "SingleReplica",
            Self::WideOverlap { .. } => "WideOverlap",
            Self::ShortDrain { .. } => "ShortDrain",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &[u32]| {
            listed(
                &numbers.iter().map(u32::to_string).collect::<Vec<_>>(),
                MAX_LISTED,
            )
        };
        let pods_of = |pods: &u32| counted(*pods, "pod");
        match self {
            Self::NoPods => f.write_str("there are no pods: nothing is served"),
            Self::FewerShards { pods, shards } => write!(
                f,
                "{} for {}: only {} {} planned and the oldest one reaches back to the retention, so it is larger; scale to at least {shards}",
                pods_of(pods),
                counted(*shards, "shard"),
                counted(*pods, "shard"),
                if *pods == 1 { "is" } else { "are" }
            ),
            Self::FewerReplicas {
                pods,
                wanted,
                replicas,
            } => write!(
                f,
                "{} where {wanted} fill the plan: the shards have {} replicas, newest first; no window is larger than planned",
                pods_of(pods),
                list(replicas)
            ),
            Self::Surplus { pods, wanted } => {
                let more = pods - wanted;
                let are = if more == 1 {
                    "is an extra replica"
                } else {
                    "are extra replicas"
                };
                write!(
                    f,
                    "{} where {wanted} fill the plan: {more} {are} of the newest shard; raise total_shards to use them",
                    pods_of(pods)
                )
            }
            Self::SingleReplica { shards } => {
                write!(
                    f,
                    "one replica serves shard {}: while it restarts, its part of the time is missing; use at least 2",
                    list(shards)
                )
            }
            Self::ShortDrain {
                drain,
                discovery_delay,
            } => write!(
                f,
                "a drain of {drain} is shorter than discovery_delay ({discovery_delay}): a querier may still use a pod that restarts with a new window; make drain at least {discovery_delay}, or set discovery_delay to the time that your queriers really take"
            ),
            Self::WideOverlap {
                shard,
                length,
                overlap,
            } => {
                write!(
                    f,
                    "shard {shard} is {length} long and overlaps by {overlap}: most of it is loaded twice; use fewer shards or a smaller overlap"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;
