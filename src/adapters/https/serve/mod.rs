//! The accept loop: sockets in, requests to a service, and a drain that loses none.
//!
//! This server is our own because hyper-util and tower have no eviction: they limit connections by
//! making newcomers wait, so a few silent peers could keep the API server out. Here a newcomer
//! always gets a place, memory is shared fairly between peers, and the drain knows what each
//! connection is doing. HTTP itself is hyper's.
//!
//! In: a bound port and a service. Out: for each accepted socket a place (`registry`) and a task,
//! `connection::serve`. Next for a review: `adapters/https/serve/handshake.rs`.
//!
//! Invariants: certificates are loaded before the port is bound (the caller passes both in); every
//! wait on a peer and every amount that it may make the server hold has a limit in [`Limits`]; the
//! drain is checked before the next accept; an accept error backs off and never spins; nothing
//! outlives [`Edge::serve`].
//!
//! A connection passes through three sets of places, each shared fairly between peer addresses, so
//! that load on one set does not affect the next (`registry`):
//! - It *arrives*: until its first byte it costs a socket and a small task. A newcomer always gets
//!   a place; the peer with the most places loses the connection that is silent for longest. The
//!   loop never waits for a peer, so silent connections delay no other.
//! - Its handshake is under way ([`FairBudget`]): a large `ClientHello` costs 64 KiB, so few
//!   handshakes run at a time.
//! - It is established, HTTP/1 or HTTP/2, each with its own places, since an HTTP/2 connection can
//!   make the server hold more. If no place is free, a connection that has begun no request within
//!   its grace loses its place first, then an idle one, then one that has kept the server waiting for a turn and whose
//!   peer has more than the newcomer (`core::fairness::connections`). A peer at its own limit
//!   displaces only itself.
//!
//! Intentions cannot be recognised: a peer with many addresses, each of which was answered once, is
//! many peers. All senders behind one address (a proxy, or an IPv6 /64) are one peer.
//!
//! One connection can make the server hold: TLS 16 KiB each way and the record that is being read;
//! HTTP/1 two buffers of `header_bytes`; HTTP/2 a window of 64 KiB, of which each piece of 256 bytes
//! may keep the 16 KiB that it was read with, so 6 MiB, a frame, and the decoded headers of `streams`
//! requests; the kernel's buffers, whose size is fixed. Handlers charge whatever else
//! requests hold to a [`FairBudget`] before they read it, and answers until the peer has taken
//! them.
//!
//! Deliberately absent: body limits and request deadlines, which belong to the handler; an
//! async-generic tower stack: there is one hyper connection per socket, HTTP/1 or HTTP/2 as TLS
//! negotiated, nothing boxed for HTTP/1.

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

use crate::adapters::signals::{Shutdown, ShutdownStage};
use crate::adapters::{clock, listen};
use crate::core::fairness::peer::Peer;
pub use budget::{BudgetClaim, Connection, FairBudget};
use registry::Registry;
pub use stats::{ConnectionFailure, ServeStats};

/// An error of a service or a body.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub trait ResponseBody: Body<Data: Send, Error: Into<BoxError>> + Send + 'static {}
impl<B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static> ResponseBody for B {}

/// A hyper service that answers on many connections concurrently: from
/// `hyper::service::service_fn`, or an axum router in `hyper_util::service::TowerToHyperService`.
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

/// Limits of every wait and amount that a peer could make long or large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the first byte, and from there to a finished TLS handshake; also the longest
    /// wait for a place after it.
    pub handshake: Duration,
    /// From the first byte of a request to the end of its headers (HTTP/1).
    pub header_read: Duration,
    /// With a request under way and no incoming byte. Longer than the handler's own deadline, which
    /// comes first.
    pub stalled: Duration,
    /// With outgoing bytes that the peer does not take from its socket.
    pub unread: Duration,
    /// From one charged answer taken to the next, while some wait: an HTTP/2 peer may read without
    /// letting an answer through.
    pub answer: Duration,
    /// With no request under way. Longer than the 90 s after which Go's client (the API server)
    /// closes an idle connection: the server must not close first, because a request may be on its
    /// way. An idle connection also saves the next burst a handshake, which costs ten times a small
    /// request.
    pub idle: Duration,
    /// From requesting a connection to close until it is cut off.
    pub close: Duration,
    /// The same if its place is needed.
    pub evict: Duration,
    /// How long a connection may keep the server waiting before another peer's newcomer can take
    /// its place.
    pub turn: Duration,
    /// How long a connection that has just taken a place may take to begin a request before a
    /// newcomer may take its place. A round trip of its peers; short enough that many peers with
    /// one silent connection each keep no newcomer waiting.
    pub request_grace: Duration,
    /// From the end of the drain until requests under way are cut off. Longer than the API server's
    /// timeout (5 s).
    pub finish: Duration,
    /// From an accept error, such as too many open files, to the next try.
    pub accept_backoff: Duration,
    /// Connections without a first byte or a finished handshake. They cost little; a newcomer
    /// always gets a place.
    pub arriving: usize,
    /// How long a handshake may take while another peer's waits for its place. Longer than an
    /// honest one takes on a busy machine.
    pub handshake_turn: Duration,
    /// TLS handshakes under way.
    pub handshakes: usize,
    /// TLS handshakes of one peer under way.
    pub handshakes_of_peer: usize,
    /// HTTP/1 connections.
    pub connections: usize,
    /// HTTP/1 connections of one peer. An API server keeps 25 idle ones, and opens more for a
    /// burst.
    pub connections_of_peer: usize,
    /// HTTP/2 connections, each with up to `streams` requests. API servers use HTTP/1 for webhooks.
    pub http2_connections: usize,
    /// HTTP/2 connections of one peer.
    pub http2_connections_of_peer: usize,
    /// Headers of one request; also the largest read from a socket. Bytes.
    pub header_bytes: usize,
    /// Concurrent HTTP/2 requests on one connection.
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
        request_grace: Duration::from_millis(100),
        finish: Duration::from_secs(10),
        accept_backoff: Duration::from_millis(200),
        arriving: 512,
        handshake_turn: Duration::from_millis(500),
        handshakes: 128,
        handshakes_of_peer: 32,
        connections: 256,
        connections_of_peer: 128,
        http2_connections: 8,
        http2_connections_of_peer: 4,
        header_bytes: 16 << 10,
        streams: 16,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The default drain: the time until endpoint removal has reached every API server and node.
