//! Each check passes on a healthy installation, and says what is wrong with one that is broken in one place.

mod queriers;
mod rollouts;

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::fixture::{
    NOW, api, before, budget, certificate, forbidden, healthy, nodes, pod, querier, read, reported, service, statefulset, status,
    status_document, webhook,
};
use super::ids::{self, Check};
use super::objects::{BudgetView, ConfigText, ServiceView};
use super::rights::Denied;
use super::snapshot::{Certificate, DryRun, Lack, Snapshot, Trouble};
use super::{Outcome, Preflight, Report, pre, run};
use crate::core::names;

/// What is not well, as `fail id: message`.
fn troubles(report: &Report) -> Vec<String> {
    let bad = report.findings.iter().filter(|finding| matches!(finding.result, Outcome::Warn | Outcome::Fail));
    bad.map(|finding| format!("{} {}: {}", finding.result.name(), finding.check.id, finding.message)).collect()
}

/// Breaks one thing: this and nothing else is found, with a hint.
fn finds(want: &[&str], change: impl FnOnce(&mut Snapshot)) {
    let mut snapshot = healthy();
    change(&mut snapshot);
    compare(want, &run(&snapshot));
}

fn finds_before(want: &[&str], change: impl FnOnce(&mut Preflight)) {
    let mut preflight = before();
    change(&mut preflight);
    compare(want, &pre(&preflight));
}

fn compare(want: &[&str], report: &Report) {
    let found = troubles(report);
    let matches = found.len() == want.len()
        && want.iter().zip(&found).all(|(want, found)| {
            let (head, part) = want.split_once(": ").unwrap_or((want, ""));
            found.starts_with(&format!("{head}: ")) && found.contains(part)
        });
    assert!(matches, "wanted {want:#?}, found {found:#?}");
    for finding in report.findings.iter().filter(|finding| matches!(finding.result, Outcome::Warn | Outcome::Fail)) {
        assert!(!finding.hint.is_empty(), "{} has no hint", finding.check.id);
    }
}

fn set(snapshot: &mut Snapshot, change: impl FnOnce(&mut Value)) {
    change(&mut snapshot.statefulsets.as_mut().unwrap()[0]);
}

fn hook(snapshot: &mut Snapshot, change: impl FnOnce(&mut Value)) {
    let mut all = json!([webhook()]);
    change(&mut all[0]["webhooks"][0]);
    snapshot.webhooks = Ok(read(all));
}

fn says(snapshot: &mut Snapshot, change: impl FnOnce(&mut Value)) {
    let mut document = status_document();
    change(&mut document);
    snapshot.status = Ok(status(&document));
}

fn space(snapshot: &mut Snapshot) -> &mut super::Space {
    snapshot.spaces.get_mut("monitoring").unwrap()
}

fn passes(report: &Report) -> BTreeSet<&'static str> {
    report.findings.iter().filter(|finding| finding.result == Outcome::Pass).map(|finding| finding.check.id).collect()
}

#[test]
fn a_healthy_installation_passes_every_check() {
    let (report, preflight) = (run(&healthy()), pre(&before()));
    assert_eq!(troubles(&report), Vec::<String>::new());
    assert_eq!(troubles(&preflight), Vec::<String>::new());
    let mut with_services = healthy();
    with_services.config = Ok(Some(ConfigText { text: "sharding: {shard_services: true}".to_owned(), ..ConfigText::default() }));
    let all: BTreeSet<&str> = &(&passes(&report) | &passes(&preflight)) | &BTreeSet::from(["statefulset-shard-services"]);
    assert_eq!(all, ids::ALL.iter().map(|check| check.id).collect::<BTreeSet<_>>(), "every check can pass");
}

