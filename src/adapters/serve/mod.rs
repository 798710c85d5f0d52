//! The accept loop: sockets in, requests to a service, and a drain that loses none.
//!
//! Invariants: certificates are loaded before the port is bound (the caller hands both in); every wait on a peer and every amount
//! that it may make us hold has a limit in [`Limits`]; the drain is looked at before the next accept; an accept error backs off and
//! never spins; nothing outlives [`Edge::serve`].
//!
//! A connection passes three sets of places, each shared fairly between peer addresses, so what somebody does in one of them is
//! not felt in the next (`registry`):
//! - It *arrives*: until its first byte it costs a socket and a small task. A newcomer always has a place; whoever has most of
//!   them loses the one that is silent for longest. The loop never waits for a peer, so silent connections hold up nobody.
//! - Its handshake is under way ([`Budget`]): a large `ClientHello` costs 64 KiB, so there are few at a time.
//! - It is established, HTTP/1 or HTTP/2, each with its own places, since an HTTP/2 connection can make us hold more. Where there
//!   is none left, one that was never answered goes first, then one that is idle, then one that has kept us waiting for a turn and
//!   whose peer has more than the newcomer (`core::standing`). A peer at its own limit displaces only itself.
//!
//! What cannot be told apart is who means well: a peer with many addresses, each of which was answered once, is many peers. Behind
//! one address (a proxy, or an IPv6 /64) all senders are one peer.
//!
//! What one connection can make us hold: TLS 16 KiB each way and the record that is being read, HTTP/1 two buffers of
//! `header_bytes`, HTTP/2 a window of 64 KiB, a frame and the decoded headers of `streams` requests; the kernel's buffers are set,
//! not tuned by it. What requests hold beyond that is charged to a [`Budget`] by the handler before it is read, and their answers
//! until the peer has taken them.
//!
//! Deliberately absent: body limits and deadlines of a request, which belong to the handler; an async-generic tower
//! stack: one hyper connection per socket, HTTP/1 or HTTP/2 by what TLS negotiated, nothing boxed for HTTP/1.

mod budget;
mod connection;
mod handshake;
mod registry;
mod state;
mod stats;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::listen;
use super::signals::{Shutdown, Stage};
use crate::core::peer::Peer;
pub use budget::{Budget, Claim, Connection};
use registry::Registry;
pub use stats::{Failure, ServeStats};

/// An error that a service or a body may end with.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that an answer may have.
pub trait Answer: Body<Data: Send, Error: Into<BoxError>> + Send + 'static {}
impl<B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static> Answer for B {}

/// A hyper service that can answer on many connections at once. `hyper::service::service_fn` makes one, and
/// `hyper_util::service::TowerToHyperService` makes one of an axum router.
pub trait Handler<B>:
    Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
}
impl<B, S> Handler<B> for S where
    S: Service<
            Request<Incoming>,
            Response = Response<B>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// Every wait and every amount that a peer could make long or large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the first byte, and from there to a finished TLS handshake; also the longest wait for a place after it.
    pub handshake: Duration,
    /// From the first byte of a request to the end of its headers (HTTP/1).
    pub header_read: Duration,
    /// With a request under way and no byte coming in. Longer than the handler's own deadline, which comes first.
    pub stalled: Duration,
    /// With bytes of ours that the peer does not take from its socket.
    pub unread: Duration,
    /// From one charged answer that is taken to the next, where some wait: an HTTP/2 peer may read, and let no answer through.
    pub answer: Duration,
    /// With no request under way. Longer than the 90 s after which Go's client (the API server) closes an idle
    /// connection itself: whoever closes first must not be us, because a request may be on its way. It also saves the
    /// next burst its handshakes, which cost ten times a small request.
    pub idle: Duration,
    /// From asking a connection to close until it is cut off.
    pub close: Duration,
    /// The same where its place is needed.
    pub evict: Duration,
    /// For how long a connection may keep us waiting before another peer's newcomer can take its place.
    pub turn: Duration,
    /// From the end of the drain until requests still under way are cut off. Longer than the API server's timeout (5 s).
    pub finish: Duration,
    /// After an accept error such as too many open files, before the next try.
    pub accept_backoff: Duration,
    /// Connections without a first byte or a finished handshake. They cost little; a newcomer always has a place.
    pub arriving: usize,
    /// For how long a handshake may take while another peer's waits for its place. Longer than an honest one takes on a busy machine.
    pub handshake_turn: Duration,
    /// TLS handshakes under way.
    pub handshakes: usize,
    /// TLS handshakes under way of one peer.
    pub handshakes_of_peer: usize,
    /// HTTP/1 connections.
    pub connections: usize,
    /// HTTP/1 connections of one peer. An API server keeps 25 idle ones, and opens more for a burst.
    pub connections_of_peer: usize,
    /// HTTP/2 connections, each with up to `streams` requests.
    pub http2_connections: usize,
    /// HTTP/2 connections of one peer.
    pub http2_connections_of_peer: usize,
    /// Headers of one request, in bytes; also the largest read from a socket.
    pub header_bytes: usize,
    /// HTTP/2 requests under way at once on one connection.
    pub streams: u32,
}

