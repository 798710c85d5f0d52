//! The guard's invariants, compared with an independent check of the windows.

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::core::rollout::planner::{Discovery, PlanTerms, Step, WindowChange, preview};
use crate::testing::cases;

/// The independent check: whether at the edge of any window, or just next to it, a pod serves the
/// instant before the change and none does after it.
fn leaves_a_gap(before: &[Window], after: &[Window], retention: TimeDelta) -> bool {
    let (oldest, newest) = (now() - retention, now() + TimeDelta::days(1));
    let edges = before
        .iter()
        .flat_map(|window| [window.min.at(now()), window.max.at(now())])
        .chain([oldest, newest]);
    let near = edges.flat_map(|edge| {
        [
            edge - TimeDelta::milliseconds(1),
            edge,
            edge + TimeDelta::milliseconds(1),
        ]
    });
    let held = |windows: &[Window], at| windows.iter().any(|window| window.holds(at, now()));
    near.filter(|at| (oldest..=newest).contains(at))
        .any(|at| held(before, at) && !held(after, at))
}

#[derive(Clone, Debug)]
struct Situation {
    before: Made,
    after: Made,
    published: Entries,
    /// Bit mask of ready pods, by ordinal; `None` where no pods are watched.
    ready: Option<u32>,
}

fn annotated(replicas: u32, start: u32, (shards, each, days): (u32, u32, u32)) -> Made {
    let (count, each) = (shards.to_string(), each.to_string());
    // In some, the oldest window is open.
    if days > 330 {
        let boundaries = format!(
            "[{}]",
            (1..shards)
                .map(|shard| format!("{}d", shard * 20))
                .collect::<Vec<_>>()
                .join(", ")
        );
        return Made {
            start,
            ..made(
                replicas,
                &[
                    ("boundaries", &boundaries),
                    ("replicas-per-shard", &each),
                    ("retention", "forever"),
                ],
            )
        };
    }
    Made {
        start,
        ..made(
            replicas,
            &[
                ("total-shards", &count),
                ("replicas-per-shard", &each),
                ("retention", &format!("{days}d")),
            ],
        )
    }
}

/// Any two numbers of pods and plans; published is what some plan wanted for some number of pods,
/// or parts of it.
fn situations() -> impl Strategy<Value = Situation> {
    let division = || (1..6_u32, 1..4_u32, 30..400_u32);
    let starts = prop_oneof![4 => Just((0, 0)), 1 => (0..4_u32, 0..4_u32)];
    let missing = prop_oneof![2 => Just(0_u32), 1 => any::<u32>()];
    let ready =
        prop_oneof![1 => Just(None), 1 => Just(Some(u32::MAX)), 3 => any::<u32>().prop_map(Some)];
    (
        division(),
        division(),
        division(),
        0..13_u32,
        0..13_u32,
        starts,
        (0..13_u32, ready),
        missing,
    )
        .prop_map(
            |(one, other, of_published, from, to, starts, (planned_for, ready), missing)| {
                let published = annotated(from, starts.0, of_published);
                let target = published.clone().known(&Config::default());
                let plan = crate::core::plan::Plan::new(&target.sharding, Some(planned_for.max(1)));
                let entries = (0..from)
                    .filter(|index| missing & (1 << index) == 0)
                    .map(|index| {
                        let at = plan.assign(index);
                        let entry = Entry::new(at.shard, at.replica, plan.window(at.shard, now()));
                        (format!("store-{}", starts.0 + index), entry)
                    });
                Situation {
                    published: entries.collect(),
                    before: annotated(from, starts.0, one),
                    after: annotated(to, starts.1, other),
                    ready,
                }
            },
        )
}

