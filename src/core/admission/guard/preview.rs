//! The rollout that a change will start: the pods as published and as planned, and the steps in
//! between.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::{annotations, messages};
use crate::core::config::{MAX_PODS, WindowFormat};
use crate::core::gateways::{Entries, Gateway};
use crate::core::model::window::Window;
use crate::core::rollout::planner::{
    self, Gap, Member, MemberState, PlanTerms, Slot, Step, preview,
};

/// Pods of the largest rollout that is previewed step by step: the API server waits for the answer.
const MAX_PREVIEWED: usize = 100;

pub(super) fn required(gateway: &Gateway) -> Window {
    gateway.sharding.required()
}

/// Pods that are not published where the plan wants them, by ordinal.
pub(super) fn out_of_place(
    gateway: &Gateway,
    published: Option<&Entries>,
    now: DateTime<Utc>,
) -> Vec<u32> {
    // Absolute windows lag behind the plan for a while each time they roll.
    let rolls = gateway.sharding.window_format() == WindowFormat::Relative;
    let differs = |member: &Member| {
        member.published.shard != member.desired.shard
            || (rolls && member.published.window != member.desired.window)
    };
    let waiting = (0..)
        .zip(members(gateway, published, now))
        .filter(|(_, member)| differs(member));
    waiting
        .map(|(index, _)| gateway.ordinals_start.saturating_add(index))
        .collect()
}

/// The pods; those without an entry count as published where the plan wants them.
pub(super) fn members(
    gateway: &Gateway,
    published: Option<&Entries>,
    now: DateTime<Utc>,
) -> Vec<Member> {
    let facts = gateway.facts();
    (0..facts.replicas.min(MAX_PODS))
        .map(|index| {
            let at = gateway.plan.assign(index);
            let desired = Slot {
                shard: at.shard,
                replica: at.replica,
                window: gateway.plan.window(at.shard, now),
            };
            let name = format!(
                "{}-{}",
                facts.name,
                gateway.ordinals_start.saturating_add(index)
            );
            let entry = published.and_then(|entries| entries.get(&name));
            let published = entry.map_or(desired, |entry| Slot {
                shard: entry.shard,
                replica: entry.replica,
                window: entry.window,
            });
            Member {
                published,
                desired,
                surplus: at.surplus,
                state: MemberState::Confirmed,
                canary: false,
            }
        })
        .collect()
}

/// Describes the rollout that the change will start.
pub(super) fn steps(
    before: &Gateway,
    after: &Gateway,
    published: Option<&Entries>,
    now: DateTime<Utc>,
) -> Vec<String> {
    let differences = before.sharding.differences(&after.sharding);
    let same_target = annotations::target(before) == annotations::target(after);
    if before.plan.shards() == after.plan.shards() && differences.is_empty() && same_target {
        return Vec::new();
    }
    let mut members = members(after, published, now);
    if members.len() > MAX_PREVIEWED {
        let moves = members
            .iter()
            .filter(|member| member.published.window != member.desired.window)
            .count();
        return messages::moves(after, &differences, moves)
            .into_iter()
            .collect();
    }
    let terms = PlanTerms::new(&after.sharding, members.len(), now);
    if after.sharding.canary() {
        planner::mark_longer(&mut members, &terms);
    }
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
    messages::steps(
        after,
        &differences,
        (pods.len(), restarts, count),
        gap.map(|gap| (pod_of(after, &gap), gap)),
        now,
    )
}

fn pod_of(gateway: &Gateway, gap: &Gap) -> String {
    let index = u32::try_from(gap.member).unwrap_or(u32::MAX);
    format!(
        "{}-{}",
        gateway.facts().name,
        gateway.ordinals_start.saturating_add(index)
    )
}
