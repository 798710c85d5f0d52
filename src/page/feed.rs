//! What all browsers see now: rendered once for each change, and only while somebody looks.
//!
//! Whoever looks asks for the latest; the first one in a while has it made from what the program knows, the others share
//! it. A StatefulSet about which nothing changed keeps its bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::document;
use crate::core::report::SetReport;
use crate::core::window::Window;

/// What is known is looked at this often at most, whoever and however many look.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Streams at once; a browser tab holds one. Well below the admin port's connections, which probes and scrapes need.
pub const MOST_STREAMS: usize = 16;

/// What the program knows, without copying reports.
#[derive(Clone, Debug)]
pub struct Known {
    /// The server itself: version, leader, what is wrong; an object.
    pub head: Value,
    /// Every StatefulSet.
    pub sets: Vec<Set>,
}

/// A StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its plan.
    pub shards: Vec<Shard>,
    /// What is wrong with its annotations.
    pub problem: Option<String>,
    /// What the leader says of it; of state `Unknown` on others, and before the first look.
    pub report: Arc<SetReport>,
}

/// A shard of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shard {
    /// Pods that it is planned for.
    pub replicas: u32,
    /// What they serve.
    pub window: Window,
}

/// Looks at what the program knows.
pub type Source = Box<dyn Fn() -> Known + Send + Sync>;

/// Who wants to see.
pub struct Feed {
    source: Source,
    latest: Mutex<Option<(Instant, Arc<Snapshot>)>>,
    pub(super) streams: Arc<Semaphore>,
}

/// What is seen at one moment, as events.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) head: Bytes,
    head_value: Value,
    pub(super) sets: BTreeMap<(String, String), Arc<Rendered>>,
}

/// A StatefulSet and its event.
#[derive(Debug)]
pub(super) struct Rendered {
    set: Set,
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
    /// Shows what `source` gives.
    #[must_use]
    pub fn new(source: Source) -> Arc<Self> {
        Arc::new(Self {
            source,
            latest: Mutex::new(None),
            streams: Arc::new(Semaphore::new(MOST_STREAMS)),
        })
    }

    /// What is to be seen now, at most [`LOOK_EVERY`] old.
    pub(super) fn latest(&self) -> Arc<Snapshot> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &*latest {
            Some((at, snapshot)) if at.elapsed() < LOOK_EVERY => return snapshot.clone(),
            Some((_, snapshot)) => snapshot.clone(),
            None => Arc::default(),
        };
        let snapshot = Arc::new(render((self.source)(), &before));
        *latest = Some((Instant::now(), snapshot.clone()));
        snapshot
    }
}

fn render(known: Known, before: &Snapshot) -> Snapshot {
    let head = if known.head == before.head_value && !before.head.is_empty() {
        before.head.clone()
    } else {
        event("head", &known.head.to_string())
    };
    let one = |set: Set| {
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
    Snapshot {
        head,
        head_value: known.head,
        sets: known.sets.into_iter().filter_map(one).collect(),
    }
}

/// As the event stream has it. JSON holds no line break.
pub(super) fn event(name: &str, data: &str) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use serde_json::json;

    use super::*;

    fn set(name: &str, message: &str) -> Set {
        let report = SetReport {
            name: name.to_owned(),
            message: message.to_owned(),
            ..SetReport::default()
        };
        Set {
            shards: Vec::new(),
            problem: None,
            report: Arc::new(report),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_share_what_is_rendered_once() {
        static LOOKS: AtomicUsize = AtomicUsize::new(0);
        let feed = Feed::new(Box::new(|| {
            let looks = LOOKS.fetch_add(1, Relaxed);
            Known {
                head: json!({"version": 1}),
                sets: vec![set("a", "stays"), set("b", &looks.to_string())],
            }
        }));
        let first = feed.latest();
        assert!(
            Arc::ptr_eq(&first, &feed.latest()),
            "a second browser has nothing computed"
        );
        tokio::time::advance(LOOK_EVERY).await;
        let second = feed.latest();
        let same = |name: &str| {
            let key = (String::new(), name.to_owned());
            Arc::ptr_eq(&first.sets[&key], &second.sets[&key])
        };
        assert_eq!(
            (LOOKS.load(Relaxed), same("a"), same("b")),
            (2, true, false)
        );
        assert_eq!(first.head.as_ptr(), second.head.as_ptr());
    }
}
