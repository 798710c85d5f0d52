//! PEM files: read with a limit, parsed, with errors that name the file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};

/// The largest file that is read. A Secret holds 1 MiB at most. Bytes.
pub const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Why certificates or a key were refused. Paths are those that the user configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}; {remedy}")]
    Read {
        path: PathBuf,
        source: io::Error,
        remedy: &'static str,
    },
    #[error("{path} is larger than {FILE_LIMIT_BYTES} bytes; it should hold PEM text")]
    TooLarge { path: PathBuf },
    #[error("{path} holds no {wanted}: {reason}; it must be PEM, beginning with -----BEGIN")]
    Pem {
        path: PathBuf,
        wanted: &'static str,
        reason: pem::Error,
    },
    #[error("{path}: the first certificate is not valid X.509: {reason}")]
    Certificate { path: PathBuf, reason: String },
    /// The key cannot be used, or belongs to another certificate.
    #[error(
        "{path} does not fit the certificate in {cert_file}: {reason}; this also happens while the two files are renewed one after the other"
    )]
    Pair {
        path: PathBuf,
        cert_file: &'static str,
        reason: rustls::Error,
    },
    #[error("{path}: certificate {place} of the bundle cannot be used as a CA: {reason}")]
    Authority {
        path: PathBuf,
        /// Counted from 1.
        place: usize,
        reason: String,
    },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Reads a file of limited size. Errors name `shown`, and say with `remedy` what the file should
/// be.
pub(super) fn read(path: &Path, shown: &Path, remedy: &'static str) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read {
        path: shown.to_path_buf(),
        source,
        remedy,
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

/// Parses one certificate or more.
pub(super) fn certificates(
    text: &[u8],
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|found| {
            if found.is_empty() {
                Err(pem::Error::NoItemsFound)
            } else {
                Ok(found)
            }
        })
        .map_err(|reason| TlsError::Pem {
            path: path.to_path_buf(),
            wanted: "certificate",
            reason,
        })
}
