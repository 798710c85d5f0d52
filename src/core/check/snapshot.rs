//! The input of the checks: plain values, or the reason why one is missing.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::objects::{
    ConfigText, Endpoints, Meta, NodeView, Object, ServerPod, VersionInfo, WebhookConfiguration,
    Workload,
};
use super::rights::Denied;
use crate::core::kube::observed::{BudgetFacts, PodFacts, ServiceFacts};
use crate::core::model::duration::PromDuration;
use crate::core::server_status::ServerStatus;

/// Why a value is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// The attempt, worded to follow "no permission to": `list services in namespace x`.
    pub what: String,
    /// Whether RBAC denied it.
    pub forbidden: bool,
    pub why: String,
}

impl Lack {
    /// For any reason but RBAC.
    pub fn new(what: &str, why: impl std::fmt::Display) -> Self {
        Self {
            what: what.to_owned(),
            forbidden: false,
            why: why.to_string(),
        }
    }
}

pub type Got<T> = Result<T, Lack>;

#[derive(Clone, Debug)]
pub struct ApiFacts {
    pub version: Got<VersionInfo>,
    /// How far its clock is ahead of this machine's, in milliseconds.
    pub ahead_ms: Option<i64>,
}

/// A certificate, verified against the caBundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its origin, for messages.
    pub from: String,
    /// End of its validity, seconds since the epoch.
    pub not_after: i64,
    /// Why the API server would reject it.
    pub trouble: Option<Trouble>,
}

/// Why the API server would reject a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No CA of the caBundle signed it.
    UnknownIssuer,
    Expired,
    NotYetValid,
    /// Issued for other names.
    OtherName,
    Other(String),
}

/// The result of creating a gateway's pod as a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// With the reason.
    NotTried(String),
    Refused {
        namespace: String,
        /// The API server's message.
        message: String,
    },
    Admitted {
        namespace: String,
        /// Whether the pod came back with sidecar, launcher and window.
        injected: bool,
    },
}

/// How long DNS caches answers about Services.
#[derive(Clone, Debug)]
pub struct DnsFacts {
    /// The user's `--dns-cache`; overrides everything below.
    pub given: Option<PromDuration>,
    /// The Corefile in ConfigMap `coredns` of namespace `kube-system`; `None` without one.
    pub corefile: Got<Option<String>>,
    /// Whether namespace `kube-system` has a DaemonSet `node-local-dns`.
    pub node_local: Got<bool>,
}

/// Objects of a labelled namespace, besides its gateways.
#[derive(Clone, Debug)]
pub struct Space {
    /// Those that StatefulSets own.
    pub pods: Got<Vec<PodFacts>>,
    /// By pod, the termination drain of its launcher.
    pub termination_drains: BTreeMap<String, PromDuration>,
    pub budgets: Got<Vec<BudgetFacts>>,
    pub services: Got<Vec<ServiceFacts>>,
}

/// Everything that the checks read.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// By this machine's clock.
    pub now: DateTime<Utc>,
    /// This command's version.
    pub version: String,
    /// The server's namespace.
    pub system: String,
    /// The namespace given by `--namespace`.
    pub only: Option<String>,
    pub api: ApiFacts,
    pub nodes: Got<Vec<NodeView>>,
    pub namespaces: Got<Vec<Object>>,
    pub webhooks: Got<Vec<WebhookConfiguration>>,
    /// Deployments with the server's labels; exactly one is expected.
    pub deployments: Got<Vec<Workload>>,
    pub server_pods: Got<Vec<ServerPod>>,
    /// The webhook's Service.
    pub service: Got<Option<ServiceFacts>>,
    /// Of that Service.
    pub endpoints: Got<Vec<Endpoints>>,
    /// Name and expiry of each CA in the caBundle, or why it is unusable. `None` without a webhook.
    pub authorities: Option<Result<Vec<(String, i64)>, String>>,
    /// The certificate of a TLS connection to the server, or why there is none.
    pub served: Result<Certificate, String>,
    /// The certificate in the Secret.
    pub secret: Got<Option<Certificate>>,
    /// Rights that the server lacks.
    pub denied: Got<Denied>,
    pub dry_run: DryRun,
    /// `None` if the server has no `--config`.
    pub config: Got<Option<ConfigText>>,
    pub status: Got<ServerStatus>,
    /// Of all namespaces that the caller may list.
    pub statefulsets: Got<Vec<Value>>,
    /// Deployments of all namespaces that the caller may list.
    pub workloads: Got<Vec<Workload>>,
    pub dns: DnsFacts,
    /// ConfigMaps with published windows, in any namespace.
    pub maps: Got<Vec<Meta>>,
    /// By labelled namespace.
    pub spaces: BTreeMap<String, Space>,
}

impl Snapshot {
    pub(super) fn now_seconds(&self) -> i64 {
        self.now.timestamp()
    }

    pub(super) fn includes(&self, namespace: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == namespace)
    }
}
