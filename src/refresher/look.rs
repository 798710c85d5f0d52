//! One look at one StatefulSet: gather, decide, carry out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::drive::Tenure;
use super::memory::{Gathered, Memory, STAND_IN, changed, published, runs_otherwise, views};
use super::seen::SetName;
use super::write::{Claim, Outcome as Written};
use crate::adapters::clock;
use crate::core::fleet::Known;
use crate::core::observed::{MapFacts, NamespaceFacts, PodFacts};
use crate::core::owned::{Owner, ShardedSet};
use crate::core::reconcile::{Decision, HURRY_AGAIN, View, decide};
use crate::core::{budgets, entry, names, shard_services};

/// No write begins with less of the lease left: a write takes at most 2 s, and may wait for its turn before.
pub(super) const LEASE_LEFT: Duration = Duration::from_secs(3);
/// A step needs answers of all sidecars that are no older.
const ANSWER_AGE: Duration = Duration::from_secs(5);
/// After a look that failed, the next one waits this long, doubling to [`RETRY_MOST`]; news is looked at at once.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_mins(1);
/// Failed looks in a row before an Event tells of a write that is refused: the API server may be away for a moment.
const TOLD_AFTER: u32 = 2;
/// A ConfigMap that is not ours is looked at again after this long: no watch tells that its owner now lets us have it.
const RETRY_REFUSED: Duration = Duration::from_secs(15);

/// What came of a look.
pub(super) enum Outcome {
    /// Not ours to keep.
    Nothing,
    /// All is done that can be done now; when to look again.
    Fine(Option<Duration>),
    /// A write failed, or what was seen no longer holds; when to look again.
    Failed(Duration),
    /// There is more to do than one turn allows.
    Unfinished,
}

/// Why the rest of a look is left out: the next one begins afresh.
pub(super) struct Interrupted;

impl Tenure {
    pub(super) async fn look(&self, set: &SetName, memory: &mut Memory) -> Outcome {
        let began = Instant::now();
        memory.turn.begin();
        let fleet = self.observed.fleet.load_full();
        let known = fleet.known(&set.0, &set.1);
        if known.facts().name != set.1 || known.facts().uid.is_empty() {
            return Outcome::Nothing;
        }
        let mut gathered = self.gather(
            set,
            known,
            fleet.config().operator.configmap_of(&set.0, &set.1),
        );
        let injected = gathered.facts.pods.values().any(|pod| pod.injected);
        let bare = gathered
            .facts
            .pods
            .values()
            .any(|pod| pod.forgotten(known.replace_time_flags));
        // Switched off, or its first pod is still to come: there is something to say, and nothing to make.
        let empty = known.facts().store && gathered.facts.pods.is_empty();
        if !injected && !bare && !empty && gathered.map.is_none() {
            // Something else than a store gateway.
            return Outcome::Nothing;
        }
        memory.catch_up(&mut gathered);
        let mut decision = {
            let views = views(
                &gathered,
                memory,
                |uid| self.seen.ready_for(uid, began),
                began,
            );
            let written = memory.written.as_ref().map(|map| &map.data);
            let (map, config, missing_for, own) = (
                gathered.map.as_ref(),
                fleet.config(),
                &memory.missing_for(began),
                &memory.own,
            );
            decide(&View {
                known,
                config,
                map,
                written,
                own,
                pods: &views,
                missing_for,
                now: clock::now(),
            })
        };
        if empty && known.facts().replicas == 0 && gathered.map.is_none() {
            // One that never ran, or was cleaned up: nobody misses what it does not serve.
            (decision.report.gaps, decision.report.gap_seconds) = (Vec::new(), 0);
        }
        // Before a step, everybody is asked once more.
        let all = || {
            gathered
                .facts
                .pods
                .values()
                .map(|pod| pod.uid.clone())
                .collect()
        };
        let closely = if decision.step.is_some() {
            all()
        } else {
            decision.closely.clone()
        };
        self.poller.watch_closely(&set.0, &set.1, &closely);
        // Without one injected pod there is nobody to publish for; only what is wrong is told.
        let done = if injected || gathered.map.is_some() {
            self.carry_out(set, known, &gathered, &decision, memory)
                .await
        } else {
            Ok(())
        };
        self.tell(set, known, &decision, memory, began);
        if done.is_err() && memory.turn.is_over() {
            return Outcome::Unfinished;
        }
        if done.is_ok() {
            memory.failures = 0;
            let stands_in = memory.replaced.is_some().then_some(STAND_IN);
            return Outcome::Fine(decision.again.into_iter().chain(stands_in).min());
        }
        let wait = if memory.refused.is_some() {
            RETRY_REFUSED
        } else {
            RETRY_FIRST * 2_u32.saturating_pow(memory.failures)
        };
        memory.failures = (memory.failures + 1).min(8);
        Outcome::Failed(wait.min(RETRY_MOST))
    }