impl Limits {
    /// The webhook's.
    pub const DEFAULT: Self = Self {
        handshake: Duration::from_secs(5),
        header_read: Duration::from_secs(2),
        stalled: Duration::from_secs(30),
        unread: Duration::from_secs(2),
        answer: Duration::from_secs(5),
        idle: Duration::from_mins(3),
        close: Duration::from_secs(2),
        evict: Duration::from_millis(100),
        turn: Duration::from_millis(200),
        finish: Duration::from_secs(10),
        accept_backoff: Duration::from_millis(200),
        arriving: 512,
        handshake_turn: Duration::from_millis(500),
        handshakes: 128,
        handshakes_of_peer: 32,
        connections: 256,
        connections_of_peer: 128,
        http2_connections: 32,
        http2_connections_of_peer: 16,
        header_bytes: 16 << 10,
        streams: 16,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How long the drain keeps serving by default: what endpoint removal takes to reach every API server and node.
pub const DRAIN: Duration = Duration::from_secs(10);
/// The kernel's buffer of a connection, each way, in bytes (it reserves twice as much). Tuned by itself it would grow to MiB for
/// each peer that sends and is not read, or does not read, and these count as this container's memory.
const SOCKET_BUFFER_BYTES: usize = 32 << 10;

/// How long to look for connections that the kernel has accepted when the port is about to close.
const BACKLOG_WAIT: Duration = Duration::from_millis(5);

/// One listening port with everything it needs.
#[derive(Debug)]
pub struct Edge {
    /// Bound by the caller, who has loaded the certificate before.
    pub listener: TcpListener,
    /// `None` serves plain HTTP (the admin port).
    pub tls: Option<Arc<ServerConfig>>,
    /// See [`Limits`].
    pub limits: Limits,
    /// How long to keep serving after the first signal; [`DRAIN`] on a cluster, zero where nobody routes to us.
    pub drain: Duration,
    /// Counters, read at scrape time.
    pub stats: Arc<ServeStats>,
    /// When to drain and when to stop.
    pub shutdown: Shutdown,
}

impl Edge {
    /// Serves until the drain has ended or a second signal came. All connections are closed when it returns.
    pub async fn serve<S: Handler<B>, B: Answer>(self, service: S) {
        let mut shutdown = self.shutdown.clone();
        let mut abort = self.shutdown.clone();
        let (listener, mut acceptor) = Acceptor::new(self);
        tokio::select! {
            biased;
            () = abort.reached(Stage::Abort) => tracing::warn!("second signal: requests under way are cut off"),
            () = acceptor.run(listener, service, &mut shutdown) => {}
        }
        acceptor.tasks.shutdown().await;
    }
}

struct Acceptor {
    tls: Option<TlsAcceptor>,
    limits: Limits,
    drain: Duration,
    stats: Arc<ServeStats>,
    registry: Registry,
    handshakes: Arc<Budget>,
    /// No accept before this time.
    not_before: Option<Instant>,
    /// Dropping it ends every connection.
    tasks: JoinSet<()>,
}

impl Acceptor {
    fn new(edge: Edge) -> (TcpListener, Self) {
        let limits = edge.limits;
        let acceptor = Self {
            tls: edge.tls.map(TlsAcceptor::from),
            limits,
            drain: edge.drain,
            registry: Registry::new(Arc::clone(&edge.stats), &limits),
            handshakes: Budget::new(
                limits.handshakes,
                limits.handshakes_of_peer,
                limits.handshake_turn,
            ),
            stats: edge.stats,
            not_before: None,
            tasks: JoinSet::new(),
        };
        (edge.listener, acceptor)
    }

    async fn run<S: Handler<B>, B: Answer>(
        &mut self,
        listener: TcpListener,
        service: S,
        shutdown: &mut Shutdown,
    ) {
        // Accepted sockets inherit these. A system that refuses keeps its own.
        let _ = sockopt::set_socket_recv_buffer_size(&listener, SOCKET_BUFFER_BYTES);
        let _ = sockopt::set_socket_send_buffer_size(&listener, SOCKET_BUFFER_BYTES);
        let mut drained_at = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.reached(Stage::Draining), if drained_at.is_none() => {
                    tracing::info!(drain_seconds = self.drain.as_secs(), open = self.stats.open(), "draining");
                    self.registry.drain();
                    drained_at = Some(Instant::now() + self.drain);
                }
                () = at(drained_at) => break,
                Some(_) = self.tasks.join_next() => {}
                accepted = accept(&listener, self.not_before) => {
                    self.accepted(accepted, &service);
                    // The next one may make this one give up its place: it must have had the time to say something.
                    tokio::task::yield_now().await;
                }
            }
        }
        self.accept_backlog(&listener, &service).await;
        drop(listener);
        self.finish().await;
    }

