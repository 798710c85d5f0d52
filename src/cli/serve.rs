//! `timeshard serve`: puts the parts together and runs them until a signal.
//!
//! Order matters: configuration and certificate are loaded before a port is bound, so that a mistake is an exit code and
//! a sentence, and never a server that answers nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::TcpListener;

use super::{Failure, page_source};
use crate::adapters::admin::{self, Admin};
use crate::adapters::client_ca::{ClientCa, ClientCaMetrics};
use crate::adapters::cluster::{self, Observed, ObservedMetrics};
use crate::adapters::config_file::{ConfigFile, ConfigFileMetrics};
use crate::adapters::lease::{self, Leadership, LeadershipMetrics};
use crate::adapters::probes::{Probes, Pulse};
use crate::adapters::serve::{Edge, Limits, ServeStats};
use crate::adapters::signals::Stage;
use crate::adapters::tls::{Certificates, TlsSettings};
use crate::adapters::{
    clock, events, hosts, listen, log_text, probes, rights, self_signed, signals,
};
use crate::core::config::Config;
use crate::core::duration::PromDuration;
use crate::core::fleet::Fleet;
use crate::core::pod_address::Asked;
use crate::core::scope::Scope;
use crate::page::feed as page;
use crate::refresher::reports::Reports;
use crate::refresher::seen::{Seen, SeenMetrics};
use crate::refresher::{Refresher, Replica, observe};
use crate::webhook::{self, Metrics, Reviewer};

/// Files are looked at this often although they are watched: a notification can be lost.
const FILE_POLL: Duration = Duration::from_mins(1);
/// More threads than this do not help a webhook.
const MOST_THREADS: usize = 4;

/// Files and sockets that the server asks the system for: what all its ports may have open, and the rest. Some systems begin with
/// 1024.
const DESCRIPTORS: u64 = 4096;

