//! The real server as a process, and an API server that keeps calling it during attacks.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hyper::body::Bytes;
use rustls::version::TLS13;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::support::{Authority, Client, HTTP1, tcp_from};

/// The API server's address; no attacker uses it.
pub(crate) const API_SERVER: u8 = 9;
/// A later answer was delayed by the attack. The guard's timeout is 2 s, and this machine may be
/// busy.
pub(crate) const PROMPT: Duration = Duration::from_millis(1_500);
/// The same for a new connection: if a flood fills the kernel's queue, the client's kernel retries
/// after a second.
const PROMPT_NEW: Duration = Duration::from_secs(4);
/// The memory that an attack may add to that of a fresh process: a release build starts with 12
/// MiB, so it stays below three quarters of the container's limit of 128 MiB. A debug build's own
/// pages are 30 MiB. With everything at once, a release build adds 72 to 81 MiB, and a debug build
/// with optimised dependencies 52 to 75.
const GROWTH_KIB: u64 = 84 << 10;
const NEW: &str = "a new connection";
/// How often the API server asks.
const ASK_EVERY: Duration = Duration::from_millis(40);

pub(crate) struct Process {
    child: Child,
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) probes: SocketAddr,
    pub(crate) authority: Authority,
    /// Memory right after the start.
    idle_kib: u64,
    /// Directory of the files of `start_with`.
    _dir: TempDir,
}

impl Process {
    pub(crate) fn start() -> Self {
        Self::start_with(&[], |_| ())
    }

    /// Starts with further arguments; `{}` in them is the directory, in which `prepare` may create
    /// files first.
    pub(crate) fn start_with(arguments: &[&str], prepare: impl FnOnce(&std::path::Path)) -> Self {
        let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
        let pair = authority.issue();
        std::fs::write(dir.path().join("tls.crt"), &pair.chain).unwrap();
        std::fs::write(dir.path().join("tls.key"), &pair.key).unwrap();
        prepare(dir.path());
        let shown = dir.path().to_str().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_timeshard"))
            .args([
                "serve",
                "--webhook-only",
                "--log-format=json",
                "--shutdown-drain=0s",
                "--cert-dir",
                shown,
            ])
            .args([
                "--listen=127.0.0.1:0",
                "--admin-listen=127.0.0.1:0",
                "--probe-listen=127.0.0.1:0",
            ])
            .args(
                arguments
                    .iter()
                    .map(|argument| argument.replace("{}", shown)),
            )
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let serving = log.by_ref().map(Result::unwrap).find_map(|line| {
            let fields = serde_json::from_str::<Value>(&line).unwrap()["fields"].clone();
            fields["listen"].is_string().then_some(fields)
        });
        let serving = serving.expect("the server says where it listens");
        std::thread::spawn(move || log.for_each(drop));
        let address = |key: &str| {
            serving[key]
                .as_str()
                .unwrap()
                .parse::<SocketAddr>()
                .unwrap()
        };
        let (addr, admin, probes) = (
            address("listen"),
            address("admin_listen"),
            address("probe_listen"),
        );
        let mut process = Self {
            child,
            addr,
            admin,
            probes,
            authority,
            idle_kib: 0,
            _dir: dir,
        };
        process.idle_kib = process.peak_kib();
        process
    }

    pub(crate) fn connector(&self, alpn: &[u8]) -> TlsConnector {
        self.authority.client(alpn, &[&TLS13])
    }

    /// Peak memory.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("the server runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn assert_memory(&self, what: &str) {
        let peak = self.peak_kib();
        let (grown, idle) = ((peak - self.idle_kib) >> 10, self.idle_kib >> 10);
        println!("{what}: {grown} MiB beyond {idle}");
        assert!(
            grown < GROWTH_KIB >> 10,
            "{what}: {grown} MiB beyond {idle}, the bound is {} MiB",
            GROWTH_KIB >> 10
        );
    }

    /// All clients that must be answered in time: an API server on kept and on new connections,
    /// kubelet, Prometheus. They run on a separate thread, so that they do not wait for the
    /// attackers of this process.
    pub(crate) fn good_peers(&self) -> GoodPeers {
        let stop = Arc::new(AtomicBool::new(false));
        let (webhook, admin, probes, until) = (self.addr, self.admin, self.probes, stop.clone());
        let [one, two, three] = [(); 3].map(|()| self.connector(HTTP1));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let asks = [
                    (
                        "/mutate",
                        tokio::spawn(kept(webhook, one, "/mutate", until.clone())),
                    ),
                    (
                        "/guard",
                        tokio::spawn(kept(webhook, two, "/guard", until.clone())),
                    ),
                    (NEW, tokio::spawn(fresh(webhook, three, until.clone()))),
                    (
                        "a probe",
                        tokio::spawn(probed(probes, "/livez", until.clone())),
                    ),
                    (
                        "readiness",
                        tokio::spawn(probed(probes, "/readyz", until.clone())),
                    ),
                    (
                        "the admin port's probe",
                        tokio::spawn(probed(admin, "/readyz", until.clone())),
                    ),
                    (
                        "a scrape",
                        tokio::spawn(probed(admin, "/metrics", until.clone())),
                    ),
                ];
                let mut waits = Vec::new();
                for (who, task) in asks {
                    waits.push((who, task.await.map_err(|error| error.to_string())));
                }
                waits
            })
        });
        GoodPeers { stop, thread }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct GoodPeers {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<PeerWaits>,
}

