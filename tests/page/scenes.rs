//! Facts of servers, one function per scene.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::{Value, json};
use thanos_timeshard::adapters::clock;
use thanos_timeshard::core::rollout::report::{
    BlockReport, BlocksReport, ChangeKind, PodState, RolloutReport, RolloutState, SetReport,
    SettingChange,
};
use thanos_timeshard::core::server_status::API_VERSION;
use thanos_timeshard::page::feed::{PageFacts, PageSet};

use crate::story::{Story, ago, plan, plan_of, rfc3339};

pub(crate) const HOSTILE: &str =
    "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>\u{2028}";

fn head(leader: &Value) -> Value {
    json!({
        "api_version": API_VERSION, "version": env!("CARGO_PKG_VERSION"), "cluster_name": "prod-eu", "webhook_only": false, "synced": true, "watch_error": null, "namespaces": ["monitoring"],
        "leader": leader, "certificate_error": null, "config_error": null,
        "certificate_not_after_unix_seconds": clock::unix_seconds() + 90 * 86_400,
    })
}

pub(crate) fn led(sets: Vec<PageSet>) -> PageFacts {
    PageFacts {
        head: head(&json!({"holder": "timeshard-6f7c9-x2x4q", "self": true, "error": null})),
        sets,
    }
}

pub(crate) fn healthy() -> PageFacts {
    led(vec![
        Story::settled("monitoring", "thanos-store-gateway", 3, 6).set(),
        Story::settled("team-eu", "thanos-store", 2, 4).set(),
    ])
}

/// The oldest window has no older end, and the newest one ends before now.
pub(crate) fn for_ever() -> PageFacts {
    let plan = plan_of(
        "retention: forever, boundaries: [14d, 90d], future_buffer: -22h",
        6,
    );
    led(vec![
        Story::serving("monitoring", "thanos-store-gateway", plan, 6).set(),
    ])
}

pub(crate) fn empty() -> PageFacts {
    let mut known = led(Vec::new());
    known.head["namespaces"] = json!([]);
    known
}

/// The pods of a step from 3 to 4 shards of two, as the planner has them.
fn pods_of_step(step: u32) -> String {
    let pods = (0..8).filter(|index| index % 2 == step - 1);
    let names: Vec<String> = pods.map(|i| format!("thanos-store-gateway-{i}")).collect();
    names.join(", ")
}

fn rolling_changes(story: &mut Story, steps: u32) {
    story.report.changes.clear();
    story.change(
        6,
        ChangeKind::Rollout,
        "a rollout begins: 8 moves, expected in 2 steps",
    );
    let publishes = |step| format!("another window is published for {}", pods_of_step(step));
    story.change(6, ChangeKind::Step, &publishes(1));
    if steps == 2 {
        let confirmed = format!("{} are confirmed: known to every querier", pods_of_step(1));
        story.change(1, ChangeKind::Confirmed, &confirmed);
        story.change(1, ChangeKind::Step, &publishes(2));
    }
}

/// From 3 to 4 shards, in the last of two steps: of its four pods one drains, one loads, and two are
/// not yet known to queriers.
pub(crate) fn rolling() -> PageFacts {
    rolling_in(2)
}

/// The same in one of the two steps.
pub(crate) fn rolling_in(step: u32) -> PageFacts {
    let (old, _) = plan(3, 8);
    let mut story = Story::settled("monitoring", "thanos-store-gateway", 4, 8);
    let now = clock::now();
    for index in 0..8_u32 {
        let before = old.window(old.assign(index).shard, now);
        let its_step = index % 2 + 1;
        story.pod(index as usize, |pod| {
            if its_step < step {
                (pod.restarts, pod.since_unix_seconds) = (1, ago(1).timestamp());
                return;
            }
            if its_step > step {
                (pod.published, pod.applied) = (Some(before), Some(before));
                return;
            }
            let (state, phase, seconds) = match index / 2 {
                0 | 1 => (PodState::Joining, "serving", 18),
                2 => (PodState::Settling, "draining", 24),
                _ => (PodState::Settling, "restarting", 11),
            };
            (pod.state, pod.phase) = (state, Some(phase.to_owned()));
            pod.since_unix_seconds = clock::unix_seconds() - seconds;
            match phase {
                "serving" => pod.why = Some("queriers learn of it within 12 s".to_owned()),
                "draining" => pod.applied = Some(before),
                _ => pod.applied = None,
            }
        });
    }
    let drains = if step == 2 { 5 } else { 4 };
    let report = &mut story.report;
    (report.state, report.message) = (
        RolloutState::Rolling,
        format!("waits for thanos-store-gateway-{drains}: it is draining"),
    );
    report.rollout = Some(RolloutReport {
        began: rfc3339(ago(6)),
        steps_done: step,
        moves_done: 4 * step,
        steps_expected: 2,
    });
    report.setting_changes = vec![SettingChange {
        at: rfc3339(ago(6)),
        key: "total_shards".to_owned(),
        old: "3".to_owned(),
        new: "4".to_owned(),
    }];
    rolling_changes(&mut story, step);
    led(vec![
        story.set(),
        Story::settled("team-eu", "thanos-store", 2, 4).set(),
    ])
}

