//! A bucket that fails on command: serves a directory over the part of the S3 protocol that thanos
//! reads with, and breaks requests by rules. For end-to-end scenarios in which the object store fails
//! for one pod, or for all of them.
//!
//!     faulty-bucket --directory DIR --listen 10.111.0.1:9000 --control 127.0.0.1:9001
//!     curl -X PUT 127.0.0.1:9001/faults -d '[{"client": "10.111.0.7", "method": "HEAD", "suffix": "/index", "fault": {"status": 500}}]'
//!
//! The first path component of a request is the bucket's name, and can be any name. Signatures are
//! not checked. Deliberately absent: writes (answered with 403), TLS, multipart, versions, and
//! every listing but `ListObjectsV2`.

mod control;
mod faults;
mod objects;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use faults::{Fault, Faults};
use objects::{Directory, Reply};

/// The pause after a failed accept, such as with too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[derive(Parser)]
struct Args {
    /// The bucket: its files are the objects.
    #[arg(long)]
    directory: PathBuf,
    /// Address of the S3 endpoint.
    #[arg(long)]
    listen: SocketAddr,
    /// Address of the endpoint for rules: GET, PUT, POST, DELETE /faults.
    #[arg(long)]
    control: SocketAddr,
    /// Delay of every response, in milliseconds.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
}

/// Shared by both endpoints.
struct Bucket {
    directory: Directory,
    latency: Duration,
    faults: Mutex<Faults>,
}

/// Ends a connection without a response.
#[derive(Debug, thiserror::Error)]
#[error("reset by a rule")]
struct Reset;

impl Bucket {
    fn new(directory: PathBuf, latency: Duration) -> Arc<Self> {
        Arc::new(Self {
            directory: Directory::new(directory),
            latency,
            faults: Mutex::default(),
        })
    }

    fn with_faults<R>(&self, act: impl FnOnce(&mut Faults) -> R) -> R {
        act(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        client: IpAddr,
    ) -> Result<Response<Full<Bytes>>, Reset> {
        sleep(self.latency).await;
        let key = objects::key(request.uri().path());
        match self.with_faults(|faults| {
            faults.apply(client, request.method().as_str(), &key, Instant::now())
        }) {
            None => {}
            Some(Fault::DelayMs(ms)) => sleep(Duration::from_millis(ms)).await,
            // Ends when the client does.
            Some(Fault::Hang) => pending().await,
            Some(Fault::Reset) => return Err(Reset),
            Some(Fault::Status(code)) => {
                let status =
                    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Ok(Reply::error(status, "InternalError").response);
            }
        }
        Ok(self.directory.answer(&request, &key).await.response)
    }
}

/// Accepts connections forever; `answer` gets the client's address.
async fn serve<F, A, E>(listener: TcpListener, answer: F)
where
    F: Fn(Request<Incoming>, IpAddr) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response<Full<Bytes>>, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        tokio::spawn(connection(stream, peer.ip(), answer.clone()));
    }
}

async fn connection<F, A, E>(stream: TcpStream, client: IpAddr, answer: F)
where
    F: Fn(Request<Incoming>, IpAddr) -> A,
    A: Future<Output = Result<Response<Full<Bytes>>, E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    drop(stream.set_nodelay(true));
    let service = service_fn(|request| answer(request, client));
    // An error here is the client's, or a rule's reset.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

async fn serve_objects(listener: TcpListener, bucket: Arc<Bucket>) {
    let answer = move |request, client| {
        let bucket = bucket.clone();
        async move { bucket.answer(request, client).await }
    };
    serve(listener, answer).await;
}

async fn serve_control(listener: TcpListener, bucket: Arc<Bucket>) {
    let answer = move |request, _client| {
        let bucket = bucket.clone();
        async move { Ok::<_, Infallible>(control::answer(&bucket, request).await) }
    };
    serve(listener, answer).await;
}

/// Few threads: the machine is busy with the pods that it serves.
fn main() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(2)
        .enable_all()
        .build()?
        .block_on(serve_bucket(Args::parse()))
}

async fn serve_bucket(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.directory.is_dir(),
        "{} is not a directory",
        args.directory.display()
    );
    let listen = |address: SocketAddr| async move {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))
    };
    let (objects, control) = (listen(args.listen).await?, listen(args.control).await?);
    let bucket = Bucket::new(args.directory, Duration::from_millis(args.latency_ms));
    tokio::join!(
        serve_objects(objects, bucket.clone()),
        serve_control(control, bucket)
    );
    Ok(())
}
