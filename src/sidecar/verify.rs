//! Asks thanos whether it serves, and with which window.
//!
//! Ready is `/-/ready` with 200; 503 is not ready; anything else (authentication, TLS, an old version) leaves it to the
//! gRPC port, which thanos opens only after its first sync. Every wait and every body has a limit. Deliberately absent:
//! TLS and credentials; what cannot be read is reported as unverified, with the reason.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::adapters::files;
use crate::core::reload::Probe;
use crate::core::time_flags;
use crate::core::window::Window;

/// The longest wait for one answer. Seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Thanos has some 100 flags; their list is a few KiB.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Where names of the pod stand.
const HOSTS_FILE: &str = "/etc/hosts";

/// Where thanos listens.
#[derive(Clone, Debug)]
pub struct Thanos {
    host: String,
    http_port: u16,
    grpc: (String, u16),
    scheme: String,
}

/// Why an address is not usable.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not a URL with a host.
    #[error("--thanos-url {0:?} is not a URL such as http://127.0.0.1:10902")]
    Url(String),
    /// Not host and port.
    #[error("--grpc-address {0:?} is not a host and a port such as 127.0.0.1:10901 or [::1]:10901")]
    Grpc(String),
}

impl Thanos {
    /// From the two flags.
    ///
    /// # Errors
    /// [`AddressError`], which names the flag and the value.
    pub fn new(url: &str, grpc_address: &str) -> Result<Self, AddressError> {
        let bad_url = || AddressError::Url(url.to_owned());
        let uri: Uri = bracketed(url).parse().map_err(|_| bad_url())?;
        let scheme = uri
            .scheme_str()
            .filter(|s| matches!(*s, "http" | "https"))
            .ok_or_else(bad_url)?;
        let default_port = if scheme == "https" { 443 } else { 80 };
        let grpc = grpc_address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .ok_or_else(|| AddressError::Grpc(grpc_address.to_owned()))?;
        Ok(Self {
            host: bare(
                uri.host()
                    .filter(|host| !host.is_empty())
                    .ok_or_else(bad_url)?,
            ),
            http_port: uri.port_u16().unwrap_or(default_port),
            grpc: (bare(grpc.0), grpc.1),
            scheme: scheme.to_owned(),
        })
    }

    /// One look.
    pub async fn probe(&self) -> Probe {
        let unread = |why: String| Err(format!("thanos' effective flags cannot be read: {why}"));
        let (ready, reachable) = match self.get("/-/ready").await {
            Ok((StatusCode::OK, _)) => (true, Ok(())),
            Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => (false, Ok(())),
            Ok((status, _)) => (
                self.accepts_grpc().await,
                Err(format!("/-/ready answers {status}")),
            ),
            Err(why) => (self.accepts_grpc().await, Err(why)),
        };
        let blocks = match &reachable {
            _ if !ready => None,
            Err(why) => Some(Err(why.clone())),
            Ok(()) => Some(self.reading().await),
        };
        let flags = match reachable {
            _ if !ready => unread("it is not ready".to_owned()),
            Err(why) => unread(why),
            Ok(()) => self.flags().await.or_else(unread),
        };
        Probe {
            ready,
            flags,
            blocks,
        }
    }

    async fn flags(&self) -> Result<Window, String> {
        const PATH: &str = "/api/v1/status/flags";
        let (status, body) = self.get(PATH).await?;
        if status != StatusCode::OK {
            return Err(format!("{PATH} answers {status}"));
        }
        let document: serde_json::Value =
            serde_json::from_slice(&body).map_err(|error| format!("{PATH}: {error}"))?;
        let bound = |flag: &str| {
            let text = document["data"][flag]
                .as_str()
                .ok_or_else(|| format!("{PATH} has no {flag}"))?;
            time_flags::effective_bound(text)
                .ok_or_else(|| format!("{PATH} says {flag} is {text:?}"))
        };
        Ok(Window {
            min: bound("min-time")?,
            max: bound("max-time")?,
        })
    }

    async fn accepts_grpc(&self) -> bool {
        let (host, port) = &self.grpc;
        connect(host, *port).await.is_ok()
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), String> {
        self.exchange(path, |status, body| async move {
            let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
            Ok((status, body.map_err(|e| e.to_string())?.to_bytes()))
        })
        .await
    }

