use std::collections::BTreeMap;

use chrono::TimeZone;
use serde_json::{Value, json};

use self::golden::assert_golden;
use super::*;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::entry::Entry;

mod bounds;
mod golden;
mod messages;
mod pods;
mod properties;
mod templates;

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap()
}

/// A StatefulSet of a request, with its first container.
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

    fn known(&self, config: &Config) -> Gateway {
        let json = self.json().to_string();
        let view: SetView<'_> = serde_json::from_str(&json).unwrap();
        Gateway::new(config, view.facts("ns"), None)
    }

    /// The entries when every pod is where the plan wants it.
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

/// Classifies a change of a StatefulSet as the webhook does.
fn judged(
    config: &Config,
    published: Option<&Entries>,
    before: Option<&Made>,
    after: Option<&Made>,
) -> GuardVerdict {
    judged_with(config, published, None, before, after)
}

fn judged_with(
    config: &Config,
    published: Option<&Entries>,
    pods: Option<&PodsSeen>,
    before: Option<&Made>,
    after: Option<&Made>,
) -> GuardVerdict {
    let json = [before, after].map(|made| made.map(Made::json));
    judged_objects(
        &GuardContext {
            config,
            published,
            pods,
            now: now(),
        },
        json[0].as_ref(),
        json[1].as_ref(),
    )
}

