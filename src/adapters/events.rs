//! Events on `StatefulSet`s: written behind the scenes, never waited for by admission.
//!
//! Invariants: the queue is bounded, in all and for each namespace, and drops what does not fit (the log has it); namespaces take
//! turns, so one that has much to say delays itself; the same notice is written at most once in `QUIET`; each write has a
//! deadline; a failure is logged and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::core::fair_queue::FairQueue;
use crate::core::names;
use crate::core::notice::Notice;
use crate::core::printable::short_line;

/// Notices that may wait.
const QUEUE: usize = 512;
/// Notices of one namespace that may wait.
const QUEUE_OF_NAMESPACE: usize = 128;
/// The same notice is not written again within this time: a hundred pods of one `StatefulSet` have one thing to say.
const QUIET: Duration = Duration::from_mins(10);
/// Notices remembered for that; when there are more, the oldest are forgotten.
const REMEMBERED: usize = 1024;
/// One write takes at most this long.
const WRITE: Duration = Duration::from_secs(5);
/// Between two writes: a rollout may cause 10 requests a second in all.
const PACE: Duration = Duration::from_millis(500);
/// Kubernetes refuses longer notes (1 kB); bytes of UTF-8 may be four to a character.
const NOTE_CHARS: usize = 250;

/// Where notices are put.
#[derive(Clone, Debug)]
pub struct Sender(Arc<Shared>);

/// Where they are taken from, by one task.
#[derive(Debug)]
pub struct Receiver(Arc<Shared>);

/// A notice was lost: this one, or another of a namespace that had more of them waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Debug)]
struct Shared {
    queue: Mutex<FairQueue<String, Notice>>,
    arrived: Notify,
}

/// An empty queue.
#[must_use]
pub fn queue() -> (Sender, Receiver) {
    let shared = Arc::new(Shared {
        queue: Mutex::new(FairQueue::new(QUEUE, QUEUE_OF_NAMESPACE)),
        arrived: Notify::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, FairQueue<String, Notice>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// Puts a notice into the queue, without waiting.
    ///
    /// # Errors
    /// [`Full`] when one was lost for it.
    pub fn try_send(&self, notice: Notice) -> Result<(), Full> {
        let pushed = self.0.lock().push(notice.namespace.clone(), notice);
        self.0.arrived.notify_one();
        pushed.map_err(|_| Full)
    }
}

impl Receiver {
    /// Waits for the next notice.
    pub async fn recv(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.try_recv() {
                return notice;
            }
            self.0.arrived.notified().await;
        }
    }

    /// Takes the next notice, if there is one.
    pub fn try_recv(&mut self) -> Option<Notice> {
        self.0.lock().pop()
    }
}

/// Writes the notices that come, for as long as it is polled.
pub async fn write(client: Client, mut notices: Receiver) {
    let recorder = Recorder::new(client, Reporter::from(names::MANAGED_BY));
    let mut written: HashMap<Notice, Instant> = HashMap::new();
    loop {
        let notice = notices.recv().await;
        let now = Instant::now();
        written.retain(|_, at| now.duration_since(*at) < QUIET);
        // The same sentence with another number is the same notice.
        let mut same = notice.clone();
        same.message.retain(|c| !c.is_ascii_digit());
        if written.contains_key(&same) {
            continue;
        }
        if written.len() >= REMEMBERED {
            let oldest = written
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(notice, _)| notice.clone());
            oldest.and_then(|oldest| written.remove(&oldest));
        }
        let event = Event {
            type_: EventType::Warning,
            reason: notice.reason.to_owned(),
            note: Some(short_line(&notice.message, NOTE_CHARS)),
            action: "Admission".to_owned(),
            secondary: None,
        };
        match timeout(WRITE, recorder.publish(&event, &reference(&notice))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "an Event was not written"),
            Err(_) => tracing::warn!(
                seconds = WRITE.as_secs(),
                "an Event was not written in time"
            ),
        }
        written.insert(same, now);
        sleep(PACE).await;
    }
}

fn reference(notice: &Notice) -> ObjectReference {
    ObjectReference {
        api_version: Some("apps/v1".to_owned()),
        kind: Some("StatefulSet".to_owned()),
        namespace: Some(notice.namespace.clone()),
        name: Some(notice.statefulset.clone()),
        uid: Some(notice.uid.clone()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}
