use chrono::{TimeDelta, TimeZone as _};

use super::*;
use crate::core::model::duration::PromDuration;
use crate::core::model::window::Window;
use crate::core::rollout::report::GapReport;

fn window(days: i64) -> Window {
    Window::relative(PromDuration::from_days(-days), PromDuration::ZERO)
}

fn pod(ordinal: u32, state: PodState, published: i64) -> PodReport {
    PodReport {
        pod: format!("store-{ordinal}"),
        ordinal,
        shard: 0,
        replica: ordinal,
        surplus: false,
        desired: window(2),
        published: Some(window(published)),
        applied: None,
        verified: true,
        state,
        phase: None,
        seconds_in_state: 0,
        since_unix_seconds: 0,
        drift_seconds: None,
        restarts: 0,
        agent_version: None,
        blocks_expected: None,
        blocks_missing: None,
        blocks_unknown: None,
        last_load: None,
        why: Some("port 10908 is closed".to_owned()),
    }
}

fn report(state: RolloutState, moves_left: u32, pods: Vec<PodReport>) -> SetReport {
    SetReport {
        state,
        moves_left,
        steps_left: moves_left,
        pods,
        replicas: 2,
        ..SetReport::default()
    }
}

/// Observes the reports in order, a minute apart.
fn after(reports: Vec<SetReport>) -> SetReport {
    let (mut history, mut before, mut now) = (
        History::default(),
        None,
        Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap(),
    );
    for mut report in reports {
        history.observe(before.as_ref(), &mut report, now);
        before = Some(report);
        now += TimeDelta::minutes(1);
    }
    before.unwrap()
}

fn texts(report: &SetReport) -> Vec<&str> {
    report
        .changes
        .iter()
        .map(|change| change.text.as_str())
        .collect()
}

#[test]
fn a_rollout_is_recorded_from_beginning_to_end() {
    let (settled, settling, confirmed) = (
        RolloutState::Settled,
        PodState::Settling,
        PodState::Confirmed,
    );
    let first = report(settled, 0, vec![pod(0, confirmed, 1), pod(1, confirmed, 1)]);
    let begins = report(
        RolloutState::Rolling,
        2,
        vec![pod(0, confirmed, 1), pod(1, confirmed, 1)],
    );
    let step = report(
        RolloutState::Rolling,
        1,
        vec![pod(0, settling, 2), pod(1, confirmed, 1)],
    );
    let last = report(
        RolloutState::Rolling,
        0,
        vec![pod(0, confirmed, 2), pod(1, settling, 2)],
    );
    let end = report(settled, 0, vec![pod(0, confirmed, 2), pod(1, confirmed, 2)]);
    let during = after(vec![first.clone(), begins.clone(), step.clone()]);
    let rollout = RolloutReport {
        began: "2026-11-21T12:01:00Z".to_owned(),
        steps_done: 1,
        moves_done: 1,
        steps_expected: 2,
    };
    assert_eq!(during.rollout, Some(rollout));
    let all = after(vec![first, begins, step, last, end]);
    assert_eq!(all.rollout, None);
    assert_eq!(
        texts(&all),
        [
            "the rollout is done, after 2 moves in 2 steps",
            "store-1 is confirmed: known to every querier",
            "another window is published for store-1",
            "store-0 is confirmed: known to every querier",
            "another window is published for store-0",
            "a rollout begins: 2 moves, expected in 2 steps",
            "this leader starts to manage it: 2 pods",
        ]
    );
    assert_eq!(all.changes[0].at, "2026-11-21T12:04:00Z");
}

#[test]
fn a_change_of_settings_has_old_and_new_value_and_time() {
    let with = |changes: &[(&str, &str, &str)]| {
        let mut report = report(RolloutState::Settled, 0, Vec::new());
        let change = |(key, old, new): &(&str, &str, &str)| SettingChange {
            key: (*key).to_owned(),
            old: (*old).to_owned(),
            new: (*new).to_owned(),
            ..SettingChange::default()
        };
        report.setting_changes = changes.iter().map(change).collect();
        report
    };
    let mut scaled = with(&[("total_shards", "3", "4"), ("overlap", "1d", "2d")]);
    scaled.replicas = 8;
    let mut later = with(&[]);
    later.replicas = 8;
    let last = after(vec![with(&[]), scaled, later]);
    let shown: Vec<String> = last
        .setting_changes
        .iter()
        .map(|SettingChange { at, key, old, new }| format!("{at} {key} {old} {new}"))
        .collect();
    assert_eq!(
        shown,
        [
            "2026-11-21T12:01:00Z spec.replicas 2 8",
            "2026-11-21T12:01:00Z overlap 1d 2d",
            "2026-11-21T12:01:00Z total_shards 3 4",
        ]
    );
    assert_eq!(texts(&last)[0], "spec.replicas went from 2 to 8");
    let long = "9".repeat(1_000);
    let many = after(
        (0..40)
            .map(|_| with(&[("boundaries", &long, "1")]))
            .collect(),
    );
    assert_eq!(many.setting_changes.len(), MAX_SETTING_CHANGES);
    assert!(many.setting_changes[0].old.chars().count() <= MAX_VALUE_CHARS);
}

