//! Everything that a pod on the network can do to the server's ports, against the real program: its memory grows by so little that it
//! stays below three quarters of its limit, and whoever means well is answered at once, on the connections that it has.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use hyper::Request;
use hyper::body::{Body, Bytes, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::process::{Process, get_from, review};
use crate::protocols::client_hello;
use crate::support::{HTTP1, HTTP2, tcp_from, tls_from};

/// How long an attack goes on.
const ATTACK: Duration = Duration::from_secs(2);
/// Attackers' addresses.
const FEW: std::ops::Range<u8> = 20..23;
/// One attack at a time: each is measured by what it does to others.
static ALONE: Mutex<()> = Mutex::const_new(());

/// One connection of an attacker, from this address; it is made again as soon as it ends.
type Attack = Arc<dyn Fn(u8) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync>;

fn attack<F: Future<Output = Result<()>> + Send + 'static>(
    connection: impl Fn(u8) -> F + Send + Sync + 'static,
) -> Attack {
    Arc::new(move |from| Box::pin(connection(from)))
}

/// Keeps so many connections of an attack going for a while.
async fn run(connections: usize, addresses: std::ops::Range<u8>, attack: &Attack) {
    let mut tasks = JoinSet::new();
    for from in addresses.cycle().take(connections) {
        let attack = Arc::clone(attack);
        tasks.spawn(async move {
            loop {
                // However it ends: the attacker goes on.
                let _ = timeout(ATTACK, attack(from)).await;
                sleep(Duration::from_millis(20)).await;
            }
        });
    }
    sleep(ATTACK).await;
    tasks.shutdown().await;
}

/// Has an attack made on a server of its own, and everybody else served meanwhile.
async fn withstands(
    what: &str,
    connections: usize,
    addresses: std::ops::Range<u8>,
    make: impl Fn(&Process) -> Attack,
) {
    let _alone = ALONE.lock().await;
    let process = Process::start();
    let attack = make(&process);
    let good = process.good_peers();
    // Connections that were there before are what the API server has.
    sleep(Duration::from_millis(300)).await;
    run(connections, addresses, &attack).await;
    good.assert_served(what);
    process.assert_memory(what);
}

async fn until_closed(mut stream: impl AsyncReadExt + Unpin) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

