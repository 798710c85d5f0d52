//! What was seen of a cluster: plain values, each with the reason where there is none.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::objects::{
    ConfigText, Endpoints, Meta, NodeView, Object, ServerDeployment, ServerPod, VersionInfo,
    WebhookConfiguration, Workload,
};
use super::rights::Denied;
use crate::core::duration::PromDuration;
use crate::core::observed::{BudgetFacts, ServiceFacts};
use crate::core::report::SetReport;

/// Why something was not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// What was tried, to follow "no permission to": `list services in namespace x`.
    pub what: String,
    /// Whether the API server refused it.
    pub forbidden: bool,
    /// What happened.
    pub why: String,
}

/// Something that was asked for.
pub type Got<T> = Result<T, Lack>;

/// The API server.
#[derive(Clone, Debug)]
pub struct ApiFacts {
    /// Its version.
    pub version: Got<VersionInfo>,
    /// How far its clock is ahead of ours, in milliseconds, if it said.
    pub ahead_ms: Option<i64>,
}

/// A certificate, looked at with the caBundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Where it comes from, for messages.
    pub from: String,
    /// End of its validity, seconds since the epoch.
    pub not_after: i64,
    /// What the API server would say of it.
    pub trouble: Option<Trouble>,
}

/// Why the API server would not talk to a server with this certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No authority of the caBundle signed it.
    UnknownIssuer,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is for other names.
    OtherName,
    /// Something else.
    Other(String),
}

/// What became of a gateway's pod that was created as a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// It was not tried, and why.
    NotTried(String),
    /// The API server refused it.
    Refused {
        /// Where.
        namespace: String,
        /// Its words.
        message: String,
    },
    /// It was admitted.
    Admitted {
        /// Where.
        namespace: String,
        /// Whether it had sidecar, launcher and window.
        injected: bool,
    },
}

/// What the server that leads says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServerStatus {
    /// Its version.
    pub version: String,
    /// Whether it runs without a cluster.
    pub webhook_only: bool,
    /// Whether all is listed.
    pub synced: Option<bool>,
    /// A watch that is broken.
    pub watch_error: Option<String>,
    /// The configuration's last edit, if it was refused.
    pub config_error: Option<String>,
    /// The certificate's last change, if it was refused.
    pub certificate_error: Option<String>,
    /// When its certificate ends.
    pub certificate_not_after_unix_seconds: Option<i64>,
    /// Who leads; none with `--no-refresher`.
    pub leader: Option<LeaderStatus>,
    /// Each a [`SetReport`], unread.
    pub statefulsets: Vec<Value>,
    /// Who answered; filled in by who asked.
    #[serde(skip)]
    pub from: String,
}

/// What a replica knows of the lease.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LeaderStatus {
    /// Who holds it.
    pub holder: Option<String>,
    /// Whether it is the one that answered.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// Why it cannot be held.
    pub error: Option<String>,
}

impl ServerStatus {
    /// Reads the document.
    ///
    /// # Errors
    /// serde's words.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| error.to_string())
    }

    /// The report on a StatefulSet; `Err` when it is of a version that cannot be read.
    pub(super) fn report(&self, namespace: &str, name: &str) -> Option<Result<SetReport, String>> {
        let text = |set: &Value, key: &str| set.get(key).and_then(Value::as_str).map(str::to_owned);
        let is = |set: &&Value| {
            text(set, "namespace").as_deref() == Some(namespace)
                && text(set, "name").as_deref() == Some(name)
        };
        self.statefulsets
            .iter()
            .find(is)
            .map(|set| SetReport::deserialize(set).map_err(|error| error.to_string()))
    }
}

/// What is known of how long DNS remembers answers about Services.
#[derive(Clone, Debug)]
pub struct DnsFacts {
    /// What the user says; counts instead of everything below.
    pub told: Option<PromDuration>,
    /// The Corefile in ConfigMap `coredns` of namespace `kube-system`; `None` without one.
    pub corefile: Got<Option<String>>,
    /// Whether there is a DaemonSet `node-local-dns` in namespace `kube-system`.
    pub node_local: Got<bool>,
}

/// What lies around the gateways of a labelled namespace.
#[derive(Clone, Debug)]
pub struct Space {
    /// Its pods.
    pub pods: Got<Vec<Meta>>,
    /// Its budgets.
    pub budgets: Got<Vec<BudgetFacts>>,
    /// Its Services.
    pub services: Got<Vec<ServiceFacts>>,
    /// The termination drains of its pods that run our launcher, by name.
    pub termination_drains: Got<BTreeMap<String, PromDuration>>,
}

/// Everything that is looked at.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When, by our clock.
    pub now: DateTime<Utc>,
    /// The command line's version.
    pub version: String,
    /// Where the server is.
    pub system: String,
    /// The one namespace that is looked at, if it is one.
    pub only: Option<String>,
    /// The API server.
    pub api: ApiFacts,
    /// Its nodes.
    pub nodes: Got<Vec<NodeView>>,
    /// All namespaces.
    pub namespaces: Got<Vec<Object>>,
    /// All mutating webhooks.
    pub webhooks: Got<Vec<WebhookConfiguration>>,
    /// The server's Deployments; one is right.
    pub deployments: Got<Vec<ServerDeployment>>,
    /// Its pods.
    pub server_pods: Got<Vec<ServerPod>>,
    /// The webhook's Service.
    pub service: Got<Option<ServiceFacts>>,
    /// Where that leads.
    pub endpoints: Got<Vec<Endpoints>>,
    /// Authorities in the caBundle by name and end of validity; why there are none. `None` without a webhook.
    pub authorities: Option<Result<Vec<(String, i64)>, String>>,
    /// What the server showed when it was connected to, or why it could not be.
    pub served: Result<Certificate, String>,
    /// The one in its Secret.
    pub secret: Got<Option<Certificate>>,
    /// Rights that the server has not.
    pub denied: Got<Denied>,
    /// What the API server makes of a gateway's pod.
    pub dry_run: DryRun,
    /// The configuration's text; `None` when there is none.
    pub config: Got<Option<ConfigText>>,
    /// What the server says.
    pub status: Got<ServerStatus>,
    /// StatefulSets of all namespaces that may be listed, as they are.
    pub statefulsets: Got<Vec<Value>>,
    /// Deployments of all namespaces that may be listed.
    pub workloads: Got<Vec<Workload>>,
    /// What DNS remembers.
    pub dns: DnsFacts,
    /// Our published windows, wherever they are.
    pub maps: Got<Vec<Meta>>,
    /// Labelled namespaces.
    pub spaces: BTreeMap<String, Space>,
}

impl Snapshot {
    pub(super) fn now_seconds(&self) -> i64 {
        self.now.timestamp()
    }

    pub(super) fn looks_at(&self, namespace: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == namespace)
    }
}
