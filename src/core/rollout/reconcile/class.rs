//! The class of one pod.

use std::time::Duration;

use super::queriers::QuerierWait;
use crate::core::rollout::planner::MemberState;
use crate::core::rollout::report::PodState;

/// The state of a pod, as far as the rollout is concerned.
pub(super) struct Class {
    pub(super) state: PodState,
    /// `None` for a pod that takes no part in the rollout.
    pub(super) member: Option<MemberState>,
    /// Whether the pod reaches its window without help.
    pub(super) on_its_way: bool,
    /// Whether the pod is away, or may be at any moment, because its window changes.
    pub(super) in_step: bool,
    /// How long until every querier knows the pod.
    pub(super) joins_in: Option<Duration>,
    /// The querier that the pod waits for.
    pub(super) querier: Option<QuerierWait>,
    /// What is wrong or missing.
    pub(super) why: Option<String>,
}

impl Class {
    pub(super) fn absent() -> Self {
        Self::settling(PodState::Absent, false, "the pod does not exist".to_owned())
    }

    pub(super) fn settling(
        state: PodState,
        on_its_way: bool,
        why: impl Into<Option<String>>,
    ) -> Self {
        Self {
            state,
            member: Some(MemberState::Settling),
            on_its_way,
            in_step: false,
            joins_in: None,
            querier: None,
            why: why.into(),
        }
    }

    pub(super) fn broken(why: String) -> Self {
        Self {
            member: Some(MemberState::Broken),
            ..Self::settling(PodState::Broken, false, why)
        }
    }
}
