//! The server's own endpoints, plain HTTP: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! Invariants: ready only when the program says so and no drain has begun; values are read when they are asked for; the
//! port is served by the same accept loop as the webhook, with its limits.
//!
//! Deliberately absent: anything that changes state. This port needs no authentication because it only tells.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::exposition::Format;
use super::serve::{Edge, Limits, ServeStats};
use super::signals::Shutdown;

/// Connections to the admin port at once.
const CONNECTIONS: usize = 64;

/// Says why the program is not ready, if it is not.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;
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

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("shutdown", &self.shutdown).finish_non_exhaustive()
    }
}

/// The routes; the caller may add its own before it serves them.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(unknown)
        .with_state(admin)
}

/// Serves the routes until the process ends: probes and scrapes are answered during the drain too.
pub async fn serve(listener: TcpListener, router: Router) {
    let limits = Limits { connections: CONNECTIONS, idle: Duration::from_mins(1), ..Limits::default() };
    let edge =
        Edge { listener, tls: None, limits, drain: Duration::ZERO, stats: Arc::new(ServeStats::default()), shutdown: Shutdown::never() };
    edge.serve(TowerToHyperService::new(router)).await;
}

async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.shutdown.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining: a signal has asked the program to end\n").into_response();
    }
    match (admin.ready)() {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let format = Format::accepted(headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()));
    match format.encode(&admin.metrics) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
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
