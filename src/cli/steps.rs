//! `timeshard plan --from OLD --to NEW`: the rollout between two configurations, as the refresher would do it with every
//! pod healthy.
//!
//! The steps are `core::rollout`'s own; here they are shown. A change that keeps a pod's window restarts nothing, so it is
//! no step. What a real rollout waits for beyond that (pods that fail, updates of the StatefulSet) is not known here.
//! How long a step takes, and who holds what meanwhile, is in `forecast.rs`.

use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::forecast::{Duration, Holders, StepTime};
use super::{Failure, input, timeline};
use crate::core::config::{Config, Difference, LOAD_ALLOWANCE, Sharding};
use crate::core::duration::PromDuration;
use crate::core::plan::Plan;
use crate::core::rollout::{Discovery, Gap, Member, Place, Standing, Step, Terms, preview};
use crate::core::text::older_end;
use crate::core::window::{Bound, Window};

/// Rows of the table; more would not be looked at.
const MOST_ROWS: usize = 400;

/// The two configurations.
#[derive(Debug, clap::Args)]
pub(super) struct Between {
    /// Show the steps of the rollout from this configuration file (or "-") to that of --to
    #[arg(long, value_name = "OLD", requires = "to", conflicts_with = "config")]
    pub(super) from: Option<PathBuf>,
    /// The configuration file (or "-") that the rollout leads to
    #[arg(long, value_name = "NEW", requires = "from", conflicts_with = "config")]
    pub(super) to: Option<PathBuf>,
    /// With --from and --to: how long a pod loads its new window, for the time that the rollout takes (units d h m s)
    #[arg(long, value_name = "DURATION", default_value_t = LOAD_ALLOWANCE, requires = "from", value_parser = load_time)]
    load_time: PromDuration,
}

fn load_time(text: &str) -> Result<PromDuration, String> {
    let value: PromDuration = text.parse().map_err(|error| format!("{error}"))?;
    if value >= PromDuration::ZERO {
        Ok(value)
    } else {
        Err("a load takes at least 0s".to_owned())
    }
}

/// The document of `-o json` and `-o yaml`. The pods of one step change together, and the next step starts when they are
/// confirmed.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    steps: Vec<StepRow>,
    warnings: Vec<String>,
    /// Whether the steps lead to the plan.
    complete: bool,
    duration: Duration,
    restarts: Vec<RestartRow>,
    /// The fewest confirmed pods of any instant that both configurations serve, without a rollout.
    holders_before: u32,
    holders_after: u32,
}

#[derive(Debug, Serialize)]
struct StepRow {
    pods: Vec<PodRow>,
    /// The fewest confirmed pods that any such instant has while the step's pods are away.
    fewest_holders: u32,
    starts_at_seconds: i64,
}

#[derive(Debug, Serialize)]
struct RestartRow {
    pod: String,
    times: usize,
}

#[derive(Debug, Serialize)]
struct PodRow {
    pod: String,
    min_time: Bound,
    max_time: Bound,
}

/// One pod's restart.
#[derive(Debug)]
struct Restart {
    ordinal: usize,
    from: Window,
    to: Place,
}

/// A rollout before anyone starts it.
#[derive(Debug)]
pub(super) struct Rollout {
    steps: Vec<Vec<Restart>>,
    holders: Holders,
    time: StepTime,
    /// Pods that get another number or shard with the window that they have.
    renumbered: Vec<usize>,
    /// Restarts of each pod.
    restarts: Vec<usize>,
    /// Pods that are not where the plan wants them when it stops.
    unfinished: usize,
    /// Said with everything else that its user should know.
    warnings: Vec<String>,
    differences: Vec<Difference>,
    statefulset: String,
    sharding: Sharding,
    complete: bool,
}

