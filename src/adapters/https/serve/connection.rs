//! One connection from handshake to close.
//!
//! In: a socket and the service. Out: each request goes to the service together with its
//! [`Connection`], to which memory is charged, and the answer goes back; the socket is closed when
//! a deadline passes. Next for a review: `webhook/http/routes.rs`.
//!
//! Invariants: the state's deadline covers every `Pending` of the peer; a timer is reset only if
//! the deadline comes closer or has passed, so a burst of requests resets none.
//!
//! Deliberately absent: hyper's own header timeout (see `state`) and its keep-alive pings.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::budget::{Connection, FairBudget};
use super::registry::Registered;
use super::state::{ConnectionState, Due, Order};
use super::stats::ConnectionFailure;
use super::{Handler, Limits, ResponseBody, handshake};

/// Flow-control window of an HTTP/2 stream and connection: what a peer may send before it is
/// requested. HTTP/2's default, which is also the minimum of a connection.
const HTTP2_WINDOW_BYTES: u32 = 65_535;
/// The largest HTTP/2 frame; the protocol allows no less.
const HTTP2_FRAME_BYTES: u32 = 16 << 10;
/// Decoded headers of one HTTP/2 request; the API server's have a few hundred bytes.
const HTTP2_HEADER_BYTES: u32 = 8 << 10;
/// Bytes that HTTP/2 may take of one answer at a time.
const HTTP2_SEND_BYTES: usize = 32 << 10;
/// HTTP/2 streams that a peer has reset before they were processed, or that the server reset for
/// its mistakes; one more ends the connection.
const HTTP2_RESETS: usize = 20;

/// Serves one socket until it is closed.
pub(super) async fn serve<S: Handler<B>, B: ResponseBody>(
    socket: TcpStream,
    (tls, handshakes): (Option<TlsAcceptor>, Arc<FairBudget>),
    service: S,
    entry: Registered,
) {
    let Ok(first) = timeout(entry.limits().handshake, handshake::first_byte(&socket)).await else {
        return entry.failed(if tls.is_some() {
            ConnectionFailure::HandshakeTimeout
        } else {
            ConnectionFailure::HeaderTimeout
        });
    };
    let Some(first) = first else {
        return entry.failed(ConnectionFailure::HandshakeGone);
    };
    entry.note_bytes();
    // Boxed, so that a silent peer's task stays small.
    match tls {
        None => Box::pin(plain(socket, service, entry)).await,
        Some(acceptor) => {
            Box::pin(secured(
                first,
                socket,
                (acceptor, handshakes),
                service,
                entry,
            ))
            .await;
        }
    }
}

async fn plain<S: Handler<B>, B: ResponseBody>(socket: TcpStream, service: S, entry: Registered) {
    if entry.settle(false).await {
        requests(socket, service, entry.limits(), &entry).await;
    } else {
        entry.failed(ConnectionFailure::NoPlace);
    }
}

async fn secured<S: Handler<B>, B: ResponseBody>(
    first: u8,
    socket: TcpStream,
    (acceptor, handshakes): (TlsAcceptor, Arc<FairBudget>),
    service: S,
    entry: Registered,
) {
    let accepted = async {
        // Dropped with the handshake.
        let _place = handshakes.claim(&entry.connection(), 1).await;
        handshake::accept(first, socket, &acceptor, entry.stats()).await
    };
    let stream = match timeout(entry.limits().handshake, accepted).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(failure)) => return entry.failed(failure),
        Err(_) => return entry.failed(ConnectionFailure::HandshakeTimeout),
    };
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if entry.settle(http2).await {
        requests(stream, service, entry.limits(), &entry).await;
    } else {
        entry.failed(ConnectionFailure::NoPlace);
    }
}

