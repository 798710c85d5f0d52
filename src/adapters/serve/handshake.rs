//! From a fresh socket to TLS, or to a reason why not.
//!
//! Deliberately absent: a limit in time, which the caller sets around the whole of it.

use std::io::{self, ErrorKind};

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
        Ok(1) if first[0] == TLS_HANDSHAKE => acceptor.accept(socket).await.map_err(|error| reason(&error)),
        Ok(1) if first[0].is_ascii_uppercase() => {
            refuse(&mut socket).await;
            Err(Failure::PlainHttp)
        }
        Ok(1) => Err(Failure::NotTls),
        _ => Err(Failure::HandshakeGone),
    }
}

/// Nobody is waiting for the outcome: errors mean that the peer has gone.
async fn refuse(socket: &mut TcpStream) {
    if socket.write_all(WRONG_SCHEME).await.is_ok() && socket.shutdown().await.is_ok() {
        let mut rest = socket.take(REFUSED_REQUEST_BYTES);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
}

fn reason(error: &io::Error) -> Failure {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown, UnknownCA, UnsupportedCertificate,
    };
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        (
            Some(rustls::Error::AlertReceived(
                AccessDenied
                | BadCertificate
                | CertificateExpired
                | CertificateRevoked
                | CertificateUnknown
                | UnknownCA
                | UnsupportedCertificate,
            )),
            _,
        ) => Failure::CertificateRejected,
        (Some(rustls::Error::InvalidMessage(_)), _) => Failure::NotTls,
        (None, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Failure::HandshakeGone,
        _ => Failure::Tls,
    }
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
