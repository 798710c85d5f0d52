//! With any faults, at most one candidate may write, and one becomes leader in time.

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::world::{
    Candidate, END, Event, FAULTS, Fault, HEALTHY, Micros, SECOND, Scenario, TAKEOVER, World,
};
use crate::testing::cases;

fn candidate() -> impl Strategy<Value = Candidate> {
    let hours = 3_600_000_000_i64;
    (-10_000..=10_000_i64, -30 * hours..30 * hours, 0..8 * SECOND).prop_map(
        |(drift_ppm, wall_offset, boot)| Candidate {
            drift_ppm,
            wall_offset,
            boot,
        },
    )
}

fn fault() -> impl Strategy<Value = Fault> {
    let span = 0..30 * SECOND;
    prop_oneof![
        4 => prop::option::of(0..20 * SECOND).prop_map(|back| Fault::Crash { back }),
        2 => (0..20 * SECOND).prop_map(|back| Fault::Stop { back }),
        3 => span.clone().prop_map(|span| Fault::Pause { span }),
        3 => (span.clone(), any::<bool>()).prop_map(|(span, held)| Fault::Partition { span, held }),
        2 => (span, any::<bool>()).prop_map(|(span, held)| Fault::Outage { span, held }),
        1 => (-7_200_000_000_i64..7_200_000_000).prop_map(|micros| Fault::WallJump { micros }),
        2 => Just(Fault::Delete),
    ]
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let faults = prop::collection::vec((0..FAULTS, 0..4_usize, fault()), 0..25);
    (
        any::<u64>(),
        prop::collection::vec(candidate(), 2..5),
        faults,
        prop_oneof![Just(0), 0..60_u32],
    )
        .prop_map(|(seed, candidates, faults, bad)| Scenario {
            seed,
            candidates,
            faults,
            bad,
        })
}

proptest! {
    #![proptest_config(cases(1_500))]

    /// Never may two candidates write; once nothing fails any more, one becomes leader in the
    /// promised time and stays.
    #[test]
    fn at_most_one_writes_and_one_comes_to_lead(scenario in scenario()) {
        let mut world = World::new(scenario);
        // Candidates killed for good are back when all is well.
        for name in 0..world.scenario.candidates.len() {
            world.push(HEALTHY, Event::Boot { name });
        }
        let world = world.run(END);
        world.check_exclusion()?;
        let first = world.leads_from(HEALTHY);
        prop_assert!(first.is_some_and(|at| at <= HEALTHY + TAKEOVER), "leads from {first:?}: {:?}", world.permitted());
        let after: Vec<_> = world.permitted().into_iter().filter(|span| span.1 > HEALTHY + TAKEOVER).collect();
        prop_assert!(after.len() == 1 && after[0].1 >= END, "one leads on and on: {:?}", after);
    }
}

/// Healthy candidates, and one fault of the leader.
fn after_the_leaders(fault: Fault, seed: u64) -> (World, Micros) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let candidates: Vec<Candidate> = (0..rng.random_range(2..4))
        .map(|_| Candidate {
            drift_ppm: rng.random_range(-10_000..=10_000),
            wall_offset: rng.random_range(-3_600_000_000..3_600_000_000),
            boot: rng.random_range(0..4 * SECOND),
        })
        .collect();
    let at = 30 * SECOND + rng.random_range(0..10 * SECOND);
    let mut scenario = Scenario {
        seed,
        candidates,
        faults: vec![],
        bad: 0,
    };
    let before = World::new(scenario.clone()).run(at);
    let leader = before
        .permitted()
        .last()
        .map(|span| before.processes[span.2].name)
        .unwrap();
    scenario.faults.push((at, leader, fault));
    (World::new(scenario).run(at + 40 * SECOND), at)
}

fn worst_takeover(fault: Fault, what: &str) -> Micros {
    let mut times: Vec<Micros> = (0..2_000)
        .map(|seed| {
            let (world, at) = after_the_leaders(fault, seed);
            world.check_exclusion().unwrap();
            let next = world
                .permitted()
                .into_iter()
                .map(|span| span.0)
                .find(|from| *from > at);
            next.unwrap_or_else(|| {
                panic!(
                    "seed {seed}: no candidate took over: {:?}",
                    world.permitted()
                )
            }) - at
        })
        .collect();
    times.sort_unstable();
    println!(
        "{what}: median {} ms, worst {} ms",
        times[times.len() / 2] / 1000,
        times[times.len() - 1] / 1000
    );
    times[times.len() - 1]
}

#[test]
fn a_killed_leader_is_replaced_in_time() {
    let worst = worst_takeover(Fault::Crash { back: None }, "killed");
    assert!(worst <= TAKEOVER, "{worst} µs");
    let back = worst_takeover(
        Fault::Crash { back: Some(SECOND) },
        "killed, and back under its name after 1 s",
    );
    assert!(back <= 5 * SECOND, "{back} µs: its own lease is no other's");
}

#[test]
fn a_leader_that_stops_hands_over_immediately() {
    // The last write must be over (2 s), and a follower reads at least every 2.4 s.
    let worst = worst_takeover(Fault::Stop { back: 30 * SECOND }, "stopped");
    assert!(worst <= 5 * SECOND, "{worst} µs");
}

#[test]
fn a_short_outage_moves_nobody() {
    for seed in 0..500 {
        for held in [true, false] {
            let (world, at) = after_the_leaders(
                Fault::Outage {
                    span: 4 * SECOND,
                    held,
                },
                seed,
            );
            let spans = world.permitted();
            assert_eq!(
                spans.iter().filter(|span| span.1 > at).count(),
                1,
                "seed {seed}: {spans:?}"
            );
        }
    }
}
