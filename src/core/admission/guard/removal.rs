//! The loss when pods of a StatefulSet are removed: by published windows, by which pods are ready,
//! and by blocks that only one pod has loaded. Only the leader knows what is confirmed.

use std::ops::Range as Span;

use chrono::{DateTime, Utc};

use super::pods::{PodCondition, PodsSeen};
use crate::core::gateways::Entries;
use crate::core::model::entry::Entry;
use crate::core::model::window::Window;
use crate::core::plan::Plan;
use crate::core::rollout::planner::{TimeRange, holders, joined};

/// The ordinals of a StatefulSet's pods, before and after a change.
#[derive(Clone, Debug)]
pub(super) struct Ordinals {
    pub(super) before: Span<u32>,
    pub(super) after: Span<u32>,
}

/// A part of the time that fewer pods serve than planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thin {
    pub(super) range: TimeRange,
    pub(super) left: u32,
    pub(super) wanted: u32,
}

/// The loss with the removed pods.
#[derive(Debug, Default)]
pub(super) struct Removal<'a> {
    /// Served by published windows today, and by none afterwards.
    pub(super) gaps: Vec<TimeRange>,
    /// The pods that serve a part of the gaps, by ordinal.
    pub(super) holders: Vec<&'a str>,
    /// The range left with the fewest pods, among those that end up with fewer than planned.
    pub(super) thin: Option<Thin>,
    /// Served by a ready pod today and by none afterwards, although a remaining pod is published
    /// there.
    pub(super) unready: Unready<'a>,
    /// Blocks that only a removed pod has loaded.
    pub(super) single: Vec<Single<'a>>,
}

/// A part of the time that ready pods serve today and none afterwards.
#[derive(Debug, Default)]
pub(super) struct Unready<'a> {
    pub(super) gaps: Vec<TimeRange>,
    /// Removed pods that serve a part of it.
    pub(super) serving: Vec<&'a str>,
    /// Remaining pods that should serve a part of it.
    pub(super) waiting: Vec<(&'a str, PodCondition)>,
}

/// Blocks that are lost with a pod.
#[derive(Debug)]
pub(super) struct Single<'a> {
    pub(super) pod: &'a str,
    /// ULIDs.
    pub(super) blocks: Vec<String>,
    /// Remaining pods of the shard, or else those whose windows overlap the pod's: they should have
    /// these blocks and do not.
    pub(super) lacking: Vec<&'a str>,
}

impl Removal<'_> {
    /// Whether something would no longer be served.
    pub(super) fn is_a_loss(&self) -> bool {
        !self.gaps.is_empty() || !self.unready.gaps.is_empty() || !self.single.is_empty()
    }
}

/// The removed pods and their state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Going<'a, 'b> {
    pub(super) set: &'b str,
    pub(super) ordinals: &'b Ordinals,
    pub(super) entries: &'a Entries,
    pub(super) pods: Option<&'b PodsSeen>,
    pub(super) now: DateTime<Utc>,
}

/// A pod before the change.
#[derive(Clone, Copy, Debug)]
struct Pod<'a> {
    ordinal: u32,
    name: &'a str,
    shard: u32,
    window: Window,
    condition: PodCondition,
    stays: bool,
}

impl Ordinals {
    fn stays(&self, ordinal: u32) -> bool {
        self.before.contains(&ordinal) && self.after.contains(&ordinal)
    }

    pub(super) fn removes(&self, ordinal: u32) -> bool {
        self.before.contains(&ordinal) && !self.after.contains(&ordinal)
    }

    pub(super) fn remove(&self) -> bool {
        !self.before.is_empty()
            && (self.after.is_empty()
                || self.after.start > self.before.start
                || self.after.end < self.before.end)
    }
}

fn ordinal(set: &str, pod: &str) -> Option<u32> {
    pod.strip_prefix(set)?.strip_prefix('-')?.parse().ok()
}

