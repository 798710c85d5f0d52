//! The demo's first half: admission for real, without a cluster.
//!
//! A CA and certificate are made in memory, the webhook listens on loopback with the server's own code, and every pod of a
//! plain StatefulSet is admitted over HTTPS as the API server would send it; so are those that come when it is scaled.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tokio::net::TcpListener;

use super::super::inject::{Admitted, apply};
use super::super::{Failure, input, plan, print, timeline};
use super::Args;
use crate::adapters::cluster::Observed;
use crate::adapters::http_client::HttpsClient;
use crate::adapters::serve::{Edge, Limits, ServeStats};
use crate::adapters::tls::Certificates;
use crate::adapters::{clock, signals};
use crate::core::expand;
use crate::core::fleet::{Fleet, StatefulSetFacts};
use crate::core::names;
use crate::core::plan::Plan;
use crate::webhook::{self, Metrics, Reviewer};

/// What a user would deploy: nothing of ours in it, and no time flags.
const STATEFULSET: &str = include_str!("statefulset.yaml");
/// The name on the certificate, as a Service would have it.
const SERVER_NAME: &str = "timeshard.timeshard-system.svc";

/// What came out of admission, and the webhook, which goes on.
#[cfg_attr(
    not(feature = "agent"),
    allow(dead_code, reason = "without the agent there are no later steps")
)]
pub(super) struct Admission {
    pub(super) observed: Arc<Observed>,
    /// The StatefulSet as it is now.
    pub(super) facts: StatefulSetFacts,
    /// Its pods, by ordinal.
    pub(super) admitted: Vec<Admitted>,
    statefulset: Value,
    server: Server,
}

/// Starts the webhook, has every pod admitted, and shows what was injected. `annotations` are put on the StatefulSet.
pub(super) async fn admit(
    args: &Args,
    annotations: &[(String, String)],
) -> Result<Admission, Failure> {
    let config = Arc::new(input::config(&args.config)?);
    let statefulset = statefulset(args)?;
    let mut facts = expand::facts(
        &statefulset,
        &expand::namespace(&statefulset, &config.operator.namespace),
        args.replicas,
    );
    facts.annotations.extend(annotations.iter().cloned());
    // Its controller is this demo.
    facts.generation_observed = true;
    facts.store = true;
    let observed = Observed::new(Fleet::new(config.clone()));
    observed.update(|fleet| fleet.with_statefulset(facts.clone()));
    if let Some(problem) = &observed
        .fleet
        .load()
        .known(&facts.namespace, &facts.name)
        .problem
    {
        return Err(Failure::Invalid(format!(
            "{}: {problem}",
            expand::title(&statefulset)
        )));
    }

    print("1. A CA and a certificate are made in memory, and the webhook starts.\n")?;
    let server = start(&observed).await?;
    print(&format!(
        "   https://{}{}\n\n2. The pods of {}, as the StatefulSet controller makes them, are admitted over HTTPS.\n",
        server.address,
        names::MUTATE_PATH,
        expand::title(&statefulset)
    ))?;
    let admitted = admit_pods(&server, &statefulset, &facts, 0).await?;
    print(&shown(&admitted, &observed, &facts))?;
    Ok(Admission {
        observed,
        facts,
        admitted,
        statefulset,
        server,
    })
}

impl Admission {
    /// The StatefulSet changes as its user wants it. Pods that it has already stay; those that are new are admitted.
    #[cfg(feature = "agent")]
    pub(super) async fn update(&mut self, facts: StatefulSetFacts) -> Result<&[Admitted], Failure> {
        self.facts = facts;
        self.observed
            .update(|fleet| fleet.with_statefulset(self.facts.clone()));
        let there = self.admitted.len();
        self.admitted
            .extend(admit_pods(&self.server, &self.statefulset, &self.facts, there).await?);
        Ok(&self.admitted[there..])
    }

    /// All pods are replaced by those of a StatefulSet that changed before it was deployed.
    #[cfg(feature = "agent")]
    pub(super) async fn anew(&mut self, facts: StatefulSetFacts) -> Result<&[Admitted], Failure> {
        self.admitted.clear();
        self.update(facts).await
    }

    /// Drains and ends the webhook.
    pub(super) async fn end(self) -> Result<(), Failure> {
        self.server.trigger.signal();
        self.server
            .task
            .await
            .map_err(|error| Failure::Failed(format!("the webhook ended badly: {error}")))
    }
}

