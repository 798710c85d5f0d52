//! Protocol negotiation: accepted and refused versions.

use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use thanos_timeshard::adapters::https::serve::{ConnectionFailure, Limits};
use thanos_timeshard::adapters::https::tls::Certificates;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::support::{
    Authority, Client, DEADLINE, HTTP1, HTTP2, good_request, served_leaf, start, until,
};

#[tokio::test]
async fn both_protocols_on_both_versions() {
    let authority = Authority::new();
    let pair = authority.issue();
    let certificates = Certificates::from_pem(pair.chain.as_bytes(), pair.key.as_bytes()).unwrap();
    assert_eq!(
        certificates.not_after_unix_seconds(),
        4_102_358_400,
        "2099-12-31T00:00:00Z"
    );
    let server = start(&certificates, &Limits::default(), Duration::ZERO).await;
    for alpn in [HTTP1, HTTP2] {
        for version in [&TLS13, &TLS12] {
            let connector = authority.client(alpn, &[version]);
            let mut client = Client::connect(server.addr, &connector).await.unwrap();
            assert_eq!(matches!(client, Client::Http2(_)), alpn == HTTP2);
            for _ in 0..3 {
                assert!(
                    !client.echo("/", "hello").await.unwrap(),
                    "the connection stays open"
                );
            }
        }
    }
    assert_eq!(server.stats.accepted(), 4);
}

#[tokio::test]
async fn an_old_version_is_refused_with_an_alert() {
    let authority = Authority::new();
    let pair = authority.issue();
    let certificates = Certificates::from_pem(pair.chain.as_bytes(), pair.key.as_bytes()).unwrap();
    let server = start(&certificates, &Limits::default(), Duration::ZERO).await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(&client_hello(0x02)).await.unwrap();
    let mut answer = Vec::new();
    timeout(DEADLINE, socket.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    // Record type alert; level fatal, description protocol_version.
    assert_eq!(
        (answer[0], &answer[5..7]),
        (0x15, &[2, 70][..]),
        "{answer:02x?}"
    );
    until("the refusal is counted", async || {
        server.stats.failures(ConnectionFailure::Tls) == 1
    })
    .await;
    good_request(server.addr, &authority.client(HTTP1, &[&TLS13]))
        .await
        .unwrap();
}

/// A client without `TCP_NODELAY` waits for the acknowledgement of its handshake before it sends
/// the request.
#[tokio::test]
async fn the_first_request_does_not_wait_for_a_delayed_acknowledgement() {
    const PROMPT: Duration = Duration::from_millis(30);
    let authority = Authority::new();
    let pair = authority.issue();
    let certificates = Certificates::from_pem(pair.chain.as_bytes(), pair.key.as_bytes()).unwrap();
    let server = start(&certificates, &Limits::default(), Duration::ZERO).await;
    let connector = authority.client(HTTP1, &[&TLS13]);
    let (mut fastest, began) = (DEADLINE, Instant::now());
    while fastest >= PROMPT && began.elapsed() < DEADLINE {
        let since = Instant::now();
        let socket = TcpStream::connect(server.addr).await.unwrap();
        let mut stream = connector
            .connect("localhost".try_into().unwrap(), socket)
            .await
            .unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        timeout(DEADLINE, stream.read_to_end(&mut Vec::new()))
            .await
            .unwrap()
            .unwrap();
        fastest = fastest.min(since.elapsed());
    }
    assert!(
        fastest < PROMPT,
        "the kernel delays acknowledgements by 40 ms; the fastest request took {fastest:?}"
    );
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_is_counted_as_such() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let pair = authority.issue();
    let certificates = Certificates::from_pem(pair.chain.as_bytes(), pair.key.as_bytes()).unwrap();
    let server = start(&certificates, &Limits::default(), Duration::ZERO).await;
    served_leaf(server.addr, &stranger.client(HTTP1, &[&TLS13]))
        .await
        .unwrap_err();
    until("the rejection is counted", async || {
        server
            .stats
            .failures(ConnectionFailure::CertificateRejected)
            == 1
    })
    .await;
}

/// A `ClientHello` of TLS 1.1 (minor version 2): fixed random, two old ciphers, two signature
/// algorithms.
pub(crate) fn client_hello(minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([7_u8; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x13, 0x00, 0x2f, 1, 0]);
    hello.extend([0, 10, 0, 13, 0, 6, 0, 4, 4, 3, 4, 1]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}
