//! The fewest steps of a small fleet, by a search of all its states: breadth first, a step after
//! another, with every safe choice of pods.
//!
//! Pods that are alike are tried in one order only. A choice that uncovers an instant is given up with
//! everything that adds to it, because more moves never cover it again.

use std::collections::BTreeSet;

use super::cells::Cells;
use super::plain::Plain;
use super::rule::Reliance;
use super::search::Ledger as _;
use super::{Member, PlanTerms, Slot, WindowChange};

/// Moves tried before the search is given up.
const MAX_TRIES: usize = 100_000;

/// What the search found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The number of steps, and the first of them.
    Steps(usize, Vec<WindowChange>),
    /// No order of steps ends.
    Never,
    /// It takes too long to tell.
    Unknown,
}

/// Where a pod is: at its published slot, on a detour, or at its planned slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Before,
    Detour,
    Done,
}

/// By position among the open pods.
type Stages = Vec<Stage>;

pub(super) struct Exact<'a> {
    members: &'a [Member],
    cells: &'a Cells,
    terms: &'a PlanTerms,
    open: Vec<usize>,
    /// Whether a pod is interchangeable with the one before it.
    alike: Vec<bool>,
    tries: usize,
}

/// One step while it is chosen.
struct Choice<'a, 'b> {
    plain: Plain<'a>,
    state: &'b Stages,
    detours: bool,
    picked: Stages,
    moves: Vec<WindowChange>,
}

impl<'a> Exact<'a> {
    pub(super) fn new(
        members: &'a [Member],
        cells: &'a Cells,
        terms: &'a PlanTerms,
        mut open: Vec<usize>,
    ) -> Self {
        let key = |i: usize| {
            let member = &members[i];
            (
                cells.span(member.published.window),
                cells.span(member.desired.window),
                member.surplus,
                cells.lacked_by(i),
            )
        };
        open.sort_by_cached_key(|i| (key(*i), *i));
        let alike = (0..open.len())
            .map(|at| at > 0 && key(open[at - 1]) == key(open[at]))
            .collect();
        Self {
            members,
            cells,
            terms,
            open,
            alike,
            tries: 0,
        }
    }

    /// Whether a direct move is safe without surplus pods; `None` if that takes too long to tell.
    pub(super) fn needs_no_surplus(&mut self) -> Option<bool> {
        let state = vec![Stage::Before; self.open.len()];
        let found = self.has_strict_step(self.members, &state);
        (self.tries <= MAX_TRIES).then_some(found)
    }

    /// Returns the fewest steps, of direct moves or also of detours.
    pub(super) fn search(&mut self, detours: bool) -> Found {
        let start = vec![Stage::Before; self.open.len()];
        let mut seen = BTreeSet::from([start.clone()]);
        let mut states: Vec<(Stages, Vec<WindowChange>)> = vec![(start, Vec::new())];
        let mut steps = 1;
        while !states.is_empty() {
            for (state, first) in &states {
                if let Some(last) = self.last_step(state) {
                    let first = if steps == 1 { last } else { first.clone() };
                    return Found::Steps(steps, first);
                }
            }
            let mut next = Vec::new();
            for (state, first) in &states {
                for (after, step) in self.steps(state, detours) {
                    if seen.insert(after.clone()) {
                        next.push((after, if steps == 1 { step } else { first.clone() }));
                    }
                }
            }
            if self.tries > MAX_TRIES {
                return Found::Unknown;
            }
            // Direct moves first: a detour restarts a pod twice.
            next.sort_by_key(|(state, _)| {
                state
                    .iter()
                    .filter(|stage| **stage == Stage::Detour)
                    .count()
            });
            (states, steps) = (next, steps + 1);
        }
        Found::Never
    }

    fn slot(&self, at: usize, stage: Stage) -> Slot {
        let member = &self.members[self.open[at]];
        match stage {
            Stage::Before => member.published,
            Stage::Detour => member.detour(self.terms.now),
            Stage::Done => member.desired,
        }
    }

    fn members(&self, state: &Stages) -> Vec<Member> {
        let mut members = self.members.to_vec();
        for (at, stage) in state.iter().enumerate() {
            members[self.open[at]].published = self.slot(at, *stage);
        }
        members
    }

