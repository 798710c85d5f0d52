//! From a fresh socket to TLS, or to a reason why not.
//!
//! Deliberately absent: a limit in time, which the caller sets around the whole of it.

use std::io;

use rustls::AlertDescription;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::stats::Failure;

/// First byte of every TLS connection (record type handshake).
const TLS_HANDSHAKE: u8 = 0x16;

/// What someone gets who typed http:// instead of https://.
const WRONG_SCHEME: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 66\r\nConnection: close\r\n\r\n\
This port speaks HTTPS, and the request was plain HTTP. Use https\n";

/// How much of a refused request is read, in bytes, so that closing does not reset the answer away.
const REFUSED_REQUEST_BYTES: u64 = 64 << 10;

/// Looks at the first byte, then lets rustls do the handshake.
///
/// The first byte costs one system call and spares a silent peer its TLS state.
pub(super) async fn accept(mut socket: TcpStream, acceptor: &TlsAcceptor) -> Result<TlsStream<TcpStream>, Failure> {
    let mut first = [0_u8];
    match socket.peek(&mut first).await {
        Ok(1) if first[0] == TLS_HANDSHAKE => {
            let stream = acceptor.accept(socket).await.map_err(|error| reason(&error))?;
            acknowledge(stream.get_ref().0);
            Ok(stream)
        }
        Ok(1) if first[0].is_ascii_uppercase() => {
            refuse(&mut socket).await;
            Err(Failure::PlainHttp)
        }
        Ok(1) => Err(Failure::NotTls),
        _ => Err(Failure::HandshakeGone),
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

fn reason(error: &io::Error) -> Failure {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) if is_about_the_certificate(*alert) => Failure::CertificateRejected,
        Some(rustls::Error::InvalidMessage(_)) => Failure::NotTls,
        Some(_) => Failure::Tls,
        None => Failure::HandshakeGone,
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
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head} says another length than {}", body.len());
    }
}
