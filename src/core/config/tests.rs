use super::*;
use crate::core::model::duration::PromDuration;

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

/// Checks that each text is refused with its place, key and value, and a remedy.
fn refused(cases: &[(&str, &str, &str)]) {
    for (text, place, remedy) in cases {
        let message = Config::parse(text, "c.yaml").expect_err(text).to_string();
        assert!(
            message.contains(place) && message.contains(remedy),
            "{text}\n gave {message}\n wanted {place} … {remedy}"
        );
    }
}

#[test]
fn a_wrong_number_is_refused_with_place_key_value_and_remedy() {
    refused(&[
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
            "sharding:\n  total_shards:\n",
            "c.yaml:2:3: sharding.total_shards: nothing",
            "or auto",
        ),
    ]);
}

#[test]
fn a_wrong_duration_is_refused_with_place_key_value_and_remedy() {
    refused(&[
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
            "sharding:\n  retention: 370d\n  data_retention_days: 370\n",
            "c.yaml:3:24",
            "same value as sharding.retention",
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
    ]);
}

#[test]
fn boundaries_that_do_not_fit_are_refused_with_a_remedy() {
    refused(&[
        (
            "sharding:\n  boundaries: [90d, 14d]\n",
            "c.yaml:2:15: sharding.boundaries: 90d comes before 14d",
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
            "sharding:\n  boundaries: [1h]\n  future_buffer: -31m\n",
            "c.yaml:3:18",
            "write a future_buffer of at least -30m",
        ),
        (
            "sharding:\n  boundaries: [1h]\n  future_buffer_hours: -1\n",
            "c.yaml:3:24",
            "make the first boundary at least 1h30m",
        ),
    ]);
}

#[test]
fn keys_that_contradict_each_other_are_refused_with_a_remedy() {
    refused(&[
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
            "sharding:\n  window_format: absolute\n  overlap: 1h\n",
            "c.yaml:3:12",
            "quantum (1h) plus the time a rollout takes (16m)",
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
            "sharding:\n  future_buffer: -40000d\n",
            "c.yaml:2:18",
            "a duration from -36500d to 36500d",
        ),
    ]);
}

#[test]
fn a_mistake_outside_of_the_sharding_block_is_refused_with_a_remedy() {
    refused(&[
        (
            "sharding: &a\n  x: *a\n",
            "c.yaml:2:6",
            "write the value out",
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
            "operator:\n  cluster_name: \"eu\\nlevel=error\"\n",
            "c.yaml:2:17: operator.cluster_name",
            "one line of at most 128 characters",
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
        ("", "c.yaml:1:1", "empty"),
        ("[1]\n", "c.yaml:1:1", "blocks"),
        ("sharding: {total_shards: 3\n", "c.yaml:", ""),
    ]);
}

#[test]
fn a_cluster_may_be_named_as_its_cloud_does() {
    let name = "arn:aws:eks:eu-west-1:012345678901:cluster/prod";
    let config = Config::parse(&format!("operator: {{cluster_name: {name:?}}}"), "c").unwrap();
    assert_eq!(config.operator.cluster_name, name);
    let longest = "x".repeat(128);
    Config::parse(&format!("operator: {{cluster_name: {longest}}}"), "c").unwrap();
    Config::parse(&format!("operator: {{cluster_name: {longest}x}}"), "c").unwrap_err();
}

#[test]
fn the_configmap_may_be_given_its_default_name() {
    for text in [
        "configmap_name: a-time-shards, statefulset_name: a",
        "statefulset_name: b, configmap_name: shards",
        "statefulset_name: c",
    ] {
        Config::parse(&format!("operator: {{{text}}}"), "c").unwrap();
    }
}

#[test]
fn the_limits_of_a_step_are_read_and_refused_with_a_remedy() {
    let read = |keys: &str| sharding(keys).unwrap().sharding;
    let most = |keys: &str, pods| read(keys).max_concurrent_restarts(pods);
    assert_eq!(
        (most("", 8), most("", 9), most("", 1), most("", 0)),
        (4, 5, 1, 1)
    );
    assert_eq!(most("max_concurrent_restarts: 3", 100), 3);
    assert_eq!(most("max_concurrent_restarts: 100%", 7), 7);
    assert_eq!(read("").drain_limit(), PromDuration::from_secs(600));
    assert_eq!(
        read("drain: 20m").drain_limit(),
        PromDuration::from_secs(1_200),
        "a longer drain raises the default"
    );
    refused(&[
        (
            "sharding: {max_unavailable: 0}",
            "max_unavailable",
            "1 to 1000",
        ),
        (
            "sharding: {max_concurrent_restarts: 0%}",
            "0%",
            "a share from 1% to 100%",
        ),
        (
            "sharding: {max_concurrent_restarts: 0.5}",
            "0.5",
            "a share from 1% to 100%",
        ),
        ("sharding: {canary: maybe}", "maybe", "true or false"),
        ("sharding: {drain_limit: 2h}", "2h", "from 1m to 50m"),
        (
            "sharding: {drain: 5m, drain_limit: 2m}",
            "drain_limit",
            "write a drain_limit of at least 5m",
        ),
    ]);
}

#[test]
fn queriers_elsewhere_are_read_and_refused_with_a_remedy() {
    let text = "queriers:\n- {namespace: thanos, selector: 'app=query,tier in (a, b)', port: 9090, path: /global/}\n- {namespace: b, selector: x}\n";
    let config = Config::parse(text, "c.yaml").unwrap();
    assert_eq!(config.queriers.len(), 2);
    assert_eq!(config.queriers[0].path.as_deref(), Some("/global"));
    assert_eq!(
        (config.queriers[0].port, config.queriers[1].port),
        (Some(9090), None)
    );
    for (item, why) in [
        ("{selector: x}", "queriers[0]: the key namespace is missing"),
        ("{namespace: a}", "queriers[0]: the key selector is missing"),
        (
            "{namespace: A_b, selector: x}",
            "c.yaml:2:15: queriers[0].namespace",
        ),
        ("{namespace: a, selector: x, prot: 1}", "did you mean port?"),
        (
            "{namespace: a, selector: x, port: 0}",
            "a port from 1 to 65535",
        ),
        (
            "{namespace: a, selector: x, path: 'a?b'}",
            "such as /thanos",
        ),
        ("7", "the keys namespace and selector"),
    ] {
        let error = Config::parse(&format!("queriers:\n- {item}\n"), "c.yaml").unwrap_err();
        assert!(error.to_string().contains(why), "{item}: {error}");
    }
    let error = Config::parse("queriers: {a: b}\n", "c.yaml").unwrap_err();
    assert!(error.to_string().contains("a list, such as"), "{error}");
    let many = "- {namespace: a, selector: x}\n".repeat(17);
    let error = Config::parse(&format!("queriers:\n{many}"), "c.yaml").unwrap_err();
    assert!(error.to_string().contains("at most 16"), "{error}");
}

#[test]
fn all_mistakes_are_listed_together() {
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
        "boundaries fix the number of shards"
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
fn only_the_exact_name_of_an_annotation_counts() {
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
