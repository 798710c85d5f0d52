use std::collections::BTreeMap;

use chrono::{TimeDelta, TimeZone};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::core::entry::Entry;
use crate::core::fleet::StatefulSetFacts;
use crate::core::notice::MAX_WARNING_CHARS;
use crate::core::rollout::Change;

mod bounds;
mod pods;

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
    let annotations = annotations.iter().map(|(key, value)| (format!("thanos-timeshard.io/{key}"), (*value).to_owned())).collect();
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
        (0..self.replicas).map(|index| (format!("store-{}", self.start + index), entry(index))).collect()
    }
}

/// As the webhook does it for a StatefulSet.
fn judged(config: &Config, published: Option<&Entries>, before: Option<&Made>, after: Option<&Made>) -> Verdict {
    judged_with(config, published, None, before, after)
}

fn judged_with(
    config: &Config,
    published: Option<&Entries>,
    pods: Option<&PodsSeen>,
    before: Option<&Made>,
    after: Option<&Made>,
) -> Verdict {
    let facing = Facing { config, published, pods, now: now() };
    let json = [before, after].map(|made| made.map(|made| made.json().to_string()));
    let view = |which: usize| json[which].as_ref().map(|json| serde_json::from_str::<SetView<'_>>(json).unwrap());
    let known = [before, after].map(|made| made.map(|made| made.known(config)));
    let pods = [0, 1].map(|which| view(which).map(|view| (view.template(), view.is_parallel(), view.into_first_pod())));
    let set = |which: usize| {
        let (template, parallel, pod) = pods[which].as_ref()?;
        known[which].as_ref().map(|known| Set { known, pod: Some(pod), template: *template, parallel: *parallel })
    };
    judge(set(0).as_ref(), set(1).as_ref(), &facing)
}

/// As the webhook does it for a `Scale`.
fn scaled(config: &Config, published: Option<&Entries>, before: &Made, replicas: u32) -> Verdict {
    scaled_with(config, published, None, before, replicas)
}

fn scaled_with(config: &Config, published: Option<&Entries>, pods: Option<&PodsSeen>, before: &Made, replicas: u32) -> Verdict {
    let known = before.known(config);
    let after = Known::new(config, StatefulSetFacts { replicas, ..known.facts().clone() }, Some(&known));
    let set = |known| Set { known, pod: None, template: None, parallel: false };
    judge(Some(&set(&known)), Some(&set(&after)), &Facing { config, published, pods, now: now() })
}

fn config(text: &str) -> Config {
    Config::parse(text, "test").unwrap()
}

#[test]
fn a_creation_tells_the_windows() {
    let said = |made: &Made| judged(&Config::default(), None, None, Some(made));
    assert_eq!(said(&made(6, &[])).warnings, ["6 pods: 3 shards of 2 replicas, newest -124d8h .. 1d, oldest -370d .. -246d16h"]);
    let few = said(&made(5, &[])).warnings;
    assert!(few[0].starts_with("5 pods where 6 fill the plan"), "{few:?}");
    assert_eq!(few.last().unwrap(), "5 pods: 3 shards of 2, 2, 1 replicas, newest -124d8h .. 1d, oldest -370d .. -246d16h");
    assert_eq!(said(&made(0, &[])).warnings, ["no pods: nothing is served"]);
    let one = said(&made(1, &[("total-shards", "1"), ("replicas-per-shard", "1")])).warnings;
    assert_eq!(one.last().unwrap(), "1 pod: 1 shard of 1 replica, -370d .. 1d");
    let probe = json!({"httpGet": {"path": "/-/ready", "port": 10902}});
    assert!(said(&made(6, &[]).with("livenessProbe", probe)).warnings[0].contains("liveness probe of thanos"));
    assert!(said(&made(6, &[]).with("name", json!("linkerd-proxy"))).warnings[0].contains("a service mesh (linkerd-proxy)"));
    let flags = json!(["store", "--min-time=-7d"]);
    assert_eq!(
        said(&made(6, &[]).with("args", flags)).warnings,
        [
            "thanos-timeshard leaves these pods alone: --min-time is set by hand and respected; remove it, or annotate the StatefulSet with thanos-timeshard.io/replace-time-flags: \"true\""
        ]
    );
    assert_eq!(said(&made(6, &[]).with("args", json!(["query"]))), Verdict::default(), "not a gateway");
}

#[test]
fn annotations_that_do_nothing_are_named() {
    for (key, value, words) in [
        ("total-shard", "4", "annotation thanos-timeshard.io/total-shard: this key is unknown; did you mean total-shards?"),
        ("total-shards", "many", "total_shards: \"many\" is not accepted: write a whole number"),
        ("overlap", "10m", "an overlap of 10m is below minimum_overlap"),
        ("pause", "yes", "annotation thanos-timeshard.io/pause: \"yes\" has no effect: write \"true\", or remove it"),
        ("guard", "false", "annotation thanos-timeshard.io/guard: \"false\" is not accepted: write deny, warn or off"),
        ("target-replicas", "8", "has no effect: there are 6 pods; it is for scaling down"),
        ("target-replicas", "-1", "\"-1\" is not accepted: write the number of pods to scale down to"),
        ("inject", "false", "has no effect on the StatefulSet: write it in its pod template"),
    ] {
        let said = judged(&Config::default(), None, None, Some(&made(6, &[(key, value)])));
        assert!(said.warnings[0].contains(words) && said.denial.is_none(), "{key}: {said:?}");
    }
}

#[test]
fn the_open_end_of_what_would_be_lost_is_told_in_words() {
    let config = Config::default();
    for format in ["relative", "absolute"] {
        let before = made(6, &[("boundaries", "[14d, 90d]"), ("retention", "forever"), ("window-format", format)]);
        let denial = scaled(&config, Some(&before.settled(&config)), &before, 4).denial.unwrap();
        assert!(denial.starts_with("with 4 of 6 pods, nobody would hold the beginning .. "), "{denial}");
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
    let zero = scaled(&config, Some(&published), &before, 0).denial.unwrap();
    assert!(
        zero.starts_with(
            "without pods, nobody would hold -370d .. 1d: only store-0, store-1, store-2, store-3, store-4 and 1 more do now\nif"
        ),
        "{zero}"
    );
    // The same by a change of the object itself.
    assert_eq!(judged(&config, Some(&published), Some(&before), Some(&made(0, &[]))).denial, Some(zero));
    let moved = Made { start: 3, ..made(6, &[]) };
    let moved = judged(&config, Some(&published), Some(&before), Some(&moved)).denial.unwrap();
    assert!(moved.starts_with("with spec.ordinals.start 3 instead of 0, nobody would hold -123d8h .. 1d: only"), "{moved}");

    let under_way = made(6, &[("target-replicas", "4"), ("pause", "true")]);
    let waits = scaled(&config, Some(&published), &under_way, 4).denial.unwrap();
    assert!(
        waits.contains("\nthe windows are on their way to 4 pods: it is paused by thanos-timeshard.io/pause: remove that, and wait"),
        "{waits}"
    );
}

/// Pods with these ordinals, each as it is given.
fn pods(conditions: &[(u32, PodCondition)]) -> PodsSeen {
    let conditions = conditions.iter().map(|(ordinal, condition)| (format!("store-{ordinal}"), *condition)).collect();
    PodsSeen { conditions, single_holders: None }
}

#[test]
fn the_mode_is_the_configurations_or_the_annotations() {
    let warn = config("guard: {mode: warn}");
    let published = made(6, &[]).settled(&warn);
    let warned = scaled(&warn, Some(&published), &made(6, &[]), 4);
    assert_eq!((warned.concern, &warned.denial), (Some(Concern::CoverageGap), &None));
    let refused = scaled(&Config::default(), Some(&published), &made(6, &[]), 4);
    let (against, others) = warned.warnings.split_at(4);
    assert_eq!((against.join("\n"), refused.warnings.len()), (refused.denial.unwrap(), 0), "the same words");
    assert!(others[0].starts_with("4 pods where 6 fill the plan"), "{others:?}");
    let off = config("guard: {mode: off}");
    assert_eq!(scaled(&off, Some(&published), &made(6, &[]), 4), Verdict::default());
    for (mode, denied) in [("deny", true), ("warn", false), ("off", false), ("no", false)] {
        let verdict = scaled(&warn, Some(&published), &made(6, &[("guard", mode)]), 4);
        assert_eq!(verdict.denial.is_some(), denied, "{mode}");
        assert_eq!(verdict == Verdict::default(), mode == "off");
    }
    for (text, words) in
        [("guard: {mode: allow}", "\"allow\" is not accepted: write deny, warn or off"), ("guard: {modes: off}", "did you mean mode?")]
    {
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
    assert_eq!(verdict.warnings[0], "until other pods have moved, 1 pod holds -370d .. -247d16h where the plan wants 2");
    assert!(verdict.warnings[1].ends_with("thanos-timeshard.io/target-replicas=7"), "{verdict:?}");
}

#[test]
fn the_safe_way_passes_in_silence() {
    let config = Config::default();
    let before = made(6, &[("target-replicas", "4")]);
    let settled = before.settled(&config);
    assert_eq!(scaled(&config, Some(&settled), &before, 4), Verdict::default());
    let surplus = made(8, &[]);
    assert_eq!(scaled(&config, Some(&surplus.settled(&config)), &surplus, 6), Verdict::default());
    // What is published is not all as planned: perhaps it is not served either.
    let mut halfway = settled.clone();
    halfway.insert("store-5".to_owned(), made(6, &[]).settled(&config)["store-5"]);
    let verdict = scaled(&config, Some(&halfway), &before, 4);
    assert_eq!(verdict.concern, Some(Concern::RolloutUnderWay), "store-3 may not serve what store-5 has until then");
    assert!(verdict.denial.unwrap().starts_with("the windows are on their way to 4 pods: wait until `timeshard status ns/store` says"));
    let other = scaled(&config, Some(&made(7, &[("total-shards", "2")]).settled(&config)), &made(7, &[]), 6);
    assert!(other.denial.is_none() && other.warnings[0].starts_with("a rollout is under way"), "{other:?}");
}

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
        ("args", json!(["query"]), "would come back without a window, each with the whole bucket: no container runs thanos store"),
        ("command", json!(["sh", "-c", "exec thanos store"]), "thanos store runs inside \"exec thanos store\""),
        ("image", json!("registry/monitoring:1"), "is not named thanos"),
    ] {
        let after = before.clone().with(key, value);
        let verdict = judged(&config, Some(&published), Some(&before), Some(&after));
        let denial = verdict.denial.unwrap_or_default();
        assert!(verdict.concern == Some(Concern::NotInjected) && denial.contains(words) && denial.contains("guard=off"), "{denial}");
        for unknown in [None, Some(&Entries::new())] {
            let verdict = judged(&config, unknown, Some(&before), Some(&after));
            assert!(verdict.denial.is_none() && verdict.warnings[0].contains(words), "{verdict:?}");
        }
        assert_eq!(judged(&config, Some(&published), Some(&after), Some(&after)).denial, None, "it was so before");
    }
    // An annotation that goes away ends it as well.
    let flags = json!(["store", "--min-time=-7d"]);
    let replaced = made(6, &[("replace-time-flags", "true")]).with("args", flags.clone());
    let verdict = judged(&config, Some(&published), Some(&replaced), Some(&made(6, &[]).with("args", flags)));
    assert_eq!(verdict.concern, Some(Concern::NotInjected));
}

#[test]
fn an_opt_out_is_meant() {
    let (config, before) = (Config::default(), made(6, &[]));
    let mut out = before.json();
    out["spec"]["template"]["metadata"] = json!({"labels": {"thanos-timeshard.io/inject": "false"}});
    let (before_json, out) = (before.json().to_string(), out.to_string());
    let view = |json: &'static str| serde_json::from_str::<SetView<'static>>(json).unwrap().into_first_pod();
    let (pod, out) = (view(before_json.leak()), view(out.leak()));
    let (known, published) = (before.known(&config), before.settled(&config));
    let facing = Facing { config: &config, published: Some(&published), pods: None, now: now() };
    let set = |pod| Set { known: &known, pod: Some(pod), template: None, parallel: false };
    let verdict = judge(Some(&set(&pod)), Some(&set(&out)), &facing);
    assert!(verdict.denial.is_none() && verdict.warnings[0].contains("opted out"), "{verdict:?}");
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
        let before = Made { policy, ..made(6, &[]) };
        let mut published = before.settled(&config);
        if others {
            published.get_mut("store-3").unwrap().window = Window { min: "-370d".parse().unwrap(), max: "1d".parse().unwrap() };
        }
        let after = before.clone().with("image", json!(image));
        let verdict = judged(&config, Some(&published), Some(&before), Some(&after));
        let told = verdict.warnings.iter().any(|warning| warning.contains("podManagementPolicy: Parallel has a pod replaced"));
        assert_eq!((told, &verdict.denial), (tells, &None), "{policy} {others} {image}: {verdict:?}");
    }
}

