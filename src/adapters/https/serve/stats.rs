//! The counters of the accept loop, as Prometheus metrics.
//!
//! Invariant: labels are the variants of [`ConnectionFailure`], so a peer cannot grow the number of
//! series.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::core::model::text::short_line;

macro_rules! connection_failures {
    ($($(#[$doc:meta])* $name:ident = $reason:literal,)*) => {
        /// Why a connection failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ConnectionFailure { $($(#[$doc])* $name,)* }

        impl ConnectionFailure {
            /// In the order of the counters.
            pub const ALL: [Self; [$($reason),*].len()] = [$(Self::$name),*];

            /// Returns the value of the metric's `reason` label.
            #[must_use]
            pub fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)* }
            }
        }
    };
}

connection_failures! {
    /// No handshake within the limit.
    HandshakeTimeout = "handshake_timeout",
    /// The peer left during the handshake: a TCP health check, a port scan.
    HandshakeGone = "handshake_gone",
    /// A plain HTTP request on the TLS port.
    PlainHttp = "plain_http",
    /// Bytes that are not TLS.
    NotTls = "not_tls",
    /// The peer does not trust the certificate.
    CertificateRejected = "certificate_rejected",
    /// No common version or cipher, or another TLS error.
    Tls = "tls",
    /// The request headers did not end within the limit.
    HeaderTimeout = "header_timeout",
    /// A request stopped half-way.
    Stalled = "stalled",
    /// Closed to make room for another peer, or to free what it held.
    Evicted = "evicted",
    /// The peer did not read its answer.
    Unread = "unread",
    /// No client certificate, or none that `--client-ca` and `--client-name` accept.
    ClientCertificate = "client_certificate",
    /// No place was free within the limit: every other connection was in use.
    NoPlace = "no_place",
    /// The system would not accept a connection, for example for lack of file descriptors.
    Accept = "accept",
}

/// Counters of one port. Register an `Arc` of it: the values are read at scrape time.
#[derive(Debug, Default)]
pub struct ServeStats {
    opened: AtomicU64,
    closed: AtomicU64,
    failed: [AtomicU64; ConnectionFailure::ALL.len()],
    /// When each kind of refused client was last logged, by [`log_clock`]; 0 for never.
    refused_logged: [AtomicU64; RefusedReason::COUNT],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusedReason {
    /// No certificate.
    Without,
    /// Signed by another CA.
    Authority,
    /// Another name.
    Name,
    /// Expired, or otherwise invalid.
    Invalid,
}

impl RefusedReason {
    const COUNT: usize = 4;
}

/// The limit of a logged reason.
const MAX_REASON_CHARS: usize = 300;
/// The shortest time between two log lines of a kind.
const LOG_AGAIN_SECONDS: u64 = 600;

impl ServeStats {
    /// Connections open now, including handshakes.
    #[must_use]
    pub fn open(&self) -> u64 {
        let closed = self.closed.load(Relaxed);
        self.opened.load(Relaxed).saturating_sub(closed)
    }

    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    #[must_use]
    pub fn failures(&self, failure: ConnectionFailure) -> u64 {
        self.failed[failure as usize].load(Relaxed)
    }

    pub(super) fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    pub(super) fn closed(&self) {
        self.closed.fetch_add(1, Relaxed);
    }

    /// Logs why a client was refused, at a limited rate per kind: clients choose how often they are
    /// refused.
    pub(super) fn refused_client(&self, why: RefusedReason, reason: &str) -> ConnectionFailure {
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
        ConnectionFailure::ClientCertificate
    }

    pub(super) fn failed(&self, failure: ConnectionFailure) {
        self.failed[failure as usize].fetch_add(1, Relaxed);
    }
}

impl Collector for ServeStats {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let open = ConstGauge::new(i64::try_from(self.open()).unwrap_or(i64::MAX));
        let help = "Open webhook connections, including handshakes. Near the limit (256): find clients that are not the API server";
        open.encode(encoder.encode_descriptor(
            "timeshard_open_connections",
            help,
            None,
            MetricType::Gauge,
        )?)?;

        let accepted = ConstCounter::new(self.accepted());
        let help = "Accepted webhook connections. About as many as requests: a proxy in between does not keep connections";
        accepted.encode(encoder.encode_descriptor(
            "timeshard_accepted_connections",
            help,
            None,
            MetricType::Counter,
        )?)?;

        let help = "Webhook connections that failed. certificate_rejected: the caBundle does not match the certificate, \
                    compare both; client_certificate: the caller has none that --client-ca and --client-name accept, the log names the reason; \
                    accept: raise the file descriptor limit; others: find the client that is not the API server";
        let mut family = encoder.encode_descriptor(
            "timeshard_failed_connections",
            help,
            None,
            MetricType::Counter,
        )?;
        for failure in ConnectionFailure::ALL {
            let count = ConstCounter::new(self.failures(failure));
            count.encode(family.encode_family(&[("reason", failure.reason())])?)?;
        }
        Ok(())
    }
}

/// Returns the seconds since the first call, plus one.
fn log_clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs() + 1
}
