//! A checked `sharding` block. Only [`Sharding::check`] builds one, so every reader can rely on its
//! invariants.

use super::draft::{Draft, Given, ReplicasGiven, SourceSpan};
use super::problem::Problem;
use super::{Concurrency, MAX_PODS, MAX_SHARDS, Retention, ShardCount, WindowFormat};
use crate::core::agent::handoff::ReloadMode;
use crate::core::model::duration::PromDuration;
use crate::core::model::window::Window;

/// How the time is divided, and how changes are rolled out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "settings that do not depend on each other"
)]
pub struct Sharding {
    total: ShardCount,
    replicas: Vec<u32>,
    retention: Retention,
    overlap: PromDuration,
    future_buffer: PromDuration,
    boundaries: Vec<PromDuration>,
    window_format: WindowFormat,
    quantum: PromDuration,
    drain: PromDuration,
    termination_drain: PromDuration,
    discovery_delay: PromDuration,
    load_retry: PromDuration,
    reload: ReloadMode,
    shard_services: bool,
    allow_coverage_gap: bool,
    max_unavailable: u32,
    pub(super) max_concurrent_restarts: Concurrency,
    canary: bool,
    queriers_complete: bool,
    drain_limit: PromDuration,
}

/// With less, one side may drop a block before the other has loaded it: Thanos changes its block set
/// only every 15 minutes.
const DEFAULT_MINIMUM_OVERLAP: PromDuration = PromDuration::from_secs(1_800);
/// With `total_shards: auto`, the shortest shard, also the newest one with a negative future buffer.
const MIN_EQUAL_SHARD: PromDuration = PromDuration::from_secs(1);
/// Assumed load time of a moved window where none was measured: for refreshing absolute windows, and
/// in the estimate of a planned rollout.
pub const LOAD_ALLOWANCE: PromDuration = PromDuration::from_secs(300);

/// Default of `drain`, `termination_drain` and `discovery_delay`: the longest time until a querier
/// discovers that a pod came or went, if DNS caches answers for 30 s. Readiness 3 s, `EndpointSlice`
/// 1 s, DNS cache 30 s, the querier's interval 30 s and its own update 5 s are 69 s; the rest is a
/// margin. Measured: with 45 s, 382 of 3542 strict queries failed.
pub(super) const DISCOVERY_PERIOD: PromDuration = PromDuration::from_secs(90);

impl Default for Sharding {
    fn default() -> Self {
        Self {
            total: ShardCount::Fixed(3),
            replicas: vec![2],
            retention: Retention::Limited(PromDuration::from_days(370)),
            overlap: PromDuration::from_days(1),
            future_buffer: PromDuration::from_days(1),
            boundaries: Vec::new(),
            window_format: WindowFormat::Relative,
            quantum: PromDuration::from_secs(3_600),
            drain: DISCOVERY_PERIOD,
            termination_drain: DISCOVERY_PERIOD,
            discovery_delay: DISCOVERY_PERIOD,
            load_retry: PromDuration::from_secs(120),
            reload: ReloadMode::Exec,
            shard_services: false,
            allow_coverage_gap: false,
            max_unavailable: 1,
            max_concurrent_restarts: Concurrency::Percent(50),
            canary: true,
            queriers_complete: false,
            drain_limit: PromDuration::from_secs(600),
        }
    }
}

fn or<T: Clone>(slot: Option<&Given<T>>, default: T) -> T {
    slot.map_or(default, |given| given.value.clone())
}

/// Returns the place to report if several keys together are wrong: the first one that was given.
fn blame(places: &[Option<&SourceSpan>]) -> SourceSpan {
    let mut given = places.iter().flatten();
    given
        .find(|place| !place.source.is_empty())
        .map_or_else(SourceSpan::default, |place| (*place).clone())
}

