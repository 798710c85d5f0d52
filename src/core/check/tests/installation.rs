//! The API server, the server with its configuration, and the namespaces; before an installation,
//! too.

use serde_json::{Value, json};

use super::super::objects::{ConfigText, Object};
use super::super::rights::Denied;
use super::super::snapshot::{Lack, Snapshot};
use super::super::{ApiFacts, Preflight};
use super::fixture::{api, forbidden, nodes, read};
use super::{finds, finds_before, with_status};
use crate::core::model::names;

#[test]
fn the_api_server() {
    finds(&["fail api-reachable: refused"], |s| {
        s.api.version = Err(Lack {
            what: "ask the API server".to_owned(),
            forbidden: false,
            why: "connection refused".to_owned(),
        });
        s.nodes = forbidden("list nodes");
    });
    let at = |version: &'static str| {
        move |s: &mut Snapshot| s.api.version = Ok(read(json!({"gitVersion": version})))
    };
    finds(&["fail api-version: 1.20"], at("v1.20.3"));
    finds(&["warn api-version: matchConditions"], at("v1.27.3+k3s1"));
    finds(&["warn api-version: newer"], at("v1.99.0"));
    finds(&["warn api-version: cannot parse"], at("what"));
    finds(&[], at("v1.28.0-gke.1"));
    finds(&["warn api-clock: 20 s ahead of"], |s| {
        s.api.ahead_ms = Some(20_000);
    });
    finds(&["fail api-clock: 400 s behind"], |s| {
        s.api.ahead_ms = Some(-400_000);
    });
    finds(&["fail node-kubelets: n1 (v1.28.9)"], |s| {
        s.nodes = Ok(nodes("v1.28.9"));
    });
    finds(&[], |s| {
        s.nodes = Ok(nodes("v1.28.9"));
        s.config = Ok(Some(ConfigText {
            text: "injection: {native_sidecar: false}".to_owned(),
            ..ConfigText::default()
        }));
    });
}

#[test]
fn the_server() {
    finds(&["fail server-permissions: patch pods/status"], |s| {
        s.denied = Ok(Denied {
            sentences: vec!["patch pods/status".to_owned()],
            ..Denied::default()
        });
    });
    finds(&["fail server-replicas: no Deployment"], |s| {
        s.deployments = Ok(Vec::new());
    });
    let replicas = |wanted: i64, ready: i64| {
        move |s: &mut Snapshot| {
            s.deployments = Ok(read(
                json!([{"metadata": {"name": "t"}, "spec": {"replicas": wanted}, "status": {"readyReplicas": ready, "updatedReplicas": ready}}]),
            ));
        }
    };
    finds(&["fail server-replicas: scaled to 0"], replicas(0, 0));
    finds(&["fail server-replicas: none of 2"], replicas(2, 0));
    finds(&["warn server-replicas: 1 of 2"], replicas(2, 1));
    finds(&["warn server-replicas: one replica"], replicas(1, 1));
    finds(&["warn server-version: x:v1, x:v2"], |s| {
        s.server_pods = Ok(read(
            json!([{"spec": {"containers": [{"image": "x:v1"}]}}, {"spec": {"containers": [{"image": "x:v2"}]}}]),
        ));
    });
    finds(
        &[
            "warn server-version: \"0.9.0\"",
            "warn pods-agents: store-0 (1.0.0)",
        ],
        |s| with_status(s, |d| d["version"] = json!("0.9.0")),
    );
    finds(&["fail server-status: watch"], |s| {
        with_status(s, |d| d["watch_error"] = json!("forbidden"));
    });
    finds(&["fail server-status: certificate"], |s| {
        with_status(s, |d| d["certificate_error"] = json!("bad pair"));
    });
    finds(&["fail server-status: not listed"], |s| {
        with_status(s, |d| d["synced"] = json!(false));
    });
    finds(&["warn server-status: --webhook-only"], |s| {
        with_status(s, |d| d["webhook_only"] = json!(true));
    });
    finds(&["warn server-leader: without a refresher"], |s| {
        with_status(s, |d| d["leader"] = Value::Null);
    });
    finds(&["fail server-leader: no replica leads"], |s| {
        with_status(s, |d| d["leader"] = json!({"holder": null, "self": false}));
    });
    finds(&["fail server-leader: gone"], |s| {
        with_status(s, |d| d["leader"] = json!({"error": "gone"}));
    });
    finds(&["warn server-leader: b leads"], |s| {
        with_status(s, |d| d["leader"] = json!({"holder": "b", "self": false}));
    });
    finds(&["warn server-status: no replica answers"], |s| {
        s.status = Err(Lack {
            what: "ask".to_owned(),
            forbidden: false,
            why: "no replica answers".to_owned(),
        });
    });
}

