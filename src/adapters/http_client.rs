//! Clients without a pool: HTTPS, how `demo` plays the API server, and plain HTTP, how agents are asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A whole exchange takes at most this long.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// What a plain answer's head may take, and what is read of its body at once, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What went wrong, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(String);

/// One connection that trusts one CA.
#[derive(Debug)]
pub struct HttpsClient {
    sender: SendRequest<Full<Bytes>>,
}

fn failed(what: &str, error: impl std::fmt::Display) -> ClientError {
    ClientError(format!("{what}: {error}"))
}

impl HttpsClient {
    /// Connects and shakes hands, over HTTP/1.1 as the API server does. `ca` is the authority's certificate in DER.
    ///
    /// # Errors
    /// [`ClientError`] says which step failed.
    pub async fn connect(
        address: SocketAddr,
        name: &'static str,
        ca: &[u8],
    ) -> Result<Self, ClientError> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(ca.to_vec()))
            .map_err(|error| failed("the CA is not usable", error))?;
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| failed("TLS", error))?
                .with_root_certificates(roots)
                .with_no_client_auth();
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| failed("the webhook is not reachable", error))?;
        let name = ServerName::try_from(name).map_err(|error| failed("server name", error))?;
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| failed("TLS handshake", error))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| failed("HTTP", error))?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Posts JSON and gives the answer's status and body.
    ///
    /// # Errors
    /// [`ClientError`], also when the exchange takes longer than [`DEADLINE`].
    pub async fn post(
        &mut self,
        path: &str,
        host: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Bytes), ClientError> {
        let request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed("request", error))?;
        let exchange = async {
            let response = self
                .sender
                .send_request(request)
                .await
                .map_err(|error| failed("request", error))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|error| failed("answer", error))?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(DEADLINE, exchange)
            .await
            .map_err(|_| failed("answer", "not within 10 s"))?
    }
}

/// What a plain exchange may take.
#[derive(Clone, Copy, Debug)]
pub struct GetLimits {
    /// For connecting, asking and reading together.
    pub deadline: Duration,
    /// The largest body, in bytes.
    pub max_answer_bytes: usize,
    /// Whether nothing is said to an address of this machine.
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

/// A plain GET; the answer's status and body, or why there is none. Redirects are not followed and no proxy is used; when
/// it is dropped, its connection is.
///
/// # Errors
/// Says which step failed.
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
/// Says which step failed, without the address.
pub async fn get_from(
    host: &str,
    port: u16,
    path: &str,
    limits: GetLimits,
) -> Result<(u16, Bytes), String> {
    let named = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let exchange = async {
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|error| error.to_string())?;
        // The kernel gives a connection to one of its own addresses that same address.
        if limits.not_own_machine && is_own(&stream) {
            return Err("it is an address of the server's own machine: not asked".to_owned());
        }
        let mut builder = hyper::client::conn::http1::Builder::new();
        let (mut sender, connection) = builder
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let request = Request::get(path)
            .header(header::HOST, named)
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::new()))
            .map_err(|error| error.to_string())?;
        let ask = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            Ok((
                status,
                collect(response.into_body(), limits.max_answer_bytes).await?,
            ))
        };
        // The connection may end before its last bytes are taken up; what it has to say about its end is said to `ask`.
        let drive = async {
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            answer = ask => answer,
            never = drive => never,
        }
    };
    tokio::time::timeout(limits.deadline, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", limits.deadline.as_secs())))
}

fn is_own(stream: &TcpStream) -> bool {
    let canonical = |address: std::io::Result<SocketAddr>| {
        address.ok().map(|address| address.ip().to_canonical())
    };
    canonical(stream.local_addr()) == canonical(stream.peer_addr())
}

/// Reads a body of at most `most` bytes.
///
/// # Errors
/// Says whether it is too long or broke off.
pub async fn collect<B>(body: B, most: usize) -> Result<Bytes, String>
where
    B: hyper::body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(format!("the answer is longer than {most} bytes"))
        }
        Err(error) => Err(error.to_string()),
    }
}
