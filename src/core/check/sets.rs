//! StatefulSets of labelled namespaces: what admission's own code would do with their pods.

use std::sync::Arc;

use serde_json::Value;

use super::Report;
use super::gateway::CheckedGateway;
use super::ids::{
    STATEFULSET_ANNOTATIONS, STATEFULSET_ELIGIBLE, STATEFULSET_OVERLAP, STATEFULSET_PROBES,
    STATEFULSET_REPLICAS, STATEFULSET_TEMPLATE, STATEFULSET_UPDATE,
};
use super::snapshot::Snapshot;
use crate::core::admission::{Facts, Remark, Skip, eligible, inject};
use crate::core::config::{Config, misuse_on_statefulset};
use crate::core::gateways::{Gateway, Gateways};
use crate::core::kube::pod_template;
use crate::core::model::duration::PromDuration;
use crate::core::model::names;
use crate::core::model::text::counted;
use crate::core::plan::Note;
use crate::core::pod::PodView;
use crate::core::thanos::query::flag_values;

/// Thanos' default for `--sync-block-duration`.
const SYNC_BLOCK_DURATION: PromDuration = PromDuration::from_secs(900);

pub(super) fn check<'a>(
    snapshot: &'a Snapshot,
    config: Option<&Config>,
    report: &mut Report,
) -> Vec<CheckedGateway<'a>> {
    let all = match &snapshot.statefulsets {
        Ok(all) => all,
        Err(lack) => {
            report.lacks(&STATEFULSET_ELIGIBLE, "", lack);
            return Vec::new();
        }
    };
    let base = Gateways::new(Arc::new(config.cloned().unwrap_or_default()));
    let mut gateways = Vec::new();
    for object in all {
        let namespace = pod_template::namespace(object, "");
        if snapshot.spaces.contains_key(&namespace) {
            gateways.extend(statefulset(
                snapshot,
                &base,
                config.is_some(),
                object,
                &namespace,
                report,
            ));
        }
    }
    gateways
}

fn statefulset<'a>(
    snapshot: &'a Snapshot,
    base: &Gateways,
    planned: bool,
    object: &Value,
    namespace: &str,
    report: &mut Report,
) -> Option<CheckedGateway<'a>> {
    let facts = pod_template::facts(object, namespace, None);
    let (name, title) = (facts.name.clone(), format!("{namespace}/{}", facts.name));
    let first = pod_template::pod(object, &facts, facts.ordinals_start).to_string();
    let pod = PodView::parse(first.as_bytes()).ok()?;
    let fleet = base.with_statefulset(facts).unwrap_or_else(|| base.clone());
    let known = fleet.known(namespace, &name);
    let candidate = match eligible(&pod) {
        Ok(candidate) => candidate,
        Err(skip) => {
            let asked_for = known.opted_out() && skip.surprises();
            let skip = if asked_for { Skip::SetOptedOut } else { skip };
            skipped(&title, &skip, report);
            return None;
        }
    };
    let facts = Facts::of(&fleet, namespace, (&candidate, &pod), snapshot.now);
    let remarks = match inject(&pod, &candidate, &facts) {
        Ok(injection) => injection.remarks,
        Err(Skip::AlreadyInjected) => Vec::new(),
        Err(skip) => {
            skipped(&title, &skip, report);
            return None;
        }
    };
    if planned {
        plan(
            &title,
            known,
            &container_args(object, candidate.index),
            report,
        );
    } else {
        report.pass(&STATEFULSET_ELIGIBLE, &title, STATEFULSET_ELIGIBLE.title);
        for check in [
            &STATEFULSET_REPLICAS,
            &STATEFULSET_OVERLAP,
            &STATEFULSET_UPDATE,
        ] {
            report.skip(check, &title, "the configuration is not known");
        }
    }
    annotations(&title, known, planned, report);
    template(&title, &remarks, report);
    Some(CheckedGateway::new(
        snapshot,
        object,
        namespace,
        &candidate,
        (known, planned),
    ))
}

