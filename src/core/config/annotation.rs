//! Annotations with timeshard's prefix: where each has an effect and which values it takes. Any
//! other is nearly always a misspelled one.

use std::fmt;

use super::problem::nearest;
use super::{GuardMode, SHARDING_KEYS};
use crate::core::model::names;
use crate::core::model::text::{counted, truncate};

/// Where an annotation has an effect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// On a StatefulSet, if it is `"true"`.
    Switch,
    /// On a StatefulSet, if it is `"false"`.
    OptOut,
    /// On a StatefulSet, if it is a [`GuardMode`].
    GuardMode,
    /// On a StatefulSet, if it is a number of pods below today's.
    TargetReplicas,
    /// On a pod.
    Pod,
    /// On another object, or nowhere: only timeshard writes it.
    Elsewhere,
}

/// Every annotation or label but the `sharding` keys.
const OTHERS: [(&str, Effect); 13] = [
    (names::REPLACE_TIME_FLAGS, Effect::Switch),
    (names::RELOAD_DESPITE_LIVENESS, Effect::Switch),
    (names::PAUSE, Effect::Switch),
    (names::MANAGED, Effect::OptOut),
    (names::GUARD, Effect::GuardMode),
    (names::TARGET_REPLICAS, Effect::TargetReplicas),
    (names::INJECT, Effect::Pod),
    (names::COMMAND_ANNOTATION, Effect::Pod),
    (names::NAMESPACE_LABEL, Effect::Elsewhere),
    (names::SHARD_LABEL, Effect::Elsewhere),
    (names::STATUS_ANNOTATION, Effect::Elsewhere),
    (names::ADOPT, Effect::Elsewhere),
    (names::HURRIED, Effect::Elsewhere),
];
/// Annotations that are counted one by one; admission keeps more of a request
/// (`core::admission::request::MAX_RELEVANT`).
const MAX_COUNTED: usize = 900;
/// Annotations that are named one by one; an object may have ten thousand.
const MAX_NAMED: usize = 4;

/// An annotation without the effect its user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misuse {
    pub what: String,
    pub remedy: String,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

fn effect(name: &str) -> Option<Effect> {
    let known = OTHERS.iter().find(|(other, _)| *other == name);
    known.map(|(_, effect)| *effect)
}

/// Whether an annotation is known and not a `sharding` key.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    effect(name).is_some()
}

/// Returns the `sharding` key that an annotation overrides.
#[must_use]
pub fn sharding_key(annotation: &str) -> Option<&'static str> {
    let name = annotation.strip_prefix(names::PREFIX)?;
    SHARDING_KEYS.into_iter().find(|key| {
        key.len() == name.len()
            && key
                .bytes()
                .zip(name.bytes())
                .all(|(k, n)| k == n || (k == b'_' && n == b'-'))
    })
}

/// Returns what is wrong with an annotation of a StatefulSet with this many replicas. Values of
/// `sharding` keys are checked with the plan. `in_template` is true if the pod template has the
/// annotation, too.
#[must_use]
pub fn misuse_on_statefulset(
    name: &str,
    value: &str,
    replicas: u32,
    in_template: bool,
) -> Option<Misuse> {
    let shown = truncate(value, 40);
    let no_effect = |remedy: &str| {
        Some(Misuse {
            what: format!("annotation {name}: {shown:?} has no effect"),
            remedy: remedy.to_owned(),
        })
    };
    let not_here = |remedy: &str| {
        Some(Misuse {
            what: format!("annotation {name} has no effect on a StatefulSet"),
            remedy: remedy.to_owned(),
        })
    };
    match effect(name) {
        None => unknown(name),
        Some(Effect::Switch | Effect::OptOut) if ["true", "false"].contains(&value) => None,
        Some(Effect::Switch) => no_effect("write \"true\", or remove it"),
        Some(Effect::OptOut) => no_effect("write \"false\", or remove it"),
        Some(Effect::GuardMode) if GuardMode::of(value).is_some() => None,
        Some(Effect::GuardMode) => no_effect("write deny, warn or off"),
        // Anything but a number is refused with the plan.
        Some(Effect::TargetReplicas)
            if value.parse::<u32>().is_ok_and(|target| target > replicas) =>
        {
            no_effect(&format!(
                "it is for scaling down, and the StatefulSet has {}",
                counted(replicas, "pod")
            ))
        }
        Some(Effect::Pod) if !in_template => not_here("write it in the pod template"),
        Some(Effect::Elsewhere) => not_here("remove it"),
        Some(Effect::TargetReplicas | Effect::Pod) => None,
    }
}

/// Describes the first few unknown annotations with timeshard's prefix, and counts the others.
pub fn unknown_annotations<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut unknown = names.filter(|name| {
        name.starts_with(names::PREFIX) && !is_ours(name) && sharding_key(name).is_none()
    });
    let mut sentences: Vec<String> = unknown
        .by_ref()
        .take(MAX_NAMED)
        .filter_map(unknown_annotation)
        .collect();
    let more = unknown.count();
    sentences.extend((more > 0).then(|| more_annotations(more)));
    sentences
}

