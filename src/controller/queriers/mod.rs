//! Asks the queriers of StatefulSets in a step which pods they use: `GET /api/v1/stores`.
//!
//! Queriers are the pods of the StatefulSet's own namespace that run `thanos query`, unless their
//! arguments name other Services only, and those that the configuration names. Invariants: nothing is
//! asked unless some StatefulSet's step needs it, and answers are forgotten afterwards and with the
//! pod; each request has a deadline, each answer a limit in bytes and in what is kept of it, and all
//! answers of a namespace together a limit in bytes per second; a slow or hostile querier delays no
//! other namespace's (`poll::schedule`). Only addresses that a pod can have are asked. An answer
//! counts from when its request was sent. Deliberately absent: what an answer means for a rollout.

mod answer;
mod configured;
mod state;
mod target;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use self::answer::{KnownStores, QuerierReply, ask};
use self::configured::ConfiguredPods;
use self::state::{QuerierAnswers, SetStores, unasked};
use self::target::{QuerierTarget, SetServices, target};
use super::poll::schedule::{Pauses, Schedule};
use super::write::Writer;
use crate::adapters::lock::lock;
use crate::controller::cache::{ClusterCache, SetName};
use crate::core::config::ConfiguredQueriers;
use crate::core::kube::observed::{NamespaceFacts, QuerierFacts};
use crate::core::kube::pod_address::Asked;
use crate::core::rollout::queriers::ObservedQuerier;
use crate::core::thanos::query::AsksSet;

/// Queriers of one StatefulSet that are asked, and of one item of the configuration.
const MAX_QUERIERS: usize = 32;
/// For connecting, the request and the whole answer together.
const DEADLINE: Duration = Duration::from_secs(2);
/// Pause after an answer.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest pause before a querier that did not answer is asked again.
const MAX_BACK_OFF: Duration = Duration::from_secs(5);
/// Read of all answers of one namespace in a second, on average: a longer answer has a longer pause.
const BYTES_PER_SECOND: usize = 4 * 1024 * 1024;
/// With a longer pause, an answer would be out of date before the next one.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Interval at which the list of queriers is refreshed, and new answers lead to a reconcile.
const REFRESH: Duration = Duration::from_millis(250);

/// The last answers of all queriers; empty while this process does not lead.
#[derive(Debug)]
pub(super) struct QuerierPoller {
    cache: Arc<ClusterCache>,
    asked: Asked,
    deadline: Duration,
    state: Mutex<QuerierAnswers>,
    woken: Notify,
    /// Notified when the first StatefulSet needs the queriers.
    begun: Notify,
    /// Number of runs, so that the end of one does not clear the answers of the next.
    runs: AtomicU64,
}

impl QuerierPoller {
    pub(super) fn new(cache: Arc<ClusterCache>, asked: Asked) -> Arc<Self> {
        Arc::new(Self {
            cache,
            asked,
            deadline: DEADLINE,
            state: Mutex::default(),
            woken: Notify::new(),
            begun: Notify::new(),
            runs: AtomicU64::new(0),
        })
    }

    /// Has the queriers of a StatefulSet asked every second, until this is called again without.
    pub(super) fn ask(&self, set: &SetName, needed: bool) {
        let mut state = lock(&self.state);
        let first = state.sets.is_empty();
        let changed = if needed {
            state.sets.insert(set.clone())
        } else {
            state.sets.remove(set)
        };
        if changed && state.sets.is_empty() {
            // The next step does not rely on an old list.
            state.configured.clear();
            state.need += 1;
        }
        drop(state);
        if changed {
            self.woken.notify_one();
            if first {
                self.begun.notify_one();
            }
        }
    }

    /// The queriers of a StatefulSet, as last asked. `facts` has its pods, and the queriers and
    /// Services of its namespace.
    pub(super) fn observed(
        &self,
        set: &SetName,
        facts: &NamespaceFacts,
        items: &[ConfiguredQueriers],
        now: Instant,
    ) -> Vec<ObservedQuerier> {
        let of = SetStores::new(facts, set, now);
        let state = lock(&self.state);
        let mut all = state.configured_of(items, &of);
        let seen: BTreeSet<String> = all.iter().map(|one| one.uid.clone()).collect();
        let found = found(facts, &set.0, &of.services, &seen);
        let asked = found.iter().take(MAX_QUERIERS);
        all.extend(asked.map(|(querier, asks)| state.observed(&set.0, querier, *asks, &of)));
        drop(state);
        all.extend(unasked(&set.0, &found, facts));
        all
    }

    /// Asks queriers until it is dropped: while this process leads. `writer` lists the configured
    /// ones.
    pub(super) async fn run(&self, writer: &Writer) {
        let _ended = QueriersGuard(self, self.runs.fetch_add(1, Relaxed) + 1);
        tokio::join!(self.ask_all(), self.list_configured(writer));
    }

    async fn ask_all(&self) {
        let mut schedule = Schedule::<QuerierTarget>::default();
        let mut asking = FuturesUnordered::new();
        let mut version = None;
        let mut refresh = Instant::now();
        loop {
            let needed = !lock(&self.state).sets.is_empty();
            if refresh <= Instant::now() {
                let current = self.cache.version();
                if version.replace(current) != Some(current) {
                    self.refresh(&mut schedule);
                }
                self.touch();
                refresh = Instant::now() + REFRESH;
            }
            while let Some(target) = schedule.take(Instant::now()) {
                let known = |target: &QuerierTarget| self.known(target);
                let limits = (self.deadline, self.asked == Asked::Pods);
                asking.push(ask(target, limits, known));
            }
            let next = schedule.next().map_or(refresh, |next| next.min(refresh));
            tokio::select! {
                Some(reply) = asking.next() => self.take(&mut schedule, reply),
                () = sleep_until(next), if needed => {}
                () = self.woken.notified() => (version, refresh) = (None, Instant::now()),
            }
        }
    }