    fn accepted<S: Handler<B>, B: Answer>(
        &mut self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        service: &S,
    ) {
        self.not_before = None;
        match accepted {
            Ok((socket, address)) => self.begin(socket, listen::peer(address), service),
            Err(error) if is_per_connection(&error) => {}
            Err(error) => {
                self.stats.failed(Failure::Accept);
                self.registry.close_longest_idle();
                self.not_before = Some(Instant::now() + self.limits.accept_backoff);
                tracing::warn!(%error, "cannot accept a connection: closing the one idle longest, trying again soon");
            }
        }
    }

    fn begin<S: Handler<B>, B: Answer>(&mut self, socket: TcpStream, peer: Peer, service: &S) {
        // Answers are one small write; the kernel must not hold it back. A socket that refuses is gone anyway.
        let _ = socket.set_nodelay(true);
        let entry = self.registry.register(peer);
        let number = entry.number();
        let tls = (self.tls.clone(), Arc::clone(&self.handshakes));
        let task = self
            .tasks
            .spawn(connection::serve(socket, tls, service.clone(), entry));
        self.registry.runs_as(number, task);
    }

    /// The kernel has finished these connections' TCP handshakes; closing the port would reset them. The number of places bounds
    /// the loop, and the first wait after the deadline ends it.
    async fn accept_backlog<S: Handler<B>, B: Answer>(
        &mut self,
        listener: &TcpListener,
        service: &S,
    ) {
        let deadline = Instant::now() + BACKLOG_WAIT;
        for _ in 0..self.limits.arriving {
            match timeout_at(deadline, listener.accept()).await {
                Ok(Ok(accepted)) => self.accepted(Ok(accepted), service),
                _ => return,
            }
        }
    }

    /// Ends idle connections now and the others when they have answered.
    async fn finish(&mut self) {
        self.registry.finish();
        let tasks = &mut self.tasks;
        let done = timeout(self.limits.finish, async {
            while tasks.join_next().await.is_some() {}
        })
        .await;
        if done.is_err() {
            tracing::warn!(
                open = self.tasks.len(),
                "the drain took too long: requests under way are cut off"
            );
        }
    }
}

async fn accept(
    listener: &TcpListener,
    not_before: Option<Instant>,
) -> io::Result<(TcpStream, SocketAddr)> {
    if let Some(time) = not_before {
        sleep_until(time).await;
    }
    listener.accept().await
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Errors of one connection that was gone before it was accepted.
fn is_per_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
