//! Pods that do not reach their window, and queriers that have just started: who must stay then.

use super::*;

const COMPLETE: &str = "sharding: {retention: 370d, overlap: 1d, drain: 1m, discovery_delay: 1m, termination_drain: 6s, queriers_complete: true, canary: false}";

/// Three shards of two become four, with eight pods, until the first step's pods drain.
fn first_step(config: &str, seed: u64) -> World {
    let mut world = World::new(config, 8, seed);
    if config == COMPLETE {
        world.queriers = vec![SimulatedQuerier::new(3); 2];
    }
    world.settle("start", |_| Ok(())).unwrap();
    for _ in 0..=DISCOVERY {
        world.second();
    }
    world.annotate("total-shards", "4");
    while world.pods["store-4"].draining_until.is_none() {
        world.second();
    }
    world
}

/// The pod's sidecar gives up its next window, and thanos serves the old one.
fn gives_up(world: &mut World, name: &str) {
    let (at, now) = (world.at, world.now());
    let pod = world.pods.get_mut(name).unwrap();
    (pod.refuses, pod.draining_until) = (true, None);
    pod.turns(true, at, now);
    pod.notify(at, true, &[0; 3]);
}

fn seconds(world: &mut World, count: u64) {
    for _ in 0..count {
        world.second();
        world.answers().unwrap();
    }
}

#[test]
fn the_last_pod_of_a_range_may_not_be_evicted_while_a_step_is_stuck() {
    let config = CONFIG.replace('}', ", canary: false}");
    let mut world = first_step(&config, 3);
    assert!(world.pods["store-6"].draining_until.is_some());
    gives_up(&mut world, "store-6");
    seconds(&mut world, 60);
    let state = |name: &str| {
        let mut pods = world.last.report.pods.iter();
        pods.find(|pod| pod.pod == name).map(|pod| pod.state)
    };
    assert_eq!(
        (state("store-4"), state("store-5"), state("store-6")),
        (
            Some(PodState::Confirmed),
            Some(PodState::Confirmed),
            Some(PodState::Broken)
        )
    );
    // The oldest range: pod 4 has left it, and pod 6 has not arrived.
    let shard = world.entry_of("store-5").unwrap().shard;
    assert_eq!(world.last.closed, BTreeSet::from([shard]));
    world.pods.get_mut("store-6").unwrap().refuses = false;
    world.settle("it arrives", World::answers).unwrap();
    assert_eq!(world.last.closed, BTreeSet::new());
}

#[test]
fn a_pod_that_gave_up_its_window_does_not_try_it_again_while_it_is_the_last() {
    let config = CONFIG.replace('}', ", canary: false}");
    let mut world = first_step(&config, 5);
    gives_up(&mut world, "store-4");
    seconds(&mut world, 60);
    let old = world.pods["store-4"].applied;
    assert_ne!(world.entry_of("store-4").map(|entry| entry.window), old);
    // Its partner goes away, for longer than the sidecar waits before it tries again.
    let (at, now) = (world.at, world.now());
    let partner = world.pods.get_mut("store-5").unwrap();
    partner.loading_until = Some(at + 300);
    partner.turns(false, at, now);
    partner.notify(at, false, &[0; 3]);
    seconds(&mut world, 10);
    assert_eq!(
        world.entry_of("store-4").map(|entry| entry.window),
        old,
        "{}",
        world.last.report.message
    );
    world.pods.get_mut("store-4").unwrap().refuses = false;
    seconds(&mut world, 200);
    assert_eq!(world.pods["store-4"].applied, old);
    world.settle("both are back", World::answers).unwrap();
    assert_ne!(world.pods["store-4"].applied, old);
}

#[test]
fn a_window_that_was_given_up_a_moment_ago_is_served_although_the_pod_is_not_ready_yet() {
    let config = CONFIG.replace('}', ", canary: false}");
    let mut world = first_step(&config, 7);
    gives_up(&mut world, "store-4");
    let (at, now) = (world.at, world.now());
    world.pods.get_mut("store-4").unwrap().turns(false, at, now);
    let partner = world.pods.get_mut("store-5").unwrap();
    partner.loading_until = Some(at + 300);
    partner.turns(false, at, now);
    // Another plan, which a pod that serves nothing would get immediately.
    world.annotate("total-shards", "5");
    let old = world.pods["store-4"].applied;
    world.second();
    world.second();
    assert_eq!(world.entry_of("store-4").map(|entry| entry.window), old);
}

#[test]
fn a_querier_that_has_just_started_and_lists_nothing_ends_no_drain() {
    let mut world = first_step(COMPLETE, 9);
    let mut newcomer = SimulatedQuerier::new(3);
    newcomer.expected = false;
    world.add_querier(newcomer, false);
    let began = world.at;
    for _ in 0..600 {
        world.second();
        // Older answers of DNS than the others', then the change.
        let known = (8..40).contains(&(world.at - began));
        for (name, pod) in &mut world.pods {
            pod.known_to[2] = known || (world.at - began >= 40 && pod.facts.ready);
            assert!(
                !(pod.known_to[2] && pod.loading_until.is_some()),
                "{name} restarts under a querier, after {} s",
                world.at - began
            );
        }
        world.answers_of(0).unwrap();
    }
}

#[test]
fn a_drain_goes_on_after_a_new_leader_finds_yesterdays_config_map() {
    let mut world = World::new(COMPLETE, 8, 11);
    let keeps = SimulatedQuerier::of(Behaviour::NeverLetsGo, 3);
    world.queriers = vec![SimulatedQuerier::new(3), keeps];
    world.settle("start", |_| Ok(())).unwrap();
    seconds(&mut world, 10);
    let yesterday = world.map.clone();
    world.annotate("total-shards", "4");
    while world.pods["store-4"].draining_until.is_none() {
        world.second();
    }
    (world.map, world.written, world.leader_since) = (yesterday, None, world.at);
    world.versions += 1;
    world.deliver();
    // Longer than a drain, shorter than the drain's limit.
    seconds(&mut world, 200);
    assert!(world.entry_of("store-4").unwrap().order.is_some());
    assert_eq!(world.pods["store-4"].restarts, 0);
}
