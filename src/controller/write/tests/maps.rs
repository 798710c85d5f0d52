use super::*;

#[tokio::test]
async fn a_configmap_is_created_with_its_owner() {
    let (server, writer, _) = Server::answering(vec![written()]);
    assert_eq!(
        writer.create_map("ns", "windows", &owner(), &data()).await,
        done()
    );
    let sent = server.only();
    assert_eq!(
        sent.line(),
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

/// An existing ConfigMap with `metadata`.
fn existing(metadata: &Value) -> Value {
    let mut map = json!({"metadata": metadata, "data": {"other": "x"}});
    map["metadata"]["resourceVersion"] = json!("7");
    map
}

/// Has the leader create a ConfigMap where there is one, and then adopt it. Returns whose it is,
/// the outcome, and the requests.
async fn adopt(metadata: &Value) -> (Ownership, WriteOutcome, Vec<Sent>) {
    let (server, writer, _) = Server::answering(vec![
        refused(409, "AlreadyExists", ""),
        (200, existing(metadata)),
        written(),
    ]);
    let outcome = writer.create_map("ns", "windows", &owner(), &data()).await;
    let WriteOutcome::AlreadyExists(found) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(found.resource_version, "7");
    assert_eq!(
        server.lines()[1],
        "GET /api/v1/namespaces/ns/configmaps/windows"
    );
    let adopted = writer
        .adopt_map("ns", "windows", &found, &owner(), &data())
        .await;
    (found.claim, adopted, server.sent())
}

#[tokio::test]
async fn a_configmap_without_permission_to_adopt_is_never_written() {
    for metadata in [
        json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}}),
        json!({"annotations": {"thanos-timeshard.io/adopt": "yes"}}),
        json!({}),
    ] {
        let (claim, adopted, sent) = adopt(&metadata).await;
        assert_eq!(claim, Ownership::Foreign);
        assert!(
            matches!(&adopted, WriteOutcome::Failed(why) if why.contains("thanos-timeshard.io/adopt")),
            "{adopted:?}"
        );
        assert_eq!(sent.len(), 2);
    }
}

#[tokio::test]
async fn an_adopted_configmap_keeps_its_labels_and_annotations() {
    for (metadata, want, labelled) in [
        (
            json!({"labels": {"app.kubernetes.io/managed-by": MANAGED}}),
            Ownership::Managed,
            true,
        ),
        (
            json!({"annotations": {"thanos-timeshard.io/adopt": "true"}}),
            Ownership::Adoptable,
            false,
        ),
    ] {
        let (claim, adopted, sent) = adopt(&metadata).await;
        assert_eq!(
            (claim, adopted, sent[2].media.as_str()),
            (want, done(), "application/json-patch+json")
        );
        let mut map = existing(&metadata);
        if labelled {
            map["metadata"]["labels"]["kept"] = json!("yes");
        }
        let patch: json_patch::Patch = serde_json::from_value(sent[2].body.clone()).unwrap();
        json_patch::patch(&mut map, &patch).unwrap();
        assert_eq!(
            (&map["data"], &map["metadata"]["ownerReferences"]),
            (&json!(data()), &reference())
        );
        let labels = &map["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/managed-by"], MANAGED);
        assert!(!labelled || labels["kept"] == "yes");
        assert_eq!(
            map["metadata"].get("annotations"),
            metadata.get("annotations")
        );
    }
}

#[tokio::test]
async fn a_stale_configmap_is_not_replaced() {
    for (answer, want) in [
        (written(), done()),
        (refused(409, "Conflict", ""), WriteOutcome::Conflict),
        (refused(404, "NotFound", ""), WriteOutcome::Conflict),
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
            sent.line(),
            "PATCH /api/v1/namespaces/ns/configmaps/windows?fieldManager=thanos-timeshard"
        );
        assert_eq!(
            sent.body[0],
            json!({"op": "replace", "path": "/metadata/resourceVersion", "value": "5"})
        );
    }
}
