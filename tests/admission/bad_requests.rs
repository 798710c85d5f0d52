//! Requests that no API server sends: each gets a clear HTTP error or a well-formed denial, and the
//! next good one succeeds.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use proptest::test_runner::{RngAlgorithm, TestRng};
use rand::{Rng as _, RngExt as _};
use serde_json::{Value, json};
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::gateways::Gateways;
use thanos_timeshard::webhook::Reviewer;

use crate::server::{Server, answer, post_to, review_of};

fn server() -> Server {
    Server::start(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config.yaml"))
}

fn store() -> Value {
    json!({"metadata": {"name": "store-0", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "store"}]},
        "spec": {"containers": [{"name": "t", "image": "thanos", "args": ["store", "--data-dir=/d"]}]}})
}

#[test]
fn a_body_that_is_no_review_gets_a_sentence() {
    let mut server = server();
    let with = |change: fn(&mut Value)| {
        let mut review = review_of(&store());
        change(&mut review);
        review.to_string()
    };
    for (body, words) in [
        (String::new(), "the body is empty"),
        ("not json".to_owned(), "not an AdmissionReview"),
        ("[]".to_owned(), "expected kind \"AdmissionReview\""),
        ("{}".to_owned(), "expected kind \"AdmissionReview\""),
        (
            with(|review| review["kind"] = json!("Pod")),
            "the body is kind \"Pod\"",
        ),
        (
            with(|review| review["apiVersion"] = json!("admission.k8s.io/v1beta1")),
            "apiVersion \"admission.k8s.io/v1beta1\"",
        ),
        (
            with(|review| drop(review.as_object_mut().unwrap().remove("request"))),
            "has no request",
        ),
        (
            with(|review| review["request"]["uid"] = json!("")),
            "has no uid",
        ),
        (
            with(|review| drop(review["request"].as_object_mut().unwrap().remove("uid"))),
            "has no uid",
        ),
        (
            review_of(&store()).to_string() + "{}",
            "trailing characters",
        ),
    ] {
        let (status, text) = server.post(body.as_bytes());
        assert_eq!(status, 400, "{body}: {text}");
        assert!(text.contains(words), "{body}: {text}");
    }
    server.assert_well();
}

#[test]
fn an_unreadable_pod_is_denied_by_uid() {
    let mut server = server();
    for pod in [
        json!(null),
        json!("pod"),
        json!({"spec": {"containers": "none"}}),
        json!({"metadata": {"labels": []}}),
    ] {
        let response = server.review(&pod);
        assert_eq!(response["allowed"], false, "{pod}");
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains("pod"), "{message}");
    }
    server.assert_well();
}

#[test]
fn anything_but_the_creation_of_a_pod_is_allowed() {
    let mut server = server();
    for (key, value) in [
        ("operation", json!("UPDATE")),
        ("operation", json!("DELETE")),
        ("subResource", json!("exec")),
        (
            "kind",
            json!({"group": "apps", "version": "v1", "kind": "StatefulSet"}),
        ),
    ] {
        let mut review = review_of(&store());
        review["request"][key] = value;
        review["request"]["object"] = json!({"spec": {"containers": "anything"}});
        let (status, body) = server.post(review.to_string().as_bytes());
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status, &answer["response"]["allowed"]),
            (200, &json!(true)),
            "{key}"
        );
        assert!(answer["response"].get("patch").is_none());
    }
    server.assert_well();
}

#[test]
fn other_paths_and_methods_are_named() {
    let mut server = server();
    for (request, want) in [("GET /mutate", 405), ("POST /", 404), ("PUT /mutate", 405)] {
        let mut stream = server.tls();
        write!(
            stream,
            "{request} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        )
        .unwrap();
        assert_eq!(answer(&mut stream).0, want, "{request}");
    }
    server.assert_well();
}

#[test]
fn eight_mebibytes_are_refused() {
    let mut server = server();
    let (status, text) = server.post(&vec![b' '; 8 << 20]);
    assert_eq!(status, 413, "{text}");
    let mut stream = server.tls();
    stream
        .write_all(b"POST /mutate HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    // The server may close as soon as it has had enough.
    let _ = (0..8)
        .try_for_each(|_| stream.write_all(&chunk))
        .and_then(|()| stream.write_all(b"0\r\n\r\n"));
    assert_eq!(answer(&mut stream).0, 413);
    server.assert_well();
}

#[test]
fn a_body_that_never_ends_is_given_up() {
    let mut server = server();
    let mut stream = server.tls();
    stream
        .write_all(b"POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        .unwrap();
    stream.flush().unwrap();
    let (status, text) = answer(&mut stream);
    assert_eq!(status, 408, "{text}");
    server.assert_well();
}

#[test]
fn an_announced_body_that_is_too_large_is_refused_immediately() {
    let mut server = server();
    let mut stream = server.tls();
    stream.write_all(b"POST /mutate HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 80000000\r\n\r\n").unwrap();
    stream.flush().unwrap();
    assert_eq!(answer(&mut stream).0, 413);
    server.assert_well();
}

#[test]
fn half_open_tls_and_plain_http_do_not_hang() {
    let mut server = server();
    let mut half = server.tcp();
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])
        .unwrap();
    let mut plain = server.tcp();
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    server.assert_well();
    for (name, mut stream) in [("plain", plain), ("half", half)] {
        let mut rest = Vec::new();
        // An end or a reset, but not a time-out of this side.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "{name}: {error}"
            );
        }
    }
    server.assert_well();
}

