//! The floor: an admission webhook over TLS that reads a review and answers with a fixed patch.
//!
//! It does only what every webhook must do (accept, TLS, HTTP, read the review, answer with its uid):
//! no injection, metrics, logs, limits or drain. `skim` borrows the few fields
//! that an injector decides by and skips the rest; `raw` keeps the pod as text; `dom` builds a full
//! tree of it.
//!
//! usage: floor ADDRESS CERTIFICATE KEY dom|raw|skim [THREADS, default 1]

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A patch as long as a small injector's, in base64.
const PATCH: &str = include_str!("patch.b64");
const BODY_LIMIT_BYTES: usize = 7 << 20;

#[derive(Deserialize)]
struct Review<'a, Object> {
    #[serde(borrow)]
    request: Request<'a, Object>,
}

#[derive(Deserialize)]
struct Request<'a, Object> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    object: Object,
}

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow, default)]
    containers: Vec<Container<'a>>,
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    args: Vec<Cow<'a, str>>,
}

#[derive(Clone, Copy)]
enum Mode {
    Dom,
    Raw,
    Skim,
}

fn dom(body: &[u8]) -> Option<String> {
    let review: Value = serde_json::from_slice(body).ok()?;
    review["request"]["object"].as_object()?;
    review["request"]["uid"].as_str().map(answer)
}

fn raw(body: &[u8]) -> Option<String> {
    let review: Review<&RawValue> = serde_json::from_slice(body).ok()?;
    std::hint::black_box(review.request.object.get().len());
    Some(answer(&review.request.uid))
}

fn skim(body: &[u8]) -> Option<String> {
    let review: Review<Pod> = serde_json::from_slice(body).ok()?;
    let pod = &review.request.object;
    let seen: usize = pod.spec.containers.iter().map(|container| container.name.len() + container.args.len()).sum();
    std::hint::black_box((seen, pod.metadata.name.len()));
    Some(answer(&review.request.uid))
}

fn answer(uid: &str) -> String {
    let mut text = String::with_capacity(uid.len() + PATCH.len() + 160);
    text.push_str(r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"#);
    text.push_str(&Value::from(uid).to_string());
    text.push_str(r#","allowed":true,"patchType":"JSONPatch","patch":""#);
    text.push_str(PATCH.trim_end());
    text.push_str("\"}}");
    text
}

async fn mutate(State(mode): State<Mode>, body: Bytes) -> Response {
    let read = match mode {
        Mode::Dom => dom,
        Mode::Raw => raw,
        Mode::Skim => skim,
    };
    match read(&body) {
        Some(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        None => (StatusCode::BAD_REQUEST, "not an AdmissionReview\n").into_response(),
    }
}

async fn connection(socket: TcpStream, acceptor: TlsAcceptor, app: Router) {
    let _ = socket.set_nodelay(true);
    if let Ok(stream) = acceptor.accept(socket).await {
        let mut http = hyper::server::conn::http1::Builder::new();
        let _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await;
    }
}

async fn serve(address: &str, certificate: &str, key: &str, mode: Mode) -> Result<(), Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let app = Router::new().route("/mutate", post(mutate)).layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES)).with_state(mode);
    let listener = TcpListener::bind(address).await?;
    loop {
        if let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(connection(socket, acceptor.clone(), app.clone()));
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, certificate, key, mode, threads @ ..] = args.as_slice() else {
        return Err("usage: floor ADDRESS CERTIFICATE KEY dom|raw|skim [THREADS]".into());
    };
    let mode = match mode.as_str() {
        "dom" => Mode::Dom,
        "raw" => Mode::Raw,
        "skim" => Mode::Skim,
        other => return Err(format!("no mode {other}; there are dom, raw and skim").into()),
    };
    let threads = threads.first().map_or(Ok(1), |count| count.parse())?;
    let runtime = match threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        more => tokio::runtime::Builder::new_multi_thread().worker_threads(more).enable_all().build()?,
    };
    runtime.block_on(serve(address, certificate, key, mode))
}