    pub(super) fn gather(&self, set: &SetName, known: &Known, configmap: String) -> Gathered {
        let (name, uid) = (&known.facts().name, &known.facts().uid);
        // Whoever may make pods may give them any owner's name; its UID and the ordinal are not guessed by accident.
        let ordinal = |pod: &PodFacts| {
            pod.name
                .strip_prefix(name.as_str())
                .and_then(|rest| rest.strip_prefix('-')?.parse::<u32>().ok())
        };
        self.seen.with(&set.0, |facts| {
            let pods: BTreeMap<_, _> = facts
                .pods
                .iter()
                .filter(|(_, pod)| pod.owner_uid == *uid && ordinal(pod).is_some())
                .map(|(name, pod)| (name.clone(), pod.clone()))
                .collect();
            let answer = |pod: &PodFacts| {
                self.poller
                    .polled(&pod.uid)
                    .map(|polled| (pod.uid.clone(), (polled.answer, polled.at)))
            };
            let answers = pods.values().filter_map(answer).collect();
            let map = self
                .observed
                .fleet
                .load()
                .configmap(&set.0, &configmap)
                .map(|map| map.facts.clone());
            // What an object may belong to is decided by all pods of the namespace's StatefulSet alone.
            let (budgets, services) = (facts.budgets.clone(), facts.services.clone());
            let facts = NamespaceFacts {
                pods,
                budgets,
                services,
            };
            Gathered {
                answers,
                configmap,
                map,
                facts,
            }
        })
    }

    /// Everything that a decision asks for, in the order in which it is safe.
    async fn carry_out(
        &self,
        set: &SetName,
        known: &Known,
        gathered: &Gathered,
        decision: &Decision,
        memory: &mut Memory,
    ) -> Result<(), Interrupted> {
        let facts = known.facts();
        // Labels first: behind a Service the label must have changed before the pod is ready again.
        self.hurry(
            (set, known),
            gathered,
            decision.relabel.iter().map(|(pod, _)| pod.as_str()),
            decision,
            memory,
        )
        .await?;
        if decision.upkeep.is_some() && gathered.map.is_none() {
            self.upkeep(set, known, gathered, decision, memory).await?;
        }
        // A new leader knows of no pod that it serves until it was asked. Taken for pods on their way, all of them would have
        // every budget closed, and opened again a second later: two writes for each shard of the cluster.
        if decision.step.is_none() && gathered.unasked() {
            return if gathered.map.is_some() {
                self.upkeep(set, known, gathered, decision, memory).await
            } else {
                Ok(())
            };
        }
        // A StatefulSet whose pods are all kept out has no shards to guard; its windows stay, for when it comes back.
        let published = if gathered.is_released() {
            BTreeMap::new()
        } else {
            published(memory, gathered)
        };
        let sharded = ShardedSet {
            owner: owner(known),
            selector: facts.selector.clone(),
            published,
            grpc_port: facts.grpc_port,
        };
        let budgets = budgets::wanted(&sharded, &decision.closed, &gathered.facts);
        // One that is refused holds up what builds on it, and nothing else.
        let mut beside = Ok(());
        for write in &budgets.writes {
            self.may_write(memory)?;
            let written = self.writer.budget(&set.0, write).await;
            beside =
                beside.and(self.settle_beside(set, known, "PodDisruptionBudget", written, memory));
        }
        let services = shard_services::wanted(
            &sharded,
            known.sharding.shard_services(),
            &decision.shards,
            &gathered.facts,
        );
        // Whether there should be Services is not known then, so none is made and none goes.
        for write in services.writes.iter().filter(|_| !known.split_unknown) {
            self.may_write(memory)?;
            let written = self.writer.service(&set.0, write).await;
            beside = beside.and(self.settle_beside(set, known, "Service", written, memory));
        }
        let conflicts = budgets
            .conflicts
            .iter()
            .map(|text| ("BudgetConflict", text))
            .chain(
                services
                    .conflicts
                    .iter()
                    .map(|text| ("ServiceConflict", text)),
            );
        for (reason, text) in conflicts {
            self.notify(set, known, reason, text, memory);
        }
        for text in shard_services::warnings(&sharded, &gathered.facts) {
            self.notify(set, known, "DrainIneffective", &text, memory);
        }
        if gathered.map.is_some() {
            self.upkeep(set, known, gathered, decision, memory).await?;
        }
        beside = beside.and(
            self.note_single_holders(set, known, gathered, decision, memory)
                .await,
        );
        // What was published in this look was brought in this look.
        let now = Instant::now();
        let waits = |name: &&String| {
            gathered.facts.pods.get(*name).is_none_or(|pod| {
                memory
                    .hurried_ago(&pod.uid, now)
                    .is_none_or(|ago| ago >= HURRY_AGAIN)
            })
        };
        let due: Vec<&str> = decision
            .hurry
            .iter()
            .filter(waits)
            .map(String::as_str)
            .collect();
        self.hurry((set, known), gathered, due.into_iter(), decision, memory)
            .await?;
        if decision.drop_target {
            self.may_write(memory)?;
            let target = facts
                .annotations
                .get(names::TARGET_REPLICAS)
                .map_or("", String::as_str);
            let written = self
                .writer
                .drop_target(&set.0, &facts.name, &facts.uid, target, facts.replicas)
                .await;
            beside = beside.and(self.settle_beside(set, known, "StatefulSet", written, memory));
        }
        beside?;
        // What was just repaired is looked at again first.
        if let Some((data, moving)) = decision
            .step
            .as_ref()
            .filter(|_| decision.upkeep.is_none() && budgets.ready)
        {
            self.unchanged(set, known, gathered, moving, (decision.repair, memory))
                .await?;
            self.publish(set, known, gathered, data.clone(), memory)
                .await?;
            tracing::info!(
                namespace = set.0,
                statefulset = set.1,
                pods = moving.join(" "),
                "published other windows"
            );
            self.bring((set, known), gathered, data, decision, memory)
                .await?;
        }
        Ok(())
    }

