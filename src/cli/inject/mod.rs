//! `timeshard inject`: reads manifests and prints the pods as admission would make them, by the
//! webhook's own code.

mod load;
mod preview;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use self::load::{Loaded, PodToAdmit, load};
use super::cluster::parse_name;
use super::{ConfigArgs, Failure, print, say};
use crate::adapters::clock;
use crate::core::admission::Skip;
use crate::core::admission::guard::{annotation_problems, summary};
use crate::core::kube::pod_template;
use crate::core::model::names;
use crate::core::model::text::counted;
use crate::webhook::{ReviewVerdict, Reviewer};

/// Show what admission changes in the pods of manifests, without a cluster
///
/// Reads any number of YAML or JSON documents. Prints what admission changes in the pods of each
/// eligible StatefulSet, or with -o yaml, json or patch the pods or patches themselves: nothing of
/// it is to be applied, since the server changes pods as they are created. Lists every other object
/// on standard error, with the reason why it is skipped. Every namespace counts as labelled
/// thanos-timeshard.io/injection=enabled.
#[derive(Debug, clap::Args)]
#[command(after_help = super::with_names("\
Examples:
  timeshard inject -f store.yaml
  timeshard inject -f manifests/ -R --config config.yaml
  kubectl get statefulsets -n monitoring -o yaml | timeshard inject -f -
  timeshard inject -f store.yaml -o patch | jq .patch"))]
pub(super) struct Args {
    /// Manifests (at most 64 MiB): a file, a folder (.yaml, .yml, .json), or "-" for standard input;
    /// may be repeated
    #[arg(short, long, value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Also read the folders in the folders of -f
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    config: ConfigArgs,
    /// Namespace of objects without one
    #[arg(short, long, value_name = "NS", default_value = "default", value_parser = parse_name)]
    namespace: String,
    /// Number of pods, instead of each StatefulSet's spec.replicas
    #[arg(long, value_name = "N", value_parser = super::parse_pods)]
    replicas: Option<u32>,
    /// What to print; patch is one {"pod","patch"} per line (RFC 6902)
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A preview: the pods with their windows, and the changes in the first of each StatefulSet
    #[value(alias = "preview")]
    Table,
    /// A preview with the changes in every pod
    Wide,
    /// Pods as YAML documents
    Yaml,
    /// Pods as one JSON List
    Json,
    /// Operations only
    Patch,
}

/// A pod after admission.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) name: String,
    /// The pod before admission.
    pub(super) original: Value,
    pub(super) patch: Vec<Value>,
    pub(super) pod: Value,
    pub(super) warnings: Vec<String>,
    /// The reason, if admission skipped the pod.
    pub(super) skipped: Option<String>,
    pub(super) already_injected: bool,
}

impl Admitted {
    /// A value of the pod's status annotation as text; "-" if there is none.
    pub(super) fn status_text(&self, key: &str) -> String {
        let annotations = self.pod.pointer("/metadata/annotations");
        let status: Option<Value> = annotations
            .and_then(|annotations| annotations.get(names::STATUS_ANNOTATION)?.as_str())
            .and_then(|text| serde_json::from_str(text).ok());
        match status.as_ref().and_then(|status| status.get(key)) {
            None | Some(Value::Null) => "-".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Loaded { gateways, pods } = load(args)?;
    if args.config.config.is_none() {
        say("no --config: using the built-in defaults");
    }
    let gateways = Arc::new(ArcSwap::from_pointee(gateways));
    let reviewer = Reviewer::new(gateways.clone(), clock::now);
    let mut admitted = Vec::new();
    let (mut reported, mut warned) = (None, Vec::new());
    for PodToAdmit {
        title,
        skipped_as,
        namespace,
        pod,
    } in pods
    {
        let answer = admit(&reviewer, &namespace, pod)?;
        // All pods of a StatefulSet have the same warnings.
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
            // All pods of a StatefulSet are skipped for the same reason.
            Some(reason) if reported.as_ref() != Some(&(skipped_as.clone(), reason.clone())) => {
                say(&format!("skipped {skipped_as}: {reason}"));
                reported = Some((skipped_as, reason.clone()));
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
    for gateway in gateways.load().statefulsets() {
        let prefix = format!("{}-", gateway.facts().name);
        let title = format!("StatefulSet/{}", gateway.facts().name);
        for sentence in annotation_problems(gateway) {
            say(&format!("warning: {title}: {sentence}"));
        }
        if admitted.iter().any(|pod| pod.name.starts_with(&prefix)) {
            for sentence in gateway.plan.notes().iter().map(ToString::to_string) {
                say(&format!("warning: {title}: {sentence}"));
            }
            say(&format!("{title}: {}", summary(gateway, clock::now())));
        }
    }
    print(&rendered(&admitted, args.output)?)
}

/// Has the webhook's code admit a pod, and applies its patch.
pub(super) fn admit(reviewer: &Reviewer, namespace: &str, pod: Value) -> Result<Admitted, Failure> {
    let review = pod_template::review(&pod, namespace, "offline").to_string();
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
    if let ReviewVerdict::Skipped(reason) = answer.verdict {
        admitted.already_injected = reason == Skip::AlreadyInjected;
        admitted.skipped = Some(reason.to_string());
    }
    Ok(admitted)
}

/// Applies the patch in a review's response, as the API server does.
pub(super) fn apply(original: Value, answer: &Value) -> Result<Admitted, Failure> {
    let mut pod = original.clone();
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
        original,
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
        Output::Table => preview::text(admitted, false),
        Output::Wide => preview::text(admitted, true),
    }
}

/// Writes YAML that means the same in YAML 1.1 (kubectl) and 1.2.
pub(super) fn yaml(value: &Value) -> Result<String, Failure> {
    // Long lines are not folded: users copy flags from them. Not every parser accepts a block that
    // begins with a tab, so then all texts are quoted.
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
