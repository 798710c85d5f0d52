//! Bodies of requests: read within a time, charged to their peer before they are held.
//!
//! Invariants: until a body is granted its size, all of it but the frame in hand stays with the peer, in the kernel and in HTTP/2's
//! window; a body that pauses, or comes slower than its rate, loses what it was granted at once, so a body one byte short costs its
//! own peer a second and nobody else anything; who waits for bytes is not charged for the time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::time::{Instant, timeout};

use crate::adapters::serve::{Budget, Claim, Connection};

/// The API server's largest object is 3 MiB; a review may carry it twice, and an envelope. Bytes.
pub const MAX_BODY_BYTES: usize = 7 << 20;
/// A body that says it is no larger than this, as nearly all are, waits for none that is, and is decided at once. Bytes.
const SMALL_BODY_BYTES: usize = 128 << 10;
/// Larger ones that are read, decided or answered at one time on each route. One of the largest fits; more wait. Bytes.
const LARGE_BODIES_BYTES: usize = 8 << 20;
/// Small ones that are read, decided or answered at one time on `/mutate`. Bytes.
const SMALL_BODIES_BYTES: usize = 4 << 20;
/// Of these, what one peer may hold. Bytes.
const SMALL_BODIES_OF_PEER_BYTES: usize = 2 << 20;
/// Small ones on `/guard`, and what one peer may hold of them. Bytes.
const SMALL_GUARD_BODIES_BYTES: usize = 2 << 20;
const SMALL_GUARD_BODIES_OF_PEER_BYTES: usize = 1 << 20;
/// For how long a body keeps what it was granted although a peer that holds less waits for it.
const TURN: Duration = Duration::from_millis(200);

/// The longest pause of a body.
const PAUSE: Duration = Duration::from_secs(1);
/// What a body may take in all, beyond its size at [`RATE_BYTES_PER_SECOND`].
const PATIENCE: Duration = Duration::from_secs(1);
/// The slowest rate at which a body may come. Bytes per second; an API server is in the same network.
const RATE_BYTES_PER_SECOND: u32 = 4 << 20;
/// How long the rest of a body that was refused is read away.
const DISCARD: Duration = Duration::from_secs(1);

/// Status and sentence of a request that is not decided.
pub(super) type Refusal = (StatusCode, String);

/// What the bodies of one route share.
pub(super) struct Lane {
    small: Arc<Budget>,
    large: Arc<Budget>,
    turns: Arc<Budget>,
}

impl Lane {
    pub(super) fn mutate() -> Self {
        Self::new(SMALL_BODIES_BYTES, SMALL_BODIES_OF_PEER_BYTES)
    }

    pub(super) fn guard() -> Self {
        Self::new(SMALL_GUARD_BODIES_BYTES, SMALL_GUARD_BODIES_OF_PEER_BYTES)
    }

    fn new(small: usize, small_of_peer: usize) -> Self {
        Self {
            small: Budget::new(small, small_of_peer, TURN),
            large: Budget::new(LARGE_BODIES_BYTES, LARGE_BODIES_BYTES, TURN),
            turns: Budget::new(1, 1, Duration::MAX),
        }
    }

    /// Waits until it is this peer's turn to have a large body decided, and no other is.
    pub(super) async fn turn(&self, connection: &Connection) -> Claim {
        self.turns.claim(connection, 1).await
    }
}

/// A body that is there, and what it is charged to.
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) claim: Claim,
}

/// A request's body on its way.
pub(super) struct Incoming {
    body: Body,
    declared: Option<usize>,
    pub(super) connection: Connection,
}

impl Incoming {
    pub(super) fn of(request: Request<Body>) -> Self {
        let declared = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let connection = Connection::of(&request);
        let body = request.into_body();
        // Of a request without the header HTTP knows that it has none.
        let declared = declared.or_else(|| usize::try_from(body.size_hint().exact()?).ok());
        Self {
            body,
            declared,
            connection,
        }
    }

    /// Whether it says to be larger than any review.
    pub(super) fn is_too_large(&self) -> bool {
        self.declared.is_some_and(|bytes| bytes > MAX_BODY_BYTES)
    }

    pub(super) fn is_small(&self) -> bool {
        self.declared.is_some_and(|bytes| bytes <= SMALL_BODY_BYTES)
    }

    /// The whole body, charged; `None` when it is larger than allowed or than it said. It is charged when its first bytes are there,
    /// so that a client that only announces many holds up nobody, and in its whole size, so that two that are half there never wait
    /// for each other.
    pub(super) async fn read(&mut self, lane: &Lane) -> Result<Option<Received>, Refusal> {
        let size = self.declared.unwrap_or(MAX_BODY_BYTES);
        let mut patience = PATIENCE
            + Duration::from_secs(1) * u32::try_from(size).unwrap_or(u32::MAX)
                / RATE_BYTES_PER_SECOND;
        let first = self.next(&mut patience).await?.unwrap_or_default();
        let budget = if self.is_small() {
            &lane.small
        } else {
            &lane.large
        };
        let claim = budget.claim(&self.connection, size).await;
        if first.len() > size {
            return Ok(None);
        }
        // A body in one piece, which most are, is not copied; others are copied once, into room made once.
        let Some(second) = self.next(&mut patience).await? else {
            return Ok(Some(Received {
                bytes: first,
                claim,
            }));
        };
        let mut all = Vec::with_capacity(
            self.declared
                .unwrap_or(first.len() + second.len())
                .max(first.len()),
        );
        all.extend_from_slice(&first);
        drop(first);
        let mut next = Some(second);
        while let Some(data) = next {
            if all.len() + data.len() > size {
                return Ok(None);
            }
            all.extend_from_slice(&data);
            drop(data);
            next = self.next(&mut patience).await?;
        }
        Ok(Some(Received {
            bytes: Bytes::from(all),
            claim,
        }))
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self, patience: &mut Duration) -> Result<Option<Bytes>, Refusal> {
        loop {
            let began = Instant::now();
            let Ok(frame) = timeout(PAUSE.min(*patience), self.body.frame()).await else {
                let why = format!(
                    "the body stopped for {} ms, or came slower than {} KiB/s\n",
                    PAUSE.as_millis(),
                    RATE_BYTES_PER_SECOND >> 10
                );
                return Err((StatusCode::REQUEST_TIMEOUT, why));
            };
            *patience = patience.saturating_sub(began.elapsed());
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| {
                (
                    StatusCode::BAD_REQUEST,
                    format!("the body ended early: {error}\n"),
                )
            })?;
            match frame.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                // Trailers, or nothing.
                _ => {}
            }
        }
    }
}

/// Reads what is left for a while and keeps nothing: a client that is still writing when the connection closes loses
/// the answer.
pub(super) async fn discard(mut incoming: Incoming) {
    let rest = async { while let Some(Ok(_)) = incoming.body.frame().await {} };
    let _ = timeout(DISCARD, rest).await;
}
