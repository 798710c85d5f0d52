//! Flags of commands that ask a cluster, named as kubectl's.

use std::path::PathBuf;
use std::time::Duration;

use super::Failure;
use crate::adapters::http_client::DEADLINE;
use crate::adapters::kube::server_status::{Address, StatusAnswer, StatusSource};
use crate::adapters::kube::user_client::{ClusterChoice, ClusterClient, ConnectError, connect};
use crate::core::model::duration::PromDuration;
use crate::core::model::names;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ClusterArgs {
    /// Context of the kubeconfig. Default: its current-context
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Kubeconfig file. Default: the files in KUBECONFIG, then ~/.kube/config, then the
    /// ServiceAccount of the pod that this runs in
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Deadline of each request to the cluster, such as 30s or 2m; 0 for none. Default: 10s
    /// (check: 20s)
    #[arg(long, value_name = "DURATION", value_parser = parse_request_timeout)]
    request_timeout: Option<PromDuration>,
}

/// Where `timeshard serve` runs.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct SystemArgs {
    /// Namespace of `timeshard serve`
    #[arg(long, value_name = "NAMESPACE", env = "TIMESHARD_SYSTEM_NAMESPACE", default_value = names::SYSTEM_NAMESPACE, value_parser = parse_name)]
    pub(super) system_namespace: String,
}

impl ClusterArgs {
    /// Returns the deadline of a request, which is `default` unless the user sets one.
    pub(super) fn deadline(&self, default: Duration) -> Duration {
        match self.request_timeout {
            None => default,
            Some(PromDuration::ZERO) => Duration::MAX,
            Some(timeout) => timeout.to_std(),
        }
    }

    /// Connects; `without` says what the command can do without a cluster.
    pub(super) async fn connect(
        &self,
        default_deadline: Duration,
        without: &str,
    ) -> Result<ClusterClient, Failure> {
        self.try_connect(default_deadline)
            .await
            .map_err(|error| match Failure::from(error) {
                Failure::Failed(text) => Failure::Failed(format!("{text}{without}")),
                failure => failure,
            })
    }

    pub(super) async fn try_connect(
        &self,
        default_deadline: Duration,
    ) -> Result<ClusterClient, ConnectError> {
        let choice = ClusterChoice {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
        };
        connect(&choice, self.deadline(default_deadline)).await
    }

    /// The flags that choose this cluster, to be added to another timeshard command.
    pub(super) fn repeated(&self) -> String {
        let kubeconfig = self
            .kubeconfig
            .as_ref()
            .map(|path| path.display().to_string());
        [
            ("context", self.context.clone()),
            ("kubeconfig", kubeconfig),
        ]
        .into_iter()
        .filter_map(|(flag, value)| Some(format!(" --{flag}={}", value?)))
        .collect()
    }

    /// Whether the user names a cluster.
    pub(super) fn is_chosen(&self) -> bool {
        self.context.is_some() || self.kubeconfig.is_some()
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::NoCluster { .. } => Self::Failed(error.to_string()),
            // A wrong flag or file.
            ConnectError::NoContext { .. } | ConnectError::Kubeconfig { .. } => {
                Self::Invalid(error.to_string())
            }
        }
    }
}

/// A source of `/status`, and the cluster that it is in, for messages.
pub(super) struct StatusServer {
    source: StatusSource,
    cluster: Option<ClusterClient>,
}

impl StatusServer {
    /// The server at an address, or else the leader of the cluster.
    pub(super) async fn find(
        address: Option<&Address>,
        cluster: &ClusterArgs,
        system: &SystemArgs,
    ) -> Result<Self, Failure> {
        if let Some(address) = address {
            return Ok(Self::at(address.clone()));
        }
        let cluster = cluster
            .connect(
                DEADLINE,
                ", or use an address: --server http://127.0.0.1:8080",
            )
            .await?;
        Ok(Self::leader(cluster, system))
    }

    pub(super) fn at(address: Address) -> Self {
        Self {
            source: StatusSource::At(address),
            cluster: None,
        }
    }

    pub(super) fn leader(cluster: ClusterClient, system: &SystemArgs) -> Self {
        let source = StatusSource::Leader {
            client: cluster.client.clone(),
            namespace: system.system_namespace.clone(),
            deadline: cluster.deadline,
        };
        Self {
            source,
            cluster: Some(cluster),
        }
    }

    /// Asks for `/status`; a failure names the cluster.
    pub(super) async fn ask(&self) -> Result<StatusAnswer, Failure> {
        self.source.ask().await.map_err(|error| {
            Failure::Failed(match &self.cluster {
                Some(cluster) => format!("{cluster}: {error}"),
                None => error.to_string(),
            })
        })
    }
}

/// Reads a duration, or as kubectl a number of seconds.
fn parse_request_timeout(text: &str) -> Result<PromDuration, String> {
    let value = match text.parse::<u32>() {
        Ok(seconds) => PromDuration::from_secs(i64::from(seconds)),
        Err(_) => text
            .parse()
            .map_err(|error: crate::core::model::duration::DurationError| error.to_string())?,
    };
    if value >= PromDuration::ZERO {
        Ok(value)
    } else {
        Err("write a duration such as 30s, or 0 for none".to_owned())
    }
}

/// Validates the name of a namespace, which becomes part of a path.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    if names::is_name(text, names::MAX_LABEL_CHARS) {
        Ok(text.to_owned())
    } else {
        Err("write a namespace's name (a-z, 0-9, -), at most 63 characters".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_timeouts_are_durations_or_seconds() {
        for (text, want) in [
            ("30s", Some(30)),
            ("2m", Some(120)),
            ("5", Some(5)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("-1s", None),
            ("soon", None),
        ] {
            let got = parse_request_timeout(text).ok().map(PromDuration::as_secs);
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn zero_is_no_deadline() {
        let with = |request_timeout| ClusterArgs {
            context: None,
            kubeconfig: None,
            request_timeout,
        };
        let default = Duration::from_secs(10);
        assert_eq!(with(None).deadline(default), default);
        assert_eq!(
            with(Some(PromDuration::ZERO)).deadline(default),
            Duration::MAX
        );
        assert_eq!(
            with(Some(PromDuration::from_secs(3))).deadline(default),
            Duration::from_secs(3)
        );
    }
}
