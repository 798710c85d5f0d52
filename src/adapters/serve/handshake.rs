//! From a fresh socket to TLS, or to a reason why not.
//!
//! Deliberately absent: a limit in time, which the caller sets around the whole of it.

use std::io;

use rustls::{AlertDescription, CertificateError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::stats::{Failure, Refused, ServeStats};

/// First byte of every TLS connection (record type handshake).
const TLS_HANDSHAKE: u8 = 0x16;

/// What someone gets who typed http:// instead of https://.
const WRONG_SCHEME: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 66\r\nConnection: close\r\n\r\n\
This port speaks HTTPS, and the request was plain HTTP. Use https\n";

/// How much of a refused request is read, in bytes, so that closing does not reset the answer away.
const REFUSED_REQUEST_BYTES: u64 = 64 << 10;

/// What may be held of a connection's answers in encrypted form, in bytes; the rest waits where it is charged.
const TLS_BUFFER_BYTES: usize = 16 << 10;

/// Waits for the first byte and leaves it where it is. One system call spares a silent peer everything else.
pub(super) async fn first_byte(socket: &TcpStream) -> Option<u8> {
    let mut first = [0_u8];
    matches!(socket.peek(&mut first).await, Ok(1)).then_some(first[0])
}

/// Has rustls do the handshake that begins with this byte.
pub(super) async fn accept(
    first: u8,
    mut socket: TcpStream,
    acceptor: &TlsAcceptor,
    stats: &ServeStats,
) -> Result<TlsStream<TcpStream>, Failure> {
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
            Err(Failure::PlainHttp)
        }
        _ => Err(Failure::NotTls),
    }
}

/// Acknowledges the end of the handshake at once.
///
/// Without session tickets we send nothing after it, so the kernel would delay the acknowledgement by 40 ms, and a
/// client without `TCP_NODELAY` would hold its request back until then.
#[cfg(target_os = "linux")]
fn acknowledge(socket: &TcpStream) {
    let _ = socket.set_quickack(true);
}

#[cfg(not(target_os = "linux"))]
fn acknowledge(_: &TcpStream) {}

/// Nobody is waiting for the outcome: errors mean that the peer has gone.
async fn refuse(socket: &mut TcpStream) {
    if socket.write_all(WRONG_SCHEME).await.is_ok() && socket.shutdown().await.is_ok() {
        let mut rest = socket.take(REFUSED_REQUEST_BYTES);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
}

fn reason(error: &io::Error, stats: &ServeStats) -> Failure {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) if is_about_the_certificate(*alert) => {
            Failure::CertificateRejected
        }
        Some(rustls::Error::InvalidMessage(_)) => Failure::NotTls,
        Some(rustls::Error::NoCertificatesPresented) => {
            stats.refused_client(Refused::Without, "it sent no certificate")
        }
        Some(error @ rustls::Error::InvalidCertificate(invalid)) => {
            stats.refused_client(kind(invalid), &error.to_string())
        }
        Some(_) => Failure::Tls,
        None => Failure::HandshakeGone,
    }
}

/// A closed set, so that a client cannot fill the log with reasons.
fn kind(invalid: &CertificateError) -> Refused {
    match invalid {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Refused::Authority,
        CertificateError::Other(_) => Refused::Name,
        _ => Refused::Invalid,
    }
}

/// Clients differ in what they say to a certificate that they cannot verify: Go `bad_certificate`, OpenSSL `unknown_ca`,
/// rustls `decrypt_error` if the authority has the right name and another key.
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
