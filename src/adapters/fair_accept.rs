//! An accept loop for endpoints whose answers are small and ready: the sidecar's, and the server's probes.
//!
//! Invariants: connections are bounded in number, in all and per peer, and a new one always gets a place: the peer that holds most
//! gives one up at once ([`Places`]), since nothing tells kubelet's probes from others before their header is there. Deliberately
//! absent: TLS, waiting for a place, and a drain; `adapters/serve` has these.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::listen;
use crate::core::peer::Peer;
use crate::core::places::Places;

/// After an accept error, such as too many open files, before the next try.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In all.
    pub connections: usize,
    /// Of one peer address.
    pub of_peer: usize,
}

#[derive(Debug)]
struct Open {
    places: Places<Peer>,
    tasks: HashMap<u64, AbortHandle>,
}

/// A connection's place, free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    number: u64,
    open: Arc<Mutex<Open>>,
}

/// Serves for ever: `connection` is run for each connection, and dropped where its place is taken.
pub async fn serve<F>(
    listener: TcpListener,
    bounds: Bounds,
    connection: impl Fn(TcpStream, Place) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let open = Arc::new(Mutex::new(Open {
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
            let task = tokio::spawn(connection(
                stream,
                Place {
                    number,
                    open: open.clone(),
                },
            ));
            opened.tasks.insert(number, task.abort_handle());
            evicted.and_then(|number| opened.tasks.remove(&number))
        };
        if let Some(task) = evicted {
            task.abort();
        }
        // The next one may take this one's place: it must have had the time to say something.
        tokio::task::yield_now().await;
    }
}

impl Place {
    /// Notes that something was asked for on this connection.
    pub fn used(&self) {
        lock(&self.open).places.used(self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.places.leave(self.number);
        open.tasks.remove(&self.number);
    }
}

/// What is shared is consistent after every statement, so a panic elsewhere does not spoil it.
fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
