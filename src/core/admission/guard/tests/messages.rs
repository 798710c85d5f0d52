//! Messages where nothing is denied: windows of a creation, annotations without effect, the steps of
//! a rollout.

use super::*;
use crate::core::admission::notice::MAX_WARNING_CHARS;
use crate::core::config::SHARDING_KEYS;

#[test]
fn a_creation_reports_the_windows() {
    let created = |made: &Made| judged(&Config::default(), None, None, Some(made));
    let single = made(1, &[("total-shards", "1"), ("replicas-per-shard", "1")]);
    let probe = json!({"httpGet": {"path": "/-/ready", "port": 10902}});
    let with = |key, value| created(&made(6, &[]).with(key, value));
    assert_golden(
        "creation",
        &[
            ("six pods", &created(&made(6, &[]))),
            ("five pods", &created(&made(5, &[]))),
            ("no pods", &created(&made(0, &[]))),
            ("one pod", &created(&single)),
            (
                "a liveness probe on readiness",
                &with("livenessProbe", probe),
            ),
            ("in a mesh", &with("name", json!("linkerd-proxy"))),
            (
                "with time flags",
                &with("args", json!(["store", "--min-time=-7d"])),
            ),
        ],
    );
    assert_eq!(
        with("args", json!(["query"])),
        GuardVerdict::default(),
        "not a gateway"
    );
}

#[test]
fn annotations_without_effect_are_named() {
    let annotations = [
        ("total-shard", "4"),
        ("total-shards", "many"),
        ("overlap", "10m"),
        ("pause", "yes"),
        ("guard", "false"),
        ("target-replicas", "8"),
        ("target-replicas", "-1"),
        ("inject", "false"),
    ];
    let cases = annotations.map(|(key, value)| {
        let made = made(6, &[(key, value)]);
        let verdict = judged(&Config::default(), None, None, Some(&made));
        assert!(
            verdict.warnings[0].contains(&key.replace('-', "_"))
                || verdict.warnings[0].contains(key),
            "{key}: {verdict:?}"
        );
        assert!(verdict.denial.is_none());
        (format!("{key}: {value}"), verdict)
    });
    let cases: Vec<_> = cases
        .iter()
        .map(|(case, verdict)| (case.as_str(), verdict))
        .collect();
    assert_golden("annotations", &cases);
}

#[test]
fn an_update_reports_what_the_rollout_does() {
    let (config, before) = (Config::default(), made(8, &[]));
    let published = before.settled(&config);
    let to = |annotations: &[(&str, &str)]| {
        let after = made(8, annotations);
        judged(&config, Some(&published), Some(&before), Some(&after))
    };
    let single = made(3, &[("replicas-per-shard", "1")]);
    let longer = made(3, &[("replicas-per-shard", "1"), ("retention", "400d")]);
    let stops = judged(
        &config,
        Some(&single.settled(&config)),
        Some(&single),
        Some(&longer),
    );
    let (none, six) = (made(0, &[]), made(6, &[]));
    let first = judged(&config, Some(&Entries::new()), Some(&none), Some(&six));
    assert_golden(
        "rollout",
        &[
            ("another shard", &to(&[("total-shards", "4")])),
            (
                "another shard, paused",
                &to(&[("total-shards", "4"), ("pause", "true")]),
            ),
            ("a target", &to(&[("target-replicas", "4")])),
            ("a longer retention of single replicas", &stops),
            ("the first pods", &first),
        ],
    );
    for silent in [("target-replicas", "6"), ("drain", "2m")] {
        assert_eq!(to(&[silent]), GuardVerdict::default(), "{silent:?}");
    }
    assert_eq!(
        judged(&config, Some(&published), Some(&before), Some(&before)),
        GuardVerdict::default(),
        "nothing changed"
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
    let unknown = (0..60).map(|i| format!("{i}{}", "x".repeat(200)));
    let wrong = SHARDING_KEYS.map(|key| key.replace('_', "-"));
    let many = unknown
        .chain(wrong)
        .map(|key| (format!("thanos-timeshard.io/{key}"), "y".to_owned()));
    let made = Made {
        annotations: many.collect(),
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
