//! State of the whole process: allocations, signals and file descriptors. One test, so that nothing
//! runs next to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod allocations;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use rustix::process::{Resource, Signal, getpid, getrlimit, kill_process, setrlimit};
use thanos_timeshard::adapters::https::serve::{ConnectionFailure, Edge, Limits, ServeStats};
use thanos_timeshard::adapters::signals::{self, Shutdown, ShutdownStage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

const DEADLINE: Duration = Duration::from_mins(1);
/// Few enough to exhaust, enough for the runtime.
const DESCRIPTORS: u64 = 40;

#[test]
fn allocations_signals_and_file_descriptors() {
    allocations::do_not_grow_with_skipped_fields();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        out_of_descriptors_backs_off_and_recovers().await;
        two_signals_drain_and_abort().await;
    });
}

async fn two_signals_drain_and_abort() {
    let mut shutdown = signals::install().unwrap();
    let mut elsewhere = shutdown.clone();
    assert_eq!(shutdown.stage(), ShutdownStage::Running);
    kill_process(getpid(), Signal::TERM).unwrap();
    timeout(DEADLINE, shutdown.reached(ShutdownStage::Draining))
        .await
        .expect("the first signal drains");
    assert_eq!(elsewhere.stage(), ShutdownStage::Draining);
    kill_process(getpid(), Signal::INT).unwrap();
    timeout(DEADLINE, elsewhere.reached(ShutdownStage::Abort))
        .await
        .expect("the second one aborts, whichever it is");
}

async fn get(socket: &mut TcpStream) -> std::io::Result<String> {
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn out_of_descriptors_backs_off_and_recovers() {
    let before = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        rustix::process::Rlimit {
            current: Some(DESCRIPTORS),
            ..before
        },
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stats = Arc::new(ServeStats::default());
    let backoff = Duration::from_millis(100);
    let edge = Edge {
        listener,
        tls: None,
        limits: Limits {
            accept_backoff: backoff,
            ..Limits::default()
        },
        drain: Duration::ZERO,
        stats: Arc::clone(&stats),
        shutdown: Shutdown::never(),
    };
    let hello = async |_: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
    };
    let task = tokio::spawn(edge.serve(service_fn(hello)));

    // Both ends are in this process, so the client runs out of descriptors as well.
    let mut sockets = Vec::new();
    let since = Instant::now();
    while stats.failures(ConnectionFailure::Accept) < 3 {
        assert!(
            since.elapsed() < DEADLINE,
            "accepting never failed: {stats:?}"
        );
        match TcpStream::connect(addr).await {
            Ok(socket) => sockets.push(socket),
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
    assert!(
        since.elapsed() >= backoff * 2,
        "three failures in {:?}: it spins",
        since.elapsed()
    );
    assert!(
        stats.failures(ConnectionFailure::Evicted) > 0,
        "idle connections make room"
    );

    sockets.clear();
    let answer = timeout(DEADLINE, async {
        loop {
            if let Ok(mut socket) = TcpStream::connect(addr).await
                && let Ok(answer) = get(&mut socket).await
            {
                return answer;
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(
        answer
            .await
            .expect("an answer once there are descriptors")
            .ends_with("hello")
    );
    setrlimit(Resource::Nofile, before).unwrap();
    task.abort();
}
