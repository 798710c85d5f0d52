//! The reports as metrics.
//!
//! Invariant: a scrape holds at most [`MOST_LABELLED`] StatefulSets with series of their own, and none on a replica that
//! does not lead; the series of a StatefulSet that is gone are gone.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};

use super::reports::Reports;
use crate::core::report::{PodState, SetReport, State};

/// StatefulSets with series of their own, by namespace and name; further ones share one series.
const MOST_LABELLED: usize = 1_000;
/// Namespace and StatefulSet of that series; no object can be called so.
const OTHERS: &str = "_others";

/// Registered as a collector, so that the values are those of the scrape.
#[derive(Debug)]
pub(super) struct ReportMetrics(pub(super) Arc<Reports>);

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

/// How the values of several StatefulSets become one.
#[derive(Clone, Copy)]
enum Together {
    Sum,
    Least,
    Most,
}

impl Together {
    fn of(self, one: i64, other: i64) -> i64 {
        match self {
            Self::Sum => one.saturating_add(other),
            Self::Least => one.min(other),
            Self::Most => one.max(other),
        }
    }
}

/// A metric of each StatefulSet.
struct PerSet {
    name: &'static str,
    together: Together,
    /// Left out of a StatefulSet of which some pod was never asked: after a change of leader nothing would seem to be served.
    by_answers: bool,
    help: &'static str,
    /// Of a report, and of the seconds since it was made; `None` where it is not known: there is no series then.
    value: fn(&SetReport, u64) -> Option<i64>,
}

const PER_SET: [PerSet; 15] = [
    PerSet {
        name: "timeshard_coverage_gap_seconds",
        together: Together::Sum,
        by_answers: true,
        help: "Length of the retention that no ready pod serves; when it is not 0, queries are incomplete: timeshard status says what is missing",
        value: |report, _| Some(signed(report.gap_seconds)),
    },
    PerSet {
        name: "timeshard_minimum_ready_replicas",
        together: Together::Least,
        by_answers: true,
        help: "The fewest ready pods that any instant of the retention has; 1 means that the next failure is a gap",
        value: |report, _| Some(i64::from(report.minimum_ready_replicas)),
    },
    PerSet {
        name: "timeshard_minimum_confirmed_replicas",
        together: Together::Least,
        by_answers: true,
        help: "The fewest pods that serve what is published and that every querier knows, over all instants of the retention; in a rollout one less than planned",
        value: |report, _| Some(i64::from(report.minimum_confirmed_replicas)),
    },
    PerSet {
        name: "timeshard_planned_minimum_replicas",
        together: Together::Least,
        by_answers: false,
        help: "The fewest pods that any instant of the retention has when each serves what is planned for it; where it is 1, add replicas",
        value: |report, _| Some(i64::from(report.planned_minimum_replicas)),
    },
    PerSet {
        name: "timeshard_drift_seconds",
        together: Together::Most,
        by_answers: false,
        help: "For how long a Ready pod has served another window than is published, the longest of all pods; a rollout brings it to a minute or two, when it grows look at that pod's sidecar",
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
        together: Together::Sum,
        by_answers: false,
        help: "Pods whose published window is not the planned one; when it stays, timeshard status says what the rollout waits for",
        value: |report, _| Some(i64::from(report.moves_left)),
    },
    PerSet {
        name: "timeshard_rollout_steps_left",
        together: Together::Sum,
        by_answers: false,
        help: "Steps until every window is as planned, if nothing fails",
        value: |report, _| Some(i64::from(report.steps_left)),
    },
    PerSet {
        name: "timeshard_confirmed_pods",
        together: Together::Sum,
        by_answers: true,
        help: "Pods that serve what is published and that every querier knows",
        value: |report, _| Some(count(report, |state| state == PodState::Confirmed)),
    },
    PerSet {
        name: "timeshard_pods_not_as_published",
        together: Together::Sum,
        by_answers: true,
        help: "Pods that do not serve what is published, or cannot be asked; when it stays, look at these pods' sidecars",
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
        together: Together::Sum,
        by_answers: false,
        help: "Store pods without our sidecar although nobody opted them out: nothing keeps their window right; see timeshard check, then delete them to have them admitted anew",
        value: |report, _| Some(i64::from(report.uninjected_store_pods)),
    },
    PerSet {
        name: "timeshard_unserved_blocks",
        together: Together::Sum,
        by_answers: true,
        help: "Blocks within the retention that no confirmed pod has loaded; when it is not 0, queries lack their samples and say success: timeshard status names them, look at the bucket and at thanos' log",
        value: |report, _| Some(i64::from(report.blocks.unserved_total)),
    },
    PerSet {
        name: "timeshard_missing_blocks",
        together: Together::Sum,
        by_answers: true,
        help: "Blocks that some pod has not loaded although its window holds them, and another pod serves; a rollout waits for them, when it stays look at thanos' log there",
        value: |report, _| Some(i64::from(report.blocks.missing_total)),
    },
    PerSet {
        name: "timeshard_blocks_outside_windows",
        together: Together::Sum,
        by_answers: true,
        help: "Blocks of the bucket that no window holds, so no query finds their samples; when they are wanted raise the retention. Absent while no pod knows",
        value: |report, _| report.blocks.outside_windows.map(signed),
    },
    PerSet {
        name: "timeshard_bucket_blocks",
        together: Together::Sum,
        by_answers: true,
        help: "Blocks of the bucket, as the pods see it. Absent while no pod knows",
        value: |report, _| report.blocks.bucket_total.map(signed),
    },
    PerSet {
        name: "timeshard_pods_with_unknown_blocks",
        together: Together::Sum,
        by_answers: true,
        help: "Pods that serve and cannot say which blocks they have loaded, so they count as complete; timeshard check says why",
        value: |report, _| Some(i64::from(report.blocks.unknown_pods)),
    },
];

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(report: &SetReport, of: impl Fn(PodState) -> bool) -> i64 {
    i64::try_from(report.pods.iter().filter(|pod| of(pod.state)).count()).unwrap_or(i64::MAX)
}

