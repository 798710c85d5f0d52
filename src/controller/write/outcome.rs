//! Outcomes of writes.

use kube::core::Status;
use serde_json::Value;

use crate::core::model::names;
use crate::core::model::text::short_line;

/// How much is kept of the API server's reason for a refusal. Characters.
const MAX_REASON_CHARS: usize = 500;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    Done {
        /// The object's new version; empty after a deletion.
        resource_version: String,
    },
    /// The object changed since it was seen, or is gone.
    Conflict,
    /// There is an unknown ConfigMap of that name.
    AlreadyExists(Existing),
    /// Why, as a sentence. After a deadline it may have been written all the same.
    Failed(String),
}

/// A ConfigMap that was not known to be managed by timeshard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    pub resource_version: String,
    pub claim: Ownership,
    pub(super) has_labels: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// It has timeshard's label; the watch will show it soon.
    Managed,
    /// Its owner allows timeshard to take it over ([`names::ADOPT`]).
    Adoptable,
    /// It must never be written.
    Foreign,
}

/// Why a request did not succeed.
pub(super) enum WriteRefused {
    Status(Box<Status>),
    Otherwise(String),
}

impl WriteOutcome {
    /// Label values of the counter.
    pub(super) const LABELS: [&str; 4] = ["done", "conflict", "exists", "failed"];

    pub(super) fn label(&self) -> &'static str {
        let [done, conflict, exists, failed] = Self::LABELS;
        match self {
            Self::Done { .. } => done,
            Self::Conflict => conflict,
            Self::AlreadyExists(_) => exists,
            Self::Failed(_) => failed,
        }
    }
}

pub(super) fn outcome(answer: Result<Value, WriteRefused>) -> WriteOutcome {
    match answer {
        Ok(object) => WriteOutcome::Done {
            resource_version: text(&object["metadata"]["resourceVersion"]),
        },
        Err(WriteRefused::Status(status)) if is_stale(&status) => WriteOutcome::Conflict,
        Err(WriteRefused::Status(status)) => WriteOutcome::Failed(format!(
            "{} (HTTP {})",
            short_line(&status.message, MAX_REASON_CHARS),
            status.code
        )),
        Err(WriteRefused::Otherwise(why)) => WriteOutcome::Failed(why),
    }
}

/// Whether the object is not the one that was seen. A patch for another UID is refused as a change
/// of the UID.
fn is_stale(status: &Status) -> bool {
    let changes_uid = || {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes
            .into_iter()
            .any(|cause| cause.field == "metadata.uid")
    };
    matches!(status.code, 404 | 409) || (status.code == 422 && changes_uid())
}

pub(super) fn existing(map: &Value) -> Existing {
    let metadata = &map["metadata"];
    let claim = if metadata["labels"][names::MANAGED_BY_LABEL] == names::MANAGED_BY {
        Ownership::Managed
    } else if metadata["annotations"][names::ADOPT] == "true" {
        Ownership::Adoptable
    } else {
        Ownership::Foreign
    };
    Existing {
        resource_version: text(&metadata["resourceVersion"]),
        claim,
        has_labels: metadata["labels"].is_object(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
