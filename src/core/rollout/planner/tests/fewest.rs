//! The number of steps, compared with an exhaustive search that shares only the planner's definition
//! of a safe step.

use std::collections::BTreeSet;

use super::super::cells::Cells;
use super::super::plain::Plain;
use super::super::rule::Reliance;
use super::super::search::Ledger as _;
use super::*;
use crate::testing::cases;

/// What changes, from and to what, and the number of pods.
fn table() -> Vec<(&'static str, Division, Division, u32)> {
    let longer = Division {
        retention: 400,
        ..division(3, 2)
    };
    vec![
        ("3x2 -> 4x2", division(3, 2), division(4, 2), 8),
        ("4x2 -> 3x2", division(4, 2), division(3, 2), 8),
        ("370d -> 400d", division(3, 2), longer, 6),
        ("2x2 -> 3x2", division(2, 2), division(3, 2), 6),
        ("2x3 -> 3x2", division(2, 3), division(3, 2), 6),
        ("3x3 -> 4x2", division(3, 3), division(4, 2), 9),
        ("2x2 -> 4x2", division(2, 2), division(4, 2), 8),
        ("4x2 -> 2x2", division(4, 2), division(2, 2), 8),
    ]
}

/// The terms of a fleet of this size with the default share of restarts.
fn half(plan: &Plan, pods: u32) -> PlanTerms {
    PlanTerms {
        max_concurrent_restarts: pods.div_ceil(2) as usize,
        ..terms(plan)
    }
}

/// The restarts of each step.
fn restarts(members: &[Member], steps: &[Step]) -> Vec<usize> {
    let mut at: Vec<Window> = members.iter().map(|m| m.published.window).collect();
    let count = |step: &Step| {
        let Step::Move { changes, gap: None } = step else {
            panic!("{step:?}")
        };
        changes
            .iter()
            .filter(|change| {
                std::mem::replace(&mut at[change.member], change.to.window) != change.to.window
            })
            .count()
    };
    steps.iter().map(count).filter(|count| *count > 0).collect()
}

#[test]
fn each_change_of_the_table_takes_two_steps() {
    for (name, from, to, pods) in table() {
        let members = fleet(&from, &to, pods);
        let terms = half(&to.plan(pods), pods);
        let (steps, blocked) = preview(members.clone(), &terms);
        assert_eq!(blocked, None, "{name}");
        let restarts = restarts(&members, &steps);
        assert_eq!(restarts.len(), 2, "{name}: {steps:#?}");
        let most = terms.max_concurrent_restarts;
        assert!(
            restarts.iter().all(|count| *count <= most),
            "{name}: {restarts:?}"
        );
    }
}

#[test]
fn with_a_canary_it_takes_at_most_three() {
    for (name, from, to, pods) in table() {
        let mut members = fleet(&from, &to, pods);
        let terms = half(&to.plan(pods), pods);
        for all in [false, true] {
            if all {
                for member in &mut members {
                    member.canary = true;
                }
            } else {
                mark_longer(&mut members, &terms);
            }
            let marked = members.iter().any(|member| member.canary);
            let (steps, blocked) = preview(members.clone(), &terms);
            assert_eq!(blocked, None, "{name}");
            let restarts = restarts(&members, &steps);
            assert!(restarts.len() <= 3, "{name}: {steps:#?}");
            assert!(!marked || restarts[0] == 1, "{name}: {restarts:?}");
        }
    }
}

/// The number of steps of a change with these limits.
fn steps(from: &Division, to: &Division, pods: u32, max_unavailable: u32) -> usize {
    let members = fleet(from, to, pods);
    let terms = PlanTerms {
        max_unavailable,
        ..half(&to.plan(pods), pods)
    };
    let (steps, blocked) = preview(members.clone(), &terms);
    assert_eq!(blocked, None);
    restarts(&members, &steps).len()
}

#[test]
fn of_three_replicas_one_or_two_are_away() {
    let (three, four) = (division(3, 3), division(4, 3));
    assert_eq!(steps(&three, &four, 12, 1), 3);
    assert_eq!(steps(&three, &four, 12, 2), 2);
    assert_eq!(steps(&division(3, 2), &division(2, 3), 6, 1), 2);
}

#[test]
fn large_fleets_take_two_steps_too() {
    for (from, to) in [(20, 25), (25, 20), (30, 31)] {
        let pods = 2 * from.max(to);
        assert_eq!(
            steps(&division(from, 2), &division(to, 2), pods, 1),
            2,
            "{from} to {to}"
        );
    }
}

