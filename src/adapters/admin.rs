//! The server's own endpoints, plain HTTP: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! Invariants: ready only when the program says so and no drain has begun; values are read when they are asked for; the
//! port is served by the same accept loop as the webhook, with smaller limits; of `/metrics` there are few at a time in memory.
//! `/status` is written piece by piece as its reader takes it, for [`READERS`] at a time and no longer than [`READING`] for each, so
//! its size is nowhere in memory.
//!
//! Deliberately absent: anything that changes state. This port needs no authentication because it only tells. Probes are here for
//! those who ask this port for them; kubelet's own come to `adapters/probes`, which nobody else can crowd.

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
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use super::exposition::Format;
use super::probes;
pub use super::probes::Ready;
use super::serve::{Budget, Connection, Edge, Limits, ServeStats};
use super::signals::Shutdown;

/// A port for probes, scrapes and browsers, of which each needs a few connections.
const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(1),
    header_read: Duration::from_secs(1),
    // A browser at the end of a slow line.
    unread: Duration::from_secs(5),
    idle: Duration::from_mins(1),
    connections: 64,
    // Behind a port-forward all browsers are one peer, with up to 16 streams of the page.
    connections_of_peer: 32,
    ..Limits::DEFAULT
};
/// Answers of `/metrics` in memory at a time, and those of one peer. In a large cluster one is a MiB.
const SCRAPES: usize = 4;
const SCRAPES_OF_PEER: usize = 2;
/// Readers of `/status` at once.
pub const READERS: usize = 4;
/// For how long one of them may take.
const READING: Duration = Duration::from_secs(15);
/// What is written of `/status` at a time. Bytes.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces that wait to be sent.
const PIECES: usize = 2;

/// What the endpoints share.
#[derive(Clone)]
struct Endpoints {
    admin: Admin,
    scrapes: Arc<Budget>,
    readers: Arc<Semaphore>,
}

/// Writes the document of `/status`; ends with the first error of the writer.
pub type Status = Arc<dyn Fn(&mut dyn io::Write) -> io::Result<()> + Send + Sync>;

/// What the endpoints show.
#[derive(Clone)]
pub struct Admin {
    /// Read on each `/readyz`; a drain makes it unready by itself.
    pub ready: Ready,
    /// Encoded on each `/metrics`.
    pub metrics: Arc<Registry>,
    /// Called on each `/status`, in a thread that may block.
    pub status: Status,
    /// Whether the webhook drains.
    pub shutdown: Shutdown,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}

/// The routes; the caller may add its own before it serves them.
pub fn router(admin: Admin) -> Router {
    let scrapes = Budget::new(SCRAPES, SCRAPES_OF_PEER, LIMITS.turn);
    let endpoints = Endpoints {
        admin,
        scrapes,
        readers: Arc::new(Semaphore::new(READERS)),
    };
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(unknown)
        .with_state(endpoints)
}

/// Serves the routes until the process ends: probes and scrapes are answered during the drain too.
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
    let format = Format::accepted(
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

async fn status(State(Endpoints { admin, readers, .. }): State<Endpoints>) -> Response {
    let Ok(place) = readers.try_acquire_owned() else {
        let why = format!(
            "{READERS} readers of /status are being answered, which is the most at a time: ask again in a moment\n"
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
    // It blocks while its reader does not read.
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(PIECE_BYTES, out);
        let done = (admin.status)(&mut out).and_then(|()| out.flush());
        written.store(done.is_ok(), Relaxed);
        // What is buffered goes no further than a writer that has failed.
        drop(out.into_parts());
        drop(place);
    });
    let body = unfold(
        (pieces, complete),
        async |(mut pieces, complete)| match pieces.recv().await {
            Some(piece) => Some((Ok(piece), (pieces, complete))),
            // The connection breaks, or half a document would seem to be one.
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

/// Hands pieces over to the connection, and waits until it takes them.
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
        "no {} here; there are the page at / and /livez /readyz /metrics /status\n",
        uri.path()
    );
    (StatusCode::NOT_FOUND, text).into_response()
}
