//! An independent check of a rollout, from the documents alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What `retention: forever` is checked for: a hundred years.
const FOREVER_SECONDS: i64 = 100 * 365 * 86_400;

/// Seconds after now of a bound such as `-124d8h`: read here once more, so that the program's own
/// reader is not trusted.
fn seconds(bound: &Value) -> i64 {
    let text = bound.as_str().unwrap();
    if text == "0000-01-01T00:00:00Z" {
        return -2 * FOREVER_SECONDS;
    }
    let digits = text.trim_start_matches('-');
    let (mut total, mut number) = (0, 0);
    for c in digits.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = number * 10 + i64::from(digit);
        } else {
            total += number
                * [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)]
                    .iter()
                    .find(|(unit, _)| *unit == c)
                    .unwrap()
                    .1;
            number = 0;
        }
    }
    if text.starts_with('-') { -total } else { total }
}

type Windows = BTreeMap<String, (i64, i64)>;

fn window(pod: &Value) -> (String, (i64, i64)) {
    (
        pod["pod"].as_str().unwrap().to_owned(),
        (seconds(&pod["min_time"]), seconds(&pod["max_time"])),
    )
}

fn windows(plan: &Value) -> Windows {
    plan["pods"]
        .as_array()
        .unwrap()
        .iter()
        .map(window)
        .collect()
}

/// Instants that a pod which does not change must serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Those that any pod served before the step.
    HeldBeforeTheStep,
    /// Those that any pod served before the rollout. Behind a shard Service an instant that only
    /// some members have is not served yet, so a longer retention is complete only after the
    /// rollout.
    HeldBeforeTheRollout,
}

/// Checks that during each step a pod that does not change serves every instant that must be kept,
/// that no pod changes more than twice, and that the steps end at the new plan.
pub(super) fn check(
    old: &Value,
    new: &Value,
    rollout: &Value,
    buffer: i64,
    kept: Kept,
) -> Result<(), String> {
    let (begin, wanted) = (windows(old), windows(new));
    let mut at = begin.clone();
    let (from, to) = (
        -new["retention_seconds"].as_i64().unwrap_or(FOREVER_SECONDS),
        buffer,
    );
    let mut changes: BTreeMap<String, u32> = BTreeMap::new();
    for (number, step) in (1..).zip(rollout["steps"].as_array().unwrap()) {
        let moves: Windows = step["pods"]
            .as_array()
            .unwrap()
            .iter()
            .map(window)
            .collect();
        if moves.is_empty() {
            return Err(format!("step {number} is empty"));
        }
        // In the middle between two neighbouring edges, so that nothing depends on which side an edge
        // belongs to.
        let edges: BTreeSet<i64> = at
            .values()
            .chain(begin.values())
            .flat_map(|(min, max)| [2 * min, 2 * max])
            .chain([2 * from, 2 * to])
            .collect();
        let edges: Vec<i64> = edges
            .into_iter()
            .filter(|edge| (2 * from..=2 * to).contains(edge))
            .collect();
        for middle in edges.windows(2).map(|pair| i64::midpoint(pair[0], pair[1])) {
            let holds =
                |(_, (min, max)): &(&String, &(i64, i64))| 2 * min <= middle && middle <= 2 * max;
            let before = if kept == Kept::HeldBeforeTheStep {
                &at
            } else {
                &begin
            };
            let held = before.iter().any(|pod| holds(&pod));
            if held
                && !at
                    .iter()
                    .any(|pod| holds(&pod) && !moves.contains_key(pod.0))
            {
                return Err(format!(
                    "step {number}: no pod stays for {} s before now",
                    -middle / 2
                ));
            }
        }
        for (pod, window) in moves {
            let before = at
                .insert(pod.clone(), window)
                .ok_or(format!("{pod} is not a pod"))?;
            if before == window {
                return Err(format!("step {number} changes nothing of {pod}"));
            }
            let count = changes.entry(pod.clone()).or_default();
            *count += 1;
            if *count > 2 {
                return Err(format!("{pod} changes for the third time in step {number}"));
            }
        }
    }
    if at == wanted {
        Ok(())
    } else {
        Err(format!("ends at {at:?}, not at {wanted:?}"))
    }
}
