//! Asks a running `timeshard serve` for its `/status`: at an address, or the leader through the API server's pod proxy.
//!
//! Invariants: every request has a deadline and every answer a bound; nothing is changed by asking. A leader that cannot
//! be asked is not the end: another ready replica is, and the answer says so.

use std::fmt;
use std::str::FromStr;

use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::client::Body;
use kube::{Api, Client, Config, ResourceExt};
use tokio::time::timeout;

use super::causes::with_causes;
use super::http_client::{DEADLINE, GetLimits, collect, get_from};
use crate::core::names;

/// The largest document that is read, in bytes: 10,000 pods take less.
const MAX_STATUS_BYTES: usize = 16 * 1024 * 1024;
const LIMITS: GetLimits = GetLimits {
    deadline: DEADLINE,
    max_answer_bytes: MAX_STATUS_BYTES,
    not_own_machine: false,
};
/// Replicas that are asked in place of a leader that is not there.
const MOST_REPLICAS: usize = 5;
/// Replicas that are listed for that.
const MOST_LISTED: u32 = 50;
/// Characters of a foreign answer that are shown.
const SHOWN_CHARS: usize = 200;

/// An address such as `http://127.0.0.1:8080`, perhaps with the path of a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    path: String,
}

/// Whom to ask.
#[derive(Clone)]
pub enum Server {
    /// An address.
    At(Address),
    /// The leader among the pods of this namespace.
    Leader {
        /// Of the cluster.
        client: Client,
        /// Where `timeshard serve` runs.
        namespace: String,
    },
}

/// A client for people: it says at once what is wrong, where that of a server would try again for a while.
///
/// # Errors
/// kube's, when there is neither an in-cluster configuration nor KUBECONFIG.
pub async fn connect() -> Result<Client, kube::Error> {
    Ok(connect_to().await?.0)
}

/// As [`connect`], with the API server's URL for messages.
///
/// # Errors
/// As [`connect`].
pub async fn connect_to() -> Result<(Client, String), kube::Error> {
    // kube takes rustls' process default; a second call finds the first one's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::infer().await.map_err(kube::Error::InferConfig)?;
    config.default_retry = false;
    let url = config.cluster_url.to_string();
    Ok((Client::try_from(config)?, url))
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The document, unread.
    pub body: Bytes,
    /// Who answered.
    pub from: String,
    /// What its reader should know of how it was got.
    pub remarks: Vec<String>,
}

/// Why there is no answer, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// At an address.
    #[error(
        "{address}/status: {why}; is it the admin port (8080) of timeshard serve, and does kubectl port-forward still run?"
    )]
    At {
        /// Asked there.
        address: Address,
        /// What happened.
        why: String,
    },
    /// The API server says no.
    #[error(
        "you may not {verb} in namespace {namespace}: {message}; it takes a Role with get on leases, list on pods and get on pods/proxy there, \
         or kubectl port-forward and --server http://127.0.0.1:8080"
    )]
    Forbidden {
        /// What was tried.
        verb: &'static str,
        /// Where.
        namespace: String,
        /// The API server's words.
        message: String,
    },
    /// The API server does not answer, or in a way that helps nobody.
    #[error("the API server has no answer to {verb} in namespace {namespace}: {why}")]
    ApiServer {
        /// What was asked.
        verb: &'static str,
        /// Where.
        namespace: String,
        /// What happened.
        why: String,
    },
    /// No replica answers.
    #[error("{}no ready pod of timeshard serve answers in namespace {namespace}; see kubectl -n {namespace} get pods, or name its namespace with --system-namespace", sentences(.remarks))]
    NoReplica {
        /// Where it should be.
        namespace: String,
        /// What was tried.
        remarks: Vec<String>,
    },
}

fn sentences(remarks: &[String]) -> String {
    remarks.iter().map(|remark| format!("{remark}; ")).collect()
}

/// Why one pod did not answer.
enum Refusal {
    Forbidden(String),
    Other(String),
}

impl Server {
    /// Asks once.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(&self) -> Result<Answer, AskError> {
        match self {
            Self::At(address) => address.ask().await,
            Self::Leader { client, namespace } => Cluster { client, namespace }.ask().await,
        }
    }
}