proptest! {
    #![proptest_config(cases(512))]

    /// Refused if and only if it leaves a gap that was not there, among all pods or among those
    /// that are ready.
    #[test]
    fn what_is_refused_leaves_a_gap_and_nothing_else_does(situation in situations()) {
        let Situation { before, after, published, ready } = situation;
        let config = Config::default();
        let windows = |keep: &dyn Fn(u32) -> bool| -> Vec<Window> {
            let of = |pod: &str| pod.strip_prefix("store-").unwrap().parse::<u32>().unwrap();
            published.iter().filter(|(pod, _)| keep(of(pod))).map(|(_, entry)| entry.window).collect()
        };
        let stays = |ordinal| (after.start..after.start + after.replicas).contains(&ordinal);
        let retention = after.known(&config).sharding.retention().covered().to_chrono();
        let is_ready = |ordinal: u32| ready.is_none_or(|ready| ready & (1 << ordinal) != 0);
        let gap = leaves_a_gap(&windows(&|_| true), &windows(&stays), retention)
            || leaves_a_gap(&windows(&is_ready), &windows(&|ordinal| stays(ordinal) && is_ready(ordinal)), retention);
        let all = (0..32).map(|pod| (pod, if is_ready(pod) { PodCondition::Ready } else { PodCondition::NotReady }));
        let seen = ready.map(|_| pods(&all.collect::<Vec<_>>()));
        let verdict = judged_with(&config, Some(&published), seen.as_ref(), Some(&before), Some(&after));
        prop_assert_eq!(verdict.denial.is_some(), gap, "{:?}", verdict);
        prop_assert_eq!(verdict.concern, gap.then_some(Concern::CoverageGap));
        if before.start == after.start && after.replicas >= before.replicas {
            prop_assert!(!gap, "a scale-up or an annotation");
        }
        let warn = self::config("guard: {mode: warn}");
        let warned = judged_with(&warn, Some(&published), seen.as_ref(), Some(&before), Some(&after));
        prop_assert_eq!((warned.denial, warned.concern), (None, verdict.concern));
        prop_assert_eq!(judged(&config, None, Some(&before), Some(&after)).denial, None, "nothing is known");
    }

    /// From any plan to any target: once everything is published as planned for it, scaling down
    /// gives no message.
    #[test]
    fn scaling_down_to_the_target_is_silent(division in (1..6_u32, 1..4_u32, 30..400_u32), more in 1..8_u32, to in 1..10_u32) {
        let config = Config::default();
        let mut before = annotated(to + more, 0, division);
        before.annotations.insert(crate::core::model::names::TARGET_REPLICAS.to_owned(), to.to_string());
        let published = before.settled(&config);
        prop_assert_eq!(scaled(&config, Some(&published), &before, to), GuardVerdict::default());
    }

    /// Step by step to the target: while a step's pods restart, a scale-down that is allowed leaves
    /// no gap.
    #[test]
    fn scaling_down_too_early_is_denied_during_the_rollout(division in (1..6_u32, 2..4_u32, 30..400_u32), more in 1..8_u32, to in 2..10_u32) {
        let config = Config::default();
        let mut before = annotated(to + more, 0, division);
        let mut published = before.settled(&config);
        before.annotations.insert(crate::core::model::names::TARGET_REPLICAS.to_owned(), to.to_string());
        let known = before.known(&config);
        let terms = PlanTerms { discovery: Discovery::Pods, allow_gap: false, ..PlanTerms::new(&known.sharding, to as usize, now()) };
        let (steps, _) = preview(members(&known, Some(&published), now()), &terms);
        for step in steps {
            let Step::Move { changes, .. } = step else { continue };
            let restart = |change: &&WindowChange| published[&format!("store-{}", change.member)].window != change.to.window;
            let away: Vec<usize> = changes.iter().filter(restart).map(|change| change.member).collect();
            for change in &changes {
                let entry = Entry::new(change.to.shard, change.to.replica, change.to.window);
                published.insert(format!("store-{}", change.member), entry);
            }
            let verdict = scaled(&config, Some(&published), &before, to);
            if verdict.denial.is_none() {
                let stay = |pod: &u32| *pod < to && !away.contains(&(*pod as usize));
                let windows = |keep: &dyn Fn(&u32) -> bool| -> Vec<Window> {
                    (0..to + more).filter(|pod| keep(pod)).map(|pod| published[&format!("store-{pod}")].window).collect()
                };
                let gap = leaves_a_gap(&windows(&|_| true), &windows(&stay), known.sharding.retention().covered().to_chrono());
                prop_assert!(!gap, "{away:?} are away, and {published:?} was allowed");
            }
        }
    }
}
