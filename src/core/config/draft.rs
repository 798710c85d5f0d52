//! The `sharding` keys as they are read, before anything is checked against anything else.
//!
//! One draft per layer (built-in defaults, file, annotations of a StatefulSet); a later layer replaces slot by slot.
//! Each slot remembers where it was given, so that a mistake that only shows across keys still points at a place.

use super::super::duration::PromDuration;
use super::super::located::{Kind, Node};
use super::problem::Problem;
use super::retention::{FOREVER, Retention};
use super::{
    MAX_REPLICAS_PER_SHARD, MAX_RETENTION_DAYS, MAX_SHARDS, Reload, ShardCount, WindowFormat,
};

/// Where a value was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) source: String,
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) key: String,
}

impl Place {
    pub(super) fn of(source: &str, key: impl Into<String>, node: &Node) -> Self {
        Self {
            source: source.to_owned(),
            line: node.referenced.line(),
            column: node.referenced.column(),
            key: key.into(),
        }
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

/// A value and where it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// How many pods serve each shard, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReplicasGiven {
    Uniform(u32),
    PerShard(Vec<u32>),
}

/// One layer of `sharding` keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) total_shards: Option<Given<ShardCount>>,
    pub(super) replicas: Option<Given<ReplicasGiven>>,
    pub(super) retention: Option<Given<Retention>>,
    pub(super) overlap: Option<Given<PromDuration>>,
    pub(super) future_buffer: Option<Given<PromDuration>>,
    pub(super) boundaries: Option<Given<Vec<PromDuration>>>,
    pub(super) window_format: Option<Given<WindowFormat>>,
    pub(super) quantum: Option<Given<PromDuration>>,
    pub(super) minimum_overlap: Option<Given<PromDuration>>,
    pub(super) drain: Option<Given<PromDuration>>,
    pub(super) termination_drain: Option<Given<PromDuration>>,
    pub(super) discovery_delay: Option<Given<PromDuration>>,
    pub(super) load_retry: Option<Given<PromDuration>>,
    pub(super) reload: Option<Given<Reload>>,
    pub(super) shard_services: Option<Given<bool>>,
    pub(super) allow_coverage_gap: Option<Given<bool>>,
}

/// Every key of the `sharding` block, for messages and for the annotations that are ours.
pub const SHARDING_KEYS: [&str; 20] = [
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
];

/// The longest duration of any kind.
const LONGEST: PromDuration = PromDuration::from_days(MAX_RETENTION_DAYS);
/// The longest drain or delay. Longer ones are a wrong unit, not a wish.
const MAX_DELAY: PromDuration = PromDuration::from_secs(3_600);

impl Draft {
    /// Takes one key. Unknown keys, wrong types and two keys for one thing become problems.
    pub(super) fn set(
        &mut self,
        place: Place,
        name: &str,
        node: &Node,
        problems: &mut Vec<Problem>,
    ) {
        let kind = &node.value;
        match name {
            "total_shards" => take(&mut self.total_shards, place, kind, shard_count, problems),
            "replicas_per_shard" => take(
                &mut self.replicas,
                place,
                kind,
                |k| replicas(k).map(ReplicasGiven::Uniform),
                problems,
            ),
            "replicas" => take(&mut self.replicas, place, kind, replica_list, problems),
            "data_retention_days" => {
                take(
                    &mut self.retention,
                    place,
                    kind,
                    |k| scaled(k, 86_400, "days", 1).map(Retention::Limited),
                    problems,
                );
            }
            "retention" => take(&mut self.retention, place, kind, retention, problems),
            "shard_overlap_days" => take(
                &mut self.overlap,
                place,
                kind,
                |k| scaled(k, 86_400, "days", 0),
                problems,
            ),
            "overlap" => take(
                &mut self.overlap,
                place,
                kind,
                |k| duration(k, 0, LONGEST),
                problems,
            ),
            "future_buffer_hours" => {
                take(
                    &mut self.future_buffer,
                    place,
                    kind,
                    |k| scaled(k, 3_600, "hours", -LONGEST.as_secs() / 3_600),
                    problems,
                );
            }
            "future_buffer" => take(
                &mut self.future_buffer,
                place,
                kind,
                |k| duration(k, -LONGEST.as_millis(), LONGEST),
                problems,
            ),
            "boundaries" => take(&mut self.boundaries, place, kind, boundary_list, problems),
            "window_format" => take(
                &mut self.window_format,
                place,
                kind,
                window_format,
                problems,
            ),
            "quantum" => take(
                &mut self.quantum,
                place,
                kind,
                |k| duration(k, 60_000, PromDuration::from_days(30)),
                problems,
            ),
            "minimum_overlap" => take(
                &mut self.minimum_overlap,
                place,
                kind,
                |k| duration(k, 0, LONGEST),
                problems,
            ),
            "drain" => take(&mut self.drain, place, kind, delay, problems),
            "termination_drain" => take(&mut self.termination_drain, place, kind, delay, problems),
            "discovery_delay" => take(&mut self.discovery_delay, place, kind, delay, problems),
            "load_retry" => take(&mut self.load_retry, place, kind, delay, problems),
            "reload" => take(&mut self.reload, place, kind, reload, problems),
            "shard_services" => take(&mut self.shard_services, place, kind, truth, problems),
            "allow_coverage_gap" => {
                take(&mut self.allow_coverage_gap, place, kind, truth, problems)
            }
            other => problems.push(place.refuse(unknown_key(other, &SHARDING_KEYS))),
        }
    }

