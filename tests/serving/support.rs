//! A small HTTPS service, a client that reports what it saw, certificates, and a kubelet.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use thanos_timeshard::adapters::files::swap_volume;
use thanos_timeshard::adapters::https::serve::{Edge, Limits, ServeStats};
use thanos_timeshard::adapters::https::tls::{CERT_FILE, Certificates, KEY_FILE};
use thanos_timeshard::adapters::listen;
use thanos_timeshard::adapters::signals::{self, Shutdown, Trigger};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long any condition may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

pub(crate) const HTTP1: &[u8] = b"http/1.1";
pub(crate) const HTTP2: &[u8] = b"h2";

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(
            start.elapsed() < DEADLINE,
            "waited {DEADLINE:?} in vain: {what}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A leaf and its key as PEM, and the leaf as seen in a handshake.
pub(crate) struct Pair {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) leaf: CertificateDer<'static>,
}

/// A client's certificate and its key.
pub(crate) struct ClientPair {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

/// A CA that numbers its leaves.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    pem: String,
    next_serial: AtomicU32,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let (pem, root) = (root.pem(), root.der().clone());
        Self {
            issuer: Issuer::new(params, key),
            pem,
            root,
            next_serial: AtomicU32::new(1),
        }
    }

    pub(crate) fn issue(&self) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(u64::from(
            self.next_serial.fetch_add(1, Relaxed),
        )));
        params.not_after = rcgen::date_time_ymd(2099, 12, 31);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            chain: leaf.pem(),
            key: key.serialize_pem(),
            leaf: leaf.der().clone(),
        }
    }

    /// The CA's certificate.
    pub(crate) fn pem(&self) -> String {
        self.pem.clone()
    }

    pub(crate) fn issue_client(&self, common_name: &str, names: &[&str]) -> ClientPair {
        self.sign_client(common_name, names, 2099)
    }

    pub(crate) fn issue_client_until(&self, common_name: &str, year: i32) -> ClientPair {
        self.sign_client(common_name, &[], year)
    }

    fn sign_client(&self, common_name: &str, names: &[&str], until_year: i32) -> ClientPair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(until_year, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        ClientPair { certificate, key }
    }

    pub(crate) fn client(
        &self,
        alpn: &[u8],
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsConnector {
        self.client_as(alpn, versions, None)
    }

    pub(crate) fn client_as(
        &self,
        alpn: &[u8],
        versions: &[&'static SupportedProtocolVersion],
        pair: Option<&ClientPair>,
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots);
        let mut config = match pair {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::try_from(pair.key.serialize_der()).unwrap();
                config
                    .with_client_auth_cert(vec![pair.certificate.clone()], key)
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        // Every handshake is a full one: a resumed session would show no certificate.
        config.resumption = rustls::client::Resumption::disabled();
        TlsConnector::from(Arc::new(config))
    }
}

/// A mounted Secret.
pub(crate) struct Kubelet {
    pub(crate) dir: PathBuf,
}

impl Kubelet {
    pub(crate) fn new(dir: PathBuf) -> Self {
        fs::create_dir_all(&dir).unwrap();
        Self { dir }
    }

    pub(crate) fn swap(&self, chain: &str, key: &str) {
        swap_volume(&self.dir, [(CERT_FILE, chain), (KEY_FILE, key)]).unwrap();
    }
}

/// Requests to `/hold` wait here until the test lets them be answered.
#[derive(Default)]
pub(crate) struct Gate {
    pub(crate) held: AtomicU32,
    pub(crate) open: Notify,
}

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) stats: Arc<ServeStats>,
    pub(crate) trigger: Trigger,
    pub(crate) shutdown: Shutdown,
    pub(crate) gate: Arc<Gate>,
    pub(crate) served: Arc<AtomicU32>,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) async fn start(
    certificates: &Arc<Certificates>,
    limits: &Limits,
    drain: Duration,
) -> Server {
    start_with(certificates.server_config().unwrap(), limits, drain)
}

pub(crate) fn start_with(tls: Arc<ServerConfig>, limits: &Limits, drain: Duration) -> Server {
    let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let (trigger, shutdown) = signals::channel();
    let stats = Arc::new(ServeStats::default());
    let (gate, served) = (Arc::new(Gate::default()), Arc::new(AtomicU32::new(0)));
    let edge = Edge {
        listener,
        tls: Some(tls),
        limits: *limits,
        drain,
        stats: Arc::clone(&stats),
        shutdown: shutdown.clone(),
    };
    let (held, counted) = (Arc::clone(&gate), Arc::clone(&served));
    let echo =
        move |request: Request<Incoming>| echo(request, Arc::clone(&held), Arc::clone(&counted));
    let task = tokio::spawn(edge.serve(hyper::service::service_fn(echo)));
    Server {
        addr,
        stats,
        trigger,
        shutdown,
        gate,
        served,
        task,
    }
}

