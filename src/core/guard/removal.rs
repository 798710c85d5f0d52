//! What is lost when pods of a StatefulSet go: by their published windows alone, since only the leader knows what is
//! confirmed.

use std::ops::Range as Span;

use chrono::{DateTime, Utc};

use crate::core::fleet::Entries;
use crate::core::plan::Plan;
use crate::core::rollout::{Range, holders, joined};
use crate::core::window::Window;

/// The pods of a StatefulSet, before a change and after it.
#[derive(Clone, Debug)]
pub(super) struct Ordinals {
    pub(super) before: Span<u32>,
    pub(super) after: Span<u32>,
}

/// A part of the time that fewer pods hold than the plan wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thin {
    pub(super) range: Range,
    pub(super) left: u32,
    pub(super) wanted: u32,
}

/// What goes with the pods.
#[derive(Debug, Default)]
pub(super) struct Removal<'a> {
    /// What somebody holds now and nobody then.
    pub(super) gaps: Vec<Range>,
    /// Who holds a part of that, by ordinal.
    pub(super) holders: Vec<&'a str>,
    /// What is left with the fewest pods, of what loses some and then has less than the plan wants.
    pub(super) thin: Option<Thin>,
}

impl Ordinals {
    fn stays(&self, ordinal: u32) -> bool {
        self.before.contains(&ordinal) && self.after.contains(&ordinal)
    }

    /// Whether this pod goes.
    pub(super) fn removes(&self, ordinal: u32) -> bool {
        self.before.contains(&ordinal) && !self.after.contains(&ordinal)
    }

    /// Whether a pod goes.
    pub(super) fn remove(&self) -> bool {
        !self.before.is_empty() && (self.after.is_empty() || self.after.start > self.before.start || self.after.end < self.before.end)
    }
}

/// The ordinal in a pod's name.
fn ordinal(set: &str, pod: &str) -> Option<u32> {
    pod.strip_prefix(set)?.strip_prefix('-')?.parse().ok()
}

/// Looks at the published windows of the pods that go and of those that stay. `plan` is the one that holds afterwards; a pod
/// that only comes with the change holds nothing yet.
pub(super) fn removal<'a>(
    set: &str,
    ordinals: &Ordinals,
    entries: &'a Entries,
    plan: Option<&Plan>,
    required: Window,
    now: DateTime<Utc>,
) -> Removal<'a> {
    if !ordinals.remove() {
        return Removal::default();
    }
    let known = entries.iter().filter_map(|(pod, entry)| Some((ordinal(set, pod)?, pod.as_str(), entry.window)));
    let mut pods: Vec<(u32, &str, Window)> = known.filter(|(ordinal, ..)| ordinals.before.contains(ordinal)).collect();
    pods.sort_unstable_by_key(|(ordinal, ..)| *ordinal);
    let before: Vec<Window> = pods.iter().map(|(.., window)| *window).collect();
    let after: Vec<Window> = pods.iter().filter(|(ordinal, ..)| ordinals.stays(*ordinal)).map(|(.., window)| *window).collect();
    let shards: Vec<(Window, u32)> =
        (0..).zip(plan.into_iter().flat_map(Plan::shards)).filter_map(|(i, shard)| Some((plan?.window(i, now), shard.replicas))).collect();
    let planned: Vec<Window> = shards.iter().map(|(window, _)| *window).collect();
    let parts = holders([&before, &after, &planned], required, now);
    let gaps = joined(parts.iter().filter(|(_, [before, after, _])| *before > 0 && *after == 0).map(|(range, _)| *range));
    let meets = |window: Window, (from, to): Range| window.min.at(now) < to && from < window.max.at(now);
    let holds_a_gap = |window: Window| gaps.iter().any(|gap| meets(window, *gap));
    let holders = pods.iter().filter(|(.., window)| holds_a_gap(*window)).map(|(_, pod, _)| *pod).collect();
    let wanted = |range: Range| shards.iter().filter(|(window, _)| meets(*window, range)).map(|(_, replicas)| *replicas).min().unwrap_or(0);
    let thinner = parts.iter().filter(|(_, [before, after, _])| *after > 0 && after < before);
    let thinner = thinner.map(|(range, [_, after, _])| Thin { range: *range, left: *after, wanted: wanted(*range) });
    let thin: Vec<Thin> = thinner.filter(|thin| thin.left < thin.wanted).collect();
    Removal { gaps, holders, thin: thinnest(&thin) }
}

/// The part with the fewest pods, together with what is alike and follows it.
fn thinnest(thin: &[Thin]) -> Option<Thin> {
    let least = thin.iter().min_by_key(|thin| thin.left)?;
    let alike = thin.iter().filter(|other| (other.left, other.wanted) == (least.left, least.wanted)).map(|other| other.range);
    Some(Thin { range: joined(alike).first().copied()?, ..*least })
}
