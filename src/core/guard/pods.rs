//! How the pods of a StatefulSet are, as the server that is asked has seen them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::core::single_holders::{self, SingleHolders};

/// How a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodCondition {
    /// Its `Ready` condition is true: queriers are sent to it.
    Ready,
    /// It starts, drains or fails.
    NotReady,
    /// It is being deleted.
    Terminating,
    /// There is no such pod.
    Absent,
}

impl PodCondition {
    /// What follows the pod's name in a sentence.
    pub(super) const fn words(self) -> &'static str {
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
    /// Each pod that exists, by name.
    pub conditions: HashMap<String, PodCondition>,
    /// What our ConfigMap says of blocks that one pod alone has loaded, as it stands there.
    pub single_holders: Option<String>,
}

impl PodsSeen {
    /// How a pod is.
    #[must_use]
    pub fn condition(&self, pod: &str) -> PodCondition {
        self.conditions
            .get(pod)
            .copied()
            .unwrap_or(PodCondition::Absent)
    }

    /// The blocks that one pod alone has loaded, by pod.
    #[must_use]
    pub fn single_holders(&self) -> SingleHolders {
        self.single_holders
            .as_deref()
            .map(single_holders::parse)
            .unwrap_or_default()
    }
}

/// Tells of a StatefulSet, by namespace and name; `None` while its pods are not known.
pub type PodSource = Arc<dyn Fn(&str, &str) -> Option<PodsSeen> + Send + Sync>;