#[test]
fn ids_are_unique_and_anchors() {
    let ids: BTreeSet<&str> = ids::ALL.iter().map(|check| check.id).collect();
    assert_eq!(ids.len(), ids::ALL.len());
    assert!(ids.iter().all(|id| id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
    let sections: Vec<_> = ids::ALL.iter().map(|check| check.section).collect();
    assert!(sections.is_sorted(), "checks of a section stand together");
}

#[test]
fn the_api_server() {
    finds(&["fail api-reachable: refused"], |s| {
        s.api.version = Err(Lack { what: "ask the API server".to_owned(), forbidden: false, why: "connection refused".to_owned() });
        s.nodes = forbidden("list nodes");
    });
    let at = |version: &'static str| move |s: &mut Snapshot| s.api.version = Ok(read(json!({"gitVersion": version})));
    finds(&["fail api-version: 1.20"], at("v1.20.3"));
    finds(&["warn api-version: matchConditions"], at("v1.27.3+k3s1"));
    finds(&["warn api-version: newer"], at("v1.99.0"));
    finds(&["warn api-version: cannot be read"], at("what"));
    finds(&[], at("v1.28.0-gke.1"));
    finds(&["warn api-clock: 20 s ahead of"], |s| s.api.ahead_ms = Some(20_000));
    finds(&["fail api-clock: 400 s behind"], |s| s.api.ahead_ms = Some(-400_000));
    finds(&["fail node-kubelets: n1 (v1.28.9)"], |s| s.nodes = Ok(nodes("v1.28.9")));
    finds(&[], |s| {
        s.nodes = Ok(nodes("v1.28.9"));
        s.config = Ok(Some(ConfigText { text: "injection: {native_sidecar: false}".to_owned(), ..ConfigText::default() }));
    });
}

#[test]
fn the_server() {
    finds(&["fail server-permissions: patch pods/status"], |s| {
        s.denied = Ok(Denied { sentences: vec!["patch pods/status".to_owned()], ..Denied::default() });
    });
    finds(&["fail server-replicas: no Deployment"], |s| s.deployments = Ok(Vec::new()));
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
        s.server_pods = Ok(read(json!([{"spec": {"containers": [{"image": "x:v1"}]}}, {"spec": {"containers": [{"image": "x:v2"}]}}])));
    });
    finds(&["warn server-version: \"0.9.0\"", "warn pods-agents: store-0 (1.0.0)"], |s| says(s, |d| d["version"] = json!("0.9.0")));
    finds(&["fail server-status: watch"], |s| says(s, |d| d["watch_error"] = json!("forbidden")));
    finds(&["fail server-status: certificate"], |s| says(s, |d| d["certificate_error"] = json!("bad pair")));
    finds(&["fail server-status: not listed"], |s| says(s, |d| d["synced"] = json!(false)));
    finds(&["warn server-status: --webhook-only"], |s| says(s, |d| d["webhook_only"] = json!(true)));
    finds(&["warn server-leader: without a refresher"], |s| says(s, |d| d["leader"] = Value::Null));
    finds(&["fail server-leader: no replica leads"], |s| says(s, |d| d["leader"] = json!({"holder": null, "self": false})));
    finds(&["fail server-leader: gone"], |s| says(s, |d| d["leader"] = json!({"error": "gone"})));
    finds(&["warn server-leader: b leads"], |s| says(s, |d| d["leader"] = json!({"holder": "b", "self": false})));
    finds(&["warn server-status: nobody answers"], |s| {
        s.status = Err(Lack { what: "ask".to_owned(), forbidden: false, why: "nobody answers".to_owned() });
    });
}

#[test]
fn the_configuration() {
    let text = |text: &'static str| {
        move |s: &mut Snapshot| s.config = Ok(Some(ConfigText { source: "c.yaml".to_owned(), text: text.to_owned(), of_server: true }))
    };
    finds(&["fail config-valid: c.yaml:1:"], text("sharding: {total_shards: none}"));
    finds(&["fail config-valid: does not exist"], |s| {
        s.config = Err(Lack { what: "get configmap c".to_owned(), forbidden: false, why: "it does not exist".to_owned() });
    });
    finds(&["warn config-sound: termination_drain"], text("sharding: {termination_drain: 0s}"));
    finds(&["warn config-sound: allow_coverage_gap"], text("sharding: {allow_coverage_gap: true}"));
    finds(&["warn config-sound: drain of 40s", "warn discovery-periods: but drain is 40s"], text("sharding: {drain: 40s}"));
    finds(&["fail config-applied: line 3"], |s| says(s, |d| d["config_error"] = json!("line 3")));
    finds(&[], |s| s.config = Ok(None));
    finds(&["warn api-permissions: get configmap"], |s| s.config = forbidden("get configmap c"));
}

