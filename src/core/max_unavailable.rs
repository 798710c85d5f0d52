//! `updateStrategy.rollingUpdate.maxUnavailable` of a StatefulSet: how many pods its controller replaces at once, and whether
//! these are all replicas of a shard.
//!
//! Replicas of a shard are a block of consecutive ordinals, and the controller goes from the highest ordinal down: with 2 it
//! takes both replicas of a shard together. Kubernetes has the field by default in some versions and drops it in others, so
//! what stands in an observed object is in force. Deliberately absent: what to do about it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fleet::StatefulSetFacts;

/// No larger StatefulSet is looked at in detail.
const MAX_PODS: u32 = 16_000;
/// Pods named in a sentence.
const NAMED: usize = 5;

/// The field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxUnavailable {
    /// So many pods.
    Pods(u32),
    /// So many percent of `spec.replicas`.
    Percent(u32),
}

/// Replicas of a shard that are replaced together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllAtOnce {
    /// The first shard of which that is so.
    pub shard: u32,
    /// Indexes of its pods, without `spec.ordinals.start`.
    pub pods: Vec<u32>,
    /// Whether it is so however a percentage is rounded: Kubernetes documents up and computes down.
    pub certain: bool,
}

impl MaxUnavailable {
    /// Reads the field as it stands in JSON; `None` without one, and for what the API server would refuse.
    #[must_use]
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(Self::Pods(u32::try_from(number.as_i64()?).ok()?)),
            Value::String(text) => Self::percent(text),
            _ => None,
        }
    }

    /// Reads a percentage such as `50%`.
    #[must_use]
    pub fn percent(text: &str) -> Option<Self> {
        text.strip_suffix('%')?.parse().ok().map(Self::Percent)
    }

    /// Reads `spec.updateStrategy` as it stands in JSON. One that replaces nothing by itself has no such value.
    #[must_use]
    pub fn of_strategy(strategy: &Value) -> Option<Self> {
        let replaces = strategy.get("type").and_then(Value::as_str) != Some("OnDelete");
        strategy
            .pointer("/rollingUpdate/maxUnavailable")
            .filter(|_| replaces)
            .and_then(Self::read)
    }

    /// The fewest and the most pods that it may mean, at least 1.
    fn range(self, replicas: u32) -> (u32, u32) {
        match self {
            Self::Pods(pods) => (pods.max(1), pods.max(1)),
            Self::Percent(percent) => {
                let hundredfold = u64::from(percent) * u64::from(replicas);
                let pods = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).max(1);
                (pods(hundredfold / 100), pods(hundredfold.div_ceil(100)))
            }
        }
    }
}

impl std::fmt::Display for MaxUnavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pods(pods) => write!(f, "{pods}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Returns the first shard of two or more replicas that a rolling update replaces together. `shard` gives the shard of the pod
/// with an index. A shard of one replica is away in every rolling update, whatever the field says.
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
    let kept = facts
        .partition
        .unwrap_or(0)
        .saturating_sub(facts.ordinals_start);
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
    /// What happens, in a sentence that names the pods.
    #[must_use]
    pub fn sentence(&self, facts: &StatefulSetFacts) -> String {
        let name = |index: &u32| {
            format!(
                "{}-{}",
                facts.name,
                facts.ordinals_start.saturating_add(*index)
            )
        };
        let named: Vec<String> = self.pods.iter().take(NAMED).map(name).collect();
        let more = self.pods.len().saturating_sub(NAMED);
        let more = if more == 0 {
            String::new()
        } else {
            format!(" and {more} more")
        };
        let value = facts
            .max_unavailable
            .map_or_else(String::new, |value| value.to_string());
        let replaces = if self.certain {
            "replaces"
        } else {
            "may replace"
        };
        format!(
            "updateStrategy.rollingUpdate.maxUnavailable is {value}: a rolling update {replaces} all replicas of shard {} at once ({}{more}), and no pod serves its window meanwhile; set it to 1",
            self.shard,
            named.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
            "shard 0 has a third pod far away"
        );
        assert_eq!(
            at_once(u32::MAX, json!(2)),
            None,
            "nobody waits for that many"
        );
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
    fn replicas_that_are_not_all_replaced_together_are_no_trouble() {
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
        assert!(
            !of(|index| index / 2, 5, 2)
                && of(|index| index / 2, 4, 2)
                && of(|index| index / 2, 3, 2)
        );
    }

    #[test]
    fn a_strategy_that_replaces_nothing_has_none() {
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
        let said = all_at_once(&facts, pairs).unwrap().sentence(&facts);
        assert_eq!(
            said,
            "updateStrategy.rollingUpdate.maxUnavailable is 2: a rolling update replaces all replicas of shard 0 at once (store-3, store-4), and no pod serves its window meanwhile; set it to 1"
        );
    }
}
