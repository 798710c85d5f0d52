//! A window that is larger than any that a pod of the set has loaded goes to one pod first: if it
//! does not fit, one pod rolls back, and not half the fleet.

use std::cmp::Reverse;

use super::cells::Cells;
use super::fewest::{fewest, reliance};
use super::plain::Plain;
use super::rule::Reliance;
use super::search::Ledger as _;
use super::{Member, PlanTerms, WindowChange, after, direct, open_windows};
use crate::core::model::window::Window;

/// Pods that are compared, and in a fleet of more than this many.
const MAX_CANDIDATES: usize = 12;
const LARGE_FLEET: usize = 200;
const MAX_CANDIDATES_OF_LARGE: usize = 1;

/// Marks the pods whose planned window is longer than any published one. Where blocks are unknown,
/// the length stands for the size.
pub fn mark_longer(members: &mut [Member], terms: &PlanTerms) {
    let longest = members
        .iter()
        .map(|member| member.published.window.length(terms.now))
        .max();
    for member in members {
        member.canary = Some(member.desired.window.length(terms.now)) > longest;
    }
}

/// Clears the marks of windows that are no longer than one that a pod has loaded.
pub(super) fn clear(members: &mut [Member], loaded: Window, terms: &PlanTerms) {
    let most = loaded.length(terms.now);
    for member in members {
        member.canary &= member.desired.window.length(terms.now) > most;
    }
}

/// Returns the step that takes the place of `step`, so that of the marked pods one goes alone.
/// `relays` is whether the step follows the order of a relay.
pub(super) fn first(
    members: &[Member],
    cells: &Cells,
    terms: &PlanTerms,
    step: Vec<WindowChange>,
    relays: bool,
) -> Vec<WindowChange> {
    let open = open_windows(members);
    if !open.iter().any(|i| members[*i].canary) {
        return step;
    }
    if !relays && let Some(first) = best(members, cells, terms) {
        return vec![first];
    }
    only_one(members, cells, terms, step)
}

/// Returns the marked pod after whose move the fewest steps remain; `None` if none may go alone.
fn best(members: &[Member], cells: &Cells, terms: &PlanTerms) -> Option<WindowChange> {
    let mut marked = open_windows(members);
    marked.retain(|i| members[*i].canary);
    let size = |i: usize| members[i].desired.window.length(terms.now);
    let longest = marked.iter().map(|i| size(*i)).max()?;
    marked.sort_by_key(|i| (Reverse(size(*i)), !members[*i].surplus, *i));
    let key = |i: usize| {
        let member = &members[i];
        (
            member.published.window,
            member.desired.window,
            member.surplus,
        )
    };
    marked.dedup_by(|next, before| key(*next) == key(*before));
    let most = if members.len() > LARGE_FLEET {
        MAX_CANDIDATES_OF_LARGE
    } else {
        MAX_CANDIDATES
    };
    let mut plain = Plain::new(members, cells, terms, reliance(members, cells, terms));
    let remaining = |i: &usize| {
        let steps = fewest(&after(members, &[direct(members, *i)]), cells, terms)
            .map_or(usize::MAX / 2, |finish| finish.steps);
        steps + usize::from(size(*i) < longest)
    };
    marked
        .into_iter()
        .filter(|i| plain.is_safe(&[direct(members, *i)]))
        .take(most)
        .min_by_key(remaining)
        .map(|i| direct(members, i))
}

/// Of a step that moves marked pods, keeps one of them, or else those of the others that may go
/// without them.
pub(super) fn only_one(
    members: &[Member],
    cells: &Cells,
    terms: &PlanTerms,
    step: Vec<WindowChange>,
) -> Vec<WindowChange> {
    let is_marked = |change: &&WindowChange| {
        let member = &members[change.member];
        let size = |window: Window| window.length(terms.now);
        member.canary && size(change.to.window) >= size(member.desired.window)
    };
    // A change of numbers alone restarts nothing.
    let restarts =
        |change: &&WindowChange| change.to.window != members[change.member].published.window;
    if step.iter().filter(restarts).count() < 2 || !step.iter().any(|change| is_marked(&change)) {
        return step;
    }
    let mut plain = Plain::new(members, cells, terms, Reliance::Spares);
    let mut marked: Vec<WindowChange> = step.iter().filter(is_marked).copied().collect();
    marked.sort_by_key(|change| Reverse(change.to.window.length(terms.now)));
    if let Some(first) = marked.iter().find(|change| plain.is_safe(&[**change])) {
        return vec![*first];
    }
    let mut others: Vec<WindowChange> = step.iter().filter(|c| !is_marked(c)).copied().collect();
    for change in &others {
        plain.make(change);
    }
    plain.trim(&mut others);
    if others.is_empty() { step } else { others }
}
