//! The serving certificate: loaded from a directory or from memory, swapped under running
//! connections. There may be none yet: every handshake fails then, and readiness checks
//! `is_loaded`.
//!
//! Invariants: a pair is validated before it is published ([`Reloaded`]), so a handshake never
//! meets a half-rotated one; a handshake does no I/O and parses nothing.
//!
//! Deliberately absent: verifying clients (`client_ca`), session tickets (the API server's client
//! never resumes, so writing them is pure cost), any crypto provider but ring, and issuing
//! certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::Decode;

use super::client_ca::ClientCa;
use super::pem_file::{self, TlsError};
use crate::adapters::dir_watch::DirWatch;
use crate::adapters::reload::{ReloadCounts, ReloadResult, Reloaded};

/// Certificate chain in a `kubernetes.io/tls` Secret, leaf first.
pub const CERT_FILE: &str = "tls.crt";
/// Private key in a `kubernetes.io/tls` Secret.
pub const KEY_FILE: &str = "tls.key";
const REMEDY: &str =
    "the directory must hold tls.crt and tls.key, as a mounted kubernetes.io/tls Secret does";
/// How often a read is tried when kubelet swaps the directory under it.
const READ_ATTEMPTS: u32 = 3;

/// Settings of a port that speaks TLS.
pub type TlsSettings = ServerConfig;

/// A validated pair.
#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    not_after_unix_seconds: i64,
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }
}

/// The pair that is served. Handshakes read it, reloads replace it.
#[derive(Debug)]
pub struct Certificates {
    pair: Reloaded<Option<Pair>>,
    /// 0 if unknown.
    authority_not_after_unix_seconds: AtomicI64,
}

impl Certificates {
    /// Loads `tls.crt` and `tls.key` from a directory.
    ///
    /// # Errors
    /// Names the file and the problem.
    pub fn load_dir(dir: &Path) -> Result<Arc<Self>, TlsError> {
        Ok(Self::new(Some(read_dir(dir)?)))
    }

    /// Parses a chain (leaf first) and its key, as PEM text.
    ///
    /// # Errors
    /// Names the problem.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Arc<Self>, TlsError> {
        Ok(Self::new(Some(parse_memory(chain, key)?)))
    }

    /// Nothing to serve yet.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Self::new(None)
    }

    fn new(pair: Option<Pair>) -> Arc<Self> {
        Arc::new(Self {
            pair: Reloaded::new("certificate", pair),
            authority_not_after_unix_seconds: AtomicI64::new(0),
        })
    }

    /// Returns the acceptor's settings: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, this certificate.
    /// Build it once and share it.
    ///
    /// # Errors
    /// When rustls refuses its own defaults.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        self.server_config_for(None)
    }

    /// As [`Certificates::server_config`], for clients whose certificate these CAs signed.
    ///
    /// # Errors
    /// When rustls refuses its own defaults.
    pub fn server_config_for(
        self: &Arc<Self>,
        clients: Option<Arc<ClientCa>>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let verifier = clients.map_or_else(WebPkiClientVerifier::no_client_auth, |clients| {
            clients as Arc<dyn ClientCertVerifier>
        });
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    /// Reads the directory again and serves its pair, if it is a good one.
    pub fn reload_dir(&self, dir: &Path) -> ReloadResult {
        self.publish(read_dir(dir))
    }

    /// Serves another pair, if it is a good one.
    pub fn reload_pem(&self, chain: &[u8], key: &[u8]) -> ReloadResult {
        self.publish(parse_memory(chain, key))
    }

    fn publish(&self, loaded: Result<Pair, TlsError>) -> ReloadResult {
        let result = self.pair.publish(loaded.map(Some));
        if result == ReloadResult::Swapped {
            let not_after_unix_seconds = self.not_after_unix_seconds();
            tracing::info!(not_after_unix_seconds, "serving a new certificate");
        }
        result
    }

    /// Counts a failed reload, and logs it if it differs from the last failure. The last good pair
    /// is still served.
    pub fn refuse(&self, failure: &str) {
        self.pair.refuse(failure);
    }

    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.pair.current().is_some()
    }

    /// Sets when the CA expires, in seconds since 1970.
    pub fn set_authority(&self, not_after_unix_seconds: i64) {
        self.authority_not_after_unix_seconds
            .store(not_after_unix_seconds, Relaxed);
    }

    /// Reloads on every change of the directory, and every `poll`, because a notification can be
    /// lost.
    pub async fn follow(self: Arc<Self>, dir: PathBuf, poll: Duration) {
        let watch = DirWatch::new(&dir, poll);
        watch
            .follow(|| {
                self.reload_dir(&dir);
            })
            .await;
    }

    /// Returns when the served certificate expires, in seconds since 1970; 0 without one.
    #[must_use]
    pub fn not_after_unix_seconds(&self) -> i64 {
        let pair = self.pair.current();
        pair.as_ref()
            .as_ref()
            .map_or(0, |pair| pair.not_after_unix_seconds)
    }

    /// Checks that the served certificate has not expired. The API server refuses an expired one,
    /// so it should call another replica, which may have read the renewed one.
    ///
    /// # Errors
    /// A sentence with the time and the remedy.
    pub fn in_time(&self, now: DateTime<Utc>) -> Result<(), String> {
        let end = self.not_after_unix_seconds();
        if end == 0 || now.timestamp() <= end {
            return Ok(());
        }
        let end = DateTime::from_timestamp(end, 0).map_or_else(
            || end.to_string(),
            |end| end.to_rfc3339_opts(SecondsFormat::Secs, true),
        );
        Err(format!(
            "the serving certificate expired at {end}, so the API server refuses it: renew the Secret; it is read again when it changes"
        ))
    }

    #[must_use]
    pub fn reloads(&self) -> ReloadCounts {
        self.pair.counts()
    }

    /// Returns the error of the last reload; `None` once one has succeeded.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.pair.last_failure()
    }
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let help = "When the served certificate (leaf) expires, and with --self-signed its CA, as a Unix time. Less than a day ahead: \
                    check the issuer (cert-manager, or /status) and failed reloads, since admission fails after it";
        let seconds = Unit::Seconds;
        let mut family = encoder.encode_descriptor(
            "timeshard_certificate_expiry_timestamp",
            help,
            Some(&seconds),
            MetricType::Gauge,
        )?;
        let authority = self.authority_not_after_unix_seconds.load(Relaxed);
        for (certificate, not_after) in [("leaf", self.not_after_unix_seconds()), ("ca", authority)]
        {
            // No certificate yet, or the CA of a mounted Secret, which is unknown.
            if not_after != 0 {
                ConstGauge::new(not_after)
                    .encode(family.encode_family(&[("certificate", certificate)])?)?;
            }
        }

        let help = "Certificate reloads. failed: the directory holds no matching pair, the last good one is served; the log names the file";
        self.reloads()
            .encode(&mut encoder, "timeshard_certificate_reloads", help)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pair = self.pair.current();
        pair.as_ref().as_ref().map(|pair| Arc::clone(&pair.key))
    }
}

