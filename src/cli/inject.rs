//! `timeshard inject`: manifests in, pods as they would be after admission out, by the webhook's own code.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{ConfigArgs, Failure, input, print, say};
use crate::adapters::clock;
use crate::core::config::{MAX_PODS, unknown_annotation};
use crate::core::expand;
use crate::core::fleet::{Fleet, StatefulSetFacts};
use crate::core::foreign::first_step;
use crate::core::guard::{annotation_problems, summary};
use crate::core::mutation::Skip;
use crate::core::text::counted;
use crate::webhook::{Reviewer, Verdict};

/// Show pods as they would be after admission, without a cluster.
///
/// Reads any number of YAML or JSON documents. For each eligible StatefulSet its pods are printed; every other object is
/// named on standard error, with the reason why it is left alone. The namespace is taken to be labelled
/// thanos-timeshard.io/injection=enabled.
#[derive(Debug, clap::Args)]
#[command(after_help = super::NAMES_HELP)]
pub(super) struct Args {
    /// Manifests (at most 64 MiB); "-" reads standard input
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
    /// Namespace of objects that name none
    #[arg(long, value_name = "NS", default_value = "default")]
    namespace: String,
    /// Number of pods, instead of each StatefulSet's spec.replicas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PODS)))]
    replicas: Option<u32>,
    /// What to print; patch is one {"pod","patch"} per line (RFC 6902)
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Pods as YAML documents
    Yaml,
    /// Pods as one JSON List
    Json,
    /// Operations only
    Patch,
}

/// A pod and what admission does to it.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) name: String,
    pub(super) patch: Vec<Value>,
    pub(super) pod: Value,
    pub(super) warnings: Vec<String>,
    /// Why it is left alone, if it is.
    pub(super) skipped: Option<String>,
    pub(super) already_injected: bool,
}

/// A pod to be admitted, and the object that it comes from.
struct Wanted {
    title: String,
    namespace: String,
    pod: Value,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (fleet, wanted) = load(args)?;
    let fleet = Arc::new(ArcSwap::from_pointee(fleet));
    let reviewer = Reviewer::new(fleet.clone(), clock::now);
    let mut admitted = Vec::new();
    let (mut told, mut warned) = (None, Vec::new());
    for Wanted {
        title,
        namespace,
        pod,
    } in wanted
    {
        let answer = admit(&reviewer, &namespace, pod)?;
        // All pods of one StatefulSet are warned about the same.
        let subject = if title.starts_with("StatefulSet/") {
            title.clone()
        } else {
            answer.name.clone()
        };
        for warning in &answer.warnings {
            match warned
                .iter_mut()
                .find(|(known, text, _)| *known == subject && text == warning)
            {
                Some((_, _, pods)) => *pods += 1,
                None => warned.push((subject.clone(), warning.clone(), 1_u32)),
            }
        }
        match &answer.skipped {
            // All pods of one StatefulSet are left alone for the same reason.
            Some(reason) if told.as_ref() != Some(&(title.clone(), reason.clone())) => {
                say(&format!("skipped {title}: {reason}"));
                told = Some((title, reason.clone()));
            }
            _ => {}
        }
        if answer.skipped.is_none() || answer.already_injected {
            admitted.push(answer);
        }
    }
    for (subject, warning, pods) in warned {
        let of = if pods > 1 {
            format!(" ({})", counted(pods, "pod"))
        } else {
            String::new()
        };
        say(&format!("warning: {subject}: {warning}{of}"));
    }
    for known in fleet.load().statefulsets() {
        let prefix = format!("{}-", known.facts().name);
        if admitted.iter().any(|pod| pod.name.starts_with(&prefix)) {
            let title = format!("StatefulSet/{}", known.facts().name);
            for sentence in annotation_problems(known)
                .into_iter()
                .chain(known.plan.notes().iter().map(ToString::to_string))
            {
                say(&format!("warning: {title}: {sentence}"));
            }
            say(&format!("{title}: {}", summary(known, clock::now())));
        }
    }
    print(&rendered(&admitted, args.output)?)
}

/// Whether the API server's own StatefulSet controller makes this object's pods. An absent version is taken for apps/v1.
fn is_apps(object: &Value) -> bool {
    object
        .get("apiVersion")
        .and_then(Value::as_str)
        .is_none_or(|version| version.starts_with("apps/"))
}

/// Reads the manifests: what the server would know of them, and the pods that would be made. Other objects are named.
fn load(args: &Args) -> Result<(Fleet, Vec<Wanted>), Failure> {
    let mut fleet = Fleet::new(Arc::new(input::config(&args.config)?));
    let mut wanted = Vec::new();
    for object in input::objects(&args.filename)? {
        let (title, namespace) = (
            expand::title(&object),
            expand::namespace(&object, &args.namespace),
        );
        match object.get("kind").and_then(Value::as_str) {
            Some("StatefulSet") if !is_apps(&object) => {
                say(&format!(
                    "skipped {title}: it is not a StatefulSet of apps/v1"
                ));
            }
            Some("StatefulSet") => {
                let facts = expand::facts(&object, &namespace, args.replicas);
                let refuse = |why: String| {
                    Failure::Invalid(format!("{}: {title}: {why}", input::name(&args.filename)))
                };
                check_facts(&object, &facts).map_err(refuse)?;
                if facts.replicas == 0 {
                    say(&format!("skipped {title}: it has no replicas"));
                }
                for said in facts
                    .annotations
                    .keys()
                    .filter_map(|key| unknown_annotation(key))
                {
                    say(&format!("warning: {title}: {said}"));
                }
                fleet = fleet.with_statefulset(facts.clone()).unwrap_or(fleet);
                if let Some(problem) = &fleet.known(&facts.namespace, &facts.name).problem {
                    return Err(refuse(problem.clone()));
                }
                let pods = expand::pods(&object, &facts).into_iter();
                wanted.extend(pods.map(|pod| Wanted {
                    title: title.clone(),
                    namespace: namespace.clone(),
                    pod,
                }));
            }
            Some("Pod") => wanted.push(Wanted {
                title,
                namespace,
                pod: object,
            }),
            Some(
                "Deployment"
                | "DaemonSet"
                | "Job"
                | "CronJob"
                | "ReplicaSet"
                | "ReplicationController",
            ) => {
                say(&format!(
                    "skipped {title}: its pods are not owned by a StatefulSet"
                ));
            }
            _ => say(&format!(
                "skipped {title}: {}",
                first_step(&object).unwrap_or("not a workload")
            )),
        }
    }
    Ok((fleet, wanted))
}

