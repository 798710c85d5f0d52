//! The admin port: probes, metrics, status.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::registry::Registry;
use rustls::version::TLS13;
use serde_json::json;
use thanos_timeshard::adapters::admin::{self, Admin};
use thanos_timeshard::adapters::serve::Limits;
use thanos_timeshard::adapters::tls::Certificates;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{Authority, DEADLINE, HTTP1, good_request, start};

/// Status code, headers and body.
async fn get(addr: SocketAddr, path: &str) -> (u16, String, String) {
    get_as(addr, path, "*/*").await
}

async fn get_as(addr: SocketAddr, path: &str, accept: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn probes_metrics_and_status() {
    let authority = Authority::new();
    let pair = authority.issue();
    let certificates = Certificates::from_pem(pair.chain.as_bytes(), pair.key.as_bytes()).unwrap();
    let webhook = start(&certificates, &Limits::default(), Duration::ZERO).await;
    good_request(webhook.addr, &authority.client(HTTP1, &[&TLS13])).await.unwrap();

    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::clone(&webhook.stats)));
    registry.register_collector(Box::new(Arc::clone(&certificates)));
    let started = Arc::new(AtomicBool::new(false));
    let ready = Arc::clone(&started);
    let state = Admin {
        ready: Arc::new(move || if ready.load(Relaxed) { Ok(()) } else { Err("waiting for the first list".to_owned()) }),
        metrics: Arc::new(registry),
        status: Arc::new(|| json!({"windows": 3})),
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
    assert_eq!(serde_json::from_str::<serde_json::Value>(&get(addr, "/status").await.2).unwrap(), json!({"windows": 3}));
    let (code, _, text) = get(addr, "/what").await;
    assert!(code == 404 && text.contains("/what") && text.contains("/livez /readyz /metrics /status"), "{text}");

    let (code, head, text) = get(addr, "/metrics").await;
    assert!(code == 200 && head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(text.contains("# TYPE timeshard_accepted_connections_total counter\n") && !text.contains("# EOF"), "{text}");

    let (code, head, text) = get_as(addr, "/metrics", "application/openmetrics-text; version=1.0.0").await;
    assert_eq!(code, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
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

    webhook.trigger.signal();
    let (code, _, why) = get(addr, "/readyz").await;
    assert!(code == 503 && why.contains("draining"), "{why}");
    assert_eq!(get(addr, "/livez").await.0, 200, "alive while draining");
    task.abort();
}