#[test]
fn a_limit_of_restarts_costs_steps_and_nothing_else() {
    let (from, to) = (division(3, 2), division(4, 2));
    let members = fleet(&from, &to, 8);
    for most in 1..=8 {
        let terms = PlanTerms {
            max_concurrent_restarts: most,
            ..terms(&to.plan(8))
        };
        for discovery in [Discovery::Pods, Discovery::ShardServices] {
            let terms = PlanTerms { discovery, ..terms };
            let (steps, blocked) = preview(members.clone(), &terms);
            assert_eq!(blocked, None);
            assert!(
                restarts(&members, &steps)
                    .iter()
                    .all(|count| *count <= most)
            );
        }
    }
}

/// Each reason for more than two steps from two replicas to two.
mod reasons {
    use super::*;

    /// Eight pods between three and four shards of two, and the changes that are done.
    fn after_the_first_step() -> (Vec<Member>, PlanTerms, Vec<WindowChange>) {
        let (from, to) = (division(3, 2), division(4, 2));
        let members = fleet(&from, &to, 8);
        let terms = half(&to.plan(8), 8);
        let Step::Move { changes, .. } = next_step(&members, &[], &terms) else {
            panic!("no step")
        };
        (after(&members, &changes), terms, changes)
    }

    #[test]
    fn shard_services_take_every_pod_through_a_wide_window() {
        let (from, to) = (division(3, 2), division(4, 2));
        let members = fleet(&from, &to, 8);
        let terms = PlanTerms {
            discovery: Discovery::ShardServices,
            ..half(&to.plan(8), 8)
        };
        let (steps, blocked) = preview(members.clone(), &terms);
        assert_eq!(blocked, None);
        assert!(restarts(&members, &steps).len() > 2, "{steps:#?}");
    }

    #[test]
    fn a_missing_block_keeps_a_pod_that_would_go() {
        let (members, terms, changes) = after_the_first_step();
        let all = next_step(&members, &[], &terms);
        let day = |days: i64| now() - chrono::TimeDelta::days(days);
        let block = CellBlock {
            range: (day(104), day(100)),
            lacking: changes.iter().map(|change| change.member).collect(),
        };
        let fewer = next_step(&members, &[block], &terms);
        let count = |step: &Step| match step {
            Step::Move { changes, .. } => changes.len(),
            _ => 0,
        };
        assert!(count(&fewer) < count(&all), "{fewer:?}");
    }

    #[test]
    fn a_pod_that_does_not_come_back_is_waited_for() {
        let (mut members, terms, changes) = after_the_first_step();
        members[changes[0].member].state = MemberState::Broken;
        let wait = Step::Wait(vec![changes[0].member]);
        assert_eq!(next_step(&members, &[], &terms), wait);
    }

    #[test]
    fn one_replica_needs_a_spare_pod_and_its_moves() {
        let (from, to) = (division(3, 1), division(4, 1));
        assert!(steps(&from, &to, 5, 1) > 2);
    }
}

/// The exhaustive search.
struct Search<'a> {
    cells: Cells,
    terms: &'a PlanTerms,
    detours: bool,
}

