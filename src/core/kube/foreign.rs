//! Objects that other tools turn into workloads, and files that are no configuration: the step that
//! comes first.

use serde_json::Value;
use serde_saphyr::Spanned;

use crate::core::model::names::{CONFIG_BLOCKS, MAX_SUBDOMAIN_CHARS, is_name};
use crate::core::model::text::{counted, listed, truncate};
use crate::core::model::yaml::{Keys, Node, NodeKind, read};

/// Returns the step that turns an object into StatefulSets; `None` for objects that never become any.
#[must_use]
pub fn first_step(object: &Value) -> Option<&'static str> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, group) = (
        text("kind"),
        text("apiVersion")
            .rsplit_once('/')
            .map_or("", |(group, _)| group),
    );
    Some(match (group, kind) {
        ("template.openshift.io" | "", "Template") => {
            "an OpenShift Template is not a workload; process it first: oc process --local -f FILE | timeshard inject -f -"
        }
        ("helm.toolkit.fluxcd.io" | "helm.fluxcd.io", "HelmRelease")
        | ("helm.cattle.io", "HelmChart" | "HelmChartConfig") => {
            "Helm renders the workloads; render the chart first: helm template NAME CHART -f VALUES | timeshard inject -f -"
        }
        (
            "kustomize.config.k8s.io" | "kustomize.toolkit.fluxcd.io",
            "Kustomization" | "Component",
        ) => {
            "kustomize builds the workloads; build them first: kubectl kustomize DIR | timeshard inject -f -"
        }
        ("argoproj.io", "Application" | "ApplicationSet") => {
            "Argo CD renders the workloads; use those: argocd app manifests NAME | timeshard inject -f -"
        }
        ("tanka.dev", "Environment") => {
            "Tanka renders the workloads; render them first: tk show ENVIRONMENT | timeshard inject -f -"
        }
        // thanos-community's operator, Red Hat's, and Observatorium's: their store gateways are
        // StatefulSets.
        ("monitoring.thanos.io", "ThanosStore")
        | ("core.observatorium.io", "Observatorium")
        | ("observability.open-cluster-management.io", "MultiClusterObservability") => {
            "its operator creates the StatefulSets; use those of the cluster: kubectl get statefulsets -o yaml | timeshard inject -f -"
        }
        // Banzai Cloud's operator.
        (
            "monitoring.banzaicloud.io",
            "Thanos" | "ObjectStore" | "StoreEndpoint" | "ThanosEndpoint" | "ThanosPeer",
        ) => {
            "its operator runs store gateways as a Deployment, whose pods have no ordinals to shard by; run them in your own StatefulSet"
        }
        _ => return None,
    })
}

/// Kinds that a message lists.
const MAX_KINDS: usize = 8;

/// An object in a file of manifests.
struct ManifestObject<'a> {
    kind: &'a str,
    keys: &'a Keys,
    /// Whether it is an item of a List.
    listed: bool,
}

/// Returns the step for a file of Kubernetes objects that is given as configuration; `None` if it
/// holds none. `source` is its name.
#[must_use]
pub fn manifest(documents: &[Node], source: &str) -> Option<String> {
    let mut objects = Vec::new();
    for document in documents {
        collect(document, false, &mut objects);
    }
    let mut kinds: Vec<String> = Vec::new();
    for object in &objects {
        let kind = truncate(object.kind, 64).into_owned();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if objects.is_empty() {
        return None;
    }
    let what = format!(
        "this is a Kubernetes manifest with {} ({})",
        counted(objects.len() as u64, "object"),
        listed(&kinds, MAX_KINDS)
    );
    let step = objects.iter().find_map(|object| object.step(source));
    Some(match step {
        Some(step) => format!("{what}; {step}"),
        None => format!(
            "{what}, which timeshard inject -f reads; a configuration has the blocks operator, sharding, injection, guard and queriers"
        ),
    })
}

fn collect<'a>(document: &'a Node, listed: bool, objects: &mut Vec<ManifestObject<'a>>) {
    let NodeKind::Map(keys) = &document.value else {
        return;
    };
    let (Some(kind), Some(_)) = (text(keys, "kind"), text(keys, "apiVersion")) else {
        return;
    };
    match value(keys, "items") {
        Some(NodeKind::List(items)) if kind.ends_with("List") => {
            for item in items {
                collect(item, true, objects);
            }
        }
        _ => objects.push(ManifestObject { kind, keys, listed }),
    }
}

impl ManifestObject<'_> {
    /// The command that writes the configuration in a ConfigMap to a file of its own.
    fn step(&self, source: &str) -> Option<String> {
        let Some(NodeKind::Map(data)) = value(self.keys, "data") else {
            return None;
        };
        // Only a ConfigMap's own characters become part of a command.
        let is_plain = |key: &str| {
            key.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        let holds = |(key, node): &&(Spanned<String>, Node)| {
            is_plain(&key.value)
                && matches!(&node.value, NodeKind::Text(text) if is_configuration(text))
        };
        let (key, _) = data
            .iter()
            .filter(|_| self.kind == "ConfigMap")
            .find(holds)?;
        let name = match value(self.keys, "metadata") {
            Some(NodeKind::Map(metadata)) => text(metadata, "name"),
            _ => None,
        };
        let name = name.filter(|name| is_name(name, MAX_SUBDOMAIN_CHARS));
        let items = if self.listed { ".items[] | " } else { "" };
        let and_name = name.map_or_else(String::new, |name| {
            format!(" and .metadata.name == \"{name}\"")
        });
        let file = if source == "standard input" {
            "FILE"
        } else {
            source
        };
        Some(format!(
            "its ConfigMap {}has a configuration in the key {key}; write that to a file of its own: yq -r '{items}select(.kind == \"ConfigMap\"{and_name}) | .data[\"{key}\"]' {file} > timeshard-config.yaml",
            name.map_or_else(String::new, |name| format!("{name} ")),
            key = key.value
        ))
    }
}

