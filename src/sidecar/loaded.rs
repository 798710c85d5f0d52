//! Reads from thanos' `/metrics` how many blocks it has loaded.
//!
//! The page may have megabytes where thanos runs with many clients or caches: it is read in pieces and never kept. No
//! compression is asked for, because thanos would have to compress, and this process to decompress, all of it.

use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::Incoming;

use super::Thanos;
use crate::adapters::clock;
use crate::core::loading::reading::{Parser, Reading};

/// More than this is not read. Bytes.
const MAX_METRICS_BYTES: usize = 32 * 1024 * 1024;
const PATH: &str = "/metrics";

impl Thanos {
    /// One reading.
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