/// One mutation in this many also goes over the socket.
const SOCKET_SHARE: u32 = 100;

pub(crate) fn reviewer() -> Reviewer {
    let gateways = Gateways::new(Arc::new(Config::default()));
    Reviewer::new(Arc::new(ArcSwap::from_pointee(gateways)), || {
        chrono::DateTime::UNIX_EPOCH
    })
}

/// Checks what answers a mutated review, each hundredth over the socket as well. Seeded by the
/// mutation's number, so that a failure can be repeated.
pub(crate) fn assert_mutations_are_answered(
    (good, mutations): (&Value, u32),
    path: &str,
    review: impl Fn(&[u8]) -> Result<Vec<u8>, String>,
    is_answer: impl Fn(&Value) -> bool,
) {
    let mut server = server();
    let mut stream = server.tls();
    let good = good.to_string().into_bytes();
    let (mut answered, mut refused) = (0, 0);
    for seed in 0..mutations {
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes(seed));
        let body = mutated(&good, &mut rng);
        let shown = || format!("seed {seed}: {}", String::from_utf8_lossy(&body));
        let answer = review(&body);
        match &answer {
            Ok(bytes) => {
                let answer: Value =
                    serde_json::from_slice(bytes).unwrap_or_else(|_| panic!("{}", shown()));
                assert!(is_answer(&answer["response"]), "{}: {answer}", shown());
                answered += 1;
            }
            Err(why) => {
                assert!(!why.trim().is_empty(), "{}", shown());
                refused += 1;
            }
        }
        if seed % SOCKET_SHARE == 0 {
            let status = post_to(&mut stream, path, &body).0;
            assert_eq!(
                status,
                if answer.is_ok() { 200 } else { 400 },
                "{}",
                shown()
            );
        }
    }
    assert!(answered > 100 && refused > 100, "{answered} {refused}");
    server.assert_well();
}

#[test]
fn ten_thousand_mutations_of_good_reviews_are_all_answered() {
    let reviewer = reviewer();
    assert_mutations_are_answered(
        (&review_of(&store()), 10_000),
        "/mutate",
        |body| reviewer.review(body).body,
        |response| response["uid"].is_string() && response["allowed"].is_boolean(),
    );
}

fn seed_bytes(seed: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    bytes
}

fn mutated(good: &[u8], rng: &mut TestRng) -> Vec<u8> {
    const PIECES: [&[u8]; 10] = [
        b"null",
        b"{}",
        b"[]",
        b"\"\"",
        b"-1",
        b"1e999",
        b"\"\\ud800\"",
        b"true",
        b"\xff",
        b"\"store\"",
    ];
    let mut body = good.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..body.len());
        let end = (at + rng.random_range(1..12)).min(body.len());
        match rng.random_range(0..5) {
            0 => body[at] = rng.next_u32().to_le_bytes()[0],
            1 => drop(body.drain(at..end)),
            2 => {
                let piece = PIECES[rng.random_range(0..PIECES.len())];
                body.splice(at..at, piece.iter().copied());
            }
            3 => {
                let copy = body[at..end].to_vec();
                body.splice(at..at, copy);
            }
            _ => {
                // Replaces a complete value, so that the review stays JSON and only its meaning
                // changes.
                if let Some(colon) = body[at..]
                    .iter()
                    .position(|byte| *byte == b':')
                    .map(|i| at + i + 1)
                {
                    let stop = body[colon..]
                        .iter()
                        .position(|byte| matches!(byte, b',' | b'}'))
                        .map_or(body.len(), |i| colon + i);
                    body.splice(colon..stop, PIECES[rng.random_range(0..8)].iter().copied());
                }
            }
        }
        if body.is_empty() {
            break;
        }
    }
    body
}