#[test]
fn the_registration() {
    finds(&["fail webhook-registered"], |s| s.webhooks = Ok(Vec::new()));
    finds(&["warn webhook-registered: 2 times"], |s| s.webhooks = Ok(read(json!([webhook(), webhook()]))));
    finds(&["fail webhook-scope: rules"], |s| hook(s, |w| w["rules"][0]["operations"] = json!(["UPDATE"])));
    finds(&["fail webhook-scope: whole cluster"], |s| hook(s, |w| w["namespaceSelector"] = json!({})));
    finds(&["fail webhook-scope: leaves out labelled namespaces: monitoring"], |s| {
        hook(s, |w| w["namespaceSelector"]["matchLabels"] = json!({"team": "a"}));
    });
    finds(&["warn webhook-scope: kube-system"], |s| {
        hook(s, |w| w["namespaceSelector"]["matchExpressions"].as_array_mut().unwrap().truncate(1));
    });
    finds(&["warn webhook-scope: objectSelector"], |s| hook(s, |w| w["objectSelector"] = json!({})));
    finds(&["warn webhook-scope: not-opted-out"], |s| hook(s, |w| w["matchConditions"].as_array_mut().unwrap().truncate(2)));
    finds(&["warn webhook-policy: Ignore"], |s| {
        hook(s, |w| {
            w["failurePolicy"] = json!("Ignore");
            w["matchConditions"] = Value::Null;
        });
    });
    finds(&["warn webhook-policy: 30"], |s| hook(s, |w| w["timeoutSeconds"] = json!(30)));
    finds(&["fail webhook-policy: Some"], |s| hook(s, |w| w["sideEffects"] = json!("Some")));
    finds(&["fail webhook-service: does not exist"], |s| s.service = Ok(None));
    finds(&["fail webhook-service: port 8443"], |s| hook(s, |w| w["clientConfig"]["service"]["port"] = json!(8443)));
    finds(&["fail webhook-service: no address"], |s| s.endpoints = Ok(read(json!([{"endpoints": null, "ports": null}]))));
    let other = |policy: &'static str| {
        move |s: &mut Snapshot| {
            let mut all = json!([webhook(), {"metadata": {"name": "mesh"}, "webhooks": [{"name": "inject.mesh", "rules": [
                {"apiGroups": ["*"], "operations": ["*"], "resources": ["*"]}]}]}]);
            all[0]["webhooks"][0]["reinvocationPolicy"] = json!(policy);
            s.webhooks = Ok(read(all));
        }
    };
    finds(&[], other("IfNeeded"));
    finds(&["warn webhook-others: inject.mesh"], other("Never"));
}

