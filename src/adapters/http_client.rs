//! A plain HTTP/1.1 client for single GETs: each on its own connection, with a limit in time and
//! size.
//!
//! Deliberately absent: redirects, proxies, TLS, connection pools.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The default limit of an exchange.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// The default limit of a body. Bytes.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// The largest header of an answer; also the largest read from the socket. Bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

#[derive(Clone, Copy, Debug)]
pub struct GetLimits {
    /// For connecting, the request and the whole answer together.
    pub deadline: Duration,
    /// The largest body. Bytes.
    pub max_answer_bytes: usize,
    /// Refuse addresses of this machine.
    pub not_own_machine: bool,
}

impl Default for GetLimits {
    fn default() -> Self {
        Self {
            deadline: DEADLINE,
            max_answer_bytes: MAX_ANSWER_BYTES,
            not_own_machine: false,
        }
    }
}

/// Returns the status and body of a GET. Dropping the future closes the connection.
///
/// # Errors
/// Names the URL and the step that failed.
pub async fn get(
    address: SocketAddr,
    path: &str,
    limits: GetLimits,
) -> Result<(u16, Bytes), String> {
    let answer = get_from(&address.ip().to_string(), address.port(), path, limits).await;
    answer.map_err(|why| format!("http://{address}{path}: {why}"))
}

/// As [`get`], from a host by name or address.
///
/// # Errors
/// Names the step that failed, without the URL.
pub async fn get_from(
    host: &str,
    port: u16,
    path: &str,
    limits: GetLimits,
) -> Result<(u16, Bytes), String> {
    get_with((host, port), path, limits, async |status, body| {
        let body = collect(body, limits.max_answer_bytes).await?;
        Ok((status.as_u16(), body))
    })
    .await
}

/// As [`get_from`]; `read` receives the body as it arrives and limits its size.
///
/// # Errors
/// Names the step that failed, without the URL; or that of `read`.
pub async fn get_with<T>(
    (host, port): (&str, u16),
    path: &str,
    limits: GetLimits,
    read: impl AsyncFnOnce(StatusCode, Incoming) -> Result<T, String>,
) -> Result<T, String> {
    let exchange = async {
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|error| error.to_string())?;
        // The kernel gives a connection to one of its own addresses that same address.
        if limits.not_own_machine && is_own(&stream) {
            return Err("it is an address of the server's own machine: not asked".to_owned());
        }
        exchange(stream, (host, port), path, read).await
    };
    within(limits.deadline, exchange).await
}

/// Sends one GET over `stream`; `read` receives the body as it arrives. `host` and `port` are for
/// the Host header.
///
/// # Errors
/// The client's error, or that of `read`.
pub async fn exchange<T>(
    stream: TcpStream,
    (host, port): (&str, u16),
    path: &str,
    read: impl AsyncFnOnce(StatusCode, Incoming) -> Result<T, String>,
) -> Result<T, String> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let host = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        read(response.status(), response.into_body()).await
    };
    // The connection may end before `answer` has taken its last bytes. Its error reaches `answer`.
    let drive = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = drive => never,
    }
}

/// Limits an exchange in time.
///
/// # Errors
/// That of the exchange, or that it took too long.
pub async fn within<T>(
    deadline: Duration,
    exchange: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::time::timeout(deadline, exchange)
        .await
        .unwrap_or_else(|_| Err(no_answer(deadline)))
}

/// The text for an exchange that exceeds its deadline.
#[must_use]
pub fn no_answer(deadline: Duration) -> String {
    if deadline.subsec_millis() == 0 {
        format!("no answer within {} s", deadline.as_secs())
    } else {
        format!("no answer within {} ms", deadline.as_millis())
    }
}

fn is_own(stream: &TcpStream) -> bool {
    let canonical = |address: std::io::Result<SocketAddr>| {
        address.ok().map(|address| address.ip().to_canonical())
    };
    canonical(stream.local_addr()) == canonical(stream.peer_addr())
}

/// Reads a body of at most `max` bytes.
///
/// # Errors
/// The body is longer, or broke off.
pub async fn collect<B>(body: B, max: usize) -> Result<Bytes, String>
where
    B: hyper::body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(format!("the answer is longer than {max} bytes"))
        }
        Err(error) => Err(error.to_string()),
    }
}
