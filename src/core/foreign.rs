//! Objects that are no workloads yet and become some: what to do first, in one sentence.

use serde_json::Value;

/// What to do with an object so that there are StatefulSets to look at; `None` for objects that never become any.
#[must_use]
pub fn first_step(object: &Value) -> Option<&'static str> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, group) = (text("kind"), text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group));
    Some(match kind {
        "Template" => "a template of OpenShift is no workload yet; fill it in first: oc process --local -f FILE | timeshard inject -f -",
        "HelmRelease" | "HelmChart" => {
            "Helm makes the workloads of it; render the chart first: helm template NAME CHART -f VALUES | timeshard inject -f -"
        }
        "Kustomization" => "kustomize makes the workloads of it; build them first: kubectl kustomize DIR | timeshard inject -f -",
        "Application" | "ApplicationSet" if group == "argoproj.io" => {
            "Argo CD makes the workloads of it; take those: argocd app manifests NAME | timeshard inject -f -"
        }
        // Operators for Thanos, of several makers.
        _ if kind.starts_with("Thanos")
            || group.contains("thanos")
            || matches!(kind, "ObjectStore" | "StoreEndpoint" | "Observatorium" | "MultiClusterObservability") =>
        {
            "its operator makes the StatefulSets; take those from the cluster: kubectl get statefulsets -o yaml | timeshard inject -f -"
        }
        _ => return None,
    })
}

/// What to do first with a file that is given as configuration and holds something else, by its first keys.
#[must_use]
pub fn not_a_configuration<'a>(keys: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Option<String> {
    let keys: Vec<(&str, Option<&str>)> = keys.collect();
    let find = |name: &str| keys.iter().find(|(key, _)| *key == name);
    if let Some((_, kind)) = find("kind").filter(|_| find("apiVersion").is_some()) {
        return Some(match kind {
            Some("ConfigMap") => "this is a ConfigMap: write the configuration in it to a file of its own first: kubectl get configmap NAME -o jsonpath='{.data.config\\.yaml}' > FILE".to_owned(),
            Some(kind) => {
                let kind: String = kind.chars().take(64).collect();
                format!("this is a Kubernetes object ({kind}), which timeshard inject -f reads; a configuration has the blocks operator, sharding, injection and guard")
            }
            None => "this is a Kubernetes object; a configuration has the blocks operator, sharding, injection and guard".to_owned(),
        });
    }
    let of_the_chart = ["config", "image", "webhook", "replicas", "certManager", "networkPolicy", "monitoring", "resources", "tls"];
    let others = keys.iter().filter(|(key, _)| of_the_chart.contains(key)).count();
    let ours = ["operator", "sharding", "injection"].iter().any(|key| find(key).is_some());
    (others > 0 && !ours)
        .then(|| "these are values of a Helm chart: write what stands under the key config to a file of its own first".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_becomes_a_workload_is_told_with_the_step_before() {
        for (api, kind, words) in [
            ("template.openshift.io/v1", "Template", "oc process"),
            ("helm.toolkit.fluxcd.io/v2", "HelmRelease", "helm template"),
            ("helm.cattle.io/v1", "HelmChart", "helm template"),
            ("kustomize.toolkit.fluxcd.io/v1", "Kustomization", "kubectl kustomize"),
            ("argoproj.io/v1alpha1", "Application", "argocd app manifests"),
            ("monitoring.thanos.io/v1alpha1", "ThanosStore", "kubectl get statefulsets"),
            ("monitoring.banzaicloud.io/v1alpha1", "Thanos", "kubectl get statefulsets"),
            ("core.observatorium.io/v1alpha1", "Observatorium", "kubectl get statefulsets"),
        ] {
            assert!(first_step(&json!({"apiVersion": api, "kind": kind})).unwrap().contains(words), "{kind}");
        }
        for kind in ["Service", "ConfigMap", "Secret"] {
            assert_eq!(first_step(&json!({"apiVersion": "v1", "kind": kind})), None);
        }
    }
}
