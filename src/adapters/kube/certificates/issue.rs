//! Issues and reads keys and certificates.
//!
//! Invariants: ECDSA P-256 throughout; an authority signs only leaves; a certificate counts only
//! with its key, and a leaf only with an anchor that it verifies against. Nothing here logs.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_cert::der::asn1::Utf8StringRef;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

use crate::core::certificates::{Anchor, BACKDATE, Issue, Leaf, PrivateKeyPem, Signer, Validity};

/// Certificates read from one text; more are a mistake.
const MAX_CERTIFICATES: usize = 64;
/// `id-at-commonName`.
const COMMON_NAME: &str = "2.5.4.3";

#[derive(Debug, thiserror::Error)]
pub(super) enum IssueError {
    #[error("no certificate could be issued: {0}")]
    Made(#[from] rcgen::Error),
    /// The authority was not created by this program.
    #[error(
        "the subject of the CA's certificate is not one of timeshard; delete the Secret to get a new CA"
    )]
    Subject,
}

/// Issues certificates with the process's random numbers.
#[derive(Debug)]
pub(super) struct Mint;

impl Issue for Mint {
    type Error = IssueError;

    fn authority(&mut self, validity: Validity) -> Result<Signer, IssueError> {
        // The time distinguishes two authorities in one caBundle.
        let since = validity.issued.to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut params = named(&format!("thanos-timeshard webhook CA {since}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        limit(&mut params, validity);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let anchor = Anchor {
            der: certificate.der().to_vec(),
            validity,
        };
        Ok(Signer {
            anchor,
            key: PrivateKeyPem(key.serialize_pem()),
        })
    }

    fn leaf(
        &mut self,
        signer: &Signer,
        names: &[String],
        validity: Validity,
    ) -> Result<Leaf, IssueError> {
        let subject = read(&signer.anchor.der)
            .and_then(|read| read.common_name)
            .ok_or(IssueError::Subject)?;
        let issuer = Issuer::new(named(&subject), KeyPair::from_pem(&signer.key.0)?);
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = names.first() {
            // A common name is limited to 64 characters, and only informative.
            params.distinguished_name.push(
                DnType::CommonName,
                name.chars().take(64).collect::<String>(),
            );
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        limit(&mut params, validity);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        let issuer = signer.anchor.der.clone();
        Ok(Leaf {
            chain: certificate.pem(),
            key: PrivateKeyPem(key.serialize_pem()),
            issuer,
            names: names.to_vec(),
            validity,
        })
    }
}

fn named(subject: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}

fn limit(params: &mut CertificateParams, validity: Validity) {
    let time = |at: DateTime<Utc>| {
        rcgen::date_time_ymd(1970, 1, 1)
            + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or(0))
    };
    params.not_before = time(validity.issued - BACKDATE);
    params.not_after = time(validity.expires);
}

/// The fields of a certificate that are used here.
pub(super) struct ParsedCertificate {
    pub(super) anchor: Anchor,
    /// DER of its public key.
    public_key: Vec<u8>,
    /// The subject, if it is only a common name.
    common_name: Option<String>,
    names: Vec<String>,
}

impl ParsedCertificate {
    pub(super) fn fits(&self, key: &str) -> bool {
        KeyPair::from_pem(key).is_ok_and(|key| key.subject_public_key_info() == self.public_key)
    }
}

/// Every readable certificate of a PEM text, each once.
pub(super) fn read_all(pem: &[u8]) -> Vec<ParsedCertificate> {
    let mut found: Vec<ParsedCertificate> = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem)
        .take(MAX_CERTIFICATES)
        .flatten()
    {
        if let Some(certificate) =
            read(&der).filter(|new| found.iter().all(|known| known.anchor.der != new.anchor.der))
        {
            found.push(certificate);
        }
    }
    found
}

fn read(der: &[u8]) -> Option<ParsedCertificate> {
    let tbs = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate;
    let time = |at: x509_cert::time::Time| {
        DateTime::from_timestamp(i64::try_from(at.to_unix_duration().as_secs()).ok()?, 0)
    };
    let (not_before, expires) = (
        time(tbs.validity.not_before)?,
        time(tbs.validity.not_after)?,
    );
    let validity = Validity {
        issued: (not_before + BACKDATE).min(expires),
        expires,
    };
    let names = match tbs.get::<SubjectAltName>() {
        Ok(Some((_, SubjectAltName(names)))) => names,
        _ => Vec::new(),
    };
    let dns = |name| {
        if let GeneralName::DnsName(name) = name {
            Some(name.to_string())
        } else {
            None
        }
    };
    Some(ParsedCertificate {
        anchor: Anchor {
            der: der.to_vec(),
            validity,
        },
        public_key: tbs.subject_public_key_info.to_der().ok()?,
        common_name: common_name(&tbs.subject),
        names: names.into_iter().filter_map(dns).collect(),
    })
}

fn common_name(subject: &Name) -> Option<String> {
    let [rdn] = subject.0.as_slice() else {
        return None;
    };
    let [attribute] = rdn.0.as_slice() else {
        return None;
    };
    let text = attribute.value.decode_as::<Utf8StringRef<'_>>().ok()?;
    (attribute.oid.to_string() == COMMON_NAME).then(|| text.as_str().to_owned())
}

/// An authority, if it can sign.
pub(super) fn signer(certificate: &ParsedCertificate, key: &str) -> Option<Signer> {
    let usable = certificate.common_name.is_some() && certificate.fits(key);
    usable.then(|| Signer {
        anchor: certificate.anchor.clone(),
        key: PrivateKeyPem(key.to_owned()),
    })
}

/// A leaf with its key and an anchor that it verifies against, as in the API server.
pub(super) fn leaf(chain: &str, key: &str, anchors: &[&Anchor]) -> Option<Leaf> {
    let read = read_all(chain.as_bytes())
        .into_iter()
        .next()
        .filter(|leaf| leaf.fits(key))?;
    let issuer = anchors.iter().find(|anchor| verifies(&read, &anchor.der))?;
    Some(Leaf {
        chain: chain.to_owned(),
        key: PrivateKeyPem(key.to_owned()),
        issuer: issuer.der.clone(),
        names: read.names,
        validity: read.anchor.validity,
    })
}

fn verifies(leaf: &ParsedCertificate, anchor: &[u8]) -> bool {
    let mut roots = RootCertStore::empty();
    let Ok(()) = roots.add(CertificateDer::from(anchor)) else {
        return false;
    };
    let provider = Arc::new(ring::default_provider());
    let Ok(verifier) =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()
    else {
        return false;
    };
    let Some(Ok(name)) = leaf
        .names
        .first()
        .map(|name| ServerName::try_from(name.as_str()))
    else {
        return false;
    };
    // The caller checks whether it is valid now.
    let within = u64::try_from(leaf.anchor.validity.expires.timestamp())
        .unwrap_or(0)
        .saturating_sub(1);
    let at = UnixTime::since_unix_epoch(Duration::from_secs(within));
    verifier
        .verify_server_cert(
            &CertificateDer::from(leaf.anchor.der.as_slice()),
            &[],
            &name,
            &[],
            at,
        )
        .is_ok()
}
