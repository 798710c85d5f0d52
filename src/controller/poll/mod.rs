//! Polls the sidecar of every injected pod: `GET /status` on the pod's address.
//!
//! Invariants: each request has a deadline and each answer a maximum size; a slow, hostile or
//! unreachable sidecar delays no other (`schedule`); answers are kept by pod UID and forgotten with
//! the pod; only an answer that differs from the last one triggers a reconcile. Only addresses that
//! a pod can have are asked ([`Asked`]), and redirects are not followed. If the answer is not the
//! expected pod's status, messages repeat only its HTTP code and kind. Nothing is decided here.

mod answer;
pub(super) mod schedule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use self::answer::{bound_missing, read};
use self::schedule::{Pauses, Schedule, Target};
use crate::adapters::http_client::{self, GetLimits};
use crate::adapters::lock::lock;
use crate::controller::cache::{ClusterCache, SetName};
use crate::core::kube::observed::{PodAnswer, PodFacts};
use crate::core::kube::pod_address::Asked;
use crate::core::model::names;

const LIMITS: GetLimits = GetLimits {
    deadline: Duration::from_secs(2),
    max_answer_bytes: 64 * 1024,
    not_own_machine: true,
};
/// Longest interval at which a settled pod is asked, whatever is configured.
const MAX_INTERVAL: Duration = Duration::from_mins(1);
/// Interval at which a pod is asked that is expected to change.
const CLOSELY: Duration = Duration::from_millis(500);
/// Longest pause before a sidecar that did not answer is asked again.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
/// Interval at which the list of pods is refreshed.
const REFRESH: Duration = Duration::from_millis(250);

/// A sidecar's last answer.
#[derive(Clone, Debug)]
pub struct Polled {
    namespace: String,
    pub answer: PodAnswer,
    pub at: Instant,
    /// Since when every answer has been this one.
    pub unchanged_since: Instant,
}

/// The last answers of all sidecars; empty while this process does not lead.
#[derive(Debug)]
pub struct Poller {
    cache: Arc<ClusterCache>,
    polled: Mutex<BTreeMap<String, Polled>>,
    closely: Mutex<BTreeMap<SetName, BTreeSet<String>>>,
    woken: Notify,
    asked: Asked,
    /// Number of runs, so that the end of one does not clear the answers of the next.
    runs: AtomicU64,
}

impl Poller {
    #[must_use]
    pub fn new(cache: Arc<ClusterCache>, asked: Asked) -> Arc<Self> {
        Arc::new(Self {
            cache,
            polled: Mutex::default(),
            closely: Mutex::default(),
            woken: Notify::new(),
            asked,
            runs: AtomicU64::new(0),
        })
    }

    /// The last answer of a pod's sidecar.
    #[must_use]
    pub fn polled(&self, uid: &str) -> Option<Polled> {
        lock(&self.polled).get(uid).cloned()
    }

    /// Asks these pods of a StatefulSet, which are expected to change, immediately and every half
    /// second, until this is called again without them.
    pub fn watch_closely(&self, namespace: &str, statefulset: &str, uids: &BTreeSet<String>) {
        let key = (namespace.to_owned(), statefulset.to_owned());
        let mut closely = lock(&self.closely);
        let before = closely.remove(&key).unwrap_or_default();
        if !uids.is_empty() {
            closely.insert(key, uids.clone());
        }
        if before != *uids {
            self.woken.notify_one();
        }
    }

    /// Polls sidecars until it is dropped: while this process leads.
    pub async fn run(&self) {
        self.run_on(names::SIDECAR_PORT).await;
    }

    async fn run_on(&self, port: u16) {
        let limits = GetLimits {
            not_own_machine: self.asked == Asked::Pods,
            ..LIMITS
        };
        self.run_with(|target| async move {
            let address = SocketAddr::new(target.ip, port);
            let answer = read(&target, http_client::get(address, "/status", limits).await);
            (target, answer)
        })
        .await;
    }

    async fn run_with<F: Future<Output = (Target, PodAnswer)>>(&self, ask: impl Fn(Target) -> F) {
        let _ended = PollerGuard(self, self.runs.fetch_add(1, Relaxed) + 1);
        lock(&self.polled).clear();
        let mut schedule = Schedule::<Target>::default();
        let mut asking = FuturesUnordered::new();
        let mut version = None;
        let mut refresh = Instant::now();
        loop {
            if refresh <= Instant::now() {
                let current = self.cache.version();
                if version.replace(current) != Some(current) {
                    self.refresh(&mut schedule);
                }
                refresh = Instant::now() + REFRESH;
            }
            while let Some(target) = schedule.take(Instant::now()) {
                asking.push(ask(target));
            }
            tokio::select! {
                Some((target, answer)) = asking.next() => self.take(&mut schedule, &target, answer),
                () = sleep_until(schedule.next().map_or(refresh, |next| next.min(refresh))) => {}
                () = self.woken.notified() => (version, refresh) = (None, Instant::now()),
            }
        }
    }