    /// This layer on top of `base`.
    pub(super) fn over(self, base: &Self) -> Self {
        let mut base = base.clone();
        if self.boundaries.is_some() {
            // Boundaries say how many shards there are; the layer below may have said otherwise.
            base.total_shards = None;
        }
        Self {
            total_shards: self.total_shards.or(base.total_shards),
            replicas: self.replicas.or(base.replicas),
            retention: self.retention.or(base.retention),
            overlap: self.overlap.or(base.overlap),
            future_buffer: self.future_buffer.or(base.future_buffer),
            boundaries: self.boundaries.or(base.boundaries),
            window_format: self.window_format.or(base.window_format),
            quantum: self.quantum.or(base.quantum),
            minimum_overlap: self.minimum_overlap.or(base.minimum_overlap),
            drain: self.drain.or(base.drain),
            termination_drain: self.termination_drain.or(base.termination_drain),
            discovery_delay: self.discovery_delay.or(base.discovery_delay),
            load_retry: self.load_retry.or(base.load_retry),
            reload: self.reload.or(base.reload),
            shard_services: self.shard_services.or(base.shard_services),
            allow_coverage_gap: self.allow_coverage_gap.or(base.allow_coverage_gap),
        }
    }
}

/// A sentence for a key that does not exist, with the nearest one that does.
#[must_use]
pub fn unknown_key(given: &str, known: &[&str]) -> String {
    match nearest(given, known) {
        Some(key) => format!("this key is unknown; did you mean {key}?"),
        None => format!(
            "this key is unknown; the keys here are {}",
            known.join(", ")
        ),
    }
}

/// The key that was probably meant.
pub(super) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|key| (edit_distance(given, key), *key))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, key)| key)
}

/// Edit distance, for "did you mean".
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn take<T>(
    slot: &mut Option<Given<T>>,
    place: Place,
    kind: &Kind,
    read: impl Fn(&Kind) -> Result<T, String>,
    problems: &mut Vec<Problem>,
) {
    if let Some(earlier) = slot {
        problems.push(place.refuse(format!(
            "says the same thing as {}; keep one of the two",
            earlier.place.key
        )));
        return;
    }
    match read(kind) {
        Ok(value) => *slot = Some(Given { value, place }),
        Err(right) => {
            problems.push(place.refuse(format!("{} is not accepted: write {right}", kind.shown())))
        }
    }
}

fn whole(kind: &Kind, low: u32, high: u32) -> Result<u32, String> {
    match kind {
        Kind::Int(n) => u32::try_from(*n).ok().filter(|n| (low..=high).contains(n)),
        _ => None,
    }
    .ok_or_else(|| format!("a whole number from {low} to {high}"))
}