/// Namespace and StatefulSet of its series.
fn names(place: usize, report: &SetReport) -> (String, String) {
    if place < MOST_LABELLED {
        (report.namespace.clone(), report.name.clone())
    } else {
        (OTHERS.to_owned(), OTHERS.to_owned())
    }
}

impl Collector for ReportMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let reports = self.0.measured();
        for metric in PER_SET {
            let family = Family::<Labels, Gauge>::default();
            let mut others = None;
            for (place, (report, age, _)) in reports
                .iter()
                .enumerate()
                .filter(|(_, (_, _, asked))| *asked || !metric.by_answers)
            {
                let Some(mut value) = (metric.value)(report, *age) else {
                    continue;
                };
                let (namespace, statefulset) = names(place, report);
                if place >= MOST_LABELLED {
                    value = others.map_or(value, |before| metric.together.of(before, value));
                    others = Some(value);
                }
                family
                    .get_or_create_owned(&Labels {
                        namespace,
                        statefulset,
                    })
                    .set(value);
            }
            family.encode(encoder.encode_descriptor(
                metric.name,
                metric.help,
                None,
                family.metric_type(),
            )?)?;
        }
        let states = Family::<StateLabels, Gauge>::default();
        for (place, (report, _, _)) in reports.iter().enumerate() {
            for state in State::ALL {
                let (namespace, statefulset) = names(place, report);
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
        let help = "1 for the state that the StatefulSet is in. waiting, blocked, refused: it does not go on by itself, timeshard status says why";
        states.encode(encoder.encode_descriptor(
            "timeshard_rollout_state",
            help,
            None,
            states.metric_type(),
        )?)?;
        let managed = ConstGauge::new(i64::try_from(reports.len()).unwrap_or(i64::MAX));
        let help = "StatefulSets that this replica keeps; 0 on followers";
        managed.encode(encoder.encode_descriptor(
            "timeshard_managed_statefulsets",
            help,
            None,
            managed.metric_type(),
        )?)?;
        let (looks, seconds) = self.0.looks();
        let looks = ConstCounter::new(looks);
        let help =
            "Looks at one StatefulSet; when it stands still on the leader, nothing is kept right";
        looks.encode(encoder.encode_descriptor(
            "timeshard_reconciles",
            help,
            None,
            looks.metric_type(),
        )?)?;
        let seconds = ConstCounter::new(seconds);
        let help = "Seconds spent on looks at StatefulSets, waiting for the API server included";
        seconds.encode(encoder.encode_descriptor(
            "timeshard_reconcile_seconds",
            help,
            None,
            seconds.metric_type(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::core::report::BlocksReport;

    fn report(name: &str, gap_seconds: u64, minimum_ready_replicas: u32) -> SetReport {
        let (namespace, name) = ("ns".to_owned(), name.to_owned());
        SetReport {
            namespace,
            name,
            gap_seconds,
            minimum_ready_replicas,
            state: State::Settled,
            ..SetReport::default()
        }
    }

    fn put(reports: &Reports, report: SetReport) {
        reports.put(
            &(report.namespace.clone(), report.name.clone()),
            report,
            Duration::from_millis(1),
        );
    }

    fn text(reports: &Arc<Reports>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ReportMetrics(reports.clone())));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn series_of_a_statefulset_that_is_gone_are_gone() {
        let reports = Arc::<Reports>::default();
        put(&reports, report("store", 7, 1));
        put(&reports, report("other", 0, 2));
        let now = text(&reports);
        for line in [
            "timeshard_coverage_gap_seconds{namespace=\"ns\",statefulset=\"store\"} 7\n",
            "timeshard_rollout_state{namespace=\"ns\",statefulset=\"store\",state=\"settled\"} 1\n",
            "timeshard_rollout_state{namespace=\"ns\",statefulset=\"store\",state=\"rolling\"} 0\n",
            "timeshard_managed_statefulsets 2\n",
        ] {
            assert!(now.contains(line), "{line}: {now}");
        }
        reports.remove(&("ns".to_owned(), "store".to_owned()));
        let now = text(&reports);
        assert!(
            !now.contains("\"store\"") && now.contains("\"other\""),
            "{now}"
        );
        reports.clear();
        let now = text(&reports);
        assert!(
            !now.contains("statefulset=") && now.contains("timeshard_managed_statefulsets 0\n"),
            "a follower has none: {now}"
        );
    }

    #[test]
    fn what_is_served_is_not_told_before_every_pod_was_asked() {
        let reports = Arc::<Reports>::default();
        put(
            &reports,
            SetReport {
                not_asked: 1,
                ..report("store", 7, 0)
            },
        );
        let now = text(&reports);
        let absent = [
            "coverage_gap_seconds{",
            "minimum_ready_replicas{",
            "minimum_confirmed_replicas{",
            "confirmed_pods{",
        ];
        assert!(
            !absent.iter().any(|name| now.contains(name))
                && now.contains("timeshard_rollout_moves_left{"),
            "{now}"
        );
        put(&reports, report("store", 0, 2));
        // A pod that comes later takes nothing away: a series with holes would begin its alert anew.
        put(
            &reports,
            SetReport {
                not_asked: 1,
                ..report("store", 7, 2)
            },
        );
        let now = text(&reports);
        assert!(
            absent.iter().all(|name| now.contains(name))
                && now.contains("gap_seconds{namespace=\"ns\",statefulset=\"store\"} 7\n"),
            "{now}"
        );
    }

    #[test]
    fn blocks_of_the_bucket_have_no_series_while_no_pod_knows_them() {
        let reports = Arc::<Reports>::default();
        put(&reports, report("store", 0, 2));
        let series = |name: &str, value: u32| {
            format!("timeshard_{name}{{namespace=\"ns\",statefulset=\"store\"}} {value}\n")
        };
        let now = text(&reports);
        assert!(
            now.contains(&series("unserved_blocks", 0))
                && now.contains(&series("missing_blocks", 0)),
            "{now}"
        );
        assert!(
            !now.contains("outside_windows{") && !now.contains("bucket_blocks{"),
            "{now}"
        );
        let blocks = BlocksReport {
            unserved_total: 1,
            missing_total: 2,
            unknown_pods: 3,
            outside_windows: Some(14),
            bucket_total: Some(511),
            ..BlocksReport::default()
        };
        put(
            &reports,
            SetReport {
                blocks,
                ..report("store", 0, 2)
            },
        );
        let now = text(&reports);
        for (name, value) in [
            ("unserved_blocks", 1),
            ("missing_blocks", 2),
            ("pods_with_unknown_blocks", 3),
            ("blocks_outside_windows", 14),
            ("bucket_blocks", 511),
        ] {
            assert!(now.contains(&series(name, value)), "{name}: {now}");
        }
    }

    #[test]
    fn what_is_beyond_the_limit_shares_one_series() {
        let reports = Arc::<Reports>::default();
        for i in 0..MOST_LABELLED + 3 {
            put(
                &reports,
                report(&format!("s{i:05}"), 10, u32::try_from(i).unwrap()),
            );
        }
        let now = text(&reports);
        let others = "{namespace=\"_others\",statefulset=\"_others\"}";
        for (name, value) in [
            ("timeshard_coverage_gap_seconds", 30),
            ("timeshard_minimum_ready_replicas", 1_000),
        ] {
            assert!(now.contains(&format!("{name}{others} {value}\n")), "{name}");
            assert_eq!(now.matches(&format!("{name}{{")).count(), MOST_LABELLED + 1);
        }
        assert!(now.contains("timeshard_rollout_state{namespace=\"_others\",statefulset=\"_others\",state=\"settled\"} 3\n"));
        assert!(now.contains("timeshard_managed_statefulsets 1003\n"));
    }
}
