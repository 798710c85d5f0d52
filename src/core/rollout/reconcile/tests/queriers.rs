//! Rollouts that ask queriers: their answers prolong the delays, shorten them where the user says
//! that these are all, and nothing that a querier, a leader or an agent does makes a query fail.

use super::*;
use crate::core::rollout::report::QuerierState;
use crate::testing::cases;

/// Longer than every delay of the configuration, which is 6 s.
const SLOW: u64 = 30;
const COMPLETE: &str = "sharding: {retention: 370d, overlap: 1d, drain: 1m, discovery_delay: 1m, termination_drain: 6s, queriers_complete: true}";

fn config(more: &str) -> String {
    CONFIG.replace('}', &format!(", {more}}}"))
}

/// A settled StatefulSet that these queriers know entirely.
fn known_to(config: &str, replicas: u32, seed: u64, queriers: Vec<SimulatedQuerier>) -> World {
    let mut world = World::new(config, replicas, seed);
    let slowest = queriers.iter().map(|querier| querier.delay).max();
    world.queriers = queriers;
    world.settle("start", |_| Ok(())).unwrap();
    for _ in 0..=slowest.unwrap_or(0) {
        world.second();
    }
    world.answers().unwrap();
    world
}

/// Six shards of two become eight pods of four shards; returns the seconds that it took.
fn reshard(world: &mut World) -> Result<u64, String> {
    let began = world.at;
    world.annotate("total-shards", "4");
    world.second();
    world.settle("four shards", World::answers)?;
    Ok(world.at - began)
}

fn slow(count: usize) -> Vec<SimulatedQuerier> {
    vec![SimulatedQuerier::new(SLOW); count]
}

/// Whether the leader writes nothing for a while.
fn rests(world: &mut World) -> bool {
    let writes = world.writes;
    for _ in 0..90 {
        world.second();
    }
    world.writes == writes
}

#[test]
fn queries_fail_by_slow_queriers_that_are_not_asked_and_by_none_that_is() {
    let unseen = vec![SimulatedQuerier::unseen(SLOW); 3];
    let mut failures = 0;
    for seed in 1..5 {
        let mut world = known_to(CONFIG, 8, seed, unseen.clone());
        failures += u32::from(reshard(&mut world).is_err());
        let mut world = known_to(CONFIG, 8, seed, slow(3));
        reshard(&mut world).unwrap();
        assert!(rests(&mut world), "seed {seed}");
    }
    assert_eq!(failures, 4, "the delays alone would do");
}

#[test]
fn answers_shorten_the_delays_only_if_the_user_says_that_these_are_all() {
    let took = |config: &str, queriers: Vec<SimulatedQuerier>| {
        let mut world = known_to(config, 8, 7, queriers);
        let seconds = reshard(&mut world).unwrap();
        let steps = world.restarts();
        assert!(steps >= 6, "{steps} restarts");
        seconds
    };
    let two = || vec![SimulatedQuerier::new(3); 2];
    let fast = took(COMPLETE, two());
    let delays = took(
        &COMPLETE.replace("queriers_complete: true", "canary: true"),
        two(),
    );
    // Each querier that tells nothing keeps the delays: it may be the one that uses the pods.
    let with = |behaviour| {
        let mut all = two();
        all.push(SimulatedQuerier::of(behaviour, 3));
        took(COMPLETE, all)
    };
    let (group, down) = (with(Behaviour::Group), with(Behaviour::Down(u64::MAX)));
    let none = took(COMPLETE, vec![SimulatedQuerier::unseen(3)]);
    println!(
        "all known {fast} s, delays {delays} s, group {group} s, down {down} s, none {none} s"
    );
    for slow in [delays, group, down, none] {
        assert!(fast * 2 < slow, "{fast} s and {slow} s");
    }
}

#[test]
fn of_each_transition_at_most_three_seconds_are_ours() {
    let mut world = known_to(COMPLETE, 8, 9, vec![SimulatedQuerier::new(3); 2]);
    world.annotate("total-shards", "4");
    // When the last querier dropped each pod, and when it knew it again.
    let (mut dropped, mut known) = (BTreeMap::new(), BTreeMap::new());
    let mut slowest = [0, 0];
    for _ in 0..2_000 {
        world.second();
        for (name, pod) in &world.pods {
            let at = world.at;
            let in_use = pod.known_to.iter().any(|knows| *knows);
            if pod.draining_until.is_some() && !in_use {
                dropped.entry(name.clone()).or_insert(at);
            } else if let Some(since) = dropped.remove(name) {
                slowest[0] = slowest[0].max(at - since);
            }
            let confirmed = world
                .last
                .report
                .pods
                .iter()
                .any(|report| report.pod == *name && report.state == PodState::Confirmed);
            if pod.facts.ready && pod.known_to.iter().all(|knows| *knows) && !confirmed {
                known.entry(name.clone()).or_insert(at);
            } else if let Some(since) = known.remove(name).filter(|_| confirmed) {
                slowest[1] = slowest[1].max(at - since);
            }
        }
        if world.last.report.state == RolloutState::Settled {
            break;
        }
    }
    // Kubelet delivers a release within 4 s in this simulation.
    assert!(slowest[0] <= 3 + 4 && slowest[1] <= 3, "{slowest:?}");
}

