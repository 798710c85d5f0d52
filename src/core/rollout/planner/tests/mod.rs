use chrono::{TimeZone, Utc};
use proptest::prelude::*;

use super::*;
use crate::core::config::{Config, Retention};
use crate::core::model::duration::PromDuration;
use crate::core::model::window::Bound;
use crate::core::plan::Plan;

mod blocks;
mod fewest;
mod relay;
mod simulation;
mod stuck;
mod world;

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap()
}

/// A split of the time range, and the number of pods of each part.
#[derive(Clone, Debug)]
struct Division {
    shards: u32,
    replicas: u32,
    retention: u32,
    overlap_hours: u32,
    cuts: Vec<u32>,
    /// `retention: forever`, if there are cuts.
    open: bool,
}

impl Division {
    fn plan(&self, pods: u32) -> Plan {
        let mut cuts = self.cuts.clone();
        cuts.sort_unstable();
        cuts.dedup();
        cuts.retain(|cut| *cut < self.retention);
        cuts.truncate(self.shards as usize - 1);
        let retention = if self.open && !cuts.is_empty() {
            "forever".to_owned()
        } else {
            format!("{}d", self.retention)
        };
        let mut text = format!(
            "sharding:\n  replicas_per_shard: {}\n  retention: {retention}\n  overlap: {}h\n",
            self.replicas, self.overlap_hours
        );
        if cuts.is_empty() {
            text.push_str(&format!("  total_shards: {}\n", self.shards));
        } else {
            text.push_str(&format!(
                "  boundaries: [{}]\n",
                cuts.iter()
                    .map(|d| format!("{d}d"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
        let config =
            Config::parse(&text, "test").unwrap_or_else(|refusal| panic!("{text}\n{refusal}"));
        Plan::new(&config.sharding, Some(pods))
    }

    fn pods(&self) -> u32 {
        self.shards * self.replicas
    }
}

fn divisions(least: u32) -> impl Strategy<Value = Division> {
    let cuts = prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(1..60_u32, 1..6)];
    (
        1..7_u32,
        least..5_u32,
        60..400_u32,
        1..72_u32,
        cuts,
        any::<bool>(),
    )
        .prop_map(
            |(shards, replicas, retention, overlap_hours, cuts, open)| Division {
                shards,
                replicas,
                retention,
                overlap_hours,
                cuts,
                open,
            },
        )
}

fn places(plan: &Plan, pods: u32) -> Vec<(Slot, bool)> {
    (0..pods)
        .map(|i| {
            let at = plan.assign(i);
            (
                Slot {
                    shard: at.shard,
                    replica: at.replica,
                    window: plan.window(at.shard, now()),
                },
                at.surplus,
            )
        })
        .collect()
}

/// The range that both plans keep: no pod served the rest of a growing retention before.
fn required(plan: &Plan) -> Window {
    let oldest = plan.shards().last().unwrap().oldest_age;
    let oldest = oldest.unwrap_or(Retention::Forever.covered());
    Window {
        min: Bound::Relative(-oldest),
        max: plan.window(0, now()).max,
    }
}

fn fleet(from: &Division, to: &Division, pods: u32) -> Vec<Member> {
    let (old, new) = (places(&from.plan(pods), pods), places(&to.plan(pods), pods));
    old.iter()
        .zip(new)
        .map(|(old, new)| Member {
            published: old.0,
            desired: new.0,
            surplus: new.1,
            state: MemberState::Confirmed,
            canary: false,
        })
        .collect()
}

fn terms(plan: &Plan) -> PlanTerms {
    PlanTerms {
        required: required(plan),
        discovery: Discovery::Pods,
        allow_gap: false,
        max_unavailable: 1,
        max_concurrent_restarts: usize::MAX,
        now: now(),
    }
}

fn division(shards: u32, replicas: u32) -> Division {
    Division {
        shards,
        replicas,
        retention: 370,
        overlap_hours: 24,
        cuts: Vec::new(),
        open: false,
    }
}

#[test]
fn three_shards_become_four_in_two_steps_and_each_pod_moves_once() {
    let (from, to) = (division(3, 2), division(4, 2));
    let (steps, blocked) = preview(fleet(&from, &to, 8), &terms(&to.plan(8)));
    assert_eq!(blocked, None);
    let moved: Vec<Vec<usize>> = steps
        .iter()
        .map(|step| match step {
            Step::Move { changes, gap: None } => {
                changes.iter().map(|change| change.member).collect()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(moved, [[0, 2, 4, 6], [1, 3, 5, 7]]);
}

#[test]
fn with_one_replica_a_move_needs_allow_gap_and_reports_the_gap() {
    let (from, to) = (division(3, 1), division(2, 1));
    let (members, plan) = (fleet(&from, &to, 3), to.plan(3));
    let Step::Blocked(gap) = next_step(&members, &[], &terms(&plan)) else {
        panic!("not blocked")
    };
    assert!(gap.from < gap.to, "{gap:?}");
    let (steps, blocked) = preview(
        members,
        &PlanTerms {
            allow_gap: true,
            ..terms(&plan)
        },
    );
    assert_eq!(blocked, None);
    assert!(
        steps
            .iter()
            .all(|step| matches!(step, Step::Move { changes, .. } if changes.len() == 1)),
        "one at a time: {steps:?}"
    );
}

#[test]
fn a_broken_pod_gets_its_planned_window_and_the_others_wait_for_it() {
    let (from, to) = (division(3, 2), division(2, 3));
    let mut members = fleet(&from, &to, 6);
    members[3].state = MemberState::Broken;
    members[5].state = MemberState::Settling;
    let step = next_step(&members, &[], &terms(&to.plan(6)));
    assert_eq!(
        step,
        Step::Move {
            changes: vec![WindowChange {
                member: 3,
                to: members[3].desired
            }],
            gap: None
        }
    );
    members[3].published = members[3].desired;
    assert_eq!(
        next_step(&members, &[], &terms(&to.plan(6))),
        Step::Wait(vec![5])
    );
    members[5].state = MemberState::Confirmed;
    assert_eq!(
        next_step(&members, &[], &terms(&to.plan(6))),
        Step::Wait(vec![3])
    );
}

#[test]
fn a_rolled_back_pod_leaves_its_old_window_only_when_others_serve_it() {
    let (from, to) = (division(3, 2), division(2, 3));
    let mut members = fleet(&from, &to, 6);
    // It gave up a window over everything, and serves its old one.
    let before = members[2].published.window;
    members[2].published.window = Window {
        min: "-370d".parse().unwrap(),
        max: "1d".parse().unwrap(),
    };
    members[2].state = MemberState::RolledBack(before);
    members[3].state = MemberState::Settling;
    assert_eq!(
        next_step(&members, &[], &terms(&to.plan(6))),
        Step::Wait(vec![3]),
        "its partner is away"
    );
    members[3].state = MemberState::Broken;
    members[3].desired = members[3].published;
    assert_eq!(
        next_step(&members, &[], &terms(&to.plan(6))),
        Step::Wait(vec![2, 3]),
        "and may stay away"
    );
    members[3].state = MemberState::Confirmed;
    let step = next_step(&members, &[], &terms(&to.plan(6)));
    assert_eq!(
        step,
        Step::Move {
            changes: vec![WindowChange {
                member: 2,
                to: members[2].desired
            }],
            gap: None
        }
    );
    // The window that it serves is planned again: nothing restarts.
    members[2].desired.window = before;
    members[3].state = MemberState::Settling;
    let step = next_step(&members, &[], &terms(&from.plan(6)));
    assert!(
        matches!(step, Step::Move { changes, .. } if changes.len() == 1 && changes[0].member == 2)
    );
}

#[test]
fn pods_that_exchange_their_windows_move_once() {
    let plan = division(2, 2).plan(4);
    let at = places(&plan, 4);
    let members: Vec<Member> = (0..4)
        .map(|i| Member {
            published: at[i].0,
            desired: at[(i + 2) % 4].0,
            surplus: false,
            state: MemberState::Confirmed,
            canary: false,
        })
        .collect();
    let (steps, _) = preview(members, &terms(&plan));
    assert_eq!(
        steps
            .iter()
            .map(|step| if let Step::Move { changes, .. } = step {
                changes.len()
            } else {
                0
            })
            .collect::<Vec<_>>(),
        [2, 2]
    );
}

/// Any windows in any state: the planner may meet them after failures, edits and other leaders.
fn any_members() -> impl Strategy<Value = Vec<Member>> {
    let window = (0..100_i64, 1..60_i64).prop_map(|(newest, length)| {
        Window::relative(
            PromDuration::from_days(-newest - length),
            PromDuration::from_days(-newest),
        )
    });
    let place = (0..4_u32, window).prop_map(|(shard, window)| Slot {
        shard,
        replica: 0,
        window,
    });
    let state = prop_oneof![6 => Just(MemberState::Confirmed), 1 => Just(MemberState::Broken)];
    let member = (place.clone(), place, any::<bool>(), state).prop_map(
        |(published, desired, surplus, state)| Member {
            published,
            desired,
            surplus,
            state,
            canary: false,
        },
    );
    proptest::collection::vec(member, 1..9)
}

proptest! {
    #[test]
    fn in_any_state_the_last_pod_of_an_instant_stays(members in any_members(), newest in 0..80_i64, length in 1..80_i64) {
        let required = Window::relative(PromDuration::from_days(-newest - length), PromDuration::from_days(-newest));
        let terms = PlanTerms { required, discovery: Discovery::Pods, allow_gap: false, max_unavailable: 1, max_concurrent_restarts: usize::MAX, now: now() };
        if let Step::Move { changes, .. } = next_step(&members, &[], &terms) {
            // Between the full days on which windows end: a window that only touches the range
            // serves nothing of it.
            for half_day in 0..400 {
                let instant = now() - chrono::TimeDelta::hours(12 * half_day + 6);
                let holds = |member: &&Member| member.state == MemberState::Confirmed && member.published.window.holds(instant, now());
                let leaves = |i: usize| changes.iter().any(|change| change.member == i && change.to.window != members[i].published.window);
                let stays = |(i, member): &(usize, &Member)| holds(member) && !leaves(*i);
                if required.holds(instant, now()) && members.iter().any(|member| holds(&member)) {
                    prop_assert!(members.iter().enumerate().any(|pair| stays(&pair)), "day {}: {changes:?}", half_day / 2);
                }
            }
        }
    }

    #[test]
    fn with_gaps_allowed_every_rollout_ends(members in any_members(), services in any::<bool>()) {
        let members: Vec<Member> = members.into_iter().map(|member| Member { state: MemberState::Confirmed, ..member }).collect();
        let required = Window::relative(PromDuration::from_days(-160), PromDuration::ZERO);
        let discovery = if services { Discovery::ShardServices } else { Discovery::Pods };
        let (steps, blocked) = preview(members.clone(), &PlanTerms { required, discovery, allow_gap: true, max_unavailable: 1, max_concurrent_restarts: usize::MAX, now: now() });
        prop_assert_eq!(blocked, None);
        let mut at: Vec<Slot> = members.iter().map(|member| member.published).collect();
        for step in &steps {
            if let Step::Move { changes, .. } = step {
                for change in changes {
                    at[change.member] = change.to;
                }
            }
        }
        prop_assert_eq!(at, members.iter().map(|member| member.desired).collect::<Vec<_>>());
    }
}

#[test]
fn a_rollout_does_not_wait_for_a_rolled_back_pod_that_no_pod_can_replace() {
    let (from, to) = (division(3, 1), division(2, 1));
    let mut members = fleet(&from, &to, 3);
    let serves = members[0].published.window;
    members[0].published.window = Window {
        min: "-370d".parse().unwrap(),
        max: "1d".parse().unwrap(),
    };
    members[0].state = MemberState::RolledBack(serves);
    let Step::Blocked(gap) = next_step(&members, &[], &terms(&to.plan(3))) else {
        panic!("not blocked")
    };
    assert_eq!(gap.member, 0);
    assert!(gap.from < gap.to);
    let allowed = PlanTerms {
        allow_gap: true,
        ..terms(&to.plan(3))
    };
    let step = next_step(&members, &[], &allowed);
    assert_eq!(
        step,
        Step::Move {
            changes: vec![WindowChange {
                member: 0,
                to: members[0].desired
            }],
            gap: Some(gap)
        }
    );
    // But it waits for a pod that will serve all of it.
    members[2].published.window = members[0].published.window;
    members[2].desired = members[2].published;
    members[2].state = MemberState::Broken;
    assert_eq!(next_step(&members, &[], &allowed), Step::Wait(vec![0, 2]));
}

#[test]
fn no_step_relies_on_pods_that_may_be_scaled_away() {
    // Every window narrows, so the surplus pods could leave first.
    let (from, to) = (
        Division {
            overlap_hours: 48,
            ..division(3, 2)
        },
        Division {
            overlap_hours: 24,
            ..division(3, 2)
        },
    );
    let (from, to) = (
        places(&from.plan(8), 8),
        (places(&to.plan(8), 8), to.plan(8)),
    );
    let members: Vec<Member> = (0..8)
        .map(|i| Member {
            published: from[i].0,
            desired: to.0[i].0,
            surplus: to.0[i].1,
            state: MemberState::Confirmed,
            canary: false,
        })
        .collect();
    assert_eq!(members.iter().filter(|member| member.surplus).count(), 2);
    let mut now_there = members.clone();
    for step in preview(members, &terms(&to.1)).0 {
        let Step::Move { changes, .. } = step else {
            panic!("{step:?}")
        };
        let away: Vec<usize> = changes.iter().map(|change| change.member).collect();
        let stay = now_there
            .iter()
            .enumerate()
            .filter(|(i, member)| !member.surplus && !away.contains(i));
        let stay: Vec<Window> = stay.map(|(_, member)| member.published.window).collect();
        assert_eq!(
            coverage(&stay, required(&to.1), now()).1,
            [],
            "while {away:?} are away"
        );
        for change in changes {
            now_there[change.member].published = change.to;
        }
    }
}
