//! Reads from thanos' `/metrics` how many blocks it has loaded.
//!
//! The page may have megabytes if thanos has many clients or caches, so it is parsed in pieces and
//! never kept. No compression is requested: thanos would have to compress all of it, and this
//! process to decompress it.

use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::Incoming;

use super::ThanosClient;
use crate::adapters::clock;
use crate::core::agent::loading::reading::{Parser, Reading};

/// Reading stops with an error beyond this.
const MAX_METRICS_BYTES: usize = 32 * 1024 * 1024;
const PATH: &str = "/metrics";

impl ThanosClient {
    pub(super) async fn reading(&self) -> Result<Reading, String> {
        self.exchange(PATH, read).await
    }
}

async fn read(status: StatusCode, mut body: Incoming) -> Result<Reading, String> {
    if status != StatusCode::OK {
        return Err(format!("{PATH} answers {status}"));
    }
    let (mut parser, mut bytes) = (Parser::default(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("{PATH}: {error}"))?;
        let Some(piece) = frame.data_ref() else {
            continue;
        };
        bytes += piece.len();
        if bytes > MAX_METRICS_BYTES {
            return Err(format!("{PATH} has more than {MAX_METRICS_BYTES} bytes"));
        }
        parser.push(piece);
    }
    parser.finish(clock::unix_seconds())
}