fn shard_count(kind: &Kind) -> Result<ShardCount, String> {
    match kind {
        Kind::Text(text) if text == "auto" => Ok(ShardCount::Auto),
        _ => whole(kind, 1, MAX_SHARDS)
            .map(ShardCount::Fixed)
            .map_err(|right| format!("{right}, or auto")),
    }
}

fn replicas(kind: &Kind) -> Result<u32, String> {
    whole(kind, 1, MAX_REPLICAS_PER_SHARD)
}

fn replica_list(kind: &Kind) -> Result<ReplicasGiven, String> {
    let right = || {
        format!(
            "a list with one whole number from 1 to {MAX_REPLICAS_PER_SHARD} for each shard, newest first, such as [3, 2, 2]"
        )
    };
    let Kind::List(items) = kind else {
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

/// A number of days or hours; a fraction is fine as long as it comes to whole seconds.
fn scaled(kind: &Kind, unit_seconds: i64, unit: &str, low: i64) -> Result<PromDuration, String> {
    let high = MAX_RETENTION_DAYS * 86_400 / unit_seconds;
    let right = || {
        format!(
            "a number of {unit} from {low} to {high}, such as 1 (or a duration under the key without the unit)"
        )
    };
    let seconds = match kind {
        Kind::Int(n) => n.checked_mul(unit_seconds),
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "the range was checked and the fraction is checked"
        )]
        Kind::Float(n) if n.is_finite() && n.abs() <= high as f64 => {
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

fn duration(kind: &Kind, low_millis: i64, high: PromDuration) -> Result<PromDuration, String> {
    let low = PromDuration::from_millis(low_millis);
    let right = |extra: String| {
        format!("a duration from {low} to {high} in Prometheus' units, such as 1d12h{extra}")
    };
    let Kind::Text(text) = kind else {
        return if *kind == Kind::Int(0) && low_millis <= 0 {
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

fn retention(kind: &Kind) -> Result<Retention, String> {
    match kind {
        Kind::Text(text) if text == FOREVER => Ok(Retention::Forever),
        _ => match duration(kind, 1_000, LONGEST) {
            Ok(age) => Ok(Retention::Limited(age)),
            Err(right) => Err(format!("{right}, or {FOREVER}")),
        },
    }
}

fn delay(kind: &Kind) -> Result<PromDuration, String> {
    duration(kind, 0, MAX_DELAY)
}

fn boundary_list(kind: &Kind) -> Result<Vec<PromDuration>, String> {
    let right = || "a list of ages, newest first, such as [14d, 90d]".to_owned();
    let Kind::List(items) = kind else {
        return Err(right());
    };
    if items.len() >= MAX_SHARDS as usize {
        return Err(format!("at most {} ages", MAX_SHARDS - 1));
    }
    let mut list = Vec::with_capacity(items.len());
    for item in items {
        let age = duration(&item.value, 1_000, LONGEST);
        list.push(
            age.map_err(|why| format!("{}; {} is not: write {why}", right(), item.value.shown()))?,
        );
    }
    Ok(list)
}

fn word<T: Copy>(kind: &Kind, words: &[(&str, T)]) -> Result<T, String> {
    let found = match kind {
        Kind::Text(text) => words.iter().find(|(word, _)| word == text),
        _ => None,
    };
    found.map(|(_, value)| *value).ok_or_else(|| {
        words
            .iter()
            .map(|(word, _)| *word)
            .collect::<Vec<_>>()
            .join(" or ")
    })
}

fn window_format(kind: &Kind) -> Result<WindowFormat, String> {
    word(
        kind,
        &[
            ("relative", WindowFormat::Relative),
            ("absolute", WindowFormat::Absolute),
        ],
    )
}

fn reload(kind: &Kind) -> Result<Reload, String> {
    word(kind, &[("exec", Reload::Exec), ("signal", Reload::Signal)])
}

fn truth(kind: &Kind) -> Result<bool, String> {
    match kind {
        Kind::Bool(value) => Ok(*value),
        _ => Err("true or false".to_owned()),
    }
}
