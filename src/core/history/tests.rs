use chrono::{TimeDelta, TimeZone as _};

use super::*;
use crate::core::duration::PromDuration;
use crate::core::report::GapReport;
use crate::core::window::Window;

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
        why: Some("port 10908 is closed".to_owned()),
    }
}

fn report(state: State, moves_left: u32, pods: Vec<PodReport>) -> SetReport {
    SetReport {
        state,
        moves_left,
        steps_left: moves_left,
        pods,
        replicas: 2,
        ..SetReport::default()
    }
}

/// Looks at one report after the other, a minute apart.
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

fn told(report: &SetReport) -> Vec<&str> {
    report
        .changes
        .iter()
        .map(|change| change.text.as_str())
        .collect()
}

#[test]
fn a_rollout_is_told_from_beginning_to_end() {
    let (settled, settling, confirmed) = (State::Settled, PodState::Settling, PodState::Confirmed);
    let first = report(settled, 0, vec![pod(0, confirmed, 1), pod(1, confirmed, 1)]);
    let begins = report(
        State::Rolling,
        2,
        vec![pod(0, confirmed, 1), pod(1, confirmed, 1)],
    );
    let step = report(
        State::Rolling,
        1,
        vec![pod(0, settling, 2), pod(1, confirmed, 1)],
    );
    let last = report(
        State::Rolling,
        0,
        vec![pod(0, confirmed, 2), pod(1, settling, 2)],
    );
    let end = report(settled, 0, vec![pod(0, confirmed, 2), pod(1, confirmed, 2)]);
    let during = after(vec![first.clone(), begins.clone(), step.clone()]);
    let rollout = RolloutReport {
        began: "2026-11-21T12:01:00Z".to_owned(),
        steps_done: 1,
        moves_done: 1,
    };
    assert_eq!(during.rollout, Some(rollout));
    let all = after(vec![first, begins, step, last, end]);
    assert_eq!(all.rollout, None);
    assert_eq!(
        told(&all),
        [
            "the rollout is done, after 2 moves in 2 steps",
            "store-1 is confirmed: every querier knows",
            "another window is published for store-1",
            "store-0 is confirmed: every querier knows",
            "another window is published for store-0",
            "a rollout begins: 2 moves in 2 steps",
            "this leader begins to look at it: 2 pods",
        ]
    );
    assert_eq!(all.changes[0].at, "2026-11-21T12:04:00Z");
}

#[test]
fn a_gap_has_a_beginning_and_an_end() {
    let whole = report(State::Settled, 0, vec![pod(0, PodState::Confirmed, 1)]);
    let mut gap = report(State::Waiting, 0, vec![pod(0, PodState::Unreachable, 1)]);
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
        "before anybody was asked nothing is known"
    );
    let during = after(vec![whole.clone(), gap.clone(), gap.clone(), unknown]);
    assert_eq!(during.gap_since.as_deref(), Some("2026-11-21T12:01:00Z"));
    assert_eq!(
        told(&during)[..2],
        [
            "no pod serves A .. B",
            "store-0 is not to be asked: port 10908 is closed"
        ]
    );
    let again = after(vec![whole.clone(), gap, whole]);
    assert_eq!(
        (again.gap_since.as_deref(), told(&again)[0]),
        (None, "every instant is served again")
    );
}

#[test]
fn a_block_that_no_pod_has_loaded_is_told_until_it_is_served_again() {
    let block = |ulid: &str| BlockReport {
        ulid: ulid.to_owned(),
        from: "A".to_owned(),
        to: "B".to_owned(),
        ..BlockReport::default()
    };
    let count = |all: &[&str]| u32::try_from(all.len()).unwrap();
    let with = |unserved: &[&str], missing: &[&str]| {
        let mut report = report(State::Settled, 0, vec![pod(0, PodState::Confirmed, 1)]);
        report.blocks.known_pods = 1;
        report.blocks.unserved = unserved.iter().map(|ulid| block(ulid)).collect();
        report.blocks.missing = missing.iter().map(|ulid| block(ulid)).collect();
        (report.blocks.unserved_total, report.blocks.missing_total) =
            (count(unserved), count(missing));
        report
    };
    let mut unknown = with(&[], &[]);
    unknown.blocks.known_pods = 0;
    // A block that was missing on one pod before is no longer served by the other one either: since the first minute.
    let during = after(vec![
        with(&[], &["X"]),
        with(&["X"], &[]),
        unknown,
        with(&["X", "Y"], &["Z"]),
    ]);
    assert_eq!(
        told(&during)[..2],
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
    assert_eq!(told(&again)[0], "X, Y are served again");
    assert_eq!(
        (again.changes[0].kind, again.changes[1].kind),
        (ChangeKind::Whole, ChangeKind::Gap)
    );
    // What was cut off is not taken for served.
    let mut cut = with(&["Y"], &[]);
    cut.blocks.unserved_total = 2;
    assert_eq!(told(&after(vec![with(&["X", "Y"], &[]), cut])).len(), 2);
}

#[test]
fn what_is_remembered_is_bounded() {
    let flapping = |i: u32| {
        let state = if i.is_multiple_of(2) {
            PodState::Broken
        } else {
            PodState::Confirmed
        };
        let mut pods: Vec<PodReport> = (0..30).map(|n| pod(n, state, 1)).collect();
        pods[0].why = Some("x".repeat(5_000));
        report(State::Waiting, 0, pods)
    };
    let last = after((0..300).map(flapping).collect());
    assert_eq!(last.changes.len(), MOST_CHANGES);
    assert!(
        last.changes
            .iter()
            .all(|change| change.text.chars().count() <= MOST_CHARS),
        "{:?}",
        told(&last)
    );
    assert!(
        told(&last)[0].contains("store-4 and 25 more are confirmed"),
        "{:?}",
        told(&last)[0]
    );
}
