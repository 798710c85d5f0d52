use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::body::Bytes;
use kube::client::Body;
use serde_json::json;

use super::*;
use crate::core::budgets::{Budget, Limit};
use crate::core::shard_services::ShardService;

/// A request as the API server gets it.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    line: String,
    media: String,
    body: Value,
}

/// The API server: what it got, and what it answers, in order. After the last answer it hangs.
#[derive(Clone, Default)]
struct Server {
    sent: Arc<Mutex<Vec<Sent>>>,
    answers: Arc<Mutex<Vec<(u16, Value)>>>,
}

impl Server {
    fn answering(answers: Vec<(u16, Value)>) -> (Self, Writer, Registry) {
        let server = Self::default();
        *server.answers.lock().unwrap() = answers;
        let service = server.clone();
        let client = Client::new(
            tower::service_fn(move |request| service.clone().answer(request)),
            "default",
        );
        let mut registry = Registry::default();
        let writer = Writer::new(client, &mut registry);
        (server, writer, registry)
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let media = parts
            .headers
            .get(CONTENT_TYPE)
            .map_or("", |value| value.to_str().unwrap())
            .to_owned();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        self.sent.lock().unwrap().push(Sent {
            line: format!("{} {}", parts.method, parts.uri),
            media,
            body,
        });
        let answer = Some(&self.answers)
            .filter(|answers| !answers.lock().unwrap().is_empty())
            .map(|a| a.lock().unwrap().remove(0));
        let Some((code, body)) = answer else {
            return std::future::pending().await;
        };
        Ok(Response::builder()
            .status(code)
            .body(Full::from(body.to_string()))
            .unwrap())
    }

    fn only(&self) -> Sent {
        let sent = self.sent.lock().unwrap();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent[0].clone()
    }
}

fn written() -> (u16, Value) {
    (200, json!({"metadata": {"resourceVersion": "9"}}))
}

fn refused(code: u16, reason: &str, field: &str) -> (u16, Value) {
    let causes = json!([{"reason": "FieldValueInvalid", "message": "immutable", "field": field}]);
    let details = json!({"causes": causes});
    (
        code,
        json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no", "details": details}),
    )
}

fn done() -> Outcome {
    Outcome::Done {
        resource_version: "9".to_owned(),
    }
}

fn owner() -> Owner {
    Owner {
        name: "store".to_owned(),
        uid: "u1".to_owned(),
    }
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), "store".to_owned())])
}

fn budget(limit: Limit) -> Budget {
    let selector = Selector {
        labels: labels(),
        expressions: vec![("tier".to_owned(), "Exists".to_owned(), vec![])],
    };
    Budget {
        name: "store-shard-0".to_owned(),
        owner: owner(),
        selector,
        limit,
    }
}

fn service() -> ShardService {
    ShardService {
        name: "store-shard-0".to_owned(),
        owner: owner(),
        selector: labels(),
        port: 9090,
    }
}

fn data() -> BTreeMap<String, String> {
    BTreeMap::from([("store-0.yaml".to_owned(), "shard: 0\n".to_owned())])
}

fn reference() -> Value {
    json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "u1", "controller": false, "blockOwnerDeletion": false}])
}

const MANAGED: &str = "thanos-timeshard";

#[tokio::test]
async fn a_budget_is_created_open_and_replaced_closed() {
    let (server, writer, _) = Server::answering(vec![written()]);
    assert_eq!(
        writer
            .budget("ns", &BudgetWrite::Create(budget(Limit::KeepAvailable(1))))
            .await,
        done()
    );
    let sent = server.only();
    assert_eq!(
        sent.line,
        "POST /apis/policy/v1/namespaces/ns/poddisruptionbudgets?fieldManager=thanos-timeshard"
    );
    let want = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {
            "name": "store-shard-0", "namespace": "ns",
            "labels": {"app.kubernetes.io/managed-by": MANAGED}, "ownerReferences": reference(),
        },
        "spec": {
            "minAvailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {"app": "store"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]},
        },
    });
    assert_eq!(
        (sent.media.as_str(), &sent.body),
        ("application/json", &want)
    );
    let (server, writer, _) = Server::answering(vec![written()]);
    let write = BudgetWrite::Replace {
        resource_version: "5".to_owned(),
        budget: budget(Limit::Closed),
    };
    assert_eq!(writer.budget("ns", &write).await, done());
    let sent = server.only();
    assert_eq!(
        sent.line,
        "PUT /apis/policy/v1/namespaces/ns/poddisruptionbudgets/store-shard-0?fieldManager=thanos-timeshard"
    );
    let spec = &sent.body["spec"];
    assert_eq!(
        (&spec["maxUnavailable"], spec.get("minAvailable")),
        (&json!(0), None)
    );
    assert_eq!(
        (
            &spec["unhealthyPodEvictionPolicy"],
            &sent.body["metadata"]["resourceVersion"]
        ),
        (&json!("IfHealthyBudget"), &json!("5"))
    );
}

