//! Chooses the change that the demo makes: one more shard where there is room, otherwise other
//! windows.

use super::admission::Admission;
use crate::core::config::Sharding;
use crate::core::gateways::Gateways;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::duration::PromDuration;
use crate::core::model::names;
use crate::core::plan::Plan;

pub(super) const MAX_PODS: u32 = 8;
/// No one queries the demo's pods, so they need not wait as long for queriers to drop a pod
/// ([`DRAIN`]) or to discover it again ([`DISCOVERY_DELAY`]).
pub(super) const DRAIN: PromDuration = PromDuration::from_secs(1);
pub(super) const DISCOVERY_DELAY: PromDuration = PromDuration::from_secs(1);
/// Added to the retention by a change of windows.
const MORE_RETENTION: PromDuration = PromDuration::from_days(30);

/// A change of the StatefulSet: scaled first, then annotated.
pub(super) struct SpecChange {
    pub(super) replicas: u32,
    pub(super) annotations: Vec<(String, String)>,
    /// The StatefulSet after both.
    pub(super) facts: StatefulSetFacts,
    pub(super) plan: Plan,
    pub(super) sharding: Sharding,
}

/// Annotations with which a change takes seconds, not minutes.
pub(super) fn quick() -> Vec<(String, String)> {
    vec![
        annotation("drain", &DRAIN),
        annotation("discovery-delay", &DISCOVERY_DELAY),
    ]
}

fn annotation(key: &str, value: &dyn ToString) -> (String, String) {
    (format!("{}{key}", names::PREFIX), value.to_string())
}

impl SpecChange {
    /// Returns `None` if the configuration rejects these annotations and replicas.
    fn new(
        fleet: &Gateways,
        before: &StatefulSetFacts,
        replicas: u32,
        annotations: Vec<(String, String)>,
    ) -> Option<Self> {
        let facts = StatefulSetFacts {
            replicas,
            ..annotated(before, &annotations)
        };
        let next = fleet.with_statefulset(facts.clone())?;
        let known = next.known(&facts.namespace, &facts.name);
        let (plan, sharding) = (known.plan.clone(), known.sharding.clone());
        known.problem.is_none().then_some(Self {
            replicas,
            annotations,
            facts,
            plan,
            sharding,
        })
    }

    pub(super) fn of(admission: &Admission) -> Option<Self> {
        let fleet = admission.observed.fleet.load();
        let now = fleet.known(&admission.facts.namespace, &admission.facts.name);
        let (facts, count) = (now.facts(), now.plan.shards().len());
        more_shards(&fleet, facts, &now.sharding, count)
            .or_else(|| other_windows(&fleet, facts, &now.sharding, count))
    }

    /// Reduces a StatefulSet of more than [`MAX_PODS`] pods.
    pub(super) fn smaller(admission: &Admission) -> Option<Self> {
        let (fleet, facts) = (admission.observed.fleet.load(), &admission.facts);
        if facts.replicas <= MAX_PODS {
            return None;
        }
        let sharding = &fleet.known(&facts.namespace, &facts.name).sharding;
        let replicas = sharding.replicas_of(0).min(MAX_PODS / 2);
        // Leaves room for one more shard.
        let count = (MAX_PODS / replicas).saturating_sub(1).max(1);
        let shards = || annotation("total-shards", &count);
        let fewer = sharding
            .boundaries()
            .iter()
            .take(count as usize - 1)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let boundaries = annotation("boundaries", &format!("[{fewer}]"));
        let each = || annotation("replicas-per-shard", &replicas);
        let ways = [
            vec![shards()],
            vec![shards(), each()],
            vec![boundaries, each()],
            Vec::new(),
        ];
        let fits = |change: &Self| {
            change.plan.notes().is_empty() && change.plan.shards().len() == count as usize
        };
        let found = ways
            .into_iter()
            .filter_map(|way| Self::new(&fleet, facts, count * replicas, way))
            .find(fits);
        found.or_else(|| Self::new(&fleet, facts, MAX_PODS, Vec::new()))
    }