async fn requests<I, S, B>(socket: I, service: S, limits: &Limits, entry: &Registered)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Handler<B>,
    B: ResponseBody,
{
    let state = entry.state();
    let io = TokioIo::new(ObservedSocket {
        socket,
        state: Arc::clone(state),
    });
    let shared = Arc::clone(state);
    let connection = entry.connection();
    let tracked = service_fn(move |mut request: Request<Incoming>| {
        request
            .extensions_mut()
            .insert::<Connection>(connection.clone());
        answer(service.call(request), Arc::clone(&shared))
    });
    let cut = if state.is_http2() {
        let connection = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(HTTP2_HEADER_BYTES)
            .initial_stream_window_size(HTTP2_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .max_send_buf_size(HTTP2_SEND_BYTES)
            .max_pending_accept_reset_streams(HTTP2_RESETS)
            .max_local_error_reset_streams(HTTP2_RESETS)
            .serve_connection(io, tracked);
        // Boxed: HTTP/2's state is large, and would make every connection's task as large.
        drive(
            Box::pin(connection).as_mut(),
            http2::Connection::graceful_shutdown,
            state,
            limits,
        )
        .await
    } else {
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(limits.header_bytes)
            .serve_connection(io, tracked);
        drive(
            pin!(connection),
            http1::Connection::graceful_shutdown,
            state,
            limits,
        )
        .await
    };
    if let Some(failure) = cut {
        entry.failed(failure);
    }
}

/// Marks a request as under way, and its answer as the last one during a drain.
async fn answer<B>(
    answer: impl Future<Output = Result<Response<B>, Infallible>>,
    state: Arc<ConnectionState>,
) -> Result<Response<B>, Infallible> {
    let _active = state.begin();
    if state.has_had_its_turn() {
        // The peer sends requests faster than they are answered; let others be answered in between.
        tokio::task::yield_now().await;
    }
    let mut response = answer.await?;
    if response.status().is_success() {
        state.proven();
    }
    if state.ordered_now() >= Order::Drain && !state.is_http2() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Polls the connection until it is done or its deadline passes; returns why it was cut off.
async fn drive<C: Future>(
    mut connection: Pin<&mut C>,
    close: fn(Pin<&mut C>),
    state: &ConnectionState,
    limits: &Limits,
) -> Option<ConnectionFailure> {
    let mut timer = pin!(sleep_until(state.deadline(limits).0));
    let mut ordered = pin!(state.ordered.notified());
    std::future::poll_fn(|cx| {
        state.new_turn();
        loop {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            if ordered.as_mut().poll(cx).is_ready() {
                ordered.set(state.ordered.notified());
                if state.may_shut_down() {
                    close(connection.as_mut());
                }
                continue;
            }
            let (due, what) = state.deadline(limits);
            if due < timer.deadline() {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // The timer may be older than the deadline, which moves with every request.
            if due > Instant::now() {
                timer.as_mut().reset(due);
                continue;
            }
            match what {
                Due::Idle => state.order(Order::Close),
                Due::Closed => return Poll::Ready(None),
                Due::Cut(failure) => return Poll::Ready(Some(failure)),
            }
        }
    })
    .await
}

/// A socket that notifies the state of bytes in and out.
struct ObservedSocket<I> {
    socket: I,
    state: Arc<ConnectionState>,
}

impl<I> ObservedSocket<I> {
    fn note_write(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(bytes)) if *bytes > 0 => self.state.wrote(),
            Poll::Pending => self.state.blocked(),
            Poll::Ready(_) => {}
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for ObservedSocket<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let watched = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut watched.socket).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            watched.state.read();
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for ObservedSocket<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let watched = self.get_mut();
        let polled = Pin::new(&mut watched.socket).poll_write(cx, bytes);
        watched.note_write(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let watched = self.get_mut();
        let polled = Pin::new(&mut watched.socket).poll_write_vectored(cx, slices);
        watched.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let watched = self.get_mut();
        let polled = Pin::new(&mut watched.socket).poll_flush(cx);
        match &polled {
            Poll::Pending => watched.state.blocked(),
            // The bytes written into TLS before have gone out.
            Poll::Ready(_) => watched.state.flushed(),
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
