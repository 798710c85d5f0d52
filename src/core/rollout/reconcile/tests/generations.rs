//! Generations distinguish the leader's entries from others: edits, restored backups and late
//! leaders take no pod out.

use super::*;

type Data = BTreeMap<String, String>;

fn generations(data: &Data, world: &World) -> Vec<Option<u64>> {
    data.values()
        .map(|text| Entry::parse(text, world.now()).unwrap().generation)
        .collect()
}

/// Every entry with the window of the pod after the next one.
fn edited(data: &Data) -> Data {
    let texts: Vec<&String> = data.values().collect();
    let window = |text: &str| {
        text.lines()
            .filter(|line| line.contains("_time:"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let swapped = |(i, (key, text)): (usize, (&String, &String))| {
        (
            key.clone(),
            text.replace(&window(text), &window(texts[(i + 2) % texts.len()])),
        )
    };
    data.iter().enumerate().map(swapped).collect()
}

fn without_generations(data: &Data) -> Data {
    let strip = |text: &String| {
        text.lines()
            .filter(|line| !line.starts_with("generation:"))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    data.iter()
        .map(|(key, text)| (key.clone(), strip(text)))
        .collect()
}

#[test]
fn entries_are_numbered_once_all_pods_have_answered_and_only_a_change_raises_the_number() {
    let mut world = settled(6, 21);
    let data = world.map.clone().unwrap().data;
    assert_eq!(
        (generations(&data, &world).contains(&None), world.writes),
        (false, 2)
    );
    for _ in 0..300 {
        world.second();
    }
    assert_eq!(world.map.clone().unwrap().data, data);
    world.annotate("drain", "7s");
    world.settle("another drain", World::answers).unwrap();
    let next = generations(&data, &world)
        .into_iter()
        .max()
        .unwrap()
        .map(|generation| generation + 1);
    assert_eq!(
        (
            generations(&world.map.clone().unwrap().data, &world),
            world.restarts()
        ),
        (vec![next; 6], 0)
    );
}

#[test]
fn edits_of_all_entries_drain_no_pod_however_late_the_leader_is() {
    for (seed, forget) in [(22, false), (23, true)] {
        let mut world = settled(6, seed);
        let before = world.map.clone().unwrap().data;
        for text in [edited(&before), without_generations(&edited(&before))] {
            world.map.as_mut().unwrap().data = text;
            world.deliver();
            world.away_until = world.at + 100;
            if forget {
                (world.written, world.leader_since) = (None, world.away_until);
            }
            for _ in 0..110 {
                world.second();
                world.answers().unwrap();
                assert!(
                    world.pods.values().all(|pod| pod.facts.ready),
                    "second {}",
                    world.at
                );
            }
            world.settle("healed", World::answers).unwrap();
            let windows = |data: &Data| {
                data.values()
                    .map(|text| Entry::parse(text, world.now()).unwrap().window)
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                (windows(&world.map.clone().unwrap().data), world.restarts()),
                (windows(&before), 0)
            );
        }
    }
}

#[test]
fn an_old_config_map_restored_during_a_rollout_takes_no_other_pod_out() {
    for (seed, forget, numbered) in [
        (24, false, true),
        (25, true, true),
        (26, true, false),
        (27, false, false),
    ] {
        let mut world = settled(8, seed);
        let yesterday = world.map.clone().unwrap().data;
        world.annotate("total-shards", "4");
        while world.pods.values().all(|pod| pod.draining_until.is_none()) {
            world.second();
        }
        let leaves: BTreeSet<String> = world
            .pods
            .iter()
            .filter(|(name, pod)| world.entry_of(name).map(|e| e.window) != pod.applied)
            .map(|(name, _)| name.clone())
            .collect();
        let text = if numbered {
            yesterday.clone()
        } else {
            without_generations(&yesterday)
        };
        world.map.as_mut().unwrap().data = text;
        world.versions += 1;
        world.deliver();
        world.away_until = world.at + 20;
        if forget {
            (world.written, world.leader_since) = (None, world.away_until);
        }
        for _ in 0..20 {
            world.second();
            world.answers().unwrap();
            let out: BTreeSet<String> = world
                .pods
                .iter()
                .filter(|(_, pod)| !pod.facts.ready)
                .map(|(name, _)| name.clone())
                .collect();
            assert!(
                out.is_subset(&leaves),
                "{out:?} are out, and the step is {leaves:?}"
            );
        }
        world.settle("the rest of it", World::answers).unwrap();
        assert_eq!(world.last.report.moves_left, 0);
    }
}

#[test]
fn sidecars_accept_unnumbered_entries_after_two_minutes() {
    let mut world = settled(6, 28);
    let text = without_generations(&edited(&world.map.clone().unwrap().data));
    world.map.as_mut().unwrap().data = text.clone();
    world.deliver();
    world.away_until = world.at + 400;
    for _ in 0..200 {
        world.second();
    }
    let windows: Vec<Option<Window>> = world.pods.values().map(|pod| pod.applied).collect();
    let published: Vec<Option<Window>> = text
        .values()
        .map(|text| Some(Entry::parse(text, world.now()).unwrap().window))
        .collect();
    assert_eq!(windows, published);
    // A leader that knows generations reverts this step by step.
    (world.away_until, world.written, world.leader_since) = (0, None, world.at);
    world.settle("led back", World::answers).unwrap();
    let numbers = generations(&world.map.clone().unwrap().data, &world);
    assert!(
        numbers
            .iter()
            .all(|generation| generation.is_some_and(|generation| generation > 1)),
        "{numbers:?}"
    );
}

#[test]
fn one_statefulset_may_mix_agents_of_both_contracts() {
    let mut world = World::new(CONFIG, 8, 29);
    world.contract = 1;
    world.settle("old agents", |_| Ok(())).unwrap();
    world.contract = 2;
    for name in ["store-1", "store-2", "store-6"] {
        world.delete(name);
        world.settle("replaced", |_| Ok(())).unwrap();
    }
    world.annotate("total-shards", "4");
    world.settle("four shards", World::answers).unwrap();
    let data = world.map.clone().unwrap().data;
    let numbered: Vec<&str> = data
        .iter()
        .filter(|(_, text)| text.contains("generation:"))
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(numbered, ["store-1.yaml", "store-2.yaml", "store-6.yaml"]);
}
