//! Arguments of `timeshard serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::core::kube::scope::Scope;
use crate::core::model::duration::{DurationError, PromDuration};

/// Run the admission webhook and, on one replica, the controller.
///
/// Watches labelled namespaces (in-cluster configuration or KUBECONFIG), or nothing with
/// --webhook-only. The replica that holds the lease maintains ConfigMaps, PDBs and Services and
/// moves running pods to new windows. SIGTERM drains and releases the lease; a second signal stops
/// the server immediately.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::cli::with_names("\
Examples:
  timeshard serve --config config.yaml --self-signed                     # in a pod
  timeshard serve --webhook-only --config config.yaml --cert-dir certs   # without a cluster"))]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) config: crate::cli::ConfigArgs,
    /// Directory with tls.crt and tls.key (a mounted Secret); reloaded when it changes
    #[arg(
        long,
        value_name = "DIR",
        env = "TIMESHARD_CERT_DIR",
        default_value = "/etc/timeshard/tls"
    )]
    pub(super) cert_dir: PathBuf,
    /// Address of the webhook (HTTPS); 0.0.0.0 means every address, including IPv6
    #[arg(
        long,
        value_name = "ADDR",
        env = "TIMESHARD_LISTEN",
        default_value = "0.0.0.0:8443"
    )]
    pub(super) listen: SocketAddr,
    /// Address of the page (/), /livez, /readyz, /metrics and /status (plain HTTP)
    #[arg(
        long,
        value_name = "ADDR",
        env = "TIMESHARD_ADMIN_LISTEN",
        default_value = "0.0.0.0:8080"
    )]
    pub(super) admin_listen: SocketAddr,
    /// Address of /livez and /readyz alone, for kubelet's probes (plain HTTP); a network policy
    /// should not open it to pods
    #[arg(
        long,
        value_name = "ADDR",
        env = "TIMESHARD_PROBE_LISTEN",
        default_value = "0.0.0.0:8081"
    )]
    pub(super) probe_listen: SocketAddr,
    /// CA (PEM) that must have signed the client certificate of callers of the webhook; reloaded
    /// when it changes. Default: no client certificate is required
    #[arg(long, value_name = "FILE", env = "TIMESHARD_CLIENT_CA")]
    pub(super) client_ca: Option<PathBuf>,
    /// Common name or DNS name that a client certificate must have, such as kube-apiserver; repeat
    /// it, or separate several by commas. Default: any that the CA signed
    #[arg(
        long,
        value_name = "NAME",
        env = "TIMESHARD_CLIENT_NAME",
        value_delimiter = ',',
        requires = "client_ca"
    )]
    pub(super) client_name: Vec<String>,
    /// Additional host name for which the admin port answers, besides IPs, localhost and names
    /// within the cluster: that of an Ingress, say. Repeat it, or separate several by commas
    #[arg(
        long,
        value_name = "NAME",
        env = "TIMESHARD_ADMIN_HOST",
        value_delimiter = ','
    )]
    pub(super) admin_host: Vec<String>,
    /// Serve without a cluster: every StatefulSet gets the configuration's defaults
    #[arg(long, env = "TIMESHARD_WEBHOOK_ONLY")]
    pub(super) webhook_only: bool,
    /// Write only Events: admission alone, for clusters where another tool maintains the ConfigMaps
    #[arg(long, env = "TIMESHARD_NO_REFRESHER")]
    pub(super) no_refresher: bool,
    /// Namespaces in which the server has a Role, separated by commas; others are reported when they
    /// are labelled, and skipped. Default: it has rights in the whole cluster
    #[arg(long, value_name = "NAMES", env = "TIMESHARD_NAMESPACES", default_value = "", hide_default_value = true, value_parser = Scope::parse)]
    pub(super) namespaces: Scope,
    /// Also ask sidecars of pods with a loopback address or one of this machine: for tests without a
    /// pod network
    #[arg(long, env = "TIMESHARD_ALLOW_LOCAL_PODS")]
    pub(super) allow_local_pods: bool,
    /// Name of this replica, for the lease. Default: the host's name and a random suffix
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub(super) pod_name: Option<String>,
    /// Namespace of the lease. Default: the one of the in-cluster configuration or KUBECONFIG
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    pub(super) pod_namespace: Option<String>,
    /// How long to keep serving after SIGTERM, until no API server uses this address any longer
    /// (0s to 1h)
    #[arg(long, value_name = "DURATION", env = "TIMESHARD_SHUTDOWN_DRAIN", default_value = "10s", value_parser = parse_drain)]
    pub(super) shutdown_drain: PromDuration,
    /// Log level: error, warn, info, debug, trace, or filters such as info,kube=debug
    #[arg(long, value_name = "FILTER", env = "TIMESHARD_LOG", default_value = "info", value_parser = parse_filter)]
    pub(super) log: String,
    /// Log format
    #[arg(
        long,
        value_name = "FORMAT",
        env = "TIMESHARD_LOG_FORMAT",
        default_value = "text"
    )]
    pub(super) log_format: LogFormat,
    // Last, since later options would come under its heading.
    #[command(flatten)]
    pub(super) own: super::self_signed::Args,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// Lines to read
    Text,
    /// One JSON object per line
    Json,
}

fn parse_drain(text: &str) -> Result<PromDuration, String> {
    let value: PromDuration = text
        .parse()
        .map_err(|error: DurationError| error.to_string())?;
    if value < PromDuration::ZERO || value > PromDuration::from_secs(3_600) {
        Err("write a duration from 0s to 1h".to_owned())
    } else {
        Ok(value)
    }
}

fn parse_filter(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}
