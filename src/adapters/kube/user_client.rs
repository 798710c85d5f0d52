//! A client for command lines, by the user's kubeconfig, context and namespace, as kubectl chooses
//! them.
//!
//! Unlike a server's client it does not retry, so that errors show immediately.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{HeaderMap, Request, StatusCode, header};
use kube::Client;
use kube::client::Body;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde::de::DeserializeOwned;

use super::server_status::shown;
use crate::adapters::causes::with_causes;
use crate::adapters::http_client::{collect, within};
use crate::core::config::nearest;
use crate::core::model::text::listed;

/// The largest answer. Bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Contexts that a message lists.
const MAX_CONTEXTS: usize = 10;
/// Characters of an error message that are shown.
const MAX_SHOWN_CHARS: usize = 800;
/// Longer deadlines count as none.
const NO_DEADLINE: Duration = Duration::from_hours(24 * 365);

/// The user's choice of a cluster; each `None` as kubectl chooses.
#[derive(Clone, Debug, Default)]
pub struct ClusterChoice {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
}

/// A connected cluster.
#[derive(Clone)]
pub struct ClusterClient {
    pub client: Client,
    /// Of the API server.
    pub url: String,
    /// `None` in a pod.
    pub context: Option<String>,
    /// Of the context, for objects without a namespace.
    pub namespace: String,
    /// Of each request.
    pub deadline: Duration,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a ServiceAccount.
    #[error(
        "no cluster: {why}; set KUBECONFIG, or choose with --kubeconfig and --context, or run in a pod with a ServiceAccount"
    )]
    NoCluster { why: String },
    #[error("{file} has no context {context}; {hint}")]
    NoContext {
        file: String,
        context: String,
        hint: String,
    },
    #[error("{file}: {why}; kubectl config view shows the kubeconfig in use")]
    Kubeconfig { file: String, why: String },
}

/// Why a request has no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("{0}")]
    NoAnswer(String),
    /// The API server refuses; the message is its own.
    #[error("{message} ({code})")]
    Refused { code: StatusCode, message: String },
}

/// An answer with a status of success.
#[derive(Debug)]
pub struct ApiAnswer {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Makes a client. Sends no request.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    choice: &ClusterChoice,
    deadline: Duration,
) -> Result<ClusterClient, ConnectError> {
    // kube uses rustls' process default; a second call fails and keeps the first one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (mut config, context) = match from_kubeconfig(choice).await {
        Ok((config, context)) => (config, Some(context)),
        Err(error) if choice.kubeconfig.is_some() || choice.context.is_some() => return Err(error),
        Err(error) => match kube::Config::incluster() {
            Ok(config) => (config, None),
            // In a pod, its ServiceAccount is the likelier mistake.
            Err(InClusterError::ReadEnvironmentVariable(_)) => return Err(error),
            Err(in_pod) => {
                return Err(ConnectError::NoCluster {
                    why: with_causes(&in_pod),
                });
            }
        },
    };
    config.apply_debug_overrides();
    config.default_retry = false;
    let (url, namespace) = (
        config.cluster_url.to_string(),
        config.default_namespace.clone(),
    );
    let client = Client::try_from(config).map_err(|error| ConnectError::NoCluster {
        why: format!("{url}: {}", with_causes(&error)),
    })?;
    Ok(ClusterClient {
        client,
        url: url.trim_end_matches('/').to_owned(),
        context,
        namespace,
        deadline: deadline.min(NO_DEADLINE),
    })
}

/// Returns the configuration of the chosen or current context, with its name.
async fn from_kubeconfig(choice: &ClusterChoice) -> Result<(kube::Config, String), ConnectError> {
    let file = choice.kubeconfig.as_ref().map_or_else(
        || "the kubeconfig".to_owned(),
        |path| path.display().to_string(),
    );
    let broken = |error: KubeconfigError| ConnectError::Kubeconfig {
        file: file.clone(),
        why: match error {
            KubeconfigError::ReadConfig(cause, _) => format!("cannot be read: {cause}"),
            error => with_causes(&error),
        },
    };
    let kubeconfig = match &choice.kubeconfig {
        Some(path) => Kubeconfig::read_from(path).map_err(broken)?,
        None => Kubeconfig::read().map_err(|error| match error {
            KubeconfigError::ReadConfig(cause, path) => ConnectError::NoCluster {
                why: format!("{}: {cause}", path.display()),
            },
            KubeconfigError::FindPath => ConnectError::NoCluster {
                why: "there is no kubeconfig".to_owned(),
            },
            error => broken(error),
        })?,
    };
    let names: Vec<&str> = kubeconfig
        .contexts
        .iter()
        .map(|context| context.name.as_str())
        .collect();
    let current = kubeconfig.current_context.clone();
    let Some(context) = choice
        .context
        .clone()
        .or(current.filter(|name| !name.is_empty()))
    else {
        return Err(ConnectError::NoCluster {
            why: format!("{file} has no current-context; {}", contexts(&names)),
        });
    };
    if !names.contains(&context.as_str()) {
        let hint = nearest(&context, &names).map_or_else(
            || contexts(&names),
            |meant| format!("did you mean --context {meant}?"),
        );
        return Err(ConnectError::NoContext {
            file,
            context,
            hint,
        });
    }
    let options = KubeConfigOptions {
        context: Some(context.clone()),
        ..KubeConfigOptions::default()
    };
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(broken)?;
    Ok((config, context))
}

fn contexts(names: &[&str]) -> String {
    if names.is_empty() {
        "it has no contexts".to_owned()
    } else {
        format!("its contexts are {}", listed(names, MAX_CONTEXTS))
    }
}

impl ClusterClient {
    /// Sends a request.
    ///
    /// # Errors
    /// [`RequestError`], also for every status that is not a success.
    pub async fn send(&self, request: Request<Body>) -> Result<ApiAnswer, RequestError> {
        let exchange = async {
            let response = self
                .client
                .send(request)
                .await
                .map_err(|error| with_causes(&error))?;
            let (head, body) = response.into_parts();
            Ok::<_, String>((head, collect(body, MAX_ANSWER_BYTES).await?))
        };
        let (head, body) = within(self.deadline, exchange)
            .await
            .map_err(RequestError::NoAnswer)?;
        if head.status.is_success() {
            return Ok(ApiAnswer {
                headers: head.headers,
                body,
            });
        }
        Err(RequestError::Refused {
            code: head.status,
            message: shown(&body, MAX_SHOWN_CHARS),
        })
    }

    /// Reads one document.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RequestError> {
        self.get_as(path, "application/json").await
    }

    /// As [`Self::get`], in another form of the document.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn get_as<T: DeserializeOwned>(
        &self,
        path: &str,
        accept: &str,
    ) -> Result<T, RequestError> {
        let request = Request::get(path)
            .header(header::ACCEPT, accept)
            .body(Body::empty())
            .map_err(|error| RequestError::NoAnswer(error.to_string()))?;
        let answer = self.send(request).await?;
        serde_json::from_slice(&answer.body)
            .map_err(|error| RequestError::NoAnswer(format!("not the expected answer: {error}")))
    }
}

/// URL and context, for messages.
impl fmt::Display for ClusterClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.context {
            Some(context) => write!(f, "{} (context {context})", self.url),
            None => write!(f, "{} (ServiceAccount of this pod)", self.url),
        }
    }
}

impl fmt::Debug for ClusterClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterClient({self})")
    }
}
