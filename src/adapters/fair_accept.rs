//! An accept loop for endpoints with small, prepared answers: the sidecar's, and the server's
//! probes.
//!
//! Invariants: connections are limited in total and per peer, and a new one always gets a place:
//! the peer with the most connections immediately loses one ([`Places`]), because kubelet's probes
//! cannot be recognised before their header arrives. Deliberately absent: TLS, waiting for a place,
//! and a drain; `adapters/https/serve` has these.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::listen;
use super::lock::lock;
use crate::core::fairness::peer::Peer;
use crate::core::fairness::places::Places;

/// The wait after an accept error, such as too many open files.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In total.
    pub connections: usize,
    /// Per peer address.
    pub of_peer: usize,
    /// The longest wait for a complete request header, also for that of the next request.
    pub header: Duration,
    /// The longest life of a connection.
    pub life: Duration,
    /// Whether a connection takes more than one request.
    pub keep_alive: bool,
}

/// The largest request header; hyper requires at least 8 KiB.
const HEADER_BYTES: usize = 8 << 10;

#[derive(Debug)]
struct OpenConnection {
    places: Places<Peer>,
    tasks: HashMap<u64, AbortHandle>,
}

/// A connection's place; dropping it frees the place.
#[derive(Debug)]
struct ConnectionPlace {
    number: u64,
    open: Arc<Mutex<OpenConnection>>,
}

/// Serves HTTP/1 for ever. A connection ends when its place is taken.
pub async fn serve(
    listener: TcpListener,
    bounds: Bounds,
    answer: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
) {
    let open = Arc::new(Mutex::new(OpenConnection {
        places: Places::new(bounds.connections, bounds.of_peer),
        tasks: HashMap::new(),
    }));
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        let evicted = {
            let mut opened = lock(&open);
            let (number, evicted) = opened.places.take(listen::peer(address));
            let place = ConnectionPlace {
                number,
                open: open.clone(),
            };
            let task = tokio::spawn(connection(stream, bounds, place, answer.clone()));
            opened.tasks.insert(number, task.abort_handle());
            evicted.and_then(|number| opened.tasks.remove(&number))
        };
        if let Some(task) = evicted {
            task.abort();
        }
        // The next connection may take the place of this one, which must first have had time to
        // send something.
        tokio::task::yield_now().await;
    }
}

async fn connection(
    stream: TcpStream,
    bounds: Bounds,
    place: ConnectionPlace,
    answer: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>>,
) {
    let service = service_fn(|request| {
        lock(&place.open).places.used(place.number);
        let response = answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(bounds.keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    // A client that fails or leaves is not logged.
    let _ = timeout(bounds.life, connection).await;
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.places.leave(self.number);
        open.tasks.remove(&self.number);
    }
}
