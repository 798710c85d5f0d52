//! Pods that gave up their window and serve their last good one instead: when they may leave that, too.

use chrono::{DateTime, Utc};

use super::{Block, Gap, Member, Range, Standing, Terms, coverage};
use crate::core::window::{Bound, Window};

/// Whether a pod that gave up its window serves nothing that confirmed pods do not.
pub(super) fn can_leave(
    members: &[Member],
    member: usize,
    blocks: &[Block],
    terms: &Terms,
) -> bool {
    let confirmed = |other: &Member| other.standing == Standing::Confirmed;
    matches!(alone_with(members, member, terms, confirmed), Some(alone) if alone.is_empty())
        && !blocks
            .iter()
            .any(|block| serves_alone(members, member, block, terms))
}

/// Whether such a pod serves a part of a block that no confirmed pod serves.
fn serves_alone(members: &[Member], member: usize, block: &Block, terms: &Terms) -> bool {
    let Standing::Fallen(serves) = members[member].standing else {
        return false;
    };
    if block.lacking.contains(&member) || !block.is_in(serves, terms.now) {
        return false;
    }
    let has = |(i, other): &(usize, &Member)| {
        other.standing == Standing::Confirmed && !block.lacking.contains(i)
    };
    let others: Vec<Window> = members
        .iter()
        .enumerate()
        .filter(has)
        .map(|(_, other)| other.published.window)
        .collect();
    let later = |a: DateTime<Utc>, b: Bound| a.max(b.at(terms.now));
    let earlier = |a: DateTime<Utc>, b: Bound| a.min(b.at(terms.now));
    let min = later(later(block.range.0, serves.min), terms.required.min);
    let max = earlier(earlier(block.range.1, serves.max), terms.required.max);
    min < max
        && !coverage(
            &others,
            Window {
                min: Bound::Absolute(min),
                max: Bound::Absolute(max),
            },
            terms.now,
        )
        .1
        .is_empty()
}

/// What a pod that gave up its window, and shall have another than that, serves alone even when everybody who is waited for
/// has come: no waiting lets it leave.
pub(super) fn lost_for_good(members: &[Member], member: usize, terms: &Terms) -> Option<Gap> {
    // Others like it keep what they serve until they leave, too, and are not counted on.
    let comes = |other: &Member| {
        !matches!(other.standing, Standing::Fallen(_)) || other.published == other.desired
    };
    let alone = alone_with(members, member, terms, comes)?;
    let (from, to) = (alone.first()?.0, alone.last()?.1);
    Some(Gap { member, from, to })
}

/// What such a pod serves and none of those others has published; `None` for one that serves what is published, or nothing.
fn alone_with(
    members: &[Member],
    member: usize,
    terms: &Terms,
    counts: impl Fn(&Member) -> bool,
) -> Option<Vec<Range>> {
    let Standing::Fallen(serves) = members[member].standing else {
        return None;
    };
    let later = |a: Bound, b: Bound| {
        if a.at(terms.now) < b.at(terms.now) {
            b
        } else {
            a
        }
    };
    let earlier = |a: Bound, b: Bound| {
        if a.at(terms.now) < b.at(terms.now) {
            a
        } else {
            b
        }
    };
    let needed = Window {
        min: later(serves.min, terms.required.min),
        max: earlier(serves.max, terms.required.max),
    };
    let others = members
        .iter()
        .enumerate()
        .filter(|(i, other)| *i != member && counts(other));
    let held: Vec<Window> = others.map(|(_, other)| other.published.window).collect();
    Some(coverage(&held, needed, terms.now).1)
}
