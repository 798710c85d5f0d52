//! What is seen of one StatefulSet at one look, and what is remembered from look to look.
//!
//! What is remembered makes looks cheaper and answers quieter, and tells our own writes from other people's; the next leader
//! begins with nothing, and goes on all the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::turn::Turn;
use crate::adapters::clock;
use crate::core::entry;
use crate::core::observed::{Answer, MapFacts, NamespaceFacts, PodFacts};
use crate::core::reconcile::{PodView, drifts};
use crate::core::report::State;

/// So long a write of ours stands in for what the watch shows.
pub(super) const STAND_IN: Duration = Duration::from_secs(10);

/// What is remembered of a StatefulSet during a tenure.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The ConfigMap as this leader found it, or wrote it last. `None` after a write of which nobody knows whether it took
    /// place: what stands there then is taken as it is, until the next write.
    pub(super) written: Option<MapFacts>,
    /// Keys of the entries that this leader gave their content.
    pub(super) own: BTreeSet<String>,
    /// What it may still do before others have their turn.
    pub(super) turn: Turn,
    /// The version that the last write replaced, and when: the watch still shows it for a moment.
    pub(super) replaced: Option<(String, Instant)>,
    /// Whether this leader has looked at it before.
    pub(super) looked: bool,
    /// Looks that failed in a row.
    pub(super) failures: u32,
    /// When kubelet was told to bring a pod its entry, or could have begun to.
    pub(super) hurried: HashMap<String, Instant>,
    pub(super) labelled: HashMap<String, (Option<String>, Instant)>,
    /// Since when a pod has drifted, by UID.
    pub(super) drifting: HashMap<String, Instant>,
    /// Since when a block has been missing on some pod, by ULID.
    pub(super) missing: HashMap<String, Instant>,
    /// What its user was told and still holds.
    pub(super) told: BTreeMap<(&'static str, String), String>,
    /// What holds by this look.
    pub(super) holds: BTreeMap<(&'static str, String), String>,
    /// Why its ConfigMap cannot be written.
    pub(super) refused: Option<String>,
    /// Which other write did not succeed in this look.
    pub(super) hindered: Option<String>,
    pub(super) state: Option<(State, String)>,
}

/// What was seen of one StatefulSet, copied so that no lock is held.
pub(super) struct Gathered {
    /// By UID, with when they were given.
    pub(super) answers: HashMap<String, (Answer, Instant)>,
    /// What its ConfigMap is called, whether there is one or not.
    pub(super) configmap: String,
    pub(super) map: Option<MapFacts>,
    /// Its own pods; budgets and Services of the whole namespace.
    pub(super) facts: NamespaceFacts,
}

impl Gathered {
    /// Whether its user has taken every pod out of our hands.
    pub(super) fn is_released(&self) -> bool {
        let pods = &self.facts.pods;
        !pods.is_empty()
            && pods
                .values()
                .all(|pod| !pod.injected && (pod.opted_out || pod.by_hand || !pod.store))
    }

    /// Whether there is a pod whose sidecar can be asked and was not yet; its first answer is news.
    pub(super) fn unasked(&self) -> bool {
        self.facts
            .pods
            .values()
            .filter(|pod| pod.can_be_asked())
            .any(|pod| !self.answers.contains_key(&pod.uid))
    }
}

impl Memory {
    /// How long ago kubelet was told to bring a pod its entry, or could have begun to.
    pub(super) fn hurried_ago(&self, uid: &str, now: Instant) -> Option<Duration> {
        self.hurried
            .get(uid)
            .map(|at| now.saturating_duration_since(*at))
    }

    /// Where the watch still shows what this leader has replaced, its own write stands in for it.
    pub(super) fn catch_up(&mut self, gathered: &mut Gathered) {
        let version = gathered
            .map
            .as_ref()
            .map_or("", |map| map.resource_version.as_str());
        match &self.replaced {
            Some((replaced, at)) if replaced == version && at.elapsed() < STAND_IN => {
                gathered.map.clone_from(&self.written)
            }
            _ => self.replaced = None,
        }
        if !self.looked {
            // From now on whatever else it says was written by somebody else.
            (self.looked, self.written) = (true, gathered.map.clone());
        }
        if gathered.map.is_some() {
            // It is ours, perhaps again: nothing is left to refuse, even if nothing needs to be written.
            self.refused = None;
        }
        let there: BTreeSet<&String> = gathered.facts.pods.values().map(|pod| &pod.uid).collect();
        self.hurried.retain(|uid, _| there.contains(uid));
        self.labelled.retain(|uid, _| there.contains(uid));
        self.drifting.retain(|uid, _| there.contains(uid));
        self.note_missing(gathered);
        let data = gathered.map.as_ref().map(|map| &map.data);
        for pod in gathered.facts.pods.values() {
            let entry = data.and_then(|data| {
                entry::Entry::parse(data.get(&entry::key(&pod.name))?, clock::now()).ok()
            });
            let answer = gathered.answers.get(&pod.uid).map(|(answer, _)| answer);
            if entry.is_some_and(|entry| drifts(pod, answer, &entry)) {
                self.drifting
                    .entry(pod.uid.clone())
                    .or_insert_with(Instant::now);
            } else {
                self.drifting.remove(&pod.uid);
            }
            let since = self
                .labelled
                .entry(pod.uid.clone())
                .or_insert_with(|| (pod.shard_label.clone(), Instant::now()));
            if since.0 != pod.shard_label {
                *since = (pod.shard_label.clone(), Instant::now());
            }
        }
    }
}

impl Memory {
    fn note_missing(&mut self, gathered: &Gathered) {
        let statuses = gathered
            .answers
            .values()
            .filter_map(|(answer, _)| match answer {
                Answer::Status(status) => status.blocks.as_ref(),
                Answer::Unreachable(_) => None,
            });
        let missing: BTreeSet<&String> = statuses
            .flat_map(|blocks| &blocks.missing)
            .map(|block| &block.ulid)
            .collect();
        self.missing.retain(|ulid, _| missing.contains(ulid));
        for ulid in missing {
            if !self.missing.contains_key(ulid) {
                self.missing.insert(ulid.clone(), Instant::now());
            }
        }
    }

    /// For how long each block has been missing on some pod.
    pub(super) fn missing_for(&self, now: Instant) -> BTreeMap<String, Duration> {
        self.missing
            .iter()
            .map(|(ulid, since)| (ulid.clone(), now.saturating_duration_since(*since)))
            .collect()
    }
}

pub(super) fn views<'a>(
    gathered: &'a Gathered,
    memory: &Memory,
    ready_for: impl Fn(&str) -> Option<Duration>,
    now: Instant,
) -> BTreeMap<String, PodView<'a>> {
    let view = |pod: &'a PodFacts| PodView {
        facts: pod,
        answer: gathered.answers.get(&pod.uid).map(|(answer, _)| answer),
        ready_for: ready_for(&pod.uid),
        labelled_for: memory
            .labelled
            .get(&pod.uid)
            .map_or(Duration::ZERO, |(_, since)| {
                now.saturating_duration_since(*since)
            }),
        drifts_for: memory
            .drifting
            .get(&pod.uid)
            .map(|since| now.saturating_duration_since(*since)),
        hurried_ago: memory.hurried_ago(&pod.uid, now),
    };
    gathered
        .facts
        .pods
        .iter()
        .map(|(name, pod)| (name.clone(), view(pod)))
        .collect()
}

