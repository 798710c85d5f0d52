//! Objects of any shape: no snapshot panics.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::objects::ConfigText;
use super::super::snapshot::Certificate;
use super::super::{ServerStatus, run};
use super::fixture::{
    certificate, healthy, querier, read, reported, statefulset, status_document, webhook,
};
use crate::testing::cases;

/// Values that some check reads, so that random objects reach far.
fn token() -> impl Strategy<Value = String> {
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
    prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        ".{0,12}"
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        token().prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(token(), inner, 0..4).prop_map(|map| json!(map))
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
    #![proptest_config(cases(64))]

    #[test]
    fn nothing_panics(
        edits in prop::collection::vec((prop::collection::vec(any::<usize>(), 1..8), tree()), 1..4),
        answer in tree(), report in tree(), text in ".{0,80}", ahead in any::<i64>(), end in any::<i64>(), words in prop::collection::vec(token(), 0..5),
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
        if let Ok(read) = ServerStatus::parse(document.to_string().as_bytes()) { s.status = Ok(read); }
        let found = run(&s);
        prop_assert!(found.findings.iter().all(|finding| !finding.message.is_empty()));
    }
}
