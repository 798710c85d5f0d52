//! Gathers what `timeshard check` looks at, from the API server and from the server's port.
//!
//! Invariants: lists come in pages, every request has a deadline, few run at a time; what is forbidden or fails becomes a
//! reason and never an error; nothing is changed: the only object that is sent to be made is sent as a dry run. Of the
//! Secret only `tls.crt` is read.

mod ask;
mod certificates;
mod dns;
mod installation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use hyper::{Request, header};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

pub use ask::Progress;
use ask::{Account, Asker, CONCURRENT, Form, escaped};
use installation::Installation;

use super::clock;
use super::server_status::{AskError, Server};
use crate::core::check::namespaces::is_labelled;
use crate::core::check::objects::{
    BudgetView, ConfigText, Meta, NodeView, Object, ServerDeployment, ServerPod, ServiceView,
    WebhookConfiguration, Workload,
};
use crate::core::check::{
    ApiFacts, DnsFacts, Got, INSTALLED, Lack, Preflight, ServerStatus, Snapshot, Space, rights,
};
use crate::core::duration::PromDuration;
use crate::core::names;
use crate::core::observed::{BudgetFacts, ServiceFacts};

/// What to look at.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where the server is.
    pub system: String,
    /// The one namespace to look at, if it is one.
    pub only: Option<String>,
    /// A configuration instead of the server's.
    pub config: Option<ConfigText>,
    /// Whom to ask for `/status`.
    pub server: Option<super::server_status::Address>,
    /// How long DNS remembers an answer, if the user says it.
    pub dns_cache: Option<PromDuration>,
}

/// Looks at a cluster.
pub async fn gather(client: Client, wanted: &Wanted, progress: Progress) -> Snapshot {
    let asker = Asker { client, progress };
    let api = api(&asker).await;
    if let Err(lack) = &api.version {
        // Nothing else would answer either, and each question would wait for its deadline.
        return nothing(wanted, api.clone(), lack);
    }
    let system = wanted.system.as_str();
    let ClusterLists {
        nodes,
        namespaces,
        webhooks,
        deployments,
        server_pods,
        maps,
        status,
    } = Box::pin(cluster_lists(&asker, wanted)).await;
    let labelled = labelled(&namespaces, wanted);
    let installation = Installation {
        asker: &asker,
        system,
        deployment: deployments.as_ref().ok().and_then(|all| all.first()),
    };
    let account = Account {
        namespace: system.to_owned(),
        name: installation.account(),
    };
    let (statefulsets, workloads, spaces, denied, config, dry_run, seen, dns) = tokio::join!(
        asker.everywhere::<Value>("statefulsets", "/apis/apps/v1", &labelled, Form::Whole),
        asker.everywhere::<Workload>("deployments", "/apis/apps/v1", &labelled, Form::Whole),
        spaces(&asker, &labelled),
        asker.denied(Some(&account), rights::server(), system, &labelled),
        config(&installation, wanted),
        installation.dry_run(
            labelled
                .iter()
                .find(|name| *name != "kube-system")
                .map(String::as_str)
        ),
        installation.certificate(&webhooks),
        dns::facts(&asker, wanted.dns_cache),
    );
    Snapshot {
        now: clock::now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        system: system.to_owned(),
        only: wanted.only.clone(),
        api,
        nodes,
        namespaces,
        webhooks,
        deployments,
        server_pods,
        service: seen.service,
        endpoints: seen.endpoints,
        authorities: seen.authorities,
        served: seen.served,
        secret: seen.secret,
        denied,
        dry_run,
        config,
        status,
        statefulsets,
        workloads,
        dns,
        maps,
        spaces,
    }
}

/// The configuration that the user gives, else the server's.
async fn config(installation: &Installation<'_>, wanted: &Wanted) -> Got<Option<ConfigText>> {
    if let Some(text) = &wanted.config {
        Ok(Some(text.clone()))
    } else {
        installation.config().await
    }
}

/// Cluster-wide lists and the server's own objects: what the questions to single namespaces depend on.
struct ClusterLists {
    nodes: Got<Vec<NodeView>>,
    namespaces: Got<Vec<Object>>,
    webhooks: Got<Vec<WebhookConfiguration>>,
    deployments: Got<Vec<ServerDeployment>>,
    server_pods: Got<Vec<ServerPod>>,
    maps: Got<Vec<Meta>>,
    status: Got<ServerStatus>,
}