    /// One GET; `take` gets the body as it arrives.
    pub(super) async fn exchange<T, F>(
        &self,
        path: &str,
        take: impl FnOnce(StatusCode, Incoming) -> F,
    ) -> Result<T, String>
    where
        F: Future<Output = Result<T, String>>,
    {
        if self.scheme == "https" {
            return Err("its HTTP port uses TLS".to_owned());
        }
        let exchange = async {
            let stream = connect(&self.host, self.http_port).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|e| e.to_string())?;
            let request = Request::get(path)
                .header("host", format!("{}:{}", self.host, self.http_port))
                .header("connection", "close")
                .body(Empty::<Bytes>::new())
                .map_err(|e| e.to_string())?;
            let answer = async {
                let response = sender
                    .send_request(request)
                    .await
                    .map_err(|e| e.to_string())?;
                let status = response.status();
                take(status, response.into_body()).await
            };
            tokio::pin!(answer);
            tokio::select! {
                answered = &mut answer => answered,
                // The connection may end first, with the answer already read.
                _ = connection => answer.await,
            }
        };
        tokio::time::timeout(ANSWER_TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))
    }
}

/// With an IPv6 address in brackets, which `$(POD_IP)` comes without: more than one colon can be nothing else.
fn bracketed(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Cow::Borrowed(url);
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once(':') {
        Some((host, port)) if host.contains(':') && !host.starts_with('[') => {
            Cow::Owned(format!("{scheme}://[{host}]:{port}{path}"))
        }
        _ => Cow::Borrowed(url),
    }
}

fn bare(host: &str) -> String {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned()
}

/// Connects to the first address that answers.
async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses: Vec<SocketAddr> = addresses(host)?
        .into_iter()
        .map(|ip| (ip, port).into())
        .collect();
    tokio::time::timeout(ANSWER_TIMEOUT, TcpStream::connect(&addresses[..]))
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|error| format!("{host} port {port}: {error}"))
}

/// Thanos is in the same pod, so its host is an address or a name that kubelet wrote into `/etc/hosts`. There is no other
/// resolver: a static binary could not rely on one.
fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let hosts = files::read(Path::new(HOSTS_FILE), MAX_BODY_BYTES)
        .ok()
        .flatten()
        .unwrap_or_default();
    let found = named(&String::from_utf8_lossy(&hosts), host);
    if found.is_empty() && host == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    if found.is_empty() {
        return Err(format!(
            "{host:?} is neither an IP address nor a name in {HOSTS_FILE}"
        ));
    }
    Ok(found)
}

fn named(hosts: &str, host: &str) -> Vec<IpAddr> {
    let entries = hosts.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|name| name.eq_ignore_ascii_case(host))
            .then_some(address)
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_hosts_file_only() {
        let hosts = "# kubelet\n127.0.0.1\tlocalhost\n::1 localhost ip6-localhost # both\n10.1.2.3 store-0\nbad line\n";
        assert_eq!(named(hosts, "localhost").len(), 2);
        assert_eq!(
            named(hosts, "STORE-0"),
            ["10.1.2.3".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(named(hosts, "both"), [] as [IpAddr; 0]);
        assert!(
            addresses("no.such.name.invalid")
                .unwrap_err()
                .contains("/etc/hosts")
        );
    }

    #[test]
    fn addresses_of_all_kinds() {
        let thanos = Thanos::new("http://[::1]:19090", "[::1]:10901").unwrap();
        assert_eq!((thanos.host.as_str(), thanos.http_port), ("::1", 19090));
        assert_eq!(thanos.grpc, ("::1".to_owned(), 10901));
        assert_eq!(Thanos::new("http://store", ":10901").unwrap().http_port, 80);
        // As kubelet expands http://$(POD_IP):10902.
        let thanos = Thanos::new("http://fd00::5:10902", "fd00::5:10901").unwrap();
        assert_eq!(
            (thanos.host.as_str(), thanos.http_port, thanos.grpc),
            ("fd00::5", 10902, ("fd00::5".to_owned(), 10901))
        );
        for bad in ["127.0.0.1:10902", "", "ftp://x", "/x"] {
            assert!(Thanos::new(bad, "127.0.0.1:1").is_err(), "{bad}");
        }
        for bad in ["127.0.0.1", "x:y", ""] {
            assert!(Thanos::new("http://x", bad).is_err(), "{bad}");
        }
    }
}
