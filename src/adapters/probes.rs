//! The server's probes on a port of their own: `/livez` and `/readyz`, for kubelet alone.
//!
//! Nothing in a request says that it is kubelet's, so a network policy closes this port to pods; what a node sends to its own pods
//! passes every policy. Where nothing enforces policies, bounds per peer and a second for a whole header keep a place for it.
//!
//! Invariants: the port is served by a thread and a runtime of its own, so that no amount of work elsewhere delays an answer; it
//! answers from what the program knows already. So that liveness still means something, the main runtime beats a [`Pulse`], and
//! a runtime that has not run a task for [`MAX_SILENCE`] is neither live nor ready. Deliberately absent: anything else.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::fair_accept::{self, Bounds, Place};
use super::signals::Shutdown;

/// Connections at once; kubelet needs two. Where peers with many addresses hold one each, the newest 256 are kept: a probe is
/// answered in a millisecond, so it would take a flood of more than a hundred thousand connections a second to crowd it out.
const BOUNDS: Bounds = Bounds {
    connections: 256,
    of_peer: 16,
};
/// The longest wait for a request's whole header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest life of a connection: one request and its answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest request header. Bytes; hyper wants at least 8 KiB.
const HEADER_BYTES: usize = 8 << 10;
/// The kernel's buffer of a connection, each way. Bytes.
const SOCKET_BUFFER_BYTES: usize = 4 << 10;
/// How often the main runtime says that it runs.
const BEAT: Duration = Duration::from_secs(1);
/// For how long it may say nothing. Longer than any burst of work, and with the probe's three failures within a minute.
pub const MAX_SILENCE: Duration = Duration::from_secs(20);

/// Says why the program is not ready, if it is not.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Whether a runtime still runs its tasks.
#[derive(Clone, Debug)]
pub struct Pulse {
    started: Instant,
    /// Milliseconds since `started`.
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// One that has beaten just now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            last: Arc::default(),
        }
    }

    /// Beats for as long as it is polled, which is the point.
    pub async fn beat(self) {
        let mut interval = tokio::time::interval(BEAT);
        loop {
            interval.tick().await;
            self.last.store(
                u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                Relaxed,
            );
        }
    }

    fn silence(&self) -> Duration {
        self.started
            .elapsed()
            .saturating_sub(Duration::from_millis(self.last.load(Relaxed)))
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

/// What the probes are answered from.
#[derive(Clone)]
pub struct Probes {
    /// Read on each `/readyz`.
    pub ready: Ready,
    /// Whether the server drains: it is not ready then.
    pub shutdown: Shutdown,
    /// The main runtime's.
    pub pulse: Pulse,
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes")
            .field("shutdown", &self.shutdown)
            .field("pulse", &self.pulse)
            .finish_non_exhaustive()
    }
}

impl Probes {
    /// Whether the process does its work, or is to be restarted.
    ///
    /// # Errors
    /// Says why not.
    pub fn live(&self) -> Result<(), String> {
        let silence = self.pulse.silence();
        if silence < MAX_SILENCE {
            Ok(())
        } else {
            Err(format!(
                "no task of the server has run for {} s",
                silence.as_secs()
            ))
        }
    }

    /// Whether requests should be sent here.
    ///
    /// # Errors
    /// Says why not.
    pub fn ready(&self) -> Result<(), String> {
        self.live()?;
        readiness(&self.ready, &self.shutdown)
    }
}

/// Ready when the program says so and no drain has begun.
///
/// # Errors
/// Says why it is not.
pub fn readiness(ready: &Ready, shutdown: &Shutdown) -> Result<(), String> {
    if shutdown.is_draining() {
        Err("draining: a signal has asked the program to end".to_owned())
    } else {
        ready()
    }
}

/// Serves the port on a thread of its own until the process ends.
///
/// # Errors
/// When the system gives no thread, or no runtime for it.
pub fn start(listener: TcpListener, probes: Probes) -> io::Result<()> {
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("probes".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => serve(listener, probes).await,
                    Err(error) => tracing::error!(%error, "probes cannot be served"),
                }
            });
        })?;
    Ok(())
}

async fn serve(listener: TcpListener, probes: Probes) {
    // Accepted sockets inherit these. A system that refuses keeps its own.
    let _ = sockopt::set_socket_recv_buffer_size(&listener, SOCKET_BUFFER_BYTES);
    let _ = sockopt::set_socket_send_buffer_size(&listener, SOCKET_BUFFER_BYTES);
    fair_accept::serve(listener, BOUNDS, |stream, place| {
        connection(stream, probes.clone(), place)
    })
    .await;
}

async fn connection(stream: TcpStream, probes: Probes, place: Place) {
    let service = service_fn(|request| {
        place.used();
        let response = answer(&request, &probes);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever gives up is no news.
    let _ = timeout(CONNECTION_TIMEOUT, connection).await;
}

fn answer(request: &Request<Incoming>, probes: &Probes) -> Response<Full<Bytes>> {
    let result = match request.uri().path() {
        "/livez" => probes.live(),
        "/readyz" => probes.ready(),
        _ => {
            return text(
                StatusCode::NOT_FOUND,
                "there are /livez and /readyz here".to_owned(),
            );
        }
    };
    match result {
        Ok(()) => text(StatusCode::OK, "ok".to_owned()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

fn text(status: StatusCode, line: String) -> Response<Full<Bytes>> {
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "text/plain; charset=utf-8");
    // Only an invalid header could fail, and this is a constant.
    response.body(Full::from(line + "\n")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::signals::Shutdown;

    #[test]
    fn a_runtime_that_runs_no_task_is_neither_live_nor_ready() {
        let started = Instant::now().checked_sub(MAX_SILENCE).unwrap();
        let pulse = Pulse {
            started,
            last: Arc::default(),
        };
        let probes = Probes {
            ready: Arc::new(|| Ok(())),
            shutdown: Shutdown::never(),
            pulse: pulse.clone(),
        };
        assert_eq!(
            probes.live(),
            Err("no task of the server has run for 20 s".to_owned())
        );
        assert_eq!(probes.ready(), probes.live());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let beats = async { tokio::time::timeout(Duration::ZERO, pulse.beat()).await };
        assert!(
            runtime.block_on(beats).is_err(),
            "it beats for as long as it is polled"
        );
        assert_eq!((probes.live(), probes.ready()), (Ok(()), Ok(())));
    }
}
