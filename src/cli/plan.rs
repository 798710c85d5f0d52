//! `timeshard plan`: which pod serves what, as a table and picture for people, or as data.

use std::path::Path;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::{ConfigArgs, Failure, blocks, input, print, say, steps, svg, timeline};
use crate::adapters::clock;
use crate::core::config::{Config, MAX_PODS, Sharding};
use crate::core::duration::PromDuration;
use crate::core::plan::Plan;
use crate::core::text::counted;
use crate::core::window::{Bound, Window};

/// Show the windows and pods of a configuration, with --blocks what they load of a bucket, or with --from and --to the steps
/// of the rollout between two, without a cluster.
///
/// The pods of one step change together, and the next step starts when they are confirmed. The steps are those that the
/// background task takes while every pod is healthy; a pod that fails makes it wait.
#[derive(Debug, clap::Args)]
#[command(after_help = super::NAMES_HELP)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    change: steps::Between,
    #[command(flatten)]
    blocks: blocks::Bucket,
    /// Number of pods (the StatefulSet's spec.replicas). Default: as many as fill the plan, with --from and --to the larger
    /// of both
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_PODS)))]
    replicas: Option<u32>,
    /// What to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
    /// The moment that windows are resolved at, in RFC 3339. Default: now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<DateTime<Utc>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A table, and a timeline of one configuration
    Table,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// A picture for a page (of one configuration)
    Svg,
}

/// The document of `-o json` and `-o yaml`.
#[derive(Debug, Serialize)]
struct Document {
    pods: Vec<PodRow>,
    /// `None` for ever.
    retention_seconds: Option<i64>,
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<blocks::Document>,
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
            "total_shards is auto, which derives the shards from the number of pods: give it with --replicas N".to_owned(),
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
    let document = || Document {
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
        Output::Json => print(&to_json(&document())?),
        Output::Yaml => print(&to_yaml(&document())?),
        Output::Svg => print(&found.as_ref().map_or_else(
            || svg::timeline(&rows(&plan, pods, now), &config.sharding, now),
            |found| found.picture(now),
        )),
    }
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
        Output::Json => print(&to_json(&rollout.document())?),
        Output::Yaml => print(&to_yaml(&rollout.document())?),
        Output::Table | Output::Svg => {
            for warning in rollout.warnings() {
                say(&format!("warning: {warning}"));
            }
            print(&rollout.table())
        }
    }
}

fn to_json(document: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(document)
        .map(|text| text + "\n")
        .map_err(|error| Failure::Failed(error.to_string()))
}

fn to_yaml(document: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(document).map_err(|error| Failure::Failed(error.to_string()))
}

fn document(config: &Config, plan: &Plan, pods: u32, now: DateTime<Utc>) -> Document {
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
    Document {
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

/// The shards with their pods, for pictures.
pub(super) fn rows(plan: &Plan, pods: u32, now: DateTime<Utc>) -> Vec<timeline::Row> {
    let mut rows: Vec<timeline::Row> = (0..)
        .zip(plan.shards())
        .map(|(shard, _)| timeline::Row {
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

/// The table and the picture that people read.
pub(super) fn table(config: &Config, plan: &Plan, pods: u32, now: DateTime<Utc>) -> String {
    const MANY_PODS: u32 = 200;
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
    for ordinal in 0..pods.min(MANY_PODS) {
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
    let more = if pods > MANY_PODS {
        format!(
            "… and {} more pods; -o json has them all\n",
            pods - MANY_PODS
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