impl Search<'_> {
    fn is_safe(&self, members: &[Member], step: &[WindowChange], reliance: Reliance) -> bool {
        Plain::new(members, &self.cells, self.terms, reliance).is_safe(step)
    }

    /// Every set of moves from a state.
    fn choices(&self, members: &[Member], detours: bool) -> Vec<Vec<WindowChange>> {
        let mut all = vec![Vec::new()];
        for (i, member) in members.iter().enumerate() {
            if member.published.window == member.desired.window {
                continue;
            }
            let wide = Plain::new(members, &self.cells, self.terms, Reliance::Needed).detour(i);
            let moves = [Some(member.desired), wide.filter(|_| detours)];
            for step in all.clone() {
                for to in moves.into_iter().flatten() {
                    let change = WindowChange { member: i, to };
                    all.push([step.clone(), vec![change]].concat());
                }
            }
        }
        let most = self.terms.max_concurrent_restarts;
        all.retain(|step| !step.is_empty() && step.len() <= most);
        all
    }

    /// Surplus pods count only if no step is safe without them.
    fn reliance(&self, members: &[Member]) -> Reliance {
        let strict = |step: &Vec<WindowChange>| self.is_safe(members, step, Reliance::Needed);
        if self.choices(members, false).iter().any(strict) {
            Reliance::Needed
        } else {
            Reliance::Surplus
        }
    }

    fn safe_steps(&self, members: &[Member]) -> Vec<Vec<WindowChange>> {
        let reliance = self.reliance(members);
        let mut steps = self.choices(members, self.detours);
        steps.retain(|step| self.is_safe(members, step, reliance));
        steps
    }

    /// Whether the plan is reached in at most this many steps. `fails` are states from which it is
    /// not.
    fn ends_in(
        &self,
        members: &[Member],
        steps: usize,
        fails: &mut BTreeSet<(Vec<(i64, i64)>, usize)>,
    ) -> bool {
        let open = open_windows(members);
        if open.is_empty() {
            return true;
        }
        let published = members.iter().map(|m| self.cells.span(m.published.window));
        let key = (published.collect(), steps);
        if steps.saturating_mul(self.terms.max_concurrent_restarts) < open.len()
            || fails.contains(&key)
        {
            return false;
        }
        if steps == 1 {
            let all: Vec<WindowChange> = open.iter().map(|i| direct(members, *i)).collect();
            return self.is_safe(members, &all, self.reliance(members));
        }
        let ends = self.safe_steps(members).into_iter().any(|step| {
            let mut after = members.to_vec();
            for change in &step {
                after[change.member].published = change.to;
            }
            self.ends_in(&after, steps - 1, fails)
        });
        if !ends {
            fails.insert(key);
        }
        ends
    }
}

/// A change of plan of a small fleet.
#[derive(Clone, Debug)]
struct Change {
    from: Division,
    to: Division,
    pods: u32,
    max_unavailable: u32,
    /// Of all pods, in percent.
    restarts: usize,
}

impl Change {
    fn terms(&self) -> PlanTerms {
        PlanTerms {
            max_unavailable: self.max_unavailable,
            max_concurrent_restarts: (self.pods as usize * self.restarts).div_ceil(100),
            ..terms(&self.to.plan(self.pods))
        }
    }
}

/// Changes of plan with at most this many pods, and at least two replicas.
fn changes(most: u32) -> impl Strategy<Value = Change> {
    let sizes: Vec<(u32, u32)> = (1..=most / 2)
        .flat_map(|shards| (2..=most / shards).map(move |replicas| (shards, replicas)))
        .collect();
    let small = move || {
        let resize = |(division, (shards, replicas)): (Division, (u32, u32))| Division {
            shards,
            replicas,
            ..division
        };
        (divisions(2), prop::sample::select(sizes.clone())).prop_map(resize)
    };
    let restarts = prop_oneof![3 => Just(50), 1 => 20..101_usize];
    (small(), small(), 0..2_u32, 1..3_u32, restarts).prop_map(
        move |(from, to, spare, max_unavailable, restarts)| Change {
            pods: (from.pods().max(to.pods()) + spare).min(most),
            from,
            to,
            max_unavailable,
            restarts,
        },
    )
}

/// Checks that no order of steps is shorter than the planner's. Returns the number of steps, and
/// whether a pod takes a detour.
fn check(change: &Change, detours: bool) -> Result<(usize, bool), String> {
    let members = fleet(&change.from, &change.to, change.pods);
    let terms = change.terms();
    let (steps, blocked) = preview(members.clone(), &terms);
    if blocked.is_some() {
        return Err(format!("blocked after {steps:#?}"));
    }
    let taken = restarts(&members, &steps);
    if taken.is_empty() {
        return Ok((0, false));
    }
    let has_detour = taken.iter().sum::<usize>() > open_windows(&members).len();
    let search = Search {
        cells: Cells::new(&members, &[], &terms),
        terms: &terms,
        detours,
    };
    // Without detours, the search finds no end either.
    let fewer = if has_detour && !detours {
        open_windows(&members).len()
    } else {
        taken.len().saturating_sub(1)
    };
    if search.ends_in(&members, fewer, &mut BTreeSet::new()) {
        return Err(format!(
            "{} steps, and {fewer} would do: {steps:#?}",
            taken.len()
        ));
    }
    Ok((taken.len(), has_detour))
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..cases(64) })]

    #[test]
    fn no_order_of_direct_moves_is_shorter(change in changes(9)) {
        check(&change, false).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn no_order_of_steps_with_detours_is_shorter(change in changes(6)) {
        check(&change, true).map_err(TestCaseError::fail)?;
    }
}
