//! The `sharding` keys as read, before they are checked against each other.
//!
//! One draft per layer (built-in defaults, file, annotations of a StatefulSet); a later layer
//! replaces slot by slot. Each slot remembers its place, so that a mistake across keys still points
//! at one.

use serde_saphyr::Spanned;

use super::problem::{Problem, unknown_key};
use super::retention::{FOREVER, Retention};
use super::{
    Concurrency, MAX_REPLICAS_PER_SHARD, MAX_RETENTION_DAYS, MAX_SHARDS, ShardCount, WindowFormat,
};
use crate::core::agent::handoff::ReloadMode;
use crate::core::model::duration::PromDuration;
use crate::core::model::yaml::{Node, NodeKind};

/// Source, line, column and key of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceSpan {
    pub(super) source: String,
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) key: String,
}

impl SourceSpan {
    pub(super) fn of(source: &str, key: impl Into<String>, node: &Node) -> Self {
        Self {
            source: source.to_owned(),
            line: node.referenced.line(),
            column: node.referenced.column(),
            key: key.into(),
        }
    }

    /// The same value, at the place of its key.
    pub(super) fn at(self, key: &Spanned<String>) -> Self {
        Self {
            line: key.referenced.line(),
            column: key.referenced.column(),
            ..self
        }
    }

    pub(super) fn not_accepted(&self, value: &NodeKind, right: &str) -> Problem {
        self.refuse(format!("{} is not accepted: write {right}", value.shown()))
    }