    /// What the ConfigMap should say before any step.
    async fn upkeep(
        &self,
        set: &SetName,
        known: &Known,
        gathered: &Gathered,
        decision: &Decision,
        memory: &mut Memory,
    ) -> Result<(), Interrupted> {
        let Some(data) = &decision.upkeep else {
            return Ok(());
        };
        self.publish(set, known, gathered, data.clone(), memory)
            .await?;
        self.bring((set, known), gathered, data, decision, memory)
            .await
    }

    /// Tells the guard of every replica which pods alone serve a block: only the leader asks sidecars.
    async fn note_single_holders(
        &self,
        set: &SetName,
        known: &Known,
        gathered: &Gathered,
        decision: &Decision,
        memory: &mut Memory,
    ) -> Result<(), Interrupted> {
        let there = memory
            .written
            .as_ref()
            .filter(|_| memory.replaced.is_some())
            .or(gathered.map.as_ref());
        let (Some(text), Some(there)) = (&decision.single_holders, there) else {
            return Ok(());
        };
        self.may_write(memory)?;
        let before = there.resource_version.clone();
        let written = self
            .writer
            .note_single_holders(&set.0, &gathered.configmap, &before, text)
            .await;
        if let Written::Done { resource_version } = &written
            && let Some(map) = &mut memory.written
        {
            (map.resource_version, map.single_holders) = (
                resource_version.clone(),
                Some(text.clone()).filter(|text| !text.is_empty()),
            );
            self.observed
                .wrote(&set.0, &gathered.configmap, resource_version, &map.data);
            memory.replaced = Some((before, Instant::now()));
        }
        self.settle_beside(set, known, "ConfigMap's annotation", written, memory)
    }

