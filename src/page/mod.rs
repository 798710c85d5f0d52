//! The page at the admin port's `/`: whether coverage is whole, and what happens, followed live.
//!
//! `document` says what a browser is told of a StatefulSet, `feed` renders it once for everybody who looks, `events` is one
//! browser's stream of it; `assets/` is what runs in the browser: hand-written, nothing from elsewhere, no build step.
//! Invariants: nothing here changes state; without a browser that looks nothing is computed; streams are bounded in number
//! and in what they hold, and end with the first signal.
//!
//! Deliberately absent: asking other replicas. A follower shows what it knows and names the leader, so that this port never
//! becomes a way to have requests sent from inside the cluster.

mod document;
mod events;
pub mod feed;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use axum::routing::get;

use self::feed::Feed;
use crate::adapters::signals::Shutdown;

/// Everything from this server, no script or style in the document itself, nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
const X_CONTENT_TYPE_OPTIONS: HeaderName = header::X_CONTENT_TYPE_OPTIONS;

/// The page, its parts, and `/events`. Paths are relative in the browser, so it works behind a proxy's prefix too.
pub fn router(feed: Arc<Feed>, shutdown: Shutdown) -> Router {
    Router::new()
        .route(
            "/",
            get(async || asset("text/html; charset=utf-8", include_str!("assets/page.html"))),
        )
        .route(
            "/page.css",
            get(async || asset("text/css; charset=utf-8", include_str!("assets/page.css"))),
        )
        .route(
            "/page.js",
            get(async || {
                asset(
                    "text/javascript; charset=utf-8",
                    include_str!("assets/page.js"),
                )
            }),
        )
        .route(
            "/timeline.js",
            get(async || {
                asset(
                    "text/javascript; charset=utf-8",
                    include_str!("assets/timeline.js"),
                )
            }),
        )
        .route(
            "/icon.svg",
            get(async || asset("image/svg+xml", include_str!("assets/icon.svg"))),
        )
        .route("/events", get(events::events))
        .with_state(events::Stage { feed, shutdown })
}

/// Asked for anew each time: after an upgrade of the server the old page would not understand its events.
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
