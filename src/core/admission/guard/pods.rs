//! Conditions of a StatefulSet's pods, as observed by the server that answers the review.

use std::collections::HashMap;
use std::sync::Arc;

use crate::core::rollout::single_holders::{self, SingleHolders};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodCondition {
    /// The `Ready` condition is true, so queriers discover the pod.
    Ready,
    /// Starting, draining or failing.
    NotReady,
    Terminating,
    Absent,
}

impl PodCondition {
    /// The clause after the pod's name in a sentence.
    pub(super) const fn clause(self) -> &'static str {
        match self {
            Self::Ready => "is ready",
            Self::NotReady => "is not ready",
            Self::Terminating => "is being deleted",
            Self::Absent => "does not exist",
        }
    }
}

/// The pods of one StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodsSeen {
    /// By pod name; a pod that is missing here does not exist.
    pub conditions: HashMap<String, PodCondition>,
    /// Blocks that only one pod has loaded, as written in the ConfigMap.
    pub single_holders: Option<String>,
}

impl PodsSeen {
    #[must_use]
    pub fn condition(&self, pod: &str) -> PodCondition {
        self.conditions
            .get(pod)
            .copied()
            .unwrap_or(PodCondition::Absent)
    }

    /// Blocks that only one pod has loaded, by pod.
    #[must_use]
    pub fn single_holders(&self) -> SingleHolders {
        self.single_holders
            .as_deref()
            .map(single_holders::parse)
            .unwrap_or_default()
    }
}

/// Returns the pods of a StatefulSet, by namespace and name; `None` while they are not known.
pub type PodSource = Arc<dyn Fn(&str, &str) -> Option<PodsSeen> + Send + Sync>;