pub const DRAIN: Duration = Duration::from_secs(10);
/// The kernel's receive buffer of a connection, in bytes. The kernel reserves twice as much, and
/// would otherwise let it grow to several MiB for a peer whose body is not read yet; these buffers
/// count as this container's memory (48 MiB with every place taken). A review of 64 KB must fit:
/// with 32 KiB it costs a third more CPU.
const RECEIVE_BUFFER_BYTES: usize = 96 << 10;
/// The kernel's send buffer of a connection, in bytes: answers are small.
const SEND_BUFFER_BYTES: usize = 32 << 10;

/// How long to look for connections that the kernel has accepted, before the port closes.
const BACKLOG_WAIT: Duration = Duration::from_millis(5);

/// A listening port with everything it needs.
#[derive(Debug)]
pub struct Edge {
    /// Bound after the certificate was loaded.
    pub listener: TcpListener,
    /// `None` serves plain HTTP (the admin port).
    pub tls: Option<Arc<ServerConfig>>,
    pub limits: Limits,
    /// How long to keep serving after the first signal: [`DRAIN`] in a cluster, zero if no one
    /// routes to this port.
    pub drain: Duration,
    pub stats: Arc<ServeStats>,
    pub shutdown: Shutdown,
}

impl Edge {
    /// Serves until the drain has ended or a second signal came. Closes all connections before it
    /// returns.
    pub async fn serve<S: Handler<B>, B: ResponseBody>(self, service: S) {
        let mut shutdown = self.shutdown.clone();
        let mut abort = self.shutdown.clone();
        let (listener, mut acceptor) = Acceptor::new(self);
        tokio::select! {
            biased;
            () = abort.reached(ShutdownStage::Abort) => tracing::warn!("second signal: requests under way are cut off"),
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
    handshakes: Arc<FairBudget>,
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
            handshakes: FairBudget::new(
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

    async fn run<S: Handler<B>, B: ResponseBody>(
        &mut self,
        listener: TcpListener,
        service: S,
        shutdown: &mut Shutdown,
    ) {
        // Accepted sockets inherit these. A system that refuses keeps its own.
        let _ = sockopt::set_socket_recv_buffer_size(&listener, RECEIVE_BUFFER_BYTES);
        let _ = sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES);
        let mut drained_at = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.reached(ShutdownStage::Draining), if drained_at.is_none() => {
                    tracing::info!(drain_seconds = self.drain.as_secs(), open = self.stats.open(), "draining");
                    self.registry.drain();
                    drained_at = Some(Instant::now() + self.drain);
                }
                () = clock::at(drained_at) => break,
                Some(_) = self.tasks.join_next() => {}
                accepted = accept(&listener, self.not_before) => {
                    self.accepted(accepted, &service);
                    // The next connection may evict this one, which must first have had time to
                    // send something.
                    tokio::task::yield_now().await;
                }
            }
        }
        self.accept_backlog(&listener, &service).await;
        drop(listener);
        self.finish().await;
    }

    fn accepted<S: Handler<B>, B: ResponseBody>(
        &mut self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        service: &S,
    ) {
        self.not_before = None;
        match accepted {
            Ok((socket, address)) => self.begin(socket, listen::peer(address), service),
            Err(error) if is_per_connection(&error) => {}
            Err(error) => {
                self.stats.failed(ConnectionFailure::Accept);
                self.registry.close_longest_idle();
                self.not_before = Some(Instant::now() + self.limits.accept_backoff);
                tracing::warn!(%error, "cannot accept a connection: closing the one idle longest, trying again soon");
            }
        }
    }

    fn begin<S: Handler<B>, B: ResponseBody>(
        &mut self,
        socket: TcpStream,
        peer: Peer,
        service: &S,
    ) {
        // Answers are one small write, which the kernel must not delay. A socket that refuses is
        // gone anyway.
        let _ = socket.set_nodelay(true);
        let entry = self.registry.register(peer);
        let number = entry.number();
        let tls = (self.tls.clone(), Arc::clone(&self.handshakes));
        let task = self
            .tasks
            .spawn(connection::serve(socket, tls, service.clone(), entry));
        self.registry.runs_as(number, task);
    }

    /// Accepts the connections whose TCP handshakes the kernel has finished; closing the port would
    /// reset them. The number of places bounds the loop, and the first wait after the deadline ends
    /// it.
    async fn accept_backlog<S: Handler<B>, B: ResponseBody>(
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

    /// Ends idle connections now and the others after their answer.
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

/// Returns whether one connection was gone before it was accepted.
fn is_per_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
