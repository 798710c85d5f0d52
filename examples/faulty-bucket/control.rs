//! The endpoint for the rules: `GET /faults` lists them with their counts, `PUT` replaces them, `POST`
//! adds some, `DELETE` removes all. Rules are a JSON list.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::Instant;

use crate::Bucket;
use crate::faults::Rule;

const MAX_RULES_BYTES: usize = 1024 * 1024;

pub(crate) async fn answer(bucket: &Bucket, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != "/faults" {
        return text(StatusCode::NOT_FOUND, "the only path is /faults\n");
    }
    let method = request.method().clone();
    let rules = match method {
        Method::GET => {
            let listing =
                bucket.with_faults(|faults| serde_json::to_string(&faults.listing(Instant::now())));
            return match listing {
                Ok(json) => text(StatusCode::OK, format!("{json}\n")),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            };
        }
        Method::DELETE => Vec::new(),
        Method::PUT | Method::POST => match rules(request.into_body()).await {
            Ok(rules) => rules,
            Err(why) => return text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        },
        _ => return text(StatusCode::METHOD_NOT_ALLOWED, "GET, PUT, POST or DELETE\n"),
    };
    bucket.with_faults(|faults| match method {
        Method::POST => faults.add(rules, Instant::now()),
        _ => faults.replace(rules, Instant::now()),
    });
    text(StatusCode::NO_CONTENT, "")
}

async fn rules(body: Incoming) -> Result<Vec<Rule>, String> {
    let bytes = Limited::new(body, MAX_RULES_BYTES)
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("the body is not a list of rules: {error}"))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
