//! Reads `/status` of a running `timeshard serve`: at an address, or from the leader through the API
//! server's pod proxy.
//!
//! Invariants: every request has a deadline, every answer a maximum size; nothing is changed. If the
//! leader does not answer, another ready replica is asked, and the answer says so.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::client::Body;
use kube::{Api, Client, ResourceExt};
use tokio::time::timeout;

use crate::adapters::causes::with_causes;
use crate::adapters::http_client::{DEADLINE, GetLimits, collect, get_from, no_answer, within};
use crate::core::model::names;

/// The largest document. Bytes; 10,000 pods take less.
const MAX_STATUS_BYTES: usize = 16 * 1024 * 1024;
const LIMITS: GetLimits = GetLimits {
    deadline: DEADLINE,
    max_answer_bytes: MAX_STATUS_BYTES,
    not_own_machine: false,
};
/// Replicas that are asked instead of the leader.
const MAX_REPLICAS: usize = 5;
/// Replicas that are listed for it.
const MAX_LISTED: u32 = 50;
/// Characters of an error message that are shown.
const MAX_SHOWN_CHARS: usize = 200;

/// An address such as `http://127.0.0.1:8080`, optionally with the path of a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    path: String,
}

#[derive(Clone)]
pub enum StatusSource {
    At(Address),
    /// The leader among the pods of a namespace.
    Leader {
        client: Client,
        namespace: String,
        /// Of each request.
        deadline: Duration,
    },
}

#[derive(Debug)]
pub struct StatusAnswer {
    /// The document, not parsed.
    pub body: Bytes,
    /// The replica that answered.
    pub from: String,
    /// Remarks for the user on how it was obtained.
    pub remarks: Vec<String>,
}

/// Why there is no answer, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(
        "{address}/status: {why}; is it the admin port (8080) of timeshard serve, and does kubectl port-forward still run?"
    )]
    At { address: Address, why: String },
    #[error(
        "you may not {verb} in namespace {namespace}: {message}; you need a Role there with get on leases, list on pods and get on pods/proxy, \
         or kubectl port-forward and --server http://127.0.0.1:8080"
    )]
    Forbidden {
        verb: &'static str,
        namespace: String,
        message: String,
    },
    /// The API server does not answer, or with an error.
    #[error("the API server has no answer to {verb} in namespace {namespace}: {why}")]
    ApiServer {
        verb: &'static str,
        namespace: String,
        why: String,
    },
    #[error("{}no ready pod of timeshard serve answers in namespace {namespace}; see kubectl -n {namespace} get pods, or set its namespace with --system-namespace", sentences(.remarks))]
    NoReplica {
        namespace: String,
        remarks: Vec<String>,
    },
}

/// Path of the API server's proxy to a path of a server's admin port.
pub(super) fn proxied(namespace: &str, pod: &str, path: &str) -> String {
    let port = names::ADMIN_PORT;
    format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}")
}

fn sentences(remarks: &[String]) -> String {
    remarks.iter().map(|remark| format!("{remark}; ")).collect()
}

/// Why one pod did not answer.
enum PodRefusal {
    Forbidden(String),
    Other(String),
}

impl StatusSource {
    /// # Errors
    /// [`AskError`].
    pub async fn ask(&self) -> Result<StatusAnswer, AskError> {
        match self {
            Self::At(address) => address.ask().await,
            Self::Leader {
                client,
                namespace,
                deadline,
            } => {
                let cluster = Cluster {
                    client,
                    namespace,
                    deadline: *deadline,
                };
                cluster.ask().await
            }
        }
    }
}

impl fmt::Debug for StatusSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => f.debug_tuple("At").field(address).finish(),
            Self::Leader { namespace, .. } => f
                .debug_struct("Leader")
                .field("namespace", namespace)
                .finish_non_exhaustive(),
        }
    }
}

impl Address {
    async fn ask(&self) -> Result<StatusAnswer, AskError> {
        let failed = |why| AskError::At {
            address: self.clone(),
            why,
        };
        let path = format!("{}/status", self.path);
        let (code, body) = get_from(&self.host, self.port, &path, LIMITS)
            .await
            .map_err(failed)?;
        if code == 200 {
            Ok(StatusAnswer {
                body,
                from: self.to_string(),
                remarks: Vec::new(),
            })
        } else {
            Err(failed(format!(
                "answers {code}: {}",
                shown(&body, MAX_SHOWN_CHARS)
            )))
        }
    }
}

