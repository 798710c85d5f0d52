//! A healthy installation with one gateway and one querier, for tests to break.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::rights::Denied;
use super::super::snapshot::{ApiFacts, Certificate, DnsFacts, DryRun, Lack, Snapshot, Space};
use super::super::{INSTALLED, Preflight};
use crate::core::kube::observed::{BudgetFacts, PodFacts, ServiceFacts};
use crate::core::model::duration::PromDuration;
use crate::core::model::names;
use crate::core::server_status::ServerStatus;

/// 2026-11-21T12:00:00Z.
pub(super) const NOW: i64 = 1_795_262_400;

/// As in older clusters: answers about the cluster are cached for 30 s.
pub(super) const COREFILE: &str = ".:53 {\n    kubernetes cluster.local in-addr.arpa ip6.arpa {\n        ttl 30\n    }\n    cache 30\n}\n";

pub(super) fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub(super) fn forbidden<T>(what: &str) -> Result<T, Lack> {
    Err(Lack {
        what: what.to_owned(),
        forbidden: true,
        why: "no".to_owned(),
    })
}

pub(super) fn api() -> ApiFacts {
    ApiFacts {
        version: Ok(read(
            json!({"major": "1", "minor": "36", "gitVersion": "v1.36.2"}),
        )),
        ahead_ms: Some(0),
    }
}

pub(super) fn nodes(kubelet: &str) -> Vec<super::super::objects::NodeView> {
    read(json!([{"metadata": {"name": "n1"}, "status": {"nodeInfo": {"kubeletVersion": kubelet}}}]))
}

pub(super) fn statefulset() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "store", "namespace": "monitoring", "uid": "u1", "annotations": {}},
        "spec": {"replicas": 6, "minReadySeconds": 90, "serviceName": "store", "selector": {"matchLabels": {"app": "store"}}, "template": {
            "metadata": {"labels": {"app": "store"}},
            "spec": {"containers": [{"name": "thanos", "image": "quay.io/thanos/thanos:v0.42.4", "args": ["store", "--data-dir=/d"],
                "livenessProbe": {"httpGet": {"path": "/-/healthy", "port": 10902}}}]}}}})
}

pub(super) fn webhook() -> Value {
    json!({"metadata": {"name": "timeshard"}, "webhooks": [{
        "name": names::WEBHOOK, "failurePolicy": "Fail", "timeoutSeconds": 5, "sideEffects": "NoneOnDryRun", "reinvocationPolicy": "IfNeeded",
        "clientConfig": {"service": {"namespace": "timeshard-system", "name": "timeshard", "path": "/mutate", "port": 443}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        "namespaceSelector": {"matchExpressions": [
            {"key": names::NAMESPACE_LABEL, "operator": "In", "values": ["enabled"]},
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}]},
        "objectSelector": {"matchExpressions": [{"key": names::INJECT, "operator": "NotIn", "values": ["false"]}]},
        "matchConditions": [{"name": "statefulset-pod"}, {"name": "may-run-thanos-store"}, {"name": "not-opted-out"}]}]})
}

pub(super) fn service() -> ServiceFacts {
    ServiceFacts {
        name: "store".to_owned(),
        headless: true,
        selector: read(json!({"app": "store"})),
        ports: vec![("grpc".to_owned(), 10901)],
        ..ServiceFacts::default()
    }
}

pub(super) fn budget(name: &str, ours: bool, labels: &Value) -> BudgetFacts {
    BudgetFacts {
        name: name.to_owned(),
        ours,
        selector: Some(read(json!({"matchLabels": labels}))),
        min_available: Some(1),
        ..BudgetFacts::default()
    }
}

pub(super) fn pod(ordinal: u32, injected: bool) -> PodFacts {
    let shard = (ordinal / 2).to_string();
    PodFacts {
        name: format!("store-{ordinal}"),
        statefulset: "store".to_owned(),
        owner_uid: "u1".to_owned(),
        injected,
        labels: read(json!({"app": "store", names::SHARD_LABEL: shard})),
        shard_label: Some(shard),
        ..PodFacts::default()
    }
}

pub(super) fn querier(args: &[&str]) -> Value {
    json!({"metadata": {"name": "query", "namespace": "monitoring"}, "spec": {"template": {"spec": {"containers": [
        {"name": "query", "image": "quay.io/thanos/thanos:v0.42.4", "args": args}]}}}})
}

