//! Rollouts second by second: no query misses a part of the range, whatever the plans and the
//! delays.

use super::world::{Pod, answers, members, random};
use super::*;
use crate::testing::cases;

/// Queriers, each with its own delays.
const QUERIERS: usize = 3;

struct Simulation {
    pods: Vec<Pod>,
    /// The plans that the user wants, in order.
    plans: Vec<Plan>,
    /// The plan that is being rolled out.
    goal: usize,
    /// Steps towards that plan.
    steps: u32,
    /// The user changes the plan after this many steps.
    turn_after: u32,
    /// The range that all plans so far have in common: every query must find it.
    required: Window,
    discovery: Discovery,
    limits: Limits,
    /// Seconds of the longest window that a pod has loaded.
    longest: i64,
}

/// What limits a step.
#[derive(Clone, Copy, Debug)]
struct Limits {
    max_unavailable: u32,
    /// Of all pods, in percent.
    restarts: u32,
    /// Whether a window longer than any before goes to one pod first.
    canary: bool,
}

const DEFAULT: Limits = Limits {
    max_unavailable: 1,
    restarts: 50,
    canary: true,
};

fn limits() -> impl Strategy<Value = Limits> {
    let restarts = prop_oneof![2 => Just(50), 1 => 1..101_u32];
    (1..4_u32, restarts, any::<bool>()).prop_map(|(max_unavailable, restarts, canary)| Limits {
        max_unavailable,
        restarts,
        canary,
    })
}

fn length(window: Window) -> i64 {
    window.length(now()).num_seconds()
}

/// The replicas of the smallest shard that serves an instant; 0 if none does.
fn replicas(plan: &Plan, instant: DateTime<Utc>) -> u32 {
    let serves = |shard: &u32| plan.window(*shard, now()).holds(instant, now());
    let shards = (0..).zip(plan.shards());
    let there = shards.filter(|(shard, _)| serves(shard));
    there.map(|(_, shard)| shard.replicas).min().unwrap_or(0)
}

