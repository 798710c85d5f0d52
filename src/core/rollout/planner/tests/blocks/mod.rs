//! Blocks that fail to load: an oracle checks that each querier still reaches a pod that has loaded
//! each block that was served before.

use world::{End, Spec, simulate};

use super::*;
use crate::testing::cases;

mod world;

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let fails_on = prop_oneof![3 => any::<u32>(), 2 => (0..24_u32).prop_map(|bit| 1 << bit), 1 => Just(u32::MAX)];
    let spec = (
        0..9_000_u32,
        2..700_u32,
        fails_on,
        0..4_u32,
        prop::option::of(1..300_u32),
    )
        .prop_map(|(from, hours, fails_on, after_step, lasts)| Spec {
            from,
            hours,
            fails_on,
            after_step,
            lasts,
        });
    prop::collection::vec(spec, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, ..cases(48) })]

    /// Whatever fails to load, where and for how long: every querier always finds what one pod
    /// served, and the rollout ends when the faults end.
    #[test]
    fn a_block_that_a_pod_serves_is_always_found(
        from in divisions(2), to in divisions(2), spare in 0..2_u32, specs in specs(), seed in any::<u64>(), services in any::<bool>()
    ) {
        let discovery = if services { Discovery::ShardServices } else { Discovery::Pods };
        let mut specs = specs;
        for spec in specs.iter_mut().filter(|spec| services && spec.lasts.is_none()) {
            (spec.fails_on, spec.after_step) = (u32::MAX, 0);
        }
        let end = simulate(&[from, to], discovery, spare, &specs, seed).map_err(TestCaseError::fail)?;
        if specs.iter().all(|spec| spec.lasts.is_some()) {
            prop_assert_eq!(end, End::Done);
        }
    }

    /// A block that no pod ever loads stops nothing.
    #[test]
    fn a_block_that_no_pod_can_load_binds_no_pod(from in divisions(2), to in divisions(2), seed in any::<u64>(), services in any::<bool>(), hour in 0..8_000_u32) {
        let discovery = if services { Discovery::ShardServices } else { Discovery::Pods };
        let broken = Spec { from: hour, hours: 48, fails_on: u32::MAX, after_step: 0, lasts: None };
        prop_assert_eq!(simulate(&[from, to], discovery, 0, &[broken], seed), Ok(End::Done));
    }

    /// In any state: of the pods that have loaded a block which another pod lacks, one stays. If
    /// gaps are allowed, the last one may restart for another window that contains the block, too:
    /// it returns with the rest of its window.
    #[test]
    fn the_last_pod_that_has_loaded_a_block_stays(
        members in any_members(), lacking in prop::collection::vec((0..90_i64, 1..40_i64, any::<u8>()), 1..5), allow_gap in any::<bool>()
    ) {
        let required = Window::relative(PromDuration::from_days(-160), PromDuration::ZERO);
        let terms = PlanTerms { required, discovery: Discovery::Pods, allow_gap, max_unavailable: 1, max_concurrent_restarts: usize::MAX, now: now() };
        let day = |days: i64| now() - chrono::TimeDelta::days(days);
        let blocks: Vec<CellBlock> = lacking
            .iter()
            .map(|(newest, length, bits)| CellBlock {
                range: (day(newest + length), day(*newest)),
                lacking: (0..members.len()).filter(|i| bits >> i & 1 == 1).collect(),
            })
            .collect();
        let Step::Move { changes, .. } = next_step(&members, &blocks, &terms) else { return Ok(()) };
        let leaves = |i: usize, instant: DateTime<Utc>| {
            let of = changes.iter().filter(|change| change.member == i && change.to.window != members[i].published.window);
            of.into_iter().any(|change| !(allow_gap && change.to.window.holds(instant, now())))
        };
        for block in blocks.iter().filter(|block| !block.lacking.is_empty()) {
            for hours in (6..3_000).step_by(12) {
                let instant = now() - chrono::TimeDelta::hours(hours);
                if instant <= block.range.0 || instant >= block.range.1 {
                    continue;
                }
                let has = |i: &usize| {
                    let member = &members[*i];
                    member.state == MemberState::Confirmed && !block.lacking.contains(i) && member.published.window.holds(instant, now())
                };
                let holders: Vec<usize> = (0..members.len()).filter(has).collect();
                prop_assert!(holders.is_empty() || holders.iter().any(|i| !leaves(*i, instant)), "{instant}: {holders:?} leave by {changes:?}");
            }
        }
    }
}

