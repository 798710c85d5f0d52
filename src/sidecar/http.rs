//! The sidecar's HTTP endpoints: `/status`, `/readyz`, `/livez`, `/metrics`.
//!
//! Every answer is made before it is asked for, so a request can neither block the sidecar nor fail. Connections are
//! bounded in number and in time, and a new one always gets a place ([`fair_accept`]). Deliberately absent: TLS, authentication,
//! and anything that changes something.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::adapters::exposition::Format;
use crate::adapters::fair_accept::{self, Bounds, Place};

/// Connections served at once; kubelet, the refresher and Prometheus need one each. Of a node's address come kubelet's, and those
/// of its pods on the host network.
const BOUNDS: Bounds = Bounds {
    connections: 64,
    of_peer: 16,
};
/// The longest wait for a request's whole header, and for the next request on the same connection. Seconds.
const HEADER_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest life of a connection. Seconds.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(5);
/// The largest request header. Bytes; hyper wants at least 8 KiB.
const BUFFER_BYTES: usize = 8 * 1024;

/// What the endpoints answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    /// Body of `/status`.
    pub(super) status: Bytes,
    /// Whether `/readyz` answers 200.
    pub(super) ready: bool,
    /// Body of `/readyz`: the phase.
    pub(super) phase: &'static str,
    /// Body of `/metrics`, as `OpenMetrics`.
    pub(super) metrics: String,
}

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener, answers: watch::Receiver<Answers>) {
    fair_accept::serve(listener, BOUNDS, |stream, place| {
        connection(stream, answers.clone(), place)
    })
    .await;
}

async fn connection(stream: TcpStream, answers: watch::Receiver<Answers>, place: Place) {
    let service = service_fn(|request| {
        place.used();
        let response = answer(&request, &answers.borrow());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // Clients come and go; what they do is not worth a line.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}

fn answer(request: &Request<Incoming>, answers: &Answers) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = match request.uri().path() {
        "/status" => (StatusCode::OK, "application/json", answers.status.clone()),
        "/readyz" if answers.ready => (StatusCode::OK, TEXT, answers.phase.into()),
        "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, TEXT, answers.phase.into()),
        "/livez" => (StatusCode::OK, TEXT, "ok".into()),
        "/metrics" => {
            let format = Format::accepted(
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
