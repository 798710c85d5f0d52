//! Annotations on a StatefulSet: those that the guard reads, and those without the effect that
//! their user expects.

use crate::core::config::{
    GuardMode, is_ours, misuse_on_statefulset, more_annotations, sharding_key,
};
use crate::core::gateways::Gateway;
use crate::core::model::names;
use crate::core::pod::PodView;

/// Unknown annotations that are named. A request may hold a hundred thousand, and finding the
/// nearest known key for each is expensive.
const MAX_UNKNOWN: usize = 20;

/// The StatefulSet's own mode.
pub(super) fn mode(gateway: &Gateway) -> Option<GuardMode> {
    gateway
        .facts()
        .annotations
        .get(names::GUARD)
        .and_then(|word| GuardMode::of(word))
}

/// The number of pods to plan for, if it is below the current number.
pub(super) fn target(gateway: &Gateway) -> Option<u32> {
    let target = gateway
        .facts()
        .annotations
        .get(names::TARGET_REPLICAS)?
        .parse()
        .ok()?;
    (1..gateway.facts().replicas)
        .contains(&target)
        .then_some(target)
}

pub(super) fn paused(gateway: &Gateway) -> bool {
    gateway
        .facts()
        .annotations
        .get(names::PAUSE)
        .is_some_and(|value| value == "true")
}

/// A sentence for each annotation that is wrong or in the wrong place.
pub(super) fn problems(gateway: &Gateway, pod: Option<&PodView<'_>>) -> Vec<String> {
    let refused = gateway
        .problem
        .iter()
        .flat_map(|problem| problem.lines().map(str::to_owned));
    let mut problems: Vec<String> = refused.collect();
    let (mut unknown, mut more) = (0, 0);
    for (name, value) in &gateway.facts().annotations {
        // Known keys are few.
        if !is_ours(name) && sharding_key(name).is_none() {
            unknown += 1;
            if unknown > MAX_UNKNOWN {
                more += 1;
                continue;
            }
        }
        let in_template = pod.is_none_or(|pod| pod.annotation(name).or(pod.label(name)).is_some());
        let misuse = misuse_on_statefulset(name, value, gateway.facts().replicas, in_template);
        problems.extend(misuse.map(|misuse| misuse.to_string()));
    }
    problems.extend((more > 0).then(|| more_annotations(more)));
    problems
}