#[test]
fn the_holder_of_a_block_waits_for_the_pod_that_takes_over_and_goes_on_when_it_has_loaded_it() {
    let (from, to) = (division(3, 2), division(4, 2));
    let terms = terms(&to.plan(8));
    let mut members = fleet(&from, &to, 8);
    let first = next_step(&members, &[], &terms);
    let Step::Move { changes, .. } = &first else {
        panic!("{first:?}")
    };
    for change in changes {
        members[change.member].published = change.to;
    }
    // 100 to 104 days ago: shard 0 served it before (pods 0 and 1), shard 1 will (pods 2 and 3);
    // pods 0 and 2 have moved, and pod 2 lacks it.
    let day = |days: i64| now() - chrono::TimeDelta::days(days);
    let block = |lacking: &[usize]| CellBlock {
        range: (day(104), day(100)),
        lacking: lacking.iter().copied().collect(),
    };
    let moved = |step: &Step| match step {
        Step::Move { changes, .. } => changes
            .iter()
            .map(|change| change.member)
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let free = moved(&next_step(&members, &[], &terms));
    let bound = moved(&next_step(&members, &[block(&[2])], &terms));
    assert!(
        free.contains(&1) && !bound.contains(&1),
        "without blocks {free:?}, with one {bound:?}"
    );
    members = fleet(&from, &to, 8);
    // All other pods have moved; only pods 0 and 1 are left, and only they serve it.
    for member in &mut members[2..] {
        member.published = member.desired;
    }
    assert_eq!(
        next_step(&members, &[block(&[2, 3])], &terms),
        Step::Held(vec![0])
    );
    assert_eq!(served_by(&members, &[block(&[2, 3])], &terms), [Some(2)]);
    assert_eq!(
        single_holders(&members, &[block(&[1, 2, 3])], &terms),
        [(0, 0)]
    );
    // A block that every pod lacks binds none.
    assert!(matches!(
        next_step(&members, &[block(&[0, 1, 2, 3])], &terms),
        Step::Move { .. }
    ));
    assert_eq!(
        served_by(&members, &[block(&[0, 1, 2, 3])], &terms),
        [Some(0)]
    );
    assert!(matches!(
        next_step(&members, &[block(&[3])], &terms),
        Step::Move { .. }
    ));
}

#[test]
fn a_block_that_reaches_beyond_a_window_is_served_only_within_it() {
    let plan = division(2, 2).plan(4);
    let members: Vec<Member> = places(&plan, 4)
        .into_iter()
        .map(|(place, surplus)| Member {
            published: place,
            desired: place,
            surplus,
            state: MemberState::Confirmed,
            canary: false,
        })
        .collect();
    let day = |days: i64| now() - chrono::TimeDelta::days(days);
    // Shard 0 reaches back 186 days, shard 1 begins 185 days ago: shard 0 has loaded it, and serves
    // only its newer part.
    let block = CellBlock {
        range: (day(200), day(170)),
        lacking: [2, 3].into(),
    };
    assert_eq!(
        served_by(&members, std::slice::from_ref(&block), &terms(&plan)),
        [Some(0)]
    );
    let half = CellBlock {
        lacking: [3].into(),
        ..block.clone()
    };
    assert_eq!(
        single_holders(&members, std::slice::from_ref(&half), &terms(&plan)),
        [(2, 0)]
    );
    // Outside the retention it does not count.
    let old = CellBlock {
        range: (day(500), day(400)),
        lacking: [0].into(),
    };
    assert_eq!(served_by(&members, &[old], &terms(&plan)), [None]);
}

#[test]
fn with_gaps_allowed_a_block_still_keeps_the_only_pod_that_has_loaded_it() {
    let (from, to) = (division(3, 1), division(2, 1));
    let mut members = fleet(&from, &to, 3);
    let terms = PlanTerms {
        allow_gap: true,
        ..terms(&to.plan(3))
    };
    // Pods 0 and 2 have taken over what pod 1 serves, and lack a block of 150 days ago. None is
    // spare.
    members[2].surplus = false;
    members[0].published = members[0].desired;
    members[2].published = members[2].desired;
    let day = |days: i64| now() - chrono::TimeDelta::days(days);
    let block = CellBlock {
        range: (day(152), day(150)),
        lacking: [0, 2].into(),
    };
    assert_eq!(
        next_step(&members, std::slice::from_ref(&block), &terms),
        Step::Held(vec![0])
    );
    assert!(matches!(
        next_step(&members, &[], &terms),
        Step::Move { .. }
    ));
    // A block that it loads again after its move does not keep it.
    members[1].desired = Slot {
        window: hull(
            &[members[1].published.window, members[1].desired.window],
            now(),
        ),
        ..members[1].desired
    };
    assert!(matches!(
        next_step(&members, &[block], &terms),
        Step::Move { .. }
    ));
}
