//! `timeshard plan`: each pod's window, as a table and picture or as data.

use std::path::Path;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::{ConfigArgs, Failure, blocks, input, output, print, say, steps, svg, timeline};
use crate::adapters::clock;
use crate::core::config::{Config, MAX_PODS, Sharding};
use crate::core::model::duration::PromDuration;
use crate::core::model::text::counted;
use crate::core::model::window::{Bound, Window};
use crate::core::plan::Plan;

/// Show the windows and pods of a configuration, or the rollout between two, without a cluster
///
/// With --blocks also the blocks of a bucket in each window; with --from and --to the steps of the
/// rollout instead. The pods of one step change together, and the next step starts when they are confirmed. The
/// steps are the leader's if every pod is healthy; the leader waits for pods that fail.
#[derive(Debug, clap::Args)]
#[command(after_help = super::with_names("\
Examples:
  timeshard plan
  timeshard plan --config config.yaml --replicas 6 --exit-code
  timeshard plan --from config.yaml --to new.yaml --replicas 6
  timeshard plan --config config.yaml -o svg > plan.svg
  thanos tools bucket ls --exclude-delete -o json --objstore.config-file bucket.yaml > blocks.json
  timeshard plan --config config.yaml --blocks blocks.json"))]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    change: steps::Between,
    #[command(flatten)]
    blocks: blocks::BucketArgs,
    /// Number of pods (the StatefulSet's spec.replicas). Default: as many as the plan needs; with
    /// --from and --to the larger number
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_replicas)]
    replicas: Option<u32>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
    /// Exit with 3 if the plan has a gap or a warning, or its rollout is blocked; for CI
    #[arg(long)]
    exit_code: bool,
    /// Time at which windows are resolved, in RFC 3339. Default: now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<DateTime<Utc>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A table, and a timeline of one configuration
    Table,
    /// The same with times to the second and every pod, without the timeline
    Wide,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// A picture (of one configuration)
    Svg,
}

/// Kind of the document.
const KIND: &str = "Plan";

/// The document of `-o json` and `-o yaml`.
#[derive(Debug, Serialize)]
struct PlanDocument {
    pods: Vec<PodRow>,
    /// `None` for `retention: forever`.
    retention_seconds: Option<i64>,
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<blocks::BlocksDocument>,
}

#[derive(Debug, Serialize)]
struct PodRow {
    pod: String,
    ordinal: u32,
    shard: u32,
    replica: u32,
    min_time: Bound,
    max_time: Bound,
    from: String,
    to: String,
}

/// Reads a number of pods, which may be none.
fn parse_replicas(text: &str) -> Result<u32, String> {
    super::whole_number(text, 0, MAX_PODS)
}

pub(super) fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.with_timezone(&Utc))
        .map_err(|error| format!("{error}; write RFC 3339 such as 2026-01-31T00:00:00Z"))
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if let (Some(old), Some(new)) = (&args.change.from, &args.change.to) {
        return show_change(args, old, new);
    }
    let config = input::config(&args.config)?;
    if args.config.config.is_none() {
        say("no --config: showing the built-in defaults");
    }
    if args.replicas.is_none() && config.sharding.nominal_pods().is_none() {
        return Err(Failure::Invalid(
            "total_shards is auto, which derives the shards from the number of pods: set --replicas N".to_owned(),
        ));
    }
    let plan = Plan::new(&config.sharding, args.replicas);
    let pods = args
        .replicas
        .or(config.sharding.nominal_pods())
        .unwrap_or(0);
    let now = args.at.unwrap_or_else(clock::now);
    let found = match &args.blocks.blocks {
        Some(list)
            if list.as_os_str() == "-"
                && args
                    .config
                    .config
                    .as_deref()
                    .is_some_and(|config| config.as_os_str() == "-") =>
        {
            return Err(Failure::Invalid("--config - --blocks -: standard input can be read once; write one of them to a file".to_owned()));
        }
        Some(list) => Some(args.blocks.find(list, &config, plan.clone(), now)?),
        None => None,
    };
    let document = || PlanDocument {
        blocks: found.as_ref().map(|found| found.document(now)),
        ..document(&config, &plan, pods, now)
    };
    match args.output {
        Output::Table => {
            for note in plan.notes() {
                say(&format!("warning: {note}"));
            }
            print(
                &found
                    .as_ref()
                    .map_or_else(|| table(&config, &plan, pods, now), |found| found.text(now)),
            )
        }
        Output::Wide => {
            for note in plan.notes() {
                say(&format!("warning: {note}"));
            }
            let blocks = found.as_ref().map(|found| found.text(now));
            let blocks = blocks.map_or_else(String::new, |blocks| format!("\n{blocks}"));
            print(&(wide(&document(), now) + &blocks))
        }
        Output::Json => print(&output::json(KIND, &document())?),
        Output::Yaml => print(&output::yaml(KIND, &document())?),
        Output::Svg => print(&found.as_ref().map_or_else(
            || svg::timeline(&rows(&plan, pods, now), &config.sharding, now),
            |found| found.picture(now),
        )),
    }?;
    let gap = pods > 0 && timeline::fewest_pods(&rows(&plan, pods, now), now) == 0;
    let gap = gap.then_some("some instant is served by no pod");
    verdict(args, gap, plan.notes().len())
}

