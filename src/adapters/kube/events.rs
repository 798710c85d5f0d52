//! Events on `StatefulSet`s, written in the background so that admission never waits for them.
//!
//! Invariants: the queue is bounded, in all and for each namespace, and drops what does not fit
//! (the log has it); namespaces take turns, so a busy one delays only itself; the same Event is
//! written at most once in [`QUIET`]; each write has a deadline; a failure is only logged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::adapters::lock::lock;
use crate::core::admission::notice::ObjectEvent;
use crate::core::fairness::queue::FairQueue;
use crate::core::model::names;
use crate::core::model::text::short_line;

/// Events that may wait.
const QUEUE: usize = 512;
/// Events of one namespace that may wait.
const QUEUE_OF_NAMESPACE: usize = 128;
/// The same Event is not written again within this time: a hundred pods of one `StatefulSet` cause
/// the same one.
const QUIET: Duration = Duration::from_mins(10);
/// Events remembered for that; beyond it the oldest are forgotten.
const REMEMBERED: usize = 1024;
/// Deadline of one write.
const WRITE: Duration = Duration::from_secs(5);
/// Pause between two writes: a rollout may cause 10 requests a second in all.
const PACE: Duration = Duration::from_millis(500);
/// Longest note. Kubernetes accepts 1 kB, and a character takes up to four bytes.
const MAX_NOTE_CHARS: usize = 250;

/// The queue's writing end.
#[derive(Clone, Debug)]
pub struct Sender(Arc<EventQueue>);

/// The queue's reading end, for one task.
#[derive(Debug)]
pub struct Receiver(Arc<EventQueue>);

/// An Event was dropped: this one, or one of a namespace that had more waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Debug)]
struct EventQueue {
    queue: Mutex<FairQueue<String, ObjectEvent>>,
    arrived: Notify,
}

/// An empty queue.
#[must_use]
pub fn queue() -> (Sender, Receiver) {
    let shared = Arc::new(EventQueue {
        queue: Mutex::new(FairQueue::new(QUEUE, QUEUE_OF_NAMESPACE)),
        arrived: Notify::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

impl Sender {
    /// Queues an Event, without waiting.
    ///
    /// # Errors
    /// [`Full`] if one was dropped.
    pub fn try_send(&self, notice: ObjectEvent) -> Result<(), Full> {
        let pushed = lock(&self.0.queue).push(notice.namespace.clone(), notice);
        self.0.arrived.notify_one();
        pushed.map_err(|_| Full)
    }
}

impl Receiver {
    /// Waits for the next Event.
    pub async fn recv(&mut self) -> ObjectEvent {
        loop {
            if let Some(notice) = self.try_recv() {
                return notice;
            }
            self.0.arrived.notified().await;
        }
    }

    /// Takes the next Event, if there is one.
    pub fn try_recv(&mut self) -> Option<ObjectEvent> {
        lock(&self.0.queue).pop()
    }
}

/// Writes queued Events until it is dropped.
pub async fn write(client: Client, mut notices: Receiver) {
    let recorder = Recorder::new(client, Reporter::from(names::MANAGED_BY));
    let mut written: HashMap<ObjectEvent, Instant> = HashMap::new();
    loop {
        let notice = notices.recv().await;
        let now = Instant::now();
        written.retain(|_, at| now.duration_since(*at) < QUIET);
        // The same sentence with another number is the same Event.
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
            note: Some(short_line(&notice.message, MAX_NOTE_CHARS)),
            action: "Admission".to_owned(),
            secondary: None,
        };
        match timeout(WRITE, recorder.publish(&event, &reference(&notice))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "failed to write an Event"),
            Err(_) => tracing::warn!(
                seconds = WRITE.as_secs(),
                "failed to write an Event in time"
            ),
        }
        written.insert(same, now);
        sleep(PACE).await;
    }
}

fn reference(notice: &ObjectEvent) -> ObjectReference {
    ObjectReference {
        api_version: Some("apps/v1".to_owned()),
        kind: Some("StatefulSet".to_owned()),
        namespace: Some(notice.namespace.clone()),
        name: Some(notice.statefulset.clone()),
        uid: Some(notice.uid.clone()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}