impl Rollout {
    /// Reads both files and goes through the rollout.
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
        // The larger, so that no pod of either is missing: scale up first, and down last.
        let pods = replicas.or_else(|| old.sharding.nominal_pods().max(new.sharding.nominal_pods())).ok_or_else(|| {
            Failure::Invalid(
                "total_shards is auto in both, which derives the shards from the number of pods: give it with --replicas N".to_owned(),
            )
        })?;
        Ok(Self::new(&old, new, pods, change.load_time, now))
    }

    fn new(
        old: &Config,
        new: Config,
        pods: u32,
        load_time: PromDuration,
        now: DateTime<Utc>,
    ) -> Self {
        let (from, to) = (
            Plan::new(&old.sharding, Some(pods)),
            Plan::new(&new.sharding, Some(pods)),
        );
        let members: Vec<Member> = (0..pods)
            .map(|index| {
                let ((published, _), (desired, surplus)) =
                    (place(&from, index, now), place(&to, index, now));
                Member {
                    published,
                    desired,
                    surplus,
                    standing: Standing::Confirmed,
                }
            })
            .collect();
        let terms = Terms {
            required: required(&new.sharding),
            discovery: if new.sharding.shard_services() {
                Discovery::ShardServices
            } else {
                Discovery::Pods
            },
            allow_gap: new.sharding.allow_coverage_gap(),
            now,
        };
        let (steps, blocked) = preview(members.clone(), &terms);
        let mut rollout = Self {
            steps: Vec::new(),
            holders: Holders::new(&members, &old.sharding, &new.sharding, now),
            time: StepTime::new(&new.sharding, load_time),
            renumbered: Vec::new(),
            restarts: vec![0; members.len()],
            unfinished: 0,
            warnings: to.notes().iter().map(ToString::to_string).collect(),
            differences: old.sharding.differences(&new.sharding),
            statefulset: new.operator.statefulset_name,
            sharding: new.sharding,
            complete: blocked.is_none(),
        };
        if old.operator.statefulset_name != rollout.statefulset {
            rollout.warnings.push(format!(
                "operator.statefulset_name is {} in OLD and {} in NEW: the steps are those of one StatefulSet, named as in NEW",
                old.operator.statefulset_name, rollout.statefulset
            ));
        }
        if old.sharding.shard_services() && terms.discovery == Discovery::Pods {
            rollout.warnings.push(
                "shard_services is switched off in NEW, so the steps are safe for queriers that ask every pod: move queriers off the shard \
                 Services first"
                    .to_owned(),
            );
        }
        rollout.follow(&members, steps);
        rollout
            .warnings
            .extend(blocked.map(|gap| rollout.blocked(&gap)));
        rollout
    }

    /// Keeps what restarts a pod.
    fn follow(&mut self, members: &[Member], steps: Vec<Step>) {
        let mut at: Vec<Place> = members.iter().map(|member| member.published).collect();
        for step in steps {
            let Step::Move { changes, gap } = step else {
                continue;
            };
            let mut restarts = Vec::new();
            self.holders.step(&changes);
            for change in changes {
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
                self.steps.push(restarts);
            }
            if let Some(gap) = gap {
                let step = self.steps.len();
                self.warnings.push(format!(
                    "step {step} leaves a gap: while {} changes nobody holds {}; allow_coverage_gap is true, so it is done all the same",
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
            "the rollout stops after step {}, {} short of the plan: {} alone holds {}, which would be missing while it changes; scale up so that \
             each shard has 2 replicas, or accept the gap with allow_coverage_gap: true",
            self.steps.len(),
            pods(self.unfinished),
            self.pod(gap.member),
            range(gap)
        )
    }

    fn pod(&self, ordinal: usize) -> String {
        format!("{}-{ordinal}", self.statefulset)
    }

    /// What its user should know.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// For programs.
    pub(super) fn document(&self) -> Document {
        let row = |restart: &Restart| {
            let Window { min, max } = restart.to.window;
            PodRow {
                pod: self.pod(restart.ordinal),
                min_time: min,
                max_time: max,
            }
        };
        let steps = (0..).zip(&self.steps).zip(self.holders.during()).map(
            |((number, step), fewest_holders)| StepRow {
                pods: step.iter().map(row).collect(),
                fewest_holders: *fewest_holders,
                starts_at_seconds: self.time.of(number).as_secs(),
            },
        );
        let restarted = self
            .restarts
            .iter()
            .enumerate()
            .filter(|(_, times)| **times > 0);
        Document {
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
        }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text: String = self
            .differences
            .iter()
            .map(|difference| format!("{difference}\n"))
            .collect();
        if self.differences.is_empty() {
            text.push_str("both configurations divide the time alike\n");
        }
        if !self.steps.is_empty() {
            text.push_str(&format!("\n{}\n", self.rows()));
        }
        format!("{text}\n{}", self.summary())
    }

    fn rows(&self) -> String {
        let mut table = timeline::plain_table(&[
            "STEP",
            "POD",
            "SHARD",
            "WINDOW BEFORE",
            "WINDOW AFTER",
            "RESTART",
            "HELD BY",
        ]);
        let mut nth = vec![0; self.restarts.len()];
        let all = (1..).zip(&self.steps).flat_map(|(number, step)| {
            step.iter()
                .enumerate()
                .map(move |(i, restart)| (number, i == 0, restart))
        });
        for (number, first, restart) in all.clone().take(MOST_ROWS) {
            nth[restart.ordinal] += 1;
            table.add_row([
                // Once for each step, so that steps stand apart.
                if first {
                    number.to_string()
                } else {
                    String::new()
                },
                self.pod(restart.ordinal),
                restart.to.shard.to_string(),
                restart.from.to_string(),
                restart.to.window.to_string(),
                format!(
                    "{} of {}",
                    nth[restart.ordinal], self.restarts[restart.ordinal]
                ),
                if first {
                    format!(
                        "at least {}",
                        pods(self.holders.during()[number - 1] as usize)
                    )
                } else {
                    String::new()
                },
            ]);
        }
        let rest = all.count().saturating_sub(MOST_ROWS);
        let more = if rest > 0 {
            format!("\n… and {rest} more restarts; -o json has them all")
        } else {
            String::new()
        };
        format!("{table}{more}")
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        if self.steps.is_empty() {
            text.push_str("no pod restarts\n");
        } else {
            let count = |times: usize| self.restarts.iter().filter(|n| **n == times).count();
            let most = self.restarts.iter().copied().max().unwrap_or(0);
            let often = |times| match times {
                1 => "once".to_owned(),
                2 => "twice".to_owned(),
                n => format!("{n} times"),
            };
            let groups: Vec<String> = (1..=most)
                .map(|n| (count(n), n))
                .filter(|(pods, _)| *pods > 0)
                .map(|(n, times)| format!("{n} {}", often(times)))
                .collect();
            let least = |steps| self.time.least(steps);
            text.push_str(&format!(
                "restarts in place: {} of {} ({}), in {} step{}: at least {} by drain ({}) and discovery_delay ({}), about {} when each load takes {}\n",
                pods(self.restarts.iter().filter(|n| **n > 0).count()),
                self.restarts.len(),
                groups.join(", "),
                self.steps.len(),
                if self.steps.len() == 1 { "" } else { "s" },
                least(self.steps.len()),
                self.sharding.drain(),
                self.sharding.discovery_delay(),
                self.time.of(self.steps.len()),
                self.time.load(),
            ));
            text.push_str(&format!(
                "{}\n{}\n",
                self.time.sentence(),
                self.holders.sentence()
            ));
        }
        if !self.renumbered.is_empty() {
            let shown: Vec<String> = self
                .renumbered
                .iter()
                .take(5)
                .map(|i| self.pod(*i))
                .collect();
            let more = if self.renumbered.len() > shown.len() {
                ", …"
            } else {
                ""
            };
            text.push_str(&format!(
                "without a restart, {} {} another shard or replica number: {}{more}\n",
                pods(self.renumbered.len()),
                if self.renumbered.len() == 1 {
                    "gets"
                } else {
                    "get"
                },
                shown.join(", ")
            ));
        }
        if !self.complete {
            text.push_str(&format!(
                "BLOCKED with {} short of the plan, because every further step would leave a gap\n",
                pods(self.unfinished)
            ));
        }
        text
    }
}

fn place(plan: &Plan, index: u32, now: DateTime<Utc>) -> (Place, bool) {
    let at = plan.assign(index);
    (
        Place {
            shard: at.shard,
            replica: at.replica,
            window: plan.window(at.shard, now),
        },
        at.surplus,
    )
}

/// What must stay covered: all that the new configuration wants, as far as somebody holds it.
fn required(sharding: &Sharding) -> Window {
    sharding.required()
}

fn range(gap: &Gap) -> String {
    let stamp = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!("{} .. {}", older_end(&stamp(gap.from)), stamp(gap.to))
}

fn pods(count: usize) -> String {
    format!("{count} pod{}", if count == 1 { "" } else { "s" })
}
