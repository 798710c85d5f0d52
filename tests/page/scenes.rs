//! What a server may have to tell: by the program's own plans and its own count of who serves what.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use thanos_timeshard::adapters::clock;
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::plan::Plan;
use thanos_timeshard::core::report::{
    BlockReport, BlocksReport, ChangeKind, ChangeReport, GapReport, MoveReport, PodReport, PodState, RolloutReport, SetReport, State,
    StepReport,
};
use thanos_timeshard::core::rollout::{self, Discovery, Member, Place, Standing, Step, Terms};
use thanos_timeshard::core::window::Window;
use thanos_timeshard::page::feed::{Known, Set, Shard};

pub(crate) const HOSTILE: &str = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>\u{2028}";

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn ago(minutes: i64) -> DateTime<Utc> {
    clock::now() - TimeDelta::minutes(minutes)
}

/// A StatefulSet under way from one plan to another.
pub(crate) struct Story {
    pub(crate) report: SetReport,
    shards: Vec<Shard>,
    required: Window,
}

fn plan(total_shards: u32, replicas: u32) -> (Plan, Window) {
    plan_of(&format!("total_shards: {total_shards}, replicas_per_shard: 2, retention: 370d, overlap: 1d, future_buffer: 1d"), replicas)
}

fn plan_of(keys: &str, replicas: u32) -> (Plan, Window) {
    let text = format!("sharding: {{{keys}}}");
    let sharding = Config::parse(&text, "scene").unwrap().sharding;
    (Plan::new(&sharding, Some(replicas)), sharding.required())
}

impl Story {
    /// All of its pods are as planned.
    pub(crate) fn settled(namespace: &str, name: &str, total_shards: u32, replicas: u32) -> Self {
        Self::serving(namespace, name, plan(total_shards, replicas), replicas)
    }

    fn serving(namespace: &str, name: &str, (plan, required): (Plan, Window), replicas: u32) -> Self {
        let now = clock::now();
        let shards = (0..).zip(plan.shards()).map(|(i, shard)| Shard { replicas: shard.replicas, window: plan.window(i, now) });
        let pod = |index: u32| {
            let at = plan.assign(index);
            let window = plan.window(at.shard, now);
            PodReport {
                pod: format!("{name}-{index}"),
                ordinal: index,
                shard: at.shard,
                replica: at.replica,
                surplus: at.surplus,
                desired: window,
                published: Some(window),
                applied: Some(window),
                verified: true,
                state: PodState::Confirmed,
                phase: Some("serving".to_owned()),
                seconds_in_state: 0,
                since_unix_seconds: ago(i64::from(index) * 7 + 184).timestamp(),
                drift_seconds: None,
                restarts: 1,
                agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
                blocks_expected: Some(130),
                blocks_missing: Some(0),
                blocks_unknown: None,
                why: None,
            }
        };
        let shards: Vec<Shard> = shards.collect();
        let report = SetReport {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            configmap: format!("{name}-time-shards"),
            replicas,
            state: State::Settled,
            message: "every pod serves its planned window".to_owned(),
            pods: (0..replicas).map(pod).collect(),
            required: Some(required),
            ..SetReport::default()
        };
        let mut story = Self { report, shards, required };
        story.change(181, ChangeKind::Confirmed, &format!("{name}-1 is confirmed: every querier knows"));
        story.change(180, ChangeKind::Rollout, "the rollout is done, after 6 moves in 3 steps");
        story
    }

    pub(crate) fn pod(&mut self, index: usize, change: impl FnOnce(&mut PodReport)) {
        change(&mut self.report.pods[index]);
    }

    /// Newer than those before it.
    pub(crate) fn change(&mut self, minutes_ago: i64, kind: ChangeKind, text: &str) {
        self.report.changes.insert(0, ChangeReport { at: rfc3339(ago(minutes_ago)), kind, text: text.to_owned() });
    }

