//! Ending without losing a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use rustls::version::TLS13;
use thanos_timeshard::adapters::https::serve::Limits;
use thanos_timeshard::adapters::https::tls::Certificates;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::support::{Authority, Client, DEADLINE, HTTP1, HTTP2, Server, start, tls, until};

/// Long enough for clients on a busy machine to notice in time.
const DRAIN: Duration = Duration::from_secs(10);
/// Requests that still go to a server after it became unready: API servers notice late.
const LATE_REQUESTS: u32 = 50;

async fn server(authority: &Authority, drain: Duration) -> Server {
    let pair = authority.issue();
    let certificates = Certificates::from_pem(pair.chain.as_bytes(), pair.key.as_bytes()).unwrap();
    start(&certificates, &Limits::default(), drain).await
}

/// Where new connections go: to the first server until every API server knows of its unreadiness.
struct Endpoints {
    first: SocketAddr,
    second: SocketAddr,
    moved: AtomicBool,
    stop: AtomicBool,
    done: AtomicU32,
}

impl Endpoints {
    async fn connect(&self, connector: &TlsConnector) -> Client {
        let addr = if self.moved.load(Relaxed) {
            self.second
        } else {
            self.first
        };
        Client::connect(addr, connector)
            .await
            .expect("a connection to an endpoint")
    }

    /// One client in a loop; panics at the first request that fails.
    async fn run(&self, connector: &TlsConnector, kept: bool) {
        let mut client = self.connect(connector).await;
        while !self.stop.load(Relaxed) {
            let answer = client
                .try_echo("/", "work")
                .await
                .expect("a request while servers come and go");
            let Some(last) = answer else {
                // As every client: after `Connection: close` or GOAWAY a connection takes no
                // further request.
                client = self.connect(connector).await;
                continue;
            };
            self.done.fetch_add(1, Relaxed);
            if last || !kept {
                client = self.connect(connector).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_fails_nothing() {
    let authority = Authority::new();
    let (first, second) = (
        server(&authority, DRAIN).await,
        server(&authority, DRAIN).await,
    );
    let endpoints = Arc::new(Endpoints {
        first: first.addr,
        second: second.addr,
        moved: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        done: AtomicU32::new(0),
    });
    let mut clients = JoinSet::new();
    for (alpn, kept, count) in [
        (HTTP1, true, 4),
        (HTTP1, false, 3),
        (HTTP2, true, 2),
        (HTTP2, false, 1),
    ] {
        for _ in 0..count {
            let (endpoints, connector) =
                (Arc::clone(&endpoints), authority.client(alpn, &[&TLS13]));
            clients.spawn(async move { endpoints.run(&connector, kept).await });
        }
    }
    until("the load runs", async || first.served.load(Relaxed) > 200).await;

    first.trigger.signal();
    let (at_signal, since) = (first.served.load(Relaxed), Instant::now());
    until("requests are answered during the drain", async || {
        first.served.load(Relaxed) >= at_signal + LATE_REQUESTS
    })
    .await;
    endpoints.moved.store(true, Relaxed);
    timeout(DEADLINE, first.task)
        .await
        .expect("the drain ends")
        .unwrap();
    assert!(
        since.elapsed() >= DRAIN,
        "it served for the whole drain period"
    );
    assert_eq!(first.stats.open(), 0, "nothing outlives the drain");
    let during = first.served.load(Relaxed) - at_signal;

    let before = endpoints.done.load(Relaxed);
    until("the load goes on elsewhere", async || {
        endpoints.done.load(Relaxed) > before + 100
    })
    .await;
    endpoints.stop.store(true, Relaxed);
    while let Some(client) = clients.join_next().await {
        client.expect("no client has seen a failure");
    }
    println!(
        "{} requests, {during} of them answered by the draining server, 0 failed",
        endpoints.done.load(Relaxed)
    );
}

#[tokio::test]
async fn the_answer_during_a_drain_says_that_it_is_the_last() {
    let authority = Authority::new();
    let server = server(&authority, DEADLINE).await;
    let connector = authority.client(HTTP1, &[&TLS13]);
    let mut kept = Client::connect(server.addr, &connector).await.unwrap();
    assert!(!kept.echo("/", "before").await.unwrap());
    server.trigger.signal();
    assert!(kept.echo("/", "during").await.unwrap(), "Connection: close");
    let mut late = Client::connect(server.addr, &connector).await.unwrap();
    assert!(
        late.echo("/", "new connection").await.unwrap(),
        "Connection: close"
    );

    let connector = authority.client(HTTP2, &[&TLS13]);
    let mut late = Client::connect(server.addr, &connector).await.unwrap();
    late.echo("/", "new connection").await.unwrap();
    until("HTTP/2 gets GOAWAY", async || !late.is_usable().await).await;
    server.task.abort();
}

#[tokio::test]
async fn what_is_in_flight_when_the_drain_ends_is_answered() {
    let authority = Authority::new();
    for alpn in [HTTP1, HTTP2] {
        let server = server(&authority, Duration::ZERO).await;
        let connector = authority.client(alpn, &[&TLS13]);
        let mut client = Client::connect(server.addr, &connector).await.unwrap();
        let held = tokio::spawn(async move { client.echo("/hold", "patience").await });
        until("the request is under way", async || {
            server.gate.held.load(Relaxed) == 1
        })
        .await;
        // This connection has sent no request yet, but may be about to.
        let mut undecided = tls(server.addr, &authority.client(HTTP1, &[&TLS13]))
            .await
            .unwrap();
        until("both are open", async || server.stats.open() == 2).await;

        server.trigger.signal();
        until("the port is closed", async || {
            tls(server.addr, &connector).await.is_err()
        })
        .await;
        undecided
            .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, undecided.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
            "{answer}"
        );

        server.gate.open.notify_waiters();
        held.await
            .unwrap()
            .expect("the request that was under way is answered");
        timeout(DEADLINE, server.task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_end_is_bounded_and_a_second_signal_comes_at_once() {
    let authority = Authority::new();
    let pair = authority.issue();
    let certificates = Certificates::from_pem(pair.chain.as_bytes(), pair.key.as_bytes()).unwrap();
    let connector = authority.client(HTTP1, &[&TLS13]);
    for second_signal in [false, true] {
        let finish = if second_signal {
            DEADLINE
        } else {
            Duration::from_millis(200)
        };
        let server = start(
            &certificates,
            &Limits {
                finish,
                ..Limits::default()
            },
            Duration::ZERO,
        )
        .await;
        let mut client = Client::connect(server.addr, &connector).await.unwrap();
        let held = tokio::spawn(async move { client.echo("/hold", "never").await });
        until("the request is under way", async || {
            server.gate.held.load(Relaxed) == 1
        })
        .await;
        server.trigger.signal();
        if second_signal {
            server.trigger.signal();
        }
        let since = Instant::now();
        timeout(DEADLINE, server.task)
            .await
            .expect("it ends")
            .unwrap();
        assert_eq!(since.elapsed() >= finish, !second_signal);
        held.await.unwrap().unwrap_err();
        assert_eq!(server.stats.open(), 0);
    }
}
