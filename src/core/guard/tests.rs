use std::collections::BTreeMap;

use chrono::TimeZone;
use serde_json::{Value, json};

use super::*;
use crate::core::entry::Entry;
use crate::core::fleet::StatefulSetFacts;

mod bounds;
mod messages;
mod pods;
mod properties;
mod templates;

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap()
}

/// A StatefulSet of a request, with the words of its first container.
#[derive(Clone, Debug)]
struct Made {
    replicas: u32,
    start: u32,
    annotations: BTreeMap<String, String>,
    container: Value,
    policy: &'static str,
}

fn made(replicas: u32, annotations: &[(&str, &str)]) -> Made {
    let annotations = annotations
        .iter()
        .map(|(key, value)| (format!("thanos-timeshard.io/{key}"), (*value).to_owned()))
        .collect();
    Made {
        replicas,
        start: 0,
        annotations,
        container: json!({"name": "thanos", "image": "thanos", "args": ["store"]}),
        policy: "OrderedReady",
    }
}

impl Made {
    fn with(mut self, key: &str, value: Value) -> Self {
        self.container[key] = value;
        self
    }

    fn json(&self) -> Value {
        json!({"metadata": {"name": "store", "annotations": self.annotations},
            "spec": {"replicas": self.replicas, "ordinals": {"start": self.start}, "podManagementPolicy": self.policy, "template": {"spec": {"containers": [self.container]}}}})
    }

    fn known(&self, config: &Config) -> Known {
        let json = self.json().to_string();
        let view: SetView<'_> = serde_json::from_str(&json).unwrap();
        Known::new(config, view.facts("ns"), None)
    }

    /// What would be published when every pod is where the plan wants it.
    fn settled(&self, config: &Config) -> Entries {
        let known = self.known(config);
        let entry = |index| {
            let at = known.plan.assign(index);
            Entry::new(at.shard, at.replica, known.plan.window(at.shard, now()))
        };
        (0..self.replicas)
            .map(|index| (format!("store-{}", self.start + index), entry(index)))
            .collect()
    }
}

/// As the webhook does it for a StatefulSet.
fn judged(
    config: &Config,
    published: Option<&Entries>,
    before: Option<&Made>,
    after: Option<&Made>,
) -> Verdict {
    judged_with(config, published, None, before, after)
}

fn judged_with(
    config: &Config,
    published: Option<&Entries>,
    pods: Option<&PodsSeen>,
    before: Option<&Made>,
    after: Option<&Made>,
) -> Verdict {
    let json = [before, after].map(|made| made.map(Made::json));
    judged_objects(
        &Facing {
            config,
            published,
            pods,
            now: now(),
        },
        json[0].as_ref(),
        json[1].as_ref(),
    )
}

