//! The server's own endpoints, plain HTTP: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! Invariants: ready only when the program says so and no drain has begun; values are read when they are asked for; the
//! port is served by the same accept loop as the webhook, with smaller limits; of `/metrics` there are few at a time in memory.
//!
//! Deliberately absent: anything that changes state. This port needs no authentication because it only tells. Probes are here for
//! those who ask this port for them; kubelet's own come to `adapters/probes`, which nobody else can crowd.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, State};
use axum::http::{Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

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

/// Gives the document of `/status`.
pub type Status = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What the endpoints show.
#[derive(Clone)]
pub struct Admin {
    /// Read on each `/readyz`; a drain makes it unready by itself.
    pub ready: Ready,
    /// Encoded on each `/metrics`.
    pub metrics: Arc<Registry>,
    /// Read on each `/status`.
    pub status: Status,
    /// Whether the webhook drains.
    pub shutdown: Shutdown,
}

/// The same, and what requests share.
#[derive(Clone)]
struct Served {
    admin: Admin,
    scrapes: Arc<Budget>,
}

impl FromRef<Served> for Admin {
    fn from_ref(served: &Served) -> Self {
        served.admin.clone()
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("shutdown", &self.shutdown).finish_non_exhaustive()
    }
}

/// The routes; the caller may add its own before it serves them.
pub fn router(admin: Admin) -> Router {
    let served = Served { admin, scrapes: Budget::new(SCRAPES, SCRAPES_OF_PEER, LIMITS.turn) };
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(unknown)
        .with_state(served)
}

/// Serves the routes until the process ends: probes and scrapes are answered during the drain too.
pub async fn serve(listener: TcpListener, router: Router) {
    let stats = Arc::new(ServeStats::default());
    let edge = Edge { listener, tls: None, limits: LIMITS, drain: Duration::ZERO, stats, shutdown: Shutdown::never() };
    edge.serve(TowerToHyperService::new(router)).await;
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match probes::readiness(&admin.ready, &admin.shutdown) {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(served): State<Served>, request: Request<Body>) -> Response {
    let format = Format::accepted(request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()));
    let claim = served.scrapes.claim(&Connection::of(&request), 1).await;
    match format.encode(&served.admin.metrics) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], claim.carry(text.into_bytes())).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be encoded: {error}\n")).into_response(),
    }
}

async fn status(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{:#}\n", (admin.status)())).into_response()
}

async fn unknown(uri: Uri) -> Response {
    let text = format!("no {} here; there are the page at / and /livez /readyz /metrics /status\n", uri.path());
    (StatusCode::NOT_FOUND, text).into_response()
}
