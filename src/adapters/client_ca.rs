//! Who may call the webhook: client certificates, verified against a bundle of CAs that is reloaded under running connections.
//!
//! Invariants: a bundle is parsed as a whole before it is used; a failed reload keeps the last good one, is counted, and is logged
//! once per distinct failure; a handshake does no I/O. A certificate counts by its CA, its time, and, where names are asked for,
//! by its common name or one of its DNS names. Connections that exist are left alone when the bundle changes.
//!
//! Deliberately absent: revocation lists. Short-lived certificates, or a CA for this purpose alone, are the remedy.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::dir_watch::DirWatch;
use super::tls::{Reload, TlsError, read_file};

/// Object identifier of the common name.
const COMMON_NAME: &str = "2.5.4.3";
/// Names of a certificate that a refusal shows; it may have thousands.
const MAX_SHOWN_NAMES: usize = 5;

/// The CAs and names that are allowed now.
#[derive(Debug)]
pub struct ClientCa {
    path: PathBuf,
    names: Vec<String>,
    trusted: ArcSwap<Trusted>,
    reloads: Mutex<Reloads>,
}

#[derive(Debug)]
struct Trusted {
    certificates: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

#[derive(Debug, Default)]
struct Reloads {
    swapped: u64,
    failed: u64,
    last_failure: Option<String>,
}

/// Why a certificate with a good signature is refused.
#[derive(Debug, thiserror::Error)]
#[error("its names are {has:?}, and --client-name asks for {wanted:?}")]
struct WrongName {
    has: Vec<String>,
    wanted: Vec<String>,
}

impl ClientCa {
    /// Loads a bundle of CA certificates. Of the certificates that these signed, those with one of `names` are allowed, or all of
    /// them where there is none.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(path: &Path, names: Vec<String>) -> Result<Arc<Self>, TlsError> {
        let trusted = ArcSwap::from_pointee(read(path)?);
        Ok(Arc::new(Self {
            path: path.to_owned(),
            names,
            trusted,
            reloads: Mutex::default(),
        }))
    }

    /// Follows the file for as long as this is polled: reloads on every change of its directory, and every `poll` besides.
    pub async fn follow(self: Arc<Self>, poll: Duration) {
        let dir = self
            .path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .to_owned();
        let mut watch = DirWatch::new(&dir, poll);
        loop {
            // Before the first wait too: the file may have changed between loading and watching.
            self.reload();
            watch.changed().await;
        }
    }

    /// Reads the file again and uses what it holds, if that is good.
    pub fn reload(&self) -> Reload {
        let loaded = read(&self.path);
        let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Ok(trusted) => {
                reloads.last_failure = None;
                if trusted.certificates == self.trusted.load().certificates {
                    return Reload::Unchanged;
                }
                reloads.swapped += 1;
                tracing::info!(
                    certificates = trusted.certificates.len(),
                    "using new CAs of clients"
                );
                self.trusted.store(Arc::new(trusted));
                Reload::Swapped
            }
            Err(error) => {
                reloads.failed += 1;
                let failure = error.to_string();
                if reloads.last_failure.as_ref() != Some(&failure) {
                    tracing::warn!(
                        error = failure,
                        "--client-ca not reloaded, the last good one is still used"
                    );
                    reloads.last_failure = Some(failure);
                }
                Reload::Kept
            }
        }
    }

    /// Why the last reload failed; `None` once one has succeeded.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.reloads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last_failure
            .clone()
    }

    /// How often other CAs were used, and how often a reload found none, since the start.
    #[must_use]
    pub fn reloads(&self) -> (u64, u64) {
        let reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        (reloads.swapped, reloads.failed)
    }
}

impl ClientCertVerifier for ClientCa {
    /// None: the bundle may change, and a client that is told no CA sends what it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified =
            self.trusted
                .load()
                .verifier
                .verify_client_cert(end_entity, intermediates, now)?;
        if self.names.is_empty() {
            return Ok(verified);
        }
        let mut has = names(end_entity).ok_or(CertificateError::BadEncoding)?;
        if has.iter().any(|name| self.names.contains(name)) {
            return Ok(verified);
        }
        has.truncate(MAX_SHOWN_NAMES);
        Err(CertificateError::Other(OtherError(Arc::new(WrongName {
            has,
            wanted: self.names.clone(),
        })))
        .into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted
            .load()
            .verifier
            .verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted
            .load()
            .verifier
            .verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.load().verifier.supported_verify_schemes()
    }
}

/// Its reloads as metrics; zero without one.
#[derive(Debug)]
pub struct ClientCaMetrics(pub Option<Arc<ClientCa>>);

impl Collector for ClientCaMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let (swapped, failed) = self
            .0
            .as_ref()
            .map_or((0, 0), |client_ca| client_ca.reloads());
        let help = "Reloads of --client-ca. failed: the file holds no CA certificates, the last good ones are used; the log says why";
        let mut family = encoder.encode_descriptor(
            "timeshard_client_ca_reloads",
            help,
            None,
            MetricType::Counter,
        )?;
        for (result, count) in [("ok", swapped), ("failed", failed)] {
            ConstCounter::new(count).encode(family.encode_family(&[("result", result)])?)?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Trusted, TlsError> {
    let content = read_file(
        path,
        path,
        "it must hold the CA certificates that sign clients, as PEM",
    )?;
    let not_pem = |reason: String| TlsError::Pem {
        path: path.to_owned(),
        wanted: "certificate",
        reason,
    };
    let certificates = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(error.to_string()))?;
    if certificates.is_empty() {
        return Err(not_pem("no certificate in it".to_owned()));
    }
    let mut roots = RootCertStore::empty();
    for (place, certificate) in (1..).zip(&certificates) {
        let unusable = |error: rustls::Error| TlsError::Authority {
            path: path.to_owned(),
            place,
            reason: error.to_string(),
        };
        roots.add(certificate.clone()).map_err(unusable)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(ring::default_provider()),
    )
    .build()
    .map_err(|error| TlsError::Authority {
        path: path.to_owned(),
        place: 1,
        reason: error.to_string(),
    })?;
    Ok(Trusted {
        certificates,
        verifier,
    })
}

/// The common names and DNS names of a certificate; `None` if it is none.
fn names(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let certificate = x509_cert::Certificate::from_der(certificate)
        .ok()?
        .tbs_certificate;
    let attributes = certificate
        .subject
        .0
        .iter()
        .flat_map(|relative| relative.0.iter());
    let common = attributes
        .filter(|attribute| attribute.oid.to_string() == COMMON_NAME)
        .filter_map(|attribute| {
            let value = &attribute.value;
            let utf8 = value
                .decode_as::<Utf8StringRef<'_>>()
                .map(|text| text.as_str().to_owned());
            let printable = || {
                value
                    .decode_as::<PrintableStringRef<'_>>()
                    .map(|text| text.as_str().to_owned())
            };
            let ia5 = || {
                value
                    .decode_as::<Ia5StringRef<'_>>()
                    .map(|text| text.as_str().to_owned())
            };
            utf8.or_else(|_| printable()).or_else(|_| ia5()).ok()
        });
    let mut names: Vec<String> = common.collect();
    if let Some((_, SubjectAltName(alternatives))) = certificate.get().ok()? {
        names.extend(alternatives.into_iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
            _ => None,
        }));
    }
    Some(names)
}
