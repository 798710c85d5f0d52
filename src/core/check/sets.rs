//! StatefulSets of labelled namespaces: what admission would do with their pods, by admission's own code.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::Value;

use super::Report;
use super::ids::{
    STATEFULSET_ANNOTATIONS, STATEFULSET_ELIGIBLE, STATEFULSET_OVERLAP, STATEFULSET_PROBES,
    STATEFULSET_REPLICAS, STATEFULSET_TEMPLATE, STATEFULSET_UPDATE,
};
use super::objects::{Meta, SelectorView, Workload};
use super::queriers::flag;
use super::snapshot::Snapshot;
use crate::core::config::{Config, GuardMode, sharding_key};
use crate::core::duration::PromDuration;
use crate::core::expand;
use crate::core::fleet::{Fleet, Known};
use crate::core::mutation::{Candidate, Facts, Remark, Skip, eligible, inject};
use crate::core::names;
use crate::core::observed::Selector;
use crate::core::plan::Note;
use crate::core::pod::PodView;

/// Thanos' default for `--sync-block-duration`.
const SYNC_BLOCK_DURATION: PromDuration = PromDuration::from_secs(900);

/// A StatefulSet whose pods are injected.
pub(super) struct Gateway<'a> {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    /// What is planned; `None` when the configuration is not known.
    pub(super) known: Option<Known>,
    /// Labels of its pods, without those that admission adds.
    pub(super) labels: BTreeMap<String, String>,
    /// `spec.selector`.
    pub(super) selector: Selector,
    /// The port of `--grpc-address`, if it says one.
    pub(super) grpc_port: Option<u16>,
    /// `spec.serviceName`.
    pub(super) service: String,
    /// Its pods, if they may be listed.
    pub(super) pods: Vec<&'a Meta>,
}

impl Gateway<'_> {
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

pub(super) fn look<'a>(
    snapshot: &'a Snapshot,
    config: Option<&Config>,
    report: &mut Report,
) -> Vec<Gateway<'a>> {
    let all = match &snapshot.statefulsets {
        Ok(all) => all,
        Err(lack) => {
            report.lacks(&STATEFULSET_ELIGIBLE, "", lack);
            return Vec::new();
        }
    };
    let base = Fleet::new(Arc::new(config.cloned().unwrap_or_default()));
    let mut gateways = Vec::new();
    for object in all {
        let namespace = expand::namespace(object, "");
        if snapshot.spaces.contains_key(&namespace) {
            gateways.extend(one(
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

fn one<'a>(
    snapshot: &'a Snapshot,
    base: &Fleet,
    planned: bool,
    object: &Value,
    namespace: &str,
    report: &mut Report,
) -> Option<Gateway<'a>> {
    let facts = expand::facts(object, namespace, None);
    let (name, title) = (facts.name.clone(), format!("{namespace}/{}", facts.name));
    let first = expand::pod(object, &facts, facts.ordinals_start).to_string();
    let pod = PodView::parse(first.as_bytes()).ok()?;
    let candidate = match eligible(&pod) {
        Ok(candidate) => candidate,
        Err(skip) => {
            left_alone(&title, &skip, report);
            return None;
        }
    };
    let fleet = base.with_statefulset(facts).unwrap_or_else(|| base.clone());
    let known = fleet.known(namespace, &name);
    let facts = Facts::of(known, fleet.config(), namespace, snapshot.now);
    let remarks = match inject(&pod, &candidate, &facts) {
        Ok(injection) => injection.remarks,
        Err(Skip::AlreadyInjected) => Vec::new(),
        Err(skip) => {
            left_alone(&title, &skip, report);
            return None;
        }
    };
    if planned {
        plan(&title, known, &words(object, candidate.index), report);
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
    Some(gateway(
        snapshot,
        object,
        namespace,
        &candidate,
        (known, planned),
    ))
}

/// What later checks need of a StatefulSet whose pods are injected.
fn gateway<'a>(
    snapshot: &'a Snapshot,
    object: &Value,
    namespace: &str,
    candidate: &Candidate<'_>,
    (known, planned): (&Known, bool),
) -> Gateway<'a> {
    let name = known.facts().name.clone();
    let template: Workload = serde_json::from_value(object.clone()).unwrap_or_default();
    let pods = snapshot
        .spaces
        .get(namespace)
        .and_then(|space| space.pods.as_deref().ok())
        .unwrap_or_default();
    let own = |pod: &&Meta| {
        pod.statefulset().is_some_and(|owner| owner.name == name)
            && pod.deletion_timestamp.is_none()
    };
    Gateway {
        uid: template.metadata.uid.clone(),
        labels: template.spec.template.metadata.labels,
        selector: object
            .pointer("/spec/selector")
            .and_then(|selector| SelectorView::deserialize(selector).ok())
            .unwrap_or_default()
            .into(),
        grpc_port: candidate.store.grpc_port(),
        service: object
            .pointer("/spec/serviceName")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        known: planned.then(|| known.clone()),
        pods: pods.iter().filter(own).collect(),
        namespace: namespace.to_owned(),
        name,
    }
}

/// The checks that need the plan: replicas, overlap and update strategy.
fn plan(title: &str, known: &Known, words: &[String], report: &mut Report) {
    let shards = known.plan.shards().len();
    let message = format!(
        "{} replicas, {shards} shard{}",
        known.facts().replicas,
        if shards == 1 { "" } else { "s" }
    );
    report.pass(&STATEFULSET_ELIGIBLE, title, message);
    replicas(title, known, report);
    overlap(title, known, words, report);
    update(title, known, report);
}

/// Why a StatefulSet is not sharded, if its user may have expected that it is.
fn left_alone(title: &str, skip: &Skip, report: &mut Report) {
    let check = &STATEFULSET_ELIGIBLE;
    let undo = "the sentence says what to change in the pod template; until then its pods load the whole bucket";
    match skip {
        Skip::OptedOut => report.skip(check, title, skip.to_string()),
        Skip::TimeFlags(_) => {
            report.warn(
                check,
                title,
                skip.to_string(),
                format!(
                    "kubectl annotate statefulset NAME {}=true hands its windows over",
                    names::REPLACE_TIME_FLAGS
                ),
            );
        }
        Skip::UnknownImage(_) => {
            report.warn(
                check,
                title,
                skip.to_string(),
                "annotate the pod template if it is Thanos; nothing is to be done if it is not",
            );
        }
        skip if skip.surprises() => report.fail(check, title, skip.to_string(), undo),
        // Prometheus, queriers and whatever else lives beside the gateways.
        _ => {}
    }
}

fn replicas(title: &str, known: &Known, report: &mut Report) {
    let before = report.findings.len();
    for note in known.plan.notes() {
        let hint = match note {
            Note::NoPods => {
                "scale it up, or leave it: nothing is wrong with a gateway that is switched off"
            }
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
            "it has 0 replicas: nothing is served",
            "scale it up, or leave it: nothing is wrong with a gateway that is switched off",
        );
    }
    if report.findings.len() == before {
        report.pass(&STATEFULSET_REPLICAS, title, STATEFULSET_REPLICAS.title);
    }
}

fn update(title: &str, known: &Known, report: &mut Report) {
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

fn overlap(title: &str, known: &Known, words: &[String], report: &mut Report) {
    let check = &STATEFULSET_OVERLAP;
    let overlap = known.sharding.overlap();
    let given = flag(words, "--sync-block-duration").pop();
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
            "the overlap ({overlap}) is shorter than --sync-block-duration ({sync}): blocks between two shards go missing until Thanos looks again"
        );
        report.fail(
            check,
            title,
            message,
            format!("set overlap to at least {}", sync + sync),
        );
    } else if overlap < sync + sync {
        let message = format!(
            "the overlap ({overlap}) leaves less than {sync} for loading, since Thanos looks for blocks every {sync} only"
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
            format!("shards overlap by {overlap}, Thanos looks for blocks every {sync}"),
        );
    }
}

