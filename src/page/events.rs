//! One browser's stream (server-sent events): the complete state first, then changes.
//!
//! `set` is a StatefulSet, `gone` a deleted one, `head` the server; `shown` ends a state and has the
//! server's time; `beat` is only the time, when nothing changed; `bye` ends the stream. Events are
//! produced only when there is room to send them, so a slow browser skips states and occupies the
//! memory of one. A browser that accepts nothing for [`STALLED`] is disconnected.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::X_CONTENT_TYPE_OPTIONS;
use super::feed::{Feed, MAX_STREAMS, PageSnapshot, RENDER_EVERY, event};
use crate::adapters::clock;
use crate::adapters::signals::{self, Shutdown};

/// How often an idle stream sends `beat`; the browser gives up after 2.5 times this.
const BEAT_EVERY: Duration = Duration::from_secs(10);

/// A browser that accepts no event for this long is disconnected.
const STALLED: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct EventStream {
    pub(super) feed: Arc<Feed>,
    pub(super) shutdown: Shutdown,
}

/// One browser's state: what was sent, and what is pending.
struct Stream {
    stage: EventStream,
    ticks: tokio::time::Interval,
    sent: Arc<PageSnapshot>,
    pending: VecDeque<Bytes>,
    last: Instant,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn events(State(stage): State<EventStream>) -> Response {
    if stage.shutdown.is_draining() {
        return refused(
            "this replica of the server is shutting down; use another one\n".to_owned(),
        );
    }
    let Ok(permit) = stage.feed.streams.clone().try_acquire_owned() else {
        return refused(format!(
            "{MAX_STREAMS} pages are already open, the limit of one server: close one, or use timeshard status\n"
        ));
    };
    let mut ticks = interval(RENDER_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = Stream {
        stage,
        ticks,
        sent: Arc::default(),
        pending: VecDeque::new(),
        last: Instant::now(),
        ended: false,
        _permit: permit,
    };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(stream.run(sender));
    let body = unfold(receiver, async |mut events| {
        events
            .recv()
            .await
            .map(|event| (Ok::<_, Infallible>(event), events))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // A proxy that buffers responses would show nothing.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(body)).into_response()
}

fn refused(why: String) -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::RETRY_AFTER, "10"),
        ],
        why,
    )
        .into_response()
}

impl Stream {
    /// Sends events until the end, or until the browser accepts no more.
    async fn run(mut self, events: mpsc::Sender<Bytes>) {
        loop {
            let event = tokio::select! {
                event = self.next() => event,
                () = events.closed() => return,
            };
            let Some(event) = event else { return };
            if !matches!(timeout(STALLED, events.send(event)).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                self.last = Instant::now();
                return Some(event);
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                biased;
                () = self.stage.shutdown.reached(signals::ShutdownStage::Draining) => {
                    self.ended = true;
                    self.pending.push_back(timed("bye"));
                }
                _ = self.ticks.tick() => self.queue_changes(),
            }
        }
    }

    /// Queues an event for everything that changed since the last state.
    fn queue_changes(&mut self) {
        let now = self.stage.feed.latest();
        let sent = &self.sent;
        let fresh = now.sets.iter().filter(|(key, set)| {
            sent.sets
                .get(*key)
                .is_none_or(|before| !Arc::ptr_eq(before, set))
        });
        self.pending.extend(fresh.map(|(_, set)| set.event.clone()));
        let gone = sent.sets.keys().filter(|key| !now.sets.contains_key(*key));
        self.pending.extend(gone.map(|(namespace, name)| {
            event(
                "gone",
                &json!({"namespace": namespace, "name": name}).to_string(),
            )
        }));
        if sent.head != now.head {
            self.pending.push_back(now.head.clone());
        }
        if !self.pending.is_empty() {
            self.pending.push_back(timed("shown"));
        } else if self.last.elapsed() >= BEAT_EVERY {
            self.pending.push_back(timed("beat"));
        }
        self.sent = now;
    }
}

fn timed(name: &str) -> Bytes {
    event(name, &json!({"now": clock::unix_seconds()}).to_string())
}
