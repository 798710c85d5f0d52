//! The admin port: probes, metrics, status.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::registry::Registry;
use rustls::version::TLS13;
use serde_json::json;
use thanos_timeshard::adapters::https::admin::{self, Admin};
use thanos_timeshard::adapters::https::serve::Limits;
use thanos_timeshard::adapters::https::tls::Certificates;
use thanos_timeshard::adapters::signals::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{Authority, DEADLINE, HTTP1, good_request, start, tcp_from};

/// Returns status code, headers and body.
async fn get(addr: SocketAddr, path: &str) -> (u16, String, String) {
    get_as(addr, path, "*/*").await
}

async fn get_as(addr: SocketAddr, path: &str, accept: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, socket.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head[9..12].parse().unwrap(),
        head.to_lowercase(),
        body.to_owned(),
    )
}

#[tokio::test]
async fn probes_metrics_and_status() {
    let authority = Authority::new();
    let pair = authority.issue();
    let certificates = Certificates::from_pem(pair.chain.as_bytes(), pair.key.as_bytes()).unwrap();
    let webhook = start(&certificates, &Limits::default(), Duration::ZERO).await;
    good_request(webhook.addr, &authority.client(HTTP1, &[&TLS13]))
        .await
        .unwrap();

    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::clone(&webhook.stats)));
    registry.register_collector(Box::new(Arc::clone(&certificates)));
    let started = Arc::new(AtomicBool::new(false));
    let ready = Arc::clone(&started);
    let state = Admin {
        ready: Arc::new(move || {
            if ready.load(Relaxed) {
                Ok(())
            } else {
                Err("waiting for the first list".to_owned())
            }
        }),
        metrics: Arc::new(registry),
        status: Arc::new(|out| out.write_all(json!({"windows": 3}).to_string().as_bytes())),
        shutdown: webhook.shutdown.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(admin::serve(listener, admin::router(state)));

    assert_eq!(get(addr, "/livez").await.0, 200);
    let (code, _, why) = get(addr, "/readyz").await;
    assert_eq!((code, why.as_str()), (503, "waiting for the first list\n"));
    started.store(true, Relaxed);
    assert_eq!(get(addr, "/readyz").await.0, 200);
    let (_, head, text) = get(addr, "/status").await;
    assert!(
        head.contains("transfer-encoding: chunked") && head.contains("application/json"),
        "{head}"
    );
    let document = &text[text.find('{').unwrap()..=text.rfind('}').unwrap()];
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(document).unwrap(),
        json!({"windows": 3})
    );
    let (code, _, text) = get(addr, "/what").await;
    assert!(
        code == 404 && text.contains("/what") && text.contains("/livez /readyz /metrics /status"),
        "{text}"
    );

    assert_metrics_in_both_formats(addr).await;

    webhook.trigger.signal();
    let (code, _, why) = get(addr, "/readyz").await;
    assert!(code == 503 && why.contains("draining"), "{why}");
    assert_eq!(get(addr, "/livez").await.0, 200, "alive while draining");
    task.abort();
}

/// After one request to the webhook.
async fn assert_metrics_in_both_formats(addr: SocketAddr) {
    let (code, head, text) = get(addr, "/metrics").await;
    assert!(
        code == 200 && head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{head}"
    );
    assert!(
        text.contains("# TYPE timeshard_accepted_connections_total counter\n")
            && !text.contains("# EOF"),
        "{text}"
    );

    let (code, head, text) = get_as(
        addr,
        "/metrics",
        "application/openmetrics-text; version=1.0.0",
    )
    .await;
    assert_eq!(code, 200);
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    for line in [
        "timeshard_accepted_connections_total 1\n",
        "timeshard_failed_connections_total{reason=\"plain_http\"} 0\n",
        "timeshard_certificate_reloads_total{result=\"ok\"} 0\n",
        "timeshard_certificate_expiry_timestamp_seconds{certificate=\"leaf\"} 4102358400\n",
        "# TYPE timeshard_open_connections gauge\n",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// A reader of `/status` that takes no more than the first byte, from 127.0.0.`host`.
async fn silent_reader(addr: SocketAddr, host: u8) -> TcpStream {
    let mut socket = tcp_from(host, addr).await.unwrap();
    socket
        .write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    // A reader has its place once the answer begins.
    let mut head = [0; 12];
    timeout(DEADLINE, socket.read_exact(&mut head))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    socket
}

/// Readers that do not read: little of the document is written, other readers of their addresses get
/// 503, and a reader of another address gets a place from the address that has most.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_hold_little_and_block_only_their_address() {
    const MIB: usize = 1024 * 1024;
    let (webhook, written) = (Shutdown::never(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&written);
    let state = Admin {
        ready: Arc::new(|| Ok(())),
        metrics: Arc::new(Registry::default()),
        status: Arc::new(move |out| {
            for _ in 0..200 {
                out.write_all(&vec![b' '; MIB])?;
                count.fetch_add(MIB, Relaxed);
            }
            Ok(())
        }),
        shutdown: webhook,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(admin::serve(listener, admin::router(state)));
    let refused = |(code, head, why): &(u16, String, String)| {
        *code == 503
            && head.contains("retry-after: 2")
            && why.contains("4 readers of /status, or 2 of this address")
    };
    // Silent readers lose their connections after 5 s, which a busy machine may need for one round.
    let all_refused = async {
        loop {
            let mut silent = Vec::new();
            for n in 0..admin::READERS {
                let host = if n < admin::READERS_OF_PEER { 1 } else { 2 };
                silent.push(silent_reader(addr, host).await);
            }
            let answers = (0..20).map(|_| get(addr, "/status"));
            if futures::future::join_all(answers).await.iter().all(refused) {
                return silent;
            }
        }
    };
    let _silent = timeout(DEADLINE, all_refused).await.unwrap();
    assert_eq!(get(addr, "/livez").await.0, 200);
    // Held by the kernel's socket buffers.
    assert!(
        written.load(Relaxed) < 80 * MIB,
        "{} MiB",
        written.load(Relaxed) / MIB
    );
    for host in [3, 4] {
        drop(silent_reader(addr, host).await);
    }
    task.abort();
}