/// Command and arguments of one container of the template.
fn words(object: &Value, index: usize) -> Vec<String> {
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
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}

fn annotations(title: &str, known: &Known, planned: bool, report: &mut Report) {
    const OTHERS: [&str; 5] = [
        names::INJECT,
        names::REPLACE_TIME_FLAGS,
        names::RELOAD_DESPITE_LIVENESS,
        names::TARGET_REPLICAS,
        names::PAUSE,
    ];
    let (check, before) = (&STATEFULSET_ANNOTATIONS, report.findings.len());
    // Without the configuration a key may only seem not to fit it.
    if let Some(problem) = known.problem.as_ref().filter(|_| planned) {
        report.fail(
            check,
            title,
            problem.clone(),
            "correct it: until then the last good sharding, or the file's, is in force",
        );
    }
    for (key, value) in &known.facts().annotations {
        if key == names::GUARD {
            if GuardMode::of(value).is_none() {
                report.warn(
                    check,
                    title,
                    format!("annotation {key}: {value:?} has no effect"),
                    "write \"deny\", \"warn\" or \"off\"",
                );
            }
        } else if sharding_key(key).is_none() && !OTHERS.contains(&key.as_str()) {
            report.warn(
                check,
                title,
                format!("annotation {key} is none that is read: it has no effect"),
                "see the table of keys in README.md",
            );
        } else if OTHERS.contains(&key.as_str())
            && key != names::TARGET_REPLICAS
            && !["true", "false"].contains(&value.as_str())
        {
            report.warn(
                check,
                title,
                format!("annotation {key}: {value:?} has no effect"),
                "write \"true\" or \"false\"",
            );
        } else if key == names::INJECT {
            let message = format!("annotation {key} has no effect on the StatefulSet itself");
            report.warn(
                check,
                title,
                message,
                "set it on the pod template, as label or annotation",
            );
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
                    "nothing is to be done if every pod writes the same file",
                );
            }
            Remark::MeshedPort { .. } => {
                ignored = true;
                report.warn(
                    &STATEFULSET_TEMPLATE,
                    title,
                    remark.to_string(),
                    "nothing is to be done if the mesh leaves the port alone",
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