/// Connects, by TLS or not, sends these bytes, and waits.
fn sends(addr: SocketAddr, tls: Option<TlsConnector>, bytes: Vec<u8>) -> Attack {
    let bytes = Arc::new(bytes);
    attack(move |from| {
        let (tls, bytes) = (tls.clone(), Arc::clone(&bytes));
        async move {
            if let Some(connector) = &tls {
                let mut stream = tls_from(from, addr, connector).await?;
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                until_closed(stream).await;
            } else {
                let mut socket = tcp_from(from, addr).await?;
                socket.write_all(&bytes).await?;
                until_closed(socket).await;
            }
            Ok(())
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_displace_only_themselves() {
    for (what, addresses) in [("silent TCP", FEW), ("silent TCP of many", 20..250)] {
        withstands(what, 1200, addresses, |process| {
            sends(process.addr, None, Vec::new())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_handshakes_displace_only_themselves() {
    withstands("one byte", 300, FEW, |process| {
        sends(process.addr, None, vec![0x16])
    })
    .await;
    withstands("half a hello", 300, FEW, |process| {
        sends(process.addr, None, client_hello(3)[..30].to_vec())
    })
    .await;
    // A handshake message of 64 KiB that does not end.
    let mut large = Vec::new();
    for record in 0..4_u8 {
        large.extend([0x16, 3, 1, 0x40, 0]);
        large.extend(if record == 0 {
            [1, 0, 0xff, 0xf0]
        } else {
            [0; 4]
        });
        large.extend([0; (16 << 10) - 4]);
    }
    withstands("a hello of 64 KiB", 300, 20..60, move |process| {
        sends(process.addr, None, large.clone())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_without_a_request_displace_only_themselves() {
    let tls = |process: &Process| Some(process.connector(HTTP1));
    withstands("silent after TLS", 400, FEW, |process| {
        sends(process.addr, tls(process), Vec::new())
    })
    .await;
    withstands("silent after TLS, of many", 400, 20..250, |process| {
        sends(process.addr, tls(process), Vec::new())
    })
    .await;
    let half = [
        b"POST /mutate HTTP/1.1\r\nx: ".to_vec(),
        vec![b'x'; 12 << 10],
    ]
    .concat();
    withstands("half a header after TLS", 400, FEW, |process| {
        sends(process.addr, tls(process), half.clone())
    })
    .await;
    let answered = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    withstands("idle after an answer", 400, FEW, |process| {
        sends(process.addr, tls(process), answered.clone())
    })
    .await;
}

/// A request whose body stops after `sent` bytes of `declared`.
fn stops(path: &str, declared: usize, sent: usize) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {declared}\r\n\r\n")
            .into_bytes();
    request.resize(request.len() + sent, b' ');
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_stop_hold_up_nobody() {
    for path in ["/mutate", "/guard"] {
        for (what, size, connections) in [("small", 120 << 10, 150), ("large", 6_900_000, 12)] {
            for (sent, addresses) in [(size - 1, FEW), (size - 1, 20..60), (1, FEW)] {
                let what = format!("{what} bodies to {path}, {sent} bytes of {size}");
                withstands(&what, connections, addresses, |process| {
                    sends(
                        process.addr,
                        Some(process.connector(HTTP1)),
                        stops(path, size, sent),
                    )
                })
                .await;
            }
        }
    }
}

/// A byte at a time, each before the longest pause: what counts is the rate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_drip_hold_up_nobody() {
    withstands("dripping bodies", 150, FEW, |process| {
        let (addr, connector) = (process.addr, process.connector(HTTP1));
        attack(move |from| {
            let connector = connector.clone();
            async move {
                let mut stream = tls_from(from, addr, &connector).await?;
                stream
                    .write_all(&stops("/mutate", 120 << 10, 100 << 10))
                    .await?;
                loop {
                    stream.write_all(b" ").await?;
                    stream.flush().await?;
                    sleep(Duration::from_millis(300)).await;
                }
            }
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_reviews_hold_up_no_small_one() {
    let body = review(5 << 20);
    for (path, addresses) in [("/mutate", FEW), ("/guard", 20..40)] {
        let request = [stops(path, body.len(), 0), body.to_vec()].concat();
        withstands(
            &format!("large reviews to {path}"),
            16,
            addresses,
            |process| {
                sends(
                    process.addr,
                    Some(process.connector(HTTP1)),
                    request.clone(),
                )
            },
        )
        .await;
    }
}

/// A review of this many bytes whose object repeats an element, in the place that `before` and `after` make.
fn repeated(size: usize, before: &str, element: &str, after: &str) -> Vec<u8> {
    let head = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","namespace":"n","#;
    let kind = r#""kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"apps","version":"v1","resource":"statefulsets"},"object":"#;
    let elements = vec![element; size / (element.len() + 1)].join(",");
    format!("{head}{kind}{before}{elements}{after}}}}}").into_bytes()
}

/// Small in a request and large in memory: what is read of each element takes more than the element.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reviews_that_grow_when_they_are_read_are_bounded() {
    let container = r#"{"spec":{"containers":[{"name":"t","image":"thanos","args":["store","#;
    let shapes = [
        ("owners", r#"{"metadata":{"ownerReferences":["#, "{}", "]}}"),
        ("containers", r#"{"spec":{"containers":["#, "{}", "]}}"),
        ("volumes", r#"{"spec":{"volumes":["#, "{}", "]}}"),
        ("arguments", container, "\"\"", "]}]}}"),
        (
            "annotations",
            r#"{"metadata":{"annotations":{"#,
            r#""thanos-timeshard.io/a":"""#,
            "}}}",
        ),
        (
            "a strategy",
            r#"{"spec":{"updateStrategy":{"a":["#,
            "[]",
            "]}}}",
        ),
        (
            "a template",
            r#"{"spec":{"template":{"spec":{"volumes":["#,
            "{}",
            "]}}}}",
        ),
        (
            "environment",
            r#"{"spec":{"containers":[{"env":["#,
            "{}",
            "]}]}}",
        ),
    ];
    for (what, before, element, after) in shapes {
        let paths: &[&str] = match what {
            "annotations" => &["/mutate", "/guard"],
            "a strategy" | "a template" => &["/guard"],
            _ => &["/mutate"],
        };
        for path in paths {
            let body = repeated(6 << 20, before, element, after);
            let request = [stops(path, body.len(), 0), body].concat();
            withstands(&format!("{what} to {path}"), 6, FEW, |process| {
                sends(
                    process.addr,
                    Some(process.connector(HTTP1)),
                    request.clone(),
                )
            })
            .await;
        }
    }
}

/// Requests without an end, and no answer is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_bounded() {
    let body = review(0);
    let one = [stops("/mutate", body.len(), 0), body.to_vec()].concat();
    let scrape = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(200);
    let unread = |addr: SocketAddr, tls: Option<TlsConnector>, bytes: Vec<u8>| {
        let bytes = Arc::new(bytes);
        attack(move |from| {
            let (tls, bytes) = (tls.clone(), Arc::clone(&bytes));
            async move {
                if let Some(connector) = &tls {
                    let mut stream = tls_from(from, addr, connector).await?;
                    loop {
                        stream.write_all(&bytes).await?;
                    }
                }
                let mut socket = tcp_from(from, addr).await?;
                socket.write_all(&bytes).await?;
                // It is cut off, which shows in what can be written.
                loop {
                    socket.write_all(&bytes).await?;
                }
            }
        })
    };
    withstands("unread answers", 120, FEW, |process| {
        unread(process.addr, Some(process.connector(HTTP1)), one.repeat(50))
    })
    .await;
    withstands("unread scrapes", 64, FEW, |process| {
        unread(process.admin, None, scrape.clone())
    })
    .await;
}

/// The first so many bytes of a body that never ends.
struct Part(usize);

impl Body for Part {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0 == 0 {
            // Nobody wakes it: it never ends.
            return Poll::Pending;
        }
        let bytes = self.0.min(16 << 10);
        self.0 -= bytes;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b' '; bytes])))))
    }
}

/// Opens eight requests, sends what the windows hold of their bodies, and waits.
fn fills_windows(process: &Process, path: &'static str, declared: Option<usize>) -> Attack {
    let (addr, connector) = (process.addr, process.connector(HTTP2));
    attack(move |from| {
        let connector = connector.clone();
        async move {
            let stream = tls_from(from, addr, &connector).await?;
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            let mut requests = JoinSet::new();
            for _ in 0..8 {
                let mut request = Request::post(format!("https://localhost{path}"));
                if let Some(bytes) = declared {
                    request = request.header("content-length", bytes);
                }
                let (request, mut sender) = (request.body(Part(99_999))?, sender.clone());
                requests.spawn(async move { sender.send_request(request).await });
            }
            connection.await?;
            Ok(())
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_windows_are_bounded() {
    for (path, declared) in [
        ("/mutate", Some(7_000_000)),
        ("/guard", Some(100_000)),
        ("/mutate", None),
    ] {
        let what = format!("HTTP/2 windows to {path}, {declared:?} bytes");
        withstands(&what, 120, FEW, |process| {
            fills_windows(process, path, declared)
        })
        .await;
    }
}

/// Every budget is full at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once_is_bounded() {
    let half = [
        b"POST /mutate HTTP/1.1\r\nx: ".to_vec(),
        vec![b'x'; 12 << 10],
    ]
    .concat();
    let grows = repeated(
        6 << 20,
        r#"{"metadata":{"annotations":{"#,
        r#""thanos-timeshard.io/a":"""#,
        "}}}",
    );
    withstands("everything at once", 400, 20..60, |process| {
        let tls = |bytes: Vec<u8>| sends(process.addr, Some(process.connector(HTTP1)), bytes);
        let mut attacks = vec![
            fills_windows(process, "/mutate", Some(7_000_000)),
            sends(process.addr, None, client_hello(3)[..30].to_vec()),
        ];
        attacks.extend((0..6).map(|_| tls(half.clone())));
        for path in ["/mutate", "/guard"] {
            attacks.push(tls([stops(path, grows.len(), 0), grows.clone()].concat()));
            attacks.extend([6_900_000, 120 << 10].map(|size| tls(stops(path, size, size - 1))));
        }
        let next = AtomicUsize::new(0);
        Arc::new(move |from| attacks[next.fetch_add(1, Relaxed) % attacks.len()](from))
    })
    .await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `POST /mutate` as HPACK writes it without a table.
fn header_block() -> Vec<u8> {
    let mut block = vec![0x83, 0x87];
    for (index, value) in [(0x04_u8, "/mutate"), (0x01, "localhost")] {
        block.extend([index, u8::try_from(value.len()).unwrap()]);
        block.extend(value.as_bytes());
    }
    block
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_floods_are_bounded() {
    let (headers, reset, settings, ping, data, continuation) = (1, 3, 4, 6, 0, 9);
    let streams =
        |of: &dyn Fn(u32) -> Vec<u8>| (0..2_000).flat_map(|i| of(2 * i + 1)).collect::<Vec<u8>>();
    let open = |stream| frame(headers, 4, stream, &header_block());
    let long = [&[0x00, 0x01, b'a', 0x7f, 0x81, 0x7e][..], &[b'x'; 16_256]].concat();
    let floods = [
        (
            "rapid reset",
            streams(&|stream| [open(stream), frame(reset, 0, stream, &[0, 0, 0, 8])].concat()),
        ),
        ("streams beyond the limit", streams(&open)),
        (
            "settings",
            frame(settings, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]).repeat(20_000),
        ),
        ("pings", frame(ping, 0, 0, &[7; 8]).repeat(20_000)),
        (
            "bytes one by one",
            [open(1), frame(data, 0, 1, b" ").repeat(60_000)].concat(),
        ),
        (
            "padding",
            [
                open(1),
                frame(data, 8, 1, &[&[200, b' '][..], &[0; 200]].concat()).repeat(4_000),
            ]
            .concat(),
        ),
        (
            "empty data",
            [open(1), frame(data, 0, 1, b"").repeat(60_000)].concat(),
        ),
        (
            "headers that go on",
            [
                frame(headers, 0, 1, &header_block()),
                frame(continuation, 0, 1, &long).repeat(500),
            ]
            .concat(),
        ),
        (
            "header lists",
            streams(&|stream| {
                frame(
                    headers,
                    4,
                    stream,
                    &[header_block(), long[..8_000].to_vec()].concat(),
                )
            }),
        ),
    ];
    let preface = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(settings, 0, 0, &[]),
    ]
    .concat();
    for (what, flood) in floods {
        let bytes = [preface.clone(), flood].concat();
        withstands(what, 60, FEW, |process| {
            sends(process.addr, Some(process.connector(HTTP2)), bytes.clone())
        })
        .await;
    }
}

/// 38 connections a second with half a header kept every probe out for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_cannot_be_crowded_out() {
    let half = b"GET /livez HTTP/1.1\r\nhost: ".to_vec();
    for (what, bytes) in [
        ("half headers", half),
        ("silence", Vec::new()),
        ("one byte", b"G".to_vec()),
    ] {
        for addresses in [20..21, 20..250] {
            withstands(
                &format!("{what} to the admin port"),
                200,
                addresses.clone(),
                |process| sends(process.admin, None, bytes.clone()),
            )
            .await;
            withstands(
                &format!("{what} to the probe port"),
                300,
                addresses,
                |process| sends(process.probes, None, bytes.clone()),
            )
            .await;
        }
    }
}

#[tokio::test]
async fn the_probe_port_answers_probes_alone() {
    let process = Process::start();
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 404),
        ("/status", 404),
        ("/", 404),
    ] {
        assert_eq!(get_from(1, process.probes, path).await.0, status, "{path}");
    }
    // The connection is closed after its answer, and a header that does not come ends it within about a second.
    let since = Instant::now();
    let mut socket = tcp_from(1, process.probes).await.unwrap();
    socket.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    timeout(Duration::from_secs(5), until_closed(socket))
        .await
        .expect("it is closed");
    assert!(
        since.elapsed() >= Duration::from_millis(900),
        "{:?}",
        since.elapsed()
    );
}
