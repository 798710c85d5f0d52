//! The serving certificate: loaded from a directory or from memory, swapped under running connections. There may be none yet:
//! every handshake fails then, and whoever asks learns it from `is_loaded`.
//!
//! Invariants: a pair is parsed and checked before it is published, so a handshake never meets a half-rotated one; a
//! failed reload keeps the last good pair, is counted, and is logged once per distinct failure; a handshake does no
//! I/O and parses nothing (one atomic load).
//!
//! Deliberately absent: verifying clients (`client_ca`), session
//! tickets (the API server's client never resumes, so writing them is pure cost), any crypto provider but ring, and
//! issuing certificates.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use chrono::{DateTime, SecondsFormat, Utc};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::Decode;

use super::client_ca::ClientCa;
use super::dir_watch::DirWatch;

/// Certificate chain in a `kubernetes.io/tls` Secret, leaf first.
pub const CERT_FILE: &str = "tls.crt";
/// Private key in a `kubernetes.io/tls` Secret.
pub const KEY_FILE: &str = "tls.key";
/// Largest certificate or key file that is read, in bytes (a Secret holds 1 MiB at most).
pub const FILE_LIMIT_BYTES: u64 = 1 << 20;
/// What the directory should be.
const SHOULD: &str =
    "the directory must hold tls.crt and tls.key, as a mounted kubernetes.io/tls Secret does";
/// How often a read is repeated when the directory was swapped under it.
const READ_ATTEMPTS: u32 = 3;

/// Settings of a port that speaks TLS.
pub type TlsSettings = ServerConfig;

/// Why a certificate pair was refused.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}; {should}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What would be right.
        should: &'static str,
    },
    /// A file is larger than [`FILE_LIMIT_BYTES`].
    #[error("{path} is larger than {FILE_LIMIT_BYTES} bytes; it should hold PEM text")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not PEM, or PEM of something else.
    #[error("{path} holds no {wanted}: {reason}; it must be PEM, beginning with -----BEGIN")]
    Pem {
        /// The file, or what stands for it.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// The leaf is not an X.509 certificate.
    #[error("{path}: the first certificate is not valid X.509: {reason}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// The key cannot be used, or belongs to another certificate.
    #[error(
        "{path} does not fit the certificate in {CERT_FILE}: {reason}; a pair that is being renewed file by file looks like this"
    )]
    Pair {
        /// The key file.
        path: PathBuf,
        /// What rustls said.
        reason: rustls::Error,
    },
    /// A certificate of a bundle cannot be a CA.
    #[error("{path}: certificate {place} of the bundle cannot be used as a CA: {reason}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Its place in the file, from 1.
        place: usize,
        /// What rustls said.
        reason: String,
    },
    /// The TLS settings themselves were refused.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// One checked pair.
#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    not_after_unix_seconds: i64,
}

/// What a reload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The files hold what is already served.
    Unchanged,
    /// A new pair is served from now on.
    Swapped,
    /// The files hold no good pair; the last good one is still served.
    Kept,
}

/// The pair that is served now. Handshakes read it, reloads replace it.
#[derive(Debug)]
pub struct Certificates {
    current: ArcSwapOption<CertifiedKey>,
    not_after_unix_seconds: AtomicI64,
    /// Of the CA, where it is known; else 0.
    authority_not_after_unix_seconds: AtomicI64,
    swapped: AtomicU64,
    failed: AtomicU64,
    last_failure: Mutex<Option<String>>,
}