impl fmt::Debug for Server {
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
    async fn ask(&self) -> Result<Answer, AskError> {
        let failed = |why| AskError::At {
            address: self.clone(),
            why,
        };
        let path = format!("{}/status", self.path);
        let (code, body) = get_from(&self.host, self.port, &path, LIMITS)
            .await
            .map_err(failed)?;
        if code == 200 {
            Ok(Answer {
                body,
                from: self.to_string(),
                remarks: Vec::new(),
            })
        } else {
            Err(failed(format!("answers {code}: {}", shown(&body))))
        }
    }
}

struct Cluster<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl Cluster<'_> {
    async fn ask(self) -> Result<Answer, AskError> {
        let mut remarks = Vec::new();
        let holder = self.holder().await?;
        if let Some(holder) = &holder {
            match self.status_of(holder).await {
                Ok(body) => return Ok(Answer { body, from: holder.clone(), remarks }),
                Err(Refusal::Forbidden(message)) => return Err(self.forbidden("get pods/proxy", message)),
                Err(Refusal::Other(why)) => remarks.push(format!(
                    "{holder} holds the Lease {} and does not answer ({why}), so another replica is asked; a new leader takes over within 15 s",
                    names::LEASE
                )),
            }
        } else {
            remarks.push(format!(
                "no replica leads (nobody holds the Lease {}), so no window moves now; any ready replica is asked",
                names::LEASE
            ));
        }
        let others = self
            .ready()
            .await?
            .into_iter()
            .filter(|pod| Some(pod) != holder.as_ref());
        for pod in others.take(MOST_REPLICAS) {
            match self.status_of(&pod).await {
                Ok(body) => {
                    return Ok(Answer {
                        body,
                        from: pod,
                        remarks,
                    });
                }
                Err(Refusal::Forbidden(message)) => {
                    return Err(self.forbidden("get pods/proxy", message));
                }
                Err(Refusal::Other(why)) => remarks.push(format!("{pod} does not answer ({why})")),
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
        // It becomes a part of a path.
        Ok(holder.filter(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        }))
    }

    /// Ready pods of the server.
    async fn ready(&self) -> Result<Vec<String>, AskError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let asked = ListParams::default()
            .labels(names::SERVER_PODS)
            .limit(MOST_LISTED);
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
        match timeout(DEADLINE, asked).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(kube::Error::Api(status))) if status.code == StatusCode::FORBIDDEN.as_u16() => {
                Err(self.forbidden(verb, status.message.clone()))
            }
            Ok(Err(kube::Error::Api(status))) => {
                Err(failed(format!("{} ({})", status.message, status.code)))
            }
            Ok(Err(error)) => Err(failed(with_causes(&error))),
            Err(_) => Err(failed(format!("no answer within {} s", DEADLINE.as_secs()))),
        }
    }

    fn forbidden(&self, verb: &'static str, message: String) -> AskError {
        AskError::Forbidden {
            verb,
            namespace: self.namespace.to_owned(),
            message,
        }
    }

    async fn status_of(&self, pod: &str) -> Result<Bytes, Refusal> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{pod}:{}/proxy/status",
            self.namespace,
            names::ADMIN_PORT
        );
        let request = Request::get(path)
            .body(Body::empty())
            .map_err(|error| Refusal::Other(error.to_string()))?;
        let exchange = async {
            let response = self
                .client
                .send(request)
                .await
                .map_err(|error| with_causes(&error))?;
            let code = response.status();
            Ok((code, collect(response.into_body(), MAX_STATUS_BYTES).await?))
        };
        let (code, body) = timeout(DEADLINE, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", DEADLINE.as_secs())))
            .map_err(Refusal::Other)?;
        match code {
            StatusCode::OK => Ok(body),
            StatusCode::FORBIDDEN => Err(Refusal::Forbidden(shown(&body))),
            code => Err(Refusal::Other(format!(
                "{}: {}",
                code.as_u16(),
                shown(&body)
            ))),
        }
    }
}

/// The message of a Kubernetes Status, or how a foreign answer begins.
fn shown(body: &[u8]) -> String {
    let message = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|status| Some(status["message"].as_str()?.to_owned()));
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN_CHARS)
        .collect()
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let right = "write http://HOST:PORT such as http://127.0.0.1:8080";
        let uri: Uri = text.parse().map_err(|error| format!("{error}; {right}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!(
                "it is not a plain http:// address, which is what the admin port speaks; {right}"
            ));
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
    async fn a_server_that_says_nothing_is_given_up() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = format!("http://{}", silent.local_addr().unwrap())
            .parse()
            .unwrap();
        let error = Server::At(address).ask().await.unwrap_err().to_string();
        assert!(error.contains("no answer within 10 s"), "{error}");
    }
}
