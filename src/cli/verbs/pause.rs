//! `timeshard pause` and `timeshard resume`.

use super::VerbArgs;
use super::change::{apply, checked, follow};
use super::target::{self, ChangeTarget};
use crate::adapters::kube::annotate::AnnotationPatch;
use crate::adapters::kube::user_client::ClusterClient;
use crate::cli::Failure;
use crate::cli::statefulset_name::StatefulSetName;
use crate::core::model::names;

/// Pause the rollout of StatefulSets
///
/// No further step begins until timeshard resume. A step that has begun ends. Windows stay served, and pods that start meanwhile get their
/// published windows. Sets the annotation thanos-timeshard.io/pause to "true".
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  timeshard pause thanos-store-gateway -n monitoring
  timeshard pause thanos-store-gateway --dry-run=client")]
pub(in crate::cli) struct PauseArgs {
    /// StatefulSets, as NAME, NAMESPACE/NAME or statefulset/NAME
    #[arg(value_name = "STATEFULSET", required = true)]
    names: Vec<StatefulSetName>,
    #[command(flatten)]
    pub(super) verb: VerbArgs,
}

/// Resume the rollout of StatefulSets
///
/// Removes the annotation thanos-timeshard.io/pause.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  timeshard resume thanos-store-gateway -n monitoring")]
pub(in crate::cli) struct ResumeArgs {
    /// StatefulSets, as NAME, NAMESPACE/NAME or statefulset/NAME
    #[arg(value_name = "STATEFULSET", required = true)]
    names: Vec<StatefulSetName>,
    #[command(flatten)]
    pub(super) verb: VerbArgs,
}

pub(in crate::cli) fn pause(args: &PauseArgs) -> Result<(), Failure> {
    crate::cli::block_on(set(&args.verb, &args.names, Some("true")))
}

pub(in crate::cli) fn resume(args: &ResumeArgs) -> Result<(), Failure> {
    crate::cli::block_on(set(&args.verb, &args.names, None))
}

async fn set(
    args: &VerbArgs,
    names: &[StatefulSetName],
    value: Option<&str>,
) -> Result<(), Failure> {
    // A mistake in the last name leaves the first one unchanged, too.
    for name in names {
        args.namespace_of(name)?;
    }
    let given = args.given_config()?;
    for name in names {
        let (cluster, target) = target::find(args, given.clone(), name).await?;
        carry_out(args, &cluster, &target, value).await?;
    }
    Ok(())
}

pub(super) async fn carry_out(
    args: &VerbArgs,
    cluster: &ClusterClient,
    target: &ChangeTarget,
    value: Option<&str>,
) -> Result<(), Failure> {
    let wanted = AnnotationPatch::from([(names::PAUSE.to_owned(), value.map(str::to_owned))]);
    let change = checked(target, wanted, false)?;
    let next = match value {
        Some(_) => format!(
            "resume it with: timeshard resume {}/{}{}",
            target.namespace,
            target.name,
            args.cluster.repeated()
        ),
        None => follow(args, target),
    };
    apply(args, cluster, target, &change, next).await
}
