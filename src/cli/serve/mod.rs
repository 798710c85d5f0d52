//! `timeshard serve`: assembles the server and runs it until a signal.
//!
//! Order matters: configuration and certificate are loaded before a port is bound, so that a
//! mistake is an exit code and a message, never a server that does not answer.

mod args;
mod cluster;
mod self_signed;
mod status;
#[cfg(test)]
mod status_api;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(super) use self::args::Args;
use self::args::LogFormat;
use self::status::StatusInputs;
use super::Failure;
use crate::adapters::config_file::{ConfigFile, ConfigFileMetrics};
use crate::adapters::https::admin::{self, Admin};
use crate::adapters::https::client_ca::{ClientCa, ClientCaMetrics};
use crate::adapters::https::probes::{self, Probes, Pulse};
use crate::adapters::https::serve::{Edge, Limits, ServeStats};
use crate::adapters::https::tls::{Certificates, TlsSettings};
use crate::adapters::kube::cluster::{Observed, ObservedMetrics};
use crate::adapters::signals::Shutdown;
use crate::adapters::{clock, host_names, listen, log_text, signals};
use crate::controller::cache::ClusterCache;
use crate::core::config::Config;
use crate::core::gateways::Gateways;
use crate::page::feed::Feed;
use crate::webhook::{self, Reviewer, WebhookMetrics};