    /// Looks at the pods once more, past every cache, and at how old their answers are: somebody may have been evicted, or
    /// ceased to be ready, since. A repair rests on nobody's answer but that of the pods that it is for.
    async fn unchanged(
        &self,
        set: &SetName,
        known: &Known,
        gathered: &Gathered,
        moving: &[String],
        (repair, memory): (bool, &mut Memory),
    ) -> Result<(), Interrupted> {
        let asked = |pod: &PodFacts| {
            gathered
                .answers
                .get(&pod.uid)
                .is_some_and(|(_, at)| at.elapsed() <= ANSWER_AGE)
        };
        let counts =
            |pod: &&PodFacts| pod.can_be_asked() && (!repair || moving.contains(&pod.name));
        if !gathered.facts.pods.values().filter(counts).all(asked) {
            // They are being asked; their answers, or the next look, go on.
            return Err(Interrupted);
        }
        let fresh = self.writer.fresh_pods(&set.0, &known.facts().selector).await.map_err(|why| {
            if self.observed.may_log(&set.0) {
                tracing::warn!(namespace = set.0, statefulset = set.1, why, "the pods cannot be listed, so no step is made");
            }
            memory.hindered = Some(format!("its pods cannot be listed past the cache, and no window changes until they are: {why}"));
            Interrupted
        })?;
        let is = |pod: &PodFacts| {
            (
                pod.uid.clone(),
                pod.terminating,
                pod.ready,
                pod.ready_changed_unix_seconds,
            )
        };
        let same = |pod: &PodFacts| {
            fresh
                .get(&pod.name)
                .is_some_and(|fresh| is(fresh) == is(pod))
        };
        if gathered.facts.pods.values().all(same) {
            Ok(())
        } else {
            Err(Interrupted)
        }
    }

    async fn publish(
        &self,
        set: &SetName,
        known: &Known,
        gathered: &Gathered,
        data: BTreeMap<String, String>,
        memory: &mut Memory,
    ) -> Result<(), Interrupted> {
        self.may_write(memory)?;
        let (name, owner) = (gathered.configmap.clone(), owner(known));
        let before = memory
            .written
            .as_ref()
            .filter(|_| memory.replaced.is_some())
            .or(gathered.map.as_ref());
        let written = match before {
            Some(map) => {
                self.writer
                    .replace_map(&set.0, &name, &map.resource_version, &owner, &data)
                    .await
            }
            None => match self.writer.create_map(&set.0, &name, &owner, &data).await {
                Written::AlreadyExists(there) if there.claim == Claim::Adoptable => {
                    self.may_write(memory)?;
                    self.writer
                        .adopt_map(&set.0, &name, &there, &owner, &data)
                        .await
                }
                written => written,
            },
        };
        match written {
            Written::Done { resource_version } => {
                memory.replaced = Some((
                    before.map_or_else(String::new, |map| map.resource_version.clone()),
                    Instant::now(),
                ));
                memory.refused = None;
                // Writing the data leaves annotations as they are.
                let single_holders = before.and_then(|map| map.single_holders.clone());
                let (uid, owner_uid) = (
                    before.map(|map| map.uid.clone()).unwrap_or_default(),
                    Some(owner.uid),
                );
                let found = before.map(|map| map.data.clone());
                self.observed.wrote(&set.0, &name, &resource_version, &data);
                memory.own.extend(
                    changed(found.as_ref(), &data)
                        .iter()
                        .map(|pod| entry::key(pod)),
                );
                memory.written = Some(MapFacts {
                    name,
                    uid,
                    resource_version,
                    owner_uid,
                    data,
                    single_holders,
                });
                Ok(())
            }
            Written::AlreadyExists(there) if there.claim == Claim::Foreign => {
                let adopt = names::ADOPT;
                let why = format!(
                    "ConfigMap {name} is not ours and stays untouched, so no window is published: delete it, or annotate it with {adopt}: \"true\""
                );
                self.notify(set, known, "ConfigMapNotOurs", &why, memory);
                memory.refused = Some(why);
                Err(Interrupted)
            }
            Written::Conflict | Written::AlreadyExists(_) => {
                // What this leader wrote is no longer what stands there, or never was seen.
                memory.replaced = None;
                Err(Interrupted)
            }
            Written::Failed(why) => {
                // It may have been written all the same: then our own entries must not be taken for somebody else's.
                (memory.written, memory.replaced) = (None, None);
                self.settle_beside(set, known, "ConfigMap", Written::Failed(why), memory)
            }
        }
    }