impl Sharding {
    /// Checks the keys against each other. Returns `None` after adding a problem.
    pub(super) fn check(draft: &Draft, problems: &mut Vec<Problem>) -> Option<Self> {
        let before = problems.len();
        let default = Self::default();
        let checked = Self {
            total: total(draft, default.total, problems),
            replicas: match draft.replicas.as_ref().map(|given| &given.value) {
                None => default.replicas,
                Some(ReplicasGiven::Uniform(n)) => vec![*n],
                Some(ReplicasGiven::PerShard(list)) => list.clone(),
            },
            retention: or(draft.retention.as_ref(), default.retention),
            overlap: or(draft.overlap.as_ref(), default.overlap),
            future_buffer: or(draft.future_buffer.as_ref(), default.future_buffer),
            boundaries: or(draft.boundaries.as_ref(), default.boundaries),
            window_format: or(draft.window_format.as_ref(), default.window_format),
            quantum: or(draft.quantum.as_ref(), default.quantum),
            drain: or(draft.drain.as_ref(), default.drain),
            termination_drain: or(draft.termination_drain.as_ref(), default.termination_drain),
            discovery_delay: or(draft.discovery_delay.as_ref(), default.discovery_delay),
            load_retry: or(draft.load_retry.as_ref(), default.load_retry),
            reload: or(draft.reload.as_ref(), default.reload),
            shard_services: or(draft.shard_services.as_ref(), default.shard_services),
            allow_coverage_gap: or(
                draft.allow_coverage_gap.as_ref(),
                default.allow_coverage_gap,
            ),
            max_unavailable: or(draft.max_unavailable.as_ref(), default.max_unavailable),
            max_concurrent_restarts: or(
                draft.max_concurrent_restarts.as_ref(),
                default.max_concurrent_restarts,
            ),
            canary: or(draft.canary.as_ref(), default.canary),
            queriers_complete: or(draft.queriers_complete.as_ref(), default.queriers_complete),
            drain_limit: match &draft.drain_limit {
                Some(given) => given.value,
                None => default
                    .drain_limit
                    .max(or(draft.drain.as_ref(), default.drain)),
            },
        };
        checked.check_replicas(draft, problems);
        checked.check_boundaries(draft, problems);
        checked.check_newest(draft, problems);
        checked.check_overlap(draft, problems);
        checked.check_drain_limit(draft, problems);
        (problems.len() == before).then_some(checked)
    }

    fn check_replicas(&self, draft: &Draft, problems: &mut Vec<Problem>) {
        let Some(given) = &draft.replicas else { return };
        if let ReplicasGiven::PerShard(list) = &given.value {
            match self.total {
                ShardCount::Auto => problems.push(given.place.refuse(
                    "a list needs a fixed number of shards, and total_shards is auto: write replicas_per_shard, or a number in total_shards",
                )),
                ShardCount::Fixed(n) if list.len() != n as usize => problems.push(given.place.refuse(format!(
                    "the list has {} numbers for {n} shards: write {n} numbers, newest shard first",
                    list.len()
                ))),
                ShardCount::Fixed(_) => {}
            }
        }
        if let ShardCount::Fixed(n) = self.total {
            let pods: u64 = (0..n).map(|shard| u64::from(self.replicas_of(shard))).sum();
            if pods > u64::from(MAX_PODS) {
                problems.push(given.place.refuse(format!(
                    "{n} shards make {pods} pods: at most {MAX_PODS} are planned"
                )));
            }
        }
    }

    fn check_boundaries(&self, draft: &Draft, problems: &mut Vec<Problem>) {
        let Some(given) = &draft.boundaries else {
            if let Some(forever) = draft
                .retention
                .as_ref()
                .filter(|given| given.value == Retention::Forever)
            {
                problems.push(forever.place.refuse(
                    "forever cannot be split into equal shards: also write boundaries, such as [14d, 90d], or a retention such as 370d",
                ));
            }
            if let ShardCount::Fixed(n) = self.total
                && let Some(retention) = self.retention.limit()
                && i64::from(n) > retention.as_secs()
            {
                let place = blame(&[
                    draft.retention.as_ref().map(|g| &g.place),
                    draft.total_shards.as_ref().map(|g| &g.place),
                ]);
                problems.push(place.refuse(format!(
                    "a retention of {} has no room for {n} shards: each needs at least a second",
                    self.retention
                )));
            }
            return;
        };
        if let Some([earlier, later]) = given
            .value
            .array_windows::<2>()
            .find(|[earlier, later]| earlier >= later)
        {
            problems.push(given.place.refuse(format!(
                "{earlier} comes before {later}: ages must grow from entry to entry, newest first"
            )));
        }
        if let Some(last) = given
            .value
            .last()
            .filter(|last| Retention::Limited(**last) >= self.retention)
        {
            problems.push(given.place.refuse(format!(
                "{last} is not younger than the retention of {}: each boundary must be within the retention, which is itself the last boundary",
                self.retention
            )));
        }
    }

