//! One tenure: from the moment this process leads until it no longer does.
//!
//! Questions run beside it, watches before, during and after it (`observe`); here each StatefulSet with news is looked at, and what `core::reconcile` decides
//! is carried out. Invariants:
//! - nothing is written unless the lease lasts longer than the write may take;
//! - one StatefulSet at a time, so that two looks never write over each other; namespaces take turns, and a turn is bounded (`turn`);
//! - a step is published only after its budgets are closed and the pods were looked at once more, past every cache;
//! - what failed is tried again, ever later, and at once when something changes;
//! - once the shutdown has begun nothing is written but what `release` lets go of.
//!
//! What is remembered here makes looks better (who was hurried, what was written), never right: the next leader begins
//! with nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::look::Outcome;
use super::memory::Memory;
use super::poll::Poller;
use super::release::{Replica, Sweep};
use super::reports::Reports;
use super::seen::{Seen, SetName};
use super::turn::Queue;
use super::write::Writer;
use crate::adapters::cluster::Observed;
use crate::adapters::events;
use crate::adapters::lease::Leadership;
use crate::adapters::signals::{Shutdown, Stage};
use crate::core::notice::Notice;

/// What a tenure works with.
pub(super) struct Tenure {
    pub(super) observed: Arc<Observed>,
    pub(super) seen: Arc<Seen>,
    pub(super) poller: Arc<Poller>,
    pub(super) writer: Arc<Writer>,
    pub(super) leadership: Leadership,
    pub(super) reports: Arc<Reports>,
    pub(super) notices: events::Sender,
    pub(super) replica: Replica,
    pub(super) shutdown: Shutdown,
    pub(super) memories: HashMap<SetName, Memory>,
    /// When to look again although nothing changed.
    pub(super) alarms: BTreeMap<SetName, Instant>,
    /// Namespaces whose people were told that something is not taken in.
    pub(super) told_refused: BTreeSet<String>,
}

impl Tenure {
    pub(super) fn new(refresher: &super::Refresher) -> Self {
        Self {
            observed: refresher.observed.clone(),
            seen: refresher.seen.clone(),
            poller: refresher.poller.clone(),
            writer: refresher.writer.clone(),
            leadership: refresher.leadership.clone(),
            reports: refresher.reports.clone(),
            notices: refresher.notices.clone(),
            replica: refresher.replica.clone(),
            shutdown: refresher.shutdown.clone(),
            memories: HashMap::new(),
            alarms: BTreeMap::new(),
            told_refused: BTreeSet::new(),
        }
    }

    /// Works until it is dropped or the shutdown begins; then it has let go of what must not stay as it is.
    pub(super) async fn run(mut self) {
        // First of all: what changes from now on is news, and everything is for a start.
        let _leads = self.seen.lead();
        let mut beside = JoinSet::new();
        let poller = self.poller.clone();
        beside.spawn(async move { poller.run().await });
        let period = |observed: &Observed| {
            Duration::from_secs(
                observed
                    .fleet
                    .load()
                    .config()
                    .operator
                    .update_interval_seconds
                    .into(),
            )
        };
        let mut resync = interval_at(
            Instant::now() + period(&self.observed),
            period(&self.observed),
        );
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut shutdown, mut labelled) = (self.shutdown.clone(), self.observed.labelled());
        // Budgets that nobody keeps any more are looked for now, since no leader may have been there when that began.
        let (mut sweep, mut queue) = (Sweep::default(), Queue::default());
        sweep.begin(true);
        loop {
            let alarm = self.alarms.values().min().copied();
            let wanted = period(&self.observed);
            if resync.period() != wanted {
                // The configuration was edited.
                resync = interval_at(Instant::now() + wanted, wanted);
                resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
            }
            let due: BTreeSet<SetName> = tokio::select! {
                () = shutdown.reached(Stage::Draining) => return self.farewell().await,
                _ = labelled.changed() => {
                    sweep.begin(true);
                    BTreeSet::new()
                }
                () = sleep_until(sweep.at.unwrap_or_else(Instant::now)), if sweep.at.is_some() => {
                    self.sweep(&mut sweep).await;
                    BTreeSet::new()
                }
                sets = self.seen.changed() => {
                    self.tell_refused();
                    sets.into_iter().collect()
                }
                _ = resync.tick() => {
                    sweep.begin(false);
                    self.tell_refused();
                    self.all()
                }
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {
                    let now = Instant::now();
                    self.alarms.iter().filter(|(_, at)| **at <= now).map(|(set, _)| set.clone()).collect()
                }
                // Chosen at random among what is due: none of these keeps another from its turn.
                () = std::future::ready(()), if !queue.is_empty() => {
                    let set = queue.pop();
                    let left = match &set {
                        Some(set) => self.one(set).await,
                        None => false,
                    };
                    set.into_iter().filter(|_| left).collect()
                }
            };
            for set in due {
                self.alarms.remove(&set);
                queue.push(set);
            }
        }
    }

    /// Every StatefulSet that is known, or was.
    fn all(&self) -> BTreeSet<SetName> {
        let fleet = self.observed.fleet.load();
        let known = fleet
            .statefulsets()
            .map(|known| (known.facts().namespace.clone(), known.facts().name.clone()));
        known.chain(self.memories.keys().cloned()).collect()
    }

    /// One turn; whether there is more to do.
    async fn one(&mut self, set: &SetName) -> bool {
        // Listing a namespace is news; until then, and once it is no longer labelled, nothing is decided about it.
        if !self.observed.namespaces().contains(&set.0) {
            self.forget(set);
            return false;
        }
        if !self.seen.is_listed(&set.0) {
            return false;
        }
        let mut memory = self.memories.remove(set).unwrap_or_default();
        let outcome = self.look(set, &mut memory).await;
        let (again, left) = match outcome {
            Outcome::Nothing => {
                self.forget(set);
                return false;
            }
            Outcome::Fine(again) => (again, false),
            Outcome::Failed(wait) => (Some(wait), false),
            Outcome::Unfinished => (None, true),
        };
        if let Some(again) = again {
            self.alarms.insert(set.clone(), Instant::now() + again);
        }
        self.memories.insert(set.clone(), memory);
        left
    }

    /// Tells each namespace's people once while something of theirs is not taken in.
    fn tell_refused(&mut self) {
        let refused = self.observed.refused();
        self.told_refused.retain(|namespace| {
            refused
                .iter()
                .any(|refused| refused.namespace == *namespace)
        });
        for refused in refused {
            let fleet = self.observed.fleet.load();
            let known = fleet
                .statefulsets_of(&refused.namespace)
                .map(|known| known.facts().name.clone());
            let Some(statefulset) = refused.statefulset.or_else(|| known.min()) else {
                continue;
            };
            if !self.told_refused.insert(refused.namespace.clone()) {
                continue;
            }
            let uid = fleet
                .known(&refused.namespace, &statefulset)
                .facts()
                .uid
                .clone();
            let notice = Notice {
                namespace: refused.namespace,
                statefulset,
                uid,
                reason: "NotTakenIn",
                message: refused.sentence,
            };
            // A full queue drops the Event; the log has it.
            let _ = self.notices.try_send(notice);
        }
    }

    fn forget(&mut self, set: &SetName) {
        self.memories.remove(set);
        self.reports.remove(set);
        self.poller.watch_closely(&set.0, &set.1, &BTreeSet::new());
    }
}
