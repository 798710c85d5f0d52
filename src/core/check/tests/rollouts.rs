//! What the leader says of gateways.

use serde_json::{Value, json};

use super::super::fixture::{healthy, reported};
use super::super::{Outcome, Snapshot, ids, run};
use super::{finds, passes, says, troubles};

#[test]
fn rollouts() {
    let said = |change: fn(&mut Value)| {
        move |s: &mut Snapshot| says(s, |d| change(&mut d["statefulsets"][0]))
    };
    for (state, want) in [
        ("rolling", "warn rollout-state: under way"),
        ("waiting", "warn rollout-state: waits"),
        ("paused", "warn rollout-state"),
        ("unknown", "warn rollout-state: not looked"),
        ("blocked", "fail rollout-state: stuck"),
        ("refused", "fail rollout-state: nothing can be published"),
    ] {
        finds(&[want], |s| {
            says(s, |d| d["statefulsets"][0]["state"] = json!(state))
        });
    }
    finds(
        &["fail rollout-coverage: 60 s"],
        said(|r| r["gap_seconds"] = json!(60)),
    );
    finds(
        &["warn rollout-coverage: not asked 6"],
        said(|r| (r["gap_seconds"], r["not_asked"]) = (json!(60), json!(6))),
    );
    finds(
        &["warn rollout-coverage: 1 pod only"],
        said(|r| r["minimum_ready_replicas"] = json!(1)),
    );
    finds(
        &["fail rollout-drift: store-1 (crashed)"],
        said(|r| {
            (r["pods"][1]["state"], r["pods"][1]["why"]) = (json!("broken"), json!("crashed"))
        }),
    );
    finds(
        &["fail rollout-drift: cannot ask"],
        said(|r| r["pods"][1]["state"] = json!("unreachable")),
    );
    finds(
        &["warn rollout-drift: 3 h"],
        said(|r| {
            (r["pods"][1]["state"], r["pods"][1]["seconds_in_state"]) =
                (json!("settling"), json!(99_999))
        }),
    );
    finds(&[], said(|r| r["pods"][1]["verified"] = json!(false)));
    finds(&["warn rollout-state: does not know"], |s| {
        says(s, |d| d["statefulsets"] = json!([]))
    });
    finds(
        &["warn rollout-state: cannot be read"],
        said(|r| r["state"] = json!("dancing")),
    );
    assert!(reported()["pods"].is_array());
}

#[test]
fn blocks() {
    let said = |change: fn(&mut Value)| {
        move |s: &mut Snapshot| says(s, |d| change(&mut d["statefulsets"][0]))
    };
    let block = || json!({"ulid": "01X", "from": "A", "to": "B", "missing_on": ["store-0", "store-1", "store-2", "store-3"], "served_by": 0});
    finds(
        &["fail rollout-blocks: loaded 2 blocks"],
        said(|r| (r["blocks"]["unserved_total"], r["blocks"]["unserved"]) = (json!(2), json!([]))),
    );
    finds(
        &[
            "warn rollout-blocks: 1 block missing on some pod and served by another: 01X (A .. B) not on store-0, store-1, store-2 and 1 more",
        ],
        |s| {
            says(s, |d| {
                let blocks = &mut d["statefulsets"][0]["blocks"];
                (blocks["missing_total"], blocks["missing"]) = (json!(1), json!([block()]));
            });
        },
    );
    finds(
        &["warn bucket-outside: 100 of 511"],
        said(|r| r["blocks"]["outside_windows"] = json!(100)),
    );
    // What is not known is neither good nor bad.
    let mut snapshot = healthy();
    said(|r| (r["blocks"]["outside_windows"], r["blocks"]["known_pods"]) = (json!(null), json!(0)))(
        &mut snapshot,
    );
    let report = run(&snapshot);
    assert!(
        !passes(&report).contains("rollout-blocks") && !passes(&report).contains("bucket-outside"),
        "{report:#?}"
    );
    assert_eq!(troubles(&report), Vec::<String>::new());
    let mut snapshot = healthy();
    said(|r| r["pods"][1]["blocks_unknown"] = json!("--no-cache-index-header"))(&mut snapshot);
    let report = run(&snapshot);
    let skipped = report
        .findings
        .iter()
        .find(|finding| finding.check == &ids::ROLLOUT_BLOCKS)
        .unwrap();
    assert_eq!(
        (skipped.result, skipped.message.as_str()),
        (
            Outcome::Skipped,
            "loaded blocks are not known, and count as complete, for store-1 (--no-cache-index-header)"
        )
    );
    assert_eq!(troubles(&report), Vec::<String>::new());
}
