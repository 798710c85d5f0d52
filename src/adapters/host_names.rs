//! Restricts the admin port to the host names of timeshard (`core/model/host_names.rs` lists them,
//! with the reason).
//!
//! Probes are answered under any name: they reveal nothing. A request without a host, as in
//! HTTP/1.0, does not come from a browser.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};

use crate::core::model::host_names::{MAX_NAMES, is_allowed};
use crate::core::model::text::short_line;

/// The limit of a host name in a refusal.
const MAX_HOST_CHARS: usize = 80;

/// Refuses requests to any other name, unless it is one of `names`.
pub fn only(router: Router, names: Vec<String>) -> Router {
    let names: Arc<[String]> = names.into_iter().take(MAX_NAMES).collect();
    router.layer(from_fn(move |request: Request, next: Next| {
        let names = names.clone();
        async move {
            match foreign(&request, &names) {
                Some(refusal) => refusal,
                None => next.run(request).await,
            }
        }
    }))
}

fn foreign(request: &Request, names: &[String]) -> Option<Response> {
    if matches!(request.uri().path(), "/livez" | "/readyz") {
        return None;
    }
    let header = request
        .headers()
        .get(header::HOST)
        .map(|host| String::from_utf8_lossy(host.as_bytes()));
    let host = header.or_else(|| {
        request
            .uri()
            .authority()
            .map(|authority| authority.as_str().into())
    })?;
    if is_allowed(&host, names) {
        return None;
    }
    let host = short_line(&host, MAX_HOST_CHARS);
    let text = format!(
        "this port does not answer under the name {host:?}, so that no page from elsewhere can read it; use its address or localhost, or give the server --admin-host with that name\n"
    );
    Some((StatusCode::MISDIRECTED_REQUEST, text).into_response())
}