/// The checks that need the plan: replicas, overlap and update strategy.
fn plan(title: &str, known: &Gateway, args: &[String], report: &mut Report) {
    let shards = known.plan.shards().len();
    let message = format!(
        "{} replicas, {}",
        known.facts().replicas,
        counted(shards, "shard")
    );
    report.pass(&STATEFULSET_ELIGIBLE, title, message);
    replicas(title, known, report);
    overlap(title, known, args, report);
    update(title, known, report);
}

/// Reports why a StatefulSet is not sharded, if its user may expect that it is.
fn skipped(title: &str, skip: &Skip, report: &mut Report) {
    let check = &STATEFULSET_ELIGIBLE;
    let hint =
        "change the pod template as the message says; until then its pods load the whole bucket";
    match skip {
        Skip::OptedOut | Skip::SetOptedOut => report.skip(check, title, skip.to_string()),
        Skip::TimeFlags(_) => {
            report.warn(
                check,
                title,
                skip.to_string(),
                format!(
                    "kubectl annotate statefulset NAME {}=true lets timeshard set its windows",
                    names::REPLACE_TIME_FLAGS
                ),
            );
        }
        Skip::UnknownImage(_) => {
            report.warn(
                check,
                title,
                skip.to_string(),
                "annotate the pod template if it is Thanos; otherwise ignore this",
            );
        }
        skip if skip.surprises() => report.fail(check, title, skip.to_string(), hint),
        // Prometheus, queriers and other workloads.
        _ => {}
    }
}

fn replicas(title: &str, known: &Gateway, report: &mut Report) {
    let before = report.findings.len();
    for note in known.plan.notes() {
        let hint = match note {
            Note::NoPods => "scale it up, unless it is switched off on purpose",
            Note::Surplus { .. } => "raise total_shards, or scale down",
            Note::WideOverlap { .. } | Note::ShortDrain { .. } => continue,
            _ => "scale up, or lower total_shards or replicas_per_shard",
        };
        report.warn(&STATEFULSET_REPLICAS, title, note.to_string(), hint);
    }
    if known.facts().replicas == 0 && report.findings.len() == before {
        report.warn(
            &STATEFULSET_REPLICAS,
            title,
            "it has 0 replicas, so nothing is served",
            "scale it up, unless it is switched off on purpose",
        );
    }
    if report.findings.len() == before {
        report.pass(&STATEFULSET_REPLICAS, title, STATEFULSET_REPLICAS.title);
    }
}

fn update(title: &str, known: &Gateway, report: &mut Report) {
    match known.all_at_once() {
        None => report.pass(&STATEFULSET_UPDATE, title, STATEFULSET_UPDATE.title),
        Some(all) => {
            let hint = "set spec.updateStrategy.rollingUpdate.maxUnavailable to 1, or remove it";
            report.warn(
                &STATEFULSET_UPDATE,
                title,
                all.sentence(known.facts()),
                hint,
            );
        }
    }
}

fn overlap(title: &str, known: &Gateway, args: &[String], report: &mut Report) {
    let check = &STATEFULSET_OVERLAP;
    let overlap = known.sharding.overlap();
    let given = flag_values(args, "--sync-block-duration").pop();
    let Ok(sync) = given.map_or(Ok(SYNC_BLOCK_DURATION), str::parse::<PromDuration>) else {
        return report.warn(
            check,
            title,
            format!(
                "--sync-block-duration={} cannot be compared with the overlap",
                given.unwrap_or_default()
            ),
            "write it in Prometheus' units, such as 15m",
        );
    };
    let before = report.findings.len();
    if overlap < sync {
        let message = format!(
            "the overlap ({overlap}) is shorter than --sync-block-duration ({sync}): blocks between two shards are missing until the next sync"
        );
        report.fail(
            check,
            title,
            message,
            format!("set overlap to at least {}", sync + sync),
        );
    } else if overlap < sync + sync {
        let message = format!(
            "the overlap ({overlap}) leaves less than {sync} for loading, since Thanos syncs blocks only every {sync}"
        );
        report.warn(
            check,
            title,
            message,
            format!("set overlap to at least {}", sync + sync),
        );
    }
    for note in known
        .plan
        .notes()
        .iter()
        .filter(|note| matches!(note, Note::WideOverlap { .. }))
    {
        report.warn(
            check,
            title,
            note.to_string(),
            "timeshard plan shows the windows",
        );
    }
    if report.findings.len() == before {
        report.pass(
            check,
            title,
            format!("shards overlap by {overlap}; Thanos syncs blocks every {sync}"),
        );
    }
}