    /// Updates the schedule from the cached pods.
    fn refresh(&self, schedule: &mut Schedule<Target>) {
        let now = Instant::now();
        let closely: BTreeSet<String> = lock(&self.closely).values().flatten().cloned().collect();
        let (mut present, mut refused) = (BTreeSet::new(), BTreeMap::new());
        self.cache
            .each_pod(|namespace, pod| match target(namespace, pod, self.asked) {
                Some(Ok(target)) => {
                    present.insert(pod.uid.clone());
                    schedule.put(target, closely.contains(&pod.uid), now);
                }
                Some(Err(why)) => {
                    refused.insert(
                        pod.uid.clone(),
                        (namespace.to_owned(), pod.statefulset.clone(), why),
                    );
                }
                None => {}
            });
        schedule.keep(&present);
        let mut polled = lock(&self.polled);
        polled.retain(|uid, _| present.contains(uid) || refused.contains_key(uid));
        let mut changed = Vec::new();
        for (uid, (namespace, statefulset, why)) in refused {
            if record(
                &mut polled,
                &uid,
                &namespace,
                PodAnswer::Unreachable(why),
                now,
            ) {
                changed.push((namespace, statefulset));
            }
        }
        drop(polled);
        for (namespace, statefulset) in changed {
            self.cache.touch(&namespace, &statefulset);
        }
    }

    fn take(&self, schedule: &mut Schedule<Target>, target: &Target, mut answer: PodAnswer) {
        let now = Instant::now();
        let configured = self
            .cache
            .observed
            .fleet
            .load()
            .config()
            .operator
            .update_interval_seconds;
        let pauses = Pauses {
            closely: CLOSELY,
            ordinary: Duration::from_secs(configured.into()).min(MAX_INTERVAL),
            max_back_off: MAX_BACK_OFF,
            least: Duration::ZERO,
        };
        let answered = matches!(answer, PodAnswer::Status(_));
        if !schedule.done(target, answered, pauses, now) {
            return;
        }
        if let PodAnswer::Status(status) = &answer {
            self.cache.answered(&target.uid, status, now);
        }
        let mut polled = lock(&self.polled);
        bound_missing(&polled, target, &mut answer);
        let changed = record(&mut polled, &target.uid, &target.namespace, answer, now);
        drop(polled);
        if changed {
            self.cache.touch(&target.namespace, &target.statefulset);
        }
    }

    /// Records an answer as if the sidecar had given it.
    #[cfg(test)]
    pub(super) fn answered_for_test(
        &self,
        uid: &str,
        status: crate::core::agent::status::AgentStatus,
    ) {
        let answer = PodAnswer::Status(Box::new(status));
        record(&mut lock(&self.polled), uid, "", answer, Instant::now());
    }
}

/// Records an answer; returns whether it differs from the last one.
fn record(
    polled: &mut BTreeMap<String, Polled>,
    uid: &str,
    namespace: &str,
    answer: PodAnswer,
    at: Instant,
) -> bool {
    let before = polled.get(uid).filter(|before| before.answer == answer);
    let unchanged_since = before.map(|before| before.unchanged_since);
    let now = Polled {
        namespace: namespace.to_owned(),
        answer,
        at,
        unchanged_since: unchanged_since.unwrap_or(at),
    };
    polled.insert(uid.to_owned(), now);
    unchanged_since.is_none()
}

/// Clears the answers when a run ends, unless another one has begun.
struct PollerGuard<'a>(&'a Poller, u64);

impl Drop for PollerGuard<'_> {
    fn drop(&mut self) {
        if self.0.runs.load(Relaxed) == self.1 {
            lock(&self.0.polled).clear();
            lock(&self.0.closely).clear();
        }
    }
}

/// The pod as a target; `None` if it cannot be asked now, and an error if its address must not be.
fn target(namespace: &str, pod: &PodFacts, asked: Asked) -> Option<Result<Target, String>> {
    let ip = pod
        .ip
        .as_ref()
        .filter(|_| pod.injected && !pod.terminating)?;
    Some(match asked.address(ip) {
        Err(why) => Err(format!("pod {}: {why}", pod.name)),
        Ok(ip) => Ok(Target {
            uid: pod.uid.clone(),
            namespace: namespace.to_owned(),
            statefulset: pod.statefulset.clone(),
            name: pod.name.clone(),
            ip,
            ready: (pod.ready, pod.ready_changed_unix_seconds),
        }),
    })
}

/// A collector, so that the values are read at the scrape.
#[derive(Debug)]
pub struct PollMetrics(pub Arc<Poller>);

impl Collector for PollMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let unreachable = lock(&self.0.polled)
            .values()
            .filter(|polled| matches!(polled.answer, PodAnswer::Unreachable(_)))
            .count();
        let gauge = ConstGauge::new(i64::try_from(unreachable).unwrap_or(i64::MAX));
        let help = "Sidecars that the leader cannot reach; the rollouts of their StatefulSets wait. Check NetworkPolicies and service meshes, port 10908";
        gauge.encode(encoder.encode_descriptor(
            "timeshard_unreachable_sidecars",
            help,
            None,
            gauge.metric_type(),
        )?)
    }
}