async fn echo(
    request: Request<Incoming>,
    gate: Arc<Gate>,
    served: Arc<AtomicU32>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/hold" {
        let open = gate.open.notified();
        gate.held.fetch_add(1, Relaxed);
        open.await;
    }
    let body = request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    served.fetch_add(1, Relaxed);
    Ok(Response::new(Full::new(body)))
}

/// Connects to `addr` from another loopback address, which is another peer to the server.
pub(crate) async fn tcp_from(from: u8, addr: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new([127, 0, 0, from].into(), 0))?;
    socket.connect(addr).await.context("connect")
}

pub(crate) async fn tls(
    addr: SocketAddr,
    connector: &TlsConnector,
) -> Result<TlsStream<TcpStream>> {
    tls_from(1, addr, connector).await
}

pub(crate) async fn tls_from(
    from: u8,
    addr: SocketAddr,
    connector: &TlsConnector,
) -> Result<TlsStream<TcpStream>> {
    let socket = tcp_from(from, addr).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    connector
        .connect(name, socket)
        .await
        .context("TLS handshake")
}

/// Returns the leaf that a new connection is shown.
pub(crate) async fn served_leaf(
    addr: SocketAddr,
    connector: &TlsConnector,
) -> Result<CertificateDer<'static>> {
    let stream = timeout(DEADLINE, tls(addr, connector)).await??;
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .context("no certificate")?;
    Ok(leaf.clone().into_owned())
}

/// A kept connection of either protocol.
pub(crate) enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr, connector: &TlsConnector) -> Result<Self> {
        Self::connect_from(1, addr, connector).await
    }

    pub(crate) async fn connect_from(
        from: u8,
        addr: SocketAddr,
        connector: &TlsConnector,
    ) -> Result<Self> {
        let stream = timeout(DEADLINE, tls_from(from, addr, connector)).await??;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        let io = TokioIo::new(stream);
        if http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Ok(Self::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            Ok(Self::Http1(sender))
        }
    }

    /// Sends `body` and expects it back. Returns whether the server wants the connection closed.
    pub(crate) async fn echo(&mut self, path: &str, body: &'static str) -> Result<bool> {
        self.try_echo(path, body)
            .await?
            .context("the connection was closed before the request could be sent")
    }

    /// The same; `None` if the connection was closed before a byte of the request was sent, so that
    /// the request can go elsewhere.
    pub(crate) async fn try_echo(
        &mut self,
        path: &str,
        body: &'static str,
    ) -> Result<Option<bool>> {
        let request = Request::post(format!("https://localhost{path}"))
            .header("host", "localhost")
            .body(Full::from(body))?;
        let sent = async {
            match self {
                Self::Http1(sender) => sender.try_send_request(request).await,
                Self::Http2(sender) => sender.try_send_request(request).await,
            }
        };
        let response = match timeout(DEADLINE, sent).await.context("no answer in time")? {
            Ok(response) => response,
            Err(mut error) => match error.take_message() {
                Some(_unsent) => return Ok(None),
                None => return Err(error.into_error()).context("request"),
            },
        };
        ensure!(
            response.status().is_success(),
            "status {}",
            response.status()
        );
        let last = response
            .headers()
            .get("connection")
            .is_some_and(|value| value == "close");
        let answer = timeout(DEADLINE, response.into_body().collect())
            .await??
            .to_bytes();
        ensure!(answer == body, "got another body back: {answer:?}");
        Ok(Some(last))
    }

    /// Sends any body to any path. Returns status and body.
    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> Result<(u16, Bytes)> {
        let request = Request::post(format!("https://localhost{path}"))
            .header("host", "localhost")
            .body(Full::from(body))?;
        let sent = async {
            match self {
                Self::Http1(sender) => sender.send_request(request).await,
                Self::Http2(sender) => sender.send_request(request).await,
            }
        };
        let response = timeout(DEADLINE, sent)
            .await
            .context("no answer in time")?
            .context("request")?;
        let status = response.status().as_u16();
        Ok((
            status,
            timeout(DEADLINE, response.into_body().collect())
                .await??
                .to_bytes(),
        ))
    }

    /// Returns whether this connection takes another request.
    pub(crate) async fn is_usable(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }
}

/// Sends one good request on a new connection.
pub(crate) async fn good_request(addr: SocketAddr, connector: &TlsConnector) -> Result<()> {
    let mut client = Client::connect(addr, connector).await?;
    client
        .echo("/", "hello")
        .await
        .map(|_| ())
        .map_err(|error| anyhow!("after the handshake: {error:#}"))
}
