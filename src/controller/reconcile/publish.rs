//! Writes the ConfigMap: its entries, and the annotation with the pods that alone serve a block.
//!
//! In: the data that the decision wants, as a step (new windows) or as upkeep (everything else,
//! such as the release of a drain). Out: the written ConfigMap; pods that run another window are
//! touched, so that kubelet updates the mounted file now. Next for a window: `sidecar/mod.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Interrupted, Reconcile};
use crate::adapters::clock;
use crate::controller::gathered::owner;
use crate::controller::write::{Ownership, WriteOutcome};
use crate::core::gateways::Published;
use crate::core::kube::observed::{MapFacts, PodAnswer, PodFacts};
use crate::core::model::entry::{self, Entry};
use crate::core::model::names;

/// A step needs an answer of every sidecar that is no older.
const MAX_ANSWER_AGE: Duration = Duration::from_secs(5);

impl Reconcile<'_> {
    /// Writes the entries that must be right before any step.
    pub(super) async fn upkeep(&mut self) -> Result<(), Interrupted> {
        match &self.decision.upkeep {
            Some(data) => {
                self.publish(data.clone()).await?;
                let taken_back = &self.decision.taken_back;
                self.memory.note_taken_back(taken_back, Instant::now());
                self.nudge_changed(data).await
            }
            None => Ok(()),
        }
    }

    /// Moves pods to new windows.
    pub(super) async fn step(
        &mut self,
        data: &BTreeMap<String, String>,
        moving: &[String],
    ) -> Result<(), Interrupted> {
        self.check_unchanged(moving).await?;
        self.publish(data.clone()).await?;
        tracing::info!(
            namespace = self.set.0,
            statefulset = self.set.1,
            pods = moving.join(" "),
            "published new windows"
        );
        self.nudge_changed(data).await
    }

    /// Interrupts unless every answer is recent and the pods, listed past every cache, are as they
    /// were: a pod may have been evicted or become unready meanwhile. A repair depends only on the
    /// answers of the pods that it moves.
    async fn check_unchanged(&mut self, moving: &[String]) -> Result<(), Interrupted> {
        let (gathered, repair) = (self.gathered, self.decision.repair);
        let is_recent = |pod: &PodFacts| {
            gathered
                .answers
                .get(&pod.uid)
                .is_some_and(|(_, at)| at.elapsed() <= MAX_ANSWER_AGE)
        };
        let counts =
            |pod: &&PodFacts| pod.can_be_asked() && (!repair || moving.contains(&pod.name));
        let pods = || gathered.facts.pods.values();
        if !pods().filter(counts).all(is_recent) {
            // They are being asked; their answers, or the next reconcile, continue.
            return Err(Interrupted);
        }
        let namespace = &self.set.0;
        let selector = &self.known.facts().selector;
        let fresh = match self.context.writer.fresh_pods(namespace, selector).await {
            Ok(fresh) => fresh,
            Err(why) => {
                if self.context.observed.may_log(namespace) {
                    tracing::warn!(
                        namespace,
                        statefulset = self.set.1,
                        why,
                        "pods cannot be listed, so no step is made"
                    );
                }
                self.memory.hindered = Some(format!(
                    "pods cannot be listed past the cache, so no window changes: {why}"
                ));
                return Err(Interrupted);
            }
        };
        let is_same = |pod: &PodFacts| fresh.get(&pod.name) == Some(&pod.moment());
        pods().all(is_same).then_some(()).ok_or(Interrupted)
    }

    pub(super) async fn publish(
        &mut self,
        data: BTreeMap<String, String>,
    ) -> Result<(), Interrupted> {
        self.may_write()?;
        let (name, owner) = (self.gathered.configmap.clone(), owner(self.known));
        let (namespace, writer) = (&self.set.0, &self.context.writer);
        let before = self.memory.current_map(self.gathered).map(|map| &map.facts);
        let written = if let Some(map) = before {
            let version = &map.resource_version;
            writer
                .replace_map(namespace, &name, version, &owner, &data)
                .await
        } else {
            match writer.create_map(namespace, &name, &owner, &data).await {
                WriteOutcome::AlreadyExists(found) if found.claim == Ownership::Adoptable => {
                    self.may_write()?;
                    writer
                        .adopt_map(namespace, &name, &found, &owner, &data)
                        .await
                }
                written => written,
            }
        };
        match written {
            WriteOutcome::Done { resource_version } => {
                let before = before.cloned().unwrap_or_default();
                self.remember(before, resource_version, owner.uid, data);
                Ok(())
            }
            WriteOutcome::AlreadyExists(found) if found.claim == Ownership::Foreign => {
                let adopt = names::ADOPT;
                let why = format!(
                    "ConfigMap {name} is not managed by timeshard and stays untouched, so no window is published: delete it, or annotate it with {adopt}: \"true\""
                );
                self.notify("ConfigMapNotOurs", &why);
                self.memory.refused = Some(why);
                Err(Interrupted)
            }
            WriteOutcome::Conflict | WriteOutcome::AlreadyExists(_) => {
                // The stored ConfigMap is not the one that this leader wrote, or was never seen.
                self.memory.replaced = None;
                Err(Interrupted)
            }
            WriteOutcome::Failed(why) => {
                // It may have been written all the same: then this leader's entries must not be
                // taken for another client's.
                (self.memory.written, self.memory.replaced) = (None, None);
                self.settle("ConfigMap", WriteOutcome::Failed(why))
            }
        }
    }

    fn remember(
        &mut self,
        before: MapFacts,
        resource_version: String,
        owner_uid: String,
        data: BTreeMap<String, String>,
    ) {
        let (memory, name) = (&mut *self.memory, self.gathered.configmap.clone());
        let observed = &self.context.observed;
        observed.wrote(&self.set.0, &name, &resource_version, &data);
        let pods = changed(Some(&before.data), &data);
        memory.own.extend(pods.iter().map(|pod| entry::key(pod)));
        memory.refused = None;
        memory.replaced = Some((before.resource_version, Instant::now()));
        let facts = MapFacts {
            name,
            uid: before.uid,
            resource_version,
            owner_uid: Some(owner_uid),
            data,
            // Writing the data leaves annotations as they are.
            single_holders: before.single_holders,
        };
        memory.written = Some(Arc::new(Published::new(facts, clock::now())));
    }

    /// Nudges, after new entries were written, the pods that run another window. The others already
    /// run the window, or are starting and may read it by themselves; with thousands of them one
    /// request each would delay everything else, so they are nudged only if they have not read it
    /// within [`NUDGE_INTERVAL`].
    pub(super) async fn nudge_changed(
        &mut self,
        data: &BTreeMap<String, String>,
    ) -> Result<(), Interrupted> {
        let now = Instant::now();
        let gathered = self.gathered;
        let stored = gathered.map.as_deref();
        let parse = |text: &String| Entry::parse(text, clock::now()).ok();
        let mut urgent = Vec::new();
        for name in changed(stored.map(|map| &map.facts.data), data) {
            let Some(pod) = gathered.facts.pods.get(&name) else {
                continue;
            };
            let key = entry::key(&name);
            let before = stored.and_then(|map| map.entries.get(&name));
            // A pod whose entry was edited by hand is led back immediately, too: its sidecar
            // refuses the edit only for a limited time.
            let is_led_back =
                |entry: &Entry| before.is_some_and(|before| before.window != entry.window);
            let is_urgent = |entry: Entry| {
                is_led_back(&entry) || runs_otherwise(gathered.answers.get(&pod.uid), &entry)
            };
            if data.get(&key).and_then(parse).is_some_and(is_urgent) {
                urgent.push(name);
            } else {
                self.memory.nudged.insert(pod.uid.clone(), now);
            }
        }
        self.nudge(urgent.iter().map(String::as_str)).await
    }

    /// Writes which pods alone serve a block, for the guard of every replica: only the leader asks
    /// sidecars.
    pub(super) async fn note_single_holders(&mut self) -> Result<(), Interrupted> {
        let (Some(text), Some(current)) = (
            &self.decision.single_holders,
            self.memory.current_map(self.gathered),
        ) else {
            return Ok(());
        };
        self.may_write()?;
        let (namespace, name) = (&self.set.0, &self.gathered.configmap);
        let before = current.facts.resource_version.clone();
        let written = self
            .context
            .writer
            .note_single_holders(namespace, name, &before, text)
            .await;
        if let WriteOutcome::Done { resource_version } = &written
            && let Some(map) = &mut self.memory.written
        {
            let facts = &mut Arc::make_mut(map).facts;
            facts.resource_version.clone_from(resource_version);
            facts.single_holders = Some(text.clone()).filter(|text| !text.is_empty());
            let observed = &self.context.observed;
            observed.wrote(namespace, name, resource_version, &facts.data);
            self.memory.replaced = Some((before, Instant::now()));
        }
        self.settle("ConfigMap's annotation", written)
    }
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

/// Whether a pod runs another window than its entry has, or has read another entry.
fn runs_otherwise(answer: Option<&(PodAnswer, Instant)>, entry: &Entry) -> bool {
    answer
        .and_then(|(answer, _)| answer.status())
        .is_some_and(|status| {
            [status.applied, status.published]
                .into_iter()
                .flatten()
                .any(|window| window != entry.window)
        })
}