#[test]
fn the_certificate() {
    let authority = |left: i64| move |s: &mut Snapshot| s.authorities = Some(Ok(vec![("CN=ca".to_owned(), NOW + left)]));
    finds(&["fail webhook-ca: 2 days ago"], authority(-2 * 86_400));
    finds(&["warn webhook-ca: 2 hours"], authority(7_200));
    finds(&["fail webhook-ca: it is empty"], |s| s.authorities = Some(Err("it is empty".to_owned())));
    for (trouble, part) in [
        (Trouble::UnknownIssuer, "fail webhook-certificate: not signed by"),
        (Trouble::Expired, "fail webhook-certificate: has expired"),
        (Trouble::NotYetValid, "fail webhook-certificate: not valid yet"),
        (Trouble::OtherName, "fail webhook-certificate: another name"),
        (Trouble::Other("odd".to_owned()), "fail webhook-certificate: odd"),
    ] {
        let bad = Certificate { trouble: Some(trouble), ..certificate() };
        let of_secret = bad.clone();
        finds(&[part], |s| s.served = Ok(bad));
        finds(&[part], |s| (s.served, s.secret) = (Err("timeout".to_owned()), Ok(Some(of_secret))));
    }
    finds(&["warn webhook-certificate: nobody has renewed"], |s| s.served = Ok(Certificate { not_after: NOW + 3_600, ..certificate() }));
    let from_far = |s: &mut Snapshot| s.served = Err("timeout".to_owned());
    finds(&[], from_far);
    finds(&[], |s| (s.served, s.secret) = (Err("timeout".to_owned()), Ok(None)));
    let untried = |s: &mut Snapshot| {
        from_far(s);
        s.dry_run = DryRun::NotTried("no right".to_owned());
    };
    finds(&["warn webhook-certificate: fits the caBundle"], untried);
    finds(&["warn api-permissions", "warn webhook-certificate: timeout"], |s| {
        untried(s);
        s.secret = forbidden("get secret");
    });
    finds(&["warn webhook-certificate: not there"], |s| {
        untried(s);
        s.secret = Ok(None);
    });
    let refused = |message: &str| DryRun::Refused { namespace: "monitoring".to_owned(), message: message.to_owned() };
    finds(&["fail webhook-admission: x509"], |s| {
        s.dry_run = refused("failed calling webhook \"inject.thanos-timeshard.io\": x509: unknown authority");
    });
    finds(&["warn webhook-admission: quota"], |s| s.dry_run = refused("exceeded quota"));
    finds(&["fail webhook-admission: without sidecar"], |s| s.dry_run = DryRun::Admitted { namespace: "m".to_owned(), injected: false });
}

#[test]
fn namespaces() {
    let labels = |value: Value| {
        move |s: &mut Snapshot| {
            s.namespaces = Ok(read(json!([{"metadata": {"name": "monitoring", "labels": value}}])));
            s.spaces.clear();
        }
    };
    finds(&["warn namespace-labels: no namespace is labelled", "warn namespace-labels: ConfigMap store-time-shards"], labels(json!({})));
    finds(&["warn namespace-labels: no namespace", "warn namespace-labels: \"true\""], labels(json!({names::NAMESPACE_LABEL: "true"})));
    finds(&["fail namespace-labels: not labelled"], |s| {
        labels(json!({}))(s);
        s.only = Some("monitoring".to_owned());
    });
    finds(&["fail namespace-rights: the server has no rights in it"], |s| {
        s.denied = Ok(Denied { namespaces: vec!["monitoring".to_owned(), "elsewhere".to_owned()], ..Denied::default() });
    });
    finds(&["fail namespace-labels: no such namespace"], |s| s.only = Some("nowhere".to_owned()));
    finds(&["warn namespace-labels: kube-system is labelled"], |s| {
        s.namespaces.as_mut().unwrap().extend(read::<Vec<super::objects::Object>>(
            json!([{"metadata": {"name": "kube-system", "labels": {names::NAMESPACE_LABEL: "enabled"}}}]),
        ));
    });
}

#[test]
fn eligibility_is_admissions() {
    const CONTAINER: &str = "/spec/template/spec/containers/0";
    let args = |words: Value| move |s: &mut Snapshot| set(s, |o| *o.pointer_mut(&format!("{CONTAINER}/args")).unwrap() = words);
    finds(&["warn statefulset-eligible: --min-time is set by hand"], args(json!(["store", "--min-time=-1d"])));
    finds(&["fail statefulset-eligible: @/etc/flags"], args(json!(["store", "@/etc/flags"])));
    finds(&["fail statefulset-eligible: runs inside"], |s| {
        set(s, |o| o.pointer_mut(CONTAINER).unwrap()["command"] = json!(["sh", "-c", "thanos store"]));
    });
    finds(&["warn statefulset-eligible: is not named thanos"], |s| {
        set(s, |o| o.pointer_mut(CONTAINER).unwrap()["image"] = json!("busybox"));
    });
    finds(&[], args(json!(["receive"])));
    finds(&[], |s| set(s, |o| o["spec"]["template"]["metadata"]["labels"][names::INJECT] = json!("false")));
    finds(&["fail statefulset-probes: /-/healthy"], |s| {
        set(s, |o| o.pointer_mut(CONTAINER).unwrap()["livenessProbe"] = json!({"httpGet": {"path": "/-/ready", "port": 10902}}));
    });
    finds(&["fail statefulset-probes"], |s| {
        set(s, |o| o.pointer_mut(CONTAINER).unwrap()["livenessProbe"] = json!({"tcpSocket": {"port": 10901}}));
    });
    finds(&["warn statefulset-template: no effect"], |s| {
        set(s, |o| o["spec"]["template"]["metadata"]["annotations"] = json!({"thanos-timeshard.io/overlap": "2d"}));
    });
    finds(&["warn statefulset-template: skip-inbound-ports"], |s| {
        set(s, |o| o["spec"]["template"]["metadata"]["annotations"] = json!({names::LINKERD_INJECT: "enabled"}));
    });
    finds(&["fail statefulset-template: JSON array"], |s| {
        set(s, |o| o["spec"]["template"]["metadata"]["annotations"] = json!({names::COMMAND_ANNOTATION: "/bin/thanos"}));
    });
    finds(&["fail statefulset-overlap: shorter than"], args(json!(["store", "--sync-block-duration=2d"])));
    finds(&["warn statefulset-overlap: leaves less"], args(json!(["store", "--sync-block-duration", "23h"])));
    finds(&["warn statefulset-overlap: cannot be compared"], args(json!(["store", "--sync-block-duration=$(X)"])));
}

