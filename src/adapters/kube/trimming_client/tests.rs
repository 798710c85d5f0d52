use std::convert::Infallible;

use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Method;
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};

use super::*;
use crate::adapters::kube::partial::Partial;
use crate::core::model::names;

/// The trimmed answer, and the most bytes that were passed on in one piece.
async fn trimmed(method: Method, uri: &str, status: u16, answer: String) -> (String, usize) {
    let service = tower::service_fn(move |_: Request<()>| {
        let pieces: Vec<Bytes> = answer
            .as_bytes()
            .chunks(8 * 1024)
            .map(Bytes::copy_from_slice)
            .collect();
        let body = StreamBody::new(stream::iter(
            pieces
                .into_iter()
                .map(|piece| Ok::<_, Infallible>(Frame::data(piece))),
        ));
        let answer = Response::builder().status(status).body(body).unwrap();
        async { Ok::<_, Infallible>(answer) }
    });
    let mut client = Trimmed::default().layer(service);
    let request = Request::builder().method(method).uri(uri).body(()).unwrap();
    let mut body = client.call(request).await.unwrap().into_body();
    let (mut all, mut most) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        most = most.max(data.len());
        all.extend_from_slice(&data);
    }
    (String::from_utf8(all).unwrap(), most)
}

/// StatefulSets of a megabyte, each in another field.
fn large() -> Vec<Value> {
    let text = "<\u{1}é".repeat(200_000);
    let labels: serde_json::Map<String, Value> = (0..20_000)
        .map(|n| (format!("label-{n}"), json!("x")))
        .collect();
    let set = |change: &dyn Fn(&mut Value)| {
        let mut set = json!({"metadata": {"name": "large", "uid": "u", "resourceVersion": "5"}, "spec": {"replicas": 0, "selector": {},
            "template": {"spec": {"containers": [{"name": "c", "image": "i", "args": ["store"]}]}}}});
        change(&mut set);
        set
    };
    vec![
        set(&|set| set["metadata"]["annotations"] = json!({"someone/else": text})),
        set(&|set| set["metadata"]["managedFields"] = json!([{"fieldsV1": {"f:x": text}}])),
        set(&|set| {
            set["spec"]["template"]["spec"]["containers"][0]["env"] =
                json!([{"name": "x", "value": text}]);
        }),
        set(&|set| set["spec"]["template"]["metadata"] = json!({"annotations": {"x": text}})),
        set(&|set| {
            set["metadata"]["annotations"] = json!({"thanos-timeshard.io/boundaries": text});
        }),
        set(&|set| set["metadata"]["labels"] = json!(labels)),
        set(&|set| set["spec"]["selector"] = json!({"matchLabels": labels})),
        set(&|set| set["spec"]["template"]["spec"]["containers"][0]["args"] = json!([text])),
    ]
}

#[tokio::test]
async fn a_page_of_large_objects_is_small() {
    let items: Vec<Value> = large().into_iter().cycle().take(48).collect();
    // As Kubernetes writes it.
    let page = json!({"kind": "StatefulSetList", "apiVersion": "apps/v1", "metadata": {"resourceVersion": "9"}, "items": items});
    let page = page.to_string().replace('<', "\\u003c");
    assert!(page.len() > 48 * 1_000_000);
    let (all, most) = trimmed(
        Method::GET,
        "/apis/apps/v1/namespaces/ns/statefulsets?limit=50",
        200,
        page,
    )
    .await;
    assert!(
        all.len() < 48 * MAX_OBJECT_BYTES / 4 && most <= MAX_OBJECT_BYTES + 16 * 1024,
        "{} bytes, {most} at once",
        all.len()
    );
    let list: Value = serde_json::from_str(&all).unwrap();
    let sets: Vec<Partial<StatefulSet>> = serde_json::from_value(list["items"].clone()).unwrap();
    assert!(
        sets.iter()
            .all(|set| set.0.metadata.name.as_deref() == Some("large")
                && set.0.metadata.resource_version.is_some())
    );
    assert!(sets.chunks(8).all(|sets| {
        sets.iter()
            .map(|set| set.1)
            .eq([false, false, false, false, true, true, true, true])
    }));
    assert_eq!(list["metadata"]["resourceVersion"], "9");
}

#[tokio::test]
async fn a_watch_and_an_answer_to_a_write_are_small() {
    let event = |set: Value| format!("{}\n", json!({"type": "MODIFIED", "object": set}));
    let lines: String = large().into_iter().map(event).collect();
    let (all, _) = trimmed(
        Method::GET,
        "/apis/apps/v1/namespaces/ns/statefulsets?watch=true",
        200,
        lines,
    )
    .await;
    assert_eq!(all.lines().count(), 8);
    assert!(
        all.len() < 64 * 1024
            && all
                .lines()
                .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
    let map = json!({"metadata": {"name": "m", "resourceVersion": "5", "labels": {names::MANAGED_BY_LABEL: "x", "a": "b"}}, "data": {"x": "y".repeat(1_000_000)}});
    let (all, _) = trimmed(
        Method::PATCH,
        "/api/v1/namespaces/ns/configmaps/m",
        200,
        map.to_string(),
    )
    .await;
    assert_eq!(all, json!({"metadata": {"name": "m", "resourceVersion": "5", "labels": {names::MANAGED_BY_LABEL: "x"}}}).to_string());
    let (all, _) = trimmed(
        Method::GET,
        "/api/v1/namespaces/ns/configmaps/m",
        200,
        map.to_string(),
    )
    .await;
    assert_eq!(
        serde_json::from_str::<Value>(&all).unwrap()["data"],
        map["data"]
    );
    let (all, _) = trimmed(
        Method::PATCH,
        "/api/v1/namespaces/ns/configmaps/m",
        422,
        "z".repeat(3_000_000),
    )
    .await;
    assert_eq!(all.len(), MAX_REFUSAL_BYTES);
    // What no tenant writes is not touched.
    let (all, _) = trimmed(
        Method::GET,
        "/apis/coordination.k8s.io/v1/namespaces/ns/leases/x",
        200,
        map.to_string(),
    )
    .await;
    assert_eq!(all, map.to_string());
}

#[tokio::test]
async fn few_large_bodies_are_read_at_a_time() {
    let service = tower::service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(StreamBody::new(stream::pending::<
            Result<Frame<Bytes>, Infallible>,
        >())))
    });
    let mut client = Trimmed::default().layer(service);
    let mut list = |uri: &'static str| client.call(Request::builder().uri(uri).body(()).unwrap());
    let mut held = Vec::new();
    for _ in 0..BULK {
        held.push(list("/api/v1/namespaces/a/pods?limit=50").await.unwrap());
    }
    let mut waits = list("/api/v1/namespaces/b/services?limit=50");
    assert!(futures::poll!(&mut waits).is_pending());
    assert!(
        futures::poll!(list("/api/v1/namespaces/b/services?watch=true")).is_ready(),
        "a watch holds no place"
    );
    held.pop();
    assert!(futures::poll!(&mut waits).is_ready());
}
