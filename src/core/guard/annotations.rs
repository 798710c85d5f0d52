//! Annotations on a StatefulSet: what the guard reads of them, and which of them do not mean what their user thinks.

use crate::core::config::{
    GuardMode, SHARDING_KEYS, is_ours, more_annotations, sharding_key, unknown_key,
};
use crate::core::fleet::Known;
use crate::core::names;
use crate::core::pod::PodView;
use crate::core::text::counted;

/// Annotations that are `"true"` or nothing.
const SWITCHES: [&str; 3] = [
    names::REPLACE_TIME_FLAGS,
    names::RELOAD_DESPITE_LIVENESS,
    names::PAUSE,
];
/// Annotations that belong on the pod template.
const OF_PODS: [&str; 2] = [names::INJECT, names::COMMAND_ANNOTATION];
/// Longest value that is repeated. Characters.
const LONGEST: usize = 40;
/// Unknown annotations that are named; a request may hold a hundred thousand, and what each was meant to be is much work.
const MAX_UNKNOWN: usize = 20;

/// The guard's mode for this StatefulSet, if it says one.
pub(super) fn mode(known: &Known) -> Option<GuardMode> {
    known
        .facts()
        .annotations
        .get(names::GUARD)
        .and_then(|word| GuardMode::of(word))
}

/// The number of pods that is planned for, if it is below the number that there are.
pub(super) fn target(known: &Known) -> Option<u32> {
    let target = known
        .facts()
        .annotations
        .get(names::TARGET_REPLICAS)?
        .parse()
        .ok()?;
    (1..known.facts().replicas)
        .contains(&target)
        .then_some(target)
}

/// Whether the rollout stands still.
pub(super) fn paused(known: &Known) -> bool {
    known
        .facts()
        .annotations
        .get(names::PAUSE)
        .is_some_and(|value| value == "true")
}

/// A sentence for each that is wrong or in the wrong place.
pub(super) fn problems(known: &Known, pod: Option<&PodView<'_>>) -> Vec<String> {
    let refused = known
        .problem
        .iter()
        .flat_map(|problem| problem.lines().map(str::to_owned));
    let mut problems: Vec<String> = refused.collect();
    let (mut unknown, mut more) = (0, 0);
    for (name, value) in &known.facts().annotations {
        // Those of ours are few.
        if !is_ours(name) && sharding_key(name).is_none() {
            unknown += 1;
            if unknown > MAX_UNKNOWN {
                more += 1;
                continue;
            }
        }
        problems.extend(problem(known, pod, name, value));
    }
    problems.extend((more > 0).then(|| more_annotations(more)));
    problems
}

fn problem(known: &Known, pod: Option<&PodView<'_>>, name: &str, value: &str) -> Option<String> {
    let key = name.strip_prefix(names::PREFIX)?;
    let shown: String = value.chars().take(LONGEST).collect();
    if sharding_key(name).is_some() {
        return None;
    }
    if SWITCHES.contains(&name) {
        let means = ["true", "false"].contains(&value);
        return (!means).then(|| {
            format!("annotation {name}: {shown:?} has no effect: write \"true\", or remove it")
        });
    }
    match name {
        names::GUARD => {
            let means = GuardMode::of(value).is_some();
            (!means).then(|| {
                format!("annotation {name}: {shown:?} is not accepted: write deny, warn or off")
            })
        }
        names::TARGET_REPLICAS => {
            // What is no number has been refused with the plan.
            let beyond = value
                .parse::<u32>()
                .is_ok_and(|target| target > known.facts().replicas);
            beyond.then(|| {
                let are = if known.facts().replicas == 1 { "is" } else { "are" };
                format!(
                    "annotation {name}: {shown:?} has no effect: there {are} {}; it is for scaling down",
                    counted(known.facts().replicas, "pod")
                )
            })
        }
        name if OF_PODS.contains(&name) => {
            let there = pod.is_none_or(|pod| pod.annotation(name).or(pod.label(name)).is_some());
            (!there).then(|| format!("annotation {name} has no effect on the StatefulSet: write it in its pod template"))
        }
        _ => {
            let dashed: Vec<String> = SHARDING_KEYS
                .iter()
                .map(|key| key.replace('_', "-"))
                .collect();
            let ours = SWITCHES
                .iter()
                .chain([&names::GUARD, &names::TARGET_REPLICAS])
                .filter_map(|name| name.strip_prefix(names::PREFIX));
            let known: Vec<&str> = dashed.iter().map(String::as_str).chain(ours).collect();
            Some(format!("annotation {name}: {}", unknown_key(key, &known)))
        }
    }
}
