//! The demo's first half: admission for real, without a cluster.
//!
//! The webhook listens on loopback with the server's own code and a certificate made in memory.
//! Every pod of a plain StatefulSet is admitted over HTTPS, as the API server would send it; so are
//! the pods that scaling adds.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tokio::net::TcpListener;

use super::super::inject::{Admitted, apply};
use super::super::manifests::{self, Manifest};
use super::super::{Failure, input, plan, print, timeline};
use super::Args;
use crate::adapters::https::serve::{Edge, Limits, ServeStats};
use crate::adapters::https::tls::Certificates;
use crate::adapters::https_client::HttpsClient;
use crate::adapters::kube::cluster::Observed;
use crate::adapters::{clock, signals};
use crate::core::gateways::Gateways;
use crate::core::kube::pod_template;
use crate::core::kube::recognise::sidecar_of;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::names;
use crate::core::plan::Plan;
use crate::webhook::{self, Reviewer, WebhookMetrics};

/// What a user would deploy: without annotations, sidecar or time flags.
const STATEFULSET: &str = include_str!("statefulset.yaml");
/// The name on the certificate, as a Service would have it.
const SERVER_NAME: &str = "timeshard.timeshard-system.svc";

/// The admitted pods, and the running webhook.
pub(super) struct Admission {
    pub(super) observed: Arc<Observed>,
    pub(super) facts: StatefulSetFacts,
    /// Its pods, by ordinal.
    pub(super) admitted: Vec<Admitted>,
    statefulset: Value,
    server: Server,
}

/// Starts the webhook, has every pod admitted, and prints what was injected. `annotations` are
/// added to the StatefulSet.
pub(super) async fn admit(
    args: &Args,
    annotations: &[(String, String)],
) -> Result<Admission, Failure> {
    let config = Arc::new(input::config(&args.config)?);
    let statefulset = statefulset(args)?;
    let mut facts = pod_template::facts(
        &statefulset,
        &pod_template::namespace(&statefulset, &config.operator.namespace),
        args.replicas,
    );
    facts.annotations.extend(annotations.iter().cloned());
    // The demo is the StatefulSet controller.
    facts.generation_observed = true;
    facts.store = true;
    let observed = Observed::new(Gateways::new(config.clone()));
    observed.update(|fleet| fleet.with_statefulset(facts.clone()));
    if let Some(problem) = &observed
        .fleet
        .load()
        .known(&facts.namespace, &facts.name)
        .problem
    {
        return Err(Failure::Invalid(format!(
            "{}: {problem}",
            pod_template::title(&statefulset)
        )));
    }

    print("1. The webhook starts, with a CA and a certificate made in memory.\n")?;
    let server = start(&observed).await?;
    print(&format!(
        "   https://{}{}\n\n2. The pods of {}, created as by the StatefulSet controller, are admitted over HTTPS.\n",
        server.address,
        names::MUTATE_PATH,
        pod_template::title(&statefulset)
    ))?;
    let admitted = admit_pods(&server, &statefulset, &facts, 0).await?;
    print(&description(&admitted, &observed, &facts))?;
    Ok(Admission {
        observed,
        facts,
        admitted,
        statefulset,
        server,
    })
}

impl Admission {
    /// Changes the StatefulSet. Existing pods stay; returns the new ones, which were admitted.
    pub(super) async fn update(&mut self, facts: StatefulSetFacts) -> Result<&[Admitted], Failure> {
        self.facts = facts;
        self.observed
            .update(|fleet| fleet.with_statefulset(self.facts.clone()));
        let existing = self.admitted.len();
        self.admitted
            .extend(admit_pods(&self.server, &self.statefulset, &self.facts, existing).await?);
        Ok(&self.admitted[existing..])
    }

    /// Admits the pods of a changed StatefulSet instead of all earlier ones.
    pub(super) async fn replace(
        &mut self,
        facts: StatefulSetFacts,
    ) -> Result<&[Admitted], Failure> {
        self.admitted.clear();
        self.update(facts).await
    }

    /// The webhook's metrics, once.
    pub(super) fn take_metrics(&mut self) -> Registry {
        std::mem::take(&mut self.server.registry)
    }

    /// Drains and stops the webhook.
    pub(super) async fn end(self) -> Result<(), Failure> {
        self.server.trigger.signal();
        self.server
            .task
            .await
            .map_err(|error| Failure::Failed(format!("the webhook failed: {error}")))
    }
}

fn statefulset(args: &Args) -> Result<Value, Failure> {
    if args.filename.is_empty() {
        return serde_saphyr::from_str(STATEFULSET)
            .map_err(|error| Failure::Failed(error.to_string()));
    }
    let mut manifests = manifests::read(&args.filename, args.recursive)?;
    let is_set =
        |one: &Manifest| one.object.get("kind").and_then(Value::as_str) == Some("StatefulSet");
    match manifests
        .iter()
        .position(|one| is_set(one) && runs_store(&one.object))
        .or_else(|| manifests.iter().position(is_set))
    {
        Some(i) => Ok(manifests.swap_remove(i).object),
        None => Err(Failure::Invalid(format!(
            "{}: contains no StatefulSet",
            manifests.first().map_or("-f", |one| &one.source)
        ))),
    }
}

