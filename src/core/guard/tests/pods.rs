//! Pods that are not ready, that alone have loaded a block, or that are replaced together.

use super::*;
use crate::core::guard::PodCondition::{Absent, NotReady, Ready, Terminating};

#[test]
fn a_template_that_replaces_both_replicas_of_a_shard_at_once_is_refused() {
    let config = Config::default();
    let with = |value: Value, image: &str| {
        let made = made(6, &[]).with("image", json!(image));
        let mut json = made.json();
        json["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": value}});
        (made, json)
    };
    let published = made(6, &[]).settled(&config);
    let judged = |published: Option<&Entries>, before: &(Made, Value), after: &(Made, Value)| {
        let texts = [before, after].map(|(_, json)| json.to_string());
        let views = || texts.iter().map(|text| serde_json::from_str::<SetView<'_>>(text).unwrap());
        let known: Vec<Known> = views().map(|view| Known::new(&config, view.facts("ns"), None)).collect();
        let pods: Vec<_> = views().map(|view| (view.template(), view.into_first_pod())).collect();
        let set = |i: usize| Set { known: &known[i], pod: Some(&pods[i].1), template: pods[i].0, parallel: false };
        judge(Some(&set(0)), Some(&set(1)), &Facing { config: &config, published, pods: None, now: now() })
    };
    let (one, two) = (json!(1), json!(2));
    let verdict = judged(Some(&published), &with(two.clone(), "thanos:v1"), &with(two.clone(), "thanos:v2"));
    assert_eq!(verdict.concern, Some(Concern::CoverageGap));
    assert_eq!(
        verdict.denial.unwrap().lines().collect::<Vec<_>>(),
        [
            "updateStrategy.rollingUpdate.maxUnavailable is 2: a rolling update replaces all replicas of shard 0 at once (store-0, store-1), and no pod serves its window meanwhile; set it to 1",
            r#"first: kubectl -n ns patch statefulset store --type=merge -p '{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":1}}}}'"#,
            "if it is meant: kubectl -n ns annotate --overwrite statefulset store thanos-timeshard.io/guard=off",
        ]
    );
    for (value, image, published) in [
        (one.clone(), "thanos:v2", Some(&published)),
        (two.clone(), "thanos:v1", Some(&published)),
        (json!("20%"), "thanos:v2", Some(&published)),
        (two.clone(), "thanos:v2", None),
    ] {
        let verdict = judged(published, &with(value.clone(), "thanos:v1"), &with(value.clone(), image));
        assert!(verdict.denial.is_none(), "{value} {image}: {verdict:?}");
    }
    // Another pod holds all of it while these are away.
    let mut held = published.clone();
    held.get_mut("store-5").unwrap().window = Window { min: "-370d".parse().unwrap(), max: "1d".parse().unwrap() };
    held.get_mut("store-5").unwrap().shard = 7;
    assert_eq!(judged(Some(&held), &with(two.clone(), "thanos:v1"), &with(two.clone(), "thanos:v2")).denial, None);
    // It is told when it comes to be so, and not again.
    let told = |verdict: Verdict| verdict.warnings.iter().any(|line| line.contains("maxUnavailable is 2"));
    assert!(told(judged(Some(&published), &with(one, "thanos:v1"), &with(two.clone(), "thanos:v1"))));
    assert!(!told(judged(Some(&published), &with(two.clone(), "thanos:v1"), &with(two.clone(), "thanos:v1"))));
    let json = with(two, "thanos:v1").1.to_string();
    let view: SetView<'_> = serde_json::from_str(&json).unwrap();
    let (known, pod) = (Known::new(&config, view.facts("ns"), None), view.into_first_pod());
    let set = Set { known: &known, pod: Some(&pod), template: None, parallel: false };
    assert!(told(judge(None, Some(&set), &Facing { config: &config, published: None, pods: None, now: now() })));
}

#[test]
fn a_replica_that_is_not_ready_stands_in_for_nobody() {
    let (config, before) = (Config::default(), made(6, &[]));
    let published = before.settled(&config);
    let with = |condition| pods(&[(0, Ready), (1, Ready), (2, Ready), (3, Ready), (4, condition), (5, Ready)]);
    let five = |pods: &PodsSeen| scaled_with(&config, Some(&published), Some(pods), &before, 5);
    assert_eq!(five(&with(Ready)).denial, None);
    let verdict = five(&with(NotReady));
    assert_eq!(verdict.concern, Some(Concern::CoverageGap));
    assert_eq!(
        verdict.denial.unwrap().lines().collect::<Vec<_>>(),
        [
            "with 5 of 6 pods, no ready pod would serve -370d .. -247d16h: only store-5 does now, and store-4 is not ready",
            "wait until one of them is ready: kubectl -n ns get pod store-4",
            "if it is meant: kubectl -n ns annotate --overwrite statefulset store thanos-timeshard.io/guard=off",
        ]
    );
    for (condition, words) in [(Terminating, "store-4 is being deleted"), (Absent, "store-4 does not exist")] {
        let denial = five(&with(condition)).denial.unwrap();
        assert!(denial.contains(words), "{denial}");
    }
    // The one that goes serves nothing: nothing is lost with it.
    let gone = pods(&[(0, Ready), (1, Ready), (2, Ready), (3, Ready), (4, Ready), (5, NotReady)]);
    assert_eq!(five(&gone).denial, None);
    // A moment in which no pod is ready does not make all of them dispensable, and takes nothing from anyone.
    assert_eq!(five(&pods(&[])).denial, None);
    assert!(scaled_with(&config, Some(&published), Some(&pods(&[])), &before, 4).denial.is_some());
    // Reached by another change of the object, and told as a warning in mode warn; more pods are never refused.
    let less = judged_with(&config, Some(&published), Some(&with(NotReady)), Some(&before), Some(&made(5, &[])));
    assert!(less.denial.unwrap().contains("store-4 is not ready"));
    let warn = self::config("guard: {mode: warn}");
    let warned = scaled_with(&warn, Some(&published), Some(&with(NotReady)), &before, 5);
    assert!(warned.denial.is_none() && warned.warnings[0].contains("store-4 is not ready"), "{warned:?}");
    assert_eq!(scaled_with(&config, Some(&published), Some(&with(NotReady)), &before, 8).denial, None);
}

#[test]
fn who_alone_has_loaded_a_block_is_not_scaled_away() {
    let (config, before) = (Config::default(), made(6, &[]));
    let published = before.settled(&config);
    let with = |holders: &str| PodsSeen { single_holders: Some(holders.to_owned()), ..pods(&[0, 1, 2, 3, 4, 5].map(|pod| (pod, Ready))) };
    let five = |holders: &str| scaled_with(&config, Some(&published), Some(&with(holders)), &before, 5);
    let verdict = five(r#"{"store-5": ["01K1H8R1000000000000A1B2C3"]}"#);
    assert_eq!(verdict.concern, Some(Concern::CoverageGap));
    assert_eq!(
        verdict.denial.unwrap().lines().collect::<Vec<_>>(),
        [
            "with 5 of 6 pods, no pod would serve block 01K1H8R1000000000000A1B2C3: only store-5 has loaded it",
            "wait until store-4 has loaded it, too: `timeshard status ns/store` says what is missing",
            "if it is meant: kubectl -n ns annotate --overwrite statefulset store thanos-timeshard.io/guard=off",
        ]
    );
    for nothing in [r#"{"store-4": ["01K1H8R1000000000000A1B2C3"]}"#, "{}", "x", r#"{"store-5": ["not a block"]}"#] {
        assert_eq!(five(nothing).denial, None, "{nothing}");
    }
}
