//! Events on `StatefulSet`s: written behind the scenes, never waited for by admission.
//!
//! Invariants: the queue is bounded and drops what does not fit (the log has it); the same notice is written at most once
//! in `QUIET`; each write has a deadline; a failure is logged and nothing else.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::core::names;
use crate::core::notice::Notice;
use crate::core::printable::short_line;

/// Notices that may wait.
pub const QUEUE: usize = 256;
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

/// Writes the notices that come, for as long as it is polled.
pub async fn write(client: Client, mut notices: mpsc::Receiver<Notice>) {
    let recorder = Recorder::new(client, Reporter::from(names::MANAGED_BY));
    let mut written: HashMap<Notice, Instant> = HashMap::new();
    while let Some(notice) = notices.recv().await {
        let now = Instant::now();
        written.retain(|_, at| now.duration_since(*at) < QUIET);
        // The same sentence with another number is the same notice.
        let mut same = notice.clone();
        same.message.retain(|c| !c.is_ascii_digit());
        if written.contains_key(&same) {
            continue;
        }
        if written.len() >= REMEMBERED {
            let oldest = written.iter().min_by_key(|(_, at)| **at).map(|(notice, _)| notice.clone());
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
            Err(_) => tracing::warn!(seconds = WRITE.as_secs(), "an Event was not written in time"),
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
