//! What the refresher will do because of a change: the pods as they are published and planned, and the steps of a rollout.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::{annotations, words};
use crate::core::config::{MAX_PODS, WindowFormat};
use crate::core::fleet::{Entries, Known};
use crate::core::rollout::{Discovery, Gap, Member, Place, Standing, Step, Terms, preview};
use crate::core::window::Window;

/// A rollout of more pods is not gone through: the answer must be quick.
const MOST_PREVIEWED: usize = 100;

/// The part of the time that has to be served.
pub(super) fn required(known: &Known) -> Window {
    known.sharding.required()
}

/// Pods that are not published where the plan wants them, by ordinal.
pub(super) fn out_of_place(
    known: &Known,
    published: Option<&Entries>,
    now: DateTime<Utc>,
) -> Vec<u32> {
    // Absolute windows are behind the plan for a while whenever they move on.
    let rolls = known.sharding.window_format() == WindowFormat::Relative;
    let differs = |member: &Member| {
        member.published.shard != member.desired.shard
            || (rolls && member.published.window != member.desired.window)
    };
    let waiting = (0..)
        .zip(members(known, published, now))
        .filter(|(_, member)| differs(member));
    waiting
        .map(|(index, _)| known.ordinals_start.saturating_add(index))
        .collect()
}

/// Its pods, those without an entry where the plan wants them.
pub(super) fn members(
    known: &Known,
    published: Option<&Entries>,
    now: DateTime<Utc>,
) -> Vec<Member> {
    let facts = known.facts();
    (0..facts.replicas.min(MAX_PODS))
        .map(|index| {
            let at = known.plan.assign(index);
            let desired = Place {
                shard: at.shard,
                replica: at.replica,
                window: known.plan.window(at.shard, now),
            };
            let name = format!(
                "{}-{}",
                facts.name,
                known.ordinals_start.saturating_add(index)
            );
            let entry = published.and_then(|entries| entries.get(&name));
            let published = entry.map_or(desired, |entry| Place {
                shard: entry.shard,
                replica: entry.replica,
                window: entry.window,
            });
            Member {
                published,
                desired,
                surplus: at.surplus,
                standing: Standing::Confirmed,
            }
        })
        .collect()
}

/// What the refresher will do because of the change.
pub(super) fn steps(
    before: &Known,
    after: &Known,
    published: Option<&Entries>,
    now: DateTime<Utc>,
) -> Vec<String> {
    let differences = before.sharding.differences(&after.sharding);
    let same_target = annotations::target(before) == annotations::target(after);
    if before.plan.shards() == after.plan.shards() && differences.is_empty() && same_target {
        return Vec::new();
    }
    let members = members(after, published, now);
    if members.len() > MOST_PREVIEWED {
        let moves = members
            .iter()
            .filter(|member| member.published.window != member.desired.window)
            .count();
        return words::moves(after, &differences, moves)
            .into_iter()
            .collect();
    }
    let terms = Terms {
        required: required(after),
        discovery: if after.sharding.shard_services() {
            Discovery::ShardServices
        } else {
            Discovery::Pods
        },
        allow_gap: after.sharding.allow_coverage_gap(),
        now,
    };
    let (steps, mut gap) = preview(members.clone(), &terms);
    let mut at: Vec<Window> = members
        .iter()
        .map(|member| member.published.window)
        .collect();
    let (mut restarts, mut pods, mut count) = (0, BTreeSet::new(), 0);
    for step in steps {
        let Step::Move {
            changes,
            gap: accepted,
        } = step
        else {
            continue;
        };
        let moved = changes.iter().filter(|change| {
            std::mem::replace(&mut at[change.member], change.to.window) != change.to.window
        });
        let moved: Vec<usize> = moved.map(|change| change.member).collect();
        restarts += moved.len();
        count += usize::from(!moved.is_empty());
        pods.extend(moved);
        gap = gap.or(accepted);
    }
    words::steps(
        after,
        &differences,
        (pods.len(), restarts, count),
        gap.map(|gap| (pod_of(after, &gap), gap)),
        now,
    )
}

fn pod_of(known: &Known, gap: &Gap) -> String {
    let index = u32::try_from(gap.member).unwrap_or(u32::MAX);
    format!(
        "{}-{}",
        known.facts().name,
        known.ordinals_start.saturating_add(index)
    )
}
