//! One browser's stream (server-sent events): everything first, then what changed.
//!
//! `set` is a StatefulSet, `gone` one that is no more, `head` the server, and `shown` says that all of a look has been told,
//! with the server's time; `beat` is the time alone, when nothing changed; `bye` is the end. The stream is asked for its next
//! event when there is room to send it, so a slow browser skips states and holds at most one look; one that takes nothing for
//! [`STALLED`] is let go of, with all that it holds.

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
use super::feed::{Feed, LOOK_EVERY, MOST_STREAMS, Snapshot, event};
use crate::adapters::clock;
use crate::adapters::signals::{Shutdown, Stage as Stages};

/// With nothing to say, the browser is told that the stream lives; it doubts it after two and a half of these.
const BEAT_EVERY: Duration = Duration::from_secs(10);

/// A browser that takes no event for this long does not look any more.
const STALLED: Duration = Duration::from_secs(30);

/// What a stream needs.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) feed: Arc<Feed>,
    pub(super) shutdown: Shutdown,
}

/// What one browser was told, and what it is about to be told.
struct Stream {
    stage: Stage,
    looks: tokio::time::Interval,
    told: Arc<Snapshot>,
    pending: VecDeque<Bytes>,
    last: Instant,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn events(State(stage): State<Stage>) -> Response {
    if stage.shutdown.is_draining() {
        return refused("this replica of the server is about to end: ask another one\n".to_owned());
    }
    let Ok(permit) = stage.feed.streams.clone().try_acquire_owned() else {
        return refused(format!(
            "{MOST_STREAMS} pages are open already, which is the most that one server keeps up: close one, or use timeshard status\n"
        ));
    };
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = Stream {
        stage,
        looks,
        told: Arc::default(),
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
        // A proxy that collects answers first would show nothing.
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
    /// Sends events until the end, or until nobody takes them.
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
                () = self.stage.shutdown.reached(Stages::Draining) => {
                    self.ended = true;
                    self.pending.push_back(timed("bye"));
                }
                _ = self.looks.tick() => self.look(),
            }
        }
    }

    /// Puts in line what is not as it was told.
    fn look(&mut self) {
        let now = self.stage.feed.latest();
        let told = &self.told;
        let fresh = now.sets.iter().filter(|(key, set)| {
            told.sets
                .get(*key)
                .is_none_or(|before| !Arc::ptr_eq(before, set))
        });
        self.pending.extend(fresh.map(|(_, set)| set.event.clone()));
        let gone = told.sets.keys().filter(|key| !now.sets.contains_key(*key));
        self.pending.extend(gone.map(|(namespace, name)| {
            event(
                "gone",
                &json!({"namespace": namespace, "name": name}).to_string(),
            )
        }));
        if told.head != now.head {
            self.pending.push_back(now.head.clone());
        }
        if !self.pending.is_empty() {
            self.pending.push_back(timed("shown"));
        } else if self.last.elapsed() >= BEAT_EVERY {
            self.pending.push_back(timed("beat"));
        }
        self.told = now;
    }
}

fn timed(name: &str) -> Bytes {
    event(name, &json!({"now": clock::unix_seconds()}).to_string())
}
