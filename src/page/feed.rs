//! The current state for all browsers: rendered once per change, and only while a page is open.
//!
//! The first stream to ask renders the state, the others share it. An unchanged StatefulSet keeps
//! its bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::document;
pub use super::facts::{PageFacts, PageSet, PageShard};
use crate::adapters::lock::lock;

/// The state is rendered at most this often, however many streams are open.
pub const RENDER_EVERY: Duration = Duration::from_secs(1);
/// Concurrent streams; a browser tab has one. Well below the admin port's limit of connections,
/// which probes and scrapes need.
pub const MAX_STREAMS: usize = 16;

/// Reads the current facts.
pub type PageSource = Box<dyn Fn() -> PageFacts + Send + Sync>;

pub struct Feed {
    source: PageSource,
    latest: Mutex<Option<(Instant, Arc<PageSnapshot>)>>,
    pub(super) streams: Arc<Semaphore>,
}

/// The state at one moment, as events.
#[derive(Debug, Default)]
pub(super) struct PageSnapshot {
    pub(super) head: Bytes,
    head_value: Value,
    pub(super) sets: BTreeMap<(String, String), Arc<Rendered>>,
}

/// A StatefulSet and its event.
#[derive(Debug)]
pub(super) struct Rendered {
    set: PageSet,
    pub(super) event: Bytes,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("streams", &self.streams.available_permits())
            .finish_non_exhaustive()
    }
}

impl Feed {
    #[must_use]
    pub fn new(source: PageSource) -> Arc<Self> {
        Arc::new(Self {
            source,
            latest: Mutex::new(None),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        })
    }

    /// Returns the state, at most [`RENDER_EVERY`] old.
    pub(super) fn latest(&self) -> Arc<PageSnapshot> {
        let mut latest = lock(&self.latest);
        let before = match &*latest {
            Some((at, snapshot)) if at.elapsed() < RENDER_EVERY => return snapshot.clone(),
            Some((_, snapshot)) => snapshot.clone(),
            None => Arc::default(),
        };
        let snapshot = Arc::new(render((self.source)(), &before));
        *latest = Some((Instant::now(), snapshot.clone()));
        snapshot
    }
}

fn render(facts: PageFacts, before: &PageSnapshot) -> PageSnapshot {
    let head = if facts.head == before.head_value && !before.head.is_empty() {
        before.head.clone()
    } else {
        event("head", &facts.head.to_string())
    };
    let one = |set: PageSet| {
        let key = (set.report.namespace.clone(), set.report.name.clone());
        let rendered = match before.sets.get(&key).filter(|rendered| rendered.set == set) {
            Some(same) => same.clone(),
            None => Arc::new(Rendered {
                event: event("set", &document::json(&set).ok()?),
                set,
            }),
        };
        Some((key, rendered))
    };
    PageSnapshot {
        head,
        head_value: facts.head,
        sets: facts.sets.into_iter().filter_map(one).collect(),
    }
}

/// Formats a server-sent event. JSON contains no line break.
pub(super) fn event(name: &str, data: &str) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use serde_json::json;

    use super::*;
    use crate::core::rollout::report::SetReport;

    fn set(name: &str, message: &str) -> PageSet {
        let report = SetReport {
            name: name.to_owned(),
            message: message.to_owned(),
            ..SetReport::default()
        };
        PageSet {
            shards: Vec::new(),
            problem: None,
            report: Arc::new(report),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn browsers_share_one_rendering() {
        static READS: AtomicUsize = AtomicUsize::new(0);
        let feed = Feed::new(Box::new(|| {
            let reads = READS.fetch_add(1, Relaxed);
            PageFacts {
                head: json!({"version": 1}),
                sets: vec![set("a", "stays"), set("b", &reads.to_string())],
            }
        }));
        let first = feed.latest();
        assert!(
            Arc::ptr_eq(&first, &feed.latest()),
            "a second browser costs no rendering"
        );
        tokio::time::advance(RENDER_EVERY).await;
        let second = feed.latest();
        let same = |name: &str| {
            let key = (String::new(), name.to_owned());
            Arc::ptr_eq(&first.sets[&key], &second.sets[&key])
        };
        assert_eq!(
            (READS.load(Relaxed), same("a"), same("b")),
            (2, true, false)
        );
        assert_eq!(first.head.as_ptr(), second.head.as_ptr());
    }
}
