//! Reviews of pods and of StatefulSets.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use thanos_timeshard::core::admission::notice::{MAX_WARNING_CHARS, MAX_WARNINGS_CHARS};
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::gateways::Gateways;
use thanos_timeshard::core::kube::statefulset::StatefulSetFacts;
use thanos_timeshard::core::model::entry::Entry;
use thanos_timeshard::webhook::{GuardOutcome, ReviewVerdict, Reviewer};

use crate::now;

/// Of a response, besides what it repeats of its request.
const MAX_OWN_BYTES: usize = 64 * 1024;
/// A patch repeats lists of the request, escaped and in base64. Bytes for each byte of the request.
const MAX_GROWTH: usize = 16;

/// A server that has observed `monitoring/store`, with six pods and their published windows.
static REVIEWER: LazyLock<Reviewer> = LazyLock::new(|| {
    let annotations = BTreeMap::from([(
        "thanos-timeshard.io/total-shards".to_owned(),
        "3".to_owned(),
    )]);
    let facts = StatefulSetFacts {
        namespace: "monitoring".to_owned(),
        name: "store".to_owned(),
        uid: "0f8a1c52-3f54-4a53-9b67-1a2b3c4d5e6f".to_owned(),
        replicas: 6,
        annotations,
        generation_observed: true,
        store: true,
        partition: Some(0),
        ..StatefulSetFacts::default()
    };
    let fleet = Gateways::new(Arc::new(Config::default()))
        .with_statefulset(facts)
        .expect("a new StatefulSet");
    let plan = fleet.known("monitoring", "store").plan.clone();
    let entries: HashMap<String, Entry> = (0..6)
        .map(|pod| (pod, plan.assign(pod)))
        .map(|(pod, at)| {
            (
                format!("store-{pod}"),
                Entry::new(at.shard, at.replica, plan.window(at.shard, now())),
            )
        })
        .collect();
    let fleet = fleet.with_configmap("monitoring", "store-time-shards", entries);
    Reviewer::new(Arc::new(ArcSwap::from_pointee(fleet)), now)
});

/// Reads a response and checks its uid, size and warnings.
fn checked(input: &[u8], answer: &[u8]) -> Value {
    assert!(
        answer.len() <= MAX_OWN_BYTES + MAX_GROWTH * input.len(),
        "{} bytes for {}",
        answer.len(),
        input.len()
    );
    let answer: Value = serde_json::from_slice(answer).expect("a response is JSON");
    assert_eq!(
        (&answer["kind"], &answer["apiVersion"]),
        (&json!("AdmissionReview"), &json!("admission.k8s.io/v1"))
    );
    let response = answer["response"].clone();
    // Parts that the reader skips may be refused by a strict reader, such as a number that no type
    // can represent.
    if let Ok(review) = serde_json::from_slice::<Value>(input) {
        assert_eq!(response["uid"], review["request"]["uid"]);
    }
    assert!(response["uid"].as_str().is_some_and(|uid| !uid.is_empty()));
    let warnings: Vec<usize> = response["warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|warning| warning.as_str().expect("a text").chars().count())
        .collect();
    assert!(
        warnings
            .iter()
            .all(|chars| (1..=MAX_WARNING_CHARS).contains(chars)),
        "{response}"
    );
    assert!(
        warnings.iter().sum::<usize>() <= MAX_WARNINGS_CHARS,
        "{response}"
    );
    response
}

fn is_a_sentence(why: &str) {
    assert!(!why.is_empty() && why.len() <= 2_000, "{why}");
}

/// A review of a pod: the response has its uid, the patch applies, and the patched pod needs no
/// further patch.
pub fn review(input: &[u8]) {
    let answer = REVIEWER.review(input);
    let body = match &answer.body {
        Ok(body) => body,
        Err(why) => {
            assert_eq!(answer.verdict, ReviewVerdict::Error);
            return is_a_sentence(why);
        }
    };
    let response = checked(input, body);
    assert!(answer.notices.len() <= 8);
    assert_eq!(
        response["allowed"],
        json!(answer.verdict != ReviewVerdict::Denied)
    );
    let Some(patch) = response["patch"].as_str() else {
        assert_ne!(answer.verdict, ReviewVerdict::Injected);
        return;
    };
    assert_eq!(answer.verdict, ReviewVerdict::Injected);
    let patch = STANDARD.decode(patch).expect("base64");
    let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a JSON patch");
    let Ok(mut review) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    json_patch::patch(&mut review["request"]["object"], &patch)
        .expect("a patch applies to its object");
    let again = REVIEWER.review(review.to_string().as_bytes());
    let response: Value =
        serde_json::from_slice(&again.body.expect("an injected pod is answered")).expect("JSON");
    let left = response["patch"]
        .as_str()
        .map(|patch| String::from_utf8(STANDARD.decode(patch).expect("base64")).expect("JSON"));
    assert!(
        left.as_deref().is_none_or(|left| left == "[]"),
        "injected again: {left:?}\nfirst {}",
        json!(patch)
    );
}

/// A review of a StatefulSet or its scale: the response has its uid and no patch, and is the same a
/// second time.
pub fn statefulset_review(input: &[u8]) {
    let answer = REVIEWER.guard(input);
    let body = match &answer.body {
        Ok(body) => body,
        Err(why) => {
            assert_eq!(answer.outcome, GuardOutcome::Error);
            return is_a_sentence(why);
        }
    };
    let response = checked(input, body);
    assert!(response.get("patch").is_none());
    assert_eq!(
        response["allowed"],
        json!(!matches!(answer.outcome, GuardOutcome::Denied(_)))
    );
    if let GuardOutcome::Denied(_) = answer.outcome {
        assert_eq!(response["status"]["code"], 403);
        let message = response["status"]["message"]
            .as_str()
            .expect("a refusal has a message");
        assert!(!message.is_empty() && message.len() <= MAX_OWN_BYTES);
        // Only published windows can be lost.
        let review: Option<Value> = serde_json::from_slice(input).ok();
        assert!(
            review.is_none_or(|review| review["request"]["namespace"] == "monitoring"),
            "refused: {message}"
        );
    }
    assert_eq!(REVIEWER.guard(input).body.as_ref(), Ok(body));
}
