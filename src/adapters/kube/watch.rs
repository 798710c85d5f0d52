//! Watches of the cluster: what every follower of objects shares.
//!
//! Invariants: a broken watch is restarted with back-off (by the caller's stream, with
//! [`Patience`]), and the objects known before stay in force; an object deleted while the watch was
//! down is noticed by its absence from the next list. Only errors are stored here.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, DefaultHasher, Hash as _, Hasher as _, RandomState};
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::{StreamExt as _, TryStream, TryStreamExt as _};
use kube::ResourceExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::adapters::causes::with_causes;
use crate::adapters::lock::lock;

use crate::core::model::text::short_line;

/// Objects in a page of a list. Together with `trimming_client` it bounds the memory of one answer.
pub const PAGE_OBJECTS: u32 = 50;
/// Longest time before a watch is renewed.
const MAX_SECONDS: u32 = 290;
/// How much earlier some watches are renewed.
const SPREAD_SECONDS: u32 = 90;

/// How much of an error is kept. Characters.
const MAX_ERROR_CHARS: usize = 500;

/// Pause after the first failure of a watch.
const FIRST_PAUSE: Duration = Duration::from_millis(800);
/// Longest pause, after which a repair is noticed.
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// A watch without failures for this long starts with the first pause again.
const FORGET_AFTER: Duration = Duration::from_mins(1);

/// Growing pauses after failures. kube's own back-off is reset by every event of its stream, even
/// by the start of a list that is then refused: a namespace without a Role would be asked every
/// second for ever.
#[derive(Debug, Default)]
pub struct Patience {
    failed: Option<(Instant, Duration)>,
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let pause = match self.failed {
            Some((at, pause)) if now.duration_since(at) < pause + FORGET_AFTER => {
                (pause * 2).min(MAX_PAUSE)
            }
            _ => FIRST_PAUSE,
        };
        self.failed = Some((now, pause));
        // Up to a quarter less, so that watches that failed together are not restarted together.
        let less = u32::try_from(RandomState::new().build_hasher().finish() % 250).unwrap_or(0);
        Some(pause * (1000 - less) / 1000)
    }
}

impl Backoff for Patience {
    /// Does nothing: only time resets it.
    fn reset(&mut self) {}
}

/// State of all watches.
#[derive(Debug, Default)]
pub struct WatchHealth {
    broken: AtomicU64,
    /// By watch, so that a healthy one does not hide another's error.
    errors: Mutex<BTreeMap<String, String>>,
}

impl WatchHealth {
    /// Records a broken watch.
    pub fn broke(&self, watch: &str, error: &watcher::Error) {
        self.failed(watch, &with_causes(error));
    }

    /// Records a failure of a watch, or of a read that it caused.
    pub fn failed(&self, watch: &str, error: &str) {
        self.broken.fetch_add(1, Relaxed);
        let error = short_line(error, MAX_ERROR_CHARS);
        tracing::warn!(
            watch,
            error,
            "watch failed; it is restarted, and known objects stay in force"
        );
        lock(&self.errors).insert(watch.to_owned(), error);
    }

    /// Clears a watch's error.
    pub fn well(&self, watch: &str) {
        lock(&self.errors).remove(watch);
    }

    /// Number of failures so far.
    #[must_use]
    pub fn broken(&self) -> u64 {
        self.broken.load(Relaxed)
    }

    /// The error of a watch that is broken now.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        let errors = lock(&self.errors);
        errors
            .first_key_value()
            .map(|(watch, error)| format!("{watch}: {error}"))
    }
}

/// How to list and watch. All watches start together with the server. With one duration they would
/// all be renewed within one second, every five minutes, so `watch` varies it.
#[must_use]
pub fn config(watch: &str) -> watcher::Config {
    let mut hasher = DefaultHasher::new();
    watch.hash(&mut hasher);
    let less = u32::try_from(hasher.finish() % u64::from(SPREAD_SECONDS + 1)).unwrap_or(0);
    watcher::Config::default()
        .page_size(PAGE_OBJECTS)
        .timeout(MAX_SECONDS - less)
}

