//! A stand-in for the Kubernetes API server: a client whose requests a function answers.

use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, Uri};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) media: String,
    /// `Null` if there is none.
    pub(crate) body: Value,
}

impl Sent {
    async fn read(request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let media = parts.headers.get(CONTENT_TYPE);
        Self {
            method: parts.method,
            uri: parts.uri,
            media: media.map_or("", |media| media.to_str().unwrap()).to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        }
    }

    /// Method and URI.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.uri)
    }
}

/// A client of namespace `default_namespace`; `answer` returns an HTTP status and a document.
pub(crate) fn client<A: Future<Output = (u16, Value)> + Send + 'static>(
    default_namespace: &str,
    answer: impl Fn(Sent) -> A + Clone + Send + Sync + 'static,
) -> Client {
    let service = move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (code, body) = answer(Sent::read(request).await).await;
            let body = Full::<Bytes>::from(body.to_string());
            let response = Response::builder().status(code).body(body).unwrap();
            Ok::<_, Infallible>(response)
        }
    };
    Client::new(tower::service_fn(service), default_namespace)
}

/// A refusal.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message});
    (code, status)
}
