//! `timeshard scale-down`: plans for fewer pods, waits until the others are no longer needed, and
//! then prints or runs the scaling.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::change::{apply, checked, follow};
use super::target::{self, ChangeTarget, failed};
use super::{DryRunMode, VerbArgs};
use crate::adapters::clock;
use crate::adapters::kube::annotate::{AnnotationPatch, StatefulSetApi};
use crate::adapters::kube::server_status::Address;
use crate::adapters::kube::user_client::ClusterClient;
use crate::cli::cluster::StatusServer;
use crate::cli::statefulset_name::StatefulSetName;
use crate::cli::{Failure, say};
use crate::core::model::duration::PromDuration;
use crate::core::model::names;
use crate::core::model::text::counted;
use crate::core::rollout::report::{RolloutState, SetReport};
use crate::core::server_status::ServerStatus;

/// Interval of requests to the server.
const POLL_EVERY: Duration = Duration::from_secs(2);

/// Scale a StatefulSet down without a gap
///
/// Sets the annotation thanos-timeshard.io/target-replicas, so that the server moves the windows to
/// the pods that stay, follows the rollout until the other pods are no longer needed, and then
/// prints the kubectl scale that is safe now, or runs it with --scale. Ctrl-C only ends the
/// waiting; run the command again to continue. The server removes the annotation once
/// spec.replicas has its value. Exits with 3 if the rollout is blocked or refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  timeshard scale-down thanos-store-gateway -n monitoring --to 4 --dry-run
  timeshard scale-down thanos-store-gateway -n monitoring --to 4
  timeshard scale-down monitoring/thanos-store-gateway --to 4 --scale --timeout 1h
  timeshard scale-down monitoring/thanos-store-gateway --cancel")]
pub(in crate::cli) struct ScaleDownArgs {
    /// The StatefulSet, as NAME, NAMESPACE/NAME or statefulset/NAME
    #[arg(value_name = "STATEFULSET")]
    name: StatefulSetName,
    /// Number of pods that stay
    #[arg(long, value_name = "N", required_unless_present = "cancel", value_parser = crate::cli::parse_pods)]
    to: Option<u32>,
    /// Plan for all pods again
    #[arg(long, conflicts_with_all = ["to", "scale", "no_wait", "timeout"])]
    cancel: bool,
    /// Also scale the StatefulSet once that is safe (needs patch on statefulsets/scale)
    #[arg(long, conflicts_with = "no_wait")]
    scale: bool,
    /// Only set the annotation
    #[arg(long)]
    no_wait: bool,
    /// Give up waiting after this long (such as 1h), with exit code 1. Default: never
    #[arg(long, value_name = "DURATION", conflicts_with = "no_wait", value_parser = crate::cli::status::parse_timeout)]
    timeout: Option<PromDuration>,
    /// Address of the server's admin port, such as `http://127.0.0.1:8080` (a port-forward), for the
    /// waiting. Default: through the API server
    #[arg(long, value_name = "URL", env = "TIMESHARD_SERVER")]
    server: Option<Address>,
    #[command(flatten)]
    pub(super) verb: VerbArgs,
}

pub(in crate::cli) fn scale_down(args: &ScaleDownArgs) -> Result<(), Failure> {
    crate::cli::block_on(run(args))
}

async fn run(args: &ScaleDownArgs) -> Result<(), Failure> {
    let given = args.verb.given_config()?;
    let (cluster, target) = target::find(&args.verb, given, &args.name).await?;
    carry_out(args, &cluster, &target).await
}

