//! Objects that are no workloads yet and become some: what to do first, in one sentence.

use serde_json::Value;

/// What to do with an object so that there are StatefulSets to look at; `None` for objects that never become any.
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
            "an OpenShift Template is no workload yet; fill it in first: oc process --local -f FILE | timeshard inject -f -"
        }
        ("helm.toolkit.fluxcd.io" | "helm.fluxcd.io", "HelmRelease")
        | ("helm.cattle.io", "HelmChart" | "HelmChartConfig") => {
            "Helm makes the workloads of it; render the chart first: helm template NAME CHART -f VALUES | timeshard inject -f -"
        }
        (
            "kustomize.config.k8s.io" | "kustomize.toolkit.fluxcd.io",
            "Kustomization" | "Component",
        ) => {
            "kustomize makes the workloads of it; build them first: kubectl kustomize DIR | timeshard inject -f -"
        }
        ("argoproj.io", "Application" | "ApplicationSet") => {
            "Argo CD makes the workloads of it; take those: argocd app manifests NAME | timeshard inject -f -"
        }
        ("tanka.dev", "Environment") => {
            "Tanka makes the workloads of it; render them first: tk show ENVIRONMENT | timeshard inject -f -"
        }
        // thanos-community's operator, Red Hat's, and Observatorium's: their store gateways are StatefulSets.
        ("monitoring.thanos.io", "ThanosStore")
        | ("core.observatorium.io", "Observatorium")
        | ("observability.open-cluster-management.io", "MultiClusterObservability") => {
            "its operator makes the StatefulSets; take those from the cluster: kubectl get statefulsets -o yaml | timeshard inject -f -"
        }
        // Banzai Cloud's operator.
        (
            "monitoring.banzaicloud.io",
            "Thanos" | "ObjectStore" | "StoreEndpoint" | "ThanosEndpoint" | "ThanosPeer",
        ) => {
            "its operator runs store gateways as a Deployment, whose pods have no ordinals to shard by; run them as a StatefulSet of your own"
        }
        _ => return None,
    })
}

/// What to do first with a file that is given as configuration and holds something else, by its first keys.
#[must_use]
pub fn not_a_configuration<'a>(
    keys: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Option<String> {
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
    let others = keys
        .iter()
        .filter(|(key, _)| of_the_chart.contains(key))
        .count();
    let ours = ["operator", "sharding", "injection"]
        .iter()
        .any(|key| find(key).is_some());
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
                    .contains(words),
                "{kind}"
            );
        }
        for (api, kind) in [
            ("v1", "Service"),
            ("v1", "ConfigMap"),
            // Of the same name, or by another maker: nothing of these becomes a store gateway.
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
