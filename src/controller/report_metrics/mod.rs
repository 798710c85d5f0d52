//! The reports as metrics.
//!
//! Invariant: a scrape has series of their own for at most [`MAX_LABELLED`] StatefulSets, and none on
//! a replica that does not lead; the series of a deleted StatefulSet disappear.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};

use super::reports::Reports;
use crate::core::rollout::report::{
    PodState, QuerierReport, QuerierState, RolloutState, SetReport,
};

/// StatefulSets with series of their own, in order of namespace and name; the others share one.
const MAX_LABELLED: usize = 1_000;
/// Namespace and StatefulSet of that series; not a valid name of an object.
const OTHERS: &str = "_others";

/// A collector, so that the values are read at the scrape.
#[derive(Debug)]
pub struct ReportMetrics(pub Arc<Reports>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: String,
    statefulset: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    namespace: String,
    statefulset: String,
    state: &'static str,
}

/// How the values of several StatefulSets are combined.
#[derive(Clone, Copy)]
enum Aggregation {
    Sum,
    Min,
    Max,
}

impl Aggregation {
    fn of(self, one: i64, other: i64) -> i64 {
        match self {
            Self::Sum => one.saturating_add(other),
            Self::Min => one.min(other),
            Self::Max => one.max(other),
        }
    }
}

struct PerSet {
    name: &'static str,
    aggregation: Aggregation,
    /// Left out while some pod of the StatefulSet was never asked: otherwise nothing would seem to be
    /// served after a change of leader.
    by_answers: bool,
    help: &'static str,
    /// From a report and its age in seconds; `None`, for no series, if unknown.
    value: fn(&SetReport, u64) -> Option<i64>,
}

