//! Pods that are not ready, or that alone have loaded a block.

use super::*;
use crate::core::admission::guard::PodCondition::{Absent, NotReady, Ready, Terminating};

#[test]
fn a_replica_that_is_not_ready_replaces_no_other() {
    let (config, before) = (Config::default(), made(6, &[]));
    let published = before.settled(&config);
    let but = |unready, condition| {
        let of = |pod| if pod == unready { condition } else { Ready };
        pods(&[0, 1, 2, 3, 4, 5].map(|pod| (pod, of(pod))))
    };
    let with = |condition| but(4, condition);
    let five = |pods: &PodsSeen| scaled_with(&config, Some(&published), Some(pods), &before, 5);
    assert_eq!(five(&with(Ready)).denial, None);
    let verdict = five(&with(NotReady));
    assert_eq!(verdict.concern, Some(Concern::CoverageGap));
    let single = r#"{"store-5": ["01K1H8R1000000000000A1B2C3"]}"#;
    let alone = scaled_with(
        &config,
        Some(&published),
        Some(&holding(single)),
        &before,
        5,
    );
    assert_eq!(alone.concern, Some(Concern::CoverageGap));
    assert_golden(
        "unready-and-single",
        &[
            ("store-4 is not ready", &verdict),
            ("store-5 alone has a block", &alone),
        ],
    );
    for (condition, words) in [
        (Terminating, "store-4 is being deleted"),
        (Absent, "store-4 does not exist"),
    ] {
        let denial = five(&with(condition)).denial.unwrap();
        assert!(denial.contains(words), "{denial}");
    }
    // The removed pod serves nothing, so nothing is lost.
    assert_eq!(five(&but(5, NotReady)).denial, None);
    // A moment without any ready pod does not make all of them dispensable, and loses nothing.
    assert_eq!(five(&pods(&[])).denial, None);
    assert!(
        scaled_with(&config, Some(&published), Some(&pods(&[])), &before, 4)
            .denial
            .is_some()
    );
    // The same by another change of the object; a warning in mode warn. A scale-up is never denied.
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

/// Six ready pods, of which some alone have loaded these blocks.
fn holding(single_holders: &str) -> PodsSeen {
    PodsSeen {
        single_holders: Some(single_holders.to_owned()),
        ..pods(&[0, 1, 2, 3, 4, 5].map(|pod| (pod, Ready)))
    }
}

#[test]
fn only_the_removal_of_a_single_holder_is_denied() {
    let (config, before) = (Config::default(), made(6, &[]));
    let published = before.settled(&config);
    for harmless in [
        r#"{"store-4": ["01K1H8R1000000000000A1B2C3"]}"#,
        "{}",
        "x",
        r#"{"store-5": ["not a block"]}"#,
    ] {
        let pods = holding(harmless);
        let verdict = scaled_with(&config, Some(&published), Some(&pods), &before, 5);
        assert_eq!(verdict.denial, None, "{harmless}");
    }
}