    /// What follows from its pods.
    pub(crate) fn set(mut self) -> Set {
        let now = clock::now();
        let ready = |pod: &&PodReport| matches!(pod.state, PodState::Confirmed | PodState::Joining);
        let serving: Vec<(Window, bool)> =
            self.report.pods.iter().filter(ready).filter_map(|pod| Some((pod.applied?, pod.state == PodState::Confirmed))).collect();
        let (least, gaps) = rollout::coverage(&serving.iter().map(|(window, _)| *window).collect::<Vec<_>>(), self.required, now);
        let report = &mut self.report;
        report.coverage = rollout::profile(&serving, self.required, now, 1_000);
        report.minimum_ready_replicas = least;
        report.gap_seconds = u64::try_from(gaps.iter().map(|(from, to)| (*to - *from).num_seconds()).sum::<i64>()).unwrap();
        report.gaps = gaps.iter().map(|(from, to)| GapReport { from: rfc3339(*from), to: rfc3339(*to) }).collect();
        let place = |pod: &PodReport, window| Place { shard: pod.shard, replica: pod.replica, window };
        let member = |pod: &PodReport| Member {
            published: place(pod, pod.published.unwrap_or(pod.desired)),
            desired: place(pod, pod.desired),
            surplus: pod.surplus,
            standing: Standing::Confirmed,
        };
        let members: Vec<Member> = report.pods.iter().map(member).collect();
        let mut at: Vec<Window> = members.iter().map(|member| member.published.window).collect();
        report.moves_left = u32::try_from(members.iter().filter(|m| m.published.window != m.desired.window).count()).unwrap();
        if report.pods.len() <= 400 {
            let terms = Terms { required: self.required, discovery: Discovery::Pods, allow_gap: false, now };
            let (steps, _) = rollout::preview(members, &terms);
            let moves = |step: &Step| match step {
                Step::Move { changes, .. } => {
                    let one = |change: &rollout::Change| MoveReport {
                        pod: report.pods[change.member].pod.clone(),
                        from: std::mem::replace(&mut at[change.member], change.to.window),
                        to: change.to.window,
                    };
                    StepReport { moves: changes.iter().map(one).collect(), more: 0 }
                }
                _ => StepReport::default(),
            };
            let steps: Vec<StepReport> = steps.iter().map(moves).collect();
            report.steps = steps;
            report.steps_left = u32::try_from(report.steps.len()).unwrap();
            report.eta_seconds = u64::from(report.steps_left) * 150;
        }
        Set { shards: self.shards, problem: None, report: Arc::new(self.report) }
    }
}

fn head(leader: &Value) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"), "webhook_only": false, "synced": true, "watch_error": null, "namespaces": ["monitoring"],
        "leader": leader, "certificate_error": null, "config_error": null,
        "certificate_not_after_unix_seconds": clock::unix_seconds() + 90 * 86_400,
    })
}

pub(crate) fn led(sets: Vec<Set>) -> Known {
    Known { head: head(&json!({"holder": "timeshard-6f7c9-x2x4q", "self": true, "error": null})), sets }
}

pub(crate) fn healthy() -> Known {
    led(vec![Story::settled("monitoring", "thanos-store-gateway", 3, 6).set(), Story::settled("team-eu", "thanos-store", 2, 4).set()])
}

/// The oldest window has no older end, and the newest one ends before now.
pub(crate) fn for_ever() -> Known {
    let plan = plan_of("retention: forever, boundaries: [14d, 90d], future_buffer: -22h", 6);
    led(vec![Story::serving("monitoring", "thanos-store-gateway", plan, 6).set()])
}

pub(crate) fn empty() -> Known {
    let mut known = led(Vec::new());
    known.head["namespaces"] = json!([]);
    known
}

/// From 3 to 4 shards: two steps are done, one pod of the third drains.
pub(crate) fn rolling() -> Known {
    let (old, _) = plan(3, 8);
    let mut story = Story::settled("monitoring", "thanos-store-gateway", 4, 8);
    let now = clock::now();
    for index in 0..8_u32 {
        let before = old.window(old.assign(index).shard, now);
        story.pod(index as usize, |pod| {
            match index {
                // Done by the first steps.
                2 | 4 | 6 => (pod.restarts, pod.since_unix_seconds) = (1, ago(2).timestamp()),
                5 => {
                    (pod.applied, pod.state, pod.phase) = (Some(before), PodState::Settling, Some("draining".to_owned()));
                    pod.since_unix_seconds = clock::unix_seconds() - 24;
                }
                7 => {
                    (pod.state, pod.since_unix_seconds) = (PodState::Joining, clock::unix_seconds() - 48);
                    pod.why = Some("queriers learn of it within 12 s".to_owned());
                }
                _ => (pod.published, pod.applied) = (Some(before), Some(before)),
            }
        });
    }
    let report = &mut story.report;
    (report.state, report.message) = (State::Rolling, "waits for thanos-store-gateway-5: it is draining".to_owned());
    report.rollout = Some(RolloutReport { began: rfc3339(ago(6)), steps_done: 3, moves_done: 5 });
    report.changes.clear();
    story.change(6, ChangeKind::Rollout, "a rollout begins: 8 moves in 4 steps");
    story.change(6, ChangeKind::Step, "another window is published for thanos-store-gateway-2, thanos-store-gateway-4");
    story.change(4, ChangeKind::Confirmed, "thanos-store-gateway-2, thanos-store-gateway-4 are confirmed: every querier knows");
    story.change(4, ChangeKind::Step, "another window is published for thanos-store-gateway-6, thanos-store-gateway-7");
    story.change(2, ChangeKind::Confirmed, "thanos-store-gateway-6 is confirmed: every querier knows");
    story.change(0, ChangeKind::Step, "another window is published for thanos-store-gateway-5");
    led(vec![story.set(), Story::settled("team-eu", "thanos-store", 2, 4).set()])
}