/// Checks that pods can be made of a StatefulSet; the error says what is wrong with it.
fn check_facts(object: &Value, facts: &StatefulSetFacts) -> Result<(), String> {
    if let Some((key, value)) = expand::unusable_number(object) {
        return Err(format!(
            "{key} is {value}: write a whole number from 0 to 2147483647"
        ));
    }
    if facts.name.is_empty() {
        return Err("metadata.name is missing".to_owned());
    }
    if facts.replicas > MAX_PODS {
        return Err(format!(
            "spec.replicas is {}, more than the {MAX_PODS} that are planned",
            facts.replicas
        ));
    }
    Ok(())
}

/// Has one pod admitted by the webhook's code and applies the patch that comes back.
pub(super) fn admit(reviewer: &Reviewer, namespace: &str, pod: Value) -> Result<Admitted, Failure> {
    let review = expand::review(&pod, namespace, "offline").to_string();
    let answer = reviewer.review(review.as_bytes());
    let name = pod
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let body = answer
        .body
        .map_err(|why| Failure::Failed(format!("{name}: {why}")))?;
    let document: Value = serde_json::from_slice(&body)
        .map_err(|error| Failure::Failed(format!("{name}: {error}")))?;
    let mut admitted = apply(pod, &document)?;
    if let Verdict::Skipped(reason) = answer.verdict {
        admitted.already_injected = reason == Skip::AlreadyInjected;
        admitted.skipped = Some(reason.to_string());
    }
    Ok(admitted)
}

/// Applies the patch of a review's answer, as the API server does.
pub(super) fn apply(mut pod: Value, answer: &Value) -> Result<Admitted, Failure> {
    let name = pod
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if answer.pointer("/response/allowed") != Some(&json!(true)) {
        let message = answer
            .pointer("/response/status/message")
            .and_then(Value::as_str)
            .unwrap_or("denied");
        return Err(Failure::Invalid(format!("{name}: {message}")));
    }
    let failed = |why: String| Failure::Failed(format!("{name}: the patch does not apply: {why}"));
    let patch: Vec<Value> = match answer.pointer("/response/patch").and_then(Value::as_str) {
        None => Vec::new(),
        Some(text) => {
            let bytes = STANDARD
                .decode(text)
                .map_err(|error| failed(error.to_string()))?;
            serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?
        }
    };
    let operations: json_patch::Patch = serde_json::from_value(Value::Array(patch.clone()))
        .map_err(|error| failed(error.to_string()))?;
    json_patch::patch(&mut pod, &operations).map_err(|error| failed(error.to_string()))?;
    let warnings = answer
        .pointer("/response/warnings")
        .and_then(Value::as_array);
    let warnings = warnings
        .into_iter()
        .flatten()
        .filter_map(|text| Some(text.as_str()?.to_owned()))
        .collect();
    Ok(Admitted {
        name,
        patch,
        pod,
        warnings,
        skipped: None,
        already_injected: false,
    })
}

fn rendered(admitted: &[Admitted], output: Output) -> Result<String, Failure> {
    let failed = |error: serde_json::Error| Failure::Failed(error.to_string());
    match output {
        Output::Patch => admitted.iter().try_fold(String::new(), |text, pod| {
            let line = serde_json::to_string(&json!({"pod": pod.name, "patch": pod.patch}))
                .map_err(failed)?;
            Ok(text + &line + "\n")
        }),
        Output::Json => {
            let items: Vec<&Value> = admitted.iter().map(|pod| &pod.pod).collect();
            Ok(serde_json::to_string_pretty(
                &json!({"apiVersion": "v1", "kind": "List", "items": items}),
            )
            .map_err(failed)?
                + "\n")
        }
        Output::Yaml => admitted.iter().try_fold(String::new(), |text, pod| {
            Ok(text + "---\n" + &yaml(&pod.pod)?)
        }),
    }
}

/// YAML that readers of YAML 1.1 (kubectl) and 1.2 read alike.
pub(super) fn yaml(value: &Value) -> Result<String, Failure> {
    // Long lines stay lines: people copy flags out of them. A text that begins with a tab cannot be a block for every
    // reader, so then all texts are quoted.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: 1_000_000, prefer_block_scalars: !begins_with_tab(value) };
    serde_saphyr::to_string_with_options(value, options)
        .map_err(|error| Failure::Failed(error.to_string()))
}

fn begins_with_tab(value: &Value) -> bool {
    match value {
        Value::String(text) => {
            text.contains('\n') && text.trim_start_matches(['\n', '\r']).starts_with('\t')
        }
        Value::Array(items) => items.iter().any(begins_with_tab),
        Value::Object(map) => map.values().any(begins_with_tab),
        _ => false,
    }
}
