//! `timeshard plan --from OLD --to NEW`: the leader's rollout between two configurations, with every
//! pod healthy.
//!
//! `core::rollout` plans the steps; this module reads them, and `text.rs` shows them. A change that keeps a window
//! restarts nothing, so it is not listed as a step. Deliberately absent: what a real rollout also
//! waits for (failing pods, updates of the StatefulSet). `forecast.rs` estimates time and coverage.

mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::forecast::{Duration, Holders, StepTime};
use super::measured::LoadSource;
use super::{Failure, input};
use crate::core::config::{Config, Difference, Sharding};
use crate::core::gateways::Gateway;
use crate::core::model::duration::PromDuration;
use crate::core::model::text::{counted, older_end};
use crate::core::model::window::{Bound, Window};
use crate::core::plan::Plan;
use crate::core::rollout::planner::{
    Discovery, Gap, Member, MemberState, PlanTerms, Slot, Step, mark_longer, preview,
};

#[derive(Debug, clap::Args)]
pub(super) struct Between {
    /// Show the steps of the rollout from this configuration file (or "-") to the one in --to
    #[arg(long, value_name = "OLD", requires = "to", conflicts_with = "config")]
    pub(super) from: Option<PathBuf>,
    /// The new configuration file (or "-")
    #[arg(long, value_name = "NEW", requires = "from", conflicts_with = "config")]
    pub(super) to: Option<PathBuf>,
    /// With --from and --to: how long a pod loads its new window, to estimate the duration of the
    /// rollout (units d h m s). Without it and --status: 5m
    #[arg(long, value_name = "DURATION", requires = "from", value_parser = load_time)]
    load_time: Option<PromDuration>,
    /// With --from and --to: the output of timeshard status -o json (or "-"), or the address of an
    /// admin port such as `http://127.0.0.1:8080`: estimate with the loads that its pods measured
    #[arg(
        long,
        value_name = "FILE|URL",
        requires = "from",
        conflicts_with = "load_time"
    )]
    status: Option<String>,
}

fn load_time(text: &str) -> Result<PromDuration, String> {
    let value: PromDuration = text.parse().map_err(|error| format!("{error}"))?;
    if value >= PromDuration::ZERO {
        Ok(value)
    } else {
        Err("a load takes at least 0s".to_owned())
    }
}

/// The document of `-o json` and `-o yaml`. The pods of one step change together, and the next step
/// starts when they are confirmed.
#[derive(Debug, Serialize)]
pub(super) struct StepsDocument {
    steps: Vec<StepRow>,
    warnings: Vec<String>,
    /// Whether the steps lead to the plan.
    complete: bool,
    duration: Duration,
    restarts: Vec<RestartRow>,
    /// The fewest confirmed pods that serve any instant of both configurations, without a rollout.
    holders_before: u32,
    holders_after: u32,
    /// Spare pods that stand in for a shard's only pod, with the longest window that they load.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stand_ins: Vec<StepPodRow>,
}

#[derive(Debug, Serialize)]
struct StepRow {
    pods: Vec<StepPodRow>,
    /// The same while the step's pods restart.
    fewest_holders: u32,
    starts_at_seconds: i64,
    /// The longest load of its pods.
    load_seconds: i64,
}

#[derive(Debug, Serialize)]
struct RestartRow {
    pod: String,
    times: usize,
}

#[derive(Debug, Serialize)]
struct StepPodRow {
    pod: String,
    min_time: Bound,
    max_time: Bound,
}

#[derive(Debug)]
struct Restart {
    ordinal: usize,
    from: Window,
    to: Slot,
}

/// The configuration before or after a rollout.
#[derive(Debug)]
struct RolloutSide {
    sharding: Sharding,
    plan: Plan,
}

/// The pods of a rollout.
#[derive(Debug)]
struct RolloutPods {
    statefulset: String,
    first_ordinal: u32,
    count: u32,
}

/// A planned rollout.
#[derive(Debug)]
pub(super) struct Rollout {
    steps: Vec<Vec<Restart>>,
    holders: Holders,
    time: StepTime,
    /// Pods whose shard or replica number changes, but not their window.
    renumbered: Vec<usize>,
    /// By ordinal.
    restarts: Vec<usize>,
    /// The longest window of each spare pod that stands in for another, by ordinal.
    stand_ins: BTreeMap<usize, Window>,
    /// Pods without their planned window when the rollout stops.
    unfinished: usize,
    warnings: Vec<String>,
    differences: Vec<Difference>,
    pods: RolloutPods,
    sharding: Sharding,
    complete: bool,
}