const PER_SET: [PerSet; 17] = [
    PerSet {
        name: "timeshard_coverage_gap_seconds",
        aggregation: Aggregation::Sum,
        by_answers: true,
        help: "Length of the retention that no ready pod serves. If it is not 0, queries are incomplete: timeshard status shows the gaps",
        value: |report, _| Some(signed(report.gap_seconds)),
    },
    PerSet {
        name: "timeshard_minimum_ready_replicas",
        aggregation: Aggregation::Min,
        by_answers: true,
        help: "The fewest ready pods for any instant of the retention; 1 means that the next failure is a gap",
        value: |report, _| Some(i64::from(report.minimum_ready_replicas)),
    },
    PerSet {
        name: "timeshard_minimum_confirmed_replicas",
        aggregation: Aggregation::Min,
        by_answers: true,
        help: "The fewest confirmed pods for any instant of the retention: they serve the published window and every querier knows them. In a rollout one less than planned",
        value: |report, _| Some(i64::from(report.minimum_confirmed_replicas)),
    },
    PerSet {
        name: "timeshard_planned_minimum_replicas",
        aggregation: Aggregation::Min,
        by_answers: false,
        help: "The fewest pods for any instant of the retention once every pod serves its planned window; if it is 1, add replicas",
        value: |report, _| Some(i64::from(report.planned_minimum_replicas)),
    },
    PerSet {
        name: "timeshard_drift_seconds",
        aggregation: Aggregation::Max,
        by_answers: false,
        help: "For how long a Ready pod has served another window than the published one, the longest of all pods. A rollout brings it to a minute or two; if it grows, check that pod's sidecar",
        value: |report, age| {
            Some(
                report
                    .drifts()
                    .map_or(0, |drift| signed(drift.saturating_add(age))),
            )
        },
    },
    PerSet {
        name: "timeshard_rollout_moves_left",
        aggregation: Aggregation::Sum,
        by_answers: false,
        help: "Pods whose published window is not the planned one. If it does not fall, timeshard status shows what the rollout waits for",
        value: |report, _| Some(i64::from(report.moves_left)),
    },
    PerSet {
        name: "timeshard_rollout_steps_left",
        aggregation: Aggregation::Sum,
        by_answers: false,
        help: "Steps until every window is as planned, if nothing fails",
        value: |report, _| Some(i64::from(report.steps_left)),
    },
    PerSet {
        name: "timeshard_querier_wait_seconds",
        aggregation: Aggregation::Max,
        by_answers: false,
        help: "For how long a step has waited for a querier to drop a pod or to use it again, the longest of all pods; 0 while none waits. If it exceeds the queriers' DNS interval, timeshard status names the querier",
        value: |report, age| {
            let waits = report.querier_wait_seconds;
            Some(waits.map_or(0, |seconds| signed(seconds.saturating_add(age))))
        },
    },
    PerSet {
        name: "timeshard_steps_taken_back",
        aggregation: Aggregation::Max,
        by_answers: false,
        help: "Steps in a row that ended at drain_limit because a querier kept using a pod; 0 again once the rollout has settled. Check the endpoints of the querier that timeshard status names",
        value: |report, _| Some(i64::from(report.taken_back)),
    },
    PerSet {
        name: "timeshard_confirmed_pods",
        aggregation: Aggregation::Sum,
        by_answers: true,
        help: "Pods that serve the published window and that every querier knows",
        value: |report, _| Some(count(report, |state| state == PodState::Confirmed)),
    },
    PerSet {
        name: "timeshard_pods_not_as_published",
        aggregation: Aggregation::Sum,
        by_answers: true,
        help: "Pods that do not serve the published window, or whose sidecar cannot be reached. If it does not fall, check these pods' sidecars",
        value: |report, _| {
            Some(count(report, |state| {
                !matches!(
                    state,
                    PodState::Confirmed | PodState::Joining | PodState::Absent
                )
            }))
        },
    },
    PerSet {
        name: "timeshard_uninjected_store_pods",
        aggregation: Aggregation::Sum,
        by_answers: false,
        help: "Store pods without the sidecar that were not opted out, so their window is not managed: see timeshard check, then delete them so that they are admitted again",
        value: |report, _| Some(i64::from(report.uninjected_store_pods)),
    },
    PerSet {
        name: "timeshard_unserved_blocks",
        aggregation: Aggregation::Sum,
        by_answers: true,
        help: "Blocks within the retention that no confirmed pod has loaded. If it is not 0, queries succeed without their samples: timeshard status lists them, check the bucket and thanos' log",
        value: |report, _| Some(i64::from(report.blocks.unserved_total)),
    },
    PerSet {
        name: "timeshard_missing_blocks",
        aggregation: Aggregation::Sum,
        by_answers: true,
        help: "Blocks that a pod has not loaded although they are in its window, and that another pod serves. A rollout waits for them; if it does not fall, check thanos' log of that pod",
        value: |report, _| Some(i64::from(report.blocks.missing_total)),
    },
    PerSet {
        name: "timeshard_blocks_outside_windows",
        aggregation: Aggregation::Sum,
        by_answers: true,
        help: "Blocks of the bucket outside every window, so no query finds their samples; to query them raise the retention. Absent while no pod knows",
        value: |report, _| report.blocks.outside_windows.map(signed),
    },
    PerSet {
        name: "timeshard_bucket_blocks",
        aggregation: Aggregation::Sum,
        by_answers: true,
        help: "Blocks of the bucket as seen by the pods. Absent while no pod knows",
        value: |report, _| report.blocks.bucket_total.map(signed),
    },
    PerSet {
        name: "timeshard_pods_with_unknown_blocks",
        aggregation: Aggregation::Sum,
        by_answers: true,
        help: "Serving pods that cannot report which blocks they have loaded, so they count as complete; timeshard check shows why",
        value: |report, _| Some(i64::from(report.blocks.unknown_pods)),
    },
];

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(report: &SetReport, of: impl Fn(PodState) -> bool) -> i64 {
    i64::try_from(report.pods.iter().filter(|pod| of(pod.state)).count()).unwrap_or(i64::MAX)
}

