//! What is said where nothing is refused: windows of a creation, annotations without effect, the steps of a rollout.

use super::*;
use crate::core::notice::MAX_WARNING_CHARS;

#[test]
fn a_creation_tells_the_windows() {
    let said = |made: &Made| judged(&Config::default(), None, None, Some(made));
    assert_eq!(
        said(&made(6, &[])).warnings,
        ["6 pods: 3 shards of 2 replicas, newest -124d8h .. 1d, oldest -370d .. -246d16h"]
    );
    let few = said(&made(5, &[])).warnings;
    assert!(
        few[0].starts_with("5 pods where 6 fill the plan"),
        "{few:?}"
    );
    assert_eq!(
        few.last().unwrap(),
        "5 pods: 3 shards of 2, 2, 1 replicas, newest -124d8h .. 1d, oldest -370d .. -246d16h"
    );
    assert_eq!(said(&made(0, &[])).warnings, ["no pods: nothing is served"]);
    let one = said(&made(
        1,
        &[("total-shards", "1"), ("replicas-per-shard", "1")],
    ))
    .warnings;
    assert_eq!(
        one.last().unwrap(),
        "1 pod: 1 shard of 1 replica, -370d .. 1d"
    );
    let probe = json!({"httpGet": {"path": "/-/ready", "port": 10902}});
    assert!(
        said(&made(6, &[]).with("livenessProbe", probe)).warnings[0]
            .contains("liveness probe of thanos")
    );
    assert!(
        said(&made(6, &[]).with("name", json!("linkerd-proxy"))).warnings[0]
            .contains("a service mesh (linkerd-proxy)")
    );
    let flags = json!(["store", "--min-time=-7d"]);
    assert_eq!(
        said(&made(6, &[]).with("args", flags)).warnings,
        [
            "thanos-timeshard leaves these pods alone: --min-time is set by hand and respected; remove it, or annotate the StatefulSet with thanos-timeshard.io/replace-time-flags: \"true\""
        ]
    );
    assert_eq!(
        said(&made(6, &[]).with("args", json!(["query"]))),
        Verdict::default(),
        "not a gateway"
    );
}

#[test]
fn annotations_that_do_nothing_are_named() {
    for (key, value, words) in [
        (
            "total-shard",
            "4",
            "annotation thanos-timeshard.io/total-shard: this key is unknown; did you mean total-shards?",
        ),
        (
            "total-shards",
            "many",
            "total_shards: \"many\" is not accepted: write a whole number",
        ),
        (
            "overlap",
            "10m",
            "an overlap of 10m is below minimum_overlap",
        ),
        (
            "pause",
            "yes",
            "annotation thanos-timeshard.io/pause: \"yes\" has no effect: write \"true\", or remove it",
        ),
        (
            "guard",
            "false",
            "annotation thanos-timeshard.io/guard: \"false\" is not accepted: write deny, warn or off",
        ),
        (
            "target-replicas",
            "8",
            "has no effect: there are 6 pods; it is for scaling down",
        ),
        (
            "target-replicas",
            "-1",
            "\"-1\" is not accepted: write the number of pods to scale down to",
        ),
        (
            "inject",
            "false",
            "has no effect on the StatefulSet: write it in its pod template",
        ),
    ] {
        let said = judged(
            &Config::default(),
            None,
            None,
            Some(&made(6, &[(key, value)])),
        );
        assert!(
            said.warnings[0].contains(words) && said.denial.is_none(),
            "{key}: {said:?}"
        );
    }
}

#[test]
fn an_update_tells_what_the_rollout_does() {
    let (config, before) = (Config::default(), made(8, &[]));
    let published = before.settled(&config);
    let to = |annotations: &[(&str, &str)]| {
        judged(
            &config,
            Some(&published),
            Some(&before),
            Some(&made(8, annotations)),
        )
        .warnings
    };
    assert_eq!(
        to(&[("total-shards", "4")]),
        [
            "8 pods: 4 shards of 2 replicas, newest -93d12h .. 1d, oldest -370d .. -277d12h",
            "total_shards: 3 -> 4: 8 pods restart thanos in place, in 4 steps, at least 12m"
        ]
    );
    assert!(
        to(&[("total-shards", "4"), ("pause", "true")])[1]
            .ends_with("; not before thanos-timeshard.io/pause is removed")
    );
    assert_eq!(
        to(&[("target-replicas", "6")]),
        Vec::<String>::new(),
        "two pods are not needed anyway"
    );
    let target = to(&[("target-replicas", "4")]);
    assert!(
        target
            .iter()
            .any(|line| line.starts_with("8 pods, planned for 4: 3 shards of 2, 1, 1 replicas")),
        "{target:?}"
    );
    assert_eq!(
        to(&[("drain", "2m")]),
        Vec::<String>::new(),
        "restarts nothing"
    );
    // Nothing changed: nothing is said again.
    assert_eq!(
        judged(&config, Some(&published), Some(&before), Some(&before)),
        Verdict::default()
    );
}

#[test]
fn the_first_pods_are_told_their_windows() {
    let config = Config::default();
    let from_zero = judged(
        &config,
        Some(&Entries::new()),
        Some(&made(0, &[])),
        Some(&made(6, &[])),
    )
    .warnings;
    assert!(
        from_zero.len() == 1 && from_zero[0].starts_with("6 pods: 3 shards of 2 replicas"),
        "{from_zero:?}"
    );
}

#[test]
fn a_rollout_that_will_stop_at_a_single_replica_is_told() {
    let config = Config::default();
    let single = made(3, &[("replicas-per-shard", "1")]);
    let published = single.settled(&config);
    let more = made(3, &[("replicas-per-shard", "1"), ("retention", "400d")]);
    let stops = judged(&config, Some(&published), Some(&single), Some(&more)).warnings;
    assert!(
        stops
            .iter()
            .any(|line| line.starts_with("the rollout will stop at store-")
                && line.contains("which alone holds")),
        "{stops:?}"
    );
}

#[test]
fn a_rollout_of_too_many_pods_to_preview_is_summed_up() {
    let config = Config::default();
    let many = made(2_000, &[("total-shards", "1000")]);
    let published = many.settled(&config);
    let said = judged(
        &config,
        Some(&published),
        Some(&many),
        Some(&made(2_000, &[("total-shards", "999")])),
    )
    .warnings;
    assert!(
        said.last()
            .unwrap()
            .ends_with("get other windows, a few at a time"),
        "{said:?}"
    );
}

#[test]
fn warnings_stay_within_the_limits() {
    let many: Vec<(String, String)> = (0..60)
        .map(|i| {
            (
                format!("thanos-timeshard.io/{}{i}", "x".repeat(200)),
                "y".to_owned(),
            )
        })
        .collect();
    let made = Made {
        annotations: many.into_iter().collect(),
        ..made(6, &[])
    };
    let warnings = judged(&Config::default(), None, None, Some(&made)).warnings;
    assert!(
        warnings
            .iter()
            .all(|warning| warning.chars().count() <= MAX_WARNING_CHARS)
    );
    assert!(
        warnings
            .iter()
            .map(|warning| warning.chars().count())
            .sum::<usize>()
            <= MAX_WARNINGS_CHARS
    );
    assert!(
        warnings.last().unwrap().ends_with("more warnings") && warnings.len() > 10,
        "{warnings:?}"
    );
}
