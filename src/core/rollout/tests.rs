use chrono::{TimeZone, Utc};
use proptest::prelude::*;

use super::*;
use crate::core::config::{Config, Retention};
use crate::core::duration::PromDuration;
use crate::core::plan::Plan;
use crate::core::window::Bound;

mod blocks;
mod simulation;
mod world;

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap()
}

/// A division of the time and how many pods serve each part.
#[derive(Clone, Debug)]
struct Division {
    shards: u32,
    replicas: u32,
    retention: u32,
    overlap_hours: u32,
    cuts: Vec<u32>,
    /// `retention: forever`, where there are cuts.
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

fn places(plan: &Plan, pods: u32) -> Vec<(Place, bool)> {
    (0..pods)
        .map(|i| {
            let at = plan.assign(i);
            (
                Place {
                    shard: at.shard,
                    replica: at.replica,
                    window: plan.window(at.shard, now()),
                },
                at.surplus,
            )
        })
        .collect()
}

/// The range that both plans keep, so that a growing retention asks for nothing that nobody held.
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
            standing: Standing::Confirmed,
        })
        .collect()
}

fn terms(plan: &Plan) -> Terms {
    Terms {
        required: required(plan),
        discovery: Discovery::Pods,
        allow_gap: false,
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
fn three_shards_become_four_in_few_steps_and_each_pod_moves_once() {
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
    assert_eq!(moved, [vec![2, 4, 6, 7], vec![0, 5], vec![3], vec![1]]);
}

#[test]
fn one_replica_waits_for_leave_to_make_a_gap_and_names_it() {
    let (from, to) = (division(3, 1), division(2, 1));
    let (members, plan) = (fleet(&from, &to, 3), to.plan(3));
    let Step::Blocked(gap) = next_step(&members, &[], &terms(&plan)) else {
        panic!("not blocked")
    };
    assert!(gap.from < gap.to, "{gap:?}");
    let (steps, blocked) = preview(
        members,
        &Terms {
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
    members[3].standing = Standing::Broken;
    members[5].standing = Standing::Settling;
    let step = next_step(&members, &[], &terms(&to.plan(6)));
    assert_eq!(
        step,
        Step::Move {
            changes: vec![Change {
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
    members[5].standing = Standing::Confirmed;
    assert_eq!(
        next_step(&members, &[], &terms(&to.plan(6))),
        Step::Wait(vec![3])
    );
}

#[test]
fn a_pod_that_serves_its_old_window_leaves_it_only_to_others() {
    let (from, to) = (division(3, 2), division(2, 3));
    let mut members = fleet(&from, &to, 6);
    // It was to serve everything, gave up, and serves what it did before.
    let before = members[2].published.window;
    members[2].published.window = Window {
        min: "-370d".parse().unwrap(),
        max: "1d".parse().unwrap(),
    };
    members[2].standing = Standing::Fallen(before);
    members[3].standing = Standing::Settling;
    assert_eq!(
        next_step(&members, &[], &terms(&to.plan(6))),
        Step::Wait(vec![3]),
        "its partner is away"
    );
    members[3].standing = Standing::Broken;
    members[3].desired = members[3].published;
    assert_eq!(
        next_step(&members, &[], &terms(&to.plan(6))),
        Step::Wait(vec![2, 3]),
        "and may stay away"
    );
    members[3].standing = Standing::Confirmed;
    let step = next_step(&members, &[], &terms(&to.plan(6)));
    assert_eq!(
        step,
        Step::Move {
            changes: vec![Change {
                member: 2,
                to: members[2].desired
            }],
            gap: None
        }
    );
    // What it serves is what is planned again: nothing restarts.
    members[2].desired.window = before;
    members[3].standing = Standing::Settling;
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
            standing: Standing::Confirmed,
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

/// Any windows, any state: what the planner may meet after failures, edits and other leaders.
fn any_members() -> impl Strategy<Value = Vec<Member>> {
    let window = (0..100_i64, 1..60_i64).prop_map(|(newest, length)| {
        Window::relative(
            PromDuration::from_days(-newest - length),
            PromDuration::from_days(-newest),
        )
    });
    let place = (0..4_u32, window).prop_map(|(shard, window)| Place {
        shard,
        replica: 0,
        window,
    });
    let standing = prop_oneof![6 => Just(Standing::Confirmed), 1 => Just(Standing::Broken)];
    let member = (place.clone(), place, any::<bool>(), standing).prop_map(
        |(published, desired, surplus, standing)| Member {
            published,
            desired,
            surplus,
            standing,
        },
    );
    proptest::collection::vec(member, 1..9)
}

proptest! {
    #[test]
    fn whatever_the_state_the_last_holder_of_an_instant_stays(members in any_members(), newest in 0..80_i64, length in 1..80_i64) {
        let required = Window::relative(PromDuration::from_days(-newest - length), PromDuration::from_days(-newest));
        let terms = Terms { required, discovery: Discovery::Pods, allow_gap: false, now: now() };
        if let Step::Move { changes, .. } = next_step(&members, &[], &terms) {
            // Between the whole days on which windows end: a window that only touches the range holds nothing of it.
            for half_day in 0..400 {
                let instant = now() - chrono::TimeDelta::hours(12 * half_day + 6);
                let holds = |member: &&Member| member.standing == Standing::Confirmed && member.published.window.holds(instant, now());
                let leaves = |i: usize| changes.iter().any(|change| change.member == i && change.to.window != members[i].published.window);
                let stays = |(i, member): &(usize, &Member)| holds(member) && !leaves(*i);
                if required.holds(instant, now()) && members.iter().any(|member| holds(&member)) {
                    prop_assert!(members.iter().enumerate().any(|pair| stays(&pair)), "day {}: {changes:?}", half_day / 2);
                }
            }
        }
    }

    #[test]
    fn with_leave_every_rollout_ends(members in any_members(), services in any::<bool>()) {
        let members: Vec<Member> = members.into_iter().map(|member| Member { standing: Standing::Confirmed, ..member }).collect();
        let required = Window::relative(PromDuration::from_days(-160), PromDuration::ZERO);
        let discovery = if services { Discovery::ShardServices } else { Discovery::Pods };
        let (steps, blocked) = preview(members.clone(), &Terms { required, discovery, allow_gap: true, now: now() });
        prop_assert_eq!(blocked, None);
        let mut at: Vec<Place> = members.iter().map(|member| member.published).collect();
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
fn a_pod_that_gave_up_its_window_is_not_waited_for_when_nobody_could_stand_in() {
    let (from, to) = (division(3, 1), division(2, 1));
    let mut members = fleet(&from, &to, 3);
    let serves = members[0].published.window;
    members[0].published.window = Window {
        min: "-370d".parse().unwrap(),
        max: "1d".parse().unwrap(),
    };
    members[0].standing = Standing::Fallen(serves);
    let Step::Blocked(gap) = next_step(&members, &[], &terms(&to.plan(3))) else {
        panic!("not blocked")
    };
    assert_eq!(gap.member, 0);
    assert!(gap.from < gap.to);
    let allowed = Terms {
        allow_gap: true,
        ..terms(&to.plan(3))
    };
    let step = next_step(&members, &[], &allowed);
    assert_eq!(
        step,
        Step::Move {
            changes: vec![Change {
                member: 0,
                to: members[0].desired
            }],
            gap: Some(gap)
        }
    );
    // Another one that will hold it all, once it comes, is waited for.
    members[2].published.window = members[0].published.window;
    members[2].desired = members[2].published;
    members[2].standing = Standing::Broken;
    assert_eq!(next_step(&members, &[], &allowed), Step::Wait(vec![0, 2]));
}

#[test]
fn no_step_relies_on_pods_that_may_be_scaled_away() {
    // Every window narrows, so that who could leave first are the surplus pods.
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
            standing: Standing::Confirmed,
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