/// Whether an argument of the template is `store`; used to choose among several StatefulSets.
fn runs_store(object: &Value) -> bool {
    let containers = object
        .pointer("/spec/template/spec/containers")
        .and_then(Value::as_array);
    let argvs = containers
        .into_iter()
        .flatten()
        .flat_map(|container| [container.get("command"), container.get("args")]);
    argvs
        .flatten()
        .filter_map(Value::as_array)
        .flatten()
        .any(|arg| arg.as_str() == Some("store"))
}

struct Server {
    address: SocketAddr,
    /// The webhook's metrics.
    registry: Registry,
    /// The CA's certificate as DER.
    ca: Vec<u8>,
    trigger: signals::Trigger,
    task: tokio::task::JoinHandle<()>,
}

async fn start(observed: &Observed) -> Result<Server, Failure> {
    let (ca, chain, key) = certificate()
        .map_err(|error| Failure::Failed(format!("cannot create a certificate: {error}")))?;
    let certificates = Certificates::from_pem(chain.as_bytes(), key.as_bytes())
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let tls = certificates
        .server_config()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let failed =
        |error: std::io::Error| Failure::Failed(format!("cannot listen on 127.0.0.1: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (trigger, shutdown) = signals::channel();
    let mut registry = Registry::default();
    let metrics = WebhookMetrics::new(&mut registry);
    let routes = webhook::router(
        Reviewer::new(observed.fleet.clone(), clock::now),
        metrics,
        None,
    );
    let stats = Arc::new(ServeStats::default());
    let edge = Edge {
        listener,
        tls: Some(tls),
        limits: Limits::default(),
        drain: Duration::ZERO,
        stats,
        shutdown,
    };
    let task = tokio::spawn(edge.serve(TowerToHyperService::new(routes)));
    Ok(Server {
        address,
        registry,
        ca,
        trigger,
        task,
    })
}

/// Returns a CA's certificate, and the chain and key of a leaf that it signed.
fn certificate() -> Result<(Vec<u8>, String, String), rcgen::Error> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![SERVER_NAME.to_owned()])?
        .signed_by(&key, &Issuer::new(ca, ca_key))?;
    Ok((
        ca_certificate.der().to_vec(),
        leaf.pem(),
        key.serialize_pem(),
    ))
}

/// Has the pods admitted, except the first `existing` ones.
async fn admit_pods(
    server: &Server,
    statefulset: &Value,
    facts: &StatefulSetFacts,
    existing: usize,
) -> Result<Vec<Admitted>, Failure> {
    let mut client = HttpsClient::connect(server.address, SERVER_NAME, &server.ca).await?;
    let mut admitted = Vec::new();
    for (i, pod) in pod_template::pods(statefulset, facts)
        .into_iter()
        .enumerate()
        .skip(existing)
    {
        let review = pod_template::review(&pod, &facts.namespace, &format!("demo-{i}")).to_string();
        let (status, body) = client
            .post(names::MUTATE_PATH, SERVER_NAME, review.into_bytes())
            .await?;
        let answer: Value = serde_json::from_slice(&body).map_err(|_| {
            Failure::Failed(format!(
                "the webhook answered {status}: {}",
                String::from_utf8_lossy(&body).trim()
            ))
        })?;
        admitted.push(apply(pod, &answer)?);
    }
    Ok(admitted)
}

pub(super) fn table(admitted: &[Admitted]) -> String {
    let mut table = timeline::plain_table(&[
        "   POD",
        "SHARD",
        "MIN TIME",
        "MAX TIME",
        "OPERATIONS",
        "SIDECAR",
    ]);
    let mut warnings = String::new();
    for pod in admitted {
        let sidecar = sidecar_of(&pod.pod).map_or("none", |_| names::SIDECAR);
        let row = [
            format!("   {}", pod.name),
            pod.status_text("shard"),
            pod.status_text("min_time"),
            pod.status_text("max_time"),
            pod.patch.len().to_string(),
            sidecar.to_owned(),
        ];
        table.add_row(row);
        for warning in &pod.warnings {
            warnings += &format!("   warning: {}: {warning}\n", pod.name);
        }
    }
    format!("{table}\n{warnings}")
}

fn description(admitted: &[Admitted], observed: &Observed, facts: &StatefulSetFacts) -> String {
    let mut text = table(admitted);
    if let Some(first) = admitted.first().filter(|pod| !pod.patch.is_empty()) {
        let container = first
            .pod
            .pointer("/spec/containers/0")
            .cloned()
            .unwrap_or_default();
        let argv = |key: &str| {
            let argv = container.get(key).and_then(Value::as_array);
            argv.into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        };
        text += &format!(
            "\n   {} now runs this container command (see timeshard inject for the whole pod):\n   {} {}\n",
            first.name,
            argv("command"),
            argv("args")
        );
    }
    let fleet = observed.fleet.load();
    let plan = &fleet.known(&facts.namespace, &facts.name).plan;
    let picture = picture(plan, facts.replicas);
    for note in plan.notes() {
        text += &format!("   warning: {note}\n");
    }
    format!("{text}\n3. Together they will serve:\n\n{picture}\n")
}

/// Draws a plan, indented like all output of the demo.
pub(super) fn picture(plan: &Plan, pods: u32) -> String {
    let now = clock::now();
    timeline::text(&plan::rows(plan, pods, now), now)
        .lines()
        .map(|line| format!("   {line}\n"))
        .collect()
}