    pub(super) fn refuse(&self, why: impl Into<String>) -> Problem {
        Problem {
            source: self.source.clone(),
            line: self.line,
            column: self.column,
            key: self.key.clone(),
            why: why.into(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) place: SourceSpan,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReplicasGiven {
    Uniform(u32),
    PerShard(Vec<u32>),
}

macro_rules! layer {
    ($($slot:ident: $kind:ty,)*) => {
        /// One layer of `sharding` keys.
        #[derive(Clone, Debug, Default)]
        pub(super) struct Draft {
            $(pub(super) $slot: Option<Given<$kind>>,)*
        }

        impl Draft {
            /// This layer on top of `base`.
            pub(super) fn over(self, base: &Self) -> Self {
                let mut base = base.clone();
                if self.boundaries.is_some() {
                    // Boundaries fix the number of shards, whatever the layer below has.
                    base.total_shards = None;
                }
                Self { $($slot: self.$slot.or(base.$slot),)* }
            }
        }
    };
}

layer! {
    total_shards: ShardCount,
    replicas: ReplicasGiven,
    retention: Retention,
    overlap: PromDuration,
    future_buffer: PromDuration,
    boundaries: Vec<PromDuration>,
    window_format: WindowFormat,
    quantum: PromDuration,
    minimum_overlap: PromDuration,
    drain: PromDuration,
    termination_drain: PromDuration,
    discovery_delay: PromDuration,
    load_retry: PromDuration,
    reload: ReloadMode,
    shard_services: bool,
    allow_coverage_gap: bool,
    max_unavailable: u32,
    max_concurrent_restarts: Concurrency,
    canary: bool,
    queriers_complete: bool,
    drain_limit: PromDuration,
}

/// Every key of the `sharding` block; with dashes they are annotations, too.
pub const SHARDING_KEYS: [&str; 25] = [
    "total_shards",
    "replicas_per_shard",
    "replicas",
    "data_retention_days",
    "retention",
    "shard_overlap_days",
    "overlap",
    "future_buffer_hours",
    "future_buffer",
    "boundaries",
    "window_format",
    "quantum",
    "minimum_overlap",
    "drain",
    "termination_drain",
    "discovery_delay",
    "load_retry",
    "reload",
    "shard_services",
    "allow_coverage_gap",
    "max_unavailable",
    "max_concurrent_restarts",
    "canary",
    "queriers_complete",
    "drain_limit",
];

const MAX_DURATION: PromDuration = PromDuration::from_days(MAX_RETENTION_DAYS);
/// Of drains and delays. A longer one is surely a wrong unit.
const MAX_DELAY: PromDuration = PromDuration::from_secs(3_600);
/// Seconds, and the unit's name.
const DAY: (i64, &str) = (86_400, "days");
const HOUR: (i64, &str) = (3_600, "hours");

impl Draft {
    /// Takes one key. Unknown keys, wrong types and a second key for the same setting become
    /// problems.
    pub(super) fn set(
        &mut self,
        place: SourceSpan,
        name: &str,
        node: &Node,
        problems: &mut Vec<Problem>,
    ) {
        let key = Key {
            place,
            value: &node.value,
            problems,
        };
        match name {
            "total_shards" => key.read(&mut self.total_shards, shard_count),
            "replicas_per_shard" => key.read(&mut self.replicas, |value| {
                replicas(value).map(ReplicasGiven::Uniform)
            }),
            "replicas" => key.read(&mut self.replicas, replica_list),
            "data_retention_days" => key.read(&mut self.retention, |value| {
                scaled(value, DAY, 1).map(Retention::Limited)
            }),
            "retention" => key.read(&mut self.retention, retention),
            "shard_overlap_days" => key.read(&mut self.overlap, |value| scaled(value, DAY, 0)),
            "overlap" => key.read(&mut self.overlap, age),
            "future_buffer_hours" => key.read(&mut self.future_buffer, |value| {
                scaled(value, HOUR, -MAX_DURATION.as_secs() / HOUR.0)
            }),
            "future_buffer" => key.read(&mut self.future_buffer, |value| {
                duration(value, -MAX_DURATION.as_millis(), MAX_DURATION)
            }),
            "boundaries" => key.read(&mut self.boundaries, boundary_list),
            "window_format" => key.read(&mut self.window_format, window_format),
            "quantum" => key.read(&mut self.quantum, |value| {
                duration(value, 60_000, PromDuration::from_days(30))
            }),
            "minimum_overlap" => key.read(&mut self.minimum_overlap, age),
            "drain" => key.read(&mut self.drain, delay),
            "termination_drain" => key.read(&mut self.termination_drain, delay),
            "discovery_delay" => key.read(&mut self.discovery_delay, delay),
            "load_retry" => key.read(&mut self.load_retry, delay),
            "reload" => key.read(&mut self.reload, reload),
            "shard_services" => key.read(&mut self.shard_services, truth),
            "allow_coverage_gap" => key.read(&mut self.allow_coverage_gap, truth),
            "max_unavailable" => key.read(&mut self.max_unavailable, replicas),
            "max_concurrent_restarts" => key.read(&mut self.max_concurrent_restarts, concurrency),
            "canary" => key.read(&mut self.canary, truth),
            "queriers_complete" => key.read(&mut self.queriers_complete, truth),
            "drain_limit" => key.read(&mut self.drain_limit, drain_limit),
            other => {
                let why = unknown_key(other, &SHARDING_KEYS);
                key.problems.push(key.place.refuse(why));
            }
        }
    }
}

/// One key as it was read.
struct Key<'a> {
    place: SourceSpan,
    value: &'a NodeKind,
    problems: &'a mut Vec<Problem>,
}

impl Key<'_> {
    fn read<T>(self, slot: &mut Option<Given<T>>, read: impl Fn(&NodeKind) -> Result<T, String>) {
        let place = self.place;
        if let Some(earlier) = slot {
            let why = format!(
                "sets the same value as {}; keep one of the two",
                earlier.place.key
            );
            return self.problems.push(place.refuse(why));
        }
        match read(self.value) {
            Ok(value) => *slot = Some(Given { value, place }),
            Err(right) => self.problems.push(place.not_accepted(self.value, &right)),
        }
    }
}

fn whole(kind: &NodeKind, low: u32, high: u32) -> Result<u32, String> {
    match kind {
        NodeKind::Int(n) => u32::try_from(*n).ok().filter(|n| (low..=high).contains(n)),
        _ => None,
    }
    .ok_or_else(|| format!("a whole number from {low} to {high}"))
}

fn shard_count(kind: &NodeKind) -> Result<ShardCount, String> {
    match kind {
        NodeKind::Text(text) if text == "auto" => Ok(ShardCount::Auto),
        _ => whole(kind, 1, MAX_SHARDS)
            .map(ShardCount::Fixed)
            .map_err(|right| format!("{right}, or auto")),
    }
}

fn replicas(kind: &NodeKind) -> Result<u32, String> {
    whole(kind, 1, MAX_REPLICAS_PER_SHARD)
}

fn replica_list(kind: &NodeKind) -> Result<ReplicasGiven, String> {
    let right = || {
        format!(
            "a list with one whole number from 1 to {MAX_REPLICAS_PER_SHARD} for each shard, newest first, such as [3, 2, 2]"
        )
    };
    let NodeKind::List(items) = kind else {
        return Err(right());
    };
    let list = items
        .iter()
        .map(|item| replicas(&item.value))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| right())?;
    if list.is_empty() {
        Err(right())
    } else {
        Ok(ReplicasGiven::PerShard(list))
    }
}