    /// With a negative future buffer the newest window ends before now, and must still be at least as
    /// long as the overlap.
    fn check_newest(&self, draft: &Draft, problems: &mut Vec<Problem>) {
        let end = -self.future_buffer;
        let minimum = or(draft.minimum_overlap.as_ref(), DEFAULT_MINIMUM_OVERLAP)
            .max(PromDuration::from_secs(1));
        let Some(edge) = self
            .first_edge()
            .filter(|edge| end > PromDuration::ZERO && *edge < end + minimum)
        else {
            return;
        };
        let places = [
            draft.future_buffer.as_ref().map(|g| &g.place),
            draft.boundaries.as_ref().map(|g| &g.place),
        ];
        problems.push(blame(&places).refuse(format!(
            "the newest window would begin at an age of {edge} and end at {end}, but must be at least {minimum} long (minimum_overlap): write a future_buffer \
             of at least {}, or make the first boundary at least {}",
            minimum - edge,
            end + minimum
        )));
    }

    /// Returns the age at which the second window begins; `None` if it depends on the number of pods.
    fn first_edge(&self) -> Option<PromDuration> {
        if let Some(edge) = self.boundaries.first() {
            return Some(*edge);
        }
        // With `auto` there is at least one shard.
        let shards = self.total_shards().unwrap_or(1);
        Some(PromDuration::from_secs(
            self.retention.limit()?.as_secs() / i64::from(shards.max(1)),
        ))
    }

    fn check_overlap(&self, draft: &Draft, problems: &mut Vec<Problem>) {
        let minimum = or(draft.minimum_overlap.as_ref(), DEFAULT_MINIMUM_OVERLAP);
        let place = blame(&[
            draft.overlap.as_ref().map(|g| &g.place),
            draft.minimum_overlap.as_ref().map(|g| &g.place),
            draft.window_format.as_ref().map(|g| &g.place),
        ]);
        if self.overlap <= PromDuration::ZERO {
            problems.push(
                place.refuse("without an overlap windows only touch, and blocks that load late are missing: write at least 1s, better 30m"),
            );
        } else if self.overlap < minimum {
            problems.push(place.refuse(format!(
                "an overlap of {} is below minimum_overlap ({minimum}): Thanos changes its block set only every 15 minutes, so shards that hardly \
                 overlap lose blocks for that time; write at least {minimum}",
                self.overlap
            )));
        }
        let needed = self.quantum + self.rollout_time();
        if self.window_format == WindowFormat::Absolute && self.overlap < needed {
            problems.push(place.refuse(format!(
                "absolute windows move in steps, and an overlap of {} is less than quantum ({}) plus the time a rollout takes ({}): write at least \
                 {needed}, a shorter quantum, or window_format: relative",
                self.overlap,
                self.quantum,
                self.rollout_time()
            )));
        }
    }

    fn check_drain_limit(&self, draft: &Draft, problems: &mut Vec<Problem>) {
        if self.drain_limit >= self.drain {
            return;
        }
        let places = [
            draft.drain_limit.as_ref().map(|g| &g.place),
            draft.drain.as_ref().map(|g| &g.place),
        ];
        problems.push(blame(&places).refuse(format!(
            "the drain of {} is longer than the drain_limit of {}: each drain would be taken back before it ends; write a drain_limit of at least {}",
            self.drain, self.drain_limit, self.drain
        )));
    }

    /// Returns the longest time until all replicas, one after the other, have a refreshed window.
    #[must_use]
    pub fn rollout_time(&self) -> PromDuration {
        let replicas = i64::from(self.replicas.iter().copied().max().unwrap_or(1));
        PromDuration::from_secs(
            (self.drain + self.discovery_delay + LOAD_ALLOWANCE)
                .as_secs()
                .saturating_mul(replicas),
        )
    }

    /// `None` if it depends on the number of pods.
    #[must_use]
    pub fn total_shards(&self) -> Option<u32> {
        match self.total {
            ShardCount::Fixed(n) => Some(n),
            ShardCount::Auto => None,
        }
    }

    #[must_use]
    pub fn replicas_of(&self, shard: u32) -> u32 {
        self.replicas
            .get(shard as usize)
            .or(self.replicas.last())
            .copied()
            .unwrap_or(1)
    }

