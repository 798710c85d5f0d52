//! The server's client of the API server: trims answers while they are received.
//!
//! kube buffers a page of a list, or a line of a watch, before it is parsed, and users' objects may
//! take megabytes each. So this layer between the socket and kube passes on only the fields in
//! `fields`. Invariants: at most [`MAX_OBJECT_BYTES`] of each object are passed on, and
//! [`MAX_MAP_BYTES`] of a single ConfigMap; at most [`BULK`] large answers are read at a time,
//! however many namespaces are watched. Other kinds (Leases, Events, Secrets, webhook
//! registrations) pass unchanged, since no tenant writes those.

mod fields;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use hyper::body::{Body, Bytes, Frame};
use hyper::header::CONTENT_LENGTH;
use hyper::{Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use self::fields::cut;
pub use self::fields::{MAX_MAP_BYTES, MAX_OBJECT_BYTES};
use crate::core::kube::json_trim::Trim;

/// Pages of lists and ConfigMaps that are read at a time.
const BULK: usize = 3;
/// Limit for a refusal, in which Kubernetes repeats the invalid values. Bytes.
const MAX_REFUSAL_BYTES: usize = 16 * 1024;

/// The layer between kube and the API server.
#[derive(Clone, Debug)]
pub struct Trimmed(Arc<Semaphore>);

impl Default for Trimmed {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BULK)))
    }
}

impl<S> Layer<S> for Trimmed {
    type Service = TrimmedService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        TrimmedService {
            inner,
            places: self.0.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct TrimmedService<S> {
    inner: S,
    places: Arc<Semaphore>,
}

impl<S, R, B> Service<Request<R>> for TrimmedService<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Response = Response<TrimmedBody<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let cut = cut(request.method(), request.uri());
        let (answer, places) = (self.inner.call(request), self.places.clone());
        Box::pin(async move {
            let place = match cut.filter(|cut| cut.bulk) {
                // Never closed.
                Some(_) => places.acquire_owned().await.ok(),
                None => None,
            };
            let (mut head, body) = answer.await?.into_parts();
            head.headers.remove(CONTENT_LENGTH);
            let reads = match cut {
                Some(_) if head.status >= StatusCode::BAD_REQUEST => {
                    Reads::Refusal(MAX_REFUSAL_BYTES)
                }
                Some(cut) => Reads::Trimmed(Box::new(Trim::new(cut.keep, cut.limit))),
                None => Reads::All,
            };
            Ok(Response::from_parts(
                head,
                TrimmedBody {
                    body,
                    reads,
                    _place: place,
                },
            ))
        })
    }
}

#[derive(Debug)]
enum Reads {
    All,
    /// Up to this many bytes.
    Refusal(usize),
    Trimmed(Box<Trim>),
}

/// The trimmed body of an answer.
#[derive(Debug)]
pub struct TrimmedBody<B> {
    body: B,
    reads: Reads,
    _place: Option<OwnedSemaphorePermit>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for TrimmedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)?) else {
                return Poll::Ready(None);
            };
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            let left = match &mut self.reads {
                Reads::All => bytes,
                Reads::Refusal(room) => {
                    let taken = bytes.len().min(*room);
                    *room -= taken;
                    bytes.slice(..taken)
                }
                Reads::Trimmed(trim) => trim.push(&bytes).into(),
            };
            if !left.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(left))));
            }
        }
    }
}
