//! The two routes: bodies charged to their sender and read within limits, answers, Events and
//! metrics.

mod body;
mod metrics;
mod routes;
#[cfg(test)]
mod tests;

pub use body::MAX_BODY_BYTES;
pub use metrics::WebhookMetrics;
pub use routes::router;