    /// Returns the pods that fill every shard; `None` with `total_shards: auto`.
    #[must_use]
    pub fn nominal_pods(&self) -> Option<u32> {
        self.total_shards()
            .map(|n| (0..n).map(|shard| self.replicas_of(shard)).sum())
    }

    /// Newest first; empty for an equal split.
    #[must_use]
    pub fn boundaries(&self) -> &[PromDuration] {
        &self.boundaries
    }

    /// Returns the range that must be covered, see [`Retention::covered`].
    #[must_use]
    pub fn required(&self) -> Window {
        Window::relative(-self.retention.covered(), self.future_buffer)
    }

    /// Returns the range that both must cover: instants that were not served before a change need not
    /// be served during it.
    #[must_use]
    pub fn required_by_both(&self, other: &Self) -> Window {
        Window::relative(
            -self.retention.min(other.retention).covered(),
            self.future_buffer.min(other.future_buffer),
        )
    }

    /// Returns how many shards an equal split has room for, for `total_shards: auto`.
    #[must_use]
    pub fn max_shards(&self) -> u32 {
        let least =
            (-self.future_buffer).max(PromDuration::ZERO).as_secs() + MIN_EQUAL_SHARD.as_secs();
        let room = self.retention.covered().as_secs() / least;
        u32::try_from(room).unwrap_or(u32::MAX).clamp(1, MAX_SHARDS)
    }

    /// How many of a StatefulSet's pods may restart at the same time; at least one.
    #[must_use]
    pub fn max_concurrent_restarts(&self, pods: usize) -> usize {
        match self.max_concurrent_restarts {
            Concurrency::Pods(most) => most as usize,
            Concurrency::Percent(percent) => pods.saturating_mul(percent as usize).div_ceil(100),
        }
        .max(1)
    }
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $kind:ty,)*) => {
        impl Sharding {
            $($(#[$doc])* #[must_use] pub const fn $name(&self) -> $kind { self.$name })*
        }
    };
}

getters! {
    retention: Retention,
    /// How far each window reaches beyond its older boundary.
    overlap: PromDuration,
    /// How far the newest window reaches beyond now; negative if it ends before now.
    future_buffer: PromDuration,
    window_format: WindowFormat,
    /// The step of absolute windows.
    quantum: PromDuration,
    /// How long a pod is unready before its window changes.
    drain: PromDuration,
    /// How long a deleted pod keeps serving.
    termination_drain: PromDuration,
    /// How long a thanos that could not load all its blocks is restarted before its pod turns Ready.
    load_retry: PromDuration,
    /// The longest time until a querier discovers that a pod came or went.
    discovery_delay: PromDuration,
    /// Never [`ReloadMode::Off`].
    reload: ReloadMode,
    shard_services: bool,
    /// Whether a shard's only replica may be restarted although that leaves a gap.
    allow_coverage_gap: bool,
    /// How many pods of a shard may be away at the same time; the last one always stays.
    max_unavailable: u32,
    /// Whether a window that is larger than any before goes to one pod first.
    canary: bool,
    /// Whether the known queriers are all that there are.
    queriers_complete: bool,
    /// How long a drain waits for a querier that keeps using the pod.
    drain_limit: PromDuration,
}

/// Returns the number of shards, as given or from the boundaries.
fn total(draft: &Draft, default: ShardCount, problems: &mut Vec<Problem>) -> ShardCount {
    let by_boundaries = draft
        .boundaries
        .as_ref()
        .and_then(|given| u32::try_from(given.value.len() + 1).ok());
    match (&draft.total_shards, by_boundaries) {
        (None, None) => default,
        (None, Some(n)) => ShardCount::Fixed(n),
        (Some(given), None) => given.value,
        (Some(given), Some(n)) => {
            match given.value {
                ShardCount::Fixed(total) if total != n => problems.push(given.place.refuse(format!(
                    "{total} does not fit the {} boundaries, which make {n} shards: write {n}, or {} boundaries",
                    n - 1,
                    total - 1
                ))),
                ShardCount::Fixed(_) => {}
                ShardCount::Auto => problems.push(
                    given.place.refuse("auto derives the number of shards from the pods, but boundaries fix it: remove one of the two"),
                ),
            }
            ShardCount::Fixed(n)
        }
    }
}
