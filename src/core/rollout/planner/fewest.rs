//! The fewest steps to the plan, with direct moves where they lead there.
//!
//! Pods are edges between their old and their new shard. A step that takes the same share of every
//! shard's pods, old and new, keeps as many as must stay and leaves each instant with as many as it
//! had. So the moves are split evenly ([`colouring`](super::colouring)) into as many steps as they
//! need at least, and each step is checked against the real windows. Small fleets are searched
//! exhaustively if that fails. The next step is found in the same way from the state that this one
//! leads to, so no list of steps is kept.

use std::collections::BTreeMap;

use super::cells::Cells;
use super::colouring;
use super::exact::{Exact, Found};
use super::plain::Plain;
use super::rule::Reliance;
use super::search::Ledger as _;
use super::{Member, PlanTerms, WindowChange, after, direct, open_windows};

/// Pods with moves in the largest fleet that is searched exhaustively, and with detours.
const EXACT_PODS: usize = 10;
const EXACT_PODS_WITH_DETOURS: usize = 6;
/// How many steps more than the least are tried by splitting.
const MORE_STEPS: usize = 2;
/// The most steps into which moves are split: the work doubles with each.
const MAX_SPLIT: usize = 5;
/// Ways to split that are tried for each number of steps.
const MAX_CLASSES_TRIED: usize = 2;

/// The steps that lead to the plan.
#[derive(Debug)]
pub(super) struct Finish {
    pub(super) steps: usize,
    pub(super) first: Vec<WindowChange>,
}

/// Returns the fewest steps to the plan; `None` if none was found.
pub(super) fn fewest(members: &[Member], cells: &Cells, terms: &PlanTerms) -> Option<Finish> {
    let open = open_windows(members);
    if open.is_empty() {
        return Some(Finish {
            steps: 0,
            first: Vec::new(),
        });
    }
    let cap = terms.max_concurrent_restarts.max(1);
    let least = open.len().div_ceil(cap);
    let mut plain = None;
    let mut fleet = |steps| {
        if !fits(open.len(), steps, terms) {
            return None;
        }
        // The same for every number of steps.
        let plain = plain.get_or_insert_with(|| ledger(members, cells, terms));
        let first = split((members, &open), plain, cells, terms, steps)?;
        Some(Finish { steps, first })
    };
    if let Some(finish) = (least..=least.max(2)).find_map(&mut fleet) {
        return Some(finish);
    }
    if open.len() <= EXACT_PODS {
        let detours = open.len() <= EXACT_PODS_WITH_DETOURS;
        match Exact::new(members, cells, terms, open.clone()).search(detours) {
            Found::Steps(steps, first) => return Some(Finish { steps, first }),
            Found::Never => return None,
            Found::Unknown => {}
        }
    }
    (least.max(2) + 1..=least + MORE_STEPS).find_map(fleet)
}

/// The ledger of direct moves.
fn ledger<'a>(members: &'a [Member], cells: &'a Cells, terms: &'a PlanTerms) -> Plain<'a> {
    Plain::new(members, cells, terms, reliance(members, cells, terms))
}

/// Whether so many moves may be split into so many steps.
fn fits(moves: usize, steps: usize, terms: &PlanTerms) -> bool {
    let most = steps.saturating_mul(terms.max_concurrent_restarts.max(1));
    steps <= MAX_SPLIT && (steps..=most).contains(&moves)
}

/// Which pods a step may rely on: surplus pods only if no step is safe without them.
pub(super) fn reliance(members: &[Member], cells: &Cells, terms: &PlanTerms) -> Reliance {
    if !members.iter().any(|member| member.surplus) {
        return Reliance::Needed;
    }
    let open = open_windows(members);
    let mut plain = Plain::new(members, cells, terms, Reliance::Needed);
    let alone = |i: &usize| plain.try_move(*i, &members[*i].desired, true);
    if open.iter().any(alone) {
        return Reliance::Needed;
    }
    let strict = open.len() <= EXACT_PODS
        && Exact::new(members, cells, terms, open)
            .needs_no_surplus()
            .unwrap_or(false);
    if strict {
        Reliance::Needed
    } else {
        Reliance::Surplus
    }
}

/// Returns the first of this many steps that lead to the plan, if an even split of the moves does.
fn split(
    (members, open): (&[Member], &[usize]),
    plain: &mut Plain<'_>,
    cells: &Cells,
    terms: &PlanTerms,
    steps: usize,
) -> Option<Vec<WindowChange>> {
    if steps == 1 {
        let moves: Vec<WindowChange> = open.iter().map(|i| direct(members, *i)).collect();
        return plain.is_safe(&moves).then_some(moves);
    }
    let classes = colouring::split(&edges(members, open, cells), steps);
    for class in 0..MAX_CLASSES_TRIED {
        let of_class = (0..open.len()).filter(|edge| classes[*edge] == class);
        let mut moves: Vec<WindowChange> =
            of_class.map(|edge| direct(members, open[edge])).collect();
        plain.reset();
        for change in &moves {
            plain.make(change);
        }
        plain.trim(&mut moves);
        if moves.is_empty() || moves.len() > terms.max_concurrent_restarts.max(1) {
            continue;
        }
        let after = after(members, &moves);
        let open = open_windows(&after);
        let rest = fits(open.len(), steps - 1, terms)
            && split(
                (&after, &open),
                &mut ledger(&after, cells, terms),
                cells,
                terms,
                steps - 1,
            )
            .is_some();
        if rest {
            return Some(moves);
        }
    }
    None
}

/// For each open pod, its old and its new shard. Surplus pods are shards of their own: the others do
/// not rely on them.
fn edges(members: &[Member], open: &[usize], cells: &Cells) -> Vec<(usize, usize)> {
    let mut numbers: BTreeMap<((i64, i64), bool), usize> = BTreeMap::new();
    let mut number = |window, surplus| {
        let next = numbers.len();
        *numbers.entry((cells.span(window), surplus)).or_insert(next)
    };
    open.iter()
        .map(|i| {
            let member = &members[*i];
            (
                number(member.published.window, member.surplus),
                number(member.desired.window, member.surplus),
            )
        })
        .collect()
}