/// Both pods of the middle shard are lost, and one was admitted while the webhook was away.
pub(crate) fn gap() -> Known {
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
            "admitted without injection: nothing is built on it; see timeshard check, then delete to have it admitted anew".to_owned(),
        );
    });
    let report = &mut story.report;
    (report.state, report.message) =
        (State::Waiting, "waits for thanos-store-gateway-2: its sidecar does not answer on port 10908".to_owned());
    report.gap_since = Some(rfc3339(ago(3)));
    story.change(
        11,
        ChangeKind::Trouble,
        "thanos-store-gateway-3 is not serving what is published: thanos exited with code 137 before it was ready",
    );
    story.change(3, ChangeKind::Trouble, "thanos-store-gateway-2 is not to be asked: connection refused");
    story.change(3, ChangeKind::Gap, "no pod serves the middle shard");
    led(vec![story.set(), Story::settled("team-eu", "thanos-store", 2, 4).set()])
}

fn block(ulid: &str, days_ago: i64, missing_on: &[&str], served_by: u32) -> BlockReport {
    BlockReport {
        ulid: ulid.to_owned(),
        from: format!("{}T00:00:00Z", (clock::now() - TimeDelta::days(days_ago)).format("%Y-%m-%d")),
        to: format!("{}T00:00:00Z", (clock::now() - TimeDelta::days(days_ago - 2)).format("%Y-%m-%d")),
        missing_on: missing_on.iter().map(|pod| (*pod).to_owned()).collect(),
        served_by,
        since_unix_seconds: ago(22).timestamp(),
    }
}

/// Both pods of the middle shard could not read one index, one of them two more; a part of the bucket is older than the retention.
pub(crate) fn unserved_block() -> Known {
    let mut story = Story::settled("monitoring", "thanos-store-gateway", 3, 6);
    let both = ["thanos-store-gateway-2", "thanos-store-gateway-3"];
    story.report.blocks = BlocksReport {
        known_pods: 6,
        unknown_pods: 0,
        unserved_total: 1,
        unserved: vec![block("01JDQ3Z8M4K7XW2ZV5T9R6B1CN", 200, &both, 0)],
        missing_total: 2,
        missing: vec![block("01JDQ41XW2ZVM4K7T9R6B1CN3Z", 190, &both[1..], 1), block("01JDQ42M4K7TXW2ZV9R6B1CN3Z", 188, &both[1..], 1)],
        outside_windows: Some(14),
        bucket_total: Some(511),
    };
    story.change(22, ChangeKind::Gap, "no confirmed pod has loaded 01JDQ3Z8M4K7XW2ZV5T9R6B1CN");
    led(vec![story.set(), Story::settled("team-eu", "thanos-store", 2, 4).set()])
}

pub(crate) fn two_hundred_pods() -> Known {
    let mut story = Story::settled("monitoring", "thanos-store-gateway", 20, 200);
    for index in [17, 18, 140] {
        story.pod(index, |pod| (pod.state, pod.phase, pod.why) = (PodState::Settling, Some("restarting".to_owned()), None));
    }
    led(vec![story.set(), Story::settled("monitoring", "thanos-store-recent", 1, 2).set()])
}

/// As the largest cluster that the refresher is measured with.
pub(crate) fn five_thousand_pods() -> Known {
    led((0..200).map(|i| Story::settled(&format!("team-{:02}", i / 4), &format!("store-{i:03}"), 12, 25).set()).collect())
}

pub(crate) fn one_set_of_five_thousand() -> Known {
    let mut story = Story::settled("monitoring", "store", 2_500, 5_000);
    for index in (0..5_000).step_by(50) {
        story.pod(index, |pod| (pod.state, pod.phase) = (PodState::Settling, Some("draining".to_owned())));
    }
    led(vec![story.set()])
}

pub(crate) fn hostile() -> Known {
    let mut story = Story::settled(HOSTILE, HOSTILE, 2, 4);
    story.pod(1, |pod| {
        (pod.state, pod.phase, pod.why) = (PodState::Broken, Some(HOSTILE.to_owned()), Some(HOSTILE.to_owned()));
        pod.agent_version = Some(HOSTILE.to_owned());
    });
    story.change(0, ChangeKind::Trouble, HOSTILE);
    let report = &mut story.report;
    (report.state, report.message, report.configmap) = (State::Blocked, HOSTILE.to_owned(), HOSTILE.to_owned());
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
    known
}

fn not_looked(mut set: Set) -> Set {
    let SetReport { namespace, name, configmap, replicas, .. } = SetReport::clone(&set.report);
    set.report = Arc::new(SetReport { namespace, name, configmap, replicas, ..SetReport::default() });
    set
}

pub(crate) fn follower() -> Known {
    let mut known = healthy();
    known.sets = known.sets.into_iter().map(not_looked).collect();
    known.head = head(&json!({"holder": "timeshard-6f7c9-x2x4q", "self": false, "error": null}));
    known
}

pub(crate) fn before_the_first_look() -> Known {
    let mut known = healthy();
    known.sets = known.sets.into_iter().map(not_looked).collect();
    known
}
