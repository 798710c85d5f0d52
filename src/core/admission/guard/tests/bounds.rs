//! Requests made to be expensive, each so large that quadratic work would take long.

use super::*;
use crate::core::admission::notice::MAX_WARNING_CHARS;
use crate::core::kube::max_unavailable::MaxUnavailable;

#[test]
fn a_hundred_thousand_annotations_are_counted() {
    let names: Vec<String> = (0..100_000)
        .map(|i| format!("{i:05}-{}", "x".repeat(40)))
        .collect();
    let annotations: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let warnings = judged(&Config::default(), None, None, Some(&made(6, &annotations))).warnings;
    assert!(
        warnings.len() < 25
            && warnings
                .iter()
                .all(|line| line.chars().count() <= MAX_WARNING_CHARS),
        "{warnings:?}"
    );
    let problems = annotation_problems(&made(6, &annotations).known(&Config::default()));
    assert_eq!(
        problems.last().unwrap(),
        "more than 900 more annotations beginning with thanos-timeshard.io/ have no effect"
    );
}

#[test]
fn all_replicas_of_one_shard_that_are_replaced_together() {
    let config = config("sharding: {total_shards: 1, replicas_per_shard: 2}");
    let set = |image: &str| made(16_000, &[]).with("image", json!(image));
    let known = |made: &Made| {
        let facts = StatefulSetFacts {
            max_unavailable: Some(MaxUnavailable::Percent(100)),
            partition: Some(0),
            ..made.known(&config).facts().clone()
        };
        Gateway::new(&config, facts, None)
    };
    let (before, after) = (set("thanos:v1"), set("thanos:v2"));
    let published = before.settled(&config).into_iter().take(2).collect();
    let json = [&before, &after].map(|made| made.json().to_string());
    let views = [0, 1].map(|which| serde_json::from_str::<SetView<'_>>(&json[which]).unwrap());
    let [was, is] = views.map(|view| (view.template(), view.into_first_pod()));
    let (known_before, known_after) = (known(&before), known(&after));
    let of = |gateway, (template, pod)| GuardedSet {
        gateway,
        pod: Some(pod),
        template,
        parallel: false,
    };
    let context = GuardContext {
        config: &config,
        published: Some(&published),
        pods: None,
        now: now(),
    };
    let verdict = classify(
        Some(&of(&known_before, (was.0, &was.1))),
        Some(&of(&known_after, (is.0, &is.1))),
        &context,
    );
    assert_eq!(verdict.concern, Some(Concern::CoverageGap));
}

#[test]
fn windows_that_all_overlap_are_counted_once_each() {
    let window = |i: i64| format!("{}", 200_000 + i);
    let windows: Vec<Window> = (0..100_000)
        .map(|i| Window {
            min: format!("-{}s", window(i)).parse().unwrap(),
            max: format!("-{i}s").parse().unwrap(),
        })
        .collect();
    let required = Window {
        min: "-10d".parse().unwrap(),
        max: "0s".parse().unwrap(),
    };
    let held = holders([&windows], required, now());
    assert_eq!(held.iter().map(|(_, [count])| *count).max(), Some(100_000));
    assert_eq!(
        held.iter().filter(|(_, [count])| *count == 0).count(),
        1,
        "older than all of them"
    );
}
