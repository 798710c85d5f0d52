//! Asks every injected pod's sidecar what it does: `GET /status` on the pod's address.
//!
//! Invariants: one question has a deadline and an answer a size; a sidecar that is slow, hostile or away delays no other
//! (`schedule`); answers are kept by pod UID and forgotten with the pod; only an answer that differs from the last one is
//! news. Only addresses that a pod can have are asked ([`Asked`]), redirects are not followed, and of an answer that is not the
//! expected pod's status nothing is repeated but its HTTP code and what kind of answer it is. Nothing is decided here.

mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hyper::body::Bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use self::schedule::{Schedule, Target};
use super::seen::{Seen, SetName};
use crate::adapters::http_client::{self, GetLimits};
use crate::core::agent_status::AgentStatus;
use crate::core::names;
use crate::core::observed::{Answer, PodFacts};
use crate::core::pod_address::Asked;

/// What one question may take.
const LIMITS: GetLimits = GetLimits {
    deadline: Duration::from_secs(2),
    max_answer_bytes: 64 * 1024,
    not_own_machine: true,
};
/// A settled pod is asked at least this often, however long the configured interval is.
const MAX_INTERVAL: Duration = Duration::from_mins(1);
/// Between two looks at which pods there are.
const LOOK: Duration = Duration::from_millis(250);

/// Missing blocks that are kept of all pods of a namespace; each takes some 100 bytes. A dozen pods that miss all that they may name
/// are a bucket that is broken, and one of them tells as much.
const MAX_MISSING_OF_NAMESPACE: usize = 16 * 1024;
/// A pod that names no more is not counted against them.
const FEW_MISSING: usize = 8;

/// What a sidecar answered last.
#[derive(Clone, Debug)]
pub struct Polled {
    /// The pod's namespace.
    namespace: String,
    /// Its document, or why there is none.
    pub answer: Answer,
    /// When it was given.
    pub at: Instant,
    /// Since when every answer was this one.
    pub unchanged_since: Instant,
}

/// The answers of all sidecars; empty while this process does not lead.
#[derive(Debug)]
pub struct Poller {
    seen: Arc<Seen>,
    polled: Mutex<BTreeMap<String, Polled>>,
    closely: Mutex<BTreeMap<SetName, BTreeSet<String>>>,
    woken: Notify,
    asked: Asked,
    /// How often it was run: the end of one run takes nothing from the next.
    runs: AtomicU64,
}

impl Poller {
    /// Asks nobody yet.
    #[must_use]
    pub fn new(seen: Arc<Seen>, asked: Asked) -> Arc<Self> {
        Arc::new(Self {
            seen,
            polled: Mutex::default(),
            closely: Mutex::default(),
            woken: Notify::new(),
            asked,
            runs: AtomicU64::new(0),
        })
    }

    /// The last answer of a pod's sidecar; `None` before there was one.
    #[must_use]
    pub fn polled(&self, uid: &str) -> Option<Polled> {
        self.lock().get(uid).cloned()
    }

    /// These pods of a StatefulSet are expected to change: they are asked at once and every half second, until this is
    /// called again without them.
    pub fn watch_closely(&self, namespace: &str, statefulset: &str, uids: &BTreeSet<String>) {
        let key = (namespace.to_owned(), statefulset.to_owned());
        let mut closely = self.closely.lock().unwrap_or_else(PoisonError::into_inner);
        let before = closely.remove(&key).unwrap_or_default();
        if !uids.is_empty() {
            closely.insert(key, uids.clone());
        }
        if before != *uids {
            self.woken.notify_one();
        }
    }

    /// Asks for as long as it is polled: while this process leads.
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

