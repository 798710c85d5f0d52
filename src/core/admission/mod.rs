//! Admission's decision: which pods are gateways, and the operations that make such a pod a replica
//! of a shard.
//!
//! In: raw JSON (as a `PodView`), and what is known of the StatefulSet ([`Facts`]). Out: RFC 6902
//! operations ([`Injection`]), or why there are none ([`Skip`]). Next for a review:
//! `core/gateways/gateway.rs`.
//!
//! Invariants, property-tested in `tests/random.rs`: nothing changes but what an operation names;
//! injecting an injected pod gives no operation, even after other injectors changed it; no input
//! panics. No API call, no clock, no cache.

mod command_line;
mod eligible;
pub mod guard;
mod inject;
mod liveness;
mod mesh;
pub mod notice;
pub mod patch;
mod reasons;
mod selection;
mod token;

use chrono::{DateTime, Utc};

pub use eligible::{Candidate, eligible};
pub use inject::inject;
pub use reasons::{Remark, SKIP_LABELS, Skip};

use self::patch::Operation;
use super::config::Config;
use super::plan::Assignment;
use crate::core::gateways::{Gateway, Gateways};
use crate::core::model::entry::Entry;
use crate::core::model::window::Window;
use crate::core::pod::PodView;

/// What decides about a candidate besides the pod itself.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub config: &'a Config,
    /// The pod's StatefulSet.
    pub gateway: &'a Gateway,
    /// The pod's published entry, which takes precedence over the plan.
    pub published: Option<&'a Entry>,
    /// From the request: the API server sets it in the pod only later.
    pub namespace: &'a str,
    /// For absolute windows.
    pub now: DateTime<Utc>,
}

impl<'a> Facts<'a> {
    /// Looks up a candidate's StatefulSet and the entry of its pod.
    #[must_use]
    pub fn of(
        gateways: &'a Gateways,
        namespace: &'a str,
        (candidate, pod): (&Candidate<'_>, &PodView<'_>),
        now: DateTime<Utc>,
    ) -> Self {
        let statefulset = &candidate.owner.name.0;
        Self {
            config: gateways.config(),
            gateway: gateways.known(namespace, statefulset),
            published: gateways.published(namespace, statefulset, pod.name()),
            namespace,
            now,
        }
    }
}

/// The injection of a pod.
#[derive(Debug)]
pub struct Injection<'a> {
    /// Empty when nothing is missing.
    pub operations: Vec<Operation<'a>>,
    pub assignment: Assignment,
    pub window: Window,
    pub source: ConfigSource,
    /// Warnings for the pod's user.
    pub remarks: Vec<Remark>,
}

/// Origin of an injected window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// The published entry.
    Published,
    /// The plan, for a pod without an entry.
    Plan,
}

#[cfg(test)]
mod tests;
