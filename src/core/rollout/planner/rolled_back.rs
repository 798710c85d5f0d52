//! Pods that gave up their published window and serve their last good one instead: when they may
//! leave that one, too.

use chrono::{DateTime, Utc};

use super::{CellBlock, Gap, Member, MemberState, PlanTerms, TimeRange, coverage};
use crate::core::model::window::Window;

/// Whether confirmed pods serve everything that a rolled-back pod serves; false for other pods.
#[must_use]
pub fn can_leave(
    members: &[Member],
    member: usize,
    blocks: &[CellBlock],
    terms: &PlanTerms,
) -> bool {
    let confirmed = |other: &Member| other.state == MemberState::Confirmed;
    matches!(alone_with(members, member, terms, confirmed), Some(alone) if alone.is_empty())
        && !blocks
            .iter()
            .any(|block| serves_alone(members, member, block, terms))
}

/// Whether a rolled-back pod serves a part of a block that no confirmed pod serves.
fn serves_alone(members: &[Member], member: usize, block: &CellBlock, terms: &PlanTerms) -> bool {
    let MemberState::RolledBack(serves) = members[member].state else {
        return false;
    };
    if block.lacking.contains(&member) || !block.is_in(serves, terms.now) {
        return false;
    }
    let has = |(i, other): &(usize, &Member)| {
        other.state == MemberState::Confirmed && !block.lacking.contains(i)
    };
    let others: Vec<Window> = members
        .iter()
        .enumerate()
        .filter(has)
        .map(|(_, other)| other.published.window)
        .collect();
    let part = intersection(block.window(), serves, terms.now);
    let part = intersection(part, terms.required, terms.now);
    !coverage(&others, part, terms.now).1.is_empty()
}

/// The common part of two windows; inverted, so without any gap, if they do not overlap.
fn intersection(a: Window, b: Window, now: DateTime<Utc>) -> Window {
    Window {
        min: if a.min.at(now) < b.min.at(now) {
            b.min
        } else {
            a.min
        },
        max: if a.max.at(now) < b.max.at(now) {
            a.max
        } else {
            b.max
        },
    }
}

/// Returns the range that only this rolled-back pod would serve even after all pending pods are
/// ready. Waiting cannot free the pod.
pub(super) fn lost_for_good(members: &[Member], member: usize, terms: &PlanTerms) -> Option<Gap> {
    // Other rolled-back pods that must move do not reach their published window either.
    let arrives = |other: &Member| {
        !matches!(other.state, MemberState::RolledBack(_)) || other.published == other.desired
    };
    let alone = alone_with(members, member, terms, arrives)?;
    let (from, to) = (alone.first()?.0, alone.last()?.1);
    Some(Gap { member, from, to })
}

/// Returns the ranges that a rolled-back pod serves and that no other pod for which `counts` holds
/// has published; `None` for a pod that did not roll back.
fn alone_with(
    members: &[Member],
    member: usize,
    terms: &PlanTerms,
    counts: impl Fn(&Member) -> bool,
) -> Option<Vec<TimeRange>> {
    let MemberState::RolledBack(serves) = members[member].state else {
        return None;
    };
    let needed = intersection(serves, terms.required, terms.now);
    let others = members
        .iter()
        .enumerate()
        .filter(|(i, other)| *i != member && counts(other));
    let held: Vec<Window> = others.map(|(_, other)| other.published.window).collect();
    Some(coverage(&held, needed, terms.now).1)
}
