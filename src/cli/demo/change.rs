//! Which change the demo makes, as a user would ask for it: one shard more where there is room, else other windows.

use super::admission::Admission;
use crate::core::config::Sharding;
use crate::core::duration::PromDuration;
use crate::core::fleet::{Fleet, StatefulSetFacts};
use crate::core::names;
use crate::core::plan::Plan;

/// Pods that run at most; more would only be more of the same.
pub(super) const MOST_PODS: u32 = 8;
/// Nobody queries the demo's pods, so they need not wait the injected minute for queriers to let go of a pod ...
pub(super) const DRAIN: PromDuration = PromDuration::from_secs(2);
/// ... nor another one for queriers to find it again.
pub(super) const DISCOVERY_DELAY: PromDuration = PromDuration::from_secs(1);
/// How much longer data is kept after the change of windows.
const MORE_RETENTION: PromDuration = PromDuration::from_days(30);

/// What is changed about the StatefulSet.
pub(super) struct Change {
    /// To this many pods it is scaled first.
    pub(super) replicas: u32,
    /// Then it is annotated with these.
    pub(super) annotations: Vec<(String, String)>,
    /// The StatefulSet after both.
    pub(super) facts: StatefulSetFacts,
    /// What is planned then.
    pub(super) plan: Plan,
    /// What holds then.
    pub(super) sharding: Sharding,
}

/// The annotations that make a change take seconds, not minutes.
pub(super) fn quick() -> Vec<(String, String)> {
    vec![
        annotation("drain", &DRAIN),
        annotation("discovery-delay", &DISCOVERY_DELAY),
    ]
}

fn annotation(key: &str, value: &dyn ToString) -> (String, String) {
    (format!("{}{key}", names::PREFIX), value.to_string())
}

impl Change {
    /// What becomes of these annotations and this many pods; `None` where the configuration does not accept that.
    fn new(
        fleet: &Fleet,
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

    /// The change at the end of the demo.
    pub(super) fn of(admission: &Admission) -> Option<Self> {
        let fleet = admission.observed.fleet.load();
        let now = fleet.known(&admission.facts.namespace, &admission.facts.name);
        let (facts, count) = (now.facts(), now.plan.shards().len());
        more_shards(&fleet, facts, &now.sharding, count)
            .or_else(|| other_windows(&fleet, facts, &now.sharding, count))
    }

    /// The same StatefulSet with as many pods as run here, if it has more.
    pub(super) fn smaller(admission: &Admission) -> Option<Self> {
        let (fleet, facts) = (admission.observed.fleet.load(), &admission.facts);
        if facts.replicas <= MOST_PODS {
            return None;
        }
        let sharding = &fleet.known(&facts.namespace, &facts.name).sharding;
        let replicas = sharding.replicas_of(0).min(MOST_PODS / 2);
        // One shard more has room, too.
        let count = (MOST_PODS / replicas).saturating_sub(1).max(1);
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
        found.or_else(|| Self::new(&fleet, facts, MOST_PODS, Vec::new()))
    }

    /// The commands that ask for it, scaling first.
    pub(super) fn commands(&self, before: u32) -> Vec<String> {
        let name = &self.facts.name;
        let scale = (before != self.replicas).then(|| {
            format!(
                "kubectl scale statefulset {name} --replicas={}",
                self.replicas
            )
        });
        let words: String = self
            .annotations
            .iter()
            .map(|(key, value)| format!(" {}", quoted(&format!("{key}={value}"))))
            .collect();
        let annotate = (!words.is_empty())
            .then(|| format!("kubectl annotate --overwrite statefulset {name}{words}"));
        scale.into_iter().chain(annotate).collect()
    }
}

/// For a shell, where it needs it.
fn quoted(word: &str) -> String {
    if word.contains(['[', ' ']) {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}

/// One shard more, with the pods for it.
fn more_shards(
    fleet: &Fleet,
    facts: &StatefulSetFacts,
    sharding: &Sharding,
    count: usize,
) -> Option<Change> {
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
        (replicas <= MOST_PODS).then(|| Change::new(fleet, facts, replicas, annotations))??;
    (change.plan.shards().len() == count + 1).then_some(change)
}

/// Unequal windows with a longer retention, for the same pods; whichever of several divisions the configuration accepts.
fn other_windows(
    fleet: &Fleet,
    facts: &StatefulSetFacts,
    sharding: &Sharding,
    count: usize,
) -> Option<Change> {
    // Windows without an end cannot grow at that end: their boundaries move.
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
        let change = Change::new(fleet, facts, facts.replicas, annotations)?;
        (change.plan.shards().len() == count).then_some(change)
    })
}

/// Ages at which windows meet, in whole days, each window longer than the newer one.
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
        // The same thing under its other name would be refused.
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