    /// Updates the schedule from the cached and the configured pods.
    fn refresh(&self, schedule: &mut Schedule<QuerierTarget>) {
        let now = Instant::now();
        let (mut targets, mut refused) = (BTreeMap::new(), BTreeMap::new());
        let mut state = lock(&self.state);
        let mut add = |namespace: &str, querier: &QuerierFacts, item: Option<_>| match target(
            namespace, querier, item, self.asked,
        ) {
            Some(Ok(target)) => drop(targets.insert(querier.uid.clone(), target)),
            Some(Err(why)) => {
                let about = (namespace.to_owned(), item.is_some(), why);
                refused.insert(querier.uid.clone(), about);
            }
            None => {}
        };
        if !state.sets.is_empty() {
            for ConfiguredPods { item, pods } in &state.configured {
                for querier in pods.iter().flatten().take(MAX_QUERIERS) {
                    add(&item.namespace, querier, Some(item));
                }
            }
        }
        let configured: BTreeSet<String> = state.configured_uids();
        for set in &state.sets {
            self.cache.with(&set.0, |facts| {
                let services = SetServices::new(facts, (&set.0, &set.1));
                let found = found(facts, &set.0, &services, &configured);
                for (querier, _) in found.iter().take(MAX_QUERIERS) {
                    add(&set.0, querier, None);
                }
            });
        }
        let present: BTreeSet<String> = targets.keys().cloned().collect();
        state.count(targets.values());
        for target in targets.into_values() {
            schedule.put(target, true, now);
        }
        schedule.keep(&present);
        let gone = |uid: &String| present.contains(uid) || refused.contains_key(uid);
        state.answers.retain(|uid, _| gone(uid));
        for (uid, (namespace, configured, why)) in refused {
            if state.record(&uid, Err(why), now) {
                state.touch(&namespace, configured);
            }
        }
    }

    fn take(&self, schedule: &mut Schedule<QuerierTarget>, reply: QuerierReply) {
        let QuerierReply {
            target,
            sent,
            received,
            answer,
        } = reply;
        let mut state = lock(&self.state);
        let queriers = state.asked_of(&target.namespace);
        let pauses = Pauses {
            closely: INTERVAL,
            ordinary: INTERVAL,
            max_back_off: MAX_BACK_OFF,
            least: pause_after(received, queriers),
        };
        // Its answers could not be read often enough to rely on.
        let answer = answer.and_then(|listed| {
            if pauses.least <= MAX_PAUSE {
                Ok(listed)
            } else {
                Err(too_long(received, queriers))
            }
        });
        if !schedule.done(&target, answer.is_ok(), pauses, Instant::now()) {
            return;
        }
        if state.record(&target.uid, answer, sent) {
            state.touch(&target.namespace, target.configured);
        }
    }

    fn touch(&self) {
        let touched = lock(&self.state).take_touched();
        for (namespace, statefulset) in touched {
            self.cache.touch(&namespace, &statefulset);
        }
    }

    /// The pods and Services that an answer may be about.
    fn known(&self, target: &QuerierTarget) -> KnownStores {
        let sets = lock(&self.state).affected(&target.namespace, target.configured);
        let namespaces: BTreeSet<String> =
            sets.into_iter().map(|(namespace, _)| namespace).collect();
        let mut known = KnownStores::default();
        for namespace in namespaces {
            self.cache.with(&namespace, |facts| known.add(facts));
        }
        known
    }
}

/// The queriers of a namespace that may ask a StatefulSet's pods, in a fixed order, without those in
/// `skip`.
fn found<'a>(
    facts: &'a NamespaceFacts,
    namespace: &str,
    services: &SetServices<'_>,
    skip: &BTreeSet<String>,
) -> Vec<(&'a QuerierFacts, AsksSet)> {
    let queriers = facts.queriers.values();
    queriers
        .filter(|querier| querier.ip.is_some() && !skip.contains(&querier.uid))
        .map(|querier| (querier, services.asked_by(namespace, querier)))
        .filter(|(_, asks)| *asks != AsksSet::No)
        .collect()
}

/// The pause after an answer of this size, so that all queriers of a namespace keep within its share.
fn pause_after(received: usize, queriers: usize) -> Duration {
    let bytes = received.saturating_mul(queriers.max(1));
    let millis = bytes.saturating_mul(1_000) / BYTES_PER_SECOND;
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

fn too_long(received: usize, queriers: usize) -> String {
    let most = BYTES_PER_SECOND / 1024 / 1024 * usize::try_from(MAX_PAUSE.as_secs()).unwrap_or(1);
    let kib = received.div_ceil(1024);
    format!(
        "its list takes {kib} KiB, and those of {queriers} queriers of one namespace may take {most} MiB"
    )
}

/// Clears the answers when a run ends, unless another one has begun.
struct QueriersGuard<'a>(&'a QuerierPoller, u64);

impl Drop for QueriersGuard<'_> {
    fn drop(&mut self) {
        if self.0.runs.load(Relaxed) == self.1 {
            *lock(&self.0.state) = QuerierAnswers::default();
        }
    }
}
