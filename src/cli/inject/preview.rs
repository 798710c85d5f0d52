//! What `timeshard inject` prints for people: the pods with their windows, and what admission
//! changes in them, as a unified diff.
//!
//! Invariant: no part of it is a manifest, so that `kubectl apply` refuses it as a whole.

use std::collections::HashSet;

use serde_json::Value;

use super::{Admitted, yaml};
use crate::cli::Failure;
use crate::cli::timeline::plain_table;
use crate::core::model::text::counted;

/// Unchanged lines around a change.
const CONTEXT_LINES: usize = 3;
/// Pods in the table; `-o json` has all.
const MAX_PODS: usize = 200;
/// Pairs of lines that are compared; a pod that differs in more is shown as removed and added.
const MAX_PAIRS: usize = 16 * 1024 * 1024;

/// Describes the pods; with `every`, shows the changes of each of them, and otherwise of the first
/// of each StatefulSet.
pub(super) fn text(admitted: &[Admitted], every: bool) -> Result<String, Failure> {
    if admitted.is_empty() {
        return Ok("No pod would be changed by admission.\n".to_owned());
    }
    let pods = u64::try_from(admitted.len()).unwrap_or(u64::MAX);
    let mut text = format!(
        "Preview of {}: admission makes these changes when pods are created. Not a manifest; -o yaml prints the pods.\n\n{}",
        counted(pods, "pod"),
        table(admitted, every)
    );
    let mut shown = HashSet::new();
    for pod in admitted {
        if (shown.insert(set_of(pod)) || every) && !pod.patch.is_empty() {
            let (before, after) = (yaml(&pod.original)?, yaml(&pod.pod)?);
            text += &format!(
                "\n--- {}, as created\n+++ {}, after admission\n{}",
                pod.name,
                pod.name,
                diff(&before, &after)
            );
        }
    }
    Ok(text)
}

/// Namespace and owner, or the pod itself.
fn set_of(pod: &Admitted) -> (String, String) {
    let text = |pointer: &str| pod.pod.pointer(pointer).and_then(Value::as_str);
    let owner = text("/metadata/ownerReferences/0/name").unwrap_or(&pod.name);
    let namespace = text("/metadata/namespace").unwrap_or_default();
    (namespace.to_owned(), owner.to_owned())
}

fn table(admitted: &[Admitted], every: bool) -> String {
    let mut table = plain_table(&["POD", "SHARD", "MIN TIME", "MAX TIME", "CHANGES"]);
    let limit = if every { usize::MAX } else { MAX_PODS };
    for pod in admitted.iter().take(limit) {
        let changes = match pod.patch.len() {
            0 => "none, already injected".to_owned(),
            count => counted(u64::try_from(count).unwrap_or(u64::MAX), "operation"),
        };
        table.add_row([
            pod.name.clone(),
            pod.status_text("shard"),
            pod.status_text("min_time"),
            pod.status_text("max_time"),
            changes,
        ]);
    }
    let more = admitted.len().saturating_sub(limit);
    let more = if more > 0 {
        format!("… and {more} more pods; -o wide and -o json have them all\n")
    } else {
        String::new()
    };
    format!("{table}\n{more}")
}

/// A line of a diff.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DiffLine<'a> {
    Same(&'a str),
    Removed(&'a str),
    Added(&'a str),
}

/// Returns the changed lines with some context.
fn diff(before: &str, after: &str) -> String {
    let (before, after): (Vec<&str>, Vec<&str>) =
        (before.lines().collect(), after.lines().collect());
    let lines = compared(&before, &after);
    let changed: Vec<usize> = (0..lines.len())
        .filter(|i| !matches!(lines[*i], DiffLine::Same(_)))
        .collect();
    let near = |i: usize| {
        let next = changed.partition_point(|at| *at < i);
        let close = |at: Option<&usize>| at.is_some_and(|at| at.abs_diff(i) <= CONTEXT_LINES);
        close(changed.get(next)) || close(next.checked_sub(1).and_then(|last| changed.get(last)))
    };
    let mut text = String::new();
    let (mut old, mut new, mut open) = (1, 1, false);
    for (i, line) in lines.iter().enumerate() {
        let shown = near(i);
        if shown && !open {
            text += &format!("@@ -{old} +{new} @@\n");
        }
        open = shown;
        let (sign, content) = match line {
            DiffLine::Same(line) => (' ', line),
            DiffLine::Removed(line) => ('-', line),
            DiffLine::Added(line) => ('+', line),
        };
        if shown {
            text += &format!("{sign}{content}\n");
        }
        old += usize::from(sign != '+');
        new += usize::from(sign != '-');
    }
    text
}

/// Compares by the longest common subsequence between the common beginning and end.
fn compared<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<DiffLine<'a>> {
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let head = before.iter().zip(after).take_while(same).count();
    let (old, new) = (&before[head..], &after[head..]);
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(same)
        .count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let mut lines: Vec<DiffLine<'a>> = before[..head]
        .iter()
        .map(|line| DiffLine::Same(line))
        .collect();
    if old.len().saturating_mul(new.len()) > MAX_PAIRS {
        lines.extend(old.iter().map(|line| DiffLine::Removed(line)));
        lines.extend(new.iter().map(|line| DiffLine::Added(line)));
    } else {
        lines.extend(middle(old, new));
    }
    let end = &before[before.len() - tail..];
    lines.extend(end.iter().map(|line| DiffLine::Same(line)));
    lines
}

fn middle<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<DiffLine<'a>> {
    // common[i][j]: the longest common subsequence of old[i..] and new[j..].
    let width = new.len() + 1;
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(DiffLine::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len()
            || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            lines.push(DiffLine::Removed(old[i]));
            i += 1;
        } else {
            lines.push(DiffLine::Added(new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changes_are_shown_with_context() {
        let before = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";
        let after = "a\nb\nc\nd\nX\ne\nf\ng\nh\ni\nJ\n";
        assert_eq!(
            diff(before, after),
            "@@ -2 +2 @@\n b\n c\n d\n+X\n e\n f\n g\n h\n i\n-j\n+J\n"
        );
        assert_eq!(diff(before, before), "");
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_back(
            before in prop::collection::vec("[abc]", 0..20),
            after in prop::collection::vec("[abc]", 0..20),
        ) {
            let old: Vec<&str> = before.iter().map(String::as_str).collect();
            let new: Vec<&str> = after.iter().map(String::as_str).collect();
            let lines = compared(&old, &new);
            let side = |added: bool| -> Vec<&str> {
                lines.iter().filter_map(|line| match line {
                    DiffLine::Same(line) => Some(*line),
                    DiffLine::Removed(line) => (!added).then_some(*line),
                    DiffLine::Added(line) => added.then_some(*line),
                }).collect()
            };
            prop_assert_eq!(side(false), old);
            prop_assert_eq!(side(true), new);
        }
    }
}
