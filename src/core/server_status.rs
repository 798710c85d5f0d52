//! The server's `/status` document, as the server writes it and as `timeshard status` and
//! `timeshard check` read it: missing keys get defaults, and unknown ones are ignored, since client
//! and server may differ in version. `docs/status-api.md` describes every field for users.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::rollout::report::SetReport;

/// The version of the document: fields are added to it, and none of them is removed or changes its
/// meaning.
pub const API_VERSION: &str = "timeshard/v1";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerStatus {
    /// [`API_VERSION`]; empty from servers that did not have it.
    pub api_version: String,
    pub version: String,
    /// `operator.cluster_name` of the configuration.
    pub cluster_name: Option<String>,
    pub webhook_only: bool,
    /// The server's own namespace.
    pub namespace: Option<String>,
    /// Whether every labelled namespace has been listed.
    pub synced: Option<bool>,
    /// The error of a failing watch.
    pub watch_error: Option<String>,
    /// The labelled namespaces.
    pub namespaces: Option<Vec<String>>,
    /// Labelled namespaces that the server has no rights in, with the reason.
    pub namespaces_without_rights: BTreeMap<String, String>,
    /// A sentence for each namespace with objects that are too large.
    pub not_taken_in: Vec<String>,
    /// `None` without a leader election (`--no-refresher`).
    pub leader: Option<LeaderStatus>,
    pub certificate_not_after_unix_seconds: Option<i64>,
    /// Why the last change of the certificate was rejected.
    pub certificate_error: Option<String>,
    /// Why the last edit of the configuration was rejected.
    pub config_error: Option<String>,
    /// Each a [`SetReport`], not parsed yet. The server writes them by itself, one by one.
    #[serde(skip_serializing)]
    pub statefulsets: Vec<Value>,
    /// The replica that answered; filled in by the client.
    #[serde(skip)]
    pub from: String,
}

/// The Lease as a replica sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaderStatus {
    pub holder: Option<String>,
    /// Whether the replica that answered is the holder.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// Why the Lease could not be read or written.
    pub error: Option<String>,
}

impl ServerStatus {
    /// # Errors
    /// serde's message.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| error.to_string())
    }

    /// The report on a StatefulSet; `Err` if this version cannot read it.
    #[must_use]
    pub fn report(&self, namespace: &str, name: &str) -> Option<Result<SetReport, String>> {
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
