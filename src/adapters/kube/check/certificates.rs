//! Certificates as the API server verifies them: of the caBundle, of a server, of a Secret.
//!
//! The handshake accepts any certificate, to verify it afterwards; nothing is sent over the
//! connection.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_cert::der::Decode as _;

use crate::core::check::{Certificate, Trouble};

/// Deadline of a handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);

/// The authorities that the API server trusts.
pub(super) struct Bundle {
    authorities: Vec<CertificateDer<'static>>,
    /// Subject and end of validity of each.
    pub(super) ends: Vec<(String, i64)>,
}

pub(super) fn bundle(base64: &str) -> Result<Bundle, String> {
    if base64.is_empty() {
        return Err("it is empty".to_owned());
    }
    let pem = STANDARD
        .decode(base64)
        .map_err(|error| format!("not base64: {error}"))?;
    let authorities = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("not PEM: {error}"))?;
    if authorities.is_empty() {
        return Err("it holds no certificate in PEM".to_owned());
    }
    let ends = authorities
        .iter()
        .map(|der| validity(der).map(|(subject, _, end)| (subject, end)))
        .collect::<Result<_, _>>()?;
    Ok(Bundle { authorities, ends })
}

/// The certificates of a `tls.crt`, base64-encoded as in a Secret.
pub(super) fn chain(base64: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = STANDARD
        .decode(base64)
        .map_err(|error| format!("not base64: {error}"))?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("not PEM: {error}"))
}

/// Subject, and begin and end of validity in seconds since the epoch.
fn validity(der: &CertificateDer<'_>) -> Result<(String, i64, i64), String> {
    let parsed = x509_cert::Certificate::from_der(der)
        .map_err(|error| format!("not X.509: {error}"))?
        .tbs_certificate;
    let seconds = |time: x509_cert::time::Time| {
        i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
    };
    Ok((
        parsed.subject.to_string(),
        seconds(parsed.validity.not_before),
        seconds(parsed.validity.not_after),
    ))
}

/// Verifies a chain, leaf first, as the API server does at `now`.
pub(super) fn verify(
    from: String,
    chain: &[CertificateDer<'static>],
    bundle: &Bundle,
    name: &str,
    now: i64,
) -> Result<Certificate, String> {
    let (leaf, rest) = chain
        .split_first()
        .ok_or_else(|| format!("{from} holds no certificate in PEM"))?;
    let (_, begin, not_after) = validity(leaf).map_err(|why| format!("{from}: {why}"))?;
    // The API server also checks the validity of authorities, which webpki leaves to its caller.
    let mut roots = RootCertStore::empty();
    let valid = bundle
        .authorities
        .iter()
        .zip(&bundle.ends)
        .filter(|(_, (_, end))| *end > now);
    roots.add_parsable_certificates(valid.map(|(authority, _)| authority.clone()));
    let trouble = if now > not_after {
        Some(Trouble::Expired)
    } else if now < begin {
        Some(Trouble::NotYetValid)
    } else if roots.is_empty() {
        Some(Trouble::UnknownIssuer)
    } else {
        trouble(
            leaf,
            rest,
            bundle.authorities.contains(leaf),
            roots,
            name,
            now,
        )
    };
    Ok(Certificate {
        from,
        not_after,
        trouble,
    })
}

/// `own`: the leaf is itself one of the authorities.
fn trouble(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    own: bool,
    roots: RootCertStore,
    name: &str,
    now: i64,
) -> Option<Trouble> {
    let other = |why: &dyn std::fmt::Display| Some(Trouble::Other(why.to_string()));
    let verifier = match WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(ring::default_provider()),
    )
    .build()
    {
        Ok(verifier) => verifier,
        Err(error) => return other(&error),
    };
    let name = match ServerName::try_from(name) {
        Ok(name) => name,
        Err(error) => return other(&error),
    };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
    let why = match verifier.verify_server_cert(leaf, rest, &name, &[], now) {
        Ok(_) => return None,
        // The API server trusts a certificate that is its own authority; webpki does not.
        Err(error) if format!("{error:?}").contains("CaUsedAsEndEntity") => {
            match own.then(|| ParsedCertificate::try_from(leaf)) {
                None => return Some(Trouble::UnknownIssuer),
                Some(Err(error)) => error,
                Some(Ok(parsed)) => match verify_server_name(&parsed, &name) {
                    Ok(()) => return None,
                    Err(error) => error,
                },
            }
        }
        Err(error) => error,
    };
    Some(match why {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Trouble::UnknownIssuer
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Trouble::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Trouble::NotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Trouble::OtherName
            }
            why => Trouble::Other(format!("{why:?}")),
        },
        why => Trouble::Other(why.to_string()),
    })
}

/// The certificates that a server shows for `name`.
pub(super) async fn shown(
    address: &str,
    port: u16,
    name: &str,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let handshake = async {
        let stream = TcpStream::connect((address, port))
            .await
            .map_err(|error| error.to_string())?;
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| error.to_string())?;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(chain.iter().map(|der| der.clone().into_owned()).collect())
    };
    let late = |_| {
        Err(format!(
            "no answer within {} s",
            HANDSHAKE_DEADLINE.as_secs()
        ))
    };
    timeout(HANDSHAKE_DEADLINE, handshake)
        .await
        .unwrap_or_else(late)
        .map_err(|why: String| format!("{address}:{port}: {why}"))
}

/// Accepts any certificate whose key the server has.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