/// Both pods of the middle shard are lost, and one was admitted while the webhook was away.
pub(crate) fn gap() -> PageFacts {
    let mut story = Story::settled("monitoring", "thanos-store-gateway", 3, 6);
    story.pod(2, |pod| {
        (pod.state, pod.phase, pod.applied) = (PodState::Unreachable, None, None);
        pod.why = Some("its sidecar does not answer on port 10908: connection refused".to_owned());
        pod.since_unix_seconds = ago(3).timestamp();
    });
    story.pod(3, |pod| {
        (pod.state, pod.phase, pod.applied) = (PodState::Broken, Some("failed".to_owned()), None);
        pod.why = Some("thanos exited with code 137 before it was ready".to_owned());
        pod.since_unix_seconds = ago(11).timestamp();
    });
    story.pod(5, |pod| {
        (pod.state, pod.phase, pod.applied, pod.agent_version) = (PodState::NotInjected, None, None, None);
        pod.why = Some(
            "admitted without injection, so the rollout ignores it: older than the label of its namespace, or no server answered, or its template cannot be injected, which timeshard inject explains; delete the pod to have it admitted again".to_owned(),
        );
    });
    let report = &mut story.report;
    (report.state, report.message) = (
        RolloutState::Waiting,
        "waits for thanos-store-gateway-2: its sidecar does not answer on port 10908".to_owned(),
    );
    report.gap_since = Some(rfc3339(ago(3)));
    story.change(
        11,
        ChangeKind::Trouble,
        "thanos-store-gateway-3 is not serving what is published: thanos exited with code 137 before it was ready",
    );
    story.change(
        3,
        ChangeKind::Trouble,
        "thanos-store-gateway-2 is unreachable: connection refused",
    );
    story.change(3, ChangeKind::Gap, "no pod serves the middle shard");
    led(vec![
        story.set(),
        Story::settled("team-eu", "thanos-store", 2, 4).set(),
    ])
}

fn block(ulid: &str, days_ago: i64, missing_on: &[&str], served_by: u32) -> BlockReport {
    BlockReport {
        ulid: ulid.to_owned(),
        from: format!(
            "{}T00:00:00Z",
            (clock::now() - TimeDelta::days(days_ago)).format("%Y-%m-%d")
        ),
        to: format!(
            "{}T00:00:00Z",
            (clock::now() - TimeDelta::days(days_ago - 2)).format("%Y-%m-%d")
        ),
        missing_on: missing_on.iter().map(|pod| (*pod).to_owned()).collect(),
        served_by,
        since_unix_seconds: ago(22).timestamp(),
    }
}

/// Both pods of the middle shard could not read one index, one of them two more; a part of the
/// bucket is older than the retention.
pub(crate) fn unserved_block() -> PageFacts {
    let mut story = Story::settled("monitoring", "thanos-store-gateway", 3, 6);
    let both = ["thanos-store-gateway-2", "thanos-store-gateway-3"];
    for (index, missing) in [(2, 1), (3, 3)] {
        story.pod(index, |pod| pod.blocks_missing = Some(missing));
    }
    story.report.blocks = BlocksReport {
        known_pods: 6,
        unknown_pods: 0,
        unserved_total: 1,
        unserved: vec![block("01JDQ3Z8M4K7XW2ZV5T9R6B1CN", 200, &both, 0)],
        missing_total: 2,
        missing: vec![
            block("01JDQ41XW2ZVM4K7T9R6B1CN3Z", 190, &both[1..], 1),
            block("01JDQ42M4K7TXW2ZV9R6B1CN3Z", 188, &both[1..], 1),
        ],
        outside_windows: Some(14),
        bucket_total: Some(511),
    };
    story.change(
        22,
        ChangeKind::Gap,
        "no confirmed pod has loaded 01JDQ3Z8M4K7XW2ZV5T9R6B1CN",
    );
    led(vec![
        story.set(),
        Story::settled("team-eu", "thanos-store", 2, 4).set(),
    ])
}