/// Returns command and arguments of one container of the template.
fn container_args(object: &Value, index: usize) -> Vec<String> {
    let container = object
        .pointer("/spec/template/spec/containers")
        .and_then(|all| all.get(index));
    let list = |key: &str| {
        container
            .and_then(|container| container.get(key))
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    [list("command"), list("args")]
        .concat()
        .iter()
        .filter_map(|arg| arg.as_str().map(str::to_owned))
        .collect()
}

fn annotations(title: &str, known: &Gateway, planned: bool, report: &mut Report) {
    let (check, before) = (&STATEFULSET_ANNOTATIONS, report.findings.len());
    // Without the configuration, a valid key may seem not to fit it.
    if let Some(problem) = known.problem.as_ref().filter(|_| planned) {
        report.fail(
            check,
            title,
            problem.clone(),
            "correct it; until then the last valid sharding, or that of the configuration file, is in force",
        );
    }
    for (key, value) in &known.facts().annotations {
        if let Some(misuse) = misuse_on_statefulset(key, value, known.facts().replicas, false) {
            report.warn(check, title, misuse.what, misuse.remedy);
        }
    }
    if report.findings.len() == before {
        report.pass(check, title, STATEFULSET_ANNOTATIONS.title);
    }
}

fn template(title: &str, remarks: &[Remark], report: &mut Report) {
    let (mut killed, mut ignored) = (false, false);
    for remark in remarks {
        match remark {
            Remark::UnsafeLiveness(_) => {
                killed = true;
                let hint = format!(
                    "probe /-/healthy, or annotate the StatefulSet with {}=true",
                    names::RELOAD_DESPITE_LIVENESS
                );
                report.fail(&STATEFULSET_PROBES, title, remark.to_string(), hint);
            }
            Remark::BadCommandAnnotation => {
                ignored = true;
                report.fail(
                    &STATEFULSET_TEMPLATE,
                    title,
                    remark.to_string(),
                    "correct the pod template",
                );
            }
            Remark::KeyOnPod(_)
            | Remark::UnknownAnnotation(_)
            | Remark::MoreAnnotations(_)
            | Remark::UnreadableAddress(_)
            | Remark::HostPid => {
                ignored = true;
                report.warn(
                    &STATEFULSET_TEMPLATE,
                    title,
                    remark.to_string(),
                    "correct the pod template",
                );
            }
            Remark::SelectionFile(_) => {
                ignored = true;
                report.warn(
                    &STATEFULSET_TEMPLATE,
                    title,
                    remark.to_string(),
                    "ignore this if every pod writes the same file",
                );
            }
            Remark::MeshedPort { .. } => {
                ignored = true;
                report.warn(
                    &STATEFULSET_TEMPLATE,
                    title,
                    remark.to_string(),
                    "ignore this if the mesh does not intercept the port",
                );
            }
        }
    }
    if !killed {
        report.pass(&STATEFULSET_PROBES, title, STATEFULSET_PROBES.title);
    }
    if !ignored {
        report.pass(&STATEFULSET_TEMPLATE, title, STATEFULSET_TEMPLATE.title);
    }
}