/// Run the admission webhook, and on one replica the refresher.
///
/// Reads labelled namespaces (in-cluster configuration or KUBECONFIG), or nothing at all with --webhook-only. The replica
/// that holds the lease keeps ConfigMaps, budgets and Services right and moves running pods to new windows. SIGTERM drains
/// and hands the lease over; a second signal ends at once.
#[derive(Debug, clap::Args)]
#[command(after_help = super::NAMES_HELP)]
pub(super) struct Args {
    #[command(flatten)]
    config: super::ConfigArgs,
    /// Directory with tls.crt and tls.key (a mounted Secret); reloaded when it changes
    #[arg(
        long,
        value_name = "DIR",
        env = "TIMESHARD_CERT_DIR",
        default_value = "/etc/timeshard/tls"
    )]
    cert_dir: PathBuf,
    /// Address of the webhook (HTTPS); 0.0.0.0 is every address, those of IPv6 too
    #[arg(
        long,
        value_name = "ADDR",
        env = "TIMESHARD_LISTEN",
        default_value = "0.0.0.0:8443"
    )]
    listen: SocketAddr,
    /// Address of the page (/), /livez, /readyz, /metrics and /status (plain HTTP)
    #[arg(
        long,
        value_name = "ADDR",
        env = "TIMESHARD_ADMIN_LISTEN",
        default_value = "0.0.0.0:8080"
    )]
    admin_listen: SocketAddr,
    /// Address of kubelet's probes, /livez and /readyz and nothing else (plain HTTP); a network policy should not open it to pods
    #[arg(
        long,
        value_name = "ADDR",
        env = "TIMESHARD_PROBE_LISTEN",
        default_value = "0.0.0.0:8081"
    )]
    probe_listen: SocketAddr,
    /// CA (PEM) that must have signed the client certificate of whoever calls the webhook; reloaded when it changes. Without it
    /// nobody is asked for one
    #[arg(long, value_name = "FILE", env = "TIMESHARD_CLIENT_CA")]
    client_ca: Option<PathBuf>,
    /// Common name or DNS name that a client certificate must have, such as kube-apiserver; repeat it, or write several with
    /// commas. Default: any that the CA signed
    #[arg(
        long,
        value_name = "NAME",
        env = "TIMESHARD_CLIENT_NAME",
        value_delimiter = ',',
        requires = "client_ca"
    )]
    client_name: Vec<String>,
    /// Further name under which the admin port answers, beside IPs, localhost and names within the cluster: that of an Ingress, say.
    /// Repeat it, or write several with commas
    #[arg(
        long,
        value_name = "NAME",
        env = "TIMESHARD_ADMIN_HOST",
        value_delimiter = ','
    )]
    admin_host: Vec<String>,
    /// Serve without a cluster: every StatefulSet gets the configuration's defaults
    #[arg(long, env = "TIMESHARD_WEBHOOK_ONLY")]
    webhook_only: bool,
    /// Write nothing but Events: admission alone, for clusters whose ConfigMaps somebody else keeps
    #[arg(long, env = "TIMESHARD_NO_REFRESHER")]
    no_refresher: bool,
    /// Namespaces in which the server has a Role, with commas between them; others are reported when they are labelled, and left
    /// alone. Default: it has rights in the whole cluster
    #[arg(long, value_name = "NAMES", env = "TIMESHARD_NAMESPACES", default_value = "", hide_default_value = true, value_parser = Scope::parse)]
    namespaces: Scope,
    /// Also ask sidecars of pods whose address is loopback or this machine's own: for tests without a pod network
    #[arg(long, env = "TIMESHARD_ALLOW_LOCAL_PODS")]
    allow_local_pods: bool,
    /// Name of this replica, for the lease. Default: the host's name and a random suffix
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pod_name: Option<String>,
    /// Namespace of the lease. Default: the one of the in-cluster configuration or KUBECONFIG
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    pod_namespace: Option<String>,
    /// How long to keep serving after SIGTERM, until every API server has let go of this address (0s to 1h)
    #[arg(long, value_name = "DURATION", env = "TIMESHARD_SHUTDOWN_DRAIN", default_value = "10s", value_parser = parse_drain)]
    shutdown_drain: PromDuration,
    /// What to log: error, warn, info, debug, trace, or filters such as info,kube=debug
    #[arg(long, value_name = "FILTER", env = "TIMESHARD_LOG", default_value = "info", value_parser = parse_filter)]
    log: String,
    /// How to log
    #[arg(
        long,
        value_name = "FORMAT",
        env = "TIMESHARD_LOG_FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
    // Last, since what follows would come under its heading.
    #[command(flatten)]
    own: super::self_signed::Args,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