/// A number of days or hours. A fraction is accepted if it gives whole seconds.
fn scaled(
    kind: &NodeKind,
    (unit_seconds, unit): (i64, &str),
    low: i64,
) -> Result<PromDuration, String> {
    let high = MAX_RETENTION_DAYS * 86_400 / unit_seconds;
    let right = || {
        format!(
            "a number of {unit} from {low} to {high}, such as 1 (or a duration under the key without the unit)"
        )
    };
    let seconds = match kind {
        NodeKind::Int(n) => n.checked_mul(unit_seconds),
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "the range was checked and the fraction is checked"
        )]
        NodeKind::Float(n) if n.is_finite() && n.abs() <= high as f64 => {
            let seconds = n * unit_seconds as f64;
            ((seconds - seconds.round()).abs() < 1e-6).then_some(seconds.round() as i64)
        }
        _ => None,
    };
    seconds
        .filter(|s| {
            *s >= low.min(0) * unit_seconds && (low <= 0 || *s > 0) && *s <= high * unit_seconds
        })
        .map(PromDuration::from_secs)
        .ok_or_else(right)
}

fn duration(kind: &NodeKind, low_millis: i64, high: PromDuration) -> Result<PromDuration, String> {
    let low = PromDuration::from_millis(low_millis);
    let right = |extra: String| {
        format!("a duration from {low} to {high} in Prometheus' units, such as 1d12h{extra}")
    };
    let NodeKind::Text(text) = kind else {
        return if *kind == NodeKind::Int(0) && low_millis <= 0 {
            Ok(PromDuration::ZERO)
        } else {
            Err(right(String::new()))
        };
    };
    let value: PromDuration = text.parse().map_err(|_| right(String::new()))?;
    if value.as_millis() % 1_000 != 0 {
        return Err(right(", in whole seconds".to_owned()));
    }
    if value < low || value > high {
        Err(right(String::new()))
    } else {
        Ok(value)
    }
}

fn retention(kind: &NodeKind) -> Result<Retention, String> {
    match kind {
        NodeKind::Text(text) if text == FOREVER => Ok(Retention::Forever),
        _ => match duration(kind, 1_000, MAX_DURATION) {
            Ok(age) => Ok(Retention::Limited(age)),
            Err(right) => Err(format!("{right}, or {FOREVER}")),
        },
    }
}

fn age(kind: &NodeKind) -> Result<PromDuration, String> {
    duration(kind, 0, MAX_DURATION)
}

fn delay(kind: &NodeKind) -> Result<PromDuration, String> {
    duration(kind, 0, MAX_DELAY)
}

/// At most 50 minutes: a sidecar drains for an hour at most, and the leader needs time to act.
fn drain_limit(kind: &NodeKind) -> Result<PromDuration, String> {
    duration(kind, 60_000, PromDuration::from_secs(3_000))
}

fn concurrency(kind: &NodeKind) -> Result<Concurrency, String> {
    let percent = match kind {
        NodeKind::Text(text) => text.strip_suffix('%').and_then(|n| n.parse::<u32>().ok()),
        _ => None,
    };
    match percent.filter(|percent| (1..=100).contains(percent)) {
        Some(percent) => Ok(Concurrency::Percent(percent)),
        None => whole(kind, 1, super::MAX_PODS)
            .map(Concurrency::Pods)
            .map_err(|right| format!("{right}, or a share from 1% to 100%")),
    }
}

fn boundary_list(kind: &NodeKind) -> Result<Vec<PromDuration>, String> {
    let right = || "a list of ages, newest first, such as [14d, 90d]".to_owned();
    let NodeKind::List(items) = kind else {
        return Err(right());
    };
    if items.len() >= MAX_SHARDS as usize {
        return Err(format!("at most {} ages", MAX_SHARDS - 1));
    }
    let mut list = Vec::with_capacity(items.len());
    for item in items {
        let age = duration(&item.value, 1_000, MAX_DURATION);
        list.push(
            age.map_err(|why| format!("{}; {} is not: write {why}", right(), item.value.shown()))?,
        );
    }
    Ok(list)
}

fn choice<T: Copy>(kind: &NodeKind, choices: [(&str, T); 2]) -> Result<T, String> {
    let chosen = match kind {
        NodeKind::Text(text) => choices.iter().find(|(name, _)| name == text),
        _ => None,
    };
    chosen
        .map(|(_, value)| *value)
        .ok_or_else(|| choices.map(|(name, _)| name).join(" or "))
}

fn window_format(kind: &NodeKind) -> Result<WindowFormat, String> {
    choice(
        kind,
        [
            ("relative", WindowFormat::Relative),
            ("absolute", WindowFormat::Absolute),
        ],
    )
}

fn reload(kind: &NodeKind) -> Result<ReloadMode, String> {
    choice(
        kind,
        [ReloadMode::Exec, ReloadMode::Signal].map(|mode| (mode.name(), mode)),
    )
}

fn truth(kind: &NodeKind) -> Result<bool, String> {
    match kind {
        NodeKind::Bool(value) => Ok(*value),
        _ => Err("true or false".to_owned()),
    }
}
