//! Asks thanos whether it serves, and with which window.
//!
//! In: the number of the start to probe. Out: a [`Probe`] for that start. Next for a window:
//! `core/agent/sidecar/probe.rs`.
//!
//! `/-/ready` answers 200 if thanos is ready and 503 if not. With any other answer (authentication,
//! TLS, an old version) the gRPC port decides, which thanos opens only after its first sync. Every
//! wait and body has a limit. Deliberately absent: TLS and credentials; a window that cannot be
//! read is reported as unverified, with the reason.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::{StatusCode, Uri};
use tokio::net::TcpStream;

use crate::adapters::files;
use crate::adapters::http_client::{collect, exchange, within};
use crate::core::agent::sidecar::Probe;
use crate::core::model::window::Window;
use crate::core::thanos::flags;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Thanos has some 100 flags; their list is a few KiB.
const MAX_BODY_BYTES: usize = 1024 * 1024;
const HOSTS_FILE: &str = "/etc/hosts";

/// Where thanos listens.
#[derive(Clone, Debug)]
pub struct ThanosClient {
    host: String,
    http_port: u16,
    grpc: (String, u16),
    scheme: String,
}

#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("--thanos-url {0:?} is not a URL such as http://127.0.0.1:10902")]
    Url(String),
    #[error("--grpc-address {0:?} is not a host and a port such as 127.0.0.1:10901 or [::1]:10901")]
    Grpc(String),
}

impl ThanosClient {
    /// Parses the two flags.
    ///
    /// # Errors
    /// Names the flag and the value.
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
            flags::effective_bound(text).ok_or_else(|| format!("{PATH} reports {flag} as {text:?}"))
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
        self.exchange(path, async |status, body| {
            Ok((status, collect(body, MAX_BODY_BYTES).await?))
        })
        .await
    }

    /// Sends one GET; `read` receives the body as it arrives.
    pub(super) async fn exchange<T>(
        &self,
        path: &str,
        read: impl AsyncFnOnce(StatusCode, Incoming) -> Result<T, String>,
    ) -> Result<T, String> {
        if self.scheme == "https" {
            return Err("its HTTP port uses TLS".to_owned());
        }
        within(ANSWER_TIMEOUT, async {
            let stream = connect(&self.host, self.http_port).await?;
            exchange(stream, (&self.host, self.http_port), path, read).await
        })
        .await
    }
}

type ProbeFuture<'a> = Pin<Box<dyn Future<Output = Probe> + 'a>>;

/// At most one probe of thanos at a time; it runs while other events are handled.
pub(super) struct ProbeInFlight<'a> {
    thanos: &'a ThanosClient,
    running: Option<(u64, ProbeFuture<'a>)>,
}

impl<'a> ProbeInFlight<'a> {
    pub(super) const fn new(thanos: &'a ThanosClient) -> Self {
        Self {
            thanos,
            running: None,
        }
    }

    pub(super) fn start(&mut self, launch: u64) {
        self.running = Some((launch, Box::pin(self.thanos.probe())));
    }

    pub(super) async fn done(&mut self) -> (u64, Probe) {
        let Some((launch, probe)) = &mut self.running else {
            return std::future::pending().await;
        };
        let done = (*launch, probe.await);
        self.running = None;
        done
    }
}

/// Adds the brackets around an IPv6 address, which `$(POD_IP)` lacks: a host with a colon is
/// nothing else.
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

/// Resolves the host. Thanos is in the same pod, so it is an address or a name that kubelet wrote
/// into `/etc/hosts`. A static binary cannot rely on any other resolver.
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
        let mut fields = line.split('#').next()?.split_whitespace();
        let address = fields.next()?.parse().ok()?;
        fields
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
        let thanos = ThanosClient::new("http://[::1]:19090", "[::1]:10901").unwrap();
        assert_eq!((thanos.host.as_str(), thanos.http_port), ("::1", 19090));
        assert_eq!(thanos.grpc, ("::1".to_owned(), 10901));
        assert_eq!(
            ThanosClient::new("http://store", ":10901")
                .unwrap()
                .http_port,
            80
        );
        // As kubelet expands http://$(POD_IP):10902.
        let thanos = ThanosClient::new("http://fd00::5:10902", "fd00::5:10901").unwrap();
        assert_eq!(
            (thanos.host.as_str(), thanos.http_port, thanos.grpc),
            ("fd00::5", 10902, ("fd00::5".to_owned(), 10901))
        );
        for bad in ["127.0.0.1:10902", "", "ftp://x", "/x"] {
            assert!(ThanosClient::new(bad, "127.0.0.1:1").is_err(), "{bad}");
        }
        for bad in ["127.0.0.1", "x:y", ""] {
            assert!(ThanosClient::new("http://x", bad).is_err(), "{bad}");
        }
    }
}