fn parse_drain(text: &str) -> Result<PromDuration, String> {
    let value: PromDuration = text
        .parse()
        .map_err(|error: crate::core::duration::DurationError| error.to_string())?;
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

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    log(args);
    listen::allow_descriptors(DESCRIPTORS);
    let threads = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(MOST_THREADS);
    let mut builder = if threads == 1 {
        // One core: a second thread costs a fifth of the throughput.
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime does not start: {error}")))?;
    runtime.block_on(serve(args))
}

fn log(args: &Args) {
    let filter = tracing_subscriber::EnvFilter::new(&args.log);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call, as in tests, keeps the first subscriber.
    let _ = match args.log_format {
        LogFormat::Text => builder
            .with_ansi(false)
            .fmt_fields(log_text::fields())
            .try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

async fn serve(args: &Args) -> Result<(), Failure> {
    let (file, config) = load_config(args)?;
    let Secured {
        certificates,
        client_ca,
        tls,
    } = secured(args)?;
    let Ports {
        listener,
        admin_listener,
        probe_listener,
    } = bind_all(args)?;
    let shutdown = signals::install()
        .map_err(|error| Failure::Failed(format!("signals cannot be caught: {error}")))?;

    let observed = Observed::within(Fleet::new(config), args.namespaces.clone());
    let stats = Arc::new(ServeStats::default());
    let mut registry = Registry::default();
    registry.register(
        "timeshard_build",
        "Version of the server",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    let metrics = Metrics::new(&mut registry);
    registry.register_collector(Box::new(ObservedMetrics(observed.clone())));
    registry.register_collector(Box::new(certificates.clone()));
    registry.register_collector(Box::new(stats.clone()));
    registry.register_collector(Box::new(ClientCaMetrics(client_ca.clone())));

    let mut tasks = tokio::task::JoinSet::new();
    let pulse = Pulse::new();
    tasks.spawn(pulse.clone().beat());
    if let Some(client_ca) = client_ca {
        tasks.spawn(client_ca.follow(FILE_POLL));
    }
    if !args.own.self_signed {
        tasks.spawn(
            certificates
                .clone()
                .follow(args.cert_dir.clone(), FILE_POLL),
        );
    }
    if let Some(file) = &file {
        registry.register_collector(Box::new(ConfigFileMetrics(file.clone())));
        let observed = observed.clone();
        tasks.spawn(file.clone().follow(FILE_POLL, move |config| {
            observed.update(|fleet| Some(fleet.with_config(config)))
        }));
    }
    if args.webhook_only {
        observed.nothing_to_list();
    }
    let parts = (&observed, &certificates);
    let joined = if args.webhook_only {
        None
    } else {
        Some(join_cluster(args, parts, &mut tasks, &mut registry, &shutdown).await?)
    };
    let (notices, seen, refresher, own) = joined.map_or((None, None, None, None), |joined| {
        (
            Some(joined.notices),
            Some(joined.seen),
            joined.refresher,
            joined.self_signed,
        )
    });
    let leading = refresher
        .as_ref()
        .map(|refresher| (refresher.leadership.clone(), refresher.reports.clone()));
    let (webhook_only, namespace) = (args.webhook_only, args.pod_namespace.clone());
    let served = certificates.clone();
    let head = Arc::new(Head {
        observed: observed.clone(),
        certificates,
        own: own.clone(),
        file,
        webhook_only,
        namespace,
        leading,
    });
    let (document, looked) = (head.clone(), head);
    let pages = crate::page::router(
        page::Feed::new(Box::new(move || looked.page())),
        shutdown.clone(),
    );
    let ready: admin::Ready = {
        let (observed, alone) = (observed.clone(), args.webhook_only);
        Arc::new(move || {
            own.as_ref().map_or(Ok(()), |own| own.ready())?;
            served.in_time(clock::now())?;
            if alone || observed.is_synced() {
                Ok(())
            } else {
                Err(not_synced(&observed))
            }
        })
    };
    let bound = |listener: &TcpListener, asked| listener.local_addr().unwrap_or(asked);
    let (listen, admin_listen) = (
        bound(&listener, args.listen),
        bound(&admin_listener, args.admin_listen),
    );
    let probe_listen = bound(&probe_listener, args.probe_listen);
    let probes = Probes {
        ready: ready.clone(),
        shutdown: shutdown.clone(),
        pulse,
    };
    probes::start(probe_listener, probes)
        .map_err(|error| Failure::Failed(format!("probes cannot be served: {error}")))?;
    let write_status = Arc::new(move |out: &mut dyn std::io::Write| document.write_status(out));
    let admin = Admin {
        ready,
        metrics: Arc::new(registry),
        status: write_status,
        shutdown: shutdown.clone(),
    };
    tasks.spawn(admin::serve(
        admin_listener,
        hosts::only(admin::router(admin).merge(pages), args.admin_host.clone()),
    ));
    tracing::info!(%listen, %admin_listen, %probe_listen, webhook_only = args.webhook_only, "serving");
    let routes = webhook::router(reviewer(&observed, seen), metrics, notices);
    let edge = Edge {
        listener,
        tls: Some(tls),
        limits: Limits::default(),
        drain: args.shutdown_drain.to_std(),
        stats,
        shutdown,
    };
    edge.serve(TowerToHyperService::new(routes)).await;
    if let Some(refresher) = refresher {
        // The lease is given back, or others would wait until it expires.
        let _ = refresher.ended.await;
    }
    tracing::info!("all requests are answered; good bye");
    Ok(())
}

fn reviewer(observed: &Observed, seen: Option<Arc<Seen>>) -> Reviewer {
    let reviewer = Reviewer::new(observed.fleet.clone(), clock::now);
    let Some(seen) = seen else { return reviewer };
    let rights = observed.rights.clone();
    reviewer
        .with_pods(Arc::new(move |namespace, statefulset| {
            seen.pods(namespace, statefulset)
        }))
        .with_rights(Arc::new(move |namespace| rights.lacks(namespace)))
}

/// How the webhook shows who it is, and whom it asks the same.
struct Secured {
    certificates: Arc<Certificates>,
    client_ca: Option<Arc<ClientCa>>,
    tls: Arc<TlsSettings>,
}

fn secured(args: &Args) -> Result<Secured, Failure> {
    let certificates = if args.own.self_signed {
        args.own.checked("namespace")?;
        // The Secret is read once the cluster is known; until then this replica is not ready.
        Certificates::none()
    } else {
        Certificates::load_dir(&args.cert_dir)
            .map_err(|error| Failure::Invalid(format!("--cert-dir: {error}")))?
    };
    let client_ca = args
        .client_ca
        .as_ref()
        .map(|path| ClientCa::load(path, args.client_name.clone()))
        .transpose();
    let client_ca = client_ca.map_err(|error| Failure::Invalid(format!("--client-ca: {error}")))?;
    let tls = certificates
        .server_config_for(client_ca.clone())
        .map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(Secured {
        certificates,
        client_ca,
        tls,
    })
}

struct Ports {
    listener: TcpListener,
    admin_listener: TcpListener,
    probe_listener: TcpListener,
}

fn bind_all(args: &Args) -> Result<Ports, Failure> {
    Ok(Ports {
        listener: bind(args.listen, "--listen")?,
        admin_listener: bind(args.admin_listen, "--admin-listen")?,
        probe_listener: bind(args.probe_listen, "--probe-listen")?,
    })
}

/// What a server with a cluster has beside the webhook.
struct Joined {
    notices: events::Sender,
    seen: Arc<Seen>,
    refresher: Option<Candidate>,
    self_signed: Option<Arc<self_signed::State>>,
}

/// This replica as one that may lead.
struct Candidate {
    leadership: Leadership,
    reports: Arc<Reports>,
    /// Ends after the lease was given back.
    ended: tokio::task::JoinHandle<()>,
}

fn load_config(args: &Args) -> Result<(Option<Arc<ConfigFile>>, Arc<Config>), Failure> {
    match &args.config.config {
        None => Ok((None, Arc::new(Config::default()))),
        Some(path) if path.as_os_str() == "-" => Err(Failure::Invalid(
            "--config -: the server follows its configuration, so it must be a file".to_owned(),
        )),
        Some(path) => ConfigFile::load(path)
            .map(|(file, config)| (Some(file), config))
            .map_err(|error| Failure::Invalid(error.to_string())),
    }
}

fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    listen::bind(address).map_err(|error| {
        Failure::Failed(format!("{flag} {address}: cannot be listened on: {error}"))
    })
}

/// Starts the watches, the writer of Events, what keeps the certificates, and the refresher with its election.
async fn join_cluster(
    args: &Args,
    (observed, certificates): (&Arc<Observed>, &Arc<Certificates>),
    tasks: &mut tokio::task::JoinSet<()>,
    registry: &mut Registry,
    shutdown: &signals::Shutdown,
) -> Result<Joined, Failure> {
    let client = cluster::connect().await.map_err(|error| {
        Failure::Failed(format!("no cluster: {error}; run in a pod with a ServiceAccount, set KUBECONFIG, or use --webhook-only"))
    })?;
    let self_signed = args.own.start(
        &client,
        args.pod_namespace.as_deref(),
        certificates,
        tasks,
        registry,
    )?;
    let (notices, receiver) = events::queue();
    // Where a refresher runs, its leader alone tells what is new about plans.
    let remarks = Some(notices.clone()).filter(|_| args.no_refresher);
    tasks.spawn(cluster::follow(client.clone(), observed.clone(), remarks));
    tasks.spawn(events::write(client.clone(), receiver));
    if let (Some(namespace), Some(pod)) = (&args.pod_namespace, &args.pod_name) {
        tasks.spawn(rights::tell(
            client.clone(),
            observed.rights.clone(),
            (namespace.clone(), pod.clone()),
        ));
    }
    // Without a refresher, too: the guard counts on pods that are ready.
    let seen = Seen::new(observed.clone());
    registry.register_collector(Box::new(SeenMetrics(seen.clone())));
    let purpose = if args.no_refresher {
        observe::Purpose::Guard
    } else {
        observe::Purpose::Rollouts
    };
    tasks.spawn(observe::follow(client.clone(), seen.clone(), purpose));
    if args.no_refresher {
        return Ok(Joined {
            notices,
            seen,
            refresher: None,
            self_signed,
        });
    }
    let settings = lease::Settings::of_pod(args.pod_name.clone(), args.pod_namespace.clone());
    let replica = Replica {
        name: settings.identity.clone(),
        namespace: settings
            .namespace
            .clone()
            .unwrap_or_else(|| client.default_namespace().to_owned()),
    };
    // The lease is given back when the refresher has let go of what it holds, or at once at the second signal.
    let (hand_over, retire) = signals::channel();
    let (leadership, election) = lease::run(client.clone(), settings, retire);
    registry.register_collector(Box::new(LeadershipMetrics(leadership.clone())));
    let (who, asked) = (
        (replica, shutdown.clone()),
        if args.allow_local_pods {
            Asked::OwnMachineToo
        } else {
            Asked::Pods
        },
    );
    let refresher = Refresher::new(
        client,
        seen.clone(),
        leadership.clone(),
        notices.clone(),
        who,
        asked,
        registry,
    );
    let reports = refresher.reports();
    let mut shutdown = shutdown.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = refresher.run() => {}
            () = shutdown.reached(Stage::Abort) => {}
        }
        hand_over.signal();
        shutdown.reached(Stage::Abort).await;
        hand_over.signal();
    });
    let ended = tokio::spawn(election);
    Ok(Joined {
        notices,
        seen,
        refresher: Some(Candidate {
            leadership,
            reports,
            ended,
        }),
        self_signed,
    })
}

