//! An HTTPS client without a pool, with which `demo` plays the API server.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::http_client::{DEADLINE, MAX_ANSWER_BYTES, collect, within};

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(String);

/// A connection that trusts one CA.
#[derive(Debug)]
pub struct HttpsClient {
    sender: SendRequest<Full<Bytes>>,
}

fn failed(what: &str, error: impl std::fmt::Display) -> ClientError {
    ClientError(format!("{what}: {error}"))
}

impl HttpsClient {
    /// Connects over HTTP/1.1, as the API server does. `ca` is the CA's certificate in DER.
    ///
    /// # Errors
    /// Names the step that failed.
    pub async fn connect(
        address: SocketAddr,
        name: &'static str,
        ca: &[u8],
    ) -> Result<Self, ClientError> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(ca.to_vec()))
            .map_err(|error| failed("the CA is not usable", error))?;
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| failed("TLS", error))?
                .with_root_certificates(roots)
                .with_no_client_auth();
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| failed("the webhook is not reachable", error))?;
        let name = ServerName::try_from(name).map_err(|error| failed("server name", error))?;
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| failed("TLS handshake", error))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| failed("HTTP", error))?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Posts JSON; returns the status and the body.
    ///
    /// # Errors
    /// Names the step that failed. An exchange longer than [`DEADLINE`] is an error too.
    pub async fn post(
        &mut self,
        path: &str,
        host: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Bytes), ClientError> {
        let request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed("request", error))?;
        let exchange = async {
            let response = self
                .sender
                .send_request(request)
                .await
                .map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            Ok((
                status,
                collect(response.into_body(), MAX_ANSWER_BYTES).await?,
            ))
        };
        within(DEADLINE, exchange)
            .await
            .map_err(|why| failed("answer", why))
    }
}
