//! Reads manifests into the gateways that a server would know and the pods to admit.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::Args;
use crate::cli::manifests::{self, Manifest};
use crate::cli::{Failure, input, say};
use crate::core::config::MAX_PODS;
use crate::core::gateways::Gateways;
use crate::core::kube::foreign::first_step;
use crate::core::kube::pod_template;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::names;

/// A pod to admit, and the object that it comes from.
pub(super) struct PodToAdmit {
    /// The object's kind and name.
    pub(super) title: String,
    /// The object in lines about what is skipped: with its file if there are several.
    pub(super) skipped_as: String,
    pub(super) namespace: String,
    pub(super) pod: Value,
}

/// What manifests hold.
pub(super) struct Loaded {
    pub(super) gateways: Gateways,
    pub(super) pods: Vec<PodToAdmit>,
}

/// Reads the configuration and the manifests. Reports objects without pods to admit as skipped.
pub(super) fn load(args: &Args) -> Result<Loaded, Failure> {
    let mut loaded = Loaded {
        gateways: Gateways::new(Arc::new(input::config(&args.config)?)),
        pods: Vec::new(),
    };
    let manifests = manifests::read(&args.filename, args.recursive)?;
    let several = args.filename.len() > 1 || args.filename.iter().any(|path| path.is_dir());
    let last = last_of_each(&manifests, &args.namespace);
    for (i, manifest) in manifests.iter().enumerate() {
        let title = pod_template::title(&manifest.object);
        let skipped_as = if several {
            format!("{}: {title}", manifest.place())
        } else {
            title.clone()
        };
        let again = Identity::of(&manifest.object, &args.namespace)
            .and_then(|identity| last.get(&identity))
            .filter(|last| **last != i);
        let added = match again {
            Some(last) => Err(format!(
                "{} has the same kind, namespace and name, and the last one applies",
                manifests[*last].place()
            )),
            None => loaded.add(args, manifest, &title, &skipped_as)?,
        };
        if let Err(reason) = added {
            say(&format!("skipped {skipped_as}: {reason}"));
        }
    }
    Ok(loaded)
}

/// What a cluster holds one object of.
#[derive(PartialEq, Eq, Hash)]
struct Identity {
    group: String,
    kind: String,
    namespace: String,
    name: String,
}

impl Identity {
    /// `None` for an object without a name, which the API server names.
    fn of(object: &Value, namespace: &str) -> Option<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let version = text("/apiVersion").unwrap_or_default();
        Some(Self {
            group: version
                .rsplit_once('/')
                .map_or("", |(group, _)| group)
                .to_owned(),
            kind: text("/kind")?.to_owned(),
            namespace: pod_template::namespace(object, namespace),
            name: text("/metadata/name")?.to_owned(),
        })
    }
}

/// Returns the index of the last manifest of each object.
fn last_of_each(manifests: &[Manifest], namespace: &str) -> HashMap<Identity, usize> {
    let identities = manifests.iter().enumerate();
    identities
        .filter_map(|(i, manifest)| Some((Identity::of(&manifest.object, namespace)?, i)))
        .collect()
}

impl Loaded {
    /// Adds an object's pods. Returns why it has none to admit.
    fn add(
        &mut self,
        args: &Args,
        manifest: &Manifest,
        title: &str,
        skipped_as: &str,
    ) -> Result<Result<(), String>, Failure> {
        let object = &manifest.object;
        let namespace = pod_template::namespace(object, &args.namespace);
        let refuse =
            |why: String| Failure::Invalid(format!("{}: {title}: {why}", manifest.place()));
        let pods = match object.get("kind").and_then(Value::as_str) {
            Some("StatefulSet") if !is_apps(object) => {
                return Ok(Err("it is not a StatefulSet of apps/v1".to_owned()));
            }
            Some("StatefulSet") => {
                check_namespace(&namespace).map_err(refuse)?;
                let facts = pod_template::facts(object, &namespace, args.replicas);
                check_facts(object, &facts).map_err(refuse)?;
                self.know(&facts).map_err(refuse)?;
                if facts.replicas == 0 {
                    return Ok(Err("it has no replicas".to_owned()));
                }
                pod_template::pods(object, &facts)
            }
            Some("Pod") => {
                check_namespace(&namespace).map_err(refuse)?;
                vec![object.clone()]
            }
            Some(
                "Deployment"
                | "DaemonSet"
                | "Job"
                | "CronJob"
                | "ReplicaSet"
                | "ReplicationController",
            ) => return Ok(Err("its pods are not owned by a StatefulSet".to_owned())),
            _ => {
                let reason = first_step(object).unwrap_or("not a workload");
                return Ok(Err(reason.to_owned()));
            }
        };
        self.pods.extend(pods.into_iter().map(|pod| PodToAdmit {
            title: title.to_owned(),
            skipped_as: skipped_as.to_owned(),
            namespace: namespace.clone(),
            pod,
        }));
        Ok(Ok(()))
    }

    /// Adds a gateway; the error is what is wrong with its annotations.
    fn know(&mut self, facts: &StatefulSetFacts) -> Result<(), String> {
        if let Some(gateways) = self.gateways.with_statefulset(facts.clone()) {
            self.gateways = gateways;
        }
        let gateway = self.gateways.known(&facts.namespace, &facts.name);
        gateway.problem.clone().map_or(Ok(()), Err)
    }
}

/// Whether Kubernetes' StatefulSet controller makes the pods. A missing version counts as apps/v1.
fn is_apps(object: &Value) -> bool {
    object
        .get("apiVersion")
        .and_then(Value::as_str)
        .is_none_or(|version| version.starts_with("apps/"))
}

/// Checks that a namespace can exist; the error is a sentence.
fn check_namespace(namespace: &str) -> Result<(), String> {
    if names::is_name(namespace, names::MAX_LABEL_CHARS) {
        return Ok(());
    }
    Err(format!(
        "metadata.namespace is {namespace:?}, which no namespace can be called: write at most {} of a-z, 0-9 and -, with no - at the ends",
        names::MAX_LABEL_CHARS
    ))
}

/// Checks that a StatefulSet can have pods; the error is a sentence.
fn check_facts(object: &Value, facts: &StatefulSetFacts) -> Result<(), String> {
    if let Some((key, value)) = pod_template::unusable_number(object) {
        return Err(format!(
            "{key} is {value}: write a whole number from 0 to 2147483647"
        ));
    }
    if facts.name.is_empty() {
        return Err("metadata.name is missing".to_owned());
    }
    if facts.replicas > MAX_PODS {
        return Err(format!(
            "spec.replicas is {}, more than the maximum of {MAX_PODS}",
            facts.replicas
        ));
    }
    Ok(())
}