/// Queriers are asked no more once nothing moves; that makes no pod unconfirmed.
#[test]
fn a_rollout_that_answers_shortened_stays_settled() {
    let mut world = known_to(COMPLETE, 8, 17, vec![SimulatedQuerier::new(3); 2]);
    reshard(&mut world).unwrap();
    let mut asked = 0;
    for second in 0..120 {
        world.second();
        world.answers().unwrap();
        let report = &world.last.report;
        assert_eq!(
            report.state,
            RolloutState::Settled,
            "{second} s: {}",
            report.message
        );
        assert!(world.last.closed.is_empty(), "{second} s");
        asked += u32::from(world.last.ask_queriers);
    }
    assert!(asked <= 1, "{asked}");
    // What a pod was known for ends when it turns unready.
    world.delete("store-3");
    while world
        .pods
        .get("store-3")
        .is_some_and(|pod| pod.facts.terminating)
    {
        world.second();
    }
    let state = |world: &World| {
        let pods = &world.last.report.pods;
        pods.iter()
            .find(|pod| pod.pod == "store-3")
            .map(|pod| pod.state)
    };
    let mut seen = BTreeSet::new();
    for _ in 0..30 {
        world.second();
        seen.insert(format!("{:?}", state(&world)));
    }
    assert!(
        seen.iter().any(|state| !state.contains("Confirmed")),
        "{seen:?}"
    );
}

#[test]
fn a_step_is_taken_back_at_the_limit_and_tried_again_later() {
    let mut queriers = vec![SimulatedQuerier::new(3)];
    queriers.push(SimulatedQuerier::of(Behaviour::NeverLetsGo, 3));
    let mut world = known_to(&config("drain_limit: 1m"), 8, 11, queriers);
    let before = world.restarts();
    world.annotate("total-shards", "4");
    let mut told = BTreeSet::new();
    let mut tries = BTreeMap::new();
    for _ in 0..1_200 {
        world.second();
        world.answers().unwrap();
        told.extend(world.last.events.iter().map(|(reason, _)| *reason));
        if let Some((last, at)) = &world.taken_back {
            tries.insert(last.times, *at);
        }
    }
    assert_eq!(
        world.restarts(),
        before,
        "no thanos is restarted under a querier"
    );
    assert!(told.contains("QuerierKeepsPod"), "{told:?}");
    let report = &world.last.report;
    assert!(report.taken_back >= 2, "{report:?}");
    assert!(
        report.message.contains("querier ns/query-1"),
        "{}",
        report.message
    );
    assert!(tries[&2] - tries[&1] >= 300, "{tries:?}");
    // The querier is repaired.
    world.queriers[1].behaviour = Behaviour::Good;
    for pod in world.pods.values_mut() {
        pod.known_to[1] = pod.facts.ready;
    }
    world.settle("repaired", World::answers).unwrap();
    assert_eq!(
        (world.last.report.moves_left, world.last.report.taken_back),
        (0, 0)
    );
    assert!(world.restarts() > before && rests(&mut world));
}

/// A leader that has just started does not know for how long pods have drained.
#[test]
fn a_new_leader_takes_a_step_back_before_the_sidecars_go_on_alone() {
    for died_after in [5, 30, 55, 58] {
        let querier = SimulatedQuerier::of(Behaviour::NeverLetsGo, 3);
        let mut world = known_to(&config("drain_limit: 1m"), 8, 12, vec![querier]);
        let before = world.restarts();
        world.annotate("total-shards", "4");
        while world.pods.values().all(|pod| pod.draining_until.is_none()) {
            world.second();
        }
        world.away_until = world.at + died_after + 40;
        (world.written, world.leader_since) = (None, world.away_until);
        for _ in 0..300 {
            world.second();
            world.answers().unwrap();
        }
        assert_eq!(world.restarts(), before, "{died_after} s");
    }
}