/// Whether a text has a block of the configuration.
fn is_configuration(text: &str) -> bool {
    let is_block = |(key, _): &(Spanned<String>, Node)| CONFIG_BLOCKS.contains(&key.value.as_str());
    matches!(read(text).map(|node| node.value), Ok(NodeKind::Map(keys)) if keys.iter().any(is_block))
}

fn value<'a>(keys: &'a Keys, name: &str) -> Option<&'a NodeKind> {
    let (_, node) = keys.iter().find(|(key, _)| key.value == name)?;
    Some(&node.value)
}

fn text<'a>(keys: &'a Keys, name: &str) -> Option<&'a str> {
    match value(keys, name)? {
        NodeKind::Text(text) => Some(text),
        _ => None,
    }
}

/// Returns the step for values of a Helm chart that are given as configuration.
#[must_use]
pub fn chart_values(keys: &Keys) -> Option<&'static str> {
    let of_the_chart = [
        "config",
        "image",
        "webhook",
        "replicas",
        "certManager",
        "networkPolicy",
        "monitoring",
        "resources",
        "tls",
    ];
    let has = |names: &[&str]| names.iter().any(|name| value(keys, name).is_some());
    (has(&of_the_chart) && !has(&["operator", "sharding", "injection"])).then_some(
        "these are values of a Helm chart: write the content of the key config to a file first",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::model::yaml::read_documents;

    #[test]
    fn a_manifest_is_recognised_by_its_objects() {
        let step = |text: &str| manifest(&read_documents(text), "all.yaml");
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret}\n\
            - {apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a.yaml: 'sharding: {}'}}\n";
        let step_of_list = step(list).unwrap();
        for words in [
            "2 objects (Secret, ConfigMap)",
            "yq -r '.items[] | select(.kind == \"ConfigMap\" and .metadata.name == \"c\") | .data[\"a.yaml\"]' all.yaml > ",
        ] {
            assert!(step_of_list.contains(words), "{step_of_list}");
        }
        // No command is made of a name or a key that Kubernetes refuses.
        for data in [
            "metadata: {name: c}\ndata: {\"a';b\": 'sharding: {}'}",
            "metadata: {name: c}\ndata: {a: 'other: {}'}",
            "metadata: {name: c}",
        ] {
            let text = format!("apiVersion: v1\nkind: ConfigMap\n{data}\n");
            let step = step(&text).unwrap();
            assert!(step.contains("1 object (ConfigMap), which"), "{step}");
        }
        let unnamed =
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"c'\"}\ndata: {a: 'guard: {}'}";
        let step_of_unnamed = step(unnamed).unwrap();
        assert!(
            step_of_unnamed.contains("select(.kind == \"ConfigMap\") |"),
            "{step_of_unnamed}"
        );
        for text in ["sharding: {}\n---\nsharding: {}", "kind: x", "[1]", ""] {
            assert_eq!(step(text), None, "{text}");
        }
    }

    #[test]
    fn an_object_that_becomes_a_workload_gets_the_step_that_comes_first() {
        for (api, kind, remedy) in [
            ("template.openshift.io/v1", "Template", "oc process"),
            ("helm.toolkit.fluxcd.io/v2", "HelmRelease", "helm template"),
            ("helm.cattle.io/v1", "HelmChart", "helm template"),
            (
                "kustomize.toolkit.fluxcd.io/v1",
                "Kustomization",
                "kubectl kustomize",
            ),
            (
                "argoproj.io/v1alpha1",
                "Application",
                "argocd app manifests",
            ),
            (
                "monitoring.thanos.io/v1alpha1",
                "ThanosStore",
                "kubectl get statefulsets",
            ),
            (
                "monitoring.banzaicloud.io/v1alpha1",
                "Thanos",
                "as a Deployment",
            ),
            (
                "monitoring.banzaicloud.io/v1alpha1",
                "ObjectStore",
                "as a Deployment",
            ),
            (
                "core.observatorium.io/v1alpha1",
                "Observatorium",
                "kubectl get statefulsets",
            ),
            (
                "observability.open-cluster-management.io/v1beta2",
                "MultiClusterObservability",
                "kubectl get statefulsets",
            ),
            ("v1", "Template", "oc process"),
            ("helm.fluxcd.io/v1", "HelmRelease", "helm template"),
            (
                "kustomize.config.k8s.io/v1beta1",
                "Kustomization",
                "kubectl kustomize",
            ),
            ("tanka.dev/v1alpha1", "Environment", "tk show"),
        ] {
            assert!(
                first_step(&json!({"apiVersion": api, "kind": kind}))
                    .unwrap()
                    .contains(remedy),
                "{kind}"
            );
        }
        for (api, kind) in [
            ("v1", "Service"),
            ("v1", "ConfigMap"),
            // The same kind by another vendor: these never become a store gateway.
            ("monitoring.coreos.com/v1", "ThanosRuler"),
            ("monitoring.thanos.io/v1alpha1", "ThanosQuery"),
            ("barmancloud.cnpg.io/v1", "ObjectStore"),
            ("app.k8s.io/v1beta1", "Application"),
            ("source.toolkit.fluxcd.io/v1", "HelmChart"),
        ] {
            assert_eq!(
                first_step(&json!({"apiVersion": api, "kind": kind})),
                None,
                "{api} {kind}"
            );
        }
    }
}