impl Rollout {
    /// Reads both files and plans the rollout.
    pub(super) fn read(
        change: &Between,
        old: &Path,
        new: &Path,
        replicas: Option<u32>,
        now: DateTime<Utc>,
    ) -> Result<Self, Failure> {
        if old.as_os_str() == "-" && new.as_os_str() == "-" {
            return Err(Failure::Invalid(
                "--from - --to -: standard input can be read once; write one of them to a file"
                    .to_owned(),
            ));
        }
        let (old, new) = (input::config_file(old)?, input::config_file(new)?);
        // The larger number, so that no pod of either is missing: scale up first, and down last.
        let pods = replicas.or_else(|| old.sharding.nominal_pods().max(new.sharding.nominal_pods())).ok_or_else(|| {
            Failure::Invalid(
                "total_shards is auto in both, which derives the shards from the number of pods: set --replicas N".to_owned(),
            )
        })?;
        let loads = match &change.status {
            Some(source) => LoadSource::read(source, &new.operator.statefulset_name, now)?,
            None => LoadSource::assumed(change.load_time),
        };
        Ok(Self::new(&old, new, pods, &loads, now))
    }

    fn new(old: &Config, new: Config, pods: u32, loads: &LoadSource, now: DateTime<Utc>) -> Self {
        let side = |config: &Config| RolloutSide {
            sharding: config.sharding.clone(),
            plan: Plan::new(&config.sharding, Some(pods)),
        };
        let members = RolloutPods {
            statefulset: new.operator.statefulset_name,
            first_ordinal: 0,
            count: pods,
        };
        let mut rollout = Self::between(
            members,
            &side(old),
            RolloutSide {
                plan: Plan::new(&new.sharding, Some(pods)),
                sharding: new.sharding,
            },
            loads,
            now,
        );
        if old.operator.statefulset_name != rollout.pods.statefulset {
            rollout.warnings.push(format!(
                "operator.statefulset_name is {} in OLD and {} in NEW: the steps are those of one StatefulSet, named as in NEW",
                old.operator.statefulset_name, rollout.pods.statefulset
            ));
        }
        rollout
    }

    /// Plans the rollout of a StatefulSet whose annotations change.
    pub(super) fn of_gateway(before: &Gateway, after: &Gateway, now: DateTime<Utc>) -> Self {
        let facts = after.facts();
        let side = |gateway: &Gateway| RolloutSide {
            sharding: gateway.sharding.clone(),
            plan: gateway.plan.clone(),
        };
        let pods = RolloutPods {
            statefulset: facts.name.clone(),
            first_ordinal: facts.ordinals_start,
            count: facts.replicas,
        };
        Self::between(
            pods,
            &side(before),
            side(after),
            &LoadSource::assumed(None),
            now,
        )
    }

    fn between(
        pods: RolloutPods,
        old: &RolloutSide,
        new: RolloutSide,
        loads: &LoadSource,
        now: DateTime<Utc>,
    ) -> Self {
        let mut members: Vec<Member> = (0..pods.count)
            .map(|index| {
                let ((published, _), (desired, surplus)) =
                    (slot(&old.plan, index, now), slot(&new.plan, index, now));
                Member {
                    published,
                    desired,
                    surplus,
                    state: MemberState::Confirmed,
                    canary: false,
                }
            })
            .collect();
        let terms = PlanTerms::new(&new.sharding, members.len(), now);
        if new.sharding.canary() {
            mark_longer(&mut members, &terms);
        }
        let (steps, blocked) = preview(members.clone(), &terms);
        let mut rollout = Self {
            steps: Vec::new(),
            holders: Holders::new(&members, &old.sharding, &new.sharding, now),
            time: StepTime::new(&new.sharding, loads.basis()),
            renumbered: Vec::new(),
            restarts: vec![0; members.len()],
            stand_ins: BTreeMap::new(),
            unfinished: 0,
            warnings: new.plan.notes().iter().map(ToString::to_string).collect(),
            differences: old.sharding.differences(&new.sharding),
            pods,
            sharding: new.sharding,
            complete: blocked.is_none(),
        };
        if old.sharding.shard_services() && terms.discovery == Discovery::Pods {
            rollout.warnings.push(
                "shard_services is disabled in NEW, so the steps are safe for queriers that query every pod: move queriers off the shard \
                 Services first"
                    .to_owned(),
            );
        }
        let (before, after) = (old.sharding.retention(), rollout.sharding.retention());
        if after < before {
            rollout.warnings.push(format!(
                "afterwards no pod serves samples older than {after} (before: {before}), and queries do not say that they are missing"
            ));
        }
        rollout.follow(&members, steps, loads, now);
        let stand_ins: Vec<String> = rollout.stand_ins().collect();
        rollout.warnings.extend(stand_ins);
        rollout
            .warnings
            .extend(blocked.map(|gap| rollout.blocked(&gap)));
        rollout
    }

