//! Bodies that stop, drip, are large or grow when they are read, and answers that are not read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::{FEW, Load, attack, connect, sends, withstands};
use crate::process::review;
use crate::support::{HTTP1, tls_from};

/// A request whose body stops after `sent` bytes of `declared`.
pub(super) fn stops(path: &str, declared: usize, sent: usize) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {declared}\r\n\r\n")
            .into_bytes();
    request.resize(request.len() + sent, b' ');
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_stop_delay_no_other_request() {
    let small = (Load::Works, 120 << 10, 150);
    let large = (Load::Waits, 6_900_000, 12);
    let attacks = ["/mutate", "/guard"].into_iter().flat_map(|path| {
        [small, large].into_iter().flat_map(move |kind| {
            let (load, size, connections) = kind;
            [(size - 1, FEW), (size - 1, 20..60), (1, FEW)].map(
                move |(sent, addresses)| async move {
                    let what = format!("bodies to {path}, {sent} bytes of {size}");
                    withstands(&what, load, connections, addresses, |process| {
                        sends(
                            process.addr,
                            Some(process.connector(HTTP1)),
                            stops(path, size, sent),
                        )
                    })
                    .await;
                },
            )
        })
    });
    join_all(attacks).await;
}

/// One byte at a time, each within the longest pause: the rate counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_drip_delay_no_other_request() {
    withstands("dripping bodies", Load::Works, 150, FEW, |process| {
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
async fn large_reviews_delay_no_small_one() {
    let body = review(5 << 20);
    let routes = [("/mutate", FEW), ("/guard", 20..40)];
    join_all(routes.map(async |(path, addresses)| {
        let request = [stops(path, body.len(), 0), body.to_vec()].concat();
        let what = format!("large reviews to {path}");
        withstands(&what, Load::Works, 16, addresses, |process| {
            sends(
                process.addr,
                Some(process.connector(HTTP1)),
                request.clone(),
            )
        })
        .await;
    }))
    .await;
}

/// Returns a review of this size whose object repeats an element between `before` and `after`.
pub(super) fn repeated(size: usize, before: &str, element: &str, after: &str) -> Vec<u8> {
    let head = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","namespace":"n","#;
    let kind = r#""kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"apps","version":"v1","resource":"statefulsets"},"object":"#;
    let elements = vec![element; size / (element.len() + 1)].join(",");
    format!("{head}{kind}{before}{elements}{after}}}}}").into_bytes()
}

/// Small in the request and large in memory: an element takes more memory than its text.
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
    let attacks = shapes.iter().flat_map(|&(what, before, element, after)| {
        let paths: &[&str] = match what {
            "annotations" => &["/mutate", "/guard"],
            "a strategy" | "a template" => &["/guard"],
            _ => &["/mutate"],
        };
        paths.iter().map(move |path| async move {
            let body = repeated(6 << 20, before, element, after);
            let request = [stops(path, body.len(), 0), body].concat();
            let what = format!("{what} to {path}");
            withstands(&what, Load::Works, 6, FEW, |process| {
                sends(
                    process.addr,
                    Some(process.connector(HTTP1)),
                    request.clone(),
                )
            })
            .await;
        })
    });
    join_all(attacks).await;
}

/// Endless requests whose answers are not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_not_read_are_bounded() {
    let body = review(0);
    let one = [stops("/mutate", body.len(), 0), body.to_vec()].concat();
    let scrape = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(200);
    let unread = |addr: SocketAddr, tls: Option<TlsConnector>, bytes: Vec<u8>| {
        let bytes = Arc::new(bytes);
        attack(move |from| {
            let (tls, bytes) = (tls.clone(), Arc::clone(&bytes));
            async move {
                let mut stream = connect(from, addr, tls.as_ref()).await?;
                // The server cuts it off, so the write fails.
                loop {
                    stream.write_all(&bytes).await?;
                }
            }
        })
    };
    tokio::join!(
        withstands("unread answers", Load::Works, 120, FEW, |process| {
            unread(process.addr, Some(process.connector(HTTP1)), one.repeat(50))
        }),
        withstands("unread scrapes", Load::Works, 64, FEW, |process| {
            unread(process.admin, None, scrape.clone())
        }),
    );
}
