//! The sidecar's HTTP endpoints: `/status`, `/readyz`, `/livez`, `/metrics`.
//!
//! Every answer is prepared before a request comes, so a request can neither block the sidecar nor
//! fail. Connections are limited in number and time, and a new one always gets a place
//! ([`fair_accept`]). Deliberately absent: TLS, authentication, and any change of state.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::adapters::exposition::ExpositionFormat;
use crate::adapters::fair_accept::{self, Bounds};

/// Kubelet, the leader and Prometheus need one connection each. A node's address is shared by
/// kubelet and the node's pods on the host network.
const BOUNDS: Bounds = Bounds {
    connections: 64,
    of_peer: 16,
    header: Duration::from_secs(1),
    life: Duration::from_mins(5),
    keep_alive: true,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub(super) status: Bytes,
    /// Whether `/readyz` answers 200.
    pub(super) ready: bool,
    /// Body of `/readyz`.
    pub(super) phase: &'static str,
    /// Body of `/metrics`, as `OpenMetrics`.
    pub(super) metrics: String,
}

pub(super) async fn serve(listener: TcpListener, answers: watch::Receiver<Answers>) {
    fair_accept::serve(listener, BOUNDS, move |request| {
        answer(request, &answers.borrow())
    })
    .await;
}

fn answer(request: &Request<Incoming>, answers: &Answers) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = match request.uri().path() {
        "/status" => (StatusCode::OK, "application/json", answers.status.clone()),
        "/readyz" if answers.ready => (StatusCode::OK, TEXT, answers.phase.into()),
        "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, TEXT, answers.phase.into()),
        "/livez" => (StatusCode::OK, TEXT, "ok".into()),
        "/metrics" => {
            let format = ExpositionFormat::accepted(
                request
                    .headers()
                    .get(ACCEPT)
                    .and_then(|value| value.to_str().ok()),
            );
            (
                StatusCode::OK,
                format.content_type(),
                format.write(answers.metrics.clone()).into(),
            )
        }
        _ => (
            StatusCode::NOT_FOUND,
            TEXT,
            "try /status, /readyz, /livez or /metrics".into(),
        ),
    };
    let allowed = matches!(*request.method(), Method::GET | Method::HEAD);
    let response = if allowed {
        Response::builder()
            .status(status)
            .header(CONTENT_TYPE, kind)
            .body(Full::new(body))
    } else {
        Response::builder()
            .status(StatusCode::METHOD_NOT_ALLOWED)
            .header(ALLOW, "GET, HEAD")
            .body(Full::default())
    };
    // Only an invalid header could fail, and these are constants.
    response.unwrap_or_default()
}
