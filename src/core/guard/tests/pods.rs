//! Pods that are not ready, or that alone have loaded a block.

use super::*;
use crate::core::guard::PodCondition::{Absent, NotReady, Ready, Terminating};

#[test]
fn a_replica_that_is_not_ready_stands_in_for_nobody() {
    let (config, before) = (Config::default(), made(6, &[]));
    let published = before.settled(&config);
    let with = |condition| {
        pods(&[
            (0, Ready),
            (1, Ready),
            (2, Ready),
            (3, Ready),
            (4, condition),
            (5, Ready),
        ])
    };
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
    for (condition, words) in [
        (Terminating, "store-4 is being deleted"),
        (Absent, "store-4 does not exist"),
    ] {
        let denial = five(&with(condition)).denial.unwrap();
        assert!(denial.contains(words), "{denial}");
    }
    // The one that goes serves nothing: nothing is lost with it.
    let gone = pods(&[
        (0, Ready),
        (1, Ready),
        (2, Ready),
        (3, Ready),
        (4, Ready),
        (5, NotReady),
    ]);
    assert_eq!(five(&gone).denial, None);
    // A moment in which no pod is ready does not make all of them dispensable, and takes nothing from anyone.
    assert_eq!(five(&pods(&[])).denial, None);
    assert!(
        scaled_with(&config, Some(&published), Some(&pods(&[])), &before, 4)
            .denial
            .is_some()
    );
    // Reached by another change of the object, and told as a warning in mode warn; more pods are never refused.
    let less = judged_with(
        &config,
        Some(&published),
        Some(&with(NotReady)),
        Some(&before),
        Some(&made(5, &[])),
    );
    assert!(less.denial.unwrap().contains("store-4 is not ready"));
    let warn = self::config("guard: {mode: warn}");
    let warned = scaled_with(&warn, Some(&published), Some(&with(NotReady)), &before, 5);
    assert!(
        warned.denial.is_none() && warned.warnings[0].contains("store-4 is not ready"),
        "{warned:?}"
    );
    assert_eq!(
        scaled_with(&config, Some(&published), Some(&with(NotReady)), &before, 8).denial,
        None
    );
}

#[test]
fn who_alone_has_loaded_a_block_is_not_scaled_away() {
    let (config, before) = (Config::default(), made(6, &[]));
    let published = before.settled(&config);
    let with = |holders: &str| PodsSeen {
        single_holders: Some(holders.to_owned()),
        ..pods(&[0, 1, 2, 3, 4, 5].map(|pod| (pod, Ready)))
    };
    let five =
        |holders: &str| scaled_with(&config, Some(&published), Some(&with(holders)), &before, 5);
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
    for nothing in [
        r#"{"store-4": ["01K1H8R1000000000000A1B2C3"]}"#,
        "{}",
        "x",
        r#"{"store-5": ["not a block"]}"#,
    ] {
        assert_eq!(five(nothing).denial, None, "{nothing}");
    }
}
