use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::*;
use crate::core::rollout::report::BlocksReport;

fn report(name: &str, gap_seconds: u64, minimum_ready_replicas: u32) -> SetReport {
    let (namespace, name) = ("ns".to_owned(), name.to_owned());
    SetReport {
        namespace,
        name,
        gap_seconds,
        minimum_ready_replicas,
        state: RolloutState::Settled,
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
    let mut out = String::new();
    text::encode(&mut out, &registry).unwrap();
    out
}

#[test]
fn a_deleted_statefulset_has_no_series() {
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
fn coverage_is_not_reported_before_every_pod_was_asked() {
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
    // A later pod does not remove the series: a gap in it would restart the alert.
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
        now.contains(&series("unserved_blocks", 0)) && now.contains(&series("missing_blocks", 0)),
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
fn queriers_are_counted_by_state() {
    let reports = Arc::<Reports>::default();
    let querier = |state| QuerierReport {
        state,
        ..QuerierReport::default()
    };
    put(
        &reports,
        SetReport {
            queriers: vec![
                querier(QuerierState::Answers),
                querier(QuerierState::Answers),
                querier(QuerierState::Group),
            ],
            querier_wait_seconds: Some(42),
            taken_back: 3,
            ..report("store", 0, 2)
        },
    );
    let now = text(&reports);
    for line in [
        "timeshard_queriers{namespace=\"ns\",statefulset=\"store\",state=\"answers\"} 2\n",
        "timeshard_queriers{namespace=\"ns\",statefulset=\"store\",state=\"group\"} 1\n",
        "timeshard_queriers{namespace=\"ns\",statefulset=\"store\",state=\"unknown\"} 0\n",
        "timeshard_querier_wait_seconds{namespace=\"ns\",statefulset=\"store\"} 42\n",
        "timeshard_steps_taken_back{namespace=\"ns\",statefulset=\"store\"} 3\n",
    ] {
        assert!(now.contains(line), "{line}: {now}");
    }
}

#[test]
fn statefulsets_beyond_the_limit_share_one_series() {
    let reports = Arc::<Reports>::default();
    for i in 0..MAX_LABELLED + 3 {
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
        assert_eq!(now.matches(&format!("{name}{{")).count(), MAX_LABELLED + 1);
    }
    assert!(now.contains("timeshard_rollout_state{namespace=\"_others\",statefulset=\"_others\",state=\"settled\"} 3\n"));
    assert!(now.contains("timeshard_managed_statefulsets 1003\n"));
}
