//! Peers that are slow, silent, mistaken or too many: closed within a limit, and the next good
//! request succeeds.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustls::version::TLS13;
use thanos_timeshard::adapters::https::serve::{ConnectionFailure, Limits};
use thanos_timeshard::adapters::https::tls::Certificates;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::protocols::client_hello;
use crate::support::{
    Authority, Client, DEADLINE, HTTP1, HTTP2, Server, good_request, start, tls, until,
};

/// Short limits, far enough apart to recognise which one applied.
const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(1),
    header_read: Duration::from_secs(1),
    stalled: Duration::from_secs(1),
    idle: Duration::from_secs(4),
    close: Duration::from_secs(1),
    finish: Duration::from_secs(1),
    accept_backoff: Duration::from_millis(50),
    ..Limits::DEFAULT
};

/// The delay that a busy machine may add to a limit.
const SLACK: Duration = Duration::from_secs(15);

async fn server(limits: &Limits) -> (Server, Authority, TlsConnector) {
    let authority = Authority::new();
    let pair = authority.issue();
    let certificates = Certificates::from_pem(pair.chain.as_bytes(), pair.key.as_bytes()).unwrap();
    let server = start(&certificates, limits, Duration::ZERO).await;
    let connector = authority.client(HTTP1, &[&TLS13]);
    (server, authority, connector)
}

/// Reads until the server closes; returns the bytes and the time it took.
async fn closed<I: AsyncRead + Unpin>(mut stream: I) -> (Vec<u8>, Duration) {
    let (mut answer, since) = (Vec::new(), Instant::now());
    // A reset counts as closing.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer))
        .await
        .expect("the server closes the connection");
    (answer, since.elapsed())
}

async fn raw(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    socket
}

async fn counted(server: &Server, failure: ConnectionFailure, count: u64) {
    until(failure.reason(), async || {
        server.stats.failures(failure) == count
    })
    .await;
}

fn within(limit: Duration, took: Duration) {
    assert!(
        // Its clock starts before this one.
        took >= limit / 2 && took < limit + SLACK,
        "limit {limit:?}, closed after {took:?}"
    );
}

#[tokio::test]
async fn half_open_handshakes_end_at_the_limit() {
    let (server, _, connector) = server(&LIMITS).await;
    let hello = client_hello(3);
    for half in [&b""[..], &hello[..1], &hello[..20]] {
        let (answer, took) = closed(raw(&server, half).await).await;
        assert!(answer.is_empty());
        within(LIMITS.handshake, took);
        good_request(server.addr, &connector).await.unwrap();
    }
    counted(&server, ConnectionFailure::HandshakeTimeout, 3).await;
    drop(raw(&server, b"").await);
    counted(&server, ConnectionFailure::HandshakeGone, 1).await;
}