fn statefulset(args: &Args) -> Result<Value, Failure> {
    let Some(path) = &args.filename else {
        return serde_saphyr::from_str(STATEFULSET)
            .map_err(|error| Failure::Failed(error.to_string()));
    };
    let mut objects = input::objects(path)?;
    let is_set = |object: &Value| object.get("kind").and_then(Value::as_str) == Some("StatefulSet");
    match objects
        .iter()
        .position(|object| is_set(object) && runs_store(object))
        .or_else(|| objects.iter().position(is_set))
    {
        Some(i) => Ok(objects.swap_remove(i)),
        None => Err(Failure::Invalid(format!(
            "{}: holds no StatefulSet",
            input::name(path)
        ))),
    }
}

/// Whether any of the template's words is `store`, to choose among several StatefulSets.
fn runs_store(object: &Value) -> bool {
    let containers = object
        .pointer("/spec/template/spec/containers")
        .and_then(Value::as_array);
    let words = containers
        .into_iter()
        .flatten()
        .flat_map(|container| [container.get("command"), container.get("args")]);
    words
        .flatten()
        .filter_map(Value::as_array)
        .flatten()
        .any(|word| word.as_str() == Some("store"))
}

struct Server {
    address: SocketAddr,
    /// The CA's certificate, DER.
    ca: Vec<u8>,
    trigger: signals::Trigger,
    task: tokio::task::JoinHandle<()>,
}

async fn start(observed: &Observed) -> Result<Server, Failure> {
    let (ca, chain, key) = certificate()
        .map_err(|error| Failure::Failed(format!("no certificate could be made: {error}")))?;
    let certificates = Certificates::from_pem(chain.as_bytes(), key.as_bytes())
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let tls = certificates
        .server_config()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let failed = |error: std::io::Error| {
        Failure::Failed(format!("127.0.0.1: cannot be listened on: {error}"))
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (trigger, shutdown) = signals::channel();
    let metrics = Metrics::new(&mut Registry::default());
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
        ca,
        trigger,
        task,
    })
}

/// A CA's certificate, and the chain and key of a leaf that it signed.
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

/// Has the pods admitted, except the first `there` of them.
async fn admit_pods(
    server: &Server,
    statefulset: &Value,
    facts: &StatefulSetFacts,
    there: usize,
) -> Result<Vec<Admitted>, Failure> {
    let mut client = HttpsClient::connect(server.address, SERVER_NAME, &server.ca).await?;
    let mut admitted = Vec::new();
    for (i, pod) in expand::pods(statefulset, facts)
        .into_iter()
        .enumerate()
        .skip(there)
    {
        let review = expand::review(&pod, &facts.namespace, &format!("demo-{i}")).to_string();
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

/// What was injected, as a table.
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
        let status: Value = pod
            .pod
            .get("metadata")
            .and_then(|metadata| {
                metadata
                    .get("annotations")?
                    .get(names::STATUS_ANNOTATION)?
                    .as_str()
            })
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let text = |key: &str| {
            status.get(key).map_or_else(
                || "-".to_owned(),
                |value| {
                    value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned)
                },
            )
        };
        let sidecars = pod
            .pod
            .pointer("/spec/initContainers")
            .and_then(Value::as_array);
        let sidecar = sidecars
            .into_iter()
            .flatten()
            .any(|container| container.get("name").and_then(Value::as_str) == Some(names::SIDECAR));
        let sidecar = if sidecar { names::SIDECAR } else { "none" };
        let row = [
            format!("   {}", pod.name),
            text("shard"),
            text("min_time"),
            text("max_time"),
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

fn shown(admitted: &[Admitted], observed: &Observed, facts: &StatefulSetFacts) -> String {
    let mut text = table(admitted);
    if let Some(first) = admitted.first().filter(|pod| !pod.patch.is_empty()) {
        let container = first
            .pod
            .pointer("/spec/containers/0")
            .cloned()
            .unwrap_or_default();
        let words = |key: &str| {
            let words = container.get(key).and_then(Value::as_array);
            words
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        };
        text += &format!(
            "\n   What {} runs now (nothing else in the pod changed):\n   {} {}\n",
            first.name,
            words("command"),
            words("args")
        );
    }
    let fleet = observed.fleet.load();
    let plan = &fleet.known(&facts.namespace, &facts.name).plan;
    let picture = picture(plan, facts.replicas);
    for note in plan.notes() {
        text += &format!("   warning: {note}\n");
    }
    format!("{text}\n3. Together they serve:\n\n{picture}\n")
}

/// A plan as a picture, indented like everything that the demo says.
pub(super) fn picture(plan: &Plan, pods: u32) -> String {
    let now = clock::now();
    timeline::text(&plan::rows(plan, pods, now), now)
        .lines()
        .map(|line| format!("   {line}\n"))
        .collect()
}