#[test]
fn the_configuration() {
    let text = |text: &'static str| {
        move |s: &mut Snapshot| {
            s.config = Ok(Some(ConfigText {
                source: "c.yaml".to_owned(),
                text: text.to_owned(),
                of_server: true,
            }));
        }
    };
    finds(
        &["fail config-valid: c.yaml:1:"],
        text("sharding: {total_shards: none}"),
    );
    finds(&["fail config-valid: does not exist"], |s| {
        s.config = Err(Lack {
            what: "get configmap c".to_owned(),
            forbidden: false,
            why: "it does not exist".to_owned(),
        });
    });
    finds(
        &["warn config-sound: termination_drain"],
        text("sharding: {termination_drain: 0s}"),
    );
    finds(
        &["warn config-sound: allow_coverage_gap"],
        text("sharding: {allow_coverage_gap: true}"),
    );
    finds(
        &[
            "warn config-sound: drain of 40s",
            "warn discovery-periods: but drain is 40s",
        ],
        text("sharding: {drain: 40s}"),
    );
    finds(&["fail config-applied: line 3"], |s| {
        with_status(s, |d| d["config_error"] = json!("line 3"));
    });
    finds(&[], |s| s.config = Ok(None));
    finds(&["warn api-permissions: get configmap"], |s| {
        s.config = forbidden("get configmap c");
    });
}

#[test]
fn namespaces() {
    let labels = |value: Value| {
        move |s: &mut Snapshot| {
            s.namespaces = Ok(read(
                json!([{"metadata": {"name": "monitoring", "labels": value}}]),
            ));
            s.spaces.clear();
        }
    };
    finds(
        &[
            "warn namespace-labels: no namespace is labelled",
            "warn namespace-labels: ConfigMap store-time-shards",
        ],
        labels(json!({})),
    );
    finds(
        &[
            "warn namespace-labels: no namespace",
            "warn namespace-labels: \"true\"",
        ],
        labels(json!({names::NAMESPACE_LABEL: "true"})),
    );
    finds(&["fail namespace-labels: not labelled"], |s| {
        labels(json!({}))(s);
        s.only = Some("monitoring".to_owned());
    });
    finds(
        &["fail namespace-rights: the server has no rights in it"],
        |s| {
            s.denied = Ok(Denied {
                namespaces: vec!["monitoring".to_owned(), "elsewhere".to_owned()],
                ..Denied::default()
            });
        },
    );
    finds(&["fail namespace-labels: does not exist"], |s| {
        s.only = Some("nowhere".to_owned());
    });
    finds(&["warn namespace-labels: kube-system is labelled"], |s| {
        s.namespaces
            .as_mut()
            .unwrap()
            .extend(read::<Vec<Object>>(json!([{"metadata": {"name": "kube-system", "labels": {names::NAMESPACE_LABEL: "enabled"}}}])));
    });
}

#[test]
fn before_an_installation() {
    finds_before(&["fail install-permissions: create clusterroles"], |p| {
        p.denied = Ok(vec!["create clusterroles".to_owned()]);
    });
    finds_before(&["warn install-cert-manager"], |p| {
        p.cert_manager = Ok(false);
    });
    let space = |meta: Value| move |p: &mut Preflight| p.namespace = Ok(Some(read(meta)));
    finds_before(
        &[],
        space(json!({"labels": {"pod-security.kubernetes.io/enforce": "restricted"}})),
    );
    finds_before(
        &["warn install-namespace: \"strict\""],
        space(json!({"labels": {"pod-security.kubernetes.io/enforce": "strict"}})),
    );
    finds_before(
        &["fail install-namespace: being deleted"],
        space(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})),
    );
    let there = |labels: Value| {
        move |p: &mut Preflight| p.existing[0].1 = Ok(Some(read(json!({"labels": labels}))))
    };
    finds_before(
        &["fail install-names: ClusterRole timeshard"],
        there(json!({})),
    );
    finds_before(
        &["warn install-names: already installed"],
        there(json!({"app.kubernetes.io/name": "thanos-timeshard"})),
    );
    finds_before(&["warn api-permissions: get Secret"], |p| {
        p.existing[11].1 = forbidden("get Secret timeshard-tls");
    });
    finds_before(&["fail api-version"], |p| {
        p.api = ApiFacts {
            version: Ok(read(json!({"gitVersion": "v1.19.0"}))),
            ..api()
        }
    });
}