#[tokio::test]
async fn plain_http_gets_a_hint_and_garbage_gets_nothing() {
    let (server, _, connector) = server(&LIMITS).await;
    let (answer, took) =
        closed(raw(&server, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("HTTPS"),
        "{answer}"
    );
    // The hint comes immediately; the socket stays open a little for the rest of the request.
    assert!(took < LIMITS.handshake + SLACK);
    counted(&server, ConnectionFailure::HandshakeTimeout, 0).await;
    counted(&server, ConnectionFailure::PlainHttp, 1).await;
    for garbage in [
        &b"\x00\x01\x02\x03"[..],
        &[0xff; 4096],
        b"\x16\x03\x01\xff\xff\xff\xff\xff\xff\xff",
        b"\x16garbage garbage garbage",
    ] {
        let (answer, took) = closed(raw(&server, garbage).await).await;
        assert!(
            answer.is_empty() || answer[0] == 0x15,
            "nothing or an alert, not {answer:?}"
        );
        assert!(took < LIMITS.handshake + SLACK);
    }
    counted(&server, ConnectionFailure::NotTls, 4).await;
    good_request(server.addr, &connector).await.unwrap();
}

#[tokio::test]
async fn slow_headers_end_at_the_limit_however_they_drip() {
    let (server, _, connector) = server(&LIMITS).await;
    let mut half = tls(server.addr, &connector).await.unwrap();
    half.write_all(b"POST / HTTP/1.1\r\nHost: lo")
        .await
        .unwrap();
    within(LIMITS.header_read, closed(half).await.1);

    let since = Instant::now();
    let (reading, mut writing) = tokio::io::split(tls(server.addr, &connector).await.unwrap());
    let drip = tokio::spawn(async move {
        while writing.write_all(b"x").await.is_ok() && writing.flush().await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    closed(reading).await;
    within(LIMITS.header_read, since.elapsed());
    drip.abort();
    counted(&server, ConnectionFailure::HeaderTimeout, 2).await;
    good_request(server.addr, &connector).await.unwrap();
}

#[tokio::test]
async fn a_body_that_stops_half_way_ends_at_the_limit() {
    let (server, _, connector) = server(&LIMITS).await;
    let mut half = tls(server.addr, &connector).await.unwrap();
    half.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
        .await
        .unwrap();
    within(LIMITS.stalled, closed(half).await.1);
    counted(&server, ConnectionFailure::Stalled, 1).await;
    good_request(server.addr, &connector).await.unwrap();
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused() {
    let (server, _, connector) = server(&LIMITS).await;
    let (reading, mut writing) = tokio::io::split(tls(server.addr, &connector).await.unwrap());
    let flood = tokio::spawn(async move {
        let _ = writing
            .write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
            .await;
        while writing.write_all(&[b'x'; 1024]).await.is_ok() {}
    });
    let (answer, _) = closed(reading).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    flood.abort();
    good_request(server.addr, &connector).await.unwrap();
}

/// The wait between requests is the idle limit, not the much shorter one for headers.
#[tokio::test]
async fn an_idle_connection_outlives_the_header_limit() {
    let (server, authority, _) = server(&LIMITS).await;
    for alpn in [HTTP1, HTTP2] {
        let connector = authority.client(alpn, &[&TLS13]);
        let mut client = Client::connect(server.addr, &connector).await.unwrap();
        client.echo("/", "once").await.unwrap();
        let since = Instant::now();
        until("the idle connection is closed", async || {
            server.stats.open() == 0
        })
        .await;
        within(LIMITS.idle, since.elapsed());
    }
    assert!(
        ConnectionFailure::ALL
            .into_iter()
            .all(|failure| server.stats.failures(failure) == 0),
        "closing an idle connection is no failure"
    );
}

#[tokio::test]
async fn at_the_cap_the_silent_make_room_for_the_next() {
    let limits = Limits {
        connections: 4,
        idle: DEADLINE * 2,
        ..LIMITS
    };
    let (server, _, connector) = server(&limits).await;
    let mut useful = Client::connect(server.addr, &connector).await.unwrap();
    useful.echo("/", "first").await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(tls(server.addr, &connector).await.unwrap());
    }
    until("the cap is reached", async || server.stats.open() == 4).await;
    good_request(server.addr, &connector).await.unwrap();
    counted(&server, ConnectionFailure::Evicted, 1).await;
    closed(silent.remove(0)).await;
    useful
        .echo("/", "the one that works is kept")
        .await
        .unwrap();
}

#[tokio::test]
async fn at_the_cap_with_all_busy_the_next_waits() {
    let limits = Limits {
        connections: 2,
        stalled: DEADLINE * 2,
        handshake: DEADLINE,
        ..LIMITS
    };
    let (server, _, connector) = server(&limits).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(server.addr, &connector).await.unwrap();
        busy.push(tokio::spawn(
            async move { client.echo("/hold", "busy").await },
        ));
    }
    until("both are busy", async || {
        server.gate.held.load(Relaxed) == 2
    })
    .await;
    let (addr, shared) = (server.addr, connector.clone());
    let mut next = tokio::spawn(async move { good_request(addr, &shared).await });
    timeout(Duration::from_millis(300), &mut next)
        .await
        .expect_err("there is no room yet");
    assert_eq!(server.served.load(Relaxed), 0);
    server.gate.open.notify_waiters();
    next.await.unwrap().unwrap();
    for client in busy {
        client.await.unwrap().unwrap();
    }
}

/// A hundred peers of every bad kind concurrently, with good ones among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_requests_succeed_among_bad_peers() {
    let (server, _, connector) = server(&Limits {
        handshake: DEADLINE,
        connections: 16,
        arriving: 16,
        ..LIMITS
    })
    .await;
    let server = Arc::new(server);
    let hello = client_hello(3);
    let mut bad: Vec<Box<dyn AsyncWrite + Unpin>> = Vec::new();
    for round in 0..25 {
        bad.push(Box::new(raw(&server, &[b'\x01'; 9]).await));
        bad.push(Box::new(raw(&server, b"GET / HTTP/1.0\r\n\r\n").await));
        bad.push(Box::new(tls(server.addr, &connector).await.unwrap()));
        if round % 5 == 0 {
            bad.push(Box::new(raw(&server, &hello[..30]).await));
        }
        good_request(server.addr, &connector).await.unwrap();
    }
    assert!(server.stats.open() <= 32);
    drop(bad);
}