/// Runs a rollout second by second. Returns the moves of each pod, or the first failure.
fn simulate(
    divisions: &[Division],
    discovery: Discovery,
    spare: u32,
    seed: u64,
    turn_after: u32,
    limits: Limits,
) -> Result<Vec<u32>, String> {
    let mut random = random(seed);
    let count = divisions.iter().map(Division::pods).max().unwrap_or(1) + spare;
    let plans: Vec<Plan> = divisions
        .iter()
        .map(|division| division.plan(count))
        .collect();
    let pods: Vec<Pod> = places(&plans[0], count)
        .into_iter()
        .map(|(place, _)| Pod::new(place, QUERIERS))
        .collect();
    let required = required(&plans[0]);
    let longest = pods.iter().map(|pod| length(pod.applied)).max();
    let mut simulation = Simulation {
        pods,
        plans,
        goal: 1,
        steps: 0,
        turn_after,
        required,
        discovery,
        limits,
        longest: longest.unwrap_or(0),
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
    /// Lets each querier query the required range.
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

    /// Executes the next step; true when the last plan is done.
    fn step(&mut self, at: u32, random: &mut impl FnMut(u32) -> u32) -> Result<bool, String> {
        let (plan, steps) = (&self.plans[self.goal], self.steps);
        let count = u32::try_from(self.pods.len()).unwrap();
        let mut members = members(self.pods.iter(), &places(plan, count), at);
        let terms = PlanTerms {
            required: required(plan),
            discovery: self.discovery,
            allow_gap: false,
            max_unavailable: self.limits.max_unavailable,
            max_concurrent_restarts: (count * self.limits.restarts).div_ceil(100) as usize,
            now: now(),
        };
        let confirmed = self.pods.iter().filter(|pod| pod.confirmed(at));
        let loaded = confirmed.map(|pod| length(pod.applied)).max();
        self.longest = self.longest.max(loaded.unwrap_or(0));
        for member in members.iter_mut().filter(|_| self.limits.canary) {
            member.canary = length(member.desired.window) > self.longest;
        }
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
                let shown = |place: &Slot| format!("{}: {}", place.shard, place.window);
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
                self.obeys(&members, &changes, &terms)?;
                self.steps += 1;
                if self.steps > 40 * count {
                    return Err("it does not end".to_owned());
                }
                for change in changes {
                    self.pods[change.member].publish(at, change.to, random);
                }
                if self.goal + 1 < self.plans.len() && self.steps >= self.turn_after {
                    self.change_plan();
                }
            }
        }
        Ok(false)
    }

    /// Checks the limits of a step.
    fn obeys(
        &self,
        members: &[Member],
        changes: &[WindowChange],
        terms: &PlanTerms,
    ) -> Result<(), String> {
        let restarts =
            |change: &&WindowChange| change.to.window != members[change.member].published.window;
        let away: Vec<&WindowChange> = changes.iter().filter(restarts).collect();
        let shown = || format!("step {} of {changes:#?}", self.steps);
        if away.len() > terms.max_concurrent_restarts {
            return Err(format!("{} restarts in {}", away.len(), shown()));
        }
        if self.discovery == Discovery::ShardServices {
            return Ok(());
        }
        let larger = |change: &&&WindowChange| {
            members[change.member].canary && length(change.to.window) > self.longest
        };
        if self.limits.canary && away.len() > 1 && away.iter().any(|change| larger(&change)) {
            return Err(format!("a canary is not alone in {}", shown()));
        }
        // Further changes of plan leave open what the plan before wanted.
        let [from, to] = self.plans.as_slice() else {
            return Ok(());
        };
        let windows = members
            .iter()
            .flat_map(|m| [m.published.window, m.desired.window]);
        for edge in windows.flat_map(|window| [window.min, window.max]) {
            let instant = edge.at(now()) + chrono::TimeDelta::seconds(1);
            let wanted = replicas(from, instant).min(replicas(to, instant));
            let stays = |(i, member): &(usize, &Member)| {
                member.published.window.holds(instant, now())
                    && !away.iter().any(|change| change.member == *i)
            };
            let stay = members.iter().enumerate().filter(stays).count();
            let least = wanted.saturating_sub(terms.max_unavailable).max(1);
            if wanted > 0 && terms.required.holds(instant, now()) && stay < least as usize {
                return Err(format!(
                    "{stay} of {wanted} stay at {instant} in {}",
                    shown()
                ));
            }
        }
        Ok(())
    }

    /// The user wants the next plan during the current rollout.
    fn change_plan(&mut self) {
        (self.goal, self.steps) = (self.goal + 1, 0);
        for pod in &mut self.pods {
            pod.moves = 0;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_query_is_affected_and_no_pod_moves_more_than_twice(from in divisions(2), to in divisions(2), spare in 0..3_u32, seed in any::<u64>(), limits in limits()) {
        let moves = simulate(&[from, to], Discovery::Pods, spare, seed, u32::MAX, limits).map_err(TestCaseError::fail)?;
        prop_assert!(moves.iter().all(|moves| *moves <= 2), "{moves:?}");
    }

    #[test]
    fn no_query_is_affected_with_shard_services(from in divisions(2), to in divisions(2), spare in 0..3_u32, seed in any::<u64>(), limits in limits()) {
        let moves = simulate(&[from, to], Discovery::ShardServices, spare, seed, u32::MAX, limits).map_err(TestCaseError::fail)?;
        prop_assert!(moves.iter().all(|moves| *moves <= 2), "{moves:?}");
    }

    #[test]
    fn a_change_of_plan_during_a_rollout_is_as_safe(plans in proptest::collection::vec(divisions(2), 3..5), spare in 0..3_u32, seed in any::<u64>(), turn in 1..4_u32, services in any::<bool>(), limits in limits()) {
        let discovery = if services { Discovery::ShardServices } else { Discovery::Pods };
        simulate(&plans, discovery, spare, seed, turn, limits).map_err(TestCaseError::fail)?;
    }

}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 500, ..cases(128) })]

    /// Shards with one replica change without a gap while a spare pod stands in for them; only spare
    /// pods move more than twice.
    #[test]
    fn with_a_spare_pod_one_replica_is_enough(from in divisions(1), to in divisions(1), replicas in (1..3_u32, 1..3_u32), spare in 1..4_u32, seed in any::<u64>(), limits in limits()) {
        let (from, to) = (Division { replicas: replicas.0, ..from }, Division { replicas: replicas.1, ..to });
        let count = from.pods().max(to.pods()) + spare;
        let targets = places(&to.plan(count), count);
        let moves = simulate(&[from, to], Discovery::Pods, spare, seed, u32::MAX, limits).map_err(TestCaseError::fail)?;
        let needed = moves.iter().zip(targets).filter(|(_, (_, surplus))| !surplus);
        prop_assert!(needed.clone().all(|(moves, _)| *moves <= 2), "{moves:?}");
    }

    #[test]
    fn with_a_spare_pod_the_plan_may_change_at_any_time(plans in proptest::collection::vec(divisions(1), 3..5), single in any::<u8>(), spare in 1..4_u32, seed in any::<u64>(), turn in 1..6_u32, limits in limits()) {
        let single = |(i, division): (usize, &Division)| Division { replicas: 1 + u32::from(single >> i & 1), ..division.clone() };
        let plans: Vec<Division> = plans.iter().enumerate().map(single).collect();
        simulate(&plans, Discovery::Pods, spare, seed, turn, limits).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn a_change_of_plan_to_more_shards_proceeds_with_shard_services() {
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
            DEFAULT,
        )
        .unwrap();
    }
}