#[tokio::test]
async fn a_service_is_headless_with_the_port_that_queriers_look_for() {
    let (server, writer, _) = Server::answering(vec![written(), written()]);
    assert_eq!(
        writer.service("ns", &ServiceWrite::Create(service())).await,
        done()
    );
    let write = ServiceWrite::Replace {
        resource_version: "5".to_owned(),
        service: service(),
    };
    assert_eq!(writer.service("ns", &write).await, done());
    let sent = server.sent.lock().unwrap().clone();
    assert_eq!(
        sent[0].line,
        "POST /api/v1/namespaces/ns/services?fieldManager=thanos-timeshard"
    );
    assert_eq!(
        sent[1].line,
        "PUT /api/v1/namespaces/ns/services/store-shard-0?fieldManager=thanos-timeshard"
    );
    let spec = json!({
        "clusterIP": "None", "publishNotReadyAddresses": false, "selector": {"app": "store"},
        "ports": [{"name": "grpc", "protocol": "TCP", "port": 9090, "targetPort": 9090}],
    });
    assert_eq!(
        (
            &sent[0].body["spec"],
            &sent[0].body["metadata"]["ownerReferences"]
        ),
        (&spec, &reference())
    );
    assert_eq!(
        (
            &sent[1].body["spec"],
            &sent[1].body["metadata"]["resourceVersion"]
        ),
        (&spec, &json!("5"))
    );
}

#[tokio::test]
async fn only_what_was_seen_is_deleted() {
    let gone = Outcome::Done {
        resource_version: String::new(),
    };
    for (answer, want) in [
        (
            (200, json!({"kind": "Status", "status": "Success"})),
            gone.clone(),
        ),
        (refused(404, "NotFound", ""), gone),
        (refused(409, "Conflict", ""), Outcome::Conflict),
        (
            refused(403, "Forbidden", ""),
            Outcome::Failed("no (HTTP 403)".to_owned()),
        ),
    ] {
        let (server, writer, _) = Server::answering(vec![answer.clone(), answer]);
        let (name, resource_version) = ("store-shard-2".to_owned(), "5".to_owned());
        let write = BudgetWrite::Delete {
            name: name.clone(),
            resource_version: resource_version.clone(),
        };
        assert_eq!(writer.budget("ns", &write).await, want);
        assert_eq!(
            writer
                .service(
                    "ns",
                    &ServiceWrite::Delete {
                        name,
                        resource_version
                    }
                )
                .await,
            want
        );
        let sent = server.sent.lock().unwrap().clone();
        assert_eq!(
            sent[0].line,
            "DELETE /apis/policy/v1/namespaces/ns/poddisruptionbudgets/store-shard-2"
        );
        assert_eq!(
            sent[1].line,
            "DELETE /api/v1/namespaces/ns/services/store-shard-2"
        );
        assert!(
            sent.iter()
                .all(|sent| sent.body["preconditions"] == json!({"resourceVersion": "5"})),
            "{sent:?}"
        );
    }
}

#[tokio::test]
async fn a_configmap_is_created_with_its_owner() {
    let (server, writer, _) = Server::answering(vec![written()]);
    assert_eq!(
        writer.create_map("ns", "windows", &owner(), &data()).await,
        done()
    );
    let sent = server.only();
    assert_eq!(
        sent.line,
        "POST /api/v1/namespaces/ns/configmaps?fieldManager=thanos-timeshard"
    );
    assert_eq!(
        (
            &sent.body["data"],
            &sent.body["metadata"]["ownerReferences"]
        ),
        (&json!(data()), &reference())
    );
    assert_eq!(
        sent.body["metadata"]["labels"],
        json!({"app.kubernetes.io/managed-by": MANAGED})
    );
}