#[test]
fn annotations_and_replicas() {
    let annotated =
        |key: &'static str, value: &'static str| move |s: &mut Snapshot| set(s, |o| o["metadata"]["annotations"][key] = json!(value));
    finds(&["fail statefulset-annotations: \"many\""], annotated("thanos-timeshard.io/total-shards", "many"));
    finds(&["warn statefulset-annotations: none that is read"], annotated("thanos-timeshard.io/total-shard", "3"));
    finds(&["warn statefulset-annotations: \"yes\""], annotated(names::PAUSE, "yes"));
    finds(&["warn statefulset-annotations: guard: \"true\""], annotated(names::GUARD, "true"));
    finds(&[], annotated(names::GUARD, "warn"));
    finds(&["warn statefulset-annotations: on the StatefulSet itself"], annotated(names::INJECT, "false"));
    finds(&["fail statefulset-annotations: target-replicas"], annotated(names::TARGET_REPLICAS, "0"));
    let replicas = |n: u32| move |s: &mut Snapshot| set(s, |o| o["spec"]["replicas"] = json!(n));
    finds(&["warn statefulset-replicas: 1 pod for 3 shards", "warn statefulset-replicas: one replica"], replicas(1));
    finds(&["warn statefulset-replicas: 8 pods"], replicas(8));
    finds(&["warn statefulset-replicas: 0 replicas"], replicas(0));
    let at_once =
        |value: Value| move |s: &mut Snapshot| set(s, |o| o["spec"]["updateStrategy"]["rollingUpdate"] = json!({"maxUnavailable": value}));
    finds(&["warn statefulset-update: all replicas of shard 0 at once (store-0, store-1)"], at_once(json!(2)));
    finds(&["warn statefulset-update: maxUnavailable is 50%"], at_once(json!("50%")));
    finds(&[], at_once(json!(1)));
    finds(&["warn pods-injected: store-3"], |s| space(s).pods = Ok(read((0..6).map(|n| pod(n, n != 3)).collect())));
    finds(&["warn pods-agents: store-2 (0.9.0)"], |s| says(s, |d| d["statefulsets"][0]["pods"][2]["agent_version"] = json!("0.9.0")));
}