#[test]
fn without_a_leader_sidecars_go_on_alone() {
    let mut world = known_to(&config("drain_limit: 1m"), 8, 13, slow(2));
    world.annotate("total-shards", "4");
    while world.pods.values().all(|pod| pod.draining_until.is_none()) {
        world.second();
    }
    world.away_until = world.at + 1_000;
    for _ in 0..1_000 {
        world.second();
        world.answers().unwrap();
    }
    assert!(world.pods.values().all(|pod| pod.facts.ready));
    world.settle("with a leader again", World::answers).unwrap();
}

#[test]
fn no_step_starts_while_a_querier_cannot_reach_a_pod_that_stays() {
    let mut world = known_to(CONFIG, 8, 14, slow(2));
    world.queriers[1].failing = Some("store-3".to_owned());
    world.annotate("total-shards", "4");
    for _ in 0..300 {
        world.second();
    }
    let report = &world.last.report;
    assert_eq!((world.restarts(), report.state), (0, RolloutState::Rolling));
    let (message, querier) = (&report.message, &report.queriers[0]);
    assert!(
        message.contains(
            "waits for querier ns/query-1 to reach store-3 (it reports connection refused), for "
        ),
        "{message}"
    );
    assert_eq!(
        (querier.name.as_str(), querier.state),
        ("ns/query-1", QuerierState::Answers)
    );
    assert!(querier.waits_for.as_ref().unwrap().contains("store-3"));
    assert!(report.querier_wait_seconds.unwrap() >= 290, "{report:?}");
    let told: Vec<_> = world
        .last
        .events
        .iter()
        .map(|(reason, _)| *reason)
        .collect();
    assert!(told.contains(&"WaitsForQuerier"), "{told:?}");
    world.queriers[1].failing = None;
    world.settle("repaired", World::answers).unwrap();
}

#[test]
fn the_message_says_which_querier_a_drain_waits_for_and_since_when() {
    let querier = SimulatedQuerier::of(Behaviour::NeverLetsGo, 3);
    let mut world = known_to(CONFIG, 6, 15, vec![querier]);
    world.annotate("total-shards", "2");
    while world.pods.values().all(|pod| pod.draining_until.is_none()) {
        world.second();
    }
    for _ in 0..42 {
        world.second();
    }
    let message = &world.last.report.message;
    assert!(
        message.starts_with("waits for querier ns/query-0 to stop using store-")
            && message.ends_with(", for 40 s"),
        "{message}"
    );
}

#[test]
fn a_querier_counts_by_what_it_lists_although_its_arguments_say_nothing() {
    let mut querier = SimulatedQuerier::new(SLOW);
    querier.expected = false;
    let mut world = known_to(CONFIG, 8, 16, vec![querier; 2]);
    reshard(&mut world).unwrap();
    assert_eq!(world.last.report.queriers.len(), 2);
}

/// Others that list none of the pods, or come and go, hold nothing up.
#[test]
fn queriers_that_come_go_and_use_other_stores_hold_nothing_up() {
    let mut others = SimulatedQuerier::of(Behaviour::Elsewhere, 0);
    others.expected = false;
    let mut world = known_to(COMPLETE, 8, 17, vec![SimulatedQuerier::new(3)]);
    let alone = reshard(&mut world).unwrap();
    let mut world = known_to(COMPLETE, 8, 17, vec![SimulatedQuerier::new(3)]);
    world.add_querier(others, false);
    world.annotate("total-shards", "4");
    let began = world.at;
    while world.last.report.state != RolloutState::Settled || world.at < began + 5 {
        world.second();
        world.answers_of(0).unwrap();
        if world.at == began + 10 {
            world.add_querier(SimulatedQuerier::new(3), true);
        }
        if world.at == began + 40 {
            world.queriers.truncate(2);
        }
        assert!(world.at < began + 5_000, "{}", world.last.report.message);
    }
    assert!(world.at - began < alone + 60, "{} s", world.at - began);
}

#[test]
fn agents_of_contract_1_get_no_order_and_queriers_still_confirm_their_pods() {
    let mut world = World::new(CONFIG, 8, 18);
    world.contract = 1;
    world.queriers = vec![SimulatedQuerier::new(DISCOVERY); 2];
    world.settle("old agents", |_| Ok(())).unwrap();
    for _ in 0..=DISCOVERY {
        world.second();
    }
    reshard(&mut world).unwrap();
    let data = &world.map.as_ref().unwrap().data;
    assert!(
        data.values()
            .all(|text| !text.contains("order") && text.contains("drain: 6s")),
        "{data:?}"
    );
}

