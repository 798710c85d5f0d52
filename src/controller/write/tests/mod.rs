mod lists;
mod maps;

use std::sync::{Arc, Mutex};

use serde_json::json;

use super::*;
use crate::core::kube::observed::Selector;
use crate::core::rollout::budgets::{Budget, Limit};
use crate::core::rollout::services::ShardService;
use crate::testing::api_server::{self, Sent};

/// Records requests and answers them with the given answers, in order; then it hangs.
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
        let client = api_server::client("default", move |sent| service.clone().answer(sent));
        let mut registry = Registry::default();
        let writer = Writer::new(client, &mut registry);
        (server, writer, registry)
    }

    async fn answer(self, sent: Sent) -> (u16, Value) {
        self.sent.lock().unwrap().push(sent);
        let left = self.answers.lock().unwrap().len();
        if left == 0 {
            return std::future::pending().await;
        }
        self.answers.lock().unwrap().remove(0)
    }

    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.sent().iter().map(Sent::line).collect()
    }

    fn only(&self) -> Sent {
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent[0].clone()
    }
}

fn written() -> (u16, Value) {
    (200, json!({"metadata": {"resourceVersion": "9"}}))
}

fn refused(code: u16, reason: &str, field: &str) -> (u16, Value) {
    let (code, mut status) = api_server::status(code, reason, "no");
    let cause = json!({"reason": "FieldValueInvalid", "message": "immutable", "field": field});
    status["details"] = json!({"causes": [cause]});
    (code, status)
}

fn done() -> WriteOutcome {
    WriteOutcome::Done {
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
        sent.line(),
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
        object: budget(Limit::Closed),
    };
    assert_eq!(writer.budget("ns", &write).await, done());
    let sent = server.only();
    assert_eq!(
        sent.line(),
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
async fn a_service_is_headless_with_the_port_that_queriers_use() {
    let (server, writer, _) = Server::answering(vec![written(), written()]);
    assert_eq!(
        writer.service("ns", &ServiceWrite::Create(service())).await,
        done()
    );
    let write = ServiceWrite::Replace {
        resource_version: "5".to_owned(),
        object: service(),
    };
    assert_eq!(writer.service("ns", &write).await, done());
    let sent = server.sent();
    assert_eq!(
        sent[0].line(),
        "POST /api/v1/namespaces/ns/services?fieldManager=thanos-timeshard"
    );
    assert_eq!(
        sent[1].line(),
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
async fn only_the_version_that_was_seen_is_deleted() {
    let gone = WriteOutcome::Done {
        resource_version: String::new(),
    };
    for (answer, want) in [
        (
            (200, json!({"kind": "Status", "status": "Success"})),
            gone.clone(),
        ),
        (refused(404, "NotFound", ""), gone),
        (refused(409, "Conflict", ""), WriteOutcome::Conflict),
        (
            refused(403, "Forbidden", ""),
            WriteOutcome::Failed("no (HTTP 403)".to_owned()),
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
        let sent = server.sent();
        assert_eq!(
            sent[0].line(),
            "DELETE /apis/policy/v1/namespaces/ns/poddisruptionbudgets/store-shard-2"
        );
        assert_eq!(
            sent[1].line(),
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
async fn a_pod_is_nudged_through_its_status_and_only_the_pod_that_was_seen() {
    let (server, writer, _) = Server::answering(vec![
        written(),
        refused(422, "Invalid", "metadata.uid"),
        refused(422, "Invalid", "spec"),
    ]);
    let at = DateTime::UNIX_EPOCH;
    assert_eq!(writer.nudge("ns", "store-0", "p1", None, at).await, done());
    assert_eq!(
        writer.nudge("ns", "store-0", "p1", Some("2"), at).await,
        WriteOutcome::Conflict
    );
    assert!(matches!(
        writer.nudge("ns", "store-0", "p1", None, at).await,
        WriteOutcome::Failed(_)
    ));
    let sent = server.sent();
    assert_eq!(
        sent[0].line(),
        "PATCH /api/v1/namespaces/ns/pods/store-0/status?fieldManager=thanos-timeshard"
    );
    assert_eq!(sent[0].media, "application/merge-patch+json");
    let nudged = json!({"thanos-timeshard.io/hurried": "1970-01-01T00:00:00.000Z"});
    assert_eq!(
        sent[0].body,
        json!({"metadata": {"uid": "p1", "annotations": nudged}})
    );
    assert_eq!(
        sent[1].body,
        json!({"metadata": {"uid": "p1", "annotations": nudged, "labels": {"thanos-timeshard.io/shard": "2"}}})
    );
}

#[tokio::test]
async fn a_target_is_dropped_only_if_it_is_unchanged() {
    let (server, writer, _) = Server::answering(vec![written(), refused(422, "Invalid", "")]);
    assert_eq!(
        writer.drop_target("ns", "store", "u1", "4", 4).await,
        done()
    );
    assert_eq!(
        writer.drop_target("ns", "store", "u1", "4", 4).await,
        WriteOutcome::Conflict
    );
    let sent = server.sent()[0].clone();
    assert_eq!(
        sent.line(),
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

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_delays_nothing() {
    let (_server, writer, registry) = Server::answering(Vec::new());
    let begun = tokio::time::Instant::now();
    let outcome = writer.service("ns", &ServiceWrite::Create(service())).await;
    assert!(
        matches!(&outcome, WriteOutcome::Failed(why) if why.contains("no answer within 2 s")),
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
                .nudge("ns", "store-0", "p1", None, DateTime::UNIX_EPOCH)
                .await,
            done()
        );
    }
    assert_eq!(
        begun.elapsed(),
        Duration::from_secs(3),
        "6 immediately, 6 in each of the next two seconds, then 2"
    );
}