/// Namespace and StatefulSet of the series of the report at `index`.
fn names(index: usize, report: &SetReport) -> (String, String) {
    if index < MAX_LABELLED {
        (report.namespace.clone(), report.name.clone())
    } else {
        (OTHERS.to_owned(), OTHERS.to_owned())
    }
}

/// A report, its age in seconds, and whether all its pods were asked once.
type Measured = (Arc<SetReport>, u64, bool);

impl PerSet {
    fn encode(
        &self,
        reports: &[Measured],
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        let family = Family::<Labels, Gauge>::default();
        let mut others = None;
        for (index, (report, age, asked)) in reports.iter().enumerate() {
            if self.by_answers && !asked {
                continue;
            }
            let Some(mut value) = (self.value)(report, *age) else {
                continue;
            };
            let (namespace, statefulset) = names(index, report);
            if index >= MAX_LABELLED {
                value = others.map_or(value, |before| self.aggregation.of(before, value));
                others = Some(value);
            }
            let labels = Labels {
                namespace,
                statefulset,
            };
            family.get_or_create_owned(&labels).set(value);
        }
        encode(encoder, self.name, self.help, &family)
    }
}

fn states(reports: &[Measured]) -> Family<StateLabels, Gauge> {
    let states = Family::<StateLabels, Gauge>::default();
    for (index, (report, _, _)) in reports.iter().enumerate() {
        for state in RolloutState::ALL {
            let (namespace, statefulset) = names(index, report);
            let labels = StateLabels {
                namespace,
                statefulset,
                state: state.as_str(),
            };
            states
                .get_or_create(&labels)
                .inc_by(i64::from(report.state == state));
        }
    }
    states
}

fn queriers(reports: &[Measured]) -> Family<StateLabels, Gauge> {
    let queriers = Family::<StateLabels, Gauge>::default();
    for (index, (report, _, _)) in reports.iter().enumerate() {
        for state in QuerierState::ALL {
            let (namespace, statefulset) = names(index, report);
            let labels = StateLabels {
                namespace,
                statefulset,
                state: state.as_str(),
            };
            let is = |querier: &&QuerierReport| querier.state == state;
            let number = report.queriers.iter().filter(is).count();
            queriers
                .get_or_create(&labels)
                .inc_by(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }
    queriers
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

impl Collector for ReportMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut reports = self.0.measured();
        reports.retain(|(report, _, _)| !report.opted_out);
        for metric in PER_SET {
            metric.encode(&reports, &mut encoder)?;
        }
        let help = "1 for the current state of the StatefulSet. waiting: it continues when what it waits for is done; blocked, refused: someone must change something; timeshard status shows why";
        let states = states(&reports);
        encode(&mut encoder, "timeshard_rollout_state", help, &states)?;
        let help = "Queriers that use the pods, or may use them, by what is known of them; at most 50 of a StatefulSet. For group and unknown, drain and discovery_delay hold: see timeshard status for the reason";
        let queriers = queriers(&reports);
        encode(&mut encoder, "timeshard_queriers", help, &queriers)?;
        let help = "StatefulSets that this replica manages; 0 on followers";
        let managed = ConstGauge::new(i64::try_from(reports.len()).unwrap_or(i64::MAX));
        encode(
            &mut encoder,
            "timeshard_managed_statefulsets",
            help,
            &managed,
        )?;
        let (reconciles, seconds) = self.0.reconciles();
        let help = "Reconciles of single StatefulSets. If it stops increasing on the leader, reconciliation is stuck";
        let reconciles = ConstCounter::new(reconciles);
        encode(&mut encoder, "timeshard_reconciles", help, &reconciles)?;
        let help = "Seconds spent on reconciles, including waiting for the API server";
        let seconds = ConstCounter::new(seconds);
        encode(&mut encoder, "timeshard_reconcile_seconds", help, &seconds)
    }
}