/// The name of a watch in messages.
#[must_use]
pub fn of_namespace(kind: &str, namespace: &str) -> String {
    format!("{kind} in {namespace}")
}

/// Clears the watch's recorded error when its task stops.
struct HealthGuard<'a>(&'a WatchHealth, &'a str);

impl Drop for HealthGuard<'_> {
    fn drop(&mut self) {
        self.0.well(self.1);
    }
}

/// Applies one kind's events until it is dropped. `watch` names it in messages.
pub async fn keep<K: kube::Resource>(
    stream: impl TryStream<Ok = Event<K>, Error = watcher::Error>,
    health: &WatchHealth,
    watch: &str,
    listed: impl Fn(),
    apply: impl Fn(K),
    delete: impl Fn(&str),
    known: impl Fn() -> Vec<String>,
) {
    let _ended = HealthGuard(health, watch);
    let mut stream = pin!(stream.into_stream());
    let mut fresh = BTreeSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Err(error) => {
                health.broke(watch, &error);
                continue;
            }
            // The start of a list is no success yet.
            Ok(Event::Init) => {
                fresh.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                fresh.insert(object.name_any());
                apply(object);
            }
            Ok(Event::InitDone) => {
                // Objects that were deleted while the watch was down are absent.
                known()
                    .iter()
                    .filter(|name| !fresh.contains(*name))
                    .for_each(|name| delete(name));
                listed();
            }
            Ok(Event::Apply(object)) => apply(object),
            Ok(Event::Delete(object)) => delete(&object.name_any()),
        }
        health.well(watch);
    }
}

/// The watches of each labelled namespace, one task for each.
#[derive(Debug, Default)]
pub struct NamespaceTasks(BTreeMap<String, JoinSet<()>>);

impl NamespaceTasks {
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        self.0.contains_key(namespace)
    }

    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }

    /// Namespaces with a task that are not among these.
    #[must_use]
    pub fn not_in(&self, wanted: &BTreeSet<String>) -> Vec<String> {
        self.namespaces().difference(wanted).cloned().collect()
    }

    pub fn start(&mut self, namespace: String, watches: impl Future<Output = ()> + Send + 'static) {
        let mut task = JoinSet::new();
        task.spawn(watches);
        self.0.insert(namespace, task);
    }

    /// Stops a namespace's watches and waits for their end, so that none puts an object back;
    /// returns whether there were any.
    pub async fn stop(&mut self, namespace: &str) -> bool {
        match self.0.remove(namespace) {
            Some(mut task) => {
                task.shutdown().await;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_a_while_without_failures() {
        let mut patience = Patience::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            patience.reset(); // kube's stream does so at the beginning of each list
            let pause = patience.next().unwrap();
            tokio::time::advance(pause).await;
            pauses.push(pause);
        }
        for (pause, most) in pauses
            .iter()
            .zip([800, 1_600, 3_200, 6_400, 12_800, 15_000, 15_000, 15_000])
        {
            let most = Duration::from_millis(most);
            assert!(*pause <= most && *pause > most * 7 / 10, "{pauses:?}");
        }
        tokio::time::advance(MAX_PAUSE + FORGET_AFTER).await;
        assert!(patience.next().unwrap() <= FIRST_PAUSE);
    }

    #[test]
    fn watches_that_started_together_are_not_renewed_together() {
        let mut ends = BTreeMap::<u32, usize>::new();
        for namespace in 0..50 {
            for kind in [
                "StatefulSets",
                "ConfigMaps",
                "pods",
                "our ConfigMaps",
                "PodDisruptionBudgets",
                "Services",
            ] {
                let config = config(&of_namespace(kind, &format!("team-{namespace}")));
                *ends.entry(config.timeout.unwrap()).or_default() += 1;
            }
        }
        assert!(
            ends.keys().all(|seconds| (200..=290).contains(seconds)),
            "{ends:?}"
        );
        let most = ends.values().max().unwrap();
        assert!(
            *most <= 10,
            "{most} of 300 watches are renewed within one second"
        );
    }
}
