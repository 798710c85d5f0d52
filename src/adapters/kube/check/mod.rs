//! Gathers the input of `timeshard check` from the API server and from the server's port.
//!
//! Invariants: lists come in pages, every request has a deadline, and few run at a time; a
//! forbidden or failed request becomes a reason and never an error; nothing is changed: the only
//! object created is a dry run. Of the Secret only `tls.crt` is read.

mod ask;
mod certificates;
mod dns;
mod installation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use hyper::{Request, header};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use ask::{Asker, CONCURRENT, Form, ServiceAccountRef, escaped, shown};
pub use ask::{DEADLINE, Progress};
use installation::Installation;

use super::facts;
use super::partial::Partial;
use super::server_status::{AskError, StatusSource};
use crate::adapters::clock;
use crate::core::check::namespaces::is_labelled;
use crate::core::check::objects::{ConfigText, NodeView, Object, Workload};
use crate::core::check::periods::termination_drain;
use crate::core::check::rights::Denied;
use crate::core::check::{
    ApiFacts, DnsFacts, Got, INSTALLED, Lack, Preflight, ServerStatus, Snapshot, Space, rights,
};
use crate::core::config::Config;
use crate::core::model::duration::PromDuration;
use crate::core::model::names;

#[derive(Clone, Debug)]
pub struct CheckScope {
    /// Namespace of the server.
    pub system: String,
    /// The only namespace to check.
    pub only: Option<String>,
    /// A configuration to check instead of the server's.
    pub config: Option<ConfigText>,
    /// Where to ask for `/status`; `None` for the leader.
    pub server: Option<super::server_status::Address>,
    /// How long DNS caches an answer, if the user sets it.
    pub dns_cache: Option<PromDuration>,
    /// Of one request.
    pub deadline: Duration,
}

/// Gathers from a cluster with a server.
pub async fn gather(client: Client, wanted: &CheckScope, progress: Progress) -> Snapshot {
    let asker = Asker::new(client, progress, wanted.deadline);
    let api = api(&asker).await;
    let unanswered = api.version.as_ref().err().cloned();
    let mut found = nothing(wanted, api, &unanswered.clone().unwrap_or_default());
    if unanswered.is_some() {
        // Nothing else would answer either, and each question would wait for its deadline.
        return found;
    }
    Box::pin(cluster_lists(&asker, wanted, &mut found)).await;
    let system = wanted.system.as_str();
    let labelled = labelled(&found.namespaces, wanted);
    let installation = Installation {
        asker: &asker,
        system,
        deployment: found.deployments.as_ref().ok().and_then(|all| all.first()),
    };
    let account = ServiceAccountRef {
        namespace: system.to_owned(),
        name: installation.account(),
    };
    let seen;
    (
        found.statefulsets,
        found.workloads,
        found.spaces,
        found.denied,
        found.config,
        found.dry_run,
        seen,
        found.dns,
    ) = tokio::join!(
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
        installation.certificate(&found.webhooks),
        dns::facts(&asker, wanted.dns_cache),
    );
    found.denied = with_queriers(&asker, &account, found.denied, &found.config, &labelled).await;
    (found.service, found.endpoints) = (seen.service, seen.endpoints);
    (found.authorities, found.served, found.secret) = (seen.authorities, seen.served, seen.secret);
    found
}

/// Adds the rights that the server lacks in namespaces of configured queriers.
async fn with_queriers(
    asker: &Asker,
    account: &ServiceAccountRef,
    denied: Got<Denied>,
    config: &Got<Option<ConfigText>>,
    labelled: &[String],
) -> Got<Denied> {
    let Ok(mut denied) = denied else {
        return denied;
    };
    let text = config.as_ref().ok().and_then(Option::as_ref);
    let config = text.and_then(|text| Config::parse(&text.text, &text.source).ok());
    let items = config.map(|config| config.queriers).unwrap_or_default();
    let namespaces: BTreeSet<String> = items.into_iter().map(|item| item.namespace).collect();
    let others: Vec<String> = namespaces
        .into_iter()
        .filter(|namespace| !labelled.contains(namespace))
        .collect();
    if !others.is_empty() {
        let rights = rights::querier_namespace();
        let more = asker.denied(Some(account), rights, "", &others).await?;
        denied.sentences.extend(
            more.namespaces
                .iter()
                .map(|namespace| format!("list pods in namespace {namespace} (of `queriers`)")),
        );
    }
    Ok(denied)
}

/// Reads the configuration of the server in namespace `system`; `None` if it has none.
///
/// # Errors
/// What could not be read.
pub async fn server_config(
    client: Client,
    system: &str,
    deadline: Duration,
) -> Result<Option<ConfigText>, Lack> {
    let asker = Asker::new(client, Arc::new(|_| ()), deadline);
    let what = format!("list deployments in namespace {system}");
    let path = format!("/apis/apps/v1/namespaces/{system}/deployments");
    let selector = format!("&labelSelector={}", escaped(names::SERVER_PODS));
    // Without the Deployment, the manifests' ConfigMap is assumed.
    let deployments = asker.list(what, path, &selector, Form::Whole).await;
    let installation = Installation {
        asker: &asker,
        system,
        deployment: deployments.as_ref().ok().and_then(|all| all.first()),
    };
    installation.config().await
}

/// The user's configuration, or else the server's.
async fn config(installation: &Installation<'_>, wanted: &CheckScope) -> Got<Option<ConfigText>> {
    if let Some(text) = &wanted.config {
        Ok(Some(text.clone()))
    } else {
        installation.config().await
    }
}