    /// After new entries were written: pods that run something else are to see theirs at once. The others run what it
    /// says, or start and may see it by themselves; with thousands of them one request each would hold up everything
    /// else, so they are told only if they do not see it within [`HURRY_AGAIN`].
    async fn bring(
        &self,
        (set, known): (&SetName, &Known),
        gathered: &Gathered,
        data: &BTreeMap<String, String>,
        decision: &Decision,
        memory: &mut Memory,
    ) -> Result<(), Interrupted> {
        let now = Instant::now();
        let mut urgent = Vec::new();
        for name in changed(gathered.map.as_ref().map(|map| &map.data), data) {
            let Some(pod) = gathered.facts.pods.get(&name) else {
                continue;
            };
            let entry = data
                .get(&entry::key(&name))
                .and_then(|text| entry::Entry::parse(text, clock::now()).ok());
            // One that somebody gave another window is led back at once, too: its sidecar refuses an edit only for so long.
            let before = gathered.map.as_ref().and_then(|map| {
                entry::Entry::parse(map.data.get(&entry::key(&name))?, clock::now()).ok()
            });
            let led_back =
                |entry: &entry::Entry| before.is_some_and(|before| before.window != entry.window);
            if entry.is_some_and(|entry| {
                led_back(&entry) || runs_otherwise(gathered.answers.get(&pod.uid), &entry)
            }) {
                urgent.push(name);
            } else {
                memory.hurried.insert(pod.uid.clone(), now);
            }
        }
        self.hurry(
            (set, known),
            gathered,
            urgent.iter().map(String::as_str),
            decision,
            memory,
        )
        .await
    }

    /// Kubelet looks at these pods' volumes, and their labels become what they should be.
    async fn hurry<'a>(
        &self,
        (set, known): (&SetName, &Known),
        gathered: &Gathered,
        pods: impl Iterator<Item = &'a str>,
        decision: &Decision,
        memory: &mut Memory,
    ) -> Result<(), Interrupted> {
        for name in pods.collect::<BTreeSet<_>>() {
            let Some(pod) = gathered
                .facts
                .pods
                .get(name)
                .filter(|pod| pod.injected && !pod.terminating)
            else {
                continue;
            };
            self.may_write(memory)?;
            let label = decision
                .relabel
                .iter()
                .find(|(pod, _)| pod == name)
                .map(|(_, shard)| shard.to_string());
            memory.hurried.insert(pod.uid.clone(), Instant::now());
            let written = self
                .writer
                .hurry(&set.0, name, &pod.uid, label.as_deref(), clock::now())
                .await;
            if label.is_some() {
                self.settle_beside(set, known, "pod's shard label", written, memory)?;
            } else {
                // Without it kubelet takes a minute longer, and that is all.
                let _ = self.settle(&set.0, written);
            }
        }
        Ok(())
    }

    fn may_write(&self, memory: &Memory) -> Result<(), Interrupted> {
        self.still_leads()?;
        memory.turn.take().then_some(()).ok_or(Interrupted)
    }

    pub(super) fn still_leads(&self) -> Result<(), Interrupted> {
        let left = self
            .leadership
            .remaining()
            .filter(|left| *left >= LEASE_LEFT && !self.shutdown.is_draining());
        left.map(|_| ()).ok_or(Interrupted)
    }

    fn settle(&self, namespace: &str, written: Written) -> Result<(), Interrupted> {
        match written {
            Written::Done { .. } => Ok(()),
            Written::Conflict | Written::AlreadyExists(_) => Err(Interrupted),
            Written::Failed(why) => {
                if self.observed.may_log(namespace) {
                    tracing::warn!(namespace, why, "a write failed; it is tried again");
                }
                Err(Interrupted)
            }
        }
    }

    /// As [`settle`](Self::settle); who looks at the StatefulSet is told when it is refused again and again.
    fn settle_beside(
        &self,
        set: &SetName,
        known: &Known,
        kind: &str,
        written: Written,
        memory: &mut Memory,
    ) -> Result<(), Interrupted> {
        if let Written::Failed(why) = &written {
            let text =
                format!("a {kind} of it is not written, and no window changes until it is: {why}");
            if memory.failures >= TOLD_AFTER {
                self.notify(set, known, "WriteRefused", &text, memory);
            }
            memory.hindered = Some(text);
        }
        self.settle(&set.0, written)
    }
}

/// A StatefulSet as the owner of what is made for it.
pub(super) fn owner(known: &Known) -> Owner {
    Owner {
        name: known.facts().name.clone(),
        uid: known.facts().uid.clone(),
    }
}

#[cfg(test)]
mod tests;
