use super::*;

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
        .iter()
        .map(|(name, pod)| (name.as_str(), pod.uid.as_str(), pod.ready, pod.terminating))
        .collect();
    assert_eq!(
        seen,
        [
            ("store-0", "u-store-0", true, true),
            ("store-1", "u-store-1", true, false)
        ]
    );
    let sent = server.sent();
    assert!(
        sent[0]
            .line()
            .starts_with("GET /api/v1/namespaces/ns/pods?"),
        "{sent:?}"
    );
    assert!(
        sent[0]
            .line()
            .contains("labelSelector=app%3Dstore%2Ctier+notin+%28a%29"),
        "{sent:?}"
    );
    assert!(
        !sent[0].line().contains("resourceVersion"),
        "a list from the API server's cache may be old: {sent:?}"
    );
    assert!(sent[1].line().contains("continue=more"), "{sent:?}");
}

#[tokio::test]
async fn managed_pdbs_are_listed_in_the_whole_cluster() {
    let item = |namespace: &str, name: &str| {
        json!({"metadata": {"namespace": namespace, "name": name, "labels": {names::MANAGED_BY_LABEL: names::MANAGED_BY}},
        "spec": {"maxUnavailable": 0}})
    };
    let first = json!({"metadata": {"continue": "more"}, "items": [item("a", "store-shard-0")]});
    let last = json!({"metadata": {}, "items": [item("b", "store-shard-1")]});
    let (server, writer, _) = Server::answering(vec![(200, first), (200, last)]);
    let (mut budgets, token) = writer.managed_budgets(None, None).await.unwrap();
    let (more, end) = writer
        .managed_budgets(None, token.as_deref())
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
    let lines = server.lines();
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
async fn with_rights_in_some_namespaces_pdbs_are_listed_only_there() {
    let one = json!({"metadata": {}, "items": [{"metadata": {"namespace": "b", "name": "x"}, "spec": {}}]});
    let (server, writer, _) = Server::answering(vec![refused(403, "Forbidden", ""), (200, one)]);
    writer.managed_budgets(Some("a"), None).await.unwrap_err();
    let (budgets, _) = writer.managed_budgets(Some("b"), None).await.unwrap();
    assert_eq!(
        budgets
            .iter()
            .map(|(namespace, budget)| (namespace.as_str(), budget.name.as_str()))
            .collect::<Vec<_>>(),
        [("b", "x")]
    );
    let lines = server.lines();
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
async fn a_terminating_server_does_not_count() {
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
        let line = server.only().line();
        assert!(
            line.starts_with("GET /api/v1/namespaces/timeshard-system/pods?"),
            "{line}"
        );
        assert!(line.contains("component%3Dserver"), "{line}");
    }
}

#[tokio::test]
async fn configured_queriers_are_listed_once_with_what_is_missing() {
    let pod = |name: &str, ip: &str| {
        let args = ["query", "--http-address=:9090"];
        let containers = json!([{"name": "query", "image": "thanos", "args": args}]);
        json!({"metadata": {"name": name, "uid": name}, "spec": {"containers": containers}, "status": {"podIP": ip}})
    };
    let list = |token: &str, items: Vec<Value>| {
        let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"continue": token}, "items": items});
        (200, list)
    };
    let pods = vec![pod("a", "10.0.0.1"), pod("b", ""), pod("c", "10.0.0.3")];
    let (server, writer, _) = Server::answering(vec![
        list("", pods),
        list("more", vec![]),
        refused(403, "Forbidden", ""),
        refused(500, "InternalError", ""),
    ]);
    let found = writer.querier_pods("thanos", "app=query,tier in (a)", 33);
    let found = found.await.unwrap();
    let seen: Vec<_> = found
        .iter()
        .map(|one| (one.name.as_str(), one.port))
        .collect();
    assert_eq!(seen, [("a", Some(9090)), ("c", Some(9090))]);
    let sent = server.sent();
    assert!(
        sent[0]
            .line()
            .starts_with("GET /api/v1/namespaces/thanos/pods?")
            && sent[0]
                .line()
                .contains("labelSelector=app%3Dquery%2Ctier+in+%28a%29"),
        "{sent:?}"
    );
    for part in [
        "more than 100 pods",
        "may not list pods in namespace thanos",
        "its pods cannot be listed",
    ] {
        let why = writer.querier_pods("thanos", "x", 33).await.unwrap_err();
        assert!(why.contains(part), "{why}");
    }
}
