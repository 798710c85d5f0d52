//! Assembles a step: tries moves against a ledger that knows whether they are safe together.

use super::{Discovery, Gap, Member, PlanTerms, Slot, Step, WindowChange, direct, hull, moves};

/// Tracks which pods serve what while a step is assembled.
pub(super) trait Ledger {
    /// Moves the member to `to` if that is safe together with the moves so far, and returns whether
    /// it did. With `keep_two`, an instant that has two pods and should keep them keeps them.
    fn try_move(&mut self, member: usize, to: &Slot, keep_two: bool) -> bool;
    /// Reverts moves until every instant that should keep two pods does.
    fn trim(&mut self, moved: &mut Vec<WindowChange>);
    /// An intermediate slot for a member whose direct move is not safe.
    fn detour(&self, member: usize) -> Option<Slot>;
    /// The range that no pod would serve if only this member went away, in milliseconds after now.
    /// Valid only before any move.
    fn gap(&self, member: usize) -> Option<(i64, i64)>;
    /// Whether this member alone serves a block that some pod lacks, and will not after its move.
    fn holds_block_alone(&self, member: usize) -> bool;
    /// From now on surplus pods count as staying, too.
    fn count_surplus(&mut self) {}
    /// From now on only queriers that query Services count.
    fn services_only(&mut self) {}
    /// Reverts all moves.
    fn reset(&mut self);
}

/// Detours tried before one is chosen; bounds the work of a rare case.
const MAX_DETOURS_TRIED: usize = 64;
/// Moves tried after all of these detours together: with thousands of pods only a few detours are
/// tried.
const MAX_MOVES_TRIED: usize = 10_000;

/// Assembles a step from the pods at `open`, in addition to the changes in `first`.
pub(super) fn choose(
    members: &[Member],
    terms: &PlanTerms,
    open: &[usize],
    mut first: Vec<WindowChange>,
    ledger: &mut impl Ledger,
) -> Step {
    let mut order = open.to_vec();
    // Pods that only widen first, pods that only narrow last; among equals, surplus pods first.
    order.sort_by_key(|i| {
        let member = &members[*i];
        let both = hull(&[member.published.window, member.desired.window], terms.now);
        let takes_away = if both == member.desired.window {
            0
        } else {
            1 + u8::from(both == member.published.window)
        };
        (takes_away, !member.surplus, *i)
    });
    let services = terms.discovery == Discovery::ShardServices;
    let most = terms.max_concurrent_restarts.max(1);
    let mut step = if services {
        one_by_one(members, &order, ledger, true, most)
    } else {
        together(members, &order, ledger, most)
    };
    if step.is_empty() && !services {
        ledger.count_surplus();
        step = together(members, &order, ledger, most);
    }
    if step.is_empty() {
        step.extend(best_detour(members, &order, ledger));
        if services && let Some(chosen) = step.first().copied() {
            step.extend(other_detours(&order, chosen, ledger, most - 1));
        }
    }
    if step.is_empty() && services {
        // Every pod is wide by now, so all members of a Service serve its planned window, and one
        // that stays is enough.
        step = one_by_one(members, &order, ledger, false, most);
    }
    if step.is_empty() && services {
        // After the plan changed during a rollout, a wide pod may alone serve a range that its
        // Service does not: queriers of Services lose nothing.
        ledger.services_only();
        step = one_by_one(members, &order, ledger, true, most);
    }
    first.extend(step);
    if !first.is_empty() {
        return moves(first, None);
    }
    ledger.reset();
    // An allowed gap lasts as long as a restart. A block that only this pod has loaded might be
    // unserved for much longer.
    let leaves = |i: &&usize| !ledger.holds_block_alone(**i);
    let gaps = |i: &usize| ledger.gap(*i).map(|(from, to)| (to - from, *i, from, to));
    let free = order.iter().filter(leaves).filter_map(gaps).min();
    let least = free.or_else(|| order.iter().filter_map(gaps).min());
    let allowed = terms.allow_gap && (free.is_some() || least.is_none());
    // The default is not reached: without any gap the first move would have been safe.
    let (_, member, from, to) = least.unwrap_or((0, order[0], 0, 0));
    let at = |millis| terms.now + chrono::TimeDelta::milliseconds(millis);
    let gap = Gap {
        member,
        from: at(from),
        to: at(to),
    };
    if allowed {
        moves(vec![direct(members, member)], Some(gap))
    } else {
        Step::Blocked(gap)
    }
}