pub(crate) fn two_hundred_pods() -> PageFacts {
    let mut story = Story::settled("monitoring", "thanos-store-gateway", 20, 200);
    for index in [17, 18, 140] {
        story.pod(index, |pod| {
            (pod.state, pod.phase, pod.why) =
                (PodState::Settling, Some("restarting".to_owned()), None);
        });
    }
    led(vec![
        story.set(),
        Story::settled("monitoring", "thanos-store-recent", 1, 2).set(),
    ])
}

/// As the largest cluster that the refresher is measured with.
pub(crate) fn five_thousand_pods() -> PageFacts {
    led((0..200)
        .map(|i| {
            Story::settled(
                &format!("team-{:02}", i / 4),
                &format!("store-{i:03}"),
                12,
                25,
            )
            .set()
        })
        .collect())
}

pub(crate) fn one_set_of_five_thousand() -> PageFacts {
    let mut story = Story::settled("monitoring", "store", 2_500, 5_000);
    for index in (0..5_000).step_by(50) {
        story.pod(index, |pod| {
            (pod.state, pod.phase) = (PodState::Settling, Some("draining".to_owned()));
        });
    }
    led(vec![story.set()])
}

pub(crate) fn hostile() -> PageFacts {
    let mut story = Story::settled(HOSTILE, HOSTILE, 2, 4);
    story.pod(1, |pod| {
        (pod.state, pod.phase, pod.why) = (
            PodState::Broken,
            Some(HOSTILE.to_owned()),
            Some(HOSTILE.to_owned()),
        );
        pod.agent_version = Some(HOSTILE.to_owned());
    });
    story.change(0, ChangeKind::Trouble, HOSTILE);
    story.report.setting_changes = vec![SettingChange {
        at: HOSTILE.to_owned(),
        key: HOSTILE.to_owned(),
        old: HOSTILE.to_owned(),
        new: HOSTILE.to_owned(),
    }];
    let report = &mut story.report;
    (report.state, report.message, report.configmap) = (
        RolloutState::Blocked,
        HOSTILE.to_owned(),
        HOSTILE.to_owned(),
    );
    report.warnings = vec![HOSTILE.to_owned()];
    report.blocks.missing = vec![BlockReport {
        ulid: HOSTILE.to_owned(),
        from: HOSTILE.to_owned(),
        to: HOSTILE.to_owned(),
        missing_on: vec![HOSTILE.to_owned()],
        ..BlockReport::default()
    }];
    report.blocks.missing_total = 1;
    let mut set = story.set();
    set.problem = Some(format!("annotation {HOSTILE}: is not accepted"));
    let mut known = led(vec![set]);
    known.head["leader"]["holder"] = json!(HOSTILE);
    known.head["config_error"] = json!(HOSTILE);
    known.head["version"] = json!(HOSTILE);
    known.head["cluster_name"] = json!(HOSTILE);
    known.head["not_taken_in"] = json!([HOSTILE]);
    known.head["namespaces_without_rights"] = json!({HOSTILE: HOSTILE});
    known
}

fn not_looked(mut set: PageSet) -> PageSet {
    let SetReport {
        namespace,
        name,
        configmap,
        replicas,
        ..
    } = SetReport::clone(&set.report);
    set.report = Arc::new(SetReport {
        namespace,
        name,
        configmap,
        replicas,
        ..SetReport::default()
    });
    set
}

/// The head of a replica that does not lead.
fn follower_head(relayed: &Value) -> Value {
    let mut head = head(&json!({"holder": "timeshard-6f7c9-x2x4q", "self": false, "error": null}));
    head["relayed"] = relayed.clone();
    head
}

/// A replica that does not lead, and cannot reach the leader.
pub(crate) fn follower_alone() -> PageFacts {
    let mut known = healthy();
    known.sets = known.sets.into_iter().map(not_looked).collect();
    let why = "http://10.8.1.7:8080/status: no answer within 5 s";
    known.head = follower_head(&json!({"from": null, "error": why, "as_of_unix_seconds": null}));
    known
}

/// A replica that does not lead, with the leader's reports.
pub(crate) fn follower() -> PageFacts {
    let mut known = rolling();
    known.head = follower_head(
        &json!({"from": "timeshard-6f7c9-x2x4q", "error": null, "as_of_unix_seconds": null}),
    );
    known
}

pub(crate) fn before_the_first_report() -> PageFacts {
    let mut known = healthy();
    known.sets = known.sets.into_iter().map(not_looked).collect();
    known
}
