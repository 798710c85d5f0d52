//! Changes of the pod template: injection that ends, and rolling updates that replace pods too
//! quickly or together.

use super::*;

#[test]
fn a_template_that_ends_injection_is_denied_while_windows_are_published() {
    let (config, before) = (Config::default(), made(6, &[]));
    let published = before.settled(&config);
    let mut cases = Vec::new();
    for (case, key, value) in [
        ("time flags", "args", json!(["store", "--max-time=-2w"])),
        ("another command", "args", json!(["query"])),
        (
            "a shell",
            "command",
            json!(["sh", "-c", "exec thanos store"]),
        ),
        ("an unknown image", "image", json!("registry/monitoring:1")),
    ] {
        let after = before.clone().with(key, value);
        let verdict = judged(&config, Some(&published), Some(&before), Some(&after));
        assert_eq!(verdict.concern, Some(Concern::NotInjected));
        let denial = verdict.denial.clone().unwrap();
        for unknown in [None, Some(&Entries::new())] {
            let unpublished = judged(&config, unknown, Some(&before), Some(&after));
            assert_eq!(
                (unpublished.denial.as_ref(), unpublished.warnings.join("\n")),
                (None, denial.clone())
            );
        }
        cases.push((case, verdict));
        assert_eq!(
            judged(&config, Some(&published), Some(&after), Some(&after)).denial,
            None,
            "it was so before"
        );
    }
    let cases: Vec<_> = cases
        .iter()
        .map(|(case, verdict)| (*case, verdict))
        .collect();
    assert_golden("template", &cases);
    // So does the removal of an annotation.
    let flags = json!(["store", "--min-time=-7d"]);
    let replaced = made(6, &[("replace-time-flags", "true")]).with("args", flags.clone());
    let verdict = judged(
        &config,
        Some(&published),
        Some(&replaced),
        Some(&made(6, &[]).with("args", flags)),
    );
    assert_eq!(verdict.concern, Some(Concern::NotInjected));
}

#[test]
fn an_opt_out_is_not_denied() {
    let (config, before) = (Config::default(), made(6, &[]));
    let mut out = before.json();
    out["spec"]["template"]["metadata"] =
        json!({"labels": {"thanos-timeshard.io/inject": "false"}});
    let published = before.settled(&config);
    let context = GuardContext {
        config: &config,
        published: Some(&published),
        pods: None,
        now: now(),
    };
    let verdict = judged_objects(&context, Some(&before.json()), Some(&out));
    assert!(
        verdict.denial.is_none() && verdict.warnings[0].contains("opted out"),
        "{verdict:?}"
    );
}

#[test]
fn a_changed_template_during_a_rollout_is_reported_where_the_controller_does_not_wait() {
    let config = Config::default();
    for (policy, others, image, reports) in [
        ("Parallel", true, "thanos:v2", true),
        ("OrderedReady", true, "thanos:v2", false),
        ("Parallel", false, "thanos:v2", false),
        ("Parallel", true, "thanos", false),
    ] {
        let before = Made {
            policy,
            ..made(6, &[])
        };
        let mut published = before.settled(&config);
        if others {
            published.get_mut("store-3").unwrap().window = Window {
                min: "-370d".parse().unwrap(),
                max: "1d".parse().unwrap(),
            };
        }
        let after = before.clone().with("image", json!(image));
        let verdict = judged(&config, Some(&published), Some(&before), Some(&after));
        let reported = verdict
            .warnings
            .iter()
            .any(|warning| warning.contains("podManagementPolicy: Parallel replaces a pod"));
        assert_eq!(
            (reported, &verdict.denial),
            (reports, &None),
            "{policy} {others} {image}: {verdict:?}"
        );
    }
}

