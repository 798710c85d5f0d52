//! One watch of the cluster, kept going: what every follower of objects shares.
//!
//! Invariants: a watch that breaks is started again with back-off (the caller's stream does that, with [`Patience`]) and what was known stays
//! in force; what was deleted while it was down shows by its absence from the next list. Nothing is stored here but what
//! went wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, DefaultHasher, Hash as _, Hasher as _, RandomState};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, TryStream, TryStreamExt as _};
use kube::ResourceExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use tokio::time::Instant;

use super::causes::with_causes;

use crate::core::printable::short_line;

/// Objects in a page of a list; with what is kept of each (`trimmed`) that bounds what one answer holds in memory.
pub const PAGE_OBJECTS: u32 = 50;
/// For how long the API server holds one watch at most, in seconds; then it is asked again from where it was.
const LONGEST_SECONDS: u32 = 290;
/// What is repeated of an error. Characters.
const MAX_ERROR_CHARS: usize = 500;
/// How much shorter it may be for some watches.
const SPREAD_SECONDS: u32 = 90;

/// The pause after the first failure of a watch.
const FIRST_PAUSE: Duration = Duration::from_millis(800);
/// The longest pause; what was repaired shows after it.
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// A watch that went well for this long begins with the first pause again.
const FORGET: Duration = Duration::from_mins(1);

/// Pauses after failures, ever longer. kube's own begins anew with whatever its stream yields, and that yields the beginning of each
/// list, also of one that is refused: a namespace without a Role would be asked every second for ever.
#[derive(Debug, Default)]
pub struct Patience {
    failed: Option<(Instant, Duration)>,
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let pause = match self.failed {
            Some((at, pause)) if now.duration_since(at) < pause + FORGET => {
                (pause * 2).min(MAX_PAUSE)
            }
            _ => FIRST_PAUSE,
        };
        self.failed = Some((now, pause));
        // Up to a quarter less, so that all watches that failed together are not started together.
        let less = u32::try_from(RandomState::new().build_hasher().finish() % 250).unwrap_or(0);
        Some(pause * (1000 - less) / 1000)
    }
}

impl Backoff for Patience {
    /// Time alone resets it.
    fn reset(&mut self) {}
}

/// How the watches are.
#[derive(Debug, Default)]
pub struct WatchHealth {
    broken: AtomicU64,
    /// By what is watched, so that one watch that goes well does not hide another that does not.
    errors: Mutex<BTreeMap<String, String>>,
}

impl WatchHealth {
    /// A watch broke.
    pub fn broke(&self, what: &str, error: &watcher::Error) {
        self.failed(what, &with_causes(error));
    }

    /// A watch, or what is read because of it, did not succeed.
    pub fn failed(&self, what: &str, error: &str) {
        self.broken.fetch_add(1, Relaxed);
        let error = short_line(error, MAX_ERROR_CHARS);
        tracing::warn!(
            error,
            "the watch on {what} broke; it is started again, and what is known stays in force"
        );
        self.errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(what.to_owned(), error);
    }

    /// A watch goes well.
    pub fn well(&self, what: &str) {
        self.errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(what);
    }

    /// How many watches broke so far.
    #[must_use]
    pub fn broken(&self) -> u64 {
        self.broken.load(Relaxed)
    }

    /// What is wrong with a watch that broke and did not go well since; `None` while all do.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors
            .first_key_value()
            .map(|(what, error)| format!("{what}: {error}"))
    }
}

/// How to list and watch. All watches begin together when a server starts, and with one duration all
/// would be asked again within one second, too, every five minutes: `what` gives each another one.
#[must_use]
pub fn config(what: &str) -> watcher::Config {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    let less = u32::try_from(hasher.finish() % u64::from(SPREAD_SECONDS + 1)).unwrap_or(0);
    watcher::Config::default()
        .page_size(PAGE_OBJECTS)
        .timeout(LONGEST_SECONDS - less)
}

/// What is watched, in words.
#[must_use]
pub fn of_namespace(kind: &str, namespace: &str) -> String {
    format!("{kind} in {namespace}")
}

/// A watch that is no longer kept is no longer wrong.
struct Ended<'a>(&'a WatchHealth, &'a str);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.well(self.1);
    }
}

/// Applies one kind's events for as long as it is polled. `what` names it in the log.
pub async fn keep<K: kube::Resource>(
    stream: impl TryStream<Ok = Event<K>, Error = watcher::Error>,
    health: &WatchHealth,
    what: &str,
    listed: impl Fn(),
    apply: impl Fn(K),
    delete: impl Fn(&str),
    known: impl Fn() -> Vec<String>,
) {
    let _ended = Ended(health, what);
    let mut stream = pin!(stream.into_stream());
    let mut fresh = BTreeSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Err(error) => {
                health.broke(what, &error);
                continue;
            }
            // The beginning of a list says nothing yet about how it goes.
            Ok(Event::Init) => {
                fresh.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                fresh.insert(object.name_any());
                apply(object);
            }
            Ok(Event::InitDone) => {
                // What was deleted while the watch was down shows by its absence.
                known()
                    .iter()
                    .filter(|name| !fresh.contains(*name))
                    .for_each(|name| delete(name));
                listed();
            }
            Ok(Event::Apply(object)) => apply(object),
            Ok(Event::Delete(object)) => delete(&object.name_any()),
        }
        health.well(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_all_went_well_for_a_while() {
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
        tokio::time::advance(MAX_PAUSE + FORGET).await;
        assert!(patience.next().unwrap() <= FIRST_PAUSE);
    }

    #[test]
    fn watches_that_began_together_do_not_end_together() {
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
            "{most} of 300 watches are asked again within one second"
        );
    }
}
