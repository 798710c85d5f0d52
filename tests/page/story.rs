//! A StatefulSet during a rollout, with the leader's report, computed by the program's own plans and
//! coverage.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use thanos_timeshard::adapters::clock;
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::model::window::Window;
use thanos_timeshard::core::plan::Plan;
use thanos_timeshard::core::rollout::planner::{
    self, Discovery, Member, MemberState, PlanTerms, Slot, Step,
};
use thanos_timeshard::core::rollout::report::{
    ChangeKind, ChangeReport, GapReport, MoveReport, PodReport, PodState, RolloutState, SetReport,
    StepReport,
};
use thanos_timeshard::page::feed::{PageSet, PageShard};

pub(crate) fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

pub(crate) fn ago(minutes: i64) -> DateTime<Utc> {
    clock::now() - TimeDelta::minutes(minutes)
}

pub(crate) struct Story {
    pub(crate) report: SetReport,
    shards: Vec<PageShard>,
    required: Window,
}

pub(crate) fn plan(total_shards: u32, replicas: u32) -> (Plan, Window) {
    plan_of(
        &format!(
            "total_shards: {total_shards}, replicas_per_shard: 2, retention: 370d, overlap: 1d, future_buffer: 1d"
        ),
        replicas,
    )
}

pub(crate) fn plan_of(keys: &str, replicas: u32) -> (Plan, Window) {
    let text = format!("sharding: {{{keys}}}");
    let sharding = Config::parse(&text, "scene").unwrap().sharding;
    (Plan::new(&sharding, Some(replicas)), sharding.required())
}

impl Story {
    /// Every pod is as planned.
    pub(crate) fn settled(namespace: &str, name: &str, total_shards: u32, replicas: u32) -> Self {
        Self::serving(namespace, name, plan(total_shards, replicas), replicas)
    }

    /// Every pod is as in this plan.
    pub(crate) fn serving(
        namespace: &str,
        name: &str,
        (plan, required): (Plan, Window),
        replicas: u32,
    ) -> Self {
        let now = clock::now();
        let shards = (0..).zip(plan.shards()).map(|(i, shard)| PageShard {
            replicas: shard.replicas,
            window: plan.window(i, now),
        });
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
                last_load: None,
                why: None,
            }
        };
        let shards: Vec<PageShard> = shards.collect();
        let report = SetReport {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            configmap: format!("{name}-time-shards"),
            replicas,
            state: RolloutState::Settled,
            message: "every pod serves its planned window".to_owned(),
            pods: (0..replicas).map(pod).collect(),
            required: Some(required),
            ..SetReport::default()
        };
        let mut story = Self {
            report,
            shards,
            required,
        };
        story.change(
            181,
            ChangeKind::Confirmed,
            &format!("{name}-1 is confirmed: known to every querier"),
        );
        story.change(
            180,
            ChangeKind::Rollout,
            "the rollout is done, after 6 moves in 3 steps",
        );
        story
    }

    pub(crate) fn pod(&mut self, index: usize, change: impl FnOnce(&mut PodReport)) {
        change(&mut self.report.pods[index]);
    }

    /// Prepends a change.
    pub(crate) fn change(&mut self, minutes_ago: i64, kind: ChangeKind, text: &str) {
        self.report.changes.insert(
            0,
            ChangeReport {
                at: rfc3339(ago(minutes_ago)),
                kind,
                text: text.to_owned(),
            },
        );
    }

    /// Derives the rest of the report from its pods.
    pub(crate) fn set(mut self) -> PageSet {
        let now = clock::now();
        let ready = |pod: &&PodReport| matches!(pod.state, PodState::Confirmed | PodState::Joining);
        let serving: Vec<(Window, bool)> = self
            .report
            .pods
            .iter()
            .filter(ready)
            .filter_map(|pod| Some((pod.applied?, pod.state == PodState::Confirmed)))
            .collect();
        let (least, gaps) = planner::coverage(
            &serving
                .iter()
                .map(|(window, _)| *window)
                .collect::<Vec<_>>(),
            self.required,
            now,
        );
        let report = &mut self.report;
        let confirmed: Vec<Window> = serving
            .iter()
            .filter(|(_, confirmed)| *confirmed)
            .map(|(window, _)| *window)
            .collect();
        report.minimum_confirmed_replicas = planner::coverage(&confirmed, self.required, now).0;
        report.coverage = planner::profile(&serving, self.required, now, 1_000);
        report.minimum_ready_replicas = least;
        report.gap_seconds = u64::try_from(
            gaps.iter()
                .map(|(from, to)| (*to - *from).num_seconds())
                .sum::<i64>(),
        )
        .unwrap();
        report.gaps = gaps
            .iter()
            .map(|(from, to)| GapReport {
                from: rfc3339(*from),
                to: rfc3339(*to),
            })
            .collect();
        self.plan_steps(now);
        PageSet {
            shards: self.shards,
            problem: None,
            report: Arc::new(self.report),
        }
    }

    /// Plans the remaining steps.
    fn plan_steps(&mut self, now: DateTime<Utc>) {
        let report = &mut self.report;
        let place = |pod: &PodReport, window| Slot {
            shard: pod.shard,
            replica: pod.replica,
            window,
        };
        let member = |pod: &PodReport| Member {
            published: place(pod, pod.published.unwrap_or(pod.desired)),
            desired: place(pod, pod.desired),
            surplus: pod.surplus,
            state: MemberState::Confirmed,
            canary: false,
        };
        let members: Vec<Member> = report.pods.iter().map(member).collect();
        let mut at: Vec<Window> = members
            .iter()
            .map(|member| member.published.window)
            .collect();
        report.moves_left = u32::try_from(
            members
                .iter()
                .filter(|m| m.published.window != m.desired.window)
                .count(),
        )
        .unwrap();
        if report.pods.len() <= 400 {
            let terms = PlanTerms {
                required: self.required,
                discovery: Discovery::Pods,
                allow_gap: false,
                max_unavailable: 1,
                max_concurrent_restarts: report.pods.len().div_ceil(2),
                now,
            };
            let (steps, _) = planner::preview(members, &terms);
            let moves = |step: &Step| match step {
                Step::Move { changes, .. } => {
                    let one = |change: &planner::WindowChange| MoveReport {
                        pod: report.pods[change.member].pod.clone(),
                        from: std::mem::replace(&mut at[change.member], change.to.window),
                        to: change.to.window,
                    };
                    StepReport {
                        moves: changes.iter().map(one).collect(),
                        more: 0,
                        load_seconds: None,
                    }
                }
                _ => StepReport::default(),
            };
            let steps: Vec<StepReport> = steps.iter().map(moves).collect();
            report.steps = steps;
            report.steps_left = u32::try_from(report.steps.len()).unwrap();
            report.eta_seconds = u64::from(report.steps_left) * 150;
        }
    }
}
