//! The configuration file and the annotations of a StatefulSet.

use thanos_timeshard::core::config::{Config, Refusal, Sharding};
use thanos_timeshard::core::model::window::Bound;
use thanos_timeshard::core::plan::Plan;

use crate::{now, text};

/// Pods to plan for: none, too few, about enough, too many.
const PODS: [u32; 5] = [0, 1, 5, 6, 100];
/// Of a refusal, besides what it repeats.
const MAX_OWN_BYTES: usize = 4_000;
/// Of a refusal, for each byte of the input: a short value is reported with all accepted ones.
const MAX_GROWTH: usize = 1_000;

/// Checks that windows are in order and leave no gap for any number of pods, and that bounds read back
/// as written.
fn gives_windows_without_a_gap(sharding: &Sharding) {
    for pods in PODS.map(Some).into_iter().chain([None]) {
        let plan = Plan::new(sharding, pods);
        let shards = u32::try_from(plan.shards().len()).expect("few shards");
        if shards > 2_000 {
            return;
        }
        let windows: Vec<_> = (0..shards).map(|shard| plan.window(shard, now())).collect();
        for window in &windows {
            window
                .checked(now())
                .unwrap_or_else(|why| panic!("{why}: {sharding:?}"));
            for bound in [window.min, window.max] {
                assert_eq!(
                    bound.to_string().parse::<Bound>().expect("thanos reads it"),
                    bound
                );
            }
        }
        for pair in windows.windows(2) {
            assert!(
                pair[0].min.at(now()) < pair[1].max.at(now()),
                "a gap between {} and {}",
                pair[0],
                pair[1]
            );
        }
        for pod in [0, 1, 5, 100_000] {
            assert!(shards == 0 || plan.assign(pod).shard < shards);
        }
    }
}

/// Checks that each mistake has a message, and a place within the text.
fn is_reported(refusal: &Refusal, texts: &[&str], bytes: usize) {
    assert!(!refusal.0.is_empty());
    let whole = refusal.to_string();
    assert!(
        whole.len() <= MAX_OWN_BYTES + MAX_GROWTH * bytes,
        "{} bytes of refusal for {bytes}",
        whole.len()
    );
    for problem in &refusal.0 {
        assert!(!problem.why.is_empty() && !problem.source.is_empty());
        if problem.line == 0 {
            continue;
        }
        let within = |text: &&str| {
            // A document that ends too early is reported after its last character.
            let lines: Vec<&str> = text.split(['\n', '\r']).collect();
            let longest = lines
                .iter()
                .map(|line| line.chars().count())
                .max()
                .unwrap_or(0) as u64;
            problem.line <= lines.len() as u64 + 1 && (1..=longest + 2).contains(&problem.column)
        };
        assert!(texts.iter().any(within), "outside of the text: {problem}");
    }
}

/// The file: either its plan has no gap, or every mistake is reported with its place.
pub fn configuration(input: &[u8]) {
    let Some(text) = text(input) else { return };
    match Config::parse(text, "config.yaml") {
        Ok(config) => gives_windows_without_a_gap(&config.sharding),
        Err(refusal) => is_reported(&refusal, &[text], text.len()),
    }
}

/// Annotations, each `key value`, separated by NUL: the same, on top of the defaults.
pub fn annotations(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let pairs: Vec<(String, &str)> = text
        .split('\0')
        .flat_map(|part| part.split_once(' '))
        .map(|(key, value)| (format!("thanos-timeshard.io/{key}"), value))
        .collect();
    let given = || pairs.iter().map(|(key, value)| (key.as_str(), *value));
    match Config::default().sharding_for(given()) {
        Ok(sharding) => gives_windows_without_a_gap(&sharding),
        Err(refusal) => is_reported(
            &refusal,
            &given().map(|(_, value)| value).collect::<Vec<_>>(),
            text.len(),
        ),
    }
}
