//! The page at the admin port's `/`: live coverage and rollouts.
//!
//! `facts` is the input, `document` a StatefulSet as the browser gets it, `feed` the state shared by
//! all browsers, `events` one browser's stream, `leader` the leader's reports on another replica.
//! `assets/` runs in the browser: hand-written, without dependencies or a build step.
//!
//! Invariants: nothing here changes state; nothing is rendered unless a page is open; streams are
//! bounded in number and memory, and end with the first signal. Nothing in a request to this port
//! chooses where the server connects to: a follower asks the pod that holds the Lease, and no other
//! address.

mod document;
mod events;
mod facts;
pub mod feed;
pub mod leader;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use axum::routing::get;

use self::feed::Feed;
use crate::adapters::signals::Shutdown;

/// Allows only this server's resources, no inline script or style, and no framing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
const X_CONTENT_TYPE_OPTIONS: HeaderName = header::X_CONTENT_TYPE_OPTIONS;

/// Serves the page, its assets and `/events`. The page uses relative paths, so it also works behind a
/// proxy's prefix.
pub fn router(feed: Arc<Feed>, shutdown: Shutdown) -> Router {
    let asset = |kind, text| get(async move || asset(kind, text));
    let script = "text/javascript; charset=utf-8";
    Router::new()
        .route(
            "/",
            asset("text/html; charset=utf-8", include_str!("assets/page.html")),
        )
        .route(
            "/page.css",
            asset("text/css; charset=utf-8", include_str!("assets/page.css")),
        )
        .route("/page.js", asset(script, include_str!("assets/page.js")))
        .route(
            "/timeline.js",
            asset(script, include_str!("assets/timeline.js")),
        )
        .route(
            "/findings.js",
            asset(script, include_str!("assets/findings.js")),
        )
        .route(
            "/icon.svg",
            asset("image/svg+xml", include_str!("assets/icon.svg")),
        )
        .route("/events", get(events::events))
        .with_state(events::EventStream { feed, shutdown })
}

/// Not cached: after an upgrade of the server, an old page would not understand its events.
fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}
