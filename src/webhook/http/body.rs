//! Request bodies: read within a deadline, and charged to their peer before they take memory.
//!
//! In: a request, and a callback that decides its body. Out: the callback's answer, and the charge,
//! which now pays for the answer. Next for a review: `webhook/review.rs`.
//!
//! Invariants: until a body is granted its size, all of it except the current frame stays with the
//! peer, in the kernel and in HTTP/2's window. A body that pauses, or is slower than the minimum
//! rate, loses its grant immediately, so a body that lacks one byte delays only its own peer, by a
//! second. Time spent waiting for a grant does not count. A large review is decided on a thread
//! outside the runtime, one at a time on each route, peers in turn.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::time::{Instant, timeout};

use crate::adapters::https::serve::{BudgetClaim, Connection, FairBudget};

/// The API server's largest object is 3 MiB; a review may carry two and an envelope. Bytes.
pub const MAX_BODY_BYTES: usize = 7 << 20;
/// A body with a declared size up to this, as nearly all have, never waits for a larger one and is
/// decided immediately. Bytes.
const SMALL_BODY_BYTES: usize = 128 << 10;
/// Large bodies that are read, decided or answered at a time on each route. One of the largest size
/// fits; others wait. Bytes.
const LARGE_BODIES_BYTES: usize = 8 << 20;
/// Small bodies that are read, decided or answered at a time on `/mutate`. Bytes.
const SMALL_BODIES_BYTES: usize = 4 << 20;
/// Share of one peer. Bytes.
const SMALL_BODIES_OF_PEER_BYTES: usize = 2 << 20;
/// Small bodies on `/guard`, and the share of one peer. Bytes.
const SMALL_GUARD_BODIES_BYTES: usize = 2 << 20;
const SMALL_GUARD_BODIES_OF_PEER_BYTES: usize = 1 << 20;
/// How long a body keeps its grant while a peer with a smaller share waits.
const TURN: Duration = Duration::from_millis(200);

/// Longest pause within a body.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Time for a body, in addition to its size at [`RATE_BYTES_PER_SECOND`].
const PATIENCE: Duration = Duration::from_secs(1);
/// Minimum rate of a body: an API server is in the same network. Bytes per second.
const RATE_BYTES_PER_SECOND: u32 = 4 << 20;
/// How long the rest of a rejected body is read and discarded.
const DISCARD: Duration = Duration::from_secs(1);

/// HTTP status and message for a request that is not decided.
pub(super) type BodyRefusal = (StatusCode, String);

/// Memory and turns that the bodies of one route share.
pub(super) struct Lane {
    small: Arc<FairBudget>,
    large: Arc<FairBudget>,
    turns: Arc<FairBudget>,
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
            small: FairBudget::new(small, small_of_peer, TURN),
            large: FairBudget::new(LARGE_BODIES_BYTES, LARGE_BODIES_BYTES, TURN),
            turns: FairBudget::new(1, 1, Duration::MAX),
        }
    }

    /// Reads the body and has it decided. The charge is returned with the answer, which takes memory
    /// in its turn.
    pub(super) async fn decide<A: Send + 'static>(
        &self,
        request: Request<Body>,
        decide: impl FnOnce(&[u8]) -> A + Send + 'static,
    ) -> Result<(A, BudgetClaim), BodyRefusal> {
        let asks_first = request.headers().contains_key(header::EXPECT);
        let too_large = || {
            (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {MAX_BODY_BYTES} bytes\n"),
            )
        };
        let mut incoming = Incoming::of(request);
        if incoming.is_too_large() {
            if !asks_first {
                discard(incoming).await;
            }
            return Err(too_large());
        }
        let Some(Received { bytes, claim }) = incoming.read(self).await? else {
            discard(incoming).await;
            return Err(too_large());
        };
        if incoming.is_small() {
            Ok((decide(&bytes), claim))
        } else {
            self.decide_outside(&incoming.connection, (bytes, claim), decide)
                .await
        }
    }

    /// Decides outside the runtime, since a large body takes time and other requests must not wait;
    /// one at a time, peers in turn. A started decision is finished even if the client is gone;
    /// memory and turn stay charged until then.
    async fn decide_outside<A: Send + 'static>(
        &self,
        connection: &Connection,
        (bytes, claim): (Bytes, BudgetClaim),
        decide: impl FnOnce(&[u8]) -> A + Send + 'static,
    ) -> Result<(A, BudgetClaim), BodyRefusal> {
        let turn = self.turns.claim(connection, 1).await;
        claim.keep();
        let decided = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let answer = decide(&bytes);
            drop(bytes);
            (answer, claim)
        });
        decided.await.map_err(|error| {
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the review could not be decided: {error}\n"),
            )
        })
    }
}

/// A complete body and its charge.
struct Received {
    bytes: Bytes,
    claim: BudgetClaim,
}

/// A request's body before it is read.
struct Incoming {
    body: Body,
    declared: Option<usize>,
    connection: Connection,
}

impl Incoming {
    fn of(request: Request<Body>) -> Self {
        let declared = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let connection = Connection::of(&request);
        let body = request.into_body();
        // HTTP knows that a request without the header has no body.
        let declared = declared.or_else(|| usize::try_from(body.size_hint().exact()?).ok());
        Self {
            body,
            declared,
            connection,
        }
    }

    /// Whether the declared size exceeds that of any review.
    fn is_too_large(&self) -> bool {
        self.declared.is_some_and(|bytes| bytes > MAX_BODY_BYTES)
    }

    fn is_small(&self) -> bool {
        self.declared.is_some_and(|bytes| bytes <= SMALL_BODY_BYTES)
    }

    /// Reads and charges the complete body; `None` if it is larger than allowed or declared. The
    /// charge is made when the first bytes arrive, so that clients that only announce bodies delay
    /// no one, and for the full size, so that two incomplete bodies never wait for each other.
    async fn read(&mut self, lane: &Lane) -> Result<Option<Received>, BodyRefusal> {
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
        // A body in one piece, as most are, is not copied. Others are copied once, into one
        // allocation.
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

    /// Reads the next bytes; `None` at the end.
    async fn next(&mut self, patience: &mut Duration) -> Result<Option<Bytes>, BodyRefusal> {
        loop {
            let began = Instant::now();
            let Ok(frame) = timeout(MAX_PAUSE.min(*patience), self.body.frame()).await else {
                let why = format!(
                    "the body stopped for {} ms, or came slower than {} KiB/s\n",
                    MAX_PAUSE.as_millis(),
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
                // Trailers, or an empty frame.
                _ => {}
            }
        }
    }
}

/// Reads and discards the rest for a while: a client that is still writing when the connection
/// closes would lose the answer.
async fn discard(mut incoming: Incoming) {
    let rest = async { while let Some(Ok(_)) = incoming.body.frame().await {} };
    let _ = timeout(DISCARD, rest).await;
}