/// The same for objects that say more than [`Made`] does.
fn judged_objects(facing: &Facing<'_>, before: Option<&Value>, after: Option<&Value>) -> Verdict {
    let json = [before, after].map(|object| object.map(Value::to_string));
    let view = |which: usize| {
        json[which]
            .as_ref()
            .map(|json| serde_json::from_str::<SetView<'_>>(json).unwrap())
    };
    let known = [0, 1]
        .map(|which| view(which).map(|view| Known::new(facing.config, view.facts("ns"), None)));
    let pods = [0, 1].map(|which| {
        view(which).map(|view| (view.template(), view.is_parallel(), view.into_first_pod()))
    });
    let set = |which: usize| {
        let (template, parallel, pod) = pods[which].as_ref()?;
        known[which].as_ref().map(|known| Set {
            known,
            pod: Some(pod),
            template: *template,
            parallel: *parallel,
        })
    };
    judge(set(0).as_ref(), set(1).as_ref(), facing)
}

/// As the webhook does it for a `Scale`.
fn scaled(config: &Config, published: Option<&Entries>, before: &Made, replicas: u32) -> Verdict {
    scaled_with(config, published, None, before, replicas)
}

fn scaled_with(
    config: &Config,
    published: Option<&Entries>,
    pods: Option<&PodsSeen>,
    before: &Made,
    replicas: u32,
) -> Verdict {
    let known = before.known(config);
    let after = Known::new(
        config,
        StatefulSetFacts {
            replicas,
            ..known.facts().clone()
        },
        Some(&known),
    );
    let set = |known| Set {
        known,
        pod: None,
        template: None,
        parallel: false,
    };
    judge(
        Some(&set(&known)),
        Some(&set(&after)),
        &Facing {
            config,
            published,
            pods,
            now: now(),
        },
    )
}

fn config(text: &str) -> Config {
    Config::parse(text, "test").unwrap()
}

#[test]
fn the_open_end_of_what_would_be_lost_is_told_in_words() {
    let config = Config::default();
    for format in ["relative", "absolute"] {
        let before = made(
            6,
            &[
                ("boundaries", "[14d, 90d]"),
                ("retention", "forever"),
                ("window-format", format),
            ],
        );
        let denial = scaled(&config, Some(&before.settled(&config)), &before, 4)
            .denial
            .unwrap();
        assert!(
            denial.starts_with("with 4 of 6 pods, nobody would hold the beginning .. "),
            "{denial}"
        );
    }
}

#[test]
fn a_scale_down_that_leaves_a_gap_is_refused_with_the_safe_way() {
    let (config, before) = (Config::default(), made(6, &[]));
    let published = before.settled(&config);
    let verdict = scaled(&config, Some(&published), &before, 4);
    assert_eq!(verdict.concern, Some(Concern::CoverageGap));
    assert_eq!(
        verdict.denial.unwrap().lines().collect::<Vec<_>>(),
        [
            "with 4 of 6 pods, nobody would hold -370d .. -247d16h: only store-4, store-5 do now",
            "first: kubectl -n ns annotate --overwrite statefulset store thanos-timeshard.io/target-replicas=4",
            "then, when `timeshard status ns/store` says that it is safe: kubectl -n ns scale statefulset store --replicas=4",
            "if it is meant: kubectl -n ns annotate --overwrite statefulset store thanos-timeshard.io/guard=off",
        ]
    );
    let zero = scaled(&config, Some(&published), &before, 0)
        .denial
        .unwrap();
    assert!(
        zero.starts_with(
            "without pods, nobody would hold -370d .. 1d: only store-0, store-1, store-2, store-3, store-4 and 1 more do now\nif"
        ),
        "{zero}"
    );
    // The same by a change of the object itself.
    assert_eq!(
        judged(
            &config,
            Some(&published),
            Some(&before),
            Some(&made(0, &[]))
        )
        .denial,
        Some(zero)
    );
    let moved = Made {
        start: 3,
        ..made(6, &[])
    };
    let moved = judged(&config, Some(&published), Some(&before), Some(&moved))
        .denial
        .unwrap();
    assert!(
        moved.starts_with(
            "with spec.ordinals.start 3 instead of 0, nobody would hold -123d8h .. 1d: only"
        ),
        "{moved}"
    );

    let under_way = made(6, &[("target-replicas", "4"), ("pause", "true")]);
    let waits = scaled(&config, Some(&published), &under_way, 4)
        .denial
        .unwrap();
    assert!(
        waits.contains("\nthe windows are on their way to 4 pods: it is paused by thanos-timeshard.io/pause: remove that, and wait"),
        "{waits}"
    );
}

/// Pods with these ordinals, each as it is given.
fn pods(conditions: &[(u32, PodCondition)]) -> PodsSeen {
    let conditions = conditions
        .iter()
        .map(|(ordinal, condition)| (format!("store-{ordinal}"), *condition))
        .collect();
    PodsSeen {
        conditions,
        single_holders: None,
    }
}

#[test]
fn the_mode_is_the_configurations_or_the_annotations() {
    let warn = config("guard: {mode: warn}");
    let published = made(6, &[]).settled(&warn);
    let warned = scaled(&warn, Some(&published), &made(6, &[]), 4);
    assert_eq!(
        (warned.concern, &warned.denial),
        (Some(Concern::CoverageGap), &None)
    );
    let refused = scaled(&Config::default(), Some(&published), &made(6, &[]), 4);
    let (against, others) = warned.warnings.split_at(4);
    assert_eq!(
        (against.join("\n"), refused.warnings.len()),
        (refused.denial.unwrap(), 0),
        "the same words"
    );
    assert!(
        others[0].starts_with("4 pods where 6 fill the plan"),
        "{others:?}"
    );
    let off = config("guard: {mode: off}");
    assert_eq!(
        scaled(&off, Some(&published), &made(6, &[]), 4),
        Verdict::default()
    );
    for (mode, denied) in [
        ("deny", true),
        ("warn", false),
        ("off", false),
        ("no", false),
    ] {
        let verdict = scaled(&warn, Some(&published), &made(6, &[("guard", mode)]), 4);
        assert_eq!(verdict.denial.is_some(), denied, "{mode}");
        assert_eq!(verdict == Verdict::default(), mode == "off");
    }
    for (text, words) in [
        (
            "guard: {mode: allow}",
            "\"allow\" is not accepted: write deny, warn or off",
        ),
        ("guard: {modes: off}", "did you mean mode?"),
    ] {
        let refusal = Config::parse(text, "c").unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn fewer_replicas_are_a_warning() {
    let config = config("sharding: {replicas_per_shard: 3}");
    let before = made(9, &[]);
    let verdict = scaled(&config, Some(&before.settled(&config)), &before, 7);
    assert_eq!(verdict.denial, None);
    assert_eq!(
        verdict.warnings[0],
        "until other pods have moved, 1 pod holds -370d .. -247d16h where the plan wants 2"
    );
    assert!(
        verdict.warnings[1].ends_with("thanos-timeshard.io/target-replicas=7"),
        "{verdict:?}"
    );
}

#[test]
fn the_safe_way_passes_in_silence() {
    let config = Config::default();
    let before = made(6, &[("target-replicas", "4")]);
    let settled = before.settled(&config);
    assert_eq!(
        scaled(&config, Some(&settled), &before, 4),
        Verdict::default()
    );
    let surplus = made(8, &[]);
    assert_eq!(
        scaled(&config, Some(&surplus.settled(&config)), &surplus, 6),
        Verdict::default()
    );
    // What is published is not all as planned: perhaps it is not served either.
    let mut halfway = settled.clone();
    halfway.insert(
        "store-5".to_owned(),
        made(6, &[]).settled(&config)["store-5"],
    );
    let verdict = scaled(&config, Some(&halfway), &before, 4);
    assert_eq!(
        verdict.concern,
        Some(Concern::RolloutUnderWay),
        "store-3 may not serve what store-5 has until then"
    );
    assert!(verdict.denial.unwrap().starts_with(
        "the windows are on their way to 4 pods: wait until `timeshard status ns/store` says"
    ));
    let other = scaled(
        &config,
        Some(&made(7, &[("total-shards", "2")]).settled(&config)),
        &made(7, &[]),
        6,
    );
    assert!(
        other.denial.is_none() && other.warnings[0].starts_with("a rollout is under way"),
        "{other:?}"
    );
}

#[test]
fn a_deletion_is_a_warning() {
    let (config, before) = (Config::default(), made(6, &[]));
    let verdict = judged(&config, Some(&before.settled(&config)), Some(&before), None);
    assert_eq!(verdict.denial, None);
    assert_eq!(
        verdict.warnings,
        [
            "its 6 pods end, and no other pod of it holds -370d .. 1d",
            "its pods stay with kubectl -n ns delete --cascade=orphan statefulset store"
        ]
    );
    assert_eq!(
        judged(&config, None, Some(&before), None),
        Verdict::default()
    );
}

#[test]
fn a_scale_leaves_a_zero_out() {
    let scale: SetView<'_> =
        serde_json::from_str(r#"{"kind": "Scale", "metadata": {"name": "store"}, "spec": {}, "status": {"replicas": 6}}"#).unwrap();
    assert_eq!((scale.name(), scale.scale()), ("store", 0));
    let set: SetView<'_> =
        serde_json::from_str(r#"{"metadata": {"name": "store"}, "spec": {}}"#).unwrap();
    assert_eq!(set.facts("ns").replicas, 1);
}