    async fn run_with<F: Future<Output = (Target, Answer)>>(&self, ask: impl Fn(Target) -> F) {
        let _ended = Ended(self, self.runs.fetch_add(1, Relaxed) + 1);
        self.lock().clear();
        let mut schedule = Schedule::default();
        let mut asking = FuturesUnordered::new();
        let mut version = None;
        let mut look = Instant::now();
        loop {
            if look <= Instant::now() {
                let current = self.seen.version();
                if version.replace(current) != Some(current) {
                    self.look(&mut schedule);
                }
                look = Instant::now() + LOOK;
            }
            while let Some(target) = schedule.take(Instant::now()) {
                asking.push(ask(target));
            }
            tokio::select! {
                Some((target, answer)) = asking.next() => self.take(&mut schedule, &target, answer),
                () = sleep_until(schedule.next().map_or(look, |next| next.min(look))) => {}
                () = self.woken.notified() => (version, look) = (None, Instant::now()),
            }
        }
    }

    /// Takes over which pods there are.
    fn look(&self, schedule: &mut Schedule) {
        let now = Instant::now();
        let closely: BTreeSet<String> = self
            .closely
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .flatten()
            .cloned()
            .collect();
        let (mut there, mut refused) = (BTreeSet::new(), BTreeMap::new());
        self.seen
            .each_pod(|namespace, pod| match target(namespace, pod, self.asked) {
                Some(Ok(target)) => {
                    there.insert(pod.uid.clone());
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
        schedule.keep(&there);
        let mut polled = self.lock();
        polled.retain(|uid, _| there.contains(uid) || refused.contains_key(uid));
        let mut news = Vec::new();
        for (uid, (namespace, statefulset, why)) in refused {
            let answer = Answer::Unreachable(why);
            let before = polled
                .get(&uid)
                .filter(|before| before.answer == answer)
                .map(|before| before.unchanged_since);
            polled.insert(
                uid,
                Polled {
                    namespace: namespace.clone(),
                    answer,
                    at: now,
                    unchanged_since: before.unwrap_or(now),
                },
            );
            news.extend(before.is_none().then_some((namespace, statefulset)));
        }
        drop(polled);
        for (namespace, statefulset) in news {
            self.seen.touch(&namespace, &statefulset);
        }
    }

    fn take(&self, schedule: &mut Schedule, target: &Target, mut answer: Answer) {
        let now = Instant::now();
        let configured = self
            .seen
            .observed
            .fleet
            .load()
            .config()
            .operator
            .update_interval_seconds;
        let interval = Duration::from_secs(configured.into()).min(MAX_INTERVAL);
        if !schedule.done(target, matches!(answer, Answer::Status(_)), interval, now) {
            return;
        }
        if let Answer::Status(status) = &answer {
            self.seen.answered(&target.uid, status, now);
        }
        let mut polled = self.lock();
        bound_missing(&polled, target, &mut answer);
        let before = polled
            .get(&target.uid)
            .filter(|before| before.answer == answer)
            .map(|before| before.unchanged_since);
        let namespace = target.namespace.clone();
        polled.insert(
            target.uid.clone(),
            Polled {
                namespace,
                answer,
                at: now,
                unchanged_since: before.unwrap_or(now),
            },
        );
        drop(polled);
        if before.is_none() {
            self.seen.touch(&target.namespace, &target.statefulset);
        }
    }

    /// As if a sidecar had answered so.
    #[cfg(test)]
    pub(super) fn answered_for_test(&self, uid: &str, status: AgentStatus) {
        let (now, answer) = (Instant::now(), Answer::Status(Box::new(status)));
        self.lock().insert(
            uid.to_owned(),
            Polled {
                namespace: String::new(),
                answer,
                at: now,
                unchanged_since: now,
            },
        );
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Polled>> {
        self.polled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was answered is not kept up to date any longer.
struct Ended<'a>(&'a Poller, u64);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if self.0.runs.load(Relaxed) == self.1 {
            self.0.lock().clear();
            self.0
                .closely
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear();
        }
    }
}

/// Whom to ask, if the pod can be asked; why not, if its address is none that is asked.
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

/// The part of a document by which a newer one is known.
#[derive(Deserialize)]
struct Contract {
    contract: u32,
}

fn read(target: &Target, answer: Result<(u16, Bytes), String>) -> Answer {
    let usual = format!(
        "the server must reach port {} of the pod; what usually prevents it is a NetworkPolicy, or a service mesh that takes the connection",
        names::SIDECAR_PORT
    );
    let body = match answer {
        Ok((200, body)) => body,
        Ok((status, _)) => {
            return Answer::Unreachable(format!(
                "pod {} answers {status} on /status: {usual}",
                target.name
            ));
        }
        Err(why) => {
            return Answer::Unreachable(format!(
                "pod {} cannot be asked: {why}: {usual}",
                target.name
            ));
        }
    };
    let status = match AgentStatus::read(&body) {
        Ok(status) => status,
        Err(error) => return Answer::Unreachable(unreadable(target, &body, &error)),
    };
    if let Some(other) = somebody_else(target, &status) {
        return Answer::Unreachable(format!(
            "pod {}: its address answers as {other}, which has it by now",
            target.name
        ));
    }
    Answer::Status(Box::new(status))
}

/// Who it is that answers, if it is not the pod that was asked: addresses are given again, and pods of several namespaces, or
/// of one StatefulSet one after the other, have the same name. Agents say their UID or their namespace since contract 2. What
/// it calls itself is not repeated: whoever may set an address would read by it what answers there.
fn somebody_else(target: &Target, status: &AgentStatus) -> Option<&'static str> {
    if status.pod != target.name {
        return Some("a pod of another name");
    }
    match (&status.uid, &status.namespace) {
        (Some(uid), namespace) if *uid != target.uid => {
            let elsewhere = namespace
                .as_ref()
                .is_some_and(|namespace| *namespace != target.namespace);
            Some(if elsewhere {
                "a pod of the same name in another namespace"
            } else {
                "another pod of the same name"
            })
        }
        (None, Some(namespace)) if *namespace != target.namespace => {
            Some("a pod of the same name in another namespace")
        }
        _ => None,
    }
}

fn missing(answer: &Answer) -> usize {
    answer
        .status()
        .and_then(|status| status.blocks.as_ref())
        .map_or(0, |blocks| blocks.missing.len())
}

/// Cuts a list of missing blocks that is one too many for its namespace: the pod counts as one that lacks more than it names.
fn bound_missing(polled: &BTreeMap<String, Polled>, target: &Target, answer: &mut Answer) {
    let own = missing(answer);
    if own <= FEW_MISSING {
        return;
    }
    let others = polled
        .iter()
        .filter(|(uid, polled)| **uid != target.uid && polled.namespace == target.namespace);
    let held: usize = others.map(|(_, polled)| missing(&polled.answer)).sum();
    if let Answer::Status(status) = answer
        && let Some(blocks) = &mut status.blocks
        && held + own > MAX_MISSING_OF_NAMESPACE
    {
        blocks.missing_total = blocks
            .missing_total
            .max(u64::try_from(own).unwrap_or(u64::MAX));
        blocks.missing = Vec::new();
    }
}

fn unreadable(target: &Target, body: &[u8], error: &serde_json::Error) -> String {
    let ours = names::CONTRACT;
    match serde_json::from_slice::<Contract>(body) {
        Ok(Contract { contract }) if contract > ours => {
            format!(
                "pod {}: its agent speaks contract {contract}, this server {ours}: upgrade the server",
                target.name
            )
        }
        _ => {
            // serde repeats what it does not like; here only its kind is.
            let kind = if error.is_data() {
                "JSON, and no status document"
            } else {
                "no JSON"
            };
            format!(
                "pod {}: what answers on port {} is {kind}",
                target.name,
                names::SIDECAR_PORT
            )
        }
    }
}

/// Registered as a collector, so that the values are those of the scrape.
#[derive(Debug)]
pub struct PollMetrics(pub Arc<Poller>);

impl Collector for PollMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let unreachable = self
            .0
            .lock()
            .values()
            .filter(|polled| matches!(polled.answer, Answer::Unreachable(_)))
            .count();
        let gauge = ConstGauge::new(i64::try_from(unreachable).unwrap_or(i64::MAX));
        let help = "Sidecars that the leader cannot ask; their StatefulSets' rollouts wait. Look at NetworkPolicies and service meshes, port 10908";
        gauge.encode(encoder.encode_descriptor(
            "timeshard_unreachable_sidecars",
            help,
            None,
            gauge.metric_type(),
        )?)
    }
}

#[cfg(test)]
mod tests;
