//! The server's probes on a port of their own: `/livez` and `/readyz`, for kubelet only.
//!
//! Nothing in a request proves that it is kubelet's, so a network policy closes this port to pods;
//! traffic from a node to its own pods passes every policy. Where no policy is enforced, limits per
//! peer and the header timeout keep a place for kubelet.
//!
//! Invariants: a separate thread with its own runtime serves the port, so that no amount of other
//! work delays an answer; answers come from known state. So that liveness still means something,
//! the main runtime beats a [`Pulse`], and a runtime that has not run a task for [`MAX_SILENCE`] is
//! neither live nor ready. Deliberately absent: anything else.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode};
use rustix::net::sockopt;
use tokio::net::TcpListener;

use crate::adapters::fair_accept::{self, Bounds};
use crate::adapters::signals::Shutdown;

/// Kubelet needs two connections. If many addresses hold one connection each, the newest 256 are
/// kept: a probe is answered in a millisecond, so crowding it out would take more than a hundred
/// thousand connections a second.
const BOUNDS: Bounds = Bounds {
    connections: 256,
    of_peer: 16,
    header: Duration::from_secs(1),
    // One request and its answer.
    life: Duration::from_secs(2),
    keep_alive: false,
};
/// The kernel's buffer of a connection, each way.
const SOCKET_BUFFER_BYTES: usize = 4 << 10;
/// The interval of the main runtime's beats.
const BEAT: Duration = Duration::from_secs(1);
/// The longest time without a beat. Longer than any burst of work; a restart follows within a
/// minute, after three failed probes.
pub const MAX_SILENCE: Duration = Duration::from_secs(20);

/// Returns why the program is not ready, if it is not.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Shows whether a runtime still runs its tasks.
#[derive(Clone, Debug)]
pub struct Pulse {
    started: Instant,
    /// Milliseconds since `started`.
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// Starts with a beat now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            last: Arc::default(),
        }
    }

    /// Beats for as long as the runtime polls it.
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

/// The state that answers the probes.
#[derive(Clone)]
pub struct Probes {
    /// Called on each `/readyz`.
    pub ready: Ready,
    /// The server is not ready while it drains.
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
    /// Checks that the main runtime runs.
    ///
    /// # Errors
    /// A sentence.
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

    /// Checks whether requests should be sent here.
    ///
    /// # Errors
    /// A sentence.
    pub fn ready(&self) -> Result<(), String> {
        self.live()?;
        readiness(&self.ready, &self.shutdown)
    }
}

/// Checks that the program is ready and no drain has begun.
///
/// # Errors
/// A sentence.
pub fn readiness(ready: &Ready, shutdown: &Shutdown) -> Result<(), String> {
    if shutdown.is_draining() {
        Err("draining: a signal has asked the program to end".to_owned())
    } else {
        ready()
    }
}

/// Serves the port on its own thread until the process ends.
///
/// # Errors
/// The system provides no thread, or no runtime.
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
    // Accepted sockets inherit these; a system that refuses keeps its own.
    let _ = sockopt::set_socket_recv_buffer_size(&listener, SOCKET_BUFFER_BYTES);
    let _ = sockopt::set_socket_send_buffer_size(&listener, SOCKET_BUFFER_BYTES);
    fair_accept::serve(listener, BOUNDS, move |request| answer(request, &probes)).await;
}

fn answer(request: &Request<Incoming>, probes: &Probes) -> Response<Full<Bytes>> {
    let result = match request.uri().path() {
        "/livez" => probes.live(),
        "/readyz" => probes.ready(),
        _ => {
            return text(
                StatusCode::NOT_FOUND,
                "this port has /livez and /readyz only".to_owned(),
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
