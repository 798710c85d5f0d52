//! Client certificates: who may call the webhook, verified against a bundle of CAs that is reloaded
//! under running connections.
//!
//! Invariants: a whole bundle is validated before it is used ([`Reloaded`]); a handshake does no
//! I/O. A certificate is accepted for its CA, its validity and, where names are configured, its
//! common name or one of its DNS names. A new bundle does not close existing connections.
//!
//! Deliberately absent: revocation lists. Use short-lived certificates, or a CA for this purpose
//! alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::pem_file::{self, TlsError};
use crate::adapters::dir_watch::DirWatch;
use crate::adapters::reload::{ReloadCounts, ReloadResult, Reloaded};

/// Object identifier of the common name.
const COMMON_NAME: &str = "2.5.4.3";
/// Names of a certificate that a refusal shows; it may have thousands.
const MAX_SHOWN_NAMES: usize = 5;

/// The trusted CAs and the accepted names.
#[derive(Debug)]
pub struct ClientCa {
    path: PathBuf,
    names: Vec<String>,
    trusted: Reloaded<Trusted>,
}

#[derive(Debug)]
struct Trusted {
    certificates: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl PartialEq for Trusted {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

/// Why a certificate of a trusted CA is refused.
#[derive(Debug, thiserror::Error)]
#[error("its names are {has:?}, and --client-name asks for {wanted:?}")]
struct WrongName {
    has: Vec<String>,
    wanted: Vec<String>,
}

impl ClientCa {
    /// Loads a bundle of CA certificates. Client certificates need one of `names`; an empty list
    /// accepts all that the CAs signed.
    ///
    /// # Errors
    /// Names the file and the problem.
    pub fn load(path: &Path, names: Vec<String>) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self {
            path: path.to_owned(),
            names,
            trusted: Reloaded::new("--client-ca", read(path)?),
        }))
    }

    /// Reloads on every change of the file's directory, and every `poll`.
    pub async fn follow(self: Arc<Self>, poll: Duration) {
        let watch = DirWatch::of_file(&self.path, poll);
        watch
            .follow(|| {
                self.reload();
            })
            .await;
    }

    pub fn reload(&self) -> ReloadResult {
        let result = self.trusted.publish(read(&self.path));
        if result == ReloadResult::Swapped {
            let certificates = self.trusted.current().certificates.len();
            tracing::info!(certificates, "using new CAs of clients");
        }
        result
    }

    /// Returns the error of the last reload; `None` once one has succeeded.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.trusted.last_failure()
    }

    #[must_use]
    pub fn reloads(&self) -> ReloadCounts {
        self.trusted.counts()
    }
}

impl ClientCertVerifier for ClientCa {
    /// None: the bundle may change, and a client without a hint sends the certificate it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let trusted = self.trusted.current();
        let verified = trusted
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
        let trusted = self.trusted.current();
        trusted.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let trusted = self.trusted.current();
        trusted.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.current().verifier.supported_verify_schemes()
    }
}

/// Reloads as metrics; zero without a bundle.
#[derive(Debug)]
pub struct ClientCaMetrics(pub Option<Arc<ClientCa>>);

impl Collector for ClientCaMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let counts = self
            .0
            .as_ref()
            .map_or_else(Default::default, |ca| ca.reloads());
        let help = "Reloads of --client-ca. failed: the file holds no CA certificates, the last good ones stay in use; the log names the problem";
        counts.encode(&mut encoder, "timeshard_client_ca_reloads", help)
    }
}

fn read(path: &Path) -> Result<Trusted, TlsError> {
    let remedy = "it must hold the CA certificates that sign clients, as PEM";
    let content = pem_file::read(path, path, remedy)?;
    let certificates = pem_file::certificates(&content, path)?;
    let unusable = |place: usize, reason: String| TlsError::Authority {
        path: path.to_owned(),
        place,
        reason,
    };
    let mut roots = RootCertStore::empty();
    for (place, certificate) in (1..).zip(&certificates) {
        roots
            .add(certificate.clone())
            .map_err(|error| unusable(place, error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(ring::default_provider()),
    )
    .build()
    .map_err(|error| unusable(1, error.to_string()))?;
    Ok(Trusted {
        certificates,
        verifier,
    })
}

/// Returns the common names and DNS names; `None` if the certificate cannot be parsed.
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
                .decode_as()
                .map(|text: Utf8StringRef<'_>| text.to_string());
            let printable = || {
                value
                    .decode_as()
                    .map(|text: PrintableStringRef<'_>| text.to_string())
            };
            let ia5 = || {
                value
                    .decode_as()
                    .map(|text: Ia5StringRef<'_>| text.to_string())
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