/// Lists what is cluster-wide and what belongs to the server, and asks the server for its status.
async fn cluster_lists(asker: &Asker, wanted: &Wanted) -> ClusterLists {
    let system = wanted.system.as_str();
    let of_server = format!("&labelSelector={}", escaped(names::SERVER_PODS));
    let managed = format!(
        "&labelSelector={}",
        escaped(&format!(
            "{}={}",
            names::MANAGED_BY_LABEL,
            names::MANAGED_BY
        ))
    );
    let in_system = |group: &str, kind: &str| format!("{group}/namespaces/{system}/{kind}");
    let named = |kind: &str| format!("list {kind} in namespace {system}");
    let hooks = "mutatingwebhookconfigurations";
    let (namespaces, webhooks, deployments, server_pods, maps, nodes, status) = tokio::join!(
        asker.list("list namespaces", "/api/v1/namespaces", "", Form::Metadata),
        asker.list(
            format!("list {hooks}"),
            format!("/apis/admissionregistration.k8s.io/v1/{hooks}"),
            "",
            Form::Whole
        ),
        asker.list(
            named("deployments"),
            in_system("/apis/apps/v1", "deployments"),
            &of_server,
            Form::Whole
        ),
        asker.list(
            named("pods"),
            in_system("/api/v1", "pods"),
            &of_server,
            Form::Whole
        ),
        asker.list::<Object>(
            "list configmaps of the cluster",
            "/api/v1/configmaps",
            &managed,
            Form::Metadata
        ),
        asker.list("list nodes", "/api/v1/nodes", "", Form::Whole),
        status(asker, wanted),
    );
    let maps = maps.map(|all| all.into_iter().map(|map| map.metadata).collect());
    ClusterLists {
        nodes,
        namespaces,
        webhooks,
        deployments,
        server_pods,
        maps,
        status,
    }
}

/// Looks at a cluster before anything is installed.
pub async fn gather_before(client: Client, system: &str, progress: Progress) -> Preflight {
    let asker = Asker { client, progress };
    let api = api(&asker).await;
    let unasked = |lack: &Lack| Lack {
        why: "the API server does not answer".to_owned(),
        ..lack.clone()
    };
    let now = clock::now();
    if let Err(lack) = &api.version {
        let lack = unasked(lack);
        let (nodes, denied, cert_manager, namespace) = (
            Err(lack.clone()),
            Err(lack.clone()),
            Err(lack.clone()),
            Err(lack),
        );
        return Preflight {
            now,
            system: system.to_owned(),
            api,
            nodes,
            denied,
            cert_manager,
            namespace,
            there: Vec::new(),
        };
    }
    let about = "get the API group cert-manager.io";
    let there = stream::iter(INSTALLED).map(|installed| {
        let asker = &asker;
        async move {
            let what = format!("get {} {}", installed.kind, installed.name());
            let path = installed.path.replace("NS", system);
            let found = asker.get::<Object>(&what, &path, Form::Metadata).await;
            (
                installed,
                found.map(|object| object.map(|object| object.metadata)),
            )
        }
    });
    let (nodes, cert_manager, namespace, there) = tokio::join!(
        asker.list::<NodeView>("list nodes", "/api/v1/nodes", "", Form::Whole),
        asker.get::<Value>(about, "/apis/cert-manager.io/v1", Form::Whole),
        asker.get::<Object>(
            format!("get namespace {system}"),
            format!("/api/v1/namespaces/{system}"),
            Form::Metadata
        ),
        there.buffered(CONCURRENT).collect::<Vec<_>>(),
    );
    let cert_manager = cert_manager.map(|group| group.is_some());
    let denied = asker
        .denied(None, rights::install(cert_manager == Ok(true)), system, &[])
        .await
        .map(|denied| denied.sentences);
    let namespace = namespace.map(|found| found.map(|object| object.metadata));
    Preflight {
        now,
        system: system.to_owned(),
        api,
        nodes,
        denied,
        cert_manager,
        namespace,
        there,
    }
}

async fn api(asker: &Asker) -> ApiFacts {
    let what = "ask the API server for its version";
    let before = clock::now();
    let answer = match Request::get("/version").body(Body::empty()) {
        Ok(request) => asker.send(what, request).await,
        Err(error) => Err(Lack {
            what: what.to_owned(),
            forbidden: false,
            why: error.to_string(),
        }),
    };
    let after = clock::now();
    let (head, body) = match answer {
        Ok(answer) => answer,
        Err(lack) => {
            return ApiFacts {
                version: Err(lack),
                ahead_ms: None,
            };
        }
    };
    let date = head
        .headers()
        .get(header::DATE)
        .and_then(|date| DateTime::parse_from_rfc2822(date.to_str().ok()?).ok());
    // It says whole seconds, cut off, at some time between both of ours.
    let ahead = |date: DateTime<Utc>| {
        let (earliest, latest) = (
            (date - after).num_milliseconds(),
            (date - before).num_milliseconds() + 999,
        );
        if earliest > 0 {
            earliest
        } else {
            latest.min(0)
        }
    };
    let failed = |why: String| {
        Err(Lack {
            what: what.to_owned(),
            forbidden: false,
            why,
        })
    };
    let version = if head.status().is_success() {
        serde_json::from_slice(&body).or_else(|error| {
            failed(format!(
                "not the answer of a Kubernetes API server: {error}"
            ))
        })
    } else {
        failed(format!(
            "{} ({})",
            ask::shown(&body),
            head.status().as_u16()
        ))
    };
    ApiFacts {
        version,
        ahead_ms: date.map(|date| ahead(date.to_utc())),
    }
}

