//! The `timeshard` binary as a server, and a client that can send anything.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const TIMESHARD: &str = env!("CARGO_BIN_EXE_timeshard");
const NAME: &str = "timeshard.timeshard-system.svc";
/// Longer than any limit of the server, so that a hang fails here.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    client: Arc<ClientConfig>,
    _certificates: TempDir,
}

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Server {
    pub(crate) fn start(config: &Path) -> Self {
        let certificates = tempfile::tempdir().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![NAME.to_owned()])
            .unwrap()
            .signed_by(&key, &Issuer::new(ca, ca_key))
            .unwrap();
        std::fs::write(certificates.path().join("tls.crt"), leaf.pem()).unwrap();
        std::fs::write(certificates.path().join("tls.key"), key.serialize_pem()).unwrap();

        let mut child = Command::new(TIMESHARD)
            .args([
                "serve",
                "--webhook-only",
                "--listen=127.0.0.1:0",
                "--admin-listen=127.0.0.1:0",
                "--probe-listen=127.0.0.1:0",
                "--log-format=json",
                "--config",
            ])
            .arg(config)
            .arg("--cert-dir")
            .arg(certificates.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let address = listening(&mut child);

        let mut roots = RootCertStore::empty();
        roots.add(ca_certificate.der().clone()).unwrap();
        let client =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        Self {
            child,
            address,
            client: Arc::new(client),
            _certificates: certificates,
        }
    }

    pub(crate) fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn tls(&self) -> Tls {
        let connection =
            ClientConnection::new(self.client.clone(), NAME.try_into().unwrap()).unwrap();
        StreamOwned::new(connection, self.tcp())
    }

    /// One request on a connection of its own.
    pub(crate) fn post(&self, body: &[u8]) -> (u16, String) {
        post_on(&mut self.tls(), body)
    }

    /// Has a pod reviewed and returns the `response`.
    pub(crate) fn review(&self, pod: &Value) -> Value {
        let (status, body) = self.post(review_of(pod).to_string().as_bytes());
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
        );
        assert_eq!(answer["response"]["uid"], "uid-1");
        answer["response"].clone()
    }

    /// Panics unless the server still runs and answers.
    pub(crate) fn assert_well(&mut self) {
        assert!(
            self.child.try_wait().unwrap().is_none(),
            "the server has ended"
        );
        let response = self.review(&json!({"metadata": {"name": "x"}, "spec": {"containers": []}}));
        assert_eq!(response["allowed"], true);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log until the server reports its address, and discards the rest so that the pipe never
/// fills.
fn listening(child: &mut Child) -> SocketAddr {
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = String::new();
    for line in log.by_ref() {
        let line = line.unwrap();
        if let Some(address) = serde_json::from_str::<Value>(&line)
            .ok()
            .and_then(|line| line["fields"]["listen"].as_str()?.parse().ok())
        {
            std::thread::spawn(move || log.for_each(drop));
            return address;
        }
        seen += &line;
    }
    panic!("the server ended: {seen}");
}

pub(crate) fn review_of(pod: &Value) -> Value {
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "uid-1", "kind": kind,
        "name": pod.pointer("/metadata/name"), "namespace": "monitoring", "operation": "CREATE", "object": pod, "dryRun": false}})
}

pub(crate) fn post_on(stream: &mut Tls, body: &[u8]) -> (u16, String) {
    post_to(stream, "/mutate", body)
}

pub(crate) fn post_to(stream: &mut Tls, path: &str, body: &[u8]) -> (u16, String) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {NAME}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // A server that refuses early may close before it has read everything; its answer is there all
    // the same.
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body))
        .and_then(|()| stream.flush());
    answer(stream)
}

/// Reads one answer; status 0 when the connection ended without one.
pub(crate) fn answer(stream: &mut impl std::io::Read) -> (u16, String) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return (0, head),
            Ok(_) if line == "\r\n" => break,
            Ok(_) => head += &line,
        }
    }
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let length = |line: &str| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")
            .and_then(|n| n.trim().parse::<usize>().ok())
    };
    let mut body = vec![0; head.lines().find_map(length).unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    (status, String::from_utf8(body).unwrap())
}