/// Cluster-wide lists and the server's own objects, which requests to namespaces depend on.
async fn cluster_lists(asker: &Asker, wanted: &CheckScope, found: &mut Snapshot) {
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
    let maps;
    (
        found.namespaces,
        found.webhooks,
        found.deployments,
        found.server_pods,
        maps,
        found.nodes,
        found.status,
    ) = tokio::join!(
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
    found.maps = maps.map(|all| all.into_iter().map(|map| map.metadata).collect());
}

/// Gathers from a cluster before the installation.
pub async fn gather_before(client: Client, wanted: &CheckScope, progress: Progress) -> Preflight {
    let system = wanted.system.as_str();
    let asker = Asker::new(client, progress, wanted.deadline);
    let api = api(&asker).await;
    let unasked = api.version.as_ref().err().map(|lack| Lack {
        why: "the API server does not answer".to_owned(),
        ..lack.clone()
    });
    let lack = unasked.clone().unwrap_or_default();
    let mut found = Preflight {
        now: clock::now(),
        system: system.to_owned(),
        api,
        nodes: Err(lack.clone()),
        denied: Err(lack.clone()),
        cert_manager: Err(lack.clone()),
        namespace: Err(lack),
        existing: Vec::new(),
    };
    if unasked.is_some() {
        return found;
    }
    let about = "get the API group cert-manager.io";
    let existing = stream::iter(INSTALLED).map(|installed| {
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
    let (cert_manager, namespace);
    (found.nodes, cert_manager, namespace, found.existing) = tokio::join!(
        asker.list::<NodeView>("list nodes", "/api/v1/nodes", "", Form::Whole),
        asker.get::<Value>(about, "/apis/cert-manager.io/v1", Form::Whole),
        asker.get::<Object>(
            format!("get namespace {system}"),
            format!("/api/v1/namespaces/{system}"),
            Form::Metadata
        ),
        existing.buffered(CONCURRENT).collect::<Vec<_>>(),
    );
    found.cert_manager = cert_manager.map(|group| group.is_some());
    let rights = rights::install(found.cert_manager == Ok(true));
    let denied = asker.denied(None, rights, system, &[]).await;
    found.denied = denied.map(|denied| denied.sentences);
    found.namespace = namespace.map(|found| found.map(|object| object.metadata));
    found
}

async fn api(asker: &Asker) -> ApiFacts {
    let what = "ask the API server for its version";
    let before = clock::now();
    let answer = match Request::get("/version").body(Body::empty()) {
        Ok(request) => asker.send(what, request).await,
        Err(error) => Err(Lack::new(what, error)),
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
    // The API server's time is truncated to seconds, and between the two local times.
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
    let failed = |why: String| Err(Lack::new(what, why));
    let version = if head.status().is_success() {
        serde_json::from_slice(&body).or_else(|error| {
            failed(format!(
                "not the answer of a Kubernetes API server: {error}"
            ))
        })
    } else {
        failed(format!("{} ({})", shown(&body), head.status().as_u16()))
    };
    ApiFacts {
        version,
        ahead_ms: date.map(|date| ahead(date.to_utc())),
    }
}

/// The namespaces to check; if they cannot be listed, the one that the user names.
fn labelled(namespaces: &Got<Vec<Object>>, wanted: &CheckScope) -> Vec<String> {
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
        let (pods, budgets, services) = tokio::join!(
            asker.list::<Partial<Pod>>(what("pods"), path("/api/v1", "pods"), "", Form::Whole),
            asker.list::<Partial<PodDisruptionBudget>>(
                what("poddisruptionbudgets"),
                path("/apis/policy/v1", "poddisruptionbudgets"),
                "",
                Form::Whole
            ),
            asker.list::<Partial<Service>>(
                what("services"),
                path("/api/v1", "services"),
                "",
                Form::Whole
            ),
        );
        let drain = |Partial(pod, _): &Partial<Pod>| {
            let containers = &pod.spec.as_ref()?.containers;
            let commands = containers.iter().filter_map(|one| one.command.as_deref());
            Some((pod.metadata.name.clone()?, termination_drain(commands)?))
        };
        let space = Space {
            termination_drains: pods.iter().flatten().filter_map(drain).collect(),
            pods: pods.map(|all| all.iter().filter_map(|pod| facts::pod(&pod.0)).collect()),
            budgets: budgets.map(|all| all.iter().map(|one| facts::budget(&one.0)).collect()),
            services: services.map(|all| all.iter().map(|one| facts::service(&one.0)).collect()),
        };
        (namespace, space)
    };
    stream::iter(labelled.to_vec())
        .map(one)
        .buffered(CONCURRENT)
        .collect()
        .await
}

async fn status(asker: &Asker, wanted: &CheckScope) -> Got<ServerStatus> {
    let leader = || StatusSource::Leader {
        client: asker.client.clone(),
        namespace: wanted.system.clone(),
        deadline: wanted.deadline,
    };
    let server = wanted.server.clone().map_or_else(leader, StatusSource::At);
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
            .map_err(|why| Lack::new("read the server's status", why)),
        Err(AskError::Forbidden { message, .. }) => Err(Lack {
            what: rights,
            forbidden: true,
            why: message,
        }),
        Err(error) => Err(Lack::new("ask the server for its status", error)),
    }
}

/// A snapshot without an answer.
fn nothing(wanted: &CheckScope, api: ApiFacts, lack: &Lack) -> Snapshot {
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
            given: wanted.dns_cache,
            corefile: none(lack),
            node_local: none(lack),
        },
        maps: none(lack),
        spaces: BTreeMap::new(),
    }
}
