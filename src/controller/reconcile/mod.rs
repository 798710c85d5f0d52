//! Reconciles one StatefulSet: gather, decide, carry out.

mod pods;
mod publish;
mod report;
#[cfg(test)]
mod tests;
mod withdraw;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::context::LeaderContext;
use super::gathered::{Gathered, sharded};
use super::memory::{LeaderMemory, MAX_STAND_IN};
use super::write::WriteOutcome;
use crate::adapters::clock;
use crate::controller::cache::SetName;
use crate::core::gateways::{Gateway, Gateways};
use crate::core::model::names;
use crate::core::rollout::budgets::BudgetPlan;
use crate::core::rollout::queriers::ObservedQuerier;
use crate::core::rollout::reconcile::{Decision, View, decide};
use crate::core::rollout::report::RolloutState;
use crate::core::rollout::shard_objects::ShardedSet;
use crate::core::rollout::{budgets, services};

/// Pause after a failed reconcile, doubling to [`MAX_RETRY`]; a change ends it early.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_mins(1);
/// Failed reconciles in a row before an Event reports a refused write: the API server may be
/// unavailable for a moment.
const NOTIFY_AFTER: u32 = 2;
/// Pause before a ConfigMap that timeshard does not manage is read again: no watch shows when its
/// owner allows its adoption.
const RETRY_REFUSED: Duration = Duration::from_secs(15);

pub(super) enum ReconcileOutcome {
    /// Not a StatefulSet for timeshard.
    Ignored,
    /// Everything that can be done now is done; when to reconcile again.
    Done(Option<Duration>),
    /// A write failed, or the cluster changed meanwhile; when to reconcile again.
    Failed(Duration),
    /// One turn was not enough.
    Unfinished,
}

/// The rest of this reconcile is skipped; the next one starts over.
struct Interrupted;

/// One reconcile of one StatefulSet, decided and to be carried out.
struct Reconcile<'a> {
    context: &'a LeaderContext,
    set: &'a SetName,
    known: &'a Gateway,
    gathered: &'a Gathered,
    decision: &'a Decision,
    memory: &'a mut LeaderMemory,
    /// Whether a write failed that a step builds on. Other writes go on.
    held_up: bool,
}

pub(super) async fn reconcile(
    context: &LeaderContext,
    set: &SetName,
    memory: &mut LeaderMemory,
) -> ReconcileOutcome {
    let began = Instant::now();
    memory.turn.begin();
    let fleet = context.observed.fleet.load_full();
    let known = fleet.known(&set.0, &set.1);
    if known.facts().name != set.1 || known.facts().uid.is_empty() {
        return ReconcileOutcome::Ignored;
    }
    let mut gathered = Gathered::of(context, &fleet, known);
    if known.opted_out() {
        memory.catch_up(&mut gathered);
        return withdraw::withdraw_from(context, set, (&fleet, known, &gathered), memory, began)
            .await;
    }
    let pods = &gathered.facts.pods;
    let injected = pods.values().any(|pod| pod.injected);
    let bare = pods
        .values()
        .any(|pod| pod.forgotten(known.replace_time_flags));
    // Scaled to zero, or before its first pod: it gets a report and nothing is made for it.
    let empty = known.facts().store && pods.is_empty();
    if !injected && !bare && !empty && gathered.map.is_none() {
        // Not a store gateway.
        return ReconcileOutcome::Ignored;
    }
    memory.catch_up(&mut gathered);
    let items = &fleet.config().queriers;
    let queriers = context
        .queriers
        .observed(set, &gathered.facts, items, began);
    memory.note_queriers(&queriers, known.facts(), &gathered, began);
    let mut decision = decide_for(context, &fleet, known, &gathered, &queriers, memory, began);
    memory.note_confirmed(&decision.report, &gathered, began);
    if decision.report.state == RolloutState::Settled {
        memory.taken_back = None;
    }
    if empty && known.facts().replicas == 0 && gathered.map.is_none() {
        // It never ran, or was cleaned up, so its coverage is not missed.
        (decision.report.gaps, decision.report.gap_seconds) = (Vec::new(), 0);
    }
    // Before a step every sidecar is asked once more.
    let closely = if decision.step.is_some() {
        let pods = gathered.facts.pods.values();
        pods.map(|pod| pod.uid.clone()).collect()
    } else {
        decision.poll_often.clone()
    };
    context.poller.watch_closely(&set.0, &set.1, &closely);
    context.queriers.ask(set, decision.ask_queriers);
    let mut reconcile = Reconcile {
        context,
        set,
        known,
        gathered: &gathered,
        decision: &decision,
        memory,
        held_up: false,
    };
    // Without an injected pod no entry would be read; only warnings are reported.
    let done = if injected || gathered.map.is_some() {
        reconcile.carry_out().await
    } else {
        Ok(())
    };
    reconcile.report(began);
    outcome(memory, &done, decision.requeue_after)
}

fn decide_for(
    context: &LeaderContext,
    fleet: &Gateways,
    known: &Gateway,
    gathered: &Gathered,
    queriers: &[ObservedQuerier],
    memory: &LeaderMemory,
    now: Instant,
) -> Decision {
    decide(&View {
        gateway: known,
        config: fleet.config(),
        map: gathered.map.as_deref(),
        written: memory.written.as_deref(),
        own: &memory.own,
        pods: &memory.reported_pods(gathered, &context.cache, now),
        missing_for: &memory.missing_for(now),
        queriers,
        querier_memory: &memory.queriers,
        taken_back: memory.taken_back(now).as_ref(),
        now: clock::now(),
    })
}