    /// Keeps the changes that restart a pod.
    fn follow(
        &mut self,
        members: &[Member],
        steps: Vec<Step>,
        loads: &LoadSource,
        now: DateTime<Utc>,
    ) {
        let mut at: Vec<Slot> = members.iter().map(|member| member.published).collect();
        for step in steps {
            let Step::Move { changes, gap } = step else {
                continue;
            };
            let mut restarts = Vec::new();
            self.holders.step(&changes);
            for change in changes {
                let member = &members[change.member];
                let another = change.to.window != member.desired.window
                    && at.iter().any(|slot| slot.window == change.to.window);
                if member.surplus && another {
                    let widest = self.stand_ins.entry(change.member);
                    let widest = widest.or_insert(change.to.window);
                    if change.to.window.length(now) > widest.length(now) {
                        *widest = change.to.window;
                    }
                }
                let from = std::mem::replace(&mut at[change.member], change.to);
                if from.window == change.to.window {
                    self.renumbered.push(change.member);
                } else {
                    self.restarts[change.member] += 1;
                    restarts.push(Restart {
                        ordinal: change.member,
                        from: from.window,
                        to: change.to,
                    });
                }
            }
            if restarts.is_empty() {
                self.holders.forget_step();
            } else {
                let times = restarts
                    .iter()
                    .map(|restart| loads.of(restart.ordinal, restart.from, restart.to.window));
                self.time
                    .add_step(times.max().unwrap_or(PromDuration::ZERO));
                self.steps.push(restarts);
            }
            if let Some(gap) = gap {
                let step = self.steps.len();
                self.warnings.push(format!(
                    "step {step} leaves a gap: while {} changes, no pod serves {}; the rollout proceeds because allow_coverage_gap is true",
                    self.pod(gap.member),
                    range(&gap)
                ));
            }
        }
        self.unfinished = at
            .iter()
            .zip(members)
            .filter(|(at, member)| at.window != member.desired.window)
            .count();
    }

    fn blocked(&self, gap: &Gap) -> String {
        format!(
            "the rollout stops after step {}, {} short of the plan: {} alone serves {}, which would be missing while it changes; scale up so that \
             each shard has 2 replicas, or by one spare pod that stands in for the others, or accept the gap with allow_coverage_gap: true",
            self.steps.len(),
            pods(self.unfinished),
            self.pod(gap.member),
            range(gap)
        )
    }

    /// What the spare pods must be able to load.
    fn stand_ins(&self) -> impl Iterator<Item = String> {
        self.stand_ins.iter().map(|(ordinal, widest)| {
            format!(
                "{} stands in for pods that are the only one of their shard, one after another: it must be able to load {widest}, the longest of \
                 their windows",
                self.pod(*ordinal)
            )
        })
    }

    /// Returns the name of the pod with this index.
    fn pod(&self, index: usize) -> String {
        let RolloutPods {
            statefulset,
            first_ordinal,
            ..
        } = &self.pods;
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        format!("{statefulset}-{}", first_ordinal.saturating_add(index))
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(super) fn document(&self) -> StepsDocument {
        let pod_row = |ordinal: usize, window: Window| StepPodRow {
            pod: self.pod(ordinal),
            min_time: window.min,
            max_time: window.max,
        };
        let row = |restart: &Restart| pod_row(restart.ordinal, restart.to.window);
        let steps = (0..).zip(&self.steps).zip(self.holders.during()).map(
            |((number, step), fewest_holders)| StepRow {
                pods: step.iter().map(row).collect(),
                fewest_holders: *fewest_holders,
                starts_at_seconds: self.time.of(number).as_secs(),
                load_seconds: self.time.load_of(number).as_secs(),
            },
        );
        let restarted = self
            .restarts
            .iter()
            .enumerate()
            .filter(|(_, times)| **times > 0);
        StepsDocument {
            steps: steps.collect(),
            warnings: self.warnings.clone(),
            complete: self.complete,
            duration: self.time.duration(self.steps.len()),
            restarts: restarted
                .map(|(ordinal, times)| RestartRow {
                    pod: self.pod(ordinal),
                    times: *times,
                })
                .collect(),
            holders_before: self.holders.before(),
            holders_after: self.holders.after(),
            stand_ins: self
                .stand_ins
                .iter()
                .map(|(ordinal, widest)| pod_row(*ordinal, *widest))
                .collect(),
        }
    }

    /// Whether some instant that both configurations serve is served by no pod meanwhile, or the
    /// rollout stops before its end.
    pub(super) fn is_unsafe(&self) -> bool {
        !self.complete || self.holders.during().contains(&0)
    }
}

fn slot(plan: &Plan, index: u32, now: DateTime<Utc>) -> (Slot, bool) {
    let at = plan.assign(index);
    (
        Slot {
            shard: at.shard,
            replica: at.replica,
            window: plan.window(at.shard, now),
        },
        at.surplus,
    )
}

fn range(gap: &Gap) -> String {
    let stamp = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!("{} .. {}", older_end(&stamp(gap.from)), stamp(gap.to))
}

fn pods(count: usize) -> String {
    counted(count, "pod")
}