/// The namespaces that are looked at; the one that was asked for, if all cannot be listed.
fn labelled(namespaces: &Got<Vec<Object>>, wanted: &Wanted) -> Vec<String> {
    match (namespaces, &wanted.only) {
        (Ok(all), only) => {
            let takes_part = |one: &&Object| {
                is_labelled(one) && only.as_ref().is_none_or(|only| *only == one.metadata.name)
            };
            all.iter()
                .filter(takes_part)
                .map(|one| one.metadata.name.clone())
                .collect()
        }
        (Err(_), Some(only)) => vec![only.clone()],
        (Err(_), None) => Vec::new(),
    }
}

async fn spaces(asker: &Asker, labelled: &[String]) -> BTreeMap<String, Space> {
    let one = |namespace: String| async move {
        let what = |kind: &str| format!("list {kind} in namespace {namespace}");
        let path = |group: &str, kind: &str| format!("{group}/namespaces/{namespace}/{kind}");
        let (pods, budgets, services, termination_drains) = tokio::join!(
            asker.list::<Object>(what("pods"), path("/api/v1", "pods"), "", Form::Metadata),
            asker.list::<BudgetView>(
                what("poddisruptionbudgets"),
                path("/apis/policy/v1", "poddisruptionbudgets"),
                "",
                Form::Whole
            ),
            asker.list::<ServiceView>(
                what("services"),
                path("/api/v1", "services"),
                "",
                Form::Whole
            ),
            dns::termination_drains(asker, &namespace),
        );
        let space = Space {
            pods: pods.map(|all| {
                all.into_iter()
                    .map(|pod| pod.metadata)
                    .collect::<Vec<Meta>>()
            }),
            budgets: budgets.map(|all| all.into_iter().map(BudgetFacts::from).collect()),
            services: services.map(|all| all.into_iter().map(ServiceFacts::from).collect()),
            termination_drains,
        };
        (namespace, space)
    };
    stream::iter(labelled.to_vec())
        .map(one)
        .buffered(CONCURRENT)
        .collect()
        .await
}

async fn status(asker: &Asker, wanted: &Wanted) -> Got<ServerStatus> {
    let leader = || Server::Leader {
        client: asker.client.clone(),
        namespace: wanted.system.clone(),
    };
    let server = wanted.server.clone().map_or_else(leader, Server::At);
    let rights = format!(
        "get leases, list pods and get pods/proxy in namespace {}",
        wanted.system
    );
    (asker.progress)("ask the server for its status");
    match server.ask().await {
        Ok(answer) => ServerStatus::parse(&answer.body)
            .map(|status| ServerStatus {
                from: answer.from,
                ..status
            })
            .map_err(|why| Lack {
                what: "read the server's status".to_owned(),
                forbidden: false,
                why,
            }),
        Err(AskError::Forbidden { message, .. }) => Err(Lack {
            what: rights,
            forbidden: true,
            why: message,
        }),
        Err(error) => Err(Lack {
            what: "ask the server for its status".to_owned(),
            forbidden: false,
            why: error.to_string(),
        }),
    }
}

/// Of an API server that does not answer.
fn nothing(wanted: &Wanted, api: ApiFacts, lack: &Lack) -> Snapshot {
    fn none<T>(lack: &Lack) -> Got<T> {
        Err(lack.clone())
    }
    Snapshot {
        now: clock::now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        system: wanted.system.clone(),
        only: wanted.only.clone(),
        api,
        nodes: none(lack),
        namespaces: none(lack),
        webhooks: none(lack),
        deployments: none(lack),
        server_pods: none(lack),
        service: none(lack),
        endpoints: none(lack),
        authorities: None,
        served: Err(lack.why.clone()),
        secret: none(lack),
        denied: none(lack),
        dry_run: crate::core::check::DryRun::NotTried(lack.why.clone()),
        config: none(lack),
        status: none(lack),
        statefulsets: none(lack),
        workloads: none(lack),
        dns: DnsFacts {
            told: wanted.dns_cache,
            corefile: none(lack),
            node_local: none(lack),
        },
        maps: none(lack),
        spaces: BTreeMap::new(),
    }
}
