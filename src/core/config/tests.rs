use super::*;
use crate::core::duration::PromDuration;

const COMPATIBILITY: &str = "\
operator:
  update_interval: 300          # seconds between full resyncs
  namespace: monitoring
  statefulset_name: thanos-store-gateway
  configmap_name: thanos-store-config
sharding:
  total_shards: 3
  replicas_per_shard: 2
  data_retention_days: 370
  shard_overlap_days: 1
  future_buffer_hours: 24
";

fn sharding(keys: &str) -> Result<Config, Refusal> {
    Config::parse(&format!("sharding: {{{keys}}}\n"), "c.yaml")
}

#[test]
fn the_compatibility_file_loads_unchanged() {
    let config = Config::parse(COMPATIBILITY, "c.yaml").unwrap();
    assert_eq!(config.operator, Operator::default());
    assert_eq!(config.sharding, Sharding::default());
    assert_eq!(config.sharding.nominal_pods(), Some(6));
    assert_eq!(
        config
            .operator
            .configmap_of("monitoring", "thanos-store-gateway"),
        "thanos-store-config"
    );
    assert_eq!(
        config
            .operator
            .configmap_of("elsewhere", "thanos-store-gateway"),
        "thanos-store-gateway-time-shards"
    );
}

#[test]
fn both_spellings_mean_the_same() {
    let hours = sharding("future_buffer_hours: -22").unwrap();
    assert_eq!(
        hours.sharding,
        sharding("future_buffer: -22h").unwrap().sharding
    );
    let days =
        sharding("data_retention_days: 370, shard_overlap_days: 0.5, future_buffer_hours: 36")
            .unwrap();
    let durations = sharding("retention: 370d, overlap: 12h, future_buffer: 1d12h").unwrap();
    assert_eq!(days.sharding, durations.sharding);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn every_mistake_names_place_key_value_and_remedy() {
    for (text, place, words) in [
        (
            "sharding:\n  total_shards: 0\n",
            "c.yaml:2:17: sharding.total_shards: 0",
            "1 to 10000, or auto",
        ),
        (
            "sharding:\n  total_shards: three\n",
            "c.yaml:2:17: sharding.total_shards: \"three\"",
            "or auto",
        ),
        (
            "sharding:\n  replicas_per_shard: 0\n",
            "c.yaml:2:23: sharding.replicas_per_shard: 0",
            "1 to 1000",
        ),
        (
            "sharding:\n  replicas_per_shard: 2.5\n",
            "c.yaml:2:23: sharding.replicas_per_shard: 2.5",
            "whole number",
        ),
        (
            "sharding:\n  data_retention_days: -3\n",
            "c.yaml:2:24: sharding.data_retention_days: -3",
            "days from 1",
        ),
        (
            "sharding:\n  data_retention_days: 370d\n",
            "c.yaml:2:24",
            "under the key without the unit",
        ),
        (
            "sharding:\n  shard_overlap_days: 0\n",
            "c.yaml:2:23: sharding.shard_overlap_days: without an overlap",
            "better 30m",
        ),
        (
            "sharding:\n  total_shards: .nan\n",
            "c.yaml:2:17: sharding.total_shards: NaN",
            "or auto",
        ),
        (
            "sharding:\n  total_shards: 3\n---\nsharding: {}\n",
            "c.yaml:4:1",
            "second document",
        ),
        (
            "sharding: &a\n  x: *a\n",
            "c.yaml:2:6",
            "write the value out",
        ),
        (
            "sharding:\n  overlap: 0s\n  minimum_overlap: 0s\n",
            "c.yaml:2:12",
            "only touch",
        ),
        (
            "sharding:\n  overlap: 29m\n",
            "c.yaml:2:12: sharding.overlap: an overlap of 29m",
            "at least 30m",
        ),
        (
            "sharding:\n  boundaries: [90d, 14d]\n",
            "c.yaml:2:15: sharding.boundaries: 90d stands before 14d",
            "newest first",
        ),
        (
            "sharding:\n  boundaries: [14d, 14d]\n",
            "c.yaml:2:15",
            "ages must grow",
        ),
        (
            "sharding:\n  boundaries: [14d, 370d]\n",
            "c.yaml:2:15: sharding.boundaries: 370d",
            "within the retention",
        ),
        (
            "sharding:\n  boundaries: [14d, 1.5d]\n",
            "c.yaml:2:15",
            "\"1.5d\" is not",
        ),
        (
            "sharding:\n  total_shards: 4\n  boundaries: [14d]\n",
            "c.yaml:2:17: sharding.total_shards: 4",
            "write 2",
        ),
        (
            "sharding:\n  total_shards: auto\n  boundaries: [14d]\n",
            "c.yaml:2:17",
            "remove one",
        ),
        (
            "sharding:\n  replicas: [2, 2]\n",
            "c.yaml:2:13: sharding.replicas: the list has 2 numbers for 3 shards",
            "write 3 numbers",
        ),
        (
            "sharding:\n  total_shards: auto\n  replicas: [2, 2]\n",
            "c.yaml:3:13",
            "replicas_per_shard",
        ),
        (
            "sharding:\n  retention: 370d\n  data_retention_days: 370\n",
            "c.yaml:3:24",
            "same thing as sharding.retention",
        ),
        (
            "sharding:\n  total_shard: 3\n",
            "c.yaml:2:16: sharding.total_shard",
            "did you mean total_shards?",
        ),
        (
            "sharding:\n  total_shards: 3\n  total_shards: 4\n",
            "c.yaml:3:",
            "duplicate",
        ),
        (
            "sharding:\n  window_format: absolute\n  overlap: 1h\n",
            "c.yaml:3:12",
            "quantum (1h) plus the time a rollout takes (16m)",
        ),
        (
            "sharding:\n  drain: 2h\n",
            "c.yaml:2:10: sharding.drain: \"2h\"",
            "0s to 1h",
        ),
        (
            "sharding:\n  drain: 60\n",
            "c.yaml:2:10: sharding.drain: 60",
            "duration",
        ),
        (
            "sharding:\n  total_shards: 10000\n  retention: 1h\n",
            "c.yaml:3:14",
            "no room for 10000 shards",
        ),
        (
            "sharding:\n  total_shards: 10000\n  replicas_per_shard: 1000\n",
            "c.yaml:3:23",
            "at most 100000",
        ),
        (
            "sharding:\n  total_shards:\n",
            "c.yaml:2:3: sharding.total_shards: nothing",
            "or auto",
        ),
        ("sharding: 3\n", "c.yaml:1:1: sharding: 3", "block of keys"),
        ("shard: {}\n", "c.yaml:1:1: shard", "unknown"),
        (
            "operator:\n  namespace: Mon_itoring\n",
            "c.yaml:2:14: operator.namespace",
            "Kubernetes name",
        ),
        (
            "operator:\n  statefulset_name: a\n  configmap_name: b-time-shards\n",
            "c.yaml:3:19: operator.configmap_name: \"b-time-shards\"",
            "the ConfigMap of a StatefulSet b is called so; write a name that does not end in -time-shards, or a-time-shards",
        ),
        (
            "operator:\n  configmap_name: store-time-shards\n",
            "c.yaml:2:19",
            "a StatefulSet store is called so",
        ),
        (
            "operator:\n  update_interval: 5m\n",
            "c.yaml:2:20: operator.update_interval: \"5m\"",
            "seconds",
        ),
        (
            "injection:\n  memory: lots\n",
            "c.yaml:2:11: injection.memory: \"lots\"",
            "32Mi",
        ),
        (
            "injection:\n  seccomp_profile: Unconfined\n",
            "c.yaml:2:20: injection.seccomp_profile: \"Unconfined\"",
            "RuntimeDefault or none",
        ),
        (
            "sharding:\n  retention: forever\n",
            "c.yaml:2:14: sharding.retention: forever cannot be split",
            "also write boundaries",
        ),
        (
            "sharding:\n  total_shards: 1\n  retention: forever\n",
            "c.yaml:3:14: sharding.retention",
            "also write boundaries",
        ),
        (
            "sharding:\n  retention: always\n",
            "c.yaml:2:14: sharding.retention: \"always\"",
            "or forever",
        ),
        (
            "sharding:\n  data_retention_days: forever\n",
            "c.yaml:2:24",
            "a number of days",
        ),
        (
            "sharding:\n  boundaries: [1h]\n  future_buffer: -31m\n",
            "c.yaml:3:18",
            "write a future_buffer of at least -30m",
        ),
        (
            "sharding:\n  boundaries: [1h]\n  future_buffer_hours: -1\n",
            "c.yaml:3:24",
            "make the first boundary at least 1h30m",
        ),
        (
            "sharding:\n  future_buffer: -40000d\n",
            "c.yaml:2:18",
            "a duration from -36500d to 36500d",
        ),
        ("", "c.yaml:1:1", "empty"),
        ("[1]\n", "c.yaml:1:1", "blocks"),
        ("sharding: {total_shards: 3\n", "c.yaml:", ""),
    ] {
        let message = Config::parse(text, "c.yaml").expect_err(text).to_string();
        assert!(
            message.contains(place) && message.contains(words),
            "{text}\n gave {message}\n wanted {place} … {words}"
        );
    }
}

#[test]
fn the_one_configmap_may_be_called_as_it_would_be_anyway() {
    for text in [
        "configmap_name: a-time-shards, statefulset_name: a",
        "statefulset_name: b, configmap_name: shards",
        "statefulset_name: c",
    ] {
        Config::parse(&format!("operator: {{{text}}}"), "c").unwrap();
    }
}

#[test]
fn all_mistakes_are_listed_at_once() {
    let refusal = sharding("total_shards: 0, replicas_per_shard: x, dran: 1s").unwrap_err();
    assert_eq!(refusal.0.len(), 3, "{refusal}");
}

#[test]
fn annotations_override_the_file() {
    let config = Config::parse(COMPATIBILITY, "c.yaml").unwrap();
    let with = |pairs: &[(&'static str, &'static str)]| config.sharding_for(pairs.iter().copied());
    let over = with(&[
        ("thanos-timeshard.io/total-shards", "4"),
        ("thanos-timeshard.io/retention", "400d"),
        ("other", "x"),
    ])
    .unwrap();
    assert_eq!(
        (over.total_shards(), over.retention()),
        (Some(4), Retention::Limited(PromDuration::from_days(400)))
    );
    assert_eq!(over.overlap(), config.sharding.overlap());
    let over = with(&[("thanos-timeshard.io/boundaries", "[14d, 90d]")]).unwrap();
    assert_eq!(
        over.boundaries(),
        [PromDuration::from_days(14), PromDuration::from_days(90)]
    );
    let error = with(&[("thanos-timeshard.io/total-shards", "0")])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(
            "annotation thanos-timeshard.io/total-shards:1:1: total_shards: 0 is not accepted"
        ),
        "{error}"
    );
    let over = with(&[("thanos-timeshard.io/boundaries", "[14d, 90d, 200d]")]).unwrap();
    assert_eq!(
        over.total_shards(),
        Some(4),
        "boundaries say how many shards there are"
    );
    let error = with(&[
        ("thanos-timeshard.io/boundaries", "[14d]"),
        ("thanos-timeshard.io/total-shards", "3"),
    ])
    .unwrap_err()
    .to_string();
    assert!(
        error.starts_with(
            "annotation thanos-timeshard.io/total-shards:1:1: total_shards: 3 does not fit"
        ),
        "{error}"
    );
}

#[test]
fn an_annotation_is_ours_only_with_our_exact_name() {
    assert_eq!(
        sharding_key("thanos-timeshard.io/total-shards"),
        Some("total_shards")
    );
    assert_eq!(sharding_key("thanos-timeshard.io/total-shards2"), None);
    assert_eq!(sharding_key("thanos-timeshard.io/inject"), None);
    assert_eq!(sharding_key("example.com/total-shards"), None);
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(sharding|operator|injection):\\{?\n? *[a-z_]{0,20}: *[\\PC]{0,30}\\}?") {
        let _ = Config::parse(&text, "c.yaml");
    }
}