/// Files are read this often although they are watched: a notification can be lost.
const FILE_POLL: Duration = Duration::from_mins(1);
/// More threads do not make a webhook faster.
const MAX_THREADS: usize = 4;
/// Open files and sockets that the server asks the system for: the limits of all its ports, and the
/// rest. Some systems allow only 1024 by default.
const DESCRIPTORS: u64 = 4096;

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    log(args);
    listen::allow_descriptors(DESCRIPTORS);
    let threads = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(MAX_THREADS);
    let mut builder = if threads == 1 {
        // On one core a second thread costs a fifth of the throughput.
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

/// Tasks and metrics of the server.
#[derive(Default)]
struct Background {
    tasks: JoinSet<()>,
    registry: Registry,
}

async fn serve(args: &Args) -> Result<(), Failure> {
    let (file, config) = load_config(args)?;
    let security = Security::load(args)?;
    let ports = Ports::bind(args)?;
    let shutdown = signals::install()
        .map_err(|error| Failure::Failed(format!("signals cannot be caught: {error}")))?;

    let observed = Observed::within(Gateways::new(config), args.namespaces.clone());
    let stats = Arc::new(ServeStats::default());
    let mut background = Background::default();
    let metrics = register(&mut background.registry, &observed, &security, &stats);
    follow_files(args, &observed, &security, file.as_ref(), &mut background);
    let cluster = if args.webhook_only {
        observed.nothing_to_list();
        None
    } else {
        let certificates = (&observed, &security.certificates);
        Some(cluster::join(args, certificates, &mut background, &shutdown).await?)
    };
    let (mut cache, mut events, mut candidate, mut self_signed) = (None, None, None, None);
    if let Some(cluster) = cluster {
        (cache, events) = (Some(cluster.cache), Some(cluster.events));
        (candidate, self_signed) = (cluster.candidate, cluster.self_signed);
    }
    let source = StatusInputs {
        observed: observed.clone(),
        certificates: security.certificates,
        self_signed,
        file,
        webhook_only: args.webhook_only,
        namespace: args.pod_namespace.clone(),
        leading: candidate.as_ref().map(StatusInputs::leading),
    };
    let listener = ports.webhook;
    let listen = listener.local_addr().unwrap_or(args.listen);
    let Background {
        mut tasks,
        registry,
    } = background;
    let admin = (ports.admin, ports.probes);
    let (admin_listen, probe_listen) =
        serve_admin(args, admin, source, registry, &mut tasks, &shutdown)?;
    tracing::info!(%listen, %admin_listen, %probe_listen, webhook_only = args.webhook_only, "serving");
    let edge = Edge {
        listener,
        tls: Some(security.tls),
        limits: Limits::default(),
        drain: args.shutdown_drain.to_std(),
        stats,
        shutdown,
    };
    let routes = webhook::router(reviewer(&observed, cache), metrics, events);
    edge.serve(TowerToHyperService::new(routes)).await;
    if let Some(candidate) = candidate {
        // Otherwise other replicas would wait until the lease expires.
        let _ = candidate.released.await;
    }
    tracing::info!("all requests are answered, exiting");
    Ok(())
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

/// The webhook's certificate, and the client certificates that it accepts.
struct Security {
    certificates: Arc<Certificates>,
    client_ca: Option<Arc<ClientCa>>,
    tls: Arc<TlsSettings>,
}

impl Security {
    fn load(args: &Args) -> Result<Self, Failure> {
        let certificates = if args.own.self_signed {
            args.own.checked("namespace")?;
            // The Secret is read once the cluster is connected; until then the server is not ready.
            Certificates::none()
        } else {
            Certificates::load_dir(&args.cert_dir)
                .map_err(|error| Failure::Invalid(format!("--cert-dir: {error}")))?
        };
        let client_ca = args
            .client_ca
            .as_ref()
            .map(|path| ClientCa::load(path, args.client_name.clone()))
            .transpose()
            .map_err(|error| Failure::Invalid(format!("--client-ca: {error}")))?;
        let tls = certificates
            .server_config_for(client_ca.clone())
            .map_err(|error| Failure::Failed(error.to_string()))?;
        Ok(Self {
            certificates,
            client_ca,
            tls,
        })
    }
}

struct Ports {
    webhook: TcpListener,
    admin: TcpListener,
    probes: TcpListener,
}

impl Ports {
    fn bind(args: &Args) -> Result<Self, Failure> {
        Ok(Self {
            webhook: bind(args.listen, "--listen")?,
            admin: bind(args.admin_listen, "--admin-listen")?,
            probes: bind(args.probe_listen, "--probe-listen")?,
        })
    }
}

fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    listen::bind(address).map_err(|error| {
        Failure::Failed(format!("{flag} {address}: cannot be listened on: {error}"))
    })
}

fn register(
    registry: &mut Registry,
    observed: &Arc<Observed>,
    security: &Security,
    stats: &Arc<ServeStats>,
) -> WebhookMetrics {
    registry.register(
        "timeshard_build",
        "Version of the server",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    let metrics = WebhookMetrics::new(registry);
    registry.register_collector(Box::new(ObservedMetrics(observed.clone())));
    registry.register_collector(Box::new(security.certificates.clone()));
    registry.register_collector(Box::new(stats.clone()));
    registry.register_collector(Box::new(ClientCaMetrics(security.client_ca.clone())));
    metrics
}

/// Reloads certificates, client CA and configuration when their files change.
fn follow_files(
    args: &Args,
    observed: &Arc<Observed>,
    security: &Security,
    config: Option<&Arc<ConfigFile>>,
    Background { tasks, registry }: &mut Background,
) {
    if let Some(client_ca) = &security.client_ca {
        tasks.spawn(client_ca.clone().follow(FILE_POLL));
    }
    if !args.own.self_signed {
        let certificates = security.certificates.clone();
        tasks.spawn(certificates.follow(args.cert_dir.clone(), FILE_POLL));
    }
    if let Some(file) = config {
        registry.register_collector(Box::new(ConfigFileMetrics(file.clone())));
        let observed = observed.clone();
        tasks.spawn(file.clone().follow(FILE_POLL, move |config| {
            observed.update(|fleet| Some(fleet.with_config(config)));
        }));
    }
}

/// Starts the admin port and the probe port; returns their addresses.
fn serve_admin(
    args: &Args,
    (admin_listener, probe_listener): (TcpListener, TcpListener),
    status: StatusInputs,
    registry: Registry,
    tasks: &mut JoinSet<()>,
    shutdown: &Shutdown,
) -> Result<(SocketAddr, SocketAddr), Failure> {
    let bound = |listener: &TcpListener, asked| listener.local_addr().unwrap_or(asked);
    let admin_listen = bound(&admin_listener, args.admin_listen);
    let probe_listen = bound(&probe_listener, args.probe_listen);
    let status = Arc::new(status);
    let ready = readiness(status.clone());
    let pulse = Pulse::new();
    tasks.spawn(pulse.clone().beat());
    let probes = Probes {
        ready: ready.clone(),
        shutdown: shutdown.clone(),
        pulse,
    };
    probes::start(probe_listener, probes)
        .map_err(|error| Failure::Failed(format!("probes cannot be served: {error}")))?;
    let page = status.clone();
    let pages = crate::page::router(Feed::new(Box::new(move || page.page())), shutdown.clone());
    let admin = Admin {
        ready,
        metrics: Arc::new(registry),
        status: Arc::new(move |out: &mut dyn std::io::Write| status.write(out)),
        shutdown: shutdown.clone(),
    };
    let routes = admin::router(admin).merge(pages);
    let routes = host_names::only(routes, args.admin_host.clone());
    tasks.spawn(admin::serve(admin_listener, routes));
    Ok((admin_listen, probe_listen))
}

/// Whether the webhook can answer; the reason if not.
fn readiness(status: Arc<StatusInputs>) -> admin::Ready {
    Arc::new(move || {
        if let Some(self_signed) = &status.self_signed {
            self_signed.ready()?;
        }
        status.certificates.in_time(clock::now())?;
        let observed = &status.observed;
        if status.webhook_only || observed.is_synced() {
            return Ok(());
        }
        Err(match observed.watches.last_error() {
            Some(error) => format!("the labelled namespaces are not listed yet: {error}"),
            None => "the labelled namespaces are not listed yet".to_owned(),
        })
    })
}

fn reviewer(observed: &Observed, cache: Option<Arc<ClusterCache>>) -> Reviewer {
    let reviewer = Reviewer::new(observed.fleet.clone(), clock::now);
    let Some(cache) = cache else { return reviewer };
    let rights = observed.rights.clone();
    reviewer
        .with_pods(Arc::new(move |namespace, statefulset| {
            cache.pods(namespace, statefulset)
        }))
        .with_rights(Arc::new(move |namespace| rights.lacks(namespace)))
}