#[test]
fn a_rolling_update_that_outruns_the_queriers_is_told() {
    let config = Config::default();
    let set = |image: &str, ready: i64, strategy: &str| {
        json!({"metadata": {"name": "store"}, "spec": {"replicas": 6, "minReadySeconds": ready, "updateStrategy": {"type": strategy},
            "template": {"spec": {"containers": [{"name": "thanos", "image": image, "args": ["store"]}]}}}})
        .to_string()
    };
    for (image, ready, strategy, tells) in [
        ("thanos:v2", 0, "RollingUpdate", true),
        ("thanos:v2", 89, "RollingUpdate", true),
        ("thanos:v2", 90, "RollingUpdate", false),
        ("thanos:v2", 0, "OnDelete", false),
        ("thanos", 0, "RollingUpdate", false),
    ] {
        let texts = [set("thanos", ready, strategy), set(image, ready, strategy)];
        let views = texts.each_ref().map(|text| serde_json::from_str::<SetView<'_>>(text).unwrap());
        let known = views.each_ref().map(|view| Known::new(&config, view.facts("ns"), None));
        let templates = views.each_ref().map(SetView::template);
        let pods = views.map(SetView::into_first_pod);
        let of = |which: usize| Set { known: &known[which], pod: Some(&pods[which]), template: templates[which], parallel: false };
        let facing = Facing { config: &config, published: None, pods: None, now: now() };
        let verdict = judge(Some(&of(0)), Some(&of(1)), &facing);
        let told = verdict.warnings.iter().any(|warning| warning.contains("set spec.minReadySeconds to 90"));
        assert_eq!((told, &verdict.denial), (tells, &None), "{image} {ready} {strategy}: {verdict:?}");
    }
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
    assert_eq!(judged(&config, None, Some(&before), None), Verdict::default());
}

#[test]
fn an_update_tells_what_the_rollout_does() {
    let (config, before) = (Config::default(), made(8, &[]));
    let published = before.settled(&config);
    let to = |annotations: &[(&str, &str)]| judged(&config, Some(&published), Some(&before), Some(&made(8, annotations))).warnings;
    assert_eq!(
        to(&[("total-shards", "4")]),
        [
            "8 pods: 4 shards of 2 replicas, newest -93d12h .. 1d, oldest -370d .. -277d12h",
            "total_shards: 3 -> 4: 8 pods restart thanos in place, in 4 steps, at least 12m"
        ]
    );
    assert!(to(&[("total-shards", "4"), ("pause", "true")])[1].ends_with("; not before thanos-timeshard.io/pause is removed"));
    assert_eq!(to(&[("target-replicas", "6")]), Vec::<String>::new(), "two pods are not needed anyway");
    let target = to(&[("target-replicas", "4")]);
    assert!(target.iter().any(|line| line.starts_with("8 pods, planned for 4: 3 shards of 2, 1, 1 replicas")), "{target:?}");
    assert_eq!(to(&[("drain", "2m")]), Vec::<String>::new(), "restarts nothing");
    // Nothing changed: nothing is said again.
    assert_eq!(judged(&config, Some(&published), Some(&before), Some(&before)), Verdict::default());
    let from_zero = judged(&config, Some(&Entries::new()), Some(&made(0, &[])), Some(&made(6, &[]))).warnings;
    assert!(from_zero.len() == 1 && from_zero[0].starts_with("6 pods: 3 shards of 2 replicas"), "{from_zero:?}");
    // One replica alone.
    let single = made(3, &[("replicas-per-shard", "1")]);
    let published = single.settled(&config);
    let more = made(3, &[("replicas-per-shard", "1"), ("retention", "400d")]);
    let stops = judged(&config, Some(&published), Some(&single), Some(&more)).warnings;
    assert!(
        stops.iter().any(|line| line.starts_with("the rollout will stop at store-") && line.contains("which alone holds")),
        "{stops:?}"
    );
    let many = made(2_000, &[("total-shards", "1000")]);
    let published = many.settled(&config);
    let said = judged(&config, Some(&published), Some(&many), Some(&made(2_000, &[("total-shards", "999")]))).warnings;
    assert!(said.last().unwrap().ends_with("get other windows, a few at a time"), "{said:?}");
}

#[test]
fn a_scale_leaves_a_zero_out() {
    let scale: SetView<'_> =
        serde_json::from_str(r#"{"kind": "Scale", "metadata": {"name": "store"}, "spec": {}, "status": {"replicas": 6}}"#).unwrap();
    assert_eq!((scale.name(), scale.scale()), ("store", 0));
    let set: SetView<'_> = serde_json::from_str(r#"{"metadata": {"name": "store"}, "spec": {}}"#).unwrap();
    assert_eq!(set.facts("ns").replicas, 1);
}

#[test]
fn warnings_stay_within_the_limits() {
    let many: Vec<(String, String)> = (0..60).map(|i| (format!("thanos-timeshard.io/{}{i}", "x".repeat(200)), "y".to_owned())).collect();
    let made = Made { annotations: many.into_iter().collect(), ..made(6, &[]) };
    let warnings = judged(&Config::default(), None, None, Some(&made)).warnings;
    assert!(warnings.iter().all(|warning| warning.chars().count() <= MAX_WARNING_CHARS));
    assert!(warnings.iter().map(|warning| warning.chars().count()).sum::<usize>() <= MAX_WARNINGS_CHARS);
    assert!(warnings.last().unwrap().ends_with("more warnings") && warnings.len() > 10, "{warnings:?}");
}

/// The independent check: at every edge of every window, and just beside it, whether somebody holds the instant before and
/// nobody does after.
fn leaves_a_gap(before: &[Window], after: &[Window], retention: TimeDelta) -> bool {
    let (oldest, newest) = (now() - retention, now() + TimeDelta::days(1));
    let edges = before.iter().flat_map(|window| [window.min.at(now()), window.max.at(now())]).chain([oldest, newest]);
    let near = edges.flat_map(|edge| [edge - TimeDelta::milliseconds(1), edge, edge + TimeDelta::milliseconds(1)]);
    let held = |windows: &[Window], at| windows.iter().any(|window| window.holds(at, now()));
    near.filter(|at| (oldest..=newest).contains(at)).any(|at| held(before, at) && !held(after, at))
}

#[derive(Clone, Debug)]
struct Situation {
    before: Made,
    after: Made,
    published: Entries,
    /// By ordinal, the pods that are ready; `None` where no pod is watched.
    ready: Option<u32>,
}

fn annotated(replicas: u32, start: u32, (shards, each, days): (u32, u32, u32)) -> Made {
    let (count, each) = (shards.to_string(), each.to_string());
    // Some of them have an oldest window without an end.
    if days > 330 {
        let boundaries = format!("[{}]", (1..shards).map(|shard| format!("{}d", shard * 20)).collect::<Vec<_>>().join(", "));
        return Made { start, ..made(replicas, &[("boundaries", &boundaries), ("replicas-per-shard", &each), ("retention", "forever")]) };
    }
    Made { start, ..made(replicas, &[("total-shards", &count), ("replicas-per-shard", &each), ("retention", &format!("{days}d"))]) }
}

/// Any two numbers of pods and plans; published is what some plan wanted for some number of pods, or parts of it.
fn situations() -> impl Strategy<Value = Situation> {
    let division = || (1..6_u32, 1..4_u32, 30..400_u32);
    let starts = prop_oneof![4 => Just((0, 0)), 1 => (0..4_u32, 0..4_u32)];
    let missing = prop_oneof![2 => Just(0_u32), 1 => any::<u32>()];
    let ready = prop_oneof![1 => Just(None), 1 => Just(Some(u32::MAX)), 3 => any::<u32>().prop_map(Some)];
    (division(), division(), division(), 0..13_u32, 0..13_u32, starts, (0..13_u32, ready), missing).prop_map(
        |(one, other, of_published, from, to, starts, (planned_for, ready), missing)| {
            let published = annotated(from, starts.0, of_published);
            let target = published.clone().known(&Config::default());
            let plan = crate::core::plan::Plan::new(&target.sharding, Some(planned_for.max(1)));
            let entries = (0..from).filter(|index| missing & (1 << index) == 0).map(|index| {
                let at = plan.assign(index);
                let entry = Entry::new(at.shard, at.replica, plan.window(at.shard, now()));
                (format!("store-{}", starts.0 + index), entry)
            });
            Situation { published: entries.collect(), before: annotated(from, starts.0, one), after: annotated(to, starts.1, other), ready }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Refused if and only if it leaves a gap that was not there, among all pods or among those that are ready.
    #[test]
    fn what_is_refused_leaves_a_gap_and_nothing_else_does(situation in situations()) {
        let Situation { before, after, published, ready } = situation;
        let config = Config::default();
        let windows = |keep: &dyn Fn(u32) -> bool| -> Vec<Window> {
            let of = |pod: &str| pod.strip_prefix("store-").unwrap().parse::<u32>().unwrap();
            published.iter().filter(|(pod, _)| keep(of(pod))).map(|(_, entry)| entry.window).collect()
        };
        let stays = |ordinal| (after.start..after.start + after.replicas).contains(&ordinal);
        let retention = after.known(&config).sharding.retention().covered().to_chrono();
        let is_ready = |ordinal: u32| ready.is_none_or(|ready| ready & (1 << ordinal) != 0);
        let gap = leaves_a_gap(&windows(&|_| true), &windows(&stays), retention)
            || leaves_a_gap(&windows(&is_ready), &windows(&|ordinal| stays(ordinal) && is_ready(ordinal)), retention);
        let all = (0..32).map(|pod| (pod, if is_ready(pod) { PodCondition::Ready } else { PodCondition::NotReady }));
        let seen = ready.map(|_| pods(&all.collect::<Vec<_>>()));
        let verdict = judged_with(&config, Some(&published), seen.as_ref(), Some(&before), Some(&after));
        prop_assert_eq!(verdict.denial.is_some(), gap, "{:?}", verdict);
        prop_assert_eq!(verdict.concern, gap.then_some(Concern::CoverageGap));
        if before.start == after.start && after.replicas >= before.replicas {
            prop_assert!(!gap, "a scale-up or an annotation");
        }
        let warn = self::config("guard: {mode: warn}");
        let warned = judged_with(&warn, Some(&published), seen.as_ref(), Some(&before), Some(&after));
        prop_assert_eq!((warned.denial, warned.concern), (None, verdict.concern));
        prop_assert_eq!(judged(&config, None, Some(&before), Some(&after)).denial, None, "nothing is known");
    }

    /// From any plan to any target: once everything is published as planned for it, scaling down says nothing at all.
    #[test]
    fn scaling_down_to_the_target_is_silent(division in (1..6_u32, 1..4_u32, 30..400_u32), more in 1..8_u32, to in 1..10_u32) {
        let config = Config::default();
        let mut before = annotated(to + more, 0, division);
        before.annotations.insert(crate::core::names::TARGET_REPLICAS.to_owned(), to.to_string());
        let published = before.settled(&config);
        prop_assert_eq!(scaled(&config, Some(&published), &before, to), Verdict::default());
    }

    /// On the way to the target, step by step: while a step's pods are away, a scale-down that passes leaves no gap.
    #[test]
    fn too_early_is_refused_while_pods_are_on_their_way(division in (1..6_u32, 2..4_u32, 30..400_u32), more in 1..8_u32, to in 2..10_u32) {
        let config = Config::default();
        let mut before = annotated(to + more, 0, division);
        let mut published = before.settled(&config);
        before.annotations.insert(crate::core::names::TARGET_REPLICAS.to_owned(), to.to_string());
        let known = before.known(&config);
        let terms = Terms { required: required(&known), discovery: Discovery::Pods, allow_gap: false, now: now() };
        let facing = |published| Facing { config: &config, published: Some(published), pods: None, now: now() };
        let (steps, _) = preview(members(&known, &facing(&published)), &terms);
        for step in steps {
            let Step::Move { changes, .. } = step else { continue };
            let restart = |change: &&Change| published[&format!("store-{}", change.member)].window != change.to.window;
            let away: Vec<usize> = changes.iter().filter(restart).map(|change| change.member).collect();
            for change in &changes {
                let entry = Entry::new(change.to.shard, change.to.replica, change.to.window);
                published.insert(format!("store-{}", change.member), entry);
            }
            let verdict = scaled(&config, Some(&published), &before, to);
            if verdict.denial.is_none() {
                let stay = |pod: &u32| *pod < to && !away.contains(&(*pod as usize));
                let windows = |keep: &dyn Fn(&u32) -> bool| -> Vec<Window> {
                    (0..to + more).filter(|pod| keep(pod)).map(|pod| published[&format!("store-{pod}")].window).collect()
                };
                let gap = leaves_a_gap(&windows(&|_| true), &windows(&stay), known.sharding.retention().covered().to_chrono());
                prop_assert!(!gap, "{away:?} are away, and {published:?} was allowed");
            }
        }
    }
}
