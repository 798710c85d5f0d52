//! One StatefulSet of Store Gateways: the observed facts, and its sharding and plan.
//!
//! In: the configuration and a StatefulSet's facts, when either changes. Out, for admission: the
//! plan, and the sidecar that all its pods get. Next for a review: `core/admission/inject.rs`.

use super::all_at_once::{AllAtOnce, all_at_once};
use crate::core::config::{Config, Sharding, unknown_annotations};
use crate::core::fairness::memory;
use crate::core::gateways::container::RenderedSidecar;
use crate::core::kube::observed::REPORT_BYTES;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::names;
use crate::core::plan::Plan;

/// A StatefulSet as admission needs it.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The file's sharding, overridden by the annotations.
    pub sharding: Sharding,
    pub plan: Plan,
    /// `spec.ordinals.start`.
    pub ordinals_start: u32,
    /// Whether time flags that the user set may be replaced.
    pub replace_time_flags: bool,
    /// Whether thanos reloads in place although a liveness probe may kill a long load.
    pub reload_despite_liveness: bool,
    /// What is wrong with the annotations; [`Self::sharding`] is then the last good one.
    pub problem: Option<String>,
    /// True if the annotations are invalid and no valid ones are known (say, after a restart). The
    /// published entries are then the only evidence of the split in force, and [`Self::sharding`]
    /// is the file's.
    pub split_unknown: bool,
    /// The sidecar of the pods, rendered once.
    pub rendered: RenderedSidecar,
    pub(super) facts: StatefulSetFacts,
}

impl Gateway {
    /// Derives sharding and plan from the facts. Invalid annotations keep the meaning they had
    /// `before`.
    #[must_use]
    pub fn new(config: &Config, facts: StatefulSetFacts, before: Option<&Self>) -> Self {
        let last_good = before.filter(|known| !known.split_unknown);
        let annotations = facts
            .annotations
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let (sharding, problem) = match config.sharding_for(annotations) {
            Ok(sharding) => (sharding, None),
            Err(refusal) => {
                let last_good = last_good.map_or(&config.sharding, |known| &known.sharding);
                (last_good.clone(), Some(refusal.to_string()))
            }
        };
        let split_unknown = problem.is_some() && last_good.is_none();
        let (pods, wrong_target) = facts.planned_pods();
        let is_true = |name: &str| facts.annotation(name) == Some("true");
        Self {
            // The first pods of a scale-up from 0 may come before the new count is observed; they
            // get the windows of a full plan.
            plan: Plan::new(&sharding, Some(pods).filter(|pods| *pods > 0)),
            ordinals_start: facts.ordinals_start,
            replace_time_flags: is_true(names::REPLACE_TIME_FLAGS),
            reload_despite_liveness: is_true(names::RELOAD_DESPITE_LIVENESS),
            sharding,
            problem: problem.or(wrong_target),
            split_unknown,
            rendered: RenderedSidecar::default(),
            facts,
        }
    }

    /// Whether its user opted it out by [`names::MANAGED`].
    #[must_use]
    pub fn opted_out(&self) -> bool {
        self.facts.annotation(names::MANAGED) == Some("false")
    }

    /// Returns `CamelCase` reasons and sentences for the user, most important first.
    #[must_use]
    pub fn remarks(&self) -> Vec<(&'static str, String)> {
        let notes = self
            .plan
            .notes()
            .iter()
            .map(|note| (note.reason(), note.to_string()));
        let unknown = unknown_annotations(self.facts.annotations.keys().map(String::as_str))
            .into_iter()
            .map(|sentence| ("UnknownAnnotation", sentence));
        let at_once = self
            .all_at_once()
            .map(|all| ("MaxUnavailable", all.sentence(&self.facts)));
        self.problem
            .iter()
            .map(|problem| ("InvalidAnnotation", problem.clone()))
            .chain(at_once)
            .chain(unknown)
            .chain(notes)
            .collect()
    }

    /// Returns the replicas of a shard that a rolling update would replace together.
    #[must_use]
    pub fn all_at_once(&self) -> Option<AllAtOnce> {
        all_at_once(&self.facts, |index| self.plan.assign(index).shard)
    }

    #[must_use]
    pub fn facts(&self) -> &StatefulSetFacts {
        &self.facts
    }

    /// Estimates the memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// The sharding, the rendered sidecar, and the leader's state.
        const BASE_BYTES: usize = 8 * 1024;
        /// A shard in the plan and in the report.
        const SHARD_BYTES: usize = 64;
        let facts = &self.facts;
        let texts = memory::bytes_of([
            &facts.namespace,
            &facts.name,
            &facts.uid,
            &facts.update_revision,
        ]);
        // Annotations are kept as text and as sharding.
        let own = texts + 2 * memory::bytes_of_map(&facts.annotations) + facts.selector.bytes();
        let absent = super::ABSENT_PODS.min(facts.replicas) as usize * REPORT_BYTES;
        BASE_BYTES + own + absent + SHARD_BYTES * self.plan.shards().len()
    }
}
