//! Replicas that do not lead.

use super::*;

pub(super) fn follower(stage: &Stage) {
    let server = stage.serve(scenes::follower());
    stage.open(&server);
    assert!(
        stage
            .text("verdict-text")
            .starts_with("Coverage is complete: every instant of 370d is served by at least 1 "),
        "{}",
        stage.text("verdict-text")
    );
    assert_eq!(
        stage.text("notes-list"),
        "This replica does not lead: it shows the reports of the leader, timeshard-6f7c9-x2x4q."
    );
    assert!(stage.text("sets").contains("Rollout: 1 of 2 steps done"));
    stage.sound("follower");
    // The leader no longer answers; its last reports are shown for a while.
    let mut known = scenes::follower();
    known.head["relayed"]["error"] = json!("connection refused");
    known.head["relayed"]["as_of_unix_seconds"] = json!(1_795_262_400);
    server.know(known);
    stage.browser.until("document.getElementById('notes-list').textContent.endsWith('The last answer is of 12:00:00 UTC, since then: connection refused.')");
}

pub(super) fn follower_alone(stage: &Stage) {
    let server = stage.serve(scenes::follower_alone());
    stage.open(&server);
    assert_eq!(
        stage.text("verdict-text"),
        "This replica is not the leader and cannot reach it: what is served is unknown here"
    );
    let more = stage.text("verdict-more");
    for text in [
        "http://10.8.1.7:8080/status: no answer within 5 s",
        "kubectl -n timeshard-system port-forward pod/timeshard-6f7c9-x2x4q 8080",
    ] {
        assert!(more.contains(text), "{text:?} is not in {more}");
    }
    assert_eq!(
        stage
            .browser
            .run("return document.querySelectorAll('svg .bar.planned').length"),
        json!(5),
        "the plan is shown"
    );
    stage.sound("follower-alone");
}