/// What one replica answers.
#[derive(Debug)]
pub struct ReplicaAnswer {
    pub pod: String,
    /// Its `/status`, not parsed, or why there is none.
    pub body: Result<Bytes, String>,
}

/// Asks the ready replicas in a namespace, at most [`MAX_REPLICAS`] of them.
///
/// # Errors
/// [`AskError`], if they cannot be listed.
pub async fn ask_each(
    client: &Client,
    namespace: &str,
    deadline: Duration,
) -> Result<Vec<ReplicaAnswer>, AskError> {
    let cluster = Cluster {
        client,
        namespace,
        deadline,
    };
    let ready = cluster.ready().await?;
    let asked = ready.into_iter().take(MAX_REPLICAS).map(async |pod| {
        let body = cluster
            .status_of(&pod)
            .await
            .map_err(|refusal| match refusal {
                PodRefusal::Forbidden(why) | PodRefusal::Other(why) => why,
            });
        ReplicaAnswer { pod, body }
    });
    Ok(futures::future::join_all(asked).await)
}

/// Returns the pod of the leader, or else of any ready replica.
///
/// # Errors
/// [`AskError`], also if there is none.
pub async fn any_server(
    client: &Client,
    namespace: &str,
    deadline: Duration,
) -> Result<String, AskError> {
    let cluster = Cluster {
        client,
        namespace,
        deadline,
    };
    let ready = cluster.ready().await?;
    let holder = cluster.holder().await?;
    holder
        .filter(|holder| ready.contains(holder))
        .or_else(|| ready.into_iter().next())
        .ok_or_else(|| AskError::NoReplica {
            namespace: namespace.to_owned(),
            remarks: Vec::new(),
        })
}

struct Cluster<'a> {
    client: &'a Client,
    namespace: &'a str,
    deadline: Duration,
}

impl Cluster<'_> {
    async fn ask(self) -> Result<StatusAnswer, AskError> {
        let mut remarks = Vec::new();
        let holder = self.holder().await?;
        if let Some(holder) = &holder {
            match self.status_of(holder).await {
                Ok(body) => return Ok(StatusAnswer { body, from: holder.clone(), remarks }),
                Err(PodRefusal::Forbidden(message)) => return Err(self.forbidden("get pods/proxy", message)),
                Err(PodRefusal::Other(why)) => remarks.push(format!(
                    "{holder} holds the Lease {} and does not answer ({why}), so another replica is asked; a new leader takes over within 15 s",
                    names::LEASE
                )),
            }
        } else {
            remarks.push(format!(
                "no replica leads (the Lease {} has no holder), so no window moves now; any ready replica is asked",
                names::LEASE
            ));
        }
        let others = self
            .ready()
            .await?
            .into_iter()
            .filter(|pod| Some(pod) != holder.as_ref());
        for pod in others.take(MAX_REPLICAS) {
            match self.status_of(&pod).await {
                Ok(body) => {
                    return Ok(StatusAnswer {
                        body,
                        from: pod,
                        remarks,
                    });
                }
                Err(PodRefusal::Forbidden(message)) => {
                    return Err(self.forbidden("get pods/proxy", message));
                }
                Err(PodRefusal::Other(why)) => {
                    remarks.push(format!("{pod} does not answer ({why})"));
                }
            }
        }
        Err(AskError::NoReplica {
            namespace: self.namespace.to_owned(),
            remarks,
        })
    }

    /// The leader's pod.
    async fn holder(&self) -> Result<Option<String>, AskError> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), self.namespace);
        let found = self
            .within("get leases", leases.get_opt(names::LEASE))
            .await?;
        let holder = found.and_then(|lease| lease.spec?.holder_identity);
        // It becomes part of a path.
        Ok(holder.filter(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        }))
    }

    /// Names of the server's ready pods.
    async fn ready(&self) -> Result<Vec<String>, AskError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let asked = ListParams::default()
            .labels(names::SERVER_PODS)
            .limit(MAX_LISTED);
        let pods = self.within("list pods", pods.list(&asked)).await?;
        let is_ready = |pod: &&Pod| {
            let conditions = pod
                .status
                .as_ref()
                .and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| {
                all.iter()
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True")
            })
        };
        Ok(pods
            .iter()
            .filter(is_ready)
            .map(ResourceExt::name_any)
            .collect())
    }

    async fn within<T>(
        &self,
        verb: &'static str,
        asked: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, AskError> {
        let failed = |why| AskError::ApiServer {
            verb,
            namespace: self.namespace.to_owned(),
            why,
        };
        match timeout(self.deadline, asked).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(kube::Error::Api(status))) if status.code == StatusCode::FORBIDDEN.as_u16() => {
                Err(self.forbidden(verb, status.message.clone()))
            }
            Ok(Err(kube::Error::Api(status))) => {
                Err(failed(format!("{} ({})", status.message, status.code)))
            }
            Ok(Err(error)) => Err(failed(with_causes(&error))),
            Err(_) => Err(failed(no_answer(self.deadline))),
        }
    }

    fn forbidden(&self, verb: &'static str, message: String) -> AskError {
        AskError::Forbidden {
            verb,
            namespace: self.namespace.to_owned(),
            message,
        }
    }

    async fn status_of(&self, pod: &str) -> Result<Bytes, PodRefusal> {
        let request = Request::get(proxied(self.namespace, pod, "/status"))
            .body(Body::empty())
            .map_err(|error| PodRefusal::Other(error.to_string()))?;
        let exchange = async {
            let response = self
                .client
                .send(request)
                .await
                .map_err(|error| with_causes(&error))?;
            let code = response.status();
            Ok((code, collect(response.into_body(), MAX_STATUS_BYTES).await?))
        };
        let (code, body) = within(self.deadline, exchange)
            .await
            .map_err(PodRefusal::Other)?;
        match code {
            StatusCode::OK => Ok(body),
            StatusCode::FORBIDDEN => Err(PodRefusal::Forbidden(shown(&body, MAX_SHOWN_CHARS))),
            code => Err(PodRefusal::Other(format!(
                "{}: {}",
                code.as_u16(),
                shown(&body, MAX_SHOWN_CHARS)
            ))),
        }
    }
}