fn outcome(
    memory: &mut LeaderMemory,
    done: &Result<(), Interrupted>,
    again: Option<Duration>,
) -> ReconcileOutcome {
    if done.is_ok() {
        memory.failures = 0;
        let stands_in = memory.replaced.is_some().then_some(MAX_STAND_IN);
        return ReconcileOutcome::Done(again.into_iter().chain(stands_in).min());
    }
    if memory.turn.is_over() {
        return ReconcileOutcome::Unfinished;
    }
    let wait = if memory.refused.is_some() {
        RETRY_REFUSED
    } else {
        FIRST_RETRY * 2_u32.saturating_pow(memory.failures)
    };
    memory.failures = (memory.failures + 1).min(8);
    ReconcileOutcome::Failed(wait.min(MAX_RETRY))
}

impl Reconcile<'_> {
    /// Carries out the decision, in the order in which it is safe.
    async fn carry_out(&mut self) -> Result<(), Interrupted> {
        let (decision, gathered) = (self.decision, self.gathered);
        // Labels first: a Service must no longer select a pod by the old label once it is ready
        // again.
        self.nudge(decision.relabel.iter().map(|(pod, _)| pod.as_str()))
            .await?;
        if gathered.map.is_none() {
            self.upkeep().await?;
        }
        // A new leader does not know which pods serve until their sidecars were asked. Counted as
        // absent, they would have every PDB closed now and opened a second later: two writes for
        // each shard of the cluster.
        if decision.step.is_none() && gathered.unasked() {
            return if gathered.map.is_some() {
                self.upkeep().await
            } else {
                Ok(())
            };
        }
        // When the user has taken all pods out, there are no shards to protect. The entries stay,
        // for when the pods come back.
        let published = if gathered.is_released() {
            BTreeMap::new()
        } else {
            self.memory.published(gathered)
        };
        let sharded = sharded(self.known, published);
        let budgets = budgets::wanted(&sharded, &decision.closed, &gathered.facts);
        self.write_shard_objects(&sharded, &budgets).await?;
        if gathered.map.is_some() {
            self.upkeep().await?;
        }
        let noted = self.note_single_holders().await;
        self.held_up |= noted.is_err();
        let due = self.due_nudges();
        self.nudge(due.into_iter()).await?;
        if decision.drop_target {
            self.drop_target().await?;
        }
        if self.held_up {
            return Err(Interrupted);
        }
        // After upkeep the next reconcile decides on the step.
        match &decision.step {
            Some((data, moving)) if decision.upkeep.is_none() && budgets.ready => {
                self.step(data, moving).await
            }
            _ => Ok(()),
        }
    }

    /// Writes PDBs, then Services, and reports those that timeshard may not write.
    async fn write_shard_objects(
        &mut self,
        sharded: &ShardedSet,
        budgets: &BudgetPlan,
    ) -> Result<(), Interrupted> {
        let facts = &self.gathered.facts;
        for write in &budgets.writes {
            self.may_write()?;
            let written = self.context.writer.budget(&self.set.0, write).await;
            self.held_up |= self.settle("PodDisruptionBudget", written).is_err();
        }
        let services = services::wanted(
            sharded,
            self.known.sharding.shard_services(),
            &self.decision.shards,
            facts,
        );
        // While the split is unknown, so is whether there should be Services: they stay as they are.
        for write in services.writes.iter().filter(|_| !self.known.split_unknown) {
            self.may_write()?;
            let written = self.context.writer.service(&self.set.0, write).await;
            self.held_up |= self.settle("Service", written).is_err();
        }
        for text in &budgets.conflicts {
            self.notify("BudgetConflict", text);
        }
        for text in &services.conflicts {
            self.notify("ServiceConflict", text);
        }
        for text in services::warnings(sharded, facts) {
            self.notify("DrainIneffective", &text);
        }
        // Shard Services are headless, once they are written.
        if !self.known.sharding.shard_services()
            && let Some(text) = services::without_headless(sharded, facts)
        {
            self.notify("NoHeadlessService", &text);
        }
        Ok(())
    }

    /// Removes the annotation with the target replicas once they are reached.
    async fn drop_target(&mut self) -> Result<(), Interrupted> {
        self.may_write()?;
        let facts = self.known.facts();
        let target = facts
            .annotations
            .get(names::TARGET_REPLICAS)
            .map_or("", String::as_str);
        let written = self
            .context
            .writer
            .drop_target(&self.set.0, &facts.name, &facts.uid, target, facts.replicas)
            .await;
        self.held_up |= self.settle("StatefulSet", written).is_err();
        Ok(())
    }

    fn may_write(&self) -> Result<(), Interrupted> {
        let may = self.context.still_leads() && self.memory.turn.take();
        may.then_some(()).ok_or(Interrupted)
    }

    /// Reports a write that failed; when it keeps failing, by an Event, too.
    fn settle(&mut self, kind: &str, written: WriteOutcome) -> Result<(), Interrupted> {
        if let WriteOutcome::Failed(why) = &written {
            let text = format!("{kind} cannot be written, so no window changes: {why}");
            if self.memory.failures >= NOTIFY_AFTER {
                self.notify("WriteRefused", &text);
            }
            self.memory.hindered = Some(text);
        }
        self.settle_quietly(written)
    }

    fn settle_quietly(&self, written: WriteOutcome) -> Result<(), Interrupted> {
        match written {
            WriteOutcome::Done { .. } => Ok(()),
            WriteOutcome::Conflict | WriteOutcome::AlreadyExists(_) => Err(Interrupted),
            WriteOutcome::Failed(why) => {
                let namespace = &self.set.0;
                if self.context.observed.may_log(namespace) {
                    tracing::warn!(namespace, why, "write failed, retrying");
                }
                Err(Interrupted)
            }
        }
    }
}
