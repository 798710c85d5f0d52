//! What the accept loop counts, and how it looks to Prometheus.
//!
//! Invariant: labels are the variants of [`Failure`], so a peer cannot grow the number of series.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::core::printable::short_line;

/// Why a connection did not end the ordinary way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No handshake within the limit.
    HandshakeTimeout,
    /// The peer went away during the handshake: a TCP health check, a port scan.
    HandshakeGone,
    /// A plain HTTP request on the TLS port.
    PlainHttp,
    /// Bytes that are not TLS.
    NotTls,
    /// The peer does not trust the certificate.
    CertificateRejected,
    /// No common version or cipher, or another TLS error.
    Tls,
    /// Request headers that did not end within the limit.
    HeaderTimeout,
    /// A request that stopped half-way.
    Stalled,
    /// Closed to make room for another peer's, or since what it held was needed.
    Evicted,
    /// The peer did not read its answer.
    Unread,
    /// No client certificate, or none of those asked for (`--client-ca`).
    ClientCertificate,
    /// No place was free within the limit: every other connection was in use.
    NoPlace,
    /// The system would not accept a connection, for example for lack of file descriptors.
    Accept,
}

impl Failure {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 13] = [
        Self::HandshakeTimeout,
        Self::HandshakeGone,
        Self::PlainHttp,
        Self::NotTls,
        Self::CertificateRejected,
        Self::Tls,
        Self::HeaderTimeout,
        Self::Stalled,
        Self::Evicted,
        Self::Unread,
        Self::ClientCertificate,
        Self::NoPlace,
        Self::Accept,
    ];

    /// The value of the metric's `reason` label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeGone => "handshake_gone",
            Self::PlainHttp => "plain_http",
            Self::NotTls => "not_tls",
            Self::CertificateRejected => "certificate_rejected",
            Self::Tls => "tls",
            Self::HeaderTimeout => "header_timeout",
            Self::Stalled => "stalled",
            Self::Evicted => "evicted",
            Self::Unread => "unread",
            Self::ClientCertificate => "client_certificate",
            Self::NoPlace => "no_place",
            Self::Accept => "accept",
        }
    }
}

/// Counters of one port. Register an `Arc` of it with the registry: the values are read at scrape time.
#[derive(Debug, Default)]
pub struct ServeStats {
    opened: AtomicU64,
    closed: AtomicU64,
    failed: [AtomicU64; Failure::ALL.len()],
    /// When a client was last logged as refused, by [`Refused`], as [`log_clock`] says; 0 for never.
    refused_logged: [AtomicU64; Refused::COUNT],
}

/// Why a client's certificate is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is none.
    Without,
    /// Another CA signed it.
    Authority,
    /// It has another name.
    Name,
    /// It has expired, or is wrong otherwise.
    Invalid,
}

impl Refused {
    const COUNT: usize = 4;
}

/// What is logged of a reason. Characters.
const MAX_REASON_CHARS: usize = 300;
/// How long a kind of refusal is not logged again. Seconds.
const LOG_AGAIN_SECONDS: u64 = 600;

impl ServeStats {
    /// Connections open now, handshakes included.
    #[must_use]
    pub fn open(&self) -> u64 {
        let closed = self.closed.load(Relaxed);
        self.opened.load(Relaxed).saturating_sub(closed)
    }

    /// Connections accepted since the start.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Connections that ended for this reason since the start.
    #[must_use]
    pub fn failures(&self, failure: Failure) -> u64 {
        self.failed[failure as usize].load(Relaxed)
    }

    pub(super) fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    pub(super) fn closed(&self) {
        self.closed.fetch_add(1, Relaxed);
    }

    /// Logs why a client was refused, each kind of reason once in a while: whoever is refused chooses how often.
    pub(super) fn refused_client(&self, why: Refused, reason: &str) -> Failure {
        let now = log_clock();
        let logged = &self.refused_logged[why as usize];
        let last = logged.load(Relaxed);
        let due = last == 0 || now >= last + LOG_AGAIN_SECONDS;
        if due && logged.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            let reason = short_line(reason, MAX_REASON_CHARS);
            tracing::warn!(
                reason,
                "a client was refused for its certificate; others like it are counted only"
            );
        }
        Failure::ClientCertificate
    }

    pub(super) fn failed(&self, failure: Failure) {
        self.failed[failure as usize].fetch_add(1, Relaxed);
    }
}

impl Collector for ServeStats {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let open = ConstGauge::new(i64::try_from(self.open()).unwrap_or(i64::MAX));
        let help = "Webhook connections open now, handshakes included. Near the cap (256), look for clients that are not the API server";
        open.encode(encoder.encode_descriptor(
            "timeshard_open_connections",
            help,
            None,
            MetricType::Gauge,
        )?)?;

        let accepted = ConstCounter::new(self.accepted());
        let help = "Webhook connections accepted. About as many as requests: a proxy in between does not keep connections";
        accepted.encode(encoder.encode_descriptor(
            "timeshard_accepted_connections",
            help,
            None,
            MetricType::Counter,
        )?)?;

        let help = "Webhook connections that failed. certificate_rejected: the caBundle does not fit the certificate, \
                    compare both; client_certificate: the caller has none that --client-ca and --client-name allow, the log says why; \
                    accept: raise the file descriptor limit; others: find the client that is not the API server";
        let mut family = encoder.encode_descriptor(
            "timeshard_failed_connections",
            help,
            None,
            MetricType::Counter,
        )?;
        for failure in Failure::ALL {
            let count = ConstCounter::new(self.failures(failure));
            count.encode(family.encode_family(&[("reason", failure.reason())])?)?;
        }
        Ok(())
    }
}

/// Seconds since the first call, and one.
fn log_clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_own_counter() {
        for (place, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(
                failure as usize, place,
                "{failure:?} is out of order in ALL"
            );
        }
    }
}