    /// The remaining direct moves, if they are one safe step.
    fn last_step(&mut self, state: &Stages) -> Option<Vec<WindowChange>> {
        let rest = (0..state.len()).filter(|at| state[*at] != Stage::Done);
        let moves: Vec<WindowChange> = rest
            .map(|at| WindowChange {
                member: self.open[at],
                to: self.slot(at, Stage::Done),
            })
            .collect();
        let members = self.members(state);
        self.tries += moves.len();
        let safe =
            |reliance| Plain::new(&members, self.cells, self.terms, reliance).is_safe(&moves);
        let ends = moves.len() <= self.terms.max_concurrent_restarts
            && (safe(Reliance::Needed)
                || (safe(Reliance::Surplus) && !self.has_strict_step(&members, state)));
        ends.then_some(moves)
    }

    /// Whether some direct moves are safe together although surplus pods do not count; also true if
    /// that takes too long to tell, so that surplus pods are then not relied on.
    fn has_strict_step(&mut self, members: &[Member], state: &Stages) -> bool {
        let plain = Plain::new(members, self.cells, self.terms, Reliance::Needed);
        let mut choice = Choice::new(plain, state, false);
        self.choose(&mut choice, &mut |_, _| true) || self.tries > MAX_TRIES
    }

    /// All safe steps from a state, with the states after them.
    fn steps(&mut self, state: &Stages, detours: bool) -> Vec<(Stages, Vec<WindowChange>)> {
        let members = self.members(state);
        let surplus = members.iter().any(|member| member.surplus);
        let reliance = if !surplus || self.has_strict_step(&members, state) {
            Reliance::Needed
        } else {
            Reliance::Surplus
        };
        let plain = Plain::new(&members, self.cells, self.terms, reliance);
        let mut found = Vec::new();
        self.choose(
            &mut Choice::new(plain, state, detours),
            &mut |after, step| {
                found.push((after.clone(), step.to_vec()));
                false
            },
        );
        found
    }

    /// Tries every choice for the pods from here on. Ends as soon as `found` returns true.
    fn choose(
        &mut self,
        choice: &mut Choice<'_, '_>,
        found: &mut dyn FnMut(&Stages, &[WindowChange]) -> bool,
    ) -> bool {
        let at = choice.picked.len();
        if at == self.open.len() {
            let kept = |change: &WindowChange| choice.plain.keeps(change.member);
            return !choice.moves.is_empty()
                && choice.moves.iter().all(kept)
                && found(&choice.picked, &choice.moves);
        }
        let before = choice.state[at];
        // Of pods that are alike, the first ones go furthest.
        let most = if self.alike[at] && choice.state[at - 1] == before {
            choice.picked[at - 1]
        } else {
            Stage::Done
        };
        let full = choice.moves.len() >= self.terms.max_concurrent_restarts;
        for stage in [Stage::Done, Stage::Detour] {
            let allowed = !full
                && before < stage
                && stage <= most
                && (stage == Stage::Done || choice.allows_detour(self.open[at]));
            if !allowed {
                continue;
            }
            self.tries += 1;
            if self.tries > MAX_TRIES {
                return false;
            }
            let change = WindowChange {
                member: self.open[at],
                to: self.slot(at, stage),
            };
            choice.plain.make(&change);
            choice.moves.push(change);
            choice.picked.push(stage);
            let ended = choice.plain.covers(change.member) && self.choose(choice, found);
            choice.picked.pop();
            choice.moves.pop();
            choice.plain.revert(&change);
            if ended {
                return true;
            }
        }
        choice.picked.push(before);
        let ended = self.choose(choice, found);
        choice.picked.pop();
        ended
    }
}

impl<'a, 'b> Choice<'a, 'b> {
    fn new(plain: Plain<'a>, state: &'b Stages, detours: bool) -> Self {
        Self {
            plain,
            state,
            detours,
            picked: Vec::new(),
            moves: Vec::new(),
        }
    }

    fn allows_detour(&self, member: usize) -> bool {
        self.detours && self.plain.detour(member).is_some()
    }
}