fn not_synced(observed: &Observed) -> String {
    match observed.watches.last_error() {
        Some(error) => format!("the labelled namespaces are not listed yet: {error}"),
        None => "the labelled namespaces are not listed yet".to_owned(),
    }
}

/// What the server says of itself.
struct Head {
    observed: Arc<Observed>,
    certificates: Arc<Certificates>,
    own: Option<Arc<self_signed::State>>,
    file: Option<Arc<ConfigFile>>,
    webhook_only: bool,
    namespace: Option<String>,
    leading: Option<(Leadership, Arc<Reports>)>,
}

impl Head {
    fn value(&self) -> serde_json::Value {
        let leader = self.leading.as_ref().map(|(leadership, _)| {
            json!({"holder": leadership.holder(), "self": leadership.remaining().is_some(), "error": leadership.last_error()})
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "webhook_only": self.webhook_only,
            "namespace": self.namespace,
            "synced": self.webhook_only || self.observed.is_synced(),
            "watch_error": self.observed.watches.last_error(),
            "namespaces": self.observed.namespaces(),
            "namespaces_without_rights": self.observed.rights.all(),
            "not_taken_in": self.observed.refused().into_iter().map(|refused| refused.sentence).collect::<Vec<_>>(),
            "leader": leader,
            "certificate_not_after_unix_seconds": self.certificates.not_after_unix_seconds(),
            "certificate_error": self.certificates.last_failure().or_else(|| self.own.as_ref().and_then(|own| own.problem())),
            "config_error": self.file.as_ref().and_then(|file| file.last_failure()),
        })
    }

    fn write_status(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let fleet = self.observed.fleet.load_full();
        let reports = self.leading.as_ref().map(|(_, reports)| &**reports);
        let head = self.value().as_object().cloned().unwrap_or_default();
        let document = page_source::Status {
            head,
            statefulsets: page_source::Sets {
                fleet: &fleet,
                reports,
                now: clock::now(),
            },
        };
        serde_json::to_writer_pretty(&mut *out, &document)?;
        out.write_all(b"\n")
    }

    /// What the page shows: the same, without copying what the leader holds.
    fn page(&self) -> page::Known {
        let reports = self
            .leading
            .as_ref()
            .map(|(_, reports)| reports.latest())
            .unwrap_or_default();
        page::Known {
            head: self.value(),
            sets: page_source::sets(&self.observed.fleet.load(), &reports, clock::now()),
        }
    }
}