#[test]
fn budgets_and_services() {
    let foreign = |n: usize| {
        move |s: &mut Snapshot| {
            space(s).budgets =
                Ok((0..n).map(|i| read::<BudgetView>(budget(&format!("pdb{i}"), false, &json!({"app": "store"}))).into()).collect());
        }
    };
    finds(&["warn statefulset-budgets: pdb0"], foreign(1));
    finds(&["fail statefulset-budgets: pdb0, pdb1"], foreign(2));
    let served = |change: fn(&mut Value)| {
        move |s: &mut Snapshot| {
            let mut service = service();
            change(&mut service);
            space(s).services = Ok(vec![read::<ServiceView>(service).into()]);
        }
    };
    finds(
        &["warn statefulset-services: publishNotReadyAddresses", "fail querier-endpoints: publishNotReadyAddresses"],
        served(|v| v["spec"]["publishNotReadyAddresses"] = json!(true)),
    );
    finds(
        &["warn statefulset-services: no headless", "fail querier-endpoints: ClusterIP"],
        served(|v| v["spec"]["clusterIP"] = json!("10.1.1.1")),
    );
    finds(&["fail querier-endpoints: no port named grpc"], served(|v| v["spec"]["ports"] = json!([])));
    finds(&["warn statefulset-services: no Service selects"], served(|v| v["spec"]["selector"] = json!({"app": "other"})));
    finds(&["warn statefulset-services: spec.serviceName"], |s| {
        set(s, |o| o["spec"]["serviceName"] = json!("gone"));
    });
    let grouped = |s: &mut Snapshot| {
        s.config = Ok(Some(ConfigText { text: "sharding: {shard_services: true}".to_owned(), of_server: true, ..ConfigText::default() }));
    };
    finds(&["fail statefulset-shard-services: store-shard-0, store-shard-1, store-shard-2"], grouped);
    let shard = |n: u32| {
        read::<ServiceView>(json!({"metadata": {"name": format!("store-shard-{n}"), "labels": {names::MANAGED_BY_LABEL: names::MANAGED_BY},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "u1"}]},
            "spec": {"clusterIP": "None", "selector": {"app": "store", names::SHARD_LABEL: n.to_string()}, "ports": [{"name": "grpc", "port": 10901}]}}))
    };
    let three = |s: &mut Snapshot| {
        grouped(s);
        space(s).services.as_mut().unwrap().extend((0..3).map(|n| shard(n).into()));
    };
    finds(&[], three);
    finds(&["fail statefulset-shard-services: store-shard-0, store-shard-1, store-shard-2"], |s| {
        three(s);
        set(s, |o| o["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["store", "--grpc-address=0.0.0.0:9090"]));
    });
    let mut snapshot = healthy();
    three(&mut snapshot);
    assert!(passes(&run(&snapshot)).contains("statefulset-shard-services"));
}

#[test]
fn before_an_installation() {
    finds_before(&["fail install-permissions: create clusterroles"], |p| p.denied = Ok(vec!["create clusterroles".to_owned()]));
    finds_before(&["warn install-cert-manager"], |p| p.cert_manager = Ok(false));
    let space = |meta: Value| move |p: &mut Preflight| p.namespace = Ok(Some(read(meta)));
    finds_before(&[], space(json!({"labels": {"pod-security.kubernetes.io/enforce": "restricted"}})));
    finds_before(&["warn install-namespace: \"strict\""], space(json!({"labels": {"pod-security.kubernetes.io/enforce": "strict"}})));
    finds_before(&["fail install-namespace: being deleted"], space(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})));
    let there = |labels: Value| move |p: &mut Preflight| p.there[0].1 = Ok(Some(read(json!({"labels": labels}))));
    finds_before(&["fail install-names: ClusterRole timeshard"], there(json!({})));
    finds_before(&["warn install-names: installed already"], there(json!({"app.kubernetes.io/name": "thanos-timeshard"})));
    finds_before(&["warn api-permissions: get Secret"], |p| p.there[11].1 = forbidden("get Secret timeshard-tls"));
    finds_before(&["fail api-version"], |p| p.api = super::ApiFacts { version: Ok(read(json!({"gitVersion": "v1.19.0"}))), ..api() });
}

