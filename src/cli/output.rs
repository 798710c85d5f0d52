//! Documents of `-o json` and `-o yaml`: each begins with the version of its form and its kind.
//!
//! Within a version, keys are only added, and no key changes its meaning; docs/cli.md says so.

use serde::Serialize;

use super::Failure;

/// Version of every document of the command line. Not an API of Kubernetes: `kubectl apply` refuses
/// these documents.
pub(super) const API_VERSION: &str = "cli.thanos-timeshard.io/v1";

#[derive(Serialize)]
struct VersionedDocument<'a, T> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    document: &'a T,
}

fn versioned<'a, T>(kind: &'static str, document: &'a T) -> VersionedDocument<'a, T> {
    VersionedDocument {
        api_version: API_VERSION,
        kind,
        document,
    }
}

pub(super) fn json(kind: &'static str, document: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(&versioned(kind, document))
        .map(|text| text + "\n")
        .map_err(|error| Failure::Failed(error.to_string()))
}

/// As [`json`], in one line.
pub(super) fn json_line(kind: &'static str, document: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(&versioned(kind, document))
        .map(|text| text + "\n")
        .map_err(|error| Failure::Failed(error.to_string()))
}

pub(super) fn yaml(kind: &'static str, document: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(&versioned(kind, document))
        .map_err(|error| Failure::Failed(error.to_string()))
}
