//! Everything that a pod on the network can do to the server's ports, against the real program: its
//! memory stays below three quarters of its limit, and good clients are answered in time, on the
//! connections that they have.

mod bodies;
mod http2;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::process::{Process, assert_served, get_from};
use crate::protocols::client_hello;
use crate::support::{HTTP1, tcp_from, tls_from};
use bodies::{repeated, stops};
use http2::fills_windows;

const ATTACK: Duration = Duration::from_secs(2);
/// Addresses of attackers.
const FEW: std::ops::Range<u8> = 20..23;
/// Attacks run next to each other as far as two cores can play the good clients of all of them;
/// each has a server of its own.
static SHARES: Semaphore = Semaphore::const_new(Load::Floods as usize);

/// How many of [`SHARES`] an attack takes, by the measured CPU time of attackers, server and good
/// clients.
#[derive(Clone, Copy)]
enum Load {
    /// Connections that wait: 0.3 cores.
    Waits = 3,
    /// Up to 0.6 cores.
    Works = 4,
    /// Hundreds of handshakes, each of which must end in time.
    Handshakes = 6,
    /// All of a core.
    Floods = 12,
}

/// Makes one connection of an attacker from this address; repeated as soon as it ends.
type Attack = Arc<dyn Fn(u8) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync>;

fn attack<F: Future<Output = Result<()>> + Send + 'static>(
    connection: impl Fn(u8) -> F + Send + Sync + 'static,
) -> Attack {
    Arc::new(move |from| Box::pin(connection(from)))
}

/// Keeps this number of attacking connections open for [`ATTACK`].
async fn run(connections: usize, addresses: std::ops::Range<u8>, attack: &Attack) {
    let mut tasks = JoinSet::new();
    for from in addresses.cycle().take(connections) {
        let attack = Arc::clone(attack);
        tasks.spawn(async move {
            loop {
                // Whatever the result, the attacker goes on.
                let _ = timeout(ATTACK, attack(from)).await;
                sleep(Duration::from_millis(20)).await;
            }
        });
    }
    sleep(ATTACK).await;
    tasks.shutdown().await;
}

/// Attacks a fresh server, and checks that all good clients are served meanwhile.
async fn withstands(
    what: &str,
    load: Load,
    connections: usize,
    addresses: std::ops::Range<u8>,
    make: impl Fn(&Process) -> Attack,
) {
    let _shares = SHARES.acquire_many(load as u32).await.unwrap();
    let process = spawn_blocking(Process::start).await.unwrap();
    let attack = make(&process);
    let good = process.good_peers();
    // Like the API server, good clients already have connections.
    sleep(Duration::from_millis(300)).await;
    run(connections, addresses, &attack).await;
    let waited = spawn_blocking(|| good.end()).await.unwrap();
    assert_served(what, waited);
    process.assert_memory(what);
}

async fn until_closed(mut stream: impl AsyncReadExt + Unpin) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects, with or without TLS.
async fn connect(
    from: u8,
    addr: SocketAddr,
    tls: Option<&TlsConnector>,
) -> Result<Box<dyn Stream>> {
    Ok(match tls {
        Some(connector) => Box::new(tls_from(from, addr, connector).await?),
        None => Box::new(tcp_from(from, addr).await?),
    })
}

/// Connects, with or without TLS, sends these bytes, and waits.
fn sends(addr: SocketAddr, tls: Option<TlsConnector>, bytes: Vec<u8>) -> Attack {
    let bytes = Arc::new(bytes);
    attack(move |from| {
        let (tls, bytes) = (tls.clone(), Arc::clone(&bytes));
        async move {
            let mut stream = connect(from, addr, tls.as_ref()).await?;
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            until_closed(stream).await;
            Ok(())
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_displace_only_themselves() {
    for (what, addresses) in [("silent TCP", FEW), ("silent TCP of many", 20..250)] {
        withstands(what, Load::Floods, 1200, addresses, |process| {
            sends(process.addr, None, Vec::new())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_handshakes_displace_only_themselves() {
    let half_hello = client_hello(3)[..30].to_vec();
    join_all(
        [("one byte", vec![0x16]), ("half a hello", half_hello)].map(async |(what, bytes)| {
            withstands(what, Load::Waits, 300, FEW, |process| {
                sends(process.addr, None, bytes.clone())
            })
            .await;
        }),
    )
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
    withstands(
        "a hello of 64 KiB",
        Load::Floods,
        300,
        20..60,
        move |process| sends(process.addr, None, large.clone()),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_without_a_request_displace_only_themselves() {
    let half = [
        b"POST /mutate HTTP/1.1\r\nx: ".to_vec(),
        vec![b'x'; 12 << 10],
    ]
    .concat();
    let answered = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    join_all(
        [
            ("silent after TLS", FEW, Vec::new()),
            ("silent after TLS, of many", 20..250, Vec::new()),
            ("half a header after TLS", FEW, half),
            ("idle after an answer", FEW, answered),
        ]
        .map(async |(what, addresses, bytes)| {
            withstands(what, Load::Handshakes, 400, addresses, |process| {
                sends(process.addr, Some(process.connector(HTTP1)), bytes.clone())
            })
            .await;
        }),
    )
    .await;
}

/// All budgets are exhausted together.
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
    withstands("everything at once", Load::Floods, 400, 20..60, |process| {
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

/// A regression test: 38 connections a second with half a header kept every probe out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_cannot_be_crowded_out() {
    let half = b"GET /livez HTTP/1.1\r\nhost: ".to_vec();
    let kinds = [
        ("half headers", half),
        ("silence", Vec::new()),
        ("one byte", b"G".to_vec()),
    ];
    let attacks = kinds.iter().flat_map(|(what, bytes)| {
        [20..21, 20..250].map(move |addresses| async move {
            let what = format!("{what} to the admin and probe ports");
            withstands(&what, Load::Works, 500, addresses, |process| {
                let [admin, probes] =
                    [process.admin, process.probes].map(|port| sends(port, None, bytes.clone()));
                // Two of five connections go to the admin port.
                let next = AtomicUsize::new(0);
                Arc::new(move |from| match next.fetch_add(1, Relaxed) % 5 {
                    0 | 1 => admin(from),
                    _ => probes(from),
                })
            })
            .await;
        })
    });
    join_all(attacks).await;
}

#[tokio::test]
async fn the_probe_port_answers_only_probes() {
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
    // The connection is closed after its answer, and a missing header closes it within about a
    // second.
    let since = Instant::now();
    let mut socket = tcp_from(1, process.probes).await.unwrap();
    socket.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    timeout(Duration::from_secs(20), until_closed(socket))
        .await
        .expect("it is closed");
    assert!(
        since.elapsed() >= Duration::from_millis(900),
        "{:?}",
        since.elapsed()
    );
}