pub(super) async fn carry_out(
    args: &ScaleDownArgs,
    cluster: &ClusterClient,
    target: &ChangeTarget,
) -> Result<(), Failure> {
    if let Some(to) = args.to {
        fits(target, to)?;
    }
    let key = names::TARGET_REPLICAS.to_owned();
    let value = args.to.map(|to| to.to_string());
    let change = checked(target, AnnotationPatch::from([(key, value)]), true)?;
    let command = |to: u32| {
        format!(
            "kubectl -n {} scale statefulset {} --replicas={to}{}",
            target.namespace,
            target.name,
            args.verb.cluster.repeated()
        )
    };
    let waits = args.verb.dry_run == DryRunMode::None && !args.no_wait;
    let next = match args.to {
        Some(to) if waits => format!(
            "waiting until the pods above {to} are no longer needed; Ctrl-C ends the waiting"
        ),
        Some(to) => format!("{}, then: {}", follow(&args.verb, target), command(to)),
        None => follow(&args.verb, target),
    };
    apply(&args.verb, cluster, target, &change, next).await?;
    let Some(to) = args.to.filter(|_| waits) else {
        return Ok(());
    };
    let safe = wait(args, cluster, target, to);
    let deadline = args
        .timeout
        .map(|timeout| Instant::now() + timeout.to_std());
    tokio::select! {
        safe = safe => safe?,
        () = clock::at(deadline) => {
            let limit = args.timeout.map_or_else(String::new, |limit| limit.to_string());
            return Err(Failure::Failed(format!("not safe yet after {limit}; {}", follow(&args.verb, target))));
        }
        Ok(()) = tokio::signal::ctrl_c() => {
            say(&format!("the rollout continues; {}, then: {}", follow(&args.verb, target), command(to)));
            return Ok(());
        }
    }
    if !args.scale {
        return args
            .verb
            .output
            .result(&format!("safe now: {}", command(to)));
    }
    scale(cluster, target, to).await?;
    args.verb
        .output
        .result(&format!("statefulset.apps/{} scaled to {to}", target.name))
}

/// Whether there are more pods than that.
fn fits(target: &ChangeTarget, to: u32) -> Result<(), Failure> {
    let replicas = target.facts.replicas;
    if to < replicas {
        return Ok(());
    }
    let hint = if to == replicas {
        "nothing is to be scaled down"
    } else {
        "scale up with kubectl scale first, and then change the shards with timeshard reshard"
    };
    Err(Failure::Invalid(format!(
        "--to {to}: StatefulSet {}/{} has {}; {hint}",
        target.namespace,
        target.name,
        counted(replicas, "pod")
    )))
}

async fn wait(
    args: &ScaleDownArgs,
    cluster: &ClusterClient,
    target: &ChangeTarget,
    to: u32,
) -> Result<(), Failure> {
    let server = match &args.server {
        Some(address) => StatusServer::at(address.clone()),
        None => StatusServer::leader(cluster.clone(), &args.verb.system),
    };
    let mut ticks = interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut shown, mut answered) = (String::new(), false);
    loop {
        ticks.tick().await;
        let line = match report(&server, target).await {
            // Later, the server may be unavailable for a while.
            Err(failure) if !answered => return Err(failure),
            Err(failure) => failure.to_string(),
            Ok(None) => "the server does not report this StatefulSet yet".to_owned(),
            Ok(Some(report)) => {
                answered = true;
                let observed = is_observed(&report, target.facts.ordinals_start, to);
                let line = format!("{}: {}", report.state.as_str(), report.message);
                match report.state {
                    RolloutState::Settled if observed => return Ok(()),
                    RolloutState::Blocked | RolloutState::Refused if observed => {
                        return Err(Failure::Found(line));
                    }
                    _ if observed => line,
                    _ => "the leader has not observed the annotation yet".to_owned(),
                }
            }
        };
        if line != shown {
            say(&line);
            shown = line;
        }
    }
}

async fn report(
    server: &StatusServer,
    target: &ChangeTarget,
) -> Result<Option<SetReport>, Failure> {
    let answer = server.ask().await?;
    let unreadable = |why: String| Failure::Failed(format!("{}: {why}", answer.from));
    let status = ServerStatus::parse(&answer.body).map_err(unreadable)?;
    status
        .report(&target.namespace, &target.name)
        .transpose()
        .map_err(unreadable)
}

/// Whether the report plans without the pods above the target.
fn is_observed(report: &SetReport, ordinals_start: u32, to: u32) -> bool {
    let first = ordinals_start.saturating_add(to);
    let mut leaving = report
        .pods
        .iter()
        .filter(|pod| pod.ordinal >= first)
        .peekable();
    leaving.peek().is_some() && leaving.all(|pod| pod.surplus)
}

async fn scale(cluster: &ClusterClient, target: &ChangeTarget, to: u32) -> Result<(), Failure> {
    let (namespace, name) = (&target.namespace, &target.name);
    let api = StatefulSetApi { cluster, namespace };
    let what = format!("patch statefulsets/scale {name} in namespace {namespace}");
    let warnings = api
        .scale(name, to)
        .await
        .map_err(|error| failed(cluster, &what, &error))?;
    for warning in warnings {
        say(&format!("warning: {warning}"));
    }
    Ok(())
}