/// Without any right nothing passes that was not looked at, and nothing fails either.
#[test]
fn what_is_forbidden_is_skipped() {
    let mut s = healthy();
    s.nodes = forbidden("list nodes");
    s.namespaces = forbidden("list namespaces");
    s.webhooks = forbidden("list mutatingwebhookconfigurations");
    s.deployments = forbidden("list deployments");
    s.server_pods = forbidden("list pods");
    s.service = forbidden("get service");
    s.endpoints = forbidden("list endpointslices");
    (s.authorities, s.served) = (None, Err("not known".to_owned()));
    s.secret = forbidden("get secret");
    s.denied = forbidden("create subjectaccessreviews");
    s.dry_run = DryRun::NotTried("no namespace".to_owned());
    s.config = forbidden("get configmap");
    s.status = forbidden("get leases");
    s.statefulsets = forbidden("list statefulsets");
    s.workloads = forbidden("list deployments");
    s.maps = forbidden("list configmaps");
    s.spaces.clear();
    let report = run(&s);
    assert_eq!(troubles(&report).len(), 1, "{:#?}", troubles(&report));
    assert!(troubles(&report)[0].starts_with("warn api-permissions: "));
    assert_eq!(passes(&report), BTreeSet::from(["api-reachable", "api-version", "api-clock"]));
}

#[test]
fn findings_stand_in_the_order_of_the_checks() {
    let report = run(&healthy());
    let place = |check: &Check| ids::ALL.iter().position(|one| one.id == check.id).unwrap();
    assert!(report.findings.is_sorted_by_key(|finding| place(finding.check)));
    let summary = report.summary();
    assert_eq!(summary.pass + summary.warn + summary.fail + summary.skipped, report.findings.len());
}

/// Words that matter somewhere, so that random objects reach far.
fn word() -> impl Strategy<Value = String> {
    let known = [
        "store",
        "query",
        "thanos",
        "--min-time=-1d",
        "--endpoint=dns+store:1",
        "--endpoint",
        "--store.sd-dns-interval=1y",
        "@x",
        "sh",
        "-c",
        "enabled",
        "monitoring",
        "thanos-timeshard.io/total-shards",
        "thanos-timeshard.io/target-replicas",
        "auto",
        "4",
        "-1",
        "99999999999999999999",
        "",
        "--sync-block-duration=",
        "v1.",
        "_grpc._tcp.",
        "\u{1b}[0m",
        "é",
    ];
    prop_oneof![prop::sample::select(known.to_vec()).prop_map(str::to_owned), ".{0,12}"]
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word().prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(word(), inner, 0..4).prop_map(|map| json!(map))
        ]
    })
}

/// A place somewhere in an object, replaced.
fn replaced(object: &mut Value, path: &[usize], with: Value) {
    let mut at = object;
    for step in path {
        let next = match at {
            Value::Object(map) if !map.is_empty() => {
                let i = step % map.len();
                map.values_mut().nth(i)
            }
            Value::Array(list) if !list.is_empty() => {
                let i = step % list.len();
                list.get_mut(i)
            }
            _ => None,
        };
        let Some(next) = next else { return };
        at = next;
    }
    *at = with;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_panics(
        edits in prop::collection::vec((prop::collection::vec(any::<usize>(), 1..8), tree()), 1..4),
        answer in tree(), report in tree(), text in ".{0,80}", ahead in any::<i64>(), end in any::<i64>(), words in prop::collection::vec(word(), 0..5),
    ) {
        let mut s = healthy();
        s.api.ahead_ms = Some(ahead);
        s.authorities = Some(Ok(vec![(text.clone(), end)]));
        s.served = Ok(Certificate { not_after: end, ..certificate() });
        s.config = Ok(Some(ConfigText { text, ..ConfigText::default() }));
        for (path, with) in &edits {
            let mut object = statefulset();
            replaced(&mut object, path, with.clone());
            s.statefulsets.as_mut().unwrap().push(object);
            for base in [json!([webhook()]), json!([querier(&["query"])])] {
                let mut object = base;
                replaced(&mut object, path, with.clone());
                if let Ok(read) = serde_json::from_value(object.clone()) { s.webhooks = Ok(read); }
                if let Ok(read) = serde_json::from_value(object) { s.workloads = Ok(read); }
            }
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        s.workloads.as_mut().unwrap().push(read(querier(&words)));
        let mut document = status_document();
        document["leader"] = answer;
        document["statefulsets"] = json!([report, reported()]);
        if let Ok(read) = super::ServerStatus::parse(document.to_string().as_bytes()) { s.status = Ok(read); }
        let found = run(&s);
        prop_assert!(found.findings.iter().all(|finding| !finding.message.is_empty()));
    }
}