#[tokio::test]
async fn a_configmap_that_is_there_is_looked_at_once() {
    for (metadata, claim, labelled) in [
        (
            json!({"labels": {"app.kubernetes.io/managed-by": MANAGED}}),
            Claim::Ours,
            true,
        ),
        (
            json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}}),
            Claim::Foreign,
            true,
        ),
        (
            json!({"annotations": {"thanos-timeshard.io/adopt": "true"}}),
            Claim::Adoptable,
            false,
        ),
        (
            json!({"annotations": {"thanos-timeshard.io/adopt": "yes"}}),
            Claim::Foreign,
            false,
        ),
        (json!({}), Claim::Foreign, false),
    ] {
        let mut there = json!({"metadata": metadata, "data": {"other": "x"}});
        there["metadata"]["resourceVersion"] = json!("7");
        let (server, writer, _) = Server::answering(vec![
            refused(409, "AlreadyExists", ""),
            (200, there),
            written(),
        ]);
        let outcome = writer.create_map("ns", "windows", &owner(), &data()).await;
        let Outcome::AlreadyExists(existing) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(
            (existing.resource_version.as_str(), existing.claim),
            ("7", claim)
        );
        assert_eq!(
            server.sent.lock().unwrap()[1].line,
            "GET /api/v1/namespaces/ns/configmaps/windows"
        );
        let adopted = writer
            .adopt_map("ns", "windows", &existing, &owner(), &data())
            .await;
        let sent = server.sent.lock().unwrap().clone();
        if claim == Claim::Foreign {
            assert!(
                matches!(&adopted, Outcome::Failed(why) if why.contains("thanos-timeshard.io/adopt")),
                "{adopted:?}"
            );
            assert_eq!(sent.len(), 2, "what is not ours is never written");
        } else {
            assert_eq!(
                (adopted, sent[2].media.as_str()),
                (done(), "application/json-patch+json")
            );
            let mut object = json!({"metadata": metadata, "data": {"other": "x"}});
            object["metadata"]["resourceVersion"] = json!("7");
            object["metadata"]["labels"]["kept"] =
                if labelled { json!("yes") } else { Value::Null };
            if !labelled {
                object["metadata"].as_object_mut().unwrap().remove("labels");
            }
            json_patch::patch(
                &mut object,
                &serde_json::from_value::<json_patch::Patch>(sent[2].body.clone()).unwrap(),
            )
            .unwrap();
            assert_eq!(
                (&object["data"], &object["metadata"]["ownerReferences"]),
                (&json!(data()), &reference())
            );
            assert_eq!(
                object["metadata"]["labels"]["app.kubernetes.io/managed-by"],
                MANAGED
            );
            assert!(!labelled || object["metadata"]["labels"]["kept"] == "yes");
            assert_eq!(
                object["metadata"].get("annotations"),
                metadata.get("annotations")
            );
        }
    }
}

#[tokio::test]
async fn a_stale_configmap_is_not_replaced() {
    for (answer, want) in [
        (written(), done()),
        (refused(409, "Conflict", ""), Outcome::Conflict),
        (refused(404, "NotFound", ""), Outcome::Conflict),
    ] {
        let (server, writer, _) = Server::answering(vec![answer]);
        assert_eq!(
            writer
                .replace_map("ns", "windows", "5", &owner(), &data())
                .await,
            want
        );
        let sent = server.only();
        assert_eq!(
            sent.line,
            "PATCH /api/v1/namespaces/ns/configmaps/windows?fieldManager=thanos-timeshard"
        );
        assert_eq!(
            sent.body[0],
            json!({"op": "replace", "path": "/metadata/resourceVersion", "value": "5"})
        );
    }
}

#[tokio::test]
async fn a_pod_is_hurried_through_its_status_and_only_the_pod_that_was_meant() {
    let (server, writer, _) = Server::answering(vec![
        written(),
        refused(422, "Invalid", "metadata.uid"),
        refused(422, "Invalid", "spec"),
    ]);
    let at = DateTime::UNIX_EPOCH;
    assert_eq!(writer.hurry("ns", "store-0", "p1", None, at).await, done());
    assert_eq!(
        writer.hurry("ns", "store-0", "p1", Some("2"), at).await,
        Outcome::Conflict
    );
    assert!(matches!(
        writer.hurry("ns", "store-0", "p1", None, at).await,
        Outcome::Failed(_)
    ));
    let sent = server.sent.lock().unwrap().clone();
    assert_eq!(
        sent[0].line,
        "PATCH /api/v1/namespaces/ns/pods/store-0/status?fieldManager=thanos-timeshard"
    );
    assert_eq!(sent[0].media, "application/merge-patch+json");
    let hurried = json!({"thanos-timeshard.io/hurried": "1970-01-01T00:00:00.000Z"});
    assert_eq!(
        sent[0].body,
        json!({"metadata": {"uid": "p1", "annotations": hurried}})
    );
    assert_eq!(
        sent[1].body,
        json!({"metadata": {"uid": "p1", "annotations": hurried, "labels": {"thanos-timeshard.io/shard": "2"}}})
    );
}