#[test]
fn a_rolling_update_that_outruns_the_queriers_is_reported() {
    let config = Config::default();
    let set = |image: &str, ready: i64, strategy: &str| {
        json!({"metadata": {"name": "store"}, "spec": {"replicas": 6, "minReadySeconds": ready, "updateStrategy": {"type": strategy},
            "template": {"spec": {"containers": [{"name": "thanos", "image": image, "args": ["store"]}]}}}})
    };
    for (image, ready, strategy, reports) in [
        ("thanos:v2", 0, "RollingUpdate", true),
        ("thanos:v2", 89, "RollingUpdate", true),
        ("thanos:v2", 90, "RollingUpdate", false),
        ("thanos:v2", 0, "OnDelete", false),
        ("thanos", 0, "RollingUpdate", false),
    ] {
        let context = GuardContext {
            config: &config,
            published: None,
            pods: None,
            now: now(),
        };
        let verdict = judged_objects(
            &context,
            Some(&set("thanos", ready, strategy)),
            Some(&set(image, ready, strategy)),
        );
        let reported = verdict
            .warnings
            .iter()
            .any(|warning| warning.contains("set spec.minReadySeconds to 90"));
        assert_eq!(
            (reported, &verdict.denial),
            (reports, &None),
            "{image} {ready} {strategy}: {verdict:?}"
        );
    }
}

/// Six pods of this image, with this `maxUnavailable`.
fn rolling(max_unavailable: &Value, image: &str) -> Value {
    let mut object = made(6, &[]).with("image", json!(image)).json();
    object["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": max_unavailable}});
    object
}

fn judged_rolling(
    published: Option<&Entries>,
    before: Option<&Value>,
    after: &Value,
) -> GuardVerdict {
    judged_objects(
        &GuardContext {
            config: &Config::default(),
            published,
            pods: None,
            now: now(),
        },
        before,
        Some(after),
    )
}

#[test]
fn a_template_that_replaces_both_replicas_of_a_shard_at_once_is_denied() {
    let published = made(6, &[]).settled(&Config::default());
    let two = json!(2);
    let (old, new) = (rolling(&two, "thanos:v1"), rolling(&two, "thanos:v2"));
    let verdict = judged_rolling(Some(&published), Some(&old), &new);
    assert_eq!(verdict.concern, Some(Concern::CoverageGap));
    assert_golden("replacement", &[("both replicas at once", &verdict)]);
    for (value, image, published) in [
        (json!(1), "thanos:v2", Some(&published)),
        (two.clone(), "thanos:v1", Some(&published)),
        (json!("20%"), "thanos:v2", Some(&published)),
        (two.clone(), "thanos:v2", None),
    ] {
        let verdict = judged_rolling(
            published,
            Some(&rolling(&value, "thanos:v1")),
            &rolling(&value, image),
        );
        assert!(verdict.denial.is_none(), "{value} {image}: {verdict:?}");
    }
    // Another pod serves all of it while these restart.
    let mut covered = published.clone();
    covered.get_mut("store-5").unwrap().window = Window {
        min: "-370d".parse().unwrap(),
        max: "1d".parse().unwrap(),
    };
    covered.get_mut("store-5").unwrap().shard = 7;
    assert_eq!(
        judged_rolling(Some(&covered), Some(&old), &new).denial,
        None
    );
}

#[test]
fn a_max_unavailable_of_all_replicas_is_reported_only_when_it_is_set() {
    let published = made(6, &[]).settled(&Config::default());
    let reported = |verdict: GuardVerdict| {
        verdict
            .warnings
            .iter()
            .any(|line| line.contains("maxUnavailable is 2"))
    };
    let (one, two) = (
        rolling(&json!(1), "thanos:v1"),
        rolling(&json!(2), "thanos:v1"),
    );
    assert!(reported(judged_rolling(Some(&published), Some(&one), &two)));
    assert!(!reported(judged_rolling(
        Some(&published),
        Some(&two),
        &two
    )));
    assert!(reported(judged_rolling(None, None, &two)), "a creation");
}
