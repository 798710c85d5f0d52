//! Changes of the pod template: injection that ends, and rolling updates that replace pods too quickly or together.

use super::*;

#[test]
fn a_template_that_ends_injection_is_refused_while_windows_are_published() {
    let (config, before) = (Config::default(), made(6, &[]));
    let published = before.settled(&config);
    for (key, value, words) in [
        (
            "args",
            json!(["store", "--max-time=-2w"]),
            "pods of this template would no longer be given their windows: --max-time is set by hand",
        ),
        (
            "args",
            json!(["query"]),
            "would come back without a window, each with the whole bucket: no container runs thanos store",
        ),
        (
            "command",
            json!(["sh", "-c", "exec thanos store"]),
            "thanos store runs inside \"exec thanos store\"",
        ),
        (
            "image",
            json!("registry/monitoring:1"),
            "is not named thanos",
        ),
    ] {
        let after = before.clone().with(key, value);
        let verdict = judged(&config, Some(&published), Some(&before), Some(&after));
        let denial = verdict.denial.unwrap_or_default();
        assert!(
            verdict.concern == Some(Concern::NotInjected)
                && denial.contains(words)
                && denial.contains("guard=off"),
            "{denial}"
        );
        for unknown in [None, Some(&Entries::new())] {
            let verdict = judged(&config, unknown, Some(&before), Some(&after));
            assert!(
                verdict.denial.is_none() && verdict.warnings[0].contains(words),
                "{verdict:?}"
            );
        }
        assert_eq!(
            judged(&config, Some(&published), Some(&after), Some(&after)).denial,
            None,
            "it was so before"
        );
    }
    // An annotation that goes away ends it as well.
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
fn an_opt_out_is_meant() {
    let (config, before) = (Config::default(), made(6, &[]));
    let mut out = before.json();
    out["spec"]["template"]["metadata"] =
        json!({"labels": {"thanos-timeshard.io/inject": "false"}});
    let published = before.settled(&config);
    let facing = Facing {
        config: &config,
        published: Some(&published),
        pods: None,
        now: now(),
    };
    let verdict = judged_objects(&facing, Some(&before.json()), Some(&out));
    assert!(
        verdict.denial.is_none() && verdict.warnings[0].contains("opted out"),
        "{verdict:?}"
    );
}

#[test]
fn another_template_in_the_middle_of_a_rollout_is_told_where_the_controller_waits_for_nobody() {
    let config = Config::default();
    for (policy, others, image, tells) in [
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
        let told = verdict
            .warnings
            .iter()
            .any(|warning| warning.contains("podManagementPolicy: Parallel has a pod replaced"));
        assert_eq!(
            (told, &verdict.denial),
            (tells, &None),
            "{policy} {others} {image}: {verdict:?}"
        );
    }
}

#[test]
fn a_rolling_update_that_outruns_the_queriers_is_told() {
    let config = Config::default();
    let set = |image: &str, ready: i64, strategy: &str| {
        json!({"metadata": {"name": "store"}, "spec": {"replicas": 6, "minReadySeconds": ready, "updateStrategy": {"type": strategy},
            "template": {"spec": {"containers": [{"name": "thanos", "image": image, "args": ["store"]}]}}}})
    };
    for (image, ready, strategy, tells) in [
        ("thanos:v2", 0, "RollingUpdate", true),
        ("thanos:v2", 89, "RollingUpdate", true),
        ("thanos:v2", 90, "RollingUpdate", false),
        ("thanos:v2", 0, "OnDelete", false),
        ("thanos", 0, "RollingUpdate", false),
    ] {
        let facing = Facing {
            config: &config,
            published: None,
            pods: None,
            now: now(),
        };
        let verdict = judged_objects(
            &facing,
            Some(&set("thanos", ready, strategy)),
            Some(&set(image, ready, strategy)),
        );
        let told = verdict
            .warnings
            .iter()
            .any(|warning| warning.contains("set spec.minReadySeconds to 90"));
        assert_eq!(
            (told, &verdict.denial),
            (tells, &None),
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

fn judged_rolling(published: Option<&Entries>, before: Option<&Value>, after: &Value) -> Verdict {
    judged_objects(
        &Facing {
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
fn a_template_that_replaces_both_replicas_of_a_shard_at_once_is_refused() {
    let published = made(6, &[]).settled(&Config::default());
    let two = json!(2);
    let (old, new) = (rolling(&two, "thanos:v1"), rolling(&two, "thanos:v2"));
    let verdict = judged_rolling(Some(&published), Some(&old), &new);
    assert_eq!(verdict.concern, Some(Concern::CoverageGap));
    assert_eq!(
        verdict.denial.unwrap().lines().collect::<Vec<_>>(),
        [
            "updateStrategy.rollingUpdate.maxUnavailable is 2: a rolling update replaces all replicas of shard 0 at once (store-0, store-1), and no pod serves its window meanwhile; set it to 1",
            r#"first: kubectl -n ns patch statefulset store --type=merge -p '{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":1}}}}'"#,
            "if it is meant: kubectl -n ns annotate --overwrite statefulset store thanos-timeshard.io/guard=off",
        ]
    );
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
    // Another pod holds all of it while these are away.
    let mut held = published.clone();
    held.get_mut("store-5").unwrap().window = Window {
        min: "-370d".parse().unwrap(),
        max: "1d".parse().unwrap(),
    };
    held.get_mut("store-5").unwrap().shard = 7;
    assert_eq!(judged_rolling(Some(&held), Some(&old), &new).denial, None);
}

#[test]
fn a_max_unavailable_of_all_replicas_is_told_when_it_comes_and_not_again() {
    let published = made(6, &[]).settled(&Config::default());
    let told = |verdict: Verdict| {
        verdict
            .warnings
            .iter()
            .any(|line| line.contains("maxUnavailable is 2"))
    };
    let (one, two) = (
        rolling(&json!(1), "thanos:v1"),
        rolling(&json!(2), "thanos:v1"),
    );
    assert!(told(judged_rolling(Some(&published), Some(&one), &two)));
    assert!(!told(judged_rolling(Some(&published), Some(&two), &two)));
    assert!(told(judged_rolling(None, None, &two)), "a creation");
}