/// What each good client waited, or how it failed.
type PeerWaits = Vec<(&'static str, Result<Waits, String>)>;

/// Answer count and the longest wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    answers: u32,
    longest: Duration,
}

impl Waits {
    fn add(&mut self, since: Instant) {
        self.answers += 1;
        self.longest = self.longest.max(since.elapsed());
    }
}

impl GoodPeers {
    /// Stops them; returns what each one waited.
    pub(crate) fn end(self) -> PeerWaits {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("they are asked")
    }
}

/// Panics unless every request was answered in time.
pub(crate) fn assert_served(what: &str, waited: PeerWaits) {
    for (who, waits) in waited {
        let waits = waits.unwrap_or_else(|error| panic!("{what}: {who}: {error}"));
        println!(
            "{what}: {who}: {} answers, the longest after {:?}",
            waits.answers, waits.longest
        );
        let prompt = if who == NEW { PROMPT_NEW } else { PROMPT };
        // Each new connection may take as long as two lost SYN packets.
        let least = if who == NEW { 0 } else { 2 };
        assert!(
            waits.answers > least && waits.longest < prompt,
            "{what}: {who}: {waits:?}"
        );
    }
}

/// Returns a review as the API server sends it, for either route.
pub(crate) fn review(padding: usize) -> Bytes {
    let owner =
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "u"});
    let pod = json!({"metadata": {"name": "store-0", "ownerReferences": [owner], "annotations": {"a": "x".repeat(padding)}},
        "spec": {"containers": [{"name": "t", "image": "thanos", "args": ["store", "--data-dir=/d"]}]}});
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "uid-1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
        "name": "store-0", "namespace": "monitoring", "operation": "CREATE", "object": pod, "dryRun": false}});
    Bytes::from(review.to_string())
}

/// Uses one connection for all requests: closing it is a failure.
async fn kept(
    addr: SocketAddr,
    connector: TlsConnector,
    path: &'static str,
    stop: Arc<AtomicBool>,
) -> Waits {
    let mut client = Client::connect_from(API_SERVER, addr, &connector)
        .await
        .unwrap();
    let mut waits = Waits::default();
    while !stop.load(Relaxed) {
        let since = Instant::now();
        let (status, answer) = client
            .post(path, review(4_000))
            .await
            .expect("the kept connection answers");
        assert_eq!(status, 200, "{path}: {answer:?}");
        waits.add(since);
        sleep(ASK_EVERY).await;
    }
    waits
}

async fn fresh(addr: SocketAddr, connector: TlsConnector, stop: Arc<AtomicBool>) -> Waits {
    let mut waits = Waits::default();
    while !stop.load(Relaxed) {
        let since = Instant::now();
        let mut client = Client::connect_from(API_SERVER, addr, &connector)
            .await
            .expect("a new connection");
        assert_eq!(
            client
                .post("/mutate", review(4_000))
                .await
                .expect("its first request")
                .0,
            200
        );
        waits.add(since);
        sleep(ASK_EVERY).await;
    }
    waits
}

async fn probed(addr: SocketAddr, path: &'static str, stop: Arc<AtomicBool>) -> Waits {
    let mut waits = Waits::default();
    while !stop.load(Relaxed) {
        let since = Instant::now();
        let (status, answer) = get_from(API_SERVER, addr, path).await;
        assert_eq!(status, 200, "{path}: {answer}");
        waits.add(since);
        sleep(ASK_EVERY).await;
    }
    waits
}

/// Sends one request on its own connection, as kubelet does. Status 0: no answer.
pub(crate) async fn get_from(from: u8, addr: SocketAddr, path: &str) -> (u16, String) {
    let answered = async {
        let mut socket = tcp_from(from, addr).await?;
        socket
            .write_all(
                format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes(),
            )
            .await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        Ok::<_, anyhow::Error>(answer)
    };
    match timeout(PROMPT * 2, answered).await {
        Ok(Ok(answer)) => (
            answer
                .get(9..12)
                .and_then(|status| status.parse().ok())
                .unwrap_or(0),
            answer,
        ),
        Ok(Err(error)) => (0, format!("{error:#}")),
        Err(_) => (0, "no answer".to_owned()),
    }
}