pub(super) fn reported() -> Value {
    let window = json!({"min_time": "-1d", "max_time": "1d"});
    let pod = |n: u32| {
        json!({"pod": format!("store-{n}"), "ordinal": n, "shard": n / 2, "replica": n % 2, "surplus": false, "desired": window,
            "published": window, "applied": window, "verified": true, "state": "confirmed", "phase": "serving", "seconds_in_state": 9,
            "restarts": 0, "agent_version": "1.0.0", "why": null})
    };
    json!({"namespace": "monitoring", "name": "store", "configmap": "c", "replicas": 6, "state": "settled", "message": "all is as planned",
        "moves_left": 0, "steps_left": 0, "eta_seconds": 0, "gaps": [], "gap_seconds": 0, "minimum_ready_replicas": 2, "warnings": [],
        "blocks": {"known_pods": 6, "unknown_pods": 0, "unserved_total": 0, "unserved": [], "missing_total": 0, "missing": [],
            "outside_windows": 3, "bucket_total": 511},
        "pods": (0..6).map(pod).collect::<Vec<_>>()})
}

pub(super) fn status(document: &Value) -> ServerStatus {
    ServerStatus {
        from: "timeshard-a".to_owned(),
        ..ServerStatus::parse(document.to_string().as_bytes()).unwrap()
    }
}

pub(super) fn status_document() -> Value {
    json!({"version": "1.0.0", "webhook_only": false, "synced": true, "leader": {"holder": "timeshard-a", "self": true, "error": null},
        "statefulsets": [reported()], "unknown": {}})
}

pub(super) fn certificate() -> Certificate {
    Certificate {
        from: "the certificate of 10.0.0.1:8443".to_owned(),
        not_after: NOW + 20 * 86_400,
        trouble: None,
    }
}

/// Everything is well.
pub(super) fn healthy() -> Snapshot {
    let space = Space {
        pods: Ok((0..6).map(|n| pod(n, true)).collect()),
        termination_drains: (0..6)
            .map(|n| (format!("store-{n}"), PromDuration::from_secs(90)))
            .collect(),
        budgets: Ok((0..3)
            .map(|n| {
                let labels = json!({"app": "store", names::SHARD_LABEL: n.to_string()});
                budget(&format!("store-shard-{n}"), true, &labels)
            })
            .collect()),
        services: Ok(vec![service()]),
    };
    Snapshot {
        now: DateTime::UNIX_EPOCH + TimeDelta::seconds(NOW),
        version: "1.0.0".to_owned(),
        system: "timeshard-system".to_owned(),
        only: None,
        api: api(),
        nodes: Ok(nodes("v1.36.2")),
        namespaces: Ok(read(json!([
            {"metadata": {"name": "monitoring", "labels": {names::NAMESPACE_LABEL: "enabled", "kubernetes.io/metadata.name": "monitoring"}}},
            {"metadata": {"name": "default", "labels": {"kubernetes.io/metadata.name": "default"}}}]))),
        webhooks: Ok(read(json!([webhook()]))),
        deployments: Ok(read(
            json!([{"metadata": {"name": "timeshard", "namespace": "timeshard-system"},
            "spec": {"replicas": 2}, "status": {"readyReplicas": 2, "updatedReplicas": 2}}]),
        )),
        server_pods: Ok(read(
            json!([{"spec": {"containers": [{"image": "x:v1"}]}}, {"spec": {"containers": [{"image": "x:v1"}]}}]),
        )),
        service: Ok(Some(ServiceFacts {
            name: "timeshard".to_owned(),
            ports: vec![("https".to_owned(), 443)],
            ..ServiceFacts::default()
        })),
        endpoints: Ok(read(
            json!([{"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}], "ports": [{"port": 8443}]}]),
        )),
        authorities: Some(Ok(vec![("CN=ca".to_owned(), NOW + 3650 * 86_400)])),
        served: Ok(certificate()),
        secret: Ok(Some(certificate())),
        denied: Ok(Denied::default()),
        dry_run: DryRun::Admitted {
            namespace: "monitoring".to_owned(),
            injected: true,
        },
        config: Ok(Some(super::super::objects::ConfigText {
            source: "c.yaml".to_owned(),
            text: "sharding: {total_shards: 3}".to_owned(),
            of_server: true,
        })),
        status: Ok(status(&status_document())),
        statefulsets: Ok(vec![statefulset()]),
        workloads: Ok(read(json!([querier(&[
            "query",
            "--endpoint=dnssrv+_grpc._tcp.store.monitoring.svc.cluster.local"
        ])]))),
        dns: DnsFacts {
            given: None,
            corefile: Ok(Some(COREFILE.to_owned())),
            node_local: Ok(false),
        },
        maps: Ok(read(
            json!([{"name": "store-time-shards", "namespace": "monitoring"}]),
        )),
        spaces: BTreeMap::from([("monitoring".to_owned(), space)]),
    }
}

/// Nothing is installed, and nothing conflicts.
pub(super) fn before() -> Preflight {
    Preflight {
        now: DateTime::UNIX_EPOCH + TimeDelta::seconds(NOW),
        system: "timeshard-system".to_owned(),
        api: api(),
        nodes: Ok(nodes("v1.30.0")),
        denied: Ok(Vec::new()),
        cert_manager: Ok(true),
        namespace: Ok(None),
        existing: INSTALLED
            .into_iter()
            .map(|installed| (installed, Ok(None)))
            .collect(),
    }
}