#[test]
fn a_gap_has_a_beginning_and_an_end() {
    let whole = report(
        RolloutState::Settled,
        0,
        vec![pod(0, PodState::Confirmed, 1)],
    );
    let mut gap = report(
        RolloutState::Waiting,
        0,
        vec![pod(0, PodState::Unreachable, 1)],
    );
    gap.gaps = vec![GapReport {
        from: "A".to_owned(),
        to: "B".to_owned(),
    }];
    gap.gap_seconds = 60;
    let mut unknown = gap.clone();
    unknown.not_asked = 1;
    assert_eq!(
        after(vec![unknown.clone()]).gap_since,
        None,
        "before the first poll nothing is known"
    );
    let during = after(vec![whole.clone(), gap.clone(), gap.clone(), unknown]);
    assert_eq!(during.gap_since.as_deref(), Some("2026-11-21T12:01:00Z"));
    assert_eq!(
        texts(&during)[..2],
        [
            "no pod serves A .. B",
            "store-0 is unreachable: port 10908 is closed"
        ]
    );
    let again = after(vec![whole.clone(), gap, whole]);
    assert_eq!(
        (again.gap_since.as_deref(), texts(&again)[0]),
        (None, "every instant is served again")
    );
}

#[test]
fn an_unserved_block_is_reported_until_it_is_served_again() {
    let block = |ulid: &str| BlockReport {
        ulid: ulid.to_owned(),
        from: "A".to_owned(),
        to: "B".to_owned(),
        ..BlockReport::default()
    };
    let count = |all: &[&str]| u32::try_from(all.len()).unwrap();
    let with = |unserved: &[&str], missing: &[&str]| {
        let mut report = report(
            RolloutState::Settled,
            0,
            vec![pod(0, PodState::Confirmed, 1)],
        );
        report.blocks.known_pods = 1;
        report.blocks.unserved = unserved.iter().map(|ulid| block(ulid)).collect();
        report.blocks.missing = missing.iter().map(|ulid| block(ulid)).collect();
        (report.blocks.unserved_total, report.blocks.missing_total) =
            (count(unserved), count(missing));
        report
    };
    let mut unknown = with(&[], &[]);
    unknown.blocks.known_pods = 0;
    // X was missing on one pod, and is now served by no pod: missing since the first minute.
    let during = after(vec![
        with(&[], &["X"]),
        with(&["X"], &[]),
        unknown,
        with(&["X", "Y"], &["Z"]),
    ]);
    assert_eq!(
        texts(&during)[..2],
        [
            "no confirmed pod has loaded Y (A .. B)",
            "no confirmed pod has loaded X (A .. B)"
        ]
    );
    let began = Utc
        .with_ymd_and_hms(2026, 11, 21, 12, 0, 0)
        .unwrap()
        .timestamp();
    let since: Vec<i64> = during
        .blocks
        .unserved
        .iter()
        .chain(&during.blocks.missing)
        .map(|block| block.since_unix_seconds - began)
        .collect();
    assert_eq!(since, [0, 180, 180]);
    let again = after(vec![with(&["X", "Y"], &[]), with(&[], &[])]);
    assert_eq!(texts(&again)[0], "X, Y are served again");
    assert_eq!(
        (again.changes[0].kind, again.changes[1].kind),
        (ChangeKind::Whole, ChangeKind::Gap)
    );
    // A block that was cut off the list does not count as served.
    let mut cut = with(&["Y"], &[]);
    cut.blocks.unserved_total = 2;
    assert_eq!(texts(&after(vec![with(&["X", "Y"], &[]), cut])).len(), 2);
}

#[test]
fn the_history_is_bounded() {
    let flapping = |i: u32| {
        let state = if i.is_multiple_of(2) {
            PodState::Broken
        } else {
            PodState::Confirmed
        };
        let mut pods: Vec<PodReport> = (0..30).map(|n| pod(n, state, 1)).collect();
        pods[0].why = Some("x".repeat(5_000));
        report(RolloutState::Waiting, 0, pods)
    };
    let last = after((0..300).map(flapping).collect());
    assert_eq!(last.changes.len(), MAX_CHANGES);
    assert!(
        last.changes
            .iter()
            .all(|change| change.text.chars().count() <= MAX_CHARS),
        "{:?}",
        texts(&last)
    );
    assert!(
        texts(&last)[0].contains("store-4 and 25 more are confirmed"),
        "{:?}",
        texts(&last)[0]
    );
}

/// What a step takes besides loading is remembered, and used where queriers end the waits.
#[test]
fn the_last_steps_are_measured() {
    use crate::core::agent::last_load::LastLoad;
    use crate::core::rollout::report::ForecastReport;
    let loaded = |seconds: Option<u64>, state, published| {
        let mut pod = pod(0, state, published);
        pod.last_load = seconds.map(|seconds| LastLoad {
            window: window(2),
            millis: seconds * 1000,
            blocks: None,
            blocks_new: None,
        });
        let mut report = report(RolloutState::Rolling, 1, vec![pod]);
        report.forecast = Some(ForecastReport {
            step_seconds: 124,
            waits_can_end_early: true,
            running_wait_seconds: Some(90),
            running_load_seconds: Some(1),
            ..ForecastReport::default()
        });
        report
    };
    let step = |seconds| {
        vec![
            loaded(None, PodState::Confirmed, 1),
            loaded(None, PodState::Settling, 2),
            loaded(seconds, PodState::Joining, 2),
            loaded(seconds, PodState::Confirmed, 2),
        ]
    };
    let forecast = |reports| after(reports).forecast.unwrap();
    // Two minutes, of which 80 s are the load.
    let measured = forecast(step(Some(80)));
    assert_eq!((measured.step_seconds, measured.step_measured), (40, true));
    assert_eq!(measured.running_wait_seconds, Some(40));
    // Without the load, nothing is known.
    assert_eq!(forecast(step(None)).step_seconds, 124);
    // A step that another one follows at once is not one of its own.
    let mut hurried = step(Some(80));
    hurried.insert(3, loaded(None, PodState::Settling, 3));
    assert_eq!(forecast(hurried).step_seconds, 124);
}