#[tokio::test]
async fn a_target_is_dropped_only_if_it_still_says_what_was_reached() {
    let (server, writer, _) = Server::answering(vec![written(), refused(422, "Invalid", "")]);
    assert_eq!(
        writer.drop_target("ns", "store", "u1", "4", 4).await,
        done()
    );
    assert_eq!(
        writer.drop_target("ns", "store", "u1", "4", 4).await,
        Outcome::Conflict
    );
    let sent = server.sent.lock().unwrap()[0].clone();
    assert_eq!(
        sent.line,
        "PATCH /apis/apps/v1/namespaces/ns/statefulsets/store/status?fieldManager=thanos-timeshard"
    );
    assert_eq!(sent.media, "application/json-patch+json");
    let patch: json_patch::Patch = serde_json::from_value(sent.body).unwrap();
    let object = |uid: &str, replicas: u32, target: &str| json!({"metadata": {"uid": uid, "annotations": {"a": "b", "thanos-timeshard.io/target-replicas": target}}, "spec": {"replicas": replicas}});
    let mut right = object("u1", 4, "4");
    json_patch::patch(&mut right, &patch).unwrap();
    assert_eq!(right["metadata"]["annotations"], json!({"a": "b"}));
    for mut other in [
        object("u2", 4, "4"),
        object("u1", 6, "4"),
        object("u1", 4, "3"),
    ] {
        assert!(json_patch::patch(&mut other, &patch).is_err(), "{other}");
    }
}

#[tokio::test]
async fn pods_are_listed_afresh_page_by_page() {
    let pod = |name: &str, more: Value| {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store", "uid": "s1", "controller": true}]);
        let mut metadata =
            json!({"name": name, "uid": format!("u-{name}"), "ownerReferences": owner});
        metadata
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let ready = json!({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T00:00:00Z"}]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}, "status": ready})
    };
    let list = |token: &str, items: Vec<Value>| {
        (
            200,
            json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"continue": token}, "items": items}),
        )
    };
    let terminating = json!({"deletionTimestamp": "2026-11-21T00:00:00Z"});
    let (server, writer, _) = Server::answering(vec![
        list("more", vec![pod("store-1", json!({}))]),
        list("", vec![pod("store-0", terminating)]),
    ]);
    let selector = Selector {
        labels: labels(),
        expressions: vec![("tier".to_owned(), "NotIn".to_owned(), vec!["a".to_owned()])],
    };
    let fresh = writer.fresh_pods("ns", &selector).await.unwrap();
    let seen: Vec<_> = fresh
        .values()
        .map(|pod| {
            (
                pod.name.as_str(),
                pod.uid.as_str(),
                pod.owner_uid.as_str(),
                pod.ready,
                pod.terminating,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("store-0", "u-store-0", "s1", true, true),
            ("store-1", "u-store-1", "s1", true, false)
        ]
    );
    let sent = server.sent.lock().unwrap().clone();
    assert!(
        sent[0].line.starts_with("GET /api/v1/namespaces/ns/pods?"),
        "{sent:?}"
    );
    assert!(
        sent[0]
            .line
            .contains("labelSelector=app%3Dstore%2Ctier+notin+%28a%29"),
        "{sent:?}"
    );
    assert!(
        !sent[0].line.contains("resourceVersion"),
        "a list from the API server's cache may be old: {sent:?}"
    );
    assert!(sent[1].line.contains("continue=more"), "{sent:?}");
}

