//! Annotations while nothing is known about the layers below them.
//!
//! Invariant: what is refused here is refused on every StatefulSet, whatever its other annotations
//! and the configuration are, so a command can refuse it before it asks a cluster.

use super::draft::{Draft, Given, ReplicasGiven, SourceSpan};
use super::{MAX_RETENTION_DAYS, Retention, ShardCount, WindowFormat};
use crate::core::model::duration::PromDuration;

/// Returns the layer on top of the most permissive value of each key that it lacks.
pub(super) fn completed(mut layer: Draft) -> Draft {
    if layer.boundaries.is_none() {
        // Boundaries of a layer below may allow both.
        layer.future_buffer = None;
        if layer.retention.as_ref().map(|given| given.value) == Some(Retention::Forever) {
            layer.retention = None;
        }
    }
    let base = base(&layer);
    layer.over(&base)
}

fn base(layer: &Draft) -> Draft {
    let longest = PromDuration::from_days(MAX_RETENTION_DAYS);
    let shards = match layer.replicas.as_ref().map(|given| &given.value) {
        Some(ReplicasGiven::PerShard(list)) => u32::try_from(list.len()).unwrap_or(1),
        _ => 1,
    };
    let retention = if layer.boundaries.is_some() {
        Retention::Forever
    } else {
        Retention::Limited(longest)
    };
    Draft {
        total_shards: Some(unplaced(ShardCount::Fixed(shards))),
        replicas: Some(unplaced(ReplicasGiven::Uniform(1))),
        retention: Some(unplaced(retention)),
        overlap: Some(unplaced(longest)),
        future_buffer: Some(unplaced(longest)),
        window_format: Some(unplaced(WindowFormat::Relative)),
        quantum: Some(unplaced(PromDuration::ZERO)),
        minimum_overlap: Some(unplaced(PromDuration::ZERO)),
        drain: Some(unplaced(PromDuration::ZERO)),
        discovery_delay: Some(unplaced(PromDuration::ZERO)),
        // The other keys fit every value, or default to one that fits.
        ..Draft::default()
    }
}

/// A value without a place, so that no message points at it.
fn unplaced<T>(value: T) -> Given<T> {
    let place = SourceSpan::default();
    Given { value, place }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::core::config::{Config, Refusal, check_annotations};

    fn named<'a>(changes: &[(&str, &'a str)]) -> Vec<(String, &'a str)> {
        changes
            .iter()
            .map(|(key, value)| (format!("thanos-timeshard.io/{key}"), *value))
            .collect()
    }

    fn check(changes: &[(&str, &str)]) -> Result<(), Refusal> {
        let named = named(changes);
        check_annotations(named.iter().map(|(key, value)| (key.as_str(), *value)))
    }

    #[test]
    fn what_no_configuration_makes_right_is_refused() {
        for (changes, place, right) in [
            (
                &[("total-shards", "banana")][..],
                "io/total-shards:1:1: total_shards: \"banana\"",
                "write a whole number from 1 to 10000, or auto",
            ),
            (&[("retention", "370")], "retention: 370", "a duration"),
            (&[("overlap", "0s")], "overlap: without", "better 30m"),
            (
                &[("boundaries", "[14d, 90d]"), ("total-shards", "4")],
                "io/total-shards:1:1: total_shards: 4 does not fit",
                "write 3",
            ),
            (
                &[("boundaries", "[90d, 14d]")],
                "io/boundaries:1:1: boundaries: 90d comes before 14d",
                "newest first",
            ),
            (
                &[("boundaries", "[14d, 90d]"), ("retention", "30d")],
                "boundaries: 90d is not younger",
                "within the retention",
            ),
            (
                &[("replicas", "[3, 2]"), ("total-shards", "3")],
                "replicas: the list has 2",
                "write 3 numbers",
            ),
            (
                &[("drain", "5m"), ("drain-limit", "2m")],
                "io/drain-limit:1:1: drain_limit: the drain of 5m",
                "at least 5m",
            ),
            (
                &[("overlap", "30m"), ("minimum-overlap", "1h")],
                "io/overlap:1:1: overlap: an overlap of 30m",
                "at least 1h",
            ),
            (
                &[("retention", "370d"), ("data-retention-days", "370")],
                "retention: sets the same value as",
                "keep one",
            ),
        ] {
            let message = check(changes).expect_err(place).to_string();
            assert!(
                message.contains(place) && message.contains(right),
                "{message}"
            );
            assert!(message.starts_with("annotation "), "{message}");
        }
    }

    #[test]
    fn what_may_fit_another_layer_is_accepted() {
        for changes in [
            &[("retention", "forever")][..],
            &[("boundaries", "[14d, 400d]")],
            &[("future-buffer", "-22h"), ("total-shards", "1000")],
            &[("replicas", "[3, 2, 2, 2, 2]")],
            &[("overlap", "1m")],
            &[("drain-limit", "1m")],
            &[("drain", "40m")],
            &[("window-format", "absolute")],
            &[("total-shards", "10000")],
            &[("total-shards", "auto")],
        ] {
            check(changes).unwrap_or_else(|why| panic!("{changes:?}: {why}"));
        }
    }

    type Change = (&'static str, &'static str);

    /// Values of the keys that are checked against each other, some of them at a limit.
    const VALUES: [(&str, &[&str]); 11] = [
        ("total-shards", &["1", "3", "4", "9000", "auto"]),
        ("replicas", &["[2, 2, 2]", "[1]", "[900, 900, 900]"]),
        ("retention", &["1s", "1h", "3d", "370d", "forever"]),
        ("overlap", &["1s", "30m", "2h", "3d"]),
        ("minimum-overlap", &["0s", "1s", "1h", "2d"]),
        ("future-buffer", &["-22h", "-1s", "0s", "1d"]),
        ("boundaries", &["[1h]", "[1d, 2d]", "[14d, 90d, 400d]"]),
        ("window-format", &["absolute", "relative"]),
        ("quantum", &["1m", "1h", "2d"]),
        ("drain", &["0s", "90s", "20m"]),
        ("drain-limit", &["1m", "10m", "50m"]),
    ];

    /// Values of some keys.
    fn layer() -> impl Strategy<Value = Vec<Change>> {
        let keys = VALUES.map(|(key, values)| {
            let value = prop::sample::select(values).prop_map(move |value| (key, value));
            prop::option::weighted(0.3, value)
        });
        Vec::from(keys).prop_map(|changes| changes.into_iter().flatten().collect())
    }

    proptest! {
        #![proptest_config(crate::testing::cases(2_000))]

        #[test]
        fn what_is_refused_fits_no_configuration(file in layer(), changes in layer()) {
            let keys: Vec<String> = file
                .iter()
                .map(|(key, value)| format!("{}: {value}", key.replace('-', "_")))
                .collect();
            let Ok(config) = Config::parse(&format!("sharding: {{{}}}", keys.join(", ")), "c") else {
                return Ok(());
            };
            if let Err(refusal) = check(&changes) {
                prop_assert!(on(&config, &changes).is_err(), "{keys:?} {changes:?}: {refusal}");
            }
        }
    }

    fn on(config: &Config, changes: &[Change]) -> Result<(), Refusal> {
        let named = named(changes);
        config
            .sharding_for(named.iter().map(|(key, value)| (key.as_str(), *value)))
            .map(drop)
    }
}