/// The same for objects with fields that [`Made`] lacks.
fn judged_objects(
    context: &GuardContext<'_>,
    before: Option<&Value>,
    after: Option<&Value>,
) -> GuardVerdict {
    let json = [before, after].map(|object| object.map(Value::to_string));
    let view = |which: usize| {
        json[which]
            .as_ref()
            .map(|json| serde_json::from_str::<SetView<'_>>(json).unwrap())
    };
    let known = [0, 1]
        .map(|which| view(which).map(|view| Gateway::new(context.config, view.facts("ns"), None)));
    let pods = [0, 1].map(|which| {
        view(which).map(|view| (view.template(), view.is_parallel(), view.into_first_pod()))
    });
    let set = |which: usize| {
        let (template, parallel, pod) = pods[which].as_ref()?;
        known[which].as_ref().map(|known| GuardedSet {
            gateway: known,
            pod: Some(pod),
            template: *template,
            parallel: *parallel,
        })
    };
    classify(set(0).as_ref(), set(1).as_ref(), context)
}

/// Classifies a change of a `Scale` as the webhook does.
fn scaled(
    config: &Config,
    published: Option<&Entries>,
    before: &Made,
    replicas: u32,
) -> GuardVerdict {
    scaled_with(config, published, None, before, replicas)
}

fn scaled_with(
    config: &Config,
    published: Option<&Entries>,
    pods: Option<&PodsSeen>,
    before: &Made,
    replicas: u32,
) -> GuardVerdict {
    let known = before.known(config);
    let after = Gateway::new(
        config,
        StatefulSetFacts {
            replicas,
            ..known.facts().clone()
        },
        Some(&known),
    );
    let set = |gateway| GuardedSet {
        gateway,
        pod: None,
        template: None,
        parallel: false,
    };
    classify(
        Some(&set(&known)),
        Some(&set(&after)),
        &GuardContext {
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
fn the_open_end_of_a_loss_is_named() {
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
        assert!(denial.contains("the beginning .. "), "{denial}");
    }
}

#[test]
fn a_scale_down_that_leaves_a_gap_is_denied_with_the_safe_way() {
    let (config, before) = (Config::default(), made(6, &[]));
    let published = before.settled(&config);
    let four = scaled(&config, Some(&published), &before, 4);
    let zero = scaled(&config, Some(&published), &before, 0);
    let edited = made(0, &[]);
    assert_eq!(
        judged(&config, Some(&published), Some(&before), Some(&edited)),
        zero,
        "the same by an edit of the object"
    );
    let moved = Made {
        start: 3,
        ..made(6, &[])
    };
    let moved = judged(&config, Some(&published), Some(&before), Some(&moved));
    let target = made(6, &[("target-replicas", "4")]);
    let under_way = scaled(&config, Some(&published), &target, 4);
    let paused = made(6, &[("target-replicas", "4"), ("pause", "true")]);
    let paused = scaled(&config, Some(&published), &paused, 4);
    for verdict in [&four, &zero, &moved, &under_way, &paused] {
        assert_eq!(verdict.concern, Some(Concern::CoverageGap));
        assert!(verdict.denial.is_some());
    }
    // Everything is published as needed, but not all is where the target wants it.
    let mut halfway = target.settled(&config);
    halfway.insert("store-5".to_owned(), published["store-5"]);
    let early = scaled(&config, Some(&halfway), &target, 4);
    assert_eq!(
        early.concern,
        Some(Concern::RolloutUnderWay),
        "store-3 may not serve what store-5 has until then"
    );
    let three = self::config("sharding: {replicas_per_shard: 3}");
    let nine = made(9, &[]);
    let fewer = scaled(&three, Some(&nine.settled(&three)), &nine, 7);
    assert_eq!(fewer.concern, None);
    let two_shards = made(7, &[("total-shards", "2")]).settled(&config);
    let others = scaled(&config, Some(&two_shards), &made(7, &[]), 6);
    assert_eq!(others.denial, None);
    assert_golden(
        "scale-down",
        &[
            ("a gap", &four),
            ("no pods", &zero),
            ("another first ordinal", &moved),
            ("to the target, nothing moved yet", &under_way),
            ("the same, paused", &paused),
            ("to the target, too early", &early),
            ("fewer replicas, no gap", &fewer),
            ("during another rollout", &others),
        ],
    );
}

/// Pods with these ordinals and conditions.
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
        "the same sentences"
    );
    assert!(
        others[0].starts_with("4 pods where 6 fill the plan"),
        "{others:?}"
    );
    let off = config("guard: {mode: off}");
    assert_eq!(
        scaled(&off, Some(&published), &made(6, &[]), 4),
        GuardVerdict::default()
    );
    for (mode, denied) in [
        ("deny", true),
        ("warn", false),
        ("off", false),
        ("no", false),
    ] {
        let verdict = scaled(&warn, Some(&published), &made(6, &[("guard", mode)]), 4);
        assert_eq!(verdict.denial.is_some(), denied, "{mode}");
        assert_eq!(verdict == GuardVerdict::default(), mode == "off");
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
fn the_safe_way_passes_in_silence() {
    let config = Config::default();
    let before = made(6, &[("target-replicas", "4")]);
    let settled = before.settled(&config);
    assert_eq!(
        scaled(&config, Some(&settled), &before, 4),
        GuardVerdict::default()
    );
    let surplus = made(8, &[]);
    assert_eq!(
        scaled(&config, Some(&surplus.settled(&config)), &surplus, 6),
        GuardVerdict::default()
    );
}

#[test]
fn a_deletion_is_a_warning() {
    let (config, before) = (Config::default(), made(6, &[]));
    let verdict = judged(&config, Some(&before.settled(&config)), Some(&before), None);
    assert!(verdict.denial.is_none() && verdict.concern.is_none());
    assert_golden("deletion", &[("six pods", &verdict)]);
    assert_eq!(
        judged(&config, None, Some(&before), None),
        GuardVerdict::default()
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

#[test]
fn an_opted_out_statefulset_is_its_users() {
    let config = Config::default();
    let (managed, free) = (made(6, &[]), made(6, &[("managed", "false")]));
    let published = managed.settled(&config);
    let judge = |before, after| judged(&config, Some(&published), before, after);
    let verdict = judge(Some(&managed), Some(&free));
    assert_golden("opt-out", &[("the opt-out", &verdict)]);
    let fewer = made(1, &[("managed", "false")]);
    for (before, after) in [
        (Some(&free), Some(&fewer)),
        (Some(&free), None),
        (None, Some(&free)),
    ] {
        assert_eq!(judge(before, after), GuardVerdict::default());
    }
    assert_eq!(
        scaled(&config, Some(&published), &free, 0),
        GuardVerdict::default()
    );
    // Misspelled, it has no effect.
    let verdict = judge(Some(&managed), Some(&made(1, &[("managed", "no")])));
    assert!(verdict.denial.is_some());
}