/// The message of a Kubernetes Status, or the beginning of another answer.
pub(super) fn shown(body: &[u8], max_chars: usize) -> String {
    let message = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|status| Some(status["message"].as_str()?.to_owned()));
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(max_chars)
        .collect()
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let right = "write http://HOST:PORT such as http://127.0.0.1:8080";
        let uri: Uri = text.parse().map_err(|error| format!("{error}; {right}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(format!(
                    "the admin port has no TLS; {right}, to which kubectl -n {} port-forward deployment/timeshard {} forwards",
                    names::SYSTEM_NAMESPACE,
                    names::ADMIN_PORT
                ));
            }
            _ => return Err(format!("it does not begin with http://; {right}")),
        }
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| format!("it names no host; {right}"))?;
        if uri.query().is_some() {
            return Err(format!("it has a query; {right}"));
        }
        let path = uri.path().trim_end_matches('/').to_owned();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(Self {
            host,
            port: uri.port_u16().unwrap_or(names::ADMIN_PORT),
            path: path
                .strip_suffix("/status")
                .map_or(path.clone(), str::to_owned),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, path } = self;
        if host.contains(':') {
            write!(f, "http://[{host}]:{port}{path}")
        } else {
            write!(f, "http://{host}:{port}{path}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, want) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://localhost:1/", "http://localhost:1"),
            ("http://[::1]:8080/status", "http://[::1]:8080"),
            ("http://x", "http://x:8080"),
            (
                "http://127.0.0.1:8001/api/v1/proxy/",
                "http://127.0.0.1:8001/api/v1/proxy",
            ),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), want);
        }
        for bad in [
            "https://x",
            "x:8080",
            "",
            "http://",
            "http://x/?a=b",
            "ftp://x",
        ] {
            assert!(
                bad.parse::<Address>()
                    .unwrap_err()
                    .contains("write http://HOST:PORT"),
                "{bad}"
            );
        }
    }

    /// With paused time the deadline comes as soon as nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_silent_server_times_out() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = format!("http://{}", silent.local_addr().unwrap())
            .parse()
            .unwrap();
        let error = StatusSource::At(address)
            .ask()
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("no answer within 10 s"), "{error}");
    }
}
