//! The admin port, plain HTTP: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! Invariants: ready only when the program is ready and no drain has begun; values are read at the
//! time of the request; the webhook's accept loop serves the port too, with smaller limits; few
//! answers of `/metrics` are in memory at a time. `/status` is written piece by piece as its reader
//! takes it, for [`READERS`] at a time and at most [`READING`] each, so it is never in memory as a
//! whole; one peer's readers do not keep another's away.
//!
//! Deliberately absent: changes of state. This port needs no authentication because it only reads.
//! It also answers probes; kubelet's own probes go to `adapters/https/probes`, which other clients
//! cannot crowd out.

use std::fmt;
use std::io::{self, BufWriter, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream::unfold;
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::probes;
pub use super::probes::Ready;
use super::serve::{Connection, Edge, FairBudget, Limits, ServeStats};
use crate::adapters::exposition::ExpositionFormat;
use crate::adapters::signals::Shutdown;

/// For probes, scrapes and browsers, which need a few connections each.
const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(1),
    header_read: Duration::from_secs(1),
    // A browser with a slow connection.
    unread: Duration::from_secs(5),
    idle: Duration::from_mins(1),
    // A scraper or kubelet sends its request with the connection, and a byte of it has come already.
    request_grace: Duration::from_millis(25),
    connections: 64,
    // All browsers behind a port-forward are one peer, with up to 16 streams of the page.
    connections_of_peer: 32,
    ..Limits::DEFAULT
};
/// Answers of `/metrics` in memory at a time, in total and per peer. In a large cluster one has a
/// MiB.
const SCRAPES: usize = 4;
const SCRAPES_OF_PEER: usize = 2;
/// Concurrent readers of `/status`, in total and per peer.
pub const READERS: usize = 4;
pub const READERS_OF_PEER: usize = 2;
/// The time that a reader has when a peer with fewer readers waits.
const READERS_TURN: Duration = Duration::from_secs(1);
/// How long a reader waits for its place.
const READERS_WAIT: Duration = Duration::from_secs(2);
/// The longest time for one reader.
const READING: Duration = Duration::from_secs(15);
/// The size of one piece of `/status`.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces waiting to be sent.
const PIECES: usize = 2;

#[derive(Clone)]
struct Endpoints {
    admin: Admin,
    scrapes: Arc<FairBudget>,
    readers: Arc<FairBudget>,
}

/// Writes the document of `/status`; ends with the first error of the writer.
pub type StatusWriter = Arc<dyn Fn(&mut dyn io::Write) -> io::Result<()> + Send + Sync>;

/// The sources of the answers.
#[derive(Clone)]
pub struct Admin {
    /// Called on each `/readyz`; a drain also makes the server unready.
    pub ready: Ready,
    /// Encoded on each `/metrics`.
    pub metrics: Arc<Registry>,
    /// Called on each `/status`, in a thread that may block.
    pub status: StatusWriter,
    /// Of the webhook.
    pub shutdown: Shutdown,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}

/// Builds the routes; the caller may add more before serving them.
pub fn router(admin: Admin) -> Router {
    let scrapes = FairBudget::new(SCRAPES, SCRAPES_OF_PEER, LIMITS.turn);
    let endpoints = Endpoints {
        admin,
        scrapes,
        readers: FairBudget::new(READERS, READERS_OF_PEER, READERS_TURN),
    };
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(unknown)
        .with_state(endpoints)
}

/// Serves the routes until the process ends, including during the drain.
pub async fn serve(listener: TcpListener, router: Router) {
    let stats = Arc::new(ServeStats::default());
    let edge = Edge {
        listener,
        tls: None,
        limits: LIMITS,
        drain: Duration::ZERO,
        stats,
        shutdown: Shutdown::never(),
    };
    edge.serve(TowerToHyperService::new(router)).await;
}

async fn readyz(State(Endpoints { admin, .. }): State<Endpoints>) -> Response {
    match probes::readiness(&admin.ready, &admin.shutdown) {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(
    State(Endpoints { admin, scrapes, .. }): State<Endpoints>,
    request: Request<Body>,
) -> Response {
    let format = ExpositionFormat::accepted(
        request
            .headers()
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok()),
    );
    let claim = scrapes.claim(&Connection::of(&request), 1).await;
    match format.encode(&admin.metrics) {
        Ok(text) => (
            [(header::CONTENT_TYPE, format.content_type())],
            claim.carry(text.into_bytes()),
        )
            .into_response(),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("metrics cannot be encoded: {error}\n"),
        )
            .into_response(),
    }
}

async fn status(
    State(Endpoints { admin, readers, .. }): State<Endpoints>,
    request: Request<Body>,
) -> Response {
    let connection = Connection::of(&request);
    let Ok(place) = timeout(READERS_WAIT, readers.claim(&connection, 1)).await else {
        let why = format!(
            "{READERS} readers of /status, or {READERS_OF_PEER} of this address, are being served, which is the maximum: try again in a moment\n"
        );
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "2")],
            why,
        )
            .into_response();
    };
    let (sender, pieces) = mpsc::channel(PIECES);
    let complete = Arc::new(AtomicBool::new(false));
    let (handle, written) = (Handle::current(), complete.clone());
    let out = Pieces {
        sender,
        handle,
        until: Instant::now() + READING,
    };
    // Blocks while the reader does not read.
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(PIECE_BYTES, out);
        let done = (admin.status)(&mut out).and_then(|()| out.flush());
        written.store(done.is_ok(), Relaxed);
        // After a failure the buffered rest is dropped.
        drop(out.into_parts());
        drop(place);
    });
    let body = unfold(
        (pieces, complete),
        async |(mut pieces, complete)| match pieces.recv().await {
            Some(piece) => Some((Ok(piece), (pieces, complete))),
            // Break the connection, so that half a document does not pass for a complete one.
            None if complete.swap(true, Relaxed) => None,
            None => Some((
                Err(io::Error::from(io::ErrorKind::TimedOut)),
                (pieces, complete),
            )),
        },
    );
    (
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(body),
    )
        .into_response()
}

/// Passes pieces to the connection, and waits until it takes them.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    handle: Handle,
    until: Instant,
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(&bytes[..bytes.len().min(PIECE_BYTES)]);
        let taken = piece.len();
        match self
            .handle
            .block_on(timeout_at(self.until, self.sender.send(piece)))
        {
            Ok(Ok(())) => Ok(taken),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn unknown(uri: Uri) -> Response {
    let text = format!(
        "no {} here; this port has the page at / and /livez /readyz /metrics /status\n",
        uri.path()
    );
    (StatusCode::NOT_FOUND, text).into_response()
}
