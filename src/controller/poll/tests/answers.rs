//! Reading the answers of sidecars.

use super::*;

#[test]
fn documents_of_other_versions_are_read_and_nonsense_is_recognised() {
    let target = target("ns", &pod(0, "10.0.0.1"), Who::Pods)
        .unwrap()
        .unwrap();
    let ask = |document: &Value| read(&target, Ok((200, Bytes::from(document.to_string()))));
    let why = |answer| match answer {
        PodAnswer::Unreachable(why) => why,
        PodAnswer::Status(status) => panic!("{status:?}"),
    };
    let mut newer = document("store-0", "serving");
    (newer["contract"], newer["news"]) = (json!(3), json!({}));
    assert!(matches!(ask(&newer), PodAnswer::Status(status) if status.contract == 3));
    newer["phase"] = json!("dreaming");
    assert!(why(ask(&newer)).contains("has contract 3, this server 2"));
    assert!(why(ask(&json!({"pod": 1}))).contains("not a status document"));
    assert!(
        why(ask(&document("store-5", "serving"))).contains("now belongs to a pod of another name")
    );
    let mut long = document("store-0", "serving");
    long["last_error"] = json!("x".repeat(60_000));
    assert!(
        matches!(ask(&long), PodAnswer::Status(status) if status.last_error.as_ref().unwrap().len() < 600)
    );
    // Anyone who can set an address could read through it what answers there.
    for secret in [
        json!({"phase": "s3cret"}),
        json!({"s3cret": {}}),
        json!("s3cret"),
        json!({"pod": "s3cret"}),
        json!({"uid": "s3cret"}),
    ] {
        let mut leaking = document("store-0", "serving");
        match secret.as_object() {
            Some(fields) => leaking.as_object_mut().unwrap().extend(fields.clone()),
            None => leaking = secret.clone(),
        }
        if secret.get("s3cret").is_some() {
            leaking["restarts"] = json!("s3cret");
        }
        let why = why(ask(&leaking));
        assert!(!why.contains("s3cret"), "{why}");
    }
    assert!(!why(read(&target, Ok((200, Bytes::from("s3cret"))))).contains("s3cret"));
    assert!(!why(read(&target, Ok((401, Bytes::from("s3cret"))))).contains("s3cret"));
    for answer in [Ok((503, Bytes::new())), Err("refused".to_owned())] {
        let why = why(read(&target, answer));
        assert!(
            ["10908", "NetworkPolicy", "service mesh"]
                .iter()
                .all(|cause| why.contains(cause)),
            "{why}"
        );
    }
}

#[test]
fn a_pod_of_the_same_name_is_recognised() {
    let target = target("ns", &pod(0, "10.0.0.1"), Who::Pods)
        .unwrap()
        .unwrap();
    let ask = |namespace: Value, uid: Value| {
        let mut document = document("store-0", "serving");
        (document["namespace"], document["uid"]) = (namespace, uid);
        match read(&target, Ok((200, Bytes::from(document.to_string())))) {
            PodAnswer::Unreachable(why) => Some(why),
            PodAnswer::Status(_) => None,
        }
    };
    let (null, long) = (|| Value::Null, "x".repeat(60_000));
    for (namespace, uid, other) in [
        (null(), null(), None),
        (json!("ns"), null(), None),
        (json!("ns"), json!("u0"), None),
        (null(), json!("u0"), None),
        // The UID decides.
        (json!("elsewhere"), json!("u0"), None),
        (
            json!("elsewhere"),
            null(),
            Some("a pod of the same name in another namespace"),
        ),
        (
            json!("ns"),
            json!("u7"),
            Some("another pod of the same name"),
        ),
        (
            json!("b"),
            json!("u7"),
            Some("a pod of the same name in another namespace"),
        ),
        (
            json!(long),
            json!(long),
            Some("a pod of the same name in another namespace"),
        ),
    ] {
        let other = other.map(|other| format!("pod store-0: its address now belongs to {other}"));
        assert_eq!(
            ask(namespace.clone(), uid.clone()),
            other,
            "{namespace} {uid}"
        );
    }
}

#[test]
fn the_blocks_in_an_answer_are_bounded() {
    let target = target("ns", &pod(0, "10.0.0.1"), Who::Pods)
        .unwrap()
        .unwrap();
    let ask = |blocks: Value| {
        let mut document = document("store-0", "serving");
        (
            document["contract"],
            document["blocks"],
            document["blocks_unknown"],
        ) = (json!(2), blocks, json!("y".repeat(10_000)));
        match read(&target, Ok((200, Bytes::from(document.to_string())))) {
            PodAnswer::Status(status) => status,
            PodAnswer::Unreachable(why) => panic!("{why}"),
        }
    };
    let block =
        |ulid: &str, min: &str, max: &str| json!({"ulid": ulid, "min_time": min, "max_time": max});
    let (ulid, from, to) = (
        "01K1H8R1000000000000A1B2C3",
        "2026-07-23T00:00:00Z",
        "2026-08-06T00:00:00Z",
    );
    let blocks = |missing: Vec<Value>, total: usize| json!({"expected": 1_000, "loaded": 1_000 - total, "missing_total": total, "missing": missing});
    let good = ask(blocks(vec![block(ulid, from, to)], 1));
    assert_eq!(good.blocks.as_ref().unwrap().missing[0].ulid, ulid);
    assert!(good.blocks_unknown.as_ref().unwrap().chars().count() < 600);
    assert!(
        ask(blocks(vec![block(ulid, from, to); MAX_MISSING], 900))
            .blocks
            .is_some_and(|blocks| blocks.is_cut())
    );
    for (missing, total, words) in [
        (
            vec![block(ulid, from, to); MAX_MISSING + 1],
            300,
            "more missing blocks than it may",
        ),
        (vec![block("x", from, to)], 1, "something other than a ULID"),
        (
            vec![block("../../../../../etc/hosts/x", from, to)],
            1,
            "something other than a ULID",
        ),
        (vec![block(ulid, to, from)], 1, "ends before it begins"),
    ] {
        let status = ask(blocks(missing, total));
        assert!(
            status.blocks.is_none()
                && status
                    .blocks_unknown
                    .as_ref()
                    .is_some_and(|why| why.contains(words)),
            "{words}: {status:?}"
        );
    }
}
