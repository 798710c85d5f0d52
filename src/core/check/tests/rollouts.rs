//! The leader's reports on gateways.

use serde_json::{Value, json};

use super::super::{CheckOutcome, Snapshot, ids, run};
use super::fixture::{healthy, reported};
use super::{finds, passes, troubles, with_status};

#[test]
fn rollouts() {
    let with = |change: fn(&mut Value)| {
        move |s: &mut Snapshot| with_status(s, |d| change(&mut d["statefulsets"][0]))
    };
    for (state, want) in [
        ("rolling", "warn rollout-state: in progress"),
        ("waiting", "warn rollout-state: waits"),
        ("paused", "warn rollout-state"),
        ("unknown", "warn rollout-state: not reconciled"),
        ("blocked", "fail rollout-state: stuck"),
        ("refused", "fail rollout-state: nothing can be published"),
    ] {
        finds(&[want], |s| {
            with_status(s, |d| d["statefulsets"][0]["state"] = json!(state));
        });
    }
    finds(
        &["fail rollout-coverage: 60 s"],
        with(|r| r["gap_seconds"] = json!(60)),
    );
    finds(
        &["warn rollout-coverage: not polled 6"],
        with(|r| (r["gap_seconds"], r["not_asked"]) = (json!(60), json!(6))),
    );
    finds(
        &["warn rollout-coverage: only 1 pod"],
        with(|r| r["minimum_ready_replicas"] = json!(1)),
    );
    finds(
        &["fail rollout-drift: store-1 (crashed)"],
        with(|r| {
            (r["pods"][1]["state"], r["pods"][1]["why"]) = (json!("broken"), json!("crashed"));
        }),
    );
    finds(
        &["fail rollout-drift: cannot reach"],
        with(|r| r["pods"][1]["state"] = json!("unreachable")),
    );
    finds(
        &["warn rollout-drift: 3 h"],
        with(|r| {
            (r["pods"][1]["state"], r["pods"][1]["seconds_in_state"]) =
                (json!("settling"), json!(99_999));
        }),
    );
    finds(&[], with(|r| r["pods"][1]["verified"] = json!(false)));
    finds(&["warn rollout-state: does not know"], |s| {
        with_status(s, |d| d["statefulsets"] = json!([]));
    });
    finds(
        &["warn rollout-state: this version cannot read"],
        with(|r| r["state"] = json!("dancing")),
    );
    assert!(reported()["pods"].is_array());
}

#[test]
fn blocks() {
    let with = |change: fn(&mut Value)| {
        move |s: &mut Snapshot| with_status(s, |d| change(&mut d["statefulsets"][0]))
    };
    let block = || json!({"ulid": "01X", "from": "A", "to": "B", "missing_on": ["store-0", "store-1", "store-2", "store-3"], "served_by": 0});
    finds(
        &["fail rollout-blocks: loaded 2 blocks"],
        with(|r| (r["blocks"]["unserved_total"], r["blocks"]["unserved"]) = (json!(2), json!([]))),
    );
    finds(
        &[
            "warn rollout-blocks: 1 block missing on some pods but served by others: 01X (A .. B) not on store-0, store-1, store-2 and 1 more",
        ],
        |s| {
            with_status(s, |d| {
                let blocks = &mut d["statefulsets"][0]["blocks"];
                (blocks["missing_total"], blocks["missing"]) = (json!(1), json!([block()]));
            });
        },
    );
    finds(
        &["warn bucket-outside: 100 of 511"],
        with(|r| r["blocks"]["outside_windows"] = json!(100)),
    );
    // What is not known is neither good nor bad.
    let mut snapshot = healthy();
    with(|r| (r["blocks"]["outside_windows"], r["blocks"]["known_pods"]) = (json!(null), json!(0)))(
        &mut snapshot,
    );
    let report = run(&snapshot);
    assert!(
        !passes(&report).contains("rollout-blocks") && !passes(&report).contains("bucket-outside"),
        "{report:#?}"
    );
    assert_eq!(troubles(&report), Vec::<String>::new());
    let mut snapshot = healthy();
    with(|r| r["pods"][1]["blocks_unknown"] = json!("--no-cache-index-header"))(&mut snapshot);
    let report = run(&snapshot);
    let skipped = report
        .findings
        .iter()
        .find(|finding| finding.check == &ids::ROLLOUT_BLOCKS)
        .unwrap();
    assert_eq!(
        (skipped.result, skipped.message.as_str()),
        (
            CheckOutcome::Skipped,
            "loaded blocks are unknown, and count as complete, for store-1 (--no-cache-index-header)"
        )
    );
    assert_eq!(troubles(&report), Vec::<String>::new());
}
