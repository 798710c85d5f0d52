//! Annotations that begin with our prefix and mean nothing: nearly always a misspelled one.

use super::draft::nearest;
use super::{SHARDING_KEYS, names, sharding_key};

/// Those of ours that are no `sharding` key, wherever they stand.
const OTHERS: [&str; 12] = [
    names::NAMESPACE_LABEL,
    names::INJECT,
    names::SHARD_LABEL,
    names::STATUS_ANNOTATION,
    names::COMMAND_ANNOTATION,
    names::REPLACE_TIME_FLAGS,
    names::RELOAD_DESPITE_LIVENESS,
    names::TARGET_REPLICAS,
    names::PAUSE,
    names::GUARD,
    names::ADOPT,
    names::HURRIED,
];

/// Whether an annotation is one that this server knows, wherever it belongs.
#[must_use]
pub fn is_ours(key: &str) -> bool {
    OTHERS.contains(&key)
}

/// Annotations that are counted one by one; fewer than are kept of a request (`core::pod::MAX_OURS`).
const MAX_COUNTED: usize = 900;
/// Annotations that are named one by one; one object may hold ten thousand.
const MAX_NAMED: usize = 4;

/// A sentence for each of the first few annotations with our prefix that are none of ours, and one that counts the others.
pub fn unknown_annotations<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut unknown = keys.filter(|key| {
        key.starts_with(names::PREFIX) && !OTHERS.contains(key) && sharding_key(key).is_none()
    });
    let mut said: Vec<String> = unknown
        .by_ref()
        .take(MAX_NAMED)
        .filter_map(unknown_annotation)
        .collect();
    let more = unknown.count();
    said.extend((more > 0).then(|| more_annotations(more)));
    said
}

/// A sentence for annotations without effect that are not named.
#[must_use]
pub fn more_annotations(count: usize) -> String {
    let (annotations, have) = if count == 1 {
        ("annotation", "has")
    } else {
        ("annotations", "have")
    };
    // Of an object that has more, some were never read.
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

/// A sentence for an annotation with our prefix that is none of ours, with the nearest one that is; `None` for all others.
#[must_use]
pub fn unknown_annotation(key: &str) -> Option<String> {
    let given = key.strip_prefix(names::PREFIX)?;
    if OTHERS.contains(&key) || sharding_key(key).is_some() {
        return None;
    }
    let dashed: Vec<String> = SHARDING_KEYS
        .iter()
        .map(|key| key.replace('_', "-"))
        .collect();
    let others = OTHERS
        .iter()
        .filter_map(|key| key.strip_prefix(names::PREFIX));
    let known: Vec<&str> = dashed.iter().map(String::as_str).chain(others).collect();
    // What is said reaches Events and admission warnings, which are short.
    let shown: String = given.chars().take(64).collect();
    Some(match nearest(given, &known) {
        Some(meant) => format!(
            "annotation {}{shown} is unknown and has no effect; did you mean {}{meant}?",
            names::PREFIX,
            names::PREFIX
        ),
        None => {
            format!(
                "annotation {}{shown} is unknown and has no effect; `timeshard plan --help` lists those that have one",
                names::PREFIX
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_annotation_gets_the_nearest_name() {
        let said = |key: &str| unknown_annotation(&format!("thanos-timeshard.io/{key}"));
        assert_eq!(
            said("total-shard").unwrap(),
            "annotation thanos-timeshard.io/total-shard is unknown and has no effect; did you mean thanos-timeshard.io/total-shards?"
        );
        assert!(
            said("injct")
                .unwrap()
                .contains("did you mean thanos-timeshard.io/inject?")
        );
        assert!(
            said("target-replica")
                .unwrap()
                .contains("thanos-timeshard.io/target-replicas?")
        );
        assert!(
            said("something-else-entirely")
                .unwrap()
                .contains("timeshard plan --help")
        );
        assert!(said(&"x".repeat(10_000)).unwrap().len() < 256);
        for known in [
            "total-shards",
            "total_shards",
            "inject",
            "pause",
            "guard",
            "status",
            "hurried",
            "shard",
        ] {
            assert_eq!(said(known), None, "{known}");
        }
        assert_eq!(unknown_annotation("example.com/total-shard"), None);
    }

    #[test]
    fn of_many_annotations_a_few_are_named_and_the_others_counted() {
        let keys: Vec<String> = (0..100_000)
            .map(|i| format!("thanos-timeshard.io/x{i}"))
            .chain(["thanos-timeshard.io/pause".to_owned()])
            .collect();
        let said = unknown_annotations(keys.iter().map(String::as_str));
        assert_eq!(said.len(), MAX_NAMED + 1);
        assert_eq!(
            said[MAX_NAMED],
            "more than 900 more annotations beginning with thanos-timeshard.io/ have no effect"
        );
        assert_eq!(
            unknown_annotations(keys[..2].iter().map(String::as_str)).len(),
            2
        );
    }
}