    /// The kubectl commands that make this change.
    pub(super) fn commands(&self, before: u32) -> Vec<String> {
        let name = &self.facts.name;
        let scale = (before != self.replicas).then(|| {
            format!(
                "kubectl scale statefulset {name} --replicas={}",
                self.replicas
            )
        });
        let pairs: String = self
            .annotations
            .iter()
            .map(|(key, value)| format!(" {}", quoted(&format!("{key}={value}"))))
            .collect();
        let annotate = (!pairs.is_empty())
            .then(|| format!("kubectl annotate --overwrite statefulset {name}{pairs}"));
        scale.into_iter().chain(annotate).collect()
    }
}

/// Quotes for a shell where necessary.
fn quoted(arg: &str) -> String {
    if arg.contains(['[', ' ']) {
        format!("'{arg}'")
    } else {
        arg.to_owned()
    }
}

/// One more shard, with the pods for it.
fn more_shards(
    fleet: &Gateways,
    facts: &StatefulSetFacts,
    sharding: &Sharding,
    count: usize,
) -> Option<SpecChange> {
    let auto = sharding.total_shards().is_none();
    let annotations = if auto {
        Vec::new()
    } else {
        vec![annotation("total-shards", &(count + 1))]
    };
    let wanted: u32 = (0..=u32::try_from(count).ok()?)
        .map(|shard| sharding.replicas_of(shard))
        .sum();
    let replicas = facts.replicas.max(wanted);
    let change =
        (replicas <= MAX_PODS).then(|| SpecChange::new(fleet, facts, replicas, annotations))??;
    (change.plan.shards().len() == count + 1).then_some(change)
}

/// Unequal windows and a longer retention for the same pods: the first of several divisions that
/// the configuration accepts.
fn other_windows(
    fleet: &Gateways,
    facts: &StatefulSetFacts,
    sharding: &Sharding,
    count: usize,
) -> Option<SpecChange> {
    // With retention: forever, only the boundaries can move.
    let retention = sharding.retention().limit().map(|age| age + MORE_RETENTION);
    let oldest = retention
        .or(sharding.boundaries().last().map(|age| *age + *age))
        .unwrap_or(MORE_RETENTION);
    let divisions = [
        growing(oldest, count, 3),
        growing(oldest, count, 2),
        Vec::new(),
    ];
    divisions.into_iter().find_map(|boundaries| {
        let mut annotations: Vec<_> = retention
            .iter()
            .map(|age| annotation("retention", age))
            .collect();
        if !boundaries.is_empty() {
            let ages = boundaries
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            annotations.insert(0, annotation("boundaries", &format!("[{ages}]")));
        }
        let change = SpecChange::new(fleet, facts, facts.replicas, annotations)?;
        (change.plan.shards().len() == count).then_some(change)
    })
}

/// Boundaries in whole days; each window is longer than the next newer one.
fn growing(retention: PromDuration, shards: usize, power: u32) -> Vec<PromDuration> {
    let days = i128::from(retention.as_secs() / 86_400);
    let count = i128::try_from(shards).unwrap_or(1).max(1);
    let age = |i: i128| {
        i64::try_from(days * i.pow(power) / count.pow(power))
            .ok()
            .map(PromDuration::from_days)
    };
    (1..count).filter_map(age).collect()
}

fn annotated(facts: &StatefulSetFacts, annotations: &[(String, String)]) -> StatefulSetFacts {
    let mut facts = facts.clone();
    for (key, value) in annotations {
        // Two keys for the same setting would be rejected.
        let other = match key.strip_prefix(names::PREFIX) {
            Some("retention") => "data-retention-days",
            Some("replicas-per-shard") => "replicas",
            Some("boundaries") => "total-shards",
            _ => "",
        };
        facts
            .annotations
            .remove(&format!("{}{other}", names::PREFIX));
        facts.annotations.insert(key.clone(), value.clone());
    }
    facts
}
