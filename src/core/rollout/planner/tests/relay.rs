//! Shards with one replica, and spare pods that stand in for them.

use super::*;

/// A change of plan with the windows of each step: what every pod serves before, and which pods are
/// away.
fn follow(members: &[Member], terms: &PlanTerms) -> (Vec<Vec<usize>>, Vec<Slot>) {
    let (steps, blocked) = preview(members.to_vec(), terms);
    assert_eq!(blocked, None, "{steps:#?}");
    let mut at: Vec<Slot> = members.iter().map(|member| member.published).collect();
    let mut away = Vec::new();
    for step in steps {
        let Step::Move { changes, gap: None } = step else {
            panic!("{step:?}")
        };
        let restarts = |change: &&WindowChange| change.to.window != at[change.member].window;
        let gone: Vec<usize> = changes.iter().filter(restarts).map(|c| c.member).collect();
        let stay = (0..at.len()).filter(|i| !gone.contains(i));
        let stay: Vec<Window> = stay.map(|i| at[i].window).collect();
        let before: Vec<Window> = at.iter().map(|slot| slot.window).collect();
        let gaps = |windows: &[Window]| coverage(windows, terms.required, now()).1;
        assert_eq!(gaps(&stay), gaps(&before), "while {gone:?} are away");
        for change in changes {
            at[change.member] = change.to;
        }
        away.push(gone);
    }
    (away, at)
}

fn desired(members: &[Member]) -> Vec<Slot> {
    members.iter().map(|member| member.desired).collect()
}

#[test]
fn three_single_shards_become_four_with_one_spare_pod() {
    for cuts in [(vec![], vec![]), (vec![30, 90], vec![14, 60, 120])] {
        let from = Division {
            cuts: cuts.0,
            ..division(3, 1)
        };
        let to = Division {
            cuts: cuts.1,
            ..division(4, 1)
        };
        let members = fleet(&from, &to, 5);
        let (away, at) = follow(&members, &terms(&to.plan(5)));
        assert_eq!(at, desired(&members));
        let moves = |pod: usize| away.iter().flatten().filter(|away| **away == pod).count();
        assert!((0..4).all(|pod| moves(pod) <= 1), "{away:?}");
        assert!(moves(4) >= 2, "{away:?}");
    }
}

/// The last pod that restarts has its window alone, whatever went before: no order of steps helps.
#[test]
fn without_a_spare_pod_in_the_new_plan_it_is_blocked() {
    let (from, to) = (division(3, 1), division(4, 1));
    let (_, blocked) = preview(fleet(&from, &to, 4), &terms(&to.plan(4)));
    assert!(blocked.is_some());
}

#[test]
fn two_replicas_become_one() {
    let (from, to) = (division(2, 2), division(4, 1));
    let members = fleet(&from, &to, 5);
    let (away, at) = follow(&members, &terms(&to.plan(5)));
    assert_eq!(at, desired(&members));
    assert!(away.len() <= 4, "{away:?}");
}

#[test]
fn the_spare_pod_is_one_more_replica_of_the_shard_that_it_helps() {
    let (from, to) = (
        division(3, 1),
        Division {
            overlap_hours: 48,
            ..division(3, 1)
        },
    );
    let members = fleet(&from, &to, 4);
    let plan = to.plan(4);
    let (steps, _) = preview(members.clone(), &terms(&plan));
    let mut helped: Vec<WindowChange> = Vec::new();
    for step in &steps {
        let Step::Move { changes, .. } = step else {
            panic!("{step:?}")
        };
        let spare = changes.iter().filter(|change| change.member == 3);
        helped.extend(spare.filter(|change| change.to != members[3].desired));
    }
    assert!(!helped.is_empty(), "{steps:#?}");
    for change in helped {
        let of_shard = members[change.to.shard as usize].published;
        assert_eq!(
            change.to,
            Slot {
                replica: 1,
                ..of_shard
            }
        );
    }
}

#[test]
fn more_spare_pods_help_in_fewer_steps() {
    let (from, to) = (
        division(6, 1),
        Division {
            retention: 400,
            ..division(6, 1)
        },
    );
    let steps = |pods: u32| {
        let members = fleet(&from, &to, pods);
        let (away, at) = follow(&members, &terms(&to.plan(pods)));
        assert_eq!(at, desired(&members));
        away.len()
    };
    let (one, three) = (steps(7), steps(9));
    assert!(
        three < one,
        "{three} steps with three spare pods, {one} with one"
    );
}

#[test]
fn a_spare_pod_stays_while_the_pod_that_it_stands_in_for_has_not_moved() {
    let (from, to) = (division(3, 1), division(4, 1));
    let mut members = fleet(&from, &to, 5);
    let terms = PlanTerms {
        max_concurrent_restarts: 1,
        ..terms(&to.plan(5))
    };
    let mut trips = 0;
    for _ in 0..40 {
        let Step::Move { changes, .. } = next_step(&members, &[], &terms) else {
            break;
        };
        assert_eq!(changes.len(), 1);
        let WindowChange { member, to } = changes[0];
        trips += usize::from(member == 4);
        members[member].published = to;
    }
    let at: Vec<Slot> = members.iter().map(|member| member.published).collect();
    assert_eq!(at, desired(&members));
    assert!(trips <= 4, "{trips}");
}

/// Pod 1 takes its old and new window first; what holds it then is that two replicas stay two. A
/// spare pod sent there would help neither it nor pods 2 and 3, which need one.
#[test]
fn a_spare_pod_does_not_go_where_two_replicas_must_stay_two() {
    let from = Division {
        retention: 218,
        overlap_hours: 41,
        ..division(5, 1)
    };
    let to = Division {
        retention: 257,
        overlap_hours: 37,
        ..division(3, 2)
    };
    let members = fleet(&from, &to, 8);
    let terms = PlanTerms {
        max_concurrent_restarts: 1,
        ..terms(&to.plan(8))
    };
    let (_, at) = follow(&members, &terms);
    assert_eq!(at, desired(&members));
}