/// With --exit-code, fails for a gap and for warnings.
fn verdict(args: &Args, gap: Option<&str>, warnings: usize) -> Result<(), Failure> {
    let mut found: Vec<String> = gap.into_iter().map(str::to_owned).collect();
    if warnings > 0 {
        let count = u64::try_from(warnings).unwrap_or(u64::MAX);
        found.push(counted(count, "warning"));
    }
    if args.exit_code && !found.is_empty() {
        return Err(Failure::Found(format!("--exit-code: {}", found.join(", "))));
    }
    Ok(())
}

fn show_change(args: &Args, old: &Path, new: &Path) -> Result<(), Failure> {
    if args.output == Output::Svg {
        return Err(Failure::Invalid(
            "-o svg draws one configuration: with --from and --to write -o table, json or yaml"
                .to_owned(),
        ));
    }
    let rollout = steps::Rollout::read(
        &args.change,
        old,
        new,
        args.replicas,
        args.at.unwrap_or_else(clock::now),
    )?;
    match args.output {
        Output::Json => print(&output::json("Rollout", &rollout.document())?),
        Output::Yaml => print(&output::yaml("Rollout", &rollout.document())?),
        Output::Table | Output::Wide | Output::Svg => {
            for warning in rollout.warnings() {
                say(&format!("warning: {warning}"));
            }
            print(&rollout.table(args.output == Output::Wide))
        }
    }?;
    let gap = rollout
        .is_unsafe()
        .then_some("the rollout would leave a gap");
    verdict(args, gap, rollout.warnings().len())
}

/// A table of every pod, with times to the second.
fn wide(document: &PlanDocument, now: DateTime<Utc>) -> String {
    let stamp = |bound: Bound| bound.at(now).to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut table = timeline::plain_table(&[
        "POD", "ORDINAL", "SHARD", "REPLICA", "MIN TIME", "MAX TIME", "FROM", "TO",
    ]);
    for row in &document.pods {
        table.add_row([
            row.pod.clone(),
            row.ordinal.to_string(),
            row.shard.to_string(),
            row.replica.to_string(),
            row.min_time.to_string(),
            row.max_time.to_string(),
            stamp(row.min_time),
            stamp(row.max_time),
        ]);
    }
    format!("{table}\n")
}

fn document(config: &Config, plan: &Plan, pods: u32, now: DateTime<Utc>) -> PlanDocument {
    let stamp = |bound: Bound| bound.at(now).to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let row = |ordinal| {
        let place = plan.assign(ordinal);
        let Window { min, max } = plan.window(place.shard, now);
        let pod = format!("{}-{ordinal}", config.operator.statefulset_name);
        PodRow {
            pod,
            ordinal,
            shard: place.shard,
            replica: place.replica,
            min_time: min,
            max_time: max,
            from: stamp(min),
            to: stamp(max),
        }
    };
    PlanDocument {
        pods: (0..pods).map(row).collect(),
        retention_seconds: config
            .sharding
            .retention()
            .limit()
            .map(PromDuration::as_secs),
        warnings: plan.notes().iter().map(ToString::to_string).collect(),
        blocks: None,
    }
}

/// Returns the shards with their pods, for pictures.
pub(super) fn rows(plan: &Plan, pods: u32, now: DateTime<Utc>) -> Vec<timeline::TimelineRow> {
    let mut rows: Vec<timeline::TimelineRow> = (0..)
        .zip(plan.shards())
        .map(|(shard, _)| timeline::TimelineRow {
            label: format!("shard {shard}"),
            pods: 0,
            window: plan.window(shard, now),
        })
        .collect();
    for ordinal in 0..pods {
        if let Some(row) = rows.get_mut(plan.assign(ordinal).shard as usize) {
            row.pods += 1;
        }
    }
    rows
}

pub(super) fn table(config: &Config, plan: &Plan, pods: u32, now: DateTime<Utc>) -> String {
    const MAX_ROWS: u32 = 200;
    let mut table = timeline::plain_table(&[
        "POD", "SHARD", "REPLICA", "MIN TIME", "MAX TIME", "FROM", "TO",
    ]);
    let stamp = |bound: Bound| {
        let at = bound.at(now).format("%Y-%m-%d %H:%M");
        if bound == Bound::BEGINNING {
            "the beginning".to_owned()
        } else {
            at.to_string()
        }
    };
    for ordinal in 0..pods.min(MAX_ROWS) {
        let place = plan.assign(ordinal);
        let Window { min, max } = plan.window(place.shard, now);
        let surplus = if place.surplus { " (extra)" } else { "" };
        table.add_row([
            format!("{}-{ordinal}", config.operator.statefulset_name),
            format!("{}{surplus}", place.shard),
            place.replica.to_string(),
            min.to_string(),
            max.to_string(),
            stamp(min),
            stamp(max),
        ]);
    }
    let more = if pods > MAX_ROWS {
        format!(
            "… and {} more pods; -o json has them all\n",
            pods - MAX_ROWS
        )
    } else {
        String::new()
    };
    format!(
        "{table}\n{more}\n{}\n{}",
        summary(&config.sharding, plan, pods),
        timeline::text(&rows(plan, pods, now), now)
    )
}

fn summary(sharding: &Sharding, plan: &Plan, pods: u32) -> String {
    format!(
        "{}, {}, {} retention, {} overlap, {} future buffer{}\n",
        counted(plan.shards().len() as u64, "shard"),
        counted(pods, "pod"),
        sharding.retention(),
        sharding.overlap(),
        sharding.future_buffer(),
        if sharding.future_buffer() < PromDuration::ZERO {
            " (the newest window ends before now)"
        } else {
            ""
        }
    )
}
