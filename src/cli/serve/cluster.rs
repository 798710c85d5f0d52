//! Connects the server to its cluster: watches, Events, certificates, and the controller with its
//! leader election.

use std::sync::Arc;

use kube::Client;
use tokio::task::JoinHandle;

use super::args::Args;
use super::{Background, Failure};
use crate::adapters::https::tls::Certificates;
use crate::adapters::kube::certificates::CertificateState;
use crate::adapters::kube::cluster::{self, Observed};
use crate::adapters::kube::leader_status::LeaderAddress;
use crate::adapters::kube::lease::{self, Leadership, LeadershipMetrics, LeaseSettings};
use crate::adapters::kube::{events, rights};
use crate::adapters::signals::{self, Shutdown, ShutdownStage};
use crate::controller::cache::{CacheMetrics, ClusterCache};
use crate::controller::reports::Reports;
use crate::controller::{Controller, Replica, watch};
use crate::core::kube::pod_address::Asked;
use crate::page::leader::LeaderReports;

/// The parts of a server that need a cluster.
pub(super) struct ClusterTasks {
    pub(super) events: events::Sender,
    pub(super) cache: Arc<ClusterCache>,
    pub(super) candidate: Option<ElectionCandidate>,
    pub(super) self_signed: Option<Arc<CertificateState>>,
}

/// This replica as a candidate for the lease.
pub(super) struct ElectionCandidate {
    pub(super) leadership: Leadership,
    pub(super) reports: Arc<Reports>,
    /// The reports of the replica that leads, while this one does not.
    pub(super) of_leader: Arc<LeaderReports>,
    /// Ends once the lease is released.
    pub(super) released: JoinHandle<()>,
}

pub(super) async fn join(
    args: &Args,
    (observed, certificates): (&Arc<Observed>, &Arc<Certificates>),
    background: &mut Background,
    shutdown: &Shutdown,
) -> Result<ClusterTasks, Failure> {
    let client = cluster::connect().await.map_err(|error| {
        Failure::Failed(format!("no cluster: {error}; run in a pod with a ServiceAccount, set KUBECONFIG, or use --webhook-only"))
    })?;
    let Background { tasks, registry } = background;
    let namespace = args.pod_namespace.as_deref();
    let self_signed = args
        .own
        .start(&client, namespace, certificates, tasks, registry)?;
    let (events, receiver) = events::queue();
    // With a controller only its leader sends Events about plans.
    let of_plans = Some(events.clone()).filter(|_| args.no_refresher);
    tasks.spawn(cluster::follow(client.clone(), observed.clone(), of_plans));
    tasks.spawn(events::write(client.clone(), receiver));
    if let (Some(namespace), Some(pod)) = (&args.pod_namespace, &args.pod_name) {
        let own_pod = (namespace.clone(), pod.clone());
        tasks.spawn(rights::notify(
            client.clone(),
            observed.rights.clone(),
            own_pod,
        ));
    }
    // Also without a controller: the guard needs to know which pods are ready.
    let cache = ClusterCache::new(observed.clone());
    registry.register_collector(Box::new(CacheMetrics(cache.clone())));
    let purpose = if args.no_refresher {
        watch::Purpose::Guard
    } else {
        watch::Purpose::Rollouts
    };
    tasks.spawn(watch::follow(client.clone(), cache.clone(), purpose));
    let candidate =
        (!args.no_refresher).then(|| elect(args, client, (&cache, &events), background, shutdown));
    Ok(ClusterTasks {
        events,
        cache,
        candidate,
        self_signed,
    })
}

/// Starts the controller and its leader election.
fn elect(
    args: &Args,
    client: Client,
    (cache, events): (&Arc<ClusterCache>, &events::Sender),
    background: &mut Background,
    shutdown: &Shutdown,
) -> ElectionCandidate {
    let settings = LeaseSettings::of_pod(args.pod_name.clone(), args.pod_namespace.clone());
    let replica = Replica {
        name: settings.identity.clone(),
        namespace: settings
            .namespace
            .clone()
            .unwrap_or_else(|| client.default_namespace().to_owned()),
    };
    // The lease is released once the controller has stopped, or immediately at the second signal.
    let (release, retire) = signals::channel();
    let (leadership, election) = lease::run(client.clone(), settings, retire);
    let registry = &mut background.registry;
    registry.register_collector(Box::new(LeadershipMetrics(leadership.clone())));
    let asked = if args.allow_local_pods {
        Asked::OwnMachineToo
    } else {
        Asked::Pods
    };
    let leader = LeaderAddress {
        client: client.clone(),
        namespace: replica.namespace.clone(),
        asked,
        port: args.admin_listen.port(),
    };
    let of_leader = Arc::<LeaderReports>::default();
    background
        .tasks
        .spawn(of_leader.clone().follow(move |holder| {
            let leader = leader.clone();
            async move { leader.status(&holder).await }
        }));
    let controller = Controller::new(
        client,
        cache.clone(),
        leadership.clone(),
        events.clone(),
        (replica, shutdown.clone()),
        asked,
        registry,
    );
    let reports = controller.reports();
    let mut shutdown = shutdown.clone();
    background.tasks.spawn(async move {
        tokio::select! {
            () = controller.run() => {}
            () = shutdown.reached(ShutdownStage::Abort) => {}
        }
        release.signal();
        shutdown.reached(ShutdownStage::Abort).await;
        release.signal();
    });
    ElectionCandidate {
        leadership,
        reports,
        of_leader,
        released: tokio::spawn(election),
    }
}
