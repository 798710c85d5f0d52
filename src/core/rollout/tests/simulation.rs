//! Rollouts second by second: no query of any querier misses a part of the time, whatever the plans and the delays.

use super::world::{Pod, answers, members, random};
use super::*;

/// Queriers, each with its own delays.
const QUERIERS: usize = 3;

struct Simulation {
    pods: Vec<Pod>,
    /// What the user wants, one after the other.
    plans: Vec<Plan>,
    /// The plan that is being rolled out.
    goal: usize,
    /// Steps towards it.
    steps: u32,
    /// After so many steps the user changes their mind.
    turn_after: u32,
    /// What every query must reach: what all plans so far have in common.
    required: Window,
    discovery: Discovery,
}

/// Runs a rollout second by second. Gives the moves of each pod, or the first thing that went wrong.
fn simulate(
    divisions: &[Division],
    discovery: Discovery,
    spare: u32,
    seed: u64,
    turn_after: u32,
) -> Result<Vec<u32>, String> {
    let mut random = random(seed);
    let count = divisions.iter().map(Division::pods).max().unwrap_or(1) + spare;
    let plans: Vec<Plan> = divisions
        .iter()
        .map(|division| division.plan(count))
        .collect();
    let pods = places(&plans[0], count)
        .into_iter()
        .map(|(place, _)| Pod::new(place, QUERIERS))
        .collect();
    let required = required(&plans[0]);
    let mut simulation = Simulation {
        pods,
        plans,
        goal: 1,
        steps: 0,
        turn_after,
        required,
        discovery,
    };
    for at in 1..200_000 {
        for pod in &mut simulation.pods {
            pod.second(at, &mut random);
        }
        simulation.query(at)?;
        if simulation.step(at, &mut random)? {
            return Ok(simulation.pods.iter().map(|pod| pod.moves).collect());
        }
    }
    Err("it does not end".to_owned())
}

impl Simulation {
    /// Has each querier ask for everything.
    fn query(&mut self, at: u32) -> Result<(), String> {
        let smaller = required(&self.plans[self.goal]);
        if smaller.min.at(now()) > self.required.min.at(now()) {
            self.required = smaller;
        }
        let millis = |bound: Bound| {
            bound
                .at(now())
                .signed_duration_since(now())
                .num_milliseconds()
        };
        let range = (millis(self.required.min), millis(self.required.max));
        for querier in 0..QUERIERS {
            answers(&self.pods, querier, range, self.discovery).map_err(|why| {
                format!(
                    "second {at}, step {}, goal {}: {why}",
                    self.steps, self.goal
                )
            })?;
        }
        Ok(())
    }

    /// Carries out what the planner says; true when the last plan is done.
    fn step(&mut self, at: u32, random: &mut impl FnMut(u32) -> u32) -> Result<bool, String> {
        let (plan, steps) = (&self.plans[self.goal], self.steps);
        let count = u32::try_from(self.pods.len()).unwrap();
        let members = members(self.pods.iter(), &places(plan, count), at);
        let terms = Terms {
            required: required(plan),
            discovery: self.discovery,
            allow_gap: false,
            now: now(),
        };
        match next_step(&members, &[], &terms) {
            Step::Done if self.goal + 1 < self.plans.len() => self.goal += 1,
            Step::Done => return Ok(true),
            Step::Wait(_) => {}
            Step::Held(blocks) => {
                return Err(format!(
                    "held by {blocks:?} at step {steps}, and no pod lacks a block"
                ));
            }
            Step::Blocked(gap) => {
                let shown = |place: &Place| format!("{}: {}", place.shard, place.window);
                let all: Vec<String> = members
                    .iter()
                    .map(|m| format!("{} -> {}", shown(&m.published), shown(&m.desired)))
                    .collect();
                return Err(format!(
                    "blocked at step {steps}: {gap:?}\n{}",
                    all.join("\n")
                ));
            }
            Step::Move { changes, .. } => {
                self.steps += 1;
                if self.steps > 40 * count {
                    return Err("it does not end".to_owned());
                }
                for change in changes {
                    self.pods[change.member].publish(at, change.to, random);
                }
                if self.goal + 1 < self.plans.len() && self.steps >= self.turn_after {
                    self.change_mind();
                }
            }
        }
        Ok(false)
    }

    /// The user wants the next plan in the middle of this one.
    fn change_mind(&mut self) {
        (self.goal, self.steps) = (self.goal + 1, 0);
        for pod in &mut self.pods {
            pod.moves = 0;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_query_notices_and_nobody_moves_more_than_twice(from in divisions(2), to in divisions(2), spare in 0..3_u32, seed in any::<u64>()) {
        let moves = simulate(&[from, to], Discovery::Pods, spare, seed, u32::MAX).map_err(TestCaseError::fail)?;
        prop_assert!(moves.iter().all(|moves| *moves <= 2), "{moves:?}");
    }

    #[test]
    fn no_query_notices_behind_shard_services(from in divisions(2), to in divisions(2), spare in 0..3_u32, seed in any::<u64>()) {
        let moves = simulate(&[from, to], Discovery::ShardServices, spare, seed, u32::MAX).map_err(TestCaseError::fail)?;
        prop_assert!(moves.iter().all(|moves| *moves <= 2), "{moves:?}");
    }

    #[test]
    fn a_change_of_mind_is_as_safe(plans in proptest::collection::vec(divisions(2), 3..5), spare in 0..3_u32, seed in any::<u64>(), turn in 1..4_u32, services in any::<bool>()) {
        let discovery = if services { Discovery::ShardServices } else { Discovery::Pods };
        simulate(&plans, discovery, spare, seed, turn).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn a_change_of_mind_to_more_shards_goes_on_behind_shard_services() {
    let of = |shards, retention| Division {
        shards,
        replicas: 2,
        retention,
        overlap_hours: 1,
        cuts: Vec::new(),
        open: false,
    };
    for seed in 0..20 {
        simulate(
            &[of(3, 188), of(1, 60), of(4, 251)],
            Discovery::ShardServices,
            0,
            seed,
            1,
        )
        .unwrap();
    }
}
