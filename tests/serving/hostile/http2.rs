//! HTTP/2: windows that stay full, and floods of frames.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::join_all;
use hyper::Request;
use hyper::body::{Body, Bytes, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use super::{Attack, FEW, Load, attack, sends, withstands};
use crate::process::Process;
use crate::support::{HTTP2, tls_from};

/// The first bytes of a body that never ends.
struct Part(usize);

impl Body for Part {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0 == 0 {
            // Never woken: the body never ends.
            return Poll::Pending;
        }
        let bytes = self.0.min(16 << 10);
        self.0 -= bytes;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b' '; bytes])))))
    }
}

/// Opens eight requests, fills the windows with their bodies, and waits.
pub(super) fn fills_windows(
    process: &Process,
    path: &'static str,
    declared: Option<usize>,
) -> Attack {
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
    join_all(
        [
            ("/mutate", Some(7_000_000)),
            ("/guard", Some(100_000)),
            ("/mutate", None),
        ]
        .map(async |(path, declared)| {
            let what = format!("HTTP/2 windows to {path}, {declared:?} bytes");
            withstands(&what, Load::Works, 120, FEW, |process| {
                fills_windows(process, path, declared)
            })
            .await;
        }),
    )
    .await;
}

/// Encodes an HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `POST /mutate` in HPACK without a table.
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
    join_all(floods.map(async |(what, flood)| {
        let bytes = [preface.clone(), flood].concat();
        let load = if ["settings", "pings"].contains(&what) {
            Load::Floods
        } else {
            Load::Works
        };
        withstands(what, load, 60, FEW, |process| {
            sends(process.addr, Some(process.connector(HTTP2)), bytes.clone())
        })
        .await;
    }))
    .await;
}
