//! One leader term: from the moment this process leads until it no longer does.
//!
//! Reconciles each StatefulSet that changed. Polling runs concurrently; the watches run before,
//! during and after a term. Invariants:
//! - nothing is written unless the lease lasts longer than the write may take;
//! - one StatefulSet is reconciled at a time, so no two reconciles overwrite each other; namespaces
//!   take turns, and each turn is bounded (`turn`);
//! - a step is published only after its PDBs are closed and the pods were listed once more, past
//!   every cache;
//! - failures are retried with back-off, and immediately when something changes;
//! - once the shutdown has begun, only PDBs are written (`shutdown`).
//!
//! State kept here is an optimisation (which pods were nudged, what was written); correctness never
//! depends on it, and a new leader starts without it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::context::LeaderContext;
use super::memory::LeaderMemory;
use super::reconcile::{ReconcileOutcome, reconcile};
use super::shutdown;
use super::sweep::Sweep;
use super::turn::TurnQueue;
use crate::adapters::clock;
use crate::adapters::signals::ShutdownStage;
use crate::controller::cache::SetName;
use crate::core::admission::notice::ObjectEvent;

pub(super) struct LeaderTerm<'a> {
    context: &'a LeaderContext,
    memories: HashMap<SetName, LeaderMemory>,
    /// When to reconcile again even if nothing changes.
    alarms: BTreeMap<SetName, Instant>,
    /// Namespaces that already got an Event about objects that are not taken in.
    notified_refused: BTreeSet<String>,
}

impl<'a> LeaderTerm<'a> {
    pub(super) fn new(context: &'a LeaderContext) -> Self {
        Self {
            context,
            memories: HashMap::new(),
            alarms: BTreeMap::new(),
            notified_refused: BTreeSet::new(),
        }
    }

    /// Runs until it is dropped or the shutdown begins; in the latter case PDBs are opened before
    /// it returns.
    pub(super) async fn run(mut self) {
        // First: from now on changes are recorded, and every StatefulSet counts as changed.
        let _leading = self.context.cache.lead();
        let mut polling = JoinSet::new();
        let poller = self.context.poller.clone();
        polling.spawn(async move { poller.run().await });
        let (queriers, writer) = (self.context.queriers.clone(), self.context.writer.clone());
        polling.spawn(async move { queriers.run(&writer).await });
        let mut resync = every(self.resync_period());
        let mut shutdown = self.context.shutdown.clone();
        let mut labelled = self.context.observed.labelled();
        // A namespace may have lost its label while no replica led.
        let (mut sweep, mut queue) = (Sweep::default(), TurnQueue::default());
        sweep.begin(true);
        loop {
            let alarm = self.alarms.values().min().copied();
            let period = self.resync_period();
            if resync.period() != period {
                // The configuration was edited.
                resync = every(period);
            }
            let due: BTreeSet<SetName> = tokio::select! {
                () = shutdown.reached(ShutdownStage::Draining) => {
                    return shutdown::open_pdbs(self.context, &self.memories).await;
                }
                _ = labelled.changed() => {
                    sweep.begin(true);
                    BTreeSet::new()
                }
                () = clock::at(sweep.at) => {
                    sweep.turn(self.context).await;
                    BTreeSet::new()
                }
                sets = self.context.cache.changed() => {
                    self.notify_refused();
                    sets.into_iter().collect()
                }
                _ = resync.tick() => {
                    sweep.begin(false);
                    self.notify_refused();
                    self.all()
                }
                () = clock::at(alarm) => {
                    let now = Instant::now();
                    let due = self.alarms.iter().filter(|(_, at)| **at <= now);
                    due.map(|(set, _)| set.clone()).collect()
                }
                // select! picks at random among the ready branches, so none starves another.
                () = std::future::ready(()), if !queue.is_empty() => {
                    let set = queue.pop();
                    let unfinished = match &set {
                        Some(set) => self.take_turn(set).await,
                        None => false,
                    };
                    set.into_iter().filter(|_| unfinished).collect()
                }
            };
            for set in due {
                self.alarms.remove(&set);
                queue.push(set);
            }
        }
    }

    fn resync_period(&self) -> Duration {
        let fleet = self.context.observed.fleet.load();
        Duration::from_secs(fleet.config().operator.update_interval_seconds.into())
    }

    /// Every StatefulSet that is known now or was reconciled in this term.
    fn all(&self) -> BTreeSet<SetName> {
        let fleet = self.context.observed.fleet.load();
        let known = fleet
            .statefulsets()
            .map(|known| (known.facts().namespace.clone(), known.facts().name.clone()));
        known.chain(self.memories.keys().cloned()).collect()
    }

    /// Gives a StatefulSet one turn; returns whether it needs another.
    async fn take_turn(&mut self, set: &SetName) -> bool {
        // A completed list triggers a reconcile. Namespaces not yet listed, or no longer labelled,
        // are skipped.
        if !self.context.observed.namespaces().contains(&set.0) {
            self.forget(set);
            return false;
        }
        if !self.context.cache.is_listed(&set.0) {
            return false;
        }
        let mut memory = self.memories.remove(set).unwrap_or_default();
        let (again, unfinished) = match reconcile(self.context, set, &mut memory).await {
            ReconcileOutcome::Ignored => {
                self.forget(set);
                return false;
            }
            ReconcileOutcome::Done(again) => (again, false),
            ReconcileOutcome::Failed(wait) => (Some(wait), false),
            ReconcileOutcome::Unfinished => (None, true),
        };
        if let Some(again) = again {
            self.alarms.insert(set.clone(), Instant::now() + again);
        }
        self.memories.insert(set.clone(), memory);
        unfinished
    }

    /// Sends one Event for each namespace with objects that are not taken in.
    fn notify_refused(&mut self) {
        let refused = self.context.observed.refused();
        self.notified_refused.retain(|namespace| {
            refused
                .iter()
                .any(|refused| refused.namespace == *namespace)
        });
        let fleet = self.context.observed.fleet.load();
        for refused in refused {
            let known = fleet
                .statefulsets_of(&refused.namespace)
                .map(|known| known.facts().name.clone());
            let Some(statefulset) = refused.statefulset.or_else(|| known.min()) else {
                continue;
            };
            if !self.notified_refused.insert(refused.namespace.clone()) {
                continue;
            }
            let known = fleet.known(&refused.namespace, &statefulset);
            let event = ObjectEvent {
                uid: known.facts().uid.clone(),
                namespace: refused.namespace,
                statefulset,
                reason: "NotTakenIn",
                message: refused.sentence,
            };
            // A full queue drops the Event; the log has it.
            let _ = self.context.events.try_send(event);
        }
    }

    fn forget(&mut self, set: &SetName) {
        self.memories.remove(set);
        self.context.reports.remove(set);
        let none = BTreeSet::new();
        self.context.poller.watch_closely(&set.0, &set.1, &none);
        self.context.queriers.ask(set, false);
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
