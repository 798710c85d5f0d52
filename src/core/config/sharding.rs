//! A checked `sharding` block. Only [`Sharding::check`] builds one, so every other part may rely on it.

use super::super::duration::PromDuration;
use super::super::window::Window;
use super::draft::{Draft, Given, Place, ReplicasGiven};
use super::problem::Problem;
use super::{MAX_PODS, MAX_SHARDS, Reload, Retention, ShardCount, WindowFormat};

/// How the time is divided, and how a change of it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    reload: Reload,
    shard_services: bool,
    allow_coverage_gap: bool,
}

/// Below this Thanos may not have loaded a block on one side when the other lets go of it: it changes its block set
/// every 15 minutes only.
const DEFAULT_MINIMUM_OVERLAP: PromDuration = PromDuration::from_secs(1_800);
/// With `total_shards: auto` the number of pods never makes shards shorter than this, nor the newest one with a negative future buffer.
const NARROWEST_EQUAL_SHARD: PromDuration = PromDuration::from_secs(1);
/// How long loading a moved window is taken to last where nothing was measured: when absolute windows are refreshed, and
/// in the time that a planned rollout is said to take.
pub const LOAD_ALLOWANCE: PromDuration = PromDuration::from_secs(300);

/// Default of `drain`, `termination_drain` and `discovery_delay`: the longest time in which a querier learns of a pod that
/// came or went, where DNS caches answers for 30 s. Readiness 3 s, `EndpointSlice` 1 s, DNS cache 30 s, the querier's interval
/// 30 s and its own update 5 s are 69 s; the rest is a margin. Measured: 45 s cost 382 of 3542 strict queries there.
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
            reload: Reload::Exec,
            shard_services: false,
            allow_coverage_gap: false,
        }
    }
}

fn or<T: Clone>(slot: Option<&Given<T>>, default: T) -> T {
    slot.map_or(default, |given| given.value.clone())
}

/// Where to point when several keys together are wrong: the first of them that was written.
fn blame(places: &[Option<&Place>]) -> Place {
    places
        .iter()
        .flatten()
        .next()
        .map_or_else(Place::default, |place| (*place).clone())
}

impl Sharding {
    /// Checks the keys against each other. `None` when a problem was added.
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
        };
        checked.check_replicas(draft, problems);
        checked.check_boundaries(draft, problems);
        checked.check_newest(draft, problems);
        checked.check_overlap(draft, problems);
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
                "{earlier} stands before {later}: ages must grow from entry to entry, newest first"
            )));
        }
        if let Some(last) = given
            .value
            .last()
            .filter(|last| Retention::Limited(**last) >= self.retention)
        {
            problems.push(given.place.refuse(format!(
                "{last} is not younger than the retention of {}: each boundary must lie within the retention, whose end is the last boundary by itself",
                self.retention
            )));
        }
    }

    /// With a negative future buffer the newest window ends before now, and must still be as long as windows must overlap.
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

    /// Age at which the newest window ends and the next one begins; `None` where the number of pods decides.
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
                place.refuse("without an overlap windows only touch, and whatever loads late is missing: write at least 1s, better 30m"),
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

    /// How long it may take until every replica has taken over a refreshed window, one after the other.
    #[must_use]
    pub fn rollout_time(&self) -> PromDuration {
        let replicas = i64::from(self.replicas.iter().copied().max().unwrap_or(1));
        PromDuration::from_secs(
            (self.drain + self.discovery_delay + LOAD_ALLOWANCE)
                .as_secs()
                .saturating_mul(replicas),
        )
    }

    /// N, or `None` when it comes from the number of pods.
    #[must_use]
    pub fn total_shards(&self) -> Option<u32> {
        match self.total {
            ShardCount::Fixed(n) => Some(n),
            ShardCount::Auto => None,
        }
    }

    /// Pods wanted for a shard.
    #[must_use]
    pub fn replicas_of(&self, shard: u32) -> u32 {
        self.replicas
            .get(shard as usize)
            .or(self.replicas.last())
            .copied()
            .unwrap_or(1)
    }

    /// Pods that fill every shard; `None` with `total_shards: auto`.
    #[must_use]
    pub fn nominal_pods(&self) -> Option<u32> {
        self.total_shards()
            .map(|n| (0..n).map(|shard| self.replicas_of(shard)).sum())
    }

    /// Explicit boundaries, newest first; empty for an equal split.
    #[must_use]
    pub fn boundaries(&self) -> &[PromDuration] {
        &self.boundaries
    }

    /// How far back is served.
    #[must_use]
    pub const fn retention(&self) -> Retention {
        self.retention
    }

    /// The range that must be covered. With `retention: forever` it ends at the longest retention that can be configured, so
    /// that ages in reports stay as time passes.
    #[must_use]
    pub fn required(&self) -> Window {
        Window::relative(-self.retention.covered(), self.future_buffer)
    }

    /// The range that both must cover: what was not served before a change need not be served during it.
    #[must_use]
    pub fn required_by_both(&self, other: &Self) -> Window {
        Window::relative(
            -self.retention.min(other.retention).covered(),
            self.future_buffer.min(other.future_buffer),
        )
    }

    /// The most shards that an equal split has room for; matters with `total_shards: auto`.
    #[must_use]
    pub fn max_shards(&self) -> u32 {
        let least = (-self.future_buffer).max(PromDuration::ZERO).as_secs()
            + NARROWEST_EQUAL_SHARD.as_secs();
        let room = self.retention.covered().as_secs() / least;
        u32::try_from(room).unwrap_or(u32::MAX).clamp(1, MAX_SHARDS)
    }

    /// How far each shard reaches beyond its older boundary.
    #[must_use]
    pub const fn overlap(&self) -> PromDuration {
        self.overlap
    }

    /// How far the newest shard reaches beyond now; negative where it ends before now.
    #[must_use]
    pub const fn future_buffer(&self) -> PromDuration {
        self.future_buffer
    }

    /// Relative or absolute windows.
    #[must_use]
    pub const fn window_format(&self) -> WindowFormat {
        self.window_format
    }

    /// The step in which absolute windows move.
    #[must_use]
    pub const fn quantum(&self) -> PromDuration {
        self.quantum
    }

    /// How long a pod is out of discovery before its window changes.
    #[must_use]
    pub const fn drain(&self) -> PromDuration {
        self.drain
    }

    /// How long a deleted pod goes on serving.
    #[must_use]
    pub const fn termination_drain(&self) -> PromDuration {
        self.termination_drain
    }

    /// For how long a thanos that could not load all its blocks is started again before its pod turns Ready.
    #[must_use]
    pub const fn load_retry(&self) -> PromDuration {
        self.load_retry
    }

    /// The longest time in which a querier learns of a pod that came or went.
    #[must_use]
    pub const fn discovery_delay(&self) -> PromDuration {
        self.discovery_delay
    }

    /// How a running thanos takes over a window.
    #[must_use]
    pub const fn reload(&self) -> Reload {
        self.reload
    }

    /// Whether each shard gets a Service of its own.
    #[must_use]
    pub const fn shard_services(&self) -> bool {
        self.shard_services
    }

    /// Whether a shard with one replica may be restarted although that leaves a gap.
    #[must_use]
    pub const fn allow_coverage_gap(&self) -> bool {
        self.allow_coverage_gap
    }
}

/// N: as given, or from the boundaries.
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
