//! What happens on a socket before HTTP: waiting for its first byte, then the TLS handshake.
//!
//! In: an accepted socket. Out: a TLS stream, or the reason why there is none, for the metrics; a
//! client that sends plain HTTP gets an answer that names https. `connection` calls the two
//! functions, and limits their time. Next for a review: `adapters/https/serve/connection.rs`.

use std::io;

use rustls::{AlertDescription, CertificateError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::stats::{ConnectionFailure, RefusedReason, ServeStats};

/// The first byte of every TLS connection (record type handshake).
const TLS_HANDSHAKE: u8 = 0x16;

/// The answer to http:// instead of https://.
const WRONG_SCHEME: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 66\r\nConnection: close\r\n\r\n\
This port speaks HTTPS, and the request was plain HTTP. Use https\n";

/// How much of a refused request is read, so that closing does not reset the answer away.
const REFUSED_REQUEST_BYTES: u64 = 64 << 10;

/// The limit of a connection's encrypted answers; the rest waits where it is charged.
const TLS_BUFFER_BYTES: usize = 16 << 10;

/// Waits for the first byte without consuming it. This one system call is all that a silent peer
/// costs.
pub(super) async fn first_byte(socket: &TcpStream) -> Option<u8> {
    let mut first = [0_u8];
    matches!(socket.peek(&mut first).await, Ok(1)).then_some(first[0])
}

/// Lets rustls do the handshake that begins with this byte.
pub(super) async fn accept(
    first: u8,
    mut socket: TcpStream,
    acceptor: &TlsAcceptor,
    stats: &ServeStats,
) -> Result<TlsStream<TcpStream>, ConnectionFailure> {
    match first {
        TLS_HANDSHAKE => {
            let mut stream = acceptor
                .accept(socket)
                .await
                .map_err(|error| reason(&error, stats))?;
            stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
            acknowledge(stream.get_ref().0);
            Ok(stream)
        }
        _ if first.is_ascii_uppercase() => {
            refuse(&mut socket).await;
            Err(ConnectionFailure::PlainHttp)
        }
        _ => Err(ConnectionFailure::NotTls),
    }
}

/// Acknowledges the end of the handshake immediately.
///
/// Without session tickets the server sends nothing after it, so the kernel would delay the
/// acknowledgement by 40 ms, and a client without `TCP_NODELAY` would hold its request back until
/// then.
#[cfg(target_os = "linux")]
fn acknowledge(socket: &TcpStream) {
    let _ = socket.set_quickack(true);
}

#[cfg(not(target_os = "linux"))]
fn acknowledge(_: &TcpStream) {}

/// Ignores errors: the peer has gone.
async fn refuse(socket: &mut TcpStream) {
    if socket.write_all(WRONG_SCHEME).await.is_ok() && socket.shutdown().await.is_ok() {
        let mut rest = socket.take(REFUSED_REQUEST_BYTES);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
}

fn reason(error: &io::Error, stats: &ServeStats) -> ConnectionFailure {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) if is_about_the_certificate(*alert) => {
            ConnectionFailure::CertificateRejected
        }
        Some(rustls::Error::InvalidMessage(_)) => ConnectionFailure::NotTls,
        Some(rustls::Error::NoCertificatesPresented) => {
            stats.refused_client(RefusedReason::Without, "it sent no certificate")
        }
        Some(error @ rustls::Error::InvalidCertificate(invalid)) => {
            stats.refused_client(kind(invalid), &error.to_string())
        }
        Some(_) => ConnectionFailure::Tls,
        None => ConnectionFailure::HandshakeGone,
    }
}

/// Maps to a closed set, so that a client cannot fill the log with reasons.
fn kind(invalid: &CertificateError) -> RefusedReason {
    match invalid {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            RefusedReason::Authority
        }
        CertificateError::Other(_) => RefusedReason::Name,
        _ => RefusedReason::Invalid,
    }
}

/// Clients answer differently to a certificate that they cannot verify: Go `bad_certificate`,
/// OpenSSL `unknown_ca`, rustls `decrypt_error` if the CA has the right name and another key.
fn is_about_the_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::DecryptError
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_well_formed() {
        let text = std::str::from_utf8(WRONG_SCHEME).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len())),
            "{head} says another length than {}",
            body.len()
        );
    }
}