/// Direct moves, each safe together with those before it, of which at most `most` restart a pod.
fn one_by_one(
    members: &[Member],
    order: &[usize],
    ledger: &mut impl Ledger,
    keep_two: bool,
    most: usize,
) -> Vec<WindowChange> {
    ledger.reset();
    let (mut step, mut restarts) = (Vec::new(), 0);
    for i in order {
        let member = &members[*i];
        let restart = usize::from(member.published.window != member.desired.window);
        if restarts + restart <= most && ledger.try_move(*i, &member.desired, keep_two) {
            restarts += restart;
            step.push(direct(members, *i));
        }
    }
    step
}

/// As many direct moves as are safe together, at most `most`. Pods that exchange windows are safe
/// only together, so redundancy is checked afterwards.
fn together(
    members: &[Member],
    order: &[usize],
    ledger: &mut impl Ledger,
    most: usize,
) -> Vec<WindowChange> {
    let mut step = one_by_one(members, order, ledger, false, most);
    ledger.trim(&mut step);
    if step.is_empty() {
        return one_by_one(members, order, ledger, true, most);
    }
    let mut taken = vec![false; members.len()];
    for change in &step {
        taken[change.member] = true;
    }
    for i in order.iter().filter(|i| !taken[**i]) {
        if step.len() < most && ledger.try_move(*i, &members[*i].desired, true) {
            step.push(direct(members, *i));
        }
    }
    step
}

/// Returns the detour that makes the most direct moves possible.
fn best_detour(
    members: &[Member],
    order: &[usize],
    ledger: &mut impl Ledger,
) -> Option<WindowChange> {
    let mut best: Option<(usize, WindowChange)> = None;
    let mut tried: Vec<(Slot, Slot)> = Vec::new();
    let most = MAX_DETOURS_TRIED
        .min(MAX_MOVES_TRIED / order.len().max(1))
        .max(1);
    for i in order {
        let member = &members[*i];
        // Pods of one shard with the same move are interchangeable.
        let alike = |pair: &(Slot, Slot)| {
            pair.0.shard == member.published.shard
                && pair.0.window == member.published.window
                && pair.1.window == member.desired.window
        };
        if tried.len() >= most || tried.iter().any(alike) {
            continue;
        }
        ledger.reset();
        let Some(to) = ledger.detour(*i) else {
            continue;
        };
        if !ledger.try_move(*i, &to, true) {
            continue;
        }
        tried.push((member.published, member.desired));
        let enabled = order
            .iter()
            .filter(|j| *j != i && ledger.try_move(**j, &members[**j].desired, true))
            .count();
        if best.as_ref().is_none_or(|(most, _)| enabled > *most) {
            best = Some((enabled, WindowChange { member: *i, to }));
        }
    }
    best.map(|(_, change)| change)
}

/// Returns further detours that are safe with a chosen one: with shard Services nearly all pods need
/// one.
fn other_detours(
    order: &[usize],
    chosen: WindowChange,
    ledger: &mut impl Ledger,
    most: usize,
) -> Vec<WindowChange> {
    ledger.reset();
    ledger.try_move(chosen.member, &chosen.to, true);
    let others = order.iter().filter(|i| **i != chosen.member);
    others
        .filter_map(|i| {
            let to = ledger.detour(*i)?;
            ledger
                .try_move(*i, &to, true)
                .then_some(WindowChange { member: *i, to })
        })
        .take(most)
        .collect()
}
