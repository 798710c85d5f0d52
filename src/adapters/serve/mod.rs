//! The accept loop: sockets in, requests to a service, and a drain that loses none.
//!
//! Invariants: certificates are loaded before the port is bound (the caller hands both in); at most
//! [`Limits::connections`] are open, and every wait on a peer has a limit in [`Limits`]; the drain is looked at before
//! the next accept; an accept error backs off and never spins; nothing outlives [`Edge::serve`].
//!
//! When the cap is reached, the connection that has been idle longest is closed to make room, those that never sent a
//! request first. So a client that opens connections and says nothing cannot lock the API server out, as it could if the
//! loop just waited. Only when every connection is busy does the loop stop accepting, and the kernel's backlog holds.
//!
//! Deliberately absent: body limits and deadlines of a request, which belong to the handler; an async-generic tower
//! stack: one hyper connection per socket, HTTP/1 or HTTP/2 by what TLS negotiated, nothing boxed for HTTP/1.

mod connection;
mod handshake;
mod registry;
mod state;
mod stats;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::signals::{Shutdown, Stage};
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
    Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send + 'static> + Clone + Send + 'static
{
}
impl<B, S> Handler<B> for S where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send + 'static> + Clone + Send + 'static
{
}

/// Every wait and every amount that a peer could make long or large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From accept to a finished TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a request to the end of its headers (HTTP/1).
    pub header_read: Duration,
    /// With a request under way and no byte coming in. Longer than the handler's own deadline, which comes first.
    pub stalled: Duration,
    /// With no request under way. Longer than the 90 s after which Go's client (the API server) closes an idle
    /// connection itself: whoever closes first must not be us, because a request may be on its way. It also saves the
    /// next burst its handshakes, which cost ten times a small request.
    pub idle: Duration,
    /// From asking a connection to close until it is cut off.
    pub close: Duration,
    /// From the end of the drain until requests still under way are cut off. Longer than the API server's timeout (5 s).
    pub finish: Duration,
    /// After an accept error such as too many open files, before the next try.
    pub accept_backoff: Duration,
    /// Connections open at once, handshakes included.
    pub connections: usize,
    /// Headers of one request, in bytes; also the largest read from a socket.
    pub header_bytes: usize,
    /// HTTP/2 requests under way at once on one connection.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            header_read: Duration::from_secs(5),
            stalled: Duration::from_secs(30),
            idle: Duration::from_mins(3),
            close: Duration::from_secs(2),
            finish: Duration::from_secs(10),
            accept_backoff: Duration::from_millis(200),
            connections: 1024,
            header_bytes: 16 << 10,
            streams: 64,
        }
    }
}

/// How long the drain keeps serving by default: what endpoint removal takes to reach every API server and node.
pub const DRAIN: Duration = Duration::from_secs(10);
/// How long the loop waits for a connection to end before it closes another one to make room.
const SLOT_WAIT: Duration = Duration::from_millis(50);

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
    slots: Arc<Semaphore>,
    registry: Registry,
    /// Accepted, but every slot is taken.
    waiting: Option<TcpStream>,
    /// No accept before this time.
    not_before: Option<Instant>,
    /// Dropping it ends every connection.
    tasks: JoinSet<()>,
}

impl Acceptor {
    fn new(edge: Edge) -> (TcpListener, Self) {
        let acceptor = Self {
            tls: edge.tls.map(TlsAcceptor::from),
            limits: edge.limits,
            drain: edge.drain,
            slots: Arc::new(Semaphore::new(edge.limits.connections)),
            registry: Registry::new(Arc::clone(&edge.stats)),
            stats: edge.stats,
            waiting: None,
            not_before: None,
            tasks: JoinSet::new(),
        };
        (edge.listener, acceptor)
    }

    async fn run<S: Handler<B>, B: Answer>(&mut self, listener: TcpListener, service: S, shutdown: &mut Shutdown) {
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
                permit = slot(&self.slots, &self.registry), if self.waiting.is_some() => {
                    if let Some(socket) = self.waiting.take() {
                        self.begin(socket, permit, &service);
                    }
                }
                accepted = accept(&listener, self.not_before), if self.waiting.is_none() => {
                    self.accepted(accepted, &service);
                }
            }
        }
        self.accept_backlog(&listener, &service).await;
        drop(listener);
        self.finish().await;
    }

    fn accepted<S: Handler<B>, B: Answer>(&mut self, accepted: io::Result<TcpStream>, service: &S) {
        self.not_before = None;
        match accepted {
            Ok(socket) => match Arc::clone(&self.slots).try_acquire_owned() {
                Ok(permit) => self.begin(socket, permit, service),
                Err(_) => self.waiting = Some(socket),
            },
            Err(error) if is_per_connection(&error) => {}
            Err(error) => {
                self.stats.failed(Failure::Accept);
                self.registry.close_longest_idle();
                self.not_before = Some(Instant::now() + self.limits.accept_backoff);
                tracing::warn!(%error, "cannot accept a connection: closing the one idle longest, trying again soon");
            }
        }
    }

    fn begin<S: Handler<B>, B: Answer>(&mut self, socket: TcpStream, permit: OwnedSemaphorePermit, service: &S) {
        // Answers are one small write; the kernel must not hold it back. A socket that refuses is gone anyway.
        let _ = socket.set_nodelay(true);
        let entry = self.registry.register();
        let connection = connection::serve(socket, self.tls.clone(), service.clone(), self.limits, entry);
        self.tasks.spawn(async move {
            connection.await;
            drop(permit);
        });
    }

    /// The kernel has finished these connections' TCP handshakes; closing the port would reset them. The cap bounds the
    /// loop, and the first wait after the deadline ends it.
    async fn accept_backlog<S: Handler<B>, B: Answer>(&mut self, listener: &TcpListener, service: &S) {
        if let Some(socket) = self.waiting.take() {
            self.accepted(Ok(socket), service);
        }
        let deadline = Instant::now() + BACKLOG_WAIT;
        while self.waiting.is_none() {
            match timeout_at(deadline, listener.accept()).await {
                Ok(Ok((socket, _))) => self.accepted(Ok(socket), service),
                _ => return,
            }
        }
    }

    /// Ends idle connections now and the others when they have answered.
    async fn finish(&mut self) {
        self.registry.finish();
        let tasks = &mut self.tasks;
        let done = timeout(self.limits.finish, async { while tasks.join_next().await.is_some() {} }).await;
        if done.is_err() {
            tracing::warn!(open = self.tasks.len(), "the drain took too long: requests under way are cut off");
        }
    }
}

async fn accept(listener: &TcpListener, not_before: Option<Instant>) -> io::Result<TcpStream> {
    if let Some(time) = not_before {
        sleep_until(time).await;
    }
    listener.accept().await.map(|(socket, _)| socket)
}

/// A slot for a socket that is waiting for one; makes room.
async fn slot(slots: &Arc<Semaphore>, registry: &Registry) -> OwnedSemaphorePermit {
    // The wait may have been cut short by a connection that ended.
    if let Ok(permit) = Arc::clone(slots).try_acquire_owned() {
        return permit;
    }
    loop {
        registry.close_longest_idle();
        if let Ok(Ok(permit)) = timeout(SLOT_WAIT, Arc::clone(slots).acquire_owned()).await {
            return permit;
        }
    }
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
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