#[test]
fn a_retry_gets_an_order_of_its_own() {
    let mut world = known_to(CONFIG, 8, 19, slow(2));
    world.annotate("total-shards", "4");
    let name = loop {
        world.second();
        let mut pods = world.pods.iter();
        if let Some((name, _)) = pods.find(|(_, pod)| pod.loading_until.is_some()) {
            break name.clone();
        }
    };
    let first = world.entry_of(&name).unwrap();
    assert!(
        first.order.is_some() && first.released == first.order,
        "{first:?}"
    );
    // Thanos exits with the new window, and serves the old one for a while.
    let (at, now) = (world.at, world.now());
    let pod = world.pods.get_mut(&name).unwrap();
    pod.applied = Some(Window {
        min: "-370d".parse().unwrap(),
        max: "-1d".parse().unwrap(),
    });
    (pod.refuses, pod.loading_until) = (true, None);
    pod.turns(true, at, now);
    pod.notify(at, true, &[3, 3]);
    for _ in 0..60 {
        world.second();
    }
    assert_eq!(
        world.entry_of(&name),
        Some(first),
        "a failure alone changes nothing"
    );
    world.pods.get_mut(&name).unwrap().refuses = false;
    world.settle("the retry", World::answers).unwrap();
    let last = world.entry_of(&name).unwrap();
    assert!(
        last.released == last.order && last.order > first.order,
        "{last:?}"
    );
}

#[derive(Clone, Debug)]
enum QuerierAct {
    Rollout(Act),
    /// A querier refuses connections for some seconds.
    Down(usize, u64),
    Failing(usize, u32),
    Reached,
    /// An older leader's decision arrives this much later.
    LateWrite(u64),
    /// No leader for some seconds; the next one remembers nothing.
    LeaderDies(u64),
}

fn querier_acts() -> impl Strategy<Value = QuerierAct> {
    prop_oneof![
        6 => acts().prop_map(QuerierAct::Rollout),
        1 => (0..3_usize, 1..90_u64).prop_map(|(i, n)| QuerierAct::Down(i, n)),
        1 => (0..3_usize, 0..6_u32).prop_map(|(i, n)| QuerierAct::Failing(i, n)),
        2 => Just(QuerierAct::Reached),
        2 => (1..20_u64).prop_map(QuerierAct::LateWrite),
        2 => (1..200_u64).prop_map(QuerierAct::LeaderDies),
    ]
}

fn perform_querier_act(world: &mut World, act: &QuerierAct) {
    let until = |world: &World, seconds| world.at + seconds;
    match act {
        QuerierAct::Rollout(act) => perform(world, act),
        QuerierAct::Down(i, seconds) => {
            let until = until(world, *seconds);
            let querier = &mut world.queriers[*i];
            // A querier that cannot be asked is known only by the delays.
            if querier.delay <= DISCOVERY {
                querier.behaviour = Behaviour::Down(until);
            }
        }
        QuerierAct::Failing(i, pod) => world.queriers[*i].failing = Some(format!("store-{pod}")),
        QuerierAct::Reached => {
            for querier in &mut world.queriers {
                querier.failing = None;
            }
        }
        QuerierAct::LateWrite(seconds) => world.late_write(*seconds),
        QuerierAct::LeaderDies(seconds) => {
            world.away_until = until(world, *seconds);
            (world.written, world.leader_since) = (None, world.away_until);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 300, ..cases(24) })]

    /// The rollout also ends, with an unchanging ConfigMap.
    #[test]
    fn no_query_is_affected_whatever_queriers_users_and_leaders_do(
        acts in proptest::collection::vec(querier_acts(), 1..7),
        slow in any::<bool>(),
        every in 1..4_u64,
        complete in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut queriers = vec![
            SimulatedQuerier::new(if slow { SLOW } else { 2 }),
            SimulatedQuerier::of(Behaviour::Hostile, 4),
            SimulatedQuerier::new(DISCOVERY),
        ];
        queriers[0].every = every;
        let more = format!("drain_limit: 2m, queriers_complete: {complete}");
        let mut world = known_to(&config(&more), 12, seed, queriers);
        for act in &acts {
            perform_querier_act(&mut world, act);
            let seconds = match act {
                QuerierAct::Rollout(Act::Wait(seconds)) | QuerierAct::LeaderDies(seconds) => *seconds,
                _ => 3,
            };
            for _ in 0..seconds {
                world.second();
                world.answers().map_err(|why| TestCaseError::fail(format!("{act:?}: {why}")))?;
            }
        }
        perform_querier_act(&mut world, &QuerierAct::Reached);
        world.settle("at the end", World::answers).map_err(TestCaseError::fail)?;
        prop_assert_eq!(world.last.report.moves_left, 0);
        prop_assert!(rests(&mut world));
    }
}
