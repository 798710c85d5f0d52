//! A change of annotations: checked as the server checks it, shown, and written.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use tokio::time::sleep;

use super::target::{ChangeTarget, failed};
use super::{DryRunMode, Output, VerbArgs};
use crate::adapters::clock;
use crate::adapters::kube::annotate::{AnnotationPatch, StatefulSetApi};
use crate::adapters::kube::user_client::{ClusterClient, RequestError};
use crate::cli::steps::{Rollout, StepsDocument};
use crate::cli::{Failure, output, print, say};
use crate::core::config::MAX_PODS;
use crate::core::gateways::Gateway;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::names;

/// Pauses before a write that met a conflict is tried again, in milliseconds.
const CONFLICT_PAUSES: [u64; 5] = [20, 50, 100, 200, 400];

/// A change that the server would accept.
pub(super) struct CheckedChange {
    pub(super) annotations: AnnotationPatch,
    after: Gateway,
    /// `None` if the windows stay.
    rollout: Option<Rollout>,
}

impl CheckedChange {
    /// Whether a warning of the guard is already among those of this program.
    fn says(&self, warning: &str) -> bool {
        let rollout = self.rollout.as_ref().map(Rollout::warnings);
        self.after.remarks().iter().any(|(_, own)| own == warning)
            || rollout.is_some_and(|all| all.iter().any(|own| own == warning))
    }
}

/// The document of `-o json` and `-o yaml`.
#[derive(Debug, Serialize)]
struct ChangeDocument<'a> {
    namespace: &'a str,
    statefulset: &'a str,
    /// `null` removes one.
    annotations: &'a AnnotationPatch,
    #[serde(rename = "dryRun")]
    dry_run: &'static str,
    /// Whether an annotation changes.
    changed: bool,
    rollout: Option<StepsDocument>,
    warnings: &'a [String],
    /// The command to run next.
    next: String,
}

/// Checks the annotations. `steps` also plans the rollout.
///
/// # Errors
/// What the server would refuse, with its place.
pub(super) fn checked(
    target: &ChangeTarget,
    wanted: AnnotationPatch,
    steps: bool,
) -> Result<CheckedChange, Failure> {
    let mut facts: StatefulSetFacts = target.facts.clone();
    // What already has the wanted value is not written again.
    let annotations: AnnotationPatch = wanted
        .into_iter()
        .filter(|(key, value)| facts.annotations.get(key) != value.as_ref())
        .collect();
    for (key, value) in &annotations {
        match value {
            Some(value) => facts.annotations.insert(key.clone(), value.clone()),
            None => facts.annotations.remove(key),
        };
    }
    let after = Gateway::new(&target.config, facts, Some(&target.gateway));
    // A mistake that was there before does not keep the user from pausing.
    if let Some(problem) = &after.problem
        && (steps || after.problem != target.gateway.problem)
    {
        return Err(Failure::Invalid(format!(
            "StatefulSet {}/{} is not changed: {problem}",
            target.namespace, target.name
        )));
    }
    let plans = steps && after.facts().replicas <= MAX_PODS;
    let rollout = plans.then(|| Rollout::of_gateway(&target.gateway, &after, clock::now()));
    Ok(CheckedChange {
        annotations,
        after,
        rollout,
    })
}

/// Shows the change and writes it, unless this is a dry run.
pub(super) async fn apply(
    args: &VerbArgs,
    cluster: &ClusterClient,
    target: &ChangeTarget,
    change: &CheckedChange,
    next: String,
) -> Result<(), Failure> {
    let mut warnings = target.warnings.clone();
    warnings.extend(
        change
            .after
            .remarks()
            .into_iter()
            .map(|(_, sentence)| sentence),
    );
    if let Some(rollout) = &change.rollout {
        let known = warnings.clone();
        let fresh = rollout.warnings().iter().filter(|one| !known.contains(one));
        warnings.extend(fresh.cloned());
    }
    if args.output == Output::Table || args.output == Output::Wide {
        print(&preview(change, args.output))?;
    }
    let changed = !change.annotations.is_empty();
    if changed && args.dry_run != DryRunMode::Client {
        let said = write(args, cluster, target, &change.annotations).await?;
        // The guard says some of the same.
        warnings.extend(said.into_iter().filter(|one| !change.says(one)));
    }
    for warning in &warnings {
        say(&format!("warning: {warning}"));
    }
    let document = || ChangeDocument {
        namespace: &target.namespace,
        statefulset: &target.name,
        annotations: &change.annotations,
        dry_run: args.dry_run.name(),
        changed,
        rollout: change.rollout.as_ref().map(Rollout::document),
        warnings: &warnings,
        next: next.clone(),
    };
    match args.output {
        Output::Json => print(&output::json("Change", &document())?),
        Output::Yaml => print(&output::yaml("Change", &document())?),
        Output::Table | Output::Wide => {
            let verb = if changed { "annotated" } else { "unchanged" };
            print(&format!(
                "statefulset.apps/{} {verb}{}\n{next}\n",
                target.name,
                args.dry_run.suffix()
            ))
        }
    }
}

/// What is written, and the rollout that follows.
fn preview(change: &CheckedChange, output: Output) -> String {
    let mut text = String::new();
    for (key, value) in &change.annotations {
        text += &match value {
            Some(value) => format!("{key}={value}\n"),
            None => format!("{key}-\n"),
        };
    }
    if let Some(rollout) = &change.rollout {
        text += "\n";
        text += &match output {
            Output::Wide => rollout.table(true),
            _ => rollout.outline(),
        };
        text += "\n";
    }
    text
}

/// Writes the annotations to what was checked. Controllers update the status at any time, most of all
/// after a scale-up; such a conflict is tried again.
async fn write(
    args: &VerbArgs,
    cluster: &ClusterClient,
    target: &ChangeTarget,
    annotations: &AnnotationPatch,
) -> Result<Vec<String>, Failure> {
    let ChangeTarget {
        namespace, name, ..
    } = target;
    let api = StatefulSetApi { cluster, namespace };
    let dry_run = args.dry_run == DryRunMode::Server;
    let what = format!("patch statefulset {name} in namespace {namespace}");
    let mut version = target.version.resource_version.clone();
    for pause in CONFLICT_PAUSES {
        match api.annotate(name, &version, annotations, dry_run).await {
            Err(RequestError::Refused { code, .. }) if code == StatusCode::CONFLICT => {}
            answer => return answer.map_err(|error| failed(cluster, &what, &error)),
        }
        sleep(Duration::from_millis(pause)).await;
        let again = target.read_again(&api).await;
        match again.map_err(|error| failed(cluster, &what, &error))? {
            Some(again) => version = again.resource_version,
            None => break,
        }
    }
    Err(Failure::Failed(format!(
        "{cluster}: {what}: it was changed by another client meanwhile; run the command again"
    )))
}

/// The command that follows the rollout.
pub(super) fn follow(args: &VerbArgs, target: &ChangeTarget) -> String {
    format!(
        "follow it with: timeshard status {}/{} --until-settled{}",
        target.namespace,
        target.name,
        args.cluster.repeated()
    )
}

/// An annotation of timeshard.
pub(super) fn annotation(key: &str) -> String {
    format!("{}{key}", names::PREFIX)
}