impl<'a> Going<'a, '_> {
    /// The pods before the change, by ordinal.
    fn all(&self) -> Vec<Pod<'a>> {
        let pod = |(name, entry): (&'a String, &'a Entry)| {
            let ordinal = ordinal(self.set, name)?;
            // Where no pods are watched, only published windows are known.
            let condition = self
                .pods
                .map_or(PodCondition::Ready, |pods| pods.condition(name));
            let stays = self.ordinals.stays(ordinal);
            self.ordinals.before.contains(&ordinal).then_some(Pod {
                ordinal,
                name,
                shard: entry.shard,
                window: entry.window,
                condition,
                stays,
            })
        };
        let mut pods: Vec<Pod<'a>> = self.entries.iter().filter_map(pod).collect();
        pods.sort_unstable_by_key(|pod| pod.ordinal);
        pods
    }

    fn meets(&self, window: Window, (from, to): TimeRange) -> bool {
        window.min.at(self.now) < to && from < window.max.at(self.now)
    }

    /// Whether the window meets one of these ranges, which are in order and apart.
    fn meets_any(&self, window: Window, ranges: &[TimeRange]) -> bool {
        let from = window.min.at(self.now);
        let first = ranges.partition_point(|(_, to)| *to <= from);
        ranges
            .get(first)
            .is_some_and(|range| self.meets(window, *range))
    }

    fn unready(&self, pods: &[Pod<'a>], gaps: &[TimeRange]) -> Unready<'a> {
        let there = || pods.iter().filter(|pod| self.meets_any(pod.window, gaps));
        let ready = |pod: &&Pod<'a>| pod.condition == PodCondition::Ready;
        let serving = there().filter(ready).map(|pod| pod.name).collect();
        let waiting = there()
            .filter(|pod| pod.stays && !ready(pod))
            .map(|pod| (pod.name, pod.condition))
            .collect();
        Unready {
            gaps: gaps.to_vec(),
            serving,
            waiting,
        }
    }

    fn single(&self, pods: &[Pod<'a>]) -> Vec<Single<'a>> {
        let mut holders = self.pods.map(PodsSeen::single_holders).unwrap_or_default();
        let one = |pod: &Pod<'a>| {
            let blocks = holders.remove(pod.name)?;
            let range = (pod.window.min.at(self.now), pod.window.max.at(self.now));
            let stay = || {
                pods.iter()
                    .filter(|other| other.stays && self.meets(other.window, range))
            };
            let partners: Vec<&str> = stay()
                .filter(|other| other.shard == pod.shard)
                .map(|pod| pod.name)
                .collect();
            let lacking = if partners.is_empty() {
                stay().map(|pod| pod.name).collect()
            } else {
                partners
            };
            // Without a remaining pod the gap already says so.
            (!lacking.is_empty()).then_some(Single {
                pod: pod.name,
                blocks,
                lacking,
            })
        };
        pods.iter()
            .filter(|pod| !pod.stays)
            .filter_map(one)
            .collect()
    }
}

/// Compares the windows of removed and remaining pods. `plan` is the one after the change; a pod
/// that the change adds serves nothing yet.
pub(super) fn removal<'a>(
    going: &Going<'a, '_>,
    plan: Option<&Plan>,
    required: Window,
) -> Removal<'a> {
    if !going.ordinals.remove() {
        return Removal::default();
    }
    let (pods, now) = (going.all(), going.now);
    let windows = |which: &dyn Fn(&Pod<'a>) -> bool| -> Vec<Window> {
        pods.iter()
            .filter(|pod| which(pod))
            .map(|pod| pod.window)
            .collect()
    };
    let ready = |pod: &Pod<'a>| pod.condition == PodCondition::Ready;
    let (before, after) = (windows(&|_| true), windows(&|pod| pod.stays));
    let (ready_before, ready_after) = (windows(&ready), windows(&|pod| pod.stays && ready(pod)));
    let shards: Vec<(Window, u32)> = (0..)
        .zip(plan.into_iter().flat_map(Plan::shards))
        .filter_map(|(i, shard)| Some((plan?.window(i, now), shard.replicas)))
        .collect();
    let planned: Vec<Window> = shards.iter().map(|(window, _)| *window).collect();
    let parts = holders(
        [&before, &after, &planned, &ready_before, &ready_after],
        required,
        now,
    );
    let gaps = joined(
        parts
            .iter()
            .filter(|(_, [before, after, ..])| *before > 0 && *after == 0)
            .map(|(range, _)| *range),
    );
    let unready = |counts: &[u32; 5]| matches!(counts, [_, after, _, serving, 0] if *after > 0 && *serving > 0);
    let unready = joined(
        parts
            .iter()
            .filter(|(_, counts)| unready(counts))
            .map(|(range, _)| *range),
    );
    let holders = pods
        .iter()
        .filter(|pod| going.meets_any(pod.window, &gaps))
        .map(|pod| pod.name)
        .collect();
    // Shards are in order, newest first, so those of a range are neighbours.
    let wanted = |range: TimeRange| {
        let first = shards.partition_point(|(window, _)| window.min.at(now) >= range.1);
        let meets = |(window, _): &&(Window, u32)| going.meets(*window, range);
        let of_range = shards[first..].iter().take_while(meets);
        of_range.map(|(_, replicas)| *replicas).min().unwrap_or(0)
    };
    let thinner = parts
        .iter()
        .filter(|(_, [before, after, ..])| *after > 0 && after < before);
    let thinner = thinner.map(|(range, [_, after, ..])| Thin {
        range: *range,
        left: *after,
        wanted: wanted(*range),
    });
    let thin: Vec<Thin> = thinner.filter(|thin| thin.left < thin.wanted).collect();
    Removal {
        gaps,
        holders,
        thin: thinnest(&thin),
        unready: going.unready(&pods, &unready),
        single: going.single(&pods),
    }
}

/// The part with the fewest pods, joined with adjacent parts of the same counts.
fn thinnest(thin: &[Thin]) -> Option<Thin> {
    let least = thin.iter().min_by_key(|thin| thin.left)?;
    let alike = thin
        .iter()
        .filter(|other| (other.left, other.wanted) == (least.left, least.wanted))
        .map(|other| other.range);
    Some(Thin {
        range: joined(alike).first().copied()?,
        ..*least
    })
}