/// Reads both files of one generation.
///
/// kubelet swaps the `..data` link: reading through it file by file could mix two generations, so
/// the link is resolved once. kubelet removes the old generation right after the swap, hence the
/// second attempt.
fn read_dir(dir: &Path) -> Result<Pair, TlsError> {
    let mut attempt = 1;
    loop {
        let generation =
            std::fs::canonicalize(dir.join("..data")).unwrap_or_else(|_| dir.to_path_buf());
        match read_pair(&generation, dir) {
            Err(_) if attempt < READ_ATTEMPTS && is_replaced(dir, &generation) => attempt += 1,
            result => return result,
        }
    }
}

fn is_replaced(dir: &Path, generation: &Path) -> bool {
    std::fs::canonicalize(dir.join("..data")).is_ok_and(|now| now != generation)
}

/// Reads from `generation`; errors name the path under `shown`, which the user configured.
fn read_pair(generation: &Path, shown: &Path) -> Result<Pair, TlsError> {
    let (cert_path, key_path) = (shown.join(CERT_FILE), shown.join(KEY_FILE));
    let chain = pem_file::read(&generation.join(CERT_FILE), &cert_path, REMEDY)?;
    let key = pem_file::read(&generation.join(KEY_FILE), &key_path, REMEDY)?;
    parse(&chain, &cert_path, &key, &key_path)
}

fn parse_memory(chain: &[u8], key: &[u8]) -> Result<Pair, TlsError> {
    parse(chain, Path::new(CERT_FILE), key, Path::new(KEY_FILE))
}

fn parse(chain: &[u8], chain_path: &Path, key: &[u8], key_path: &Path) -> Result<Pair, TlsError> {
    let chain = pem_file::certificates(chain, chain_path)?;
    let not_after_unix_seconds = not_after(&chain[0], chain_path)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|reason| TlsError::Pem {
        path: key_path.to_path_buf(),
        wanted: "private key",
        reason,
    })?;
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|reason| {
        TlsError::Pair {
            path: key_path.to_path_buf(),
            cert_file: CERT_FILE,
            reason,
        }
    })?;
    Ok(Pair {
        key: Arc::new(key),
        not_after_unix_seconds,
    })
}

fn not_after(leaf: &CertificateDer<'_>, path: &Path) -> Result<i64, TlsError> {
    let invalid = |reason: String| TlsError::Certificate {
        path: path.to_path_buf(),
        reason,
    };
    let parsed =
        x509_cert::Certificate::from_der(leaf).map_err(|error| invalid(error.to_string()))?;
    let seconds = parsed
        .tbs_certificate
        .validity
        .not_after
        .to_unix_duration()
        .as_secs();
    i64::try_from(seconds).map_err(|error| invalid(error.to_string()))
}