/// Whether a pod runs another window than its entry says, or has seen another entry.
pub(super) fn runs_otherwise(answer: Option<&(Answer, Instant)>, entry: &entry::Entry) -> bool {
    let Some((Answer::Status(status), _)) = answer else {
        return false;
    };
    [status.applied, status.published]
        .into_iter()
        .flatten()
        .any(|window| window != entry.window)
}

/// Pods whose entries differ.
pub(super) fn changed(
    before: Option<&BTreeMap<String, String>>,
    after: &BTreeMap<String, String>,
) -> Vec<String> {
    let differs = |(key, text): &(&String, &String)| {
        before.and_then(|before| before.get(*key)) != Some(*text)
    };
    after
        .iter()
        .filter(differs)
        .filter_map(|(key, _)| key.strip_suffix(".yaml").map(str::to_owned))
        .collect()
}

/// The shard that each pod's entry names.
pub(super) fn published(memory: &Memory, gathered: &Gathered) -> BTreeMap<String, u32> {
    let data = memory
        .written
        .as_ref()
        .or(gathered.map.as_ref())
        .map(|map| &map.data);
    let shard = |(key, text): (&String, &String)| {
        Some((
            key.strip_suffix(".yaml")?.to_owned(),
            entry::Entry::parse(text, clock::now()).ok()?.shard,
        ))
    };
    data.into_iter().flatten().filter_map(shard).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configmap_that_is_ours_again_is_no_longer_refused() {
        let mut memory = Memory {
            refused: Some("not ours".to_owned()),
            ..Memory::default()
        };
        let mut gathered = Gathered {
            configmap: String::new(),
            answers: HashMap::new(),
            map: None,
            facts: NamespaceFacts::default(),
        };
        memory.catch_up(&mut gathered);
        assert!(memory.refused.is_some());
        gathered.map = Some(MapFacts {
            name: "store-time-shards".to_owned(),
            resource_version: "7".to_owned(),
            ..MapFacts::default()
        });
        memory.catch_up(&mut gathered);
        assert_eq!(memory.refused, None);
    }
}
