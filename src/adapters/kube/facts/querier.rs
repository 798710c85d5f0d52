//! Facts of a pod that runs `thanos query`.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::pod::address;
use super::store_args::view;
use crate::core::kube::observed::QuerierFacts;
use crate::core::thanos::query::{is_querier, read_arguments};

/// Facts of a querier; `None` unless a container runs `thanos query`.
#[must_use]
pub fn querier(pod: &Pod) -> Option<QuerierFacts> {
    Some(identified(pod, arguments(pod)?))
}

/// Facts of a pod that the user says is a querier. Its arguments are used if they are thanos'.
#[must_use]
pub fn configured_querier(pod: &Pod) -> QuerierFacts {
    let read = arguments(pod).unwrap_or_else(|| read_arguments(&[]));
    identified(pod, read)
}

fn identified(pod: &Pod, read: QuerierFacts) -> QuerierFacts {
    QuerierFacts {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        ip: address(pod),
        ..read
    }
}

fn arguments(pod: &Pod) -> Option<QuerierFacts> {
    let containers = &pod.spec.as_ref()?.containers;
    let container = containers.iter().find(|one| is_querier(&view(one)))?;
    let all = [&container.command, &container.args];
    let args = all.into_iter().flatten().flatten();
    let args: Vec<&str> = args.map(String::as_str).collect();
    Some(read_arguments(&args))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::adapters::kube::partial::Partial;

    fn pod(containers: &Value, phase: &str) -> Pod {
        let object = json!({
            "metadata": {"name": "query-7f-x", "uid": "q1", "labels": {"app": "query"},
                         "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "query-7f", "uid": "r"}]},
            "spec": {"containers": containers},
            "status": {"phase": phase, "podIP": "10.0.0.7"},
        });
        serde_json::from_value::<Partial<Pod>>(object).unwrap().0
    }

    #[test]
    fn a_querier_is_recognised_among_the_containers_of_any_pod() {
        let image = "quay.io/thanos/thanos:v0.42.4";
        let proxy = json!({"name": "proxy", "image": "nginx", "args": ["query"]});
        let query = json!({"name": "query", "image": image, "args":
            ["query", "--http-address=:9090", "--web.route-prefix=/q", "--endpoint=dnssrv+_grpc._tcp.store.ns.svc"]});
        let found = querier(&pod(&json!([proxy, query]), "Running")).unwrap();
        let expected = QuerierFacts {
            name: "query-7f-x".to_owned(),
            uid: "q1".to_owned(),
            ip: Some("10.0.0.7".to_owned()),
            port: Some(9090),
            prefix: Some("/q".to_owned()),
            http_config: false,
            endpoints: vec!["dnssrv+_grpc._tcp.store.ns.svc".to_owned()],
            told: true,
        };
        assert_eq!(found, expected);
        for other in [
            json!([proxy]),
            json!([]),
            json!([{"name": "x", "image": image, "args": ["query-frontend", "--http-address=:9090"]}]),
            json!([{"name": "x", "image": image, "args": ["store"]}]),
        ] {
            let other = pod(&other, "Running");
            assert_eq!(querier(&other), None);
            assert_eq!(configured_querier(&other).port, Some(10902));
        }
        let ended = querier(&pod(&json!([query]), "Failed")).unwrap();
        assert_eq!(ended.ip, None, "its address may be another pod's");
    }
}
