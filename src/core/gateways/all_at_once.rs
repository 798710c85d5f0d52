//! Shards whose replicas the StatefulSet controller replaces all at once.
//!
//! Replicas of a shard have consecutive ordinals, and the controller goes from the highest ordinal
//! down: with `maxUnavailable: 2` it replaces both replicas of a shard together.

use std::collections::BTreeMap;

use crate::core::kube::max_unavailable::MaxUnavailable;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::text::listed;

/// Larger StatefulSets are not examined.
const MAX_PODS: u32 = 16_000;
/// Pods named in a sentence.
const MAX_NAMED: usize = 5;

/// A shard whose replicas are all replaced together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllAtOnce {
    pub shard: u32,
    /// Indexes of its pods, without `spec.ordinals.start`.
    pub pods: Vec<u32>,
    /// Whether that does not depend on how a percentage is rounded: Kubernetes documents up and
    /// computes down.
    pub certain: bool,
}

impl std::fmt::Display for MaxUnavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pods(pods) => write!(f, "{pods}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Returns the first shard of two or more replicas that a rolling update replaces together. `shard`
/// maps a pod's index to its shard. A shard of one replica is unserved in every rolling update,
/// whatever the value.
#[must_use]
pub fn all_at_once(facts: &StatefulSetFacts, shard: impl Fn(u32) -> u32) -> Option<AllAtOnce> {
    let (fewest, most) = facts.max_unavailable?.range(facts.replicas);
    if most < 2 || facts.replicas > MAX_PODS {
        return None;
    }
    let mut shards: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for index in 0..facts.replicas {
        shards.entry(shard(index)).or_default().push(index);
    }
    // The controller compares it with a pod's position, not with its ordinal.
    let kept = facts.partition.unwrap_or(0);
    let span = |pods: &[u32]| match pods {
        [first, .., last] if *first >= kept => Some(last - first + 1),
        _ => None,
    };
    let within = |most: u32| {
        shards
            .iter()
            .find(|(_, pods)| span(pods).is_some_and(|span| span <= most))
    };
    let found = |certain| {
        move |(shard, pods): (&u32, &Vec<u32>)| AllAtOnce {
            shard: *shard,
            pods: pods.clone(),
            certain,
        }
    };
    within(fewest)
        .map(found(true))
        .or_else(|| within(most).map(found(false)))
}

impl AllAtOnce {
    /// Names the pods and the remedy.
    #[must_use]
    pub fn sentence(&self, facts: &StatefulSetFacts) -> String {
        let name = |index: &u32| {
            format!(
                "{}-{}",
                facts.name,
                facts.ordinals_start.saturating_add(*index)
            )
        };
        let pods: Vec<String> = self.pods.iter().map(name).collect();
        let value = facts
            .max_unavailable
            .map_or_else(String::new, |value| value.to_string());
        let replaces = if self.certain {
            "replaces"
        } else {
            "may replace"
        };
        format!(
            "updateStrategy.rollingUpdate.maxUnavailable is {value}: a rolling update {replaces} all replicas of shard {} at once ({}), and no pod serves its window meanwhile; set it to 1",
            self.shard,
            listed(&pods, MAX_NAMED)
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn facts(replicas: u32, value: &Value) -> StatefulSetFacts {
        let max_unavailable = MaxUnavailable::read(value);
        StatefulSetFacts {
            name: "store".to_owned(),
            replicas,
            max_unavailable,
            partition: Some(0),
            ..StatefulSetFacts::default()
        }
    }

    /// Shards of two, but for a surplus pod at the end.
    fn pairs(index: u32) -> u32 {
        if index == 6 { 0 } else { index / 2 }
    }

    #[test]
    fn both_replicas_of_a_shard_at_once() {
        let at_once = |replicas, value: Value| {
            all_at_once(&facts(replicas, &value), pairs)
                .map(|all| (all.shard, all.pods, all.certain))
        };
        assert_eq!(at_once(6, json!(1)), None);
        assert_eq!(at_once(6, json!(2)), Some((0, vec![0, 1], true)));
        assert_eq!(at_once(6, Value::Null), None);
        assert_eq!(at_once(6, json!("34%")), Some((0, vec![0, 1], true)));
        assert_eq!(
            at_once(6, json!("20%")),
            Some((0, vec![0, 1], false)),
            "1.2 pods: rounded up, or down"
        );
        assert_eq!(at_once(6, json!("16%")), None);
        assert_eq!(
            at_once(7, json!(2)),
            Some((1, vec![2, 3], true)),
            "shard 0 has a third pod with a distant ordinal"
        );
        assert_eq!(at_once(u32::MAX, json!(2)), None, "bounds the work");
        for value in [
            json!(-1),
            json!([2]),
            json!("2"),
            json!("many%"),
            json!(1.5),
        ] {
            assert_eq!(at_once(6, value.clone()), None, "{value}");
        }
    }

    #[test]
    fn a_shard_that_keeps_a_replica_is_not_reported() {
        let of = |shard: fn(u32) -> u32, partition, value| {
            all_at_once(
                &StatefulSetFacts {
                    partition: Some(partition),
                    ..facts(6, &json!(value))
                },
                shard,
            )
            .is_some()
        };
        assert!(!of(|index| index / 3, 0, 2) && of(|index| index / 3, 0, 3));
        assert!(!of(|index| index, 0, 2), "one replica each");
        let staged = StatefulSetFacts {
            ordinals_start: 10,
            partition: Some(6),
            ..facts(6, &json!(2))
        };
        assert_eq!(all_at_once(&staged, |index| index / 2), None);
        assert!(
            !of(|index| index / 2, 5, 2)
                && of(|index| index / 2, 4, 2)
                && of(|index| index / 2, 3, 2)
        );
    }

    #[test]
    fn the_strategy_on_delete_has_no_value() {
        let of = |kind: &str| {
            MaxUnavailable::of_strategy(
                &json!({"type": kind, "rollingUpdate": {"maxUnavailable": "50%"}}),
            )
        };
        assert_eq!(
            (of("RollingUpdate"), of("OnDelete")),
            (Some(MaxUnavailable::Percent(50)), None)
        );
        assert_eq!(MaxUnavailable::of_strategy(&Value::Null), None);
    }

    #[test]
    fn the_sentence_names_the_pods() {
        let facts = StatefulSetFacts {
            ordinals_start: 3,
            ..facts(6, &json!(2))
        };
        let sentence = all_at_once(&facts, pairs).unwrap().sentence(&facts);
        assert_eq!(
            sentence,
            "updateStrategy.rollingUpdate.maxUnavailable is 2: a rolling update replaces all replicas of shard 0 at once (store-3, store-4), and no pod serves its window meanwhile; set it to 1"
        );
    }
}