#[tokio::test]
async fn our_budgets_are_listed_wherever_they_are() {
    let item = |namespace: &str, name: &str| {
        json!({"metadata": {"namespace": namespace, "name": name, "labels": {names::MANAGED_BY_LABEL: names::MANAGED_BY}},
        "spec": {"maxUnavailable": 0}})
    };
    let first = json!({"metadata": {"continue": "more"}, "items": [item("a", "store-shard-0")]});
    let last = json!({"metadata": {}, "items": [item("b", "store-shard-1")]});
    let (server, writer, _) = Server::answering(vec![(200, first), (200, last)]);
    let (mut budgets, token) = writer.budgets_of_ours(None, None).await.unwrap();
    let (more, end) = writer
        .budgets_of_ours(None, token.as_deref())
        .await
        .unwrap();
    budgets.extend(more);
    assert_eq!(end, None);
    let seen: Vec<_> = budgets
        .iter()
        .map(|(namespace, b)| {
            (
                namespace.as_str(),
                b.name.as_str(),
                b.ours,
                b.max_unavailable,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("a", "store-shard-0", true, Some(0)),
            ("b", "store-shard-1", true, Some(0))
        ]
    );
    let lines: Vec<String> = server
        .sent
        .lock()
        .unwrap()
        .iter()
        .map(|sent| sent.line.clone())
        .collect();
    assert!(
        lines[0].starts_with("GET /apis/policy/v1/poddisruptionbudgets?"),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .all(|line| line
                .contains("labelSelector=app.kubernetes.io%2Fmanaged-by%3Dthanos-timeshard")),
        "{lines:?}"
    );
    assert!(lines[1].contains("continue=more"), "{lines:?}");
}

#[tokio::test]
async fn with_rights_in_some_namespaces_the_budgets_of_no_other_are_listed() {
    let refused = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "no"});
    let one = json!({"metadata": {}, "items": [{"metadata": {"namespace": "b", "name": "x"}, "spec": {}}]});
    let (server, writer, _) = Server::answering(vec![(403, refused), (200, one)]);
    writer.budgets_of_ours(Some("a"), None).await.unwrap_err();
    let (budgets, _) = writer.budgets_of_ours(Some("b"), None).await.unwrap();
    assert_eq!(
        budgets
            .iter()
            .map(|(namespace, budget)| (namespace.as_str(), budget.name.as_str()))
            .collect::<Vec<_>>(),
        [("b", "x")]
    );
    let lines: Vec<String> = server
        .sent
        .lock()
        .unwrap()
        .iter()
        .map(|sent| sent.line.clone())
        .collect();
    assert!(
        lines[0].starts_with("GET /apis/policy/v1/namespaces/a/poddisruptionbudgets?"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("GET /apis/policy/v1/namespaces/b/poddisruptionbudgets?"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_being_deleted_does_not_go_on() {
    let pod = |name: &str| json!({"metadata": {"name": name}});
    let mut going = pod("timeshard-b");
    going["metadata"]["deletionTimestamp"] = json!("2026-11-21T10:00:00Z");
    for (pods, others) in [
        (vec![pod("timeshard-a"), going.clone()], 0),
        (vec![pod("timeshard-a"), going, pod("timeshard-c")], 1),
        (vec![], 0),
    ] {
        let (server, writer, _) =
            Server::answering(vec![(200, json!({"metadata": {}, "items": pods}))]);
        assert_eq!(
            writer
                .other_servers("timeshard-system", "timeshard-a")
                .await,
            Ok(others)
        );
        let line = server.only().line;
        assert!(
            line.starts_with("GET /api/v1/namespaces/timeshard-system/pods?"),
            "{line}"
        );
        assert!(line.contains("component%3Dserver"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_holds_nothing_up() {
    let (_server, writer, registry) = Server::answering(Vec::new());
    let begun = tokio::time::Instant::now();
    let outcome = writer.service("ns", &ServiceWrite::Create(service())).await;
    assert!(
        matches!(&outcome, Outcome::Failed(why) if why.contains("no answer within 2 s")),
        "{outcome:?}"
    );
    assert!(
        writer
            .fresh_pods("ns", &Selector::default())
            .await
            .unwrap_err()
            .contains("no answer within 2 s")
    );
    assert_eq!(begun.elapsed(), DEADLINE * 2);
    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &registry).unwrap();
    assert!(
        metrics.contains("timeshard_refresher_writes_total{kind=\"service\",outcome=\"failed\"} 1"),
        "{metrics}"
    );
}

#[tokio::test(start_paused = true)]
async fn all_requests_take_turns() {
    let (_server, writer, _) = Server::answering(vec![written(); 20]);
    let begun = tokio::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(
            writer.service("ns", &ServiceWrite::Create(service())).await,
            done()
        );
        assert_eq!(
            writer
                .hurry("ns", "store-0", "p1", None, DateTime::UNIX_EPOCH)
                .await,
            done()
        );
    }
    assert_eq!(
        begun.elapsed(),
        Duration::from_secs(3),
        "6 at once, 6 each of the next two seconds, 2 after another"
    );
}