impl Certificates {
    /// Loads `tls.crt` and `tls.key` from a directory.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load_dir(dir: &Path) -> Result<Arc<Self>, TlsError> {
        read_dir(dir).map(Self::new)
    }

    /// Takes a chain (leaf first) and its key as PEM text.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Arc<Self>, TlsError> {
        parse(chain, Path::new(CERT_FILE), key, Path::new(KEY_FILE)).map(Self::new)
    }

    /// Nothing to serve yet.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Self::start(None, 0)
    }

    fn new(pair: Pair) -> Arc<Self> {
        Self::start(Some(pair.key), pair.not_after_unix_seconds)
    }

    fn start(key: Option<Arc<CertifiedKey>>, not_after_unix_seconds: i64) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwapOption::new(key),
            not_after_unix_seconds: AtomicI64::new(not_after_unix_seconds),
            authority_not_after_unix_seconds: AtomicI64::new(0),
            swapped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_failure: Mutex::new(None),
        })
    }

    /// Settings for the acceptor: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, this certificate. Build it once and share it.
    ///
    /// # Errors
    /// When rustls refuses its own defaults.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        self.server_config_for(None)
    }

    /// The same, for clients alone whose certificate these CAs signed.
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

    /// Reads the directory again and serves what it holds, if that is a good pair.
    pub fn reload_dir(&self, dir: &Path) -> Reload {
        self.publish(read_dir(dir))
    }

    /// Serves another pair from now on, if it is a good one.
    pub fn reload_pem(&self, chain: &[u8], key: &[u8]) -> Reload {
        self.publish(parse(chain, Path::new(CERT_FILE), key, Path::new(KEY_FILE)))
    }

    fn publish(&self, loaded: Result<Pair, TlsError>) -> Reload {
        let mut last = self
            .last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Ok(pair)
                if self
                    .current
                    .load()
                    .as_ref()
                    .is_some_and(|current| pair.key.cert == current.cert) =>
            {
                *last = None;
                Reload::Unchanged
            }
            Ok(pair) => {
                *last = None;
                self.not_after_unix_seconds
                    .store(pair.not_after_unix_seconds, Relaxed);
                self.current.store(Some(pair.key));
                self.swapped.fetch_add(1, Relaxed);
                tracing::info!(
                    not_after_unix_seconds = pair.not_after_unix_seconds,
                    "serving a new certificate"
                );
                Reload::Swapped
            }
            Err(error) => {
                drop(last);
                self.refuse(&error.to_string());
                Reload::Kept
            }
        }
    }

    /// What was found is no good pair: counted, and logged if it is news. The last good one is still served.
    pub fn refuse(&self, failure: &str) {
        self.failed.fetch_add(1, Relaxed);
        let mut last = self
            .last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() != Some(failure) {
            tracing::warn!(
                error = failure,
                "certificate not reloaded, the last good one is still served"
            );
            *last = Some(failure.to_owned());
        }
    }

    /// Whether there is a certificate to serve.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.current.load().is_some()
    }

    /// Tells when the CA stops being valid, in seconds since 1970.
    pub fn set_authority(&self, not_after_unix_seconds: i64) {
        self.authority_not_after_unix_seconds
            .store(not_after_unix_seconds, Relaxed);
    }

    /// Follows the directory for as long as it is polled: reloads on every change that the watch sees, and every
    /// `poll` besides, because a notification can be lost.
    pub async fn follow(self: Arc<Self>, dir: PathBuf, poll: Duration) {
        let mut watch = DirWatch::new(&dir, poll);
        loop {
            // Before the first wait too: the files may have changed between loading and watching.
            self.reload_dir(&dir);
            watch.changed().await;
        }
    }

    /// When the served certificate stops being valid, in seconds since 1970.
    #[must_use]
    pub fn not_after_unix_seconds(&self) -> i64 {
        self.not_after_unix_seconds.load(Relaxed)
    }

    /// Whether the served certificate is still valid. The API server refuses one that has expired, so another replica, which has read
    /// the renewed one, should be asked instead.
    ///
    /// # Errors
    /// A sentence.
    pub fn in_time(&self, now: DateTime<Utc>) -> Result<(), String> {
        let end = self.not_after_unix_seconds();
        // 0 is none yet, with --self-signed.
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

    /// How often another pair was published since the start.
    #[must_use]
    pub fn reloads(&self) -> u64 {
        self.swapped.load(Relaxed)
    }

    /// How often a reload found no good pair since the start.
    #[must_use]
    pub fn failed_reloads(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Why the last reload failed; `None` once one has succeeded.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let help = "When the served certificate (leaf) expires, and with --self-signed its CA, as a Unix time. Less than a day ahead: \
                    look at the issuer (cert-manager, or /status) and at failed reloads, since admission fails after it";
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
            // There may be none yet, and of a mounted Secret's CA nothing is known.
            if not_after != 0 {
                ConstGauge::new(not_after)
                    .encode(family.encode_family(&[("certificate", certificate)])?)?;
            }
        }

        let help = "Certificate reloads. failed: the directory holds no matching pair, the last good one is served; the log names the file";
        let mut family = encoder.encode_descriptor(
            "timeshard_certificate_reloads",
            help,
            None,
            MetricType::Counter,
        )?;
        for (result, count) in [("ok", self.reloads()), ("failed", self.failed_reloads())] {
            ConstCounter::new(count).encode(family.encode_family(&[("result", result)])?)?;
        }
        Ok(())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

/// Reads both files of one generation.
///
/// kubelet swaps the `..data` link: reading through it file by file could mix two generations, so it is resolved once.
/// kubelet removes the old generation right after the swap, hence the second attempt.
fn read_dir(dir: &Path) -> Result<Pair, TlsError> {
    let mut attempt = 1;
    loop {
        let generation =
            std::fs::canonicalize(dir.join("..data")).unwrap_or_else(|_| dir.to_path_buf());
        match read_pair(&generation, dir) {
            Err(_) if attempt < READ_ATTEMPTS && moved_on(dir, &generation) => attempt += 1,
            result => return result,
        }
    }
}

fn moved_on(dir: &Path, generation: &Path) -> bool {
    std::fs::canonicalize(dir.join("..data")).is_ok_and(|now| now != generation)
}

/// Reads from `generation`; errors name the path under `shown`, which is the one the user knows.
fn read_pair(generation: &Path, shown: &Path) -> Result<Pair, TlsError> {
    let (cert_path, key_path) = (shown.join(CERT_FILE), shown.join(KEY_FILE));
    let chain = read_file(&generation.join(CERT_FILE), &cert_path, SHOULD)?;
    let key = read_file(&generation.join(KEY_FILE), &key_path, SHOULD)?;
    parse(&chain, &cert_path, &key, &key_path)
}

/// Reads a file of limited size; errors name `shown` and what should be there.
pub(super) fn read_file(
    path: &Path,
    shown: &Path,
    should: &'static str,
) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read {
        path: shown.to_path_buf(),
        source,
        should,
    };
    let mut content = Vec::new();
    File::open(path)
        .map_err(failed)?
        .take(FILE_LIMIT_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() as u64 > FILE_LIMIT_BYTES {
        return Err(TlsError::TooLarge {
            path: shown.to_path_buf(),
        });
    }
    Ok(content)
}

fn parse(chain: &[u8], chain_path: &Path, key: &[u8], key_path: &Path) -> Result<Pair, TlsError> {
    let not_pem = |path: &Path, wanted, error: pem::Error| TlsError::Pem {
        path: path.to_path_buf(),
        wanted,
        reason: error.to_string(),
    };
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(chain_path, "certificate", error))?;
    let leaf = chain
        .first()
        .ok_or_else(|| not_pem(chain_path, "certificate", pem::Error::NoItemsFound))?;
    let not_after_unix_seconds = not_after(leaf, chain_path)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| not_pem(key_path, "private key", error))?;
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|reason| {
        TlsError::Pair {
            path: key_path.to_path_buf(),
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