/// Counts annotations without effect that are not named.
#[must_use]
pub fn more_annotations(count: usize) -> String {
    let (annotations, have) = if count == 1 {
        ("annotation", "has")
    } else {
        ("annotations", "have")
    };
    // Of an object with more, some were never read.
    let (count, least) = if count > MAX_COUNTED {
        (MAX_COUNTED, "more than ")
    } else {
        (count, "")
    };
    format!(
        "{least}{count} more {annotations} beginning with {} {have} no effect",
        names::PREFIX
    )
}

/// Describes an unknown annotation with timeshard's prefix; `None` for all others.
#[must_use]
pub fn unknown_annotation(name: &str) -> Option<String> {
    if is_ours(name) {
        return None;
    }
    unknown(name).map(|misuse| misuse.to_string())
}

fn unknown(name: &str) -> Option<Misuse> {
    let given = name
        .strip_prefix(names::PREFIX)
        .filter(|_| sharding_key(name).is_none())?;
    let dashed = SHARDING_KEYS.map(|key| key.replace('_', "-"));
    let others = OTHERS
        .iter()
        .filter_map(|(name, _)| name.strip_prefix(names::PREFIX));
    let known: Vec<&str> = dashed.iter().map(String::as_str).chain(others).collect();
    // Events and admission warnings are short.
    let shown = truncate(given, 64);
    Some(Misuse {
        what: format!(
            "annotation {}{shown} is unknown and has no effect",
            names::PREFIX
        ),
        remedy: nearest(given, &known).map_or_else(
            || "`timeshard plan --help` lists the known ones".to_owned(),
            |meant| format!("did you mean {}{meant}?", names::PREFIX),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_annotation_gets_the_nearest_name() {
        let sentence = |key: &str| unknown_annotation(&format!("thanos-timeshard.io/{key}"));
        assert_eq!(
            sentence("total-shard").unwrap(),
            "annotation thanos-timeshard.io/total-shard is unknown and has no effect; did you mean thanos-timeshard.io/total-shards?"
        );
        assert!(
            sentence("injct")
                .unwrap()
                .contains("did you mean thanos-timeshard.io/inject?")
        );
        assert!(
            sentence("target-replica")
                .unwrap()
                .contains("thanos-timeshard.io/target-replicas?")
        );
        assert!(
            sentence("something-else-entirely")
                .unwrap()
                .contains("timeshard plan --help")
        );
        assert!(sentence(&"x".repeat(10_000)).unwrap().len() < 256);
        for known in [
            "total-shards",
            "total_shards",
            "inject",
            "pause",
            "managed",
            "guard",
            "status",
            "hurried",
            "shard",
        ] {
            assert_eq!(sentence(known), None, "{known}");
        }
        assert_eq!(unknown_annotation("example.com/total-shard"), None);
    }

    #[test]
    fn an_annotation_without_effect_on_a_statefulset_gets_a_remedy() {
        let wrong = |key: &str, value: &str, in_template| {
            let name = format!("thanos-timeshard.io/{key}");
            misuse_on_statefulset(&name, value, 6, in_template)
                .map(|misuse| misuse.to_string().replace(&name, key))
        };
        for (key, value, want) in [
            (
                "pause",
                "yes",
                "annotation pause: \"yes\" has no effect; write \"true\", or remove it",
            ),
            (
                "managed",
                "no",
                "annotation managed: \"no\" has no effect; write \"false\", or remove it",
            ),
            (
                "guard",
                "false",
                "annotation guard: \"false\" has no effect; write deny, warn or off",
            ),
            (
                "target-replicas",
                "8",
                "annotation target-replicas: \"8\" has no effect; it is for scaling down, and the StatefulSet has 6 pods",
            ),
            (
                "inject",
                "false",
                "annotation inject has no effect on a StatefulSet; write it in the pod template",
            ),
            (
                "adopt",
                "true",
                "annotation adopt has no effect on a StatefulSet; remove it",
            ),
            (
                "pauses",
                "true",
                "annotation pauses is unknown and has no effect; did you mean thanos-timeshard.io/pause?",
            ),
        ] {
            assert_eq!(wrong(key, value, false).as_deref(), Some(want));
        }
        for (key, value, in_template) in [
            ("pause", "false", false),
            ("managed", "false", false),
            ("guard", "warn", false),
            ("target-replicas", "4", false),
            ("target-replicas", "many", false),
            ("inject", "false", true),
            ("total-shards", "many", false),
        ] {
            assert_eq!(wrong(key, value, in_template), None, "{key}");
        }
    }

    #[test]
    fn of_many_annotations_a_few_are_named_and_the_others_counted() {
        let keys: Vec<String> = (0..100_000)
            .map(|i| format!("thanos-timeshard.io/x{i}"))
            .chain(["thanos-timeshard.io/pause".to_owned()])
            .collect();
        let sentences = unknown_annotations(keys.iter().map(String::as_str));
        assert_eq!(sentences.len(), MAX_NAMED + 1);
        assert_eq!(
            sentences[MAX_NAMED],
            "more than 900 more annotations beginning with thanos-timeshard.io/ have no effect"
        );
        assert_eq!(
            unknown_annotations(keys[..2].iter().map(String::as_str)).len(),
            2
        );
    }
}
