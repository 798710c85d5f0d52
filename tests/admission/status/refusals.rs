//! What is asked for wrongly, and answers that cannot be shown.

use super::*;

fn healthy() -> String {
    document(&[settled()]).to_string()
}

#[test]
fn what_cannot_be_shown_is_a_sentence() {
    let late = json!({"namespace": "monitoring", "name": "store", "state": "dancing"});
    let follower = json!({"version": "1", "namespaces": ["monitoring"], "statefulsets": [], "leader": {"holder": "timeshard-b", "self": false}});
    for (answer, args, words) in [
        (
            (200, healthy()),
            vec!["absent"],
            "no StatefulSet absent in labelled namespaces; there are: monitoring/store",
        ),
        (
            (200, healthy()),
            vec!["store", "-n", "other"],
            "kubectl label namespace other thanos-timeshard.io/injection=enabled",
        ),
        (
            (200, healthy()),
            vec!["-n", "other"],
            "namespace other is not labelled",
        ),
        (
            (200, document(&[]).to_string()),
            vec!["-n", "monitoring"],
            "no StatefulSet in namespace monitoring",
        ),
        (
            (200, document(&[late]).to_string()),
            vec![],
            "the report on monitoring/store cannot be read by this version",
        ),
        (
            (200, follower.to_string()),
            vec!["store"],
            "it does not lead; the leader is timeshard-b: ask that one",
        ),
        (
            (200, "<html>".to_owned()),
            vec![],
            "is not that of timeshard serve",
        ),
        (
            (200, "[]".to_owned()),
            vec![],
            "there is no list statefulsets",
        ),
        (
            (200, " ".repeat(17 * 1024 * 1024)),
            vec![],
            "longer than 16777216 bytes",
        ),
        (
            (503, "draining\nx".to_owned()),
            vec![],
            "answers 503: draining; is it the admin port",
        ),
    ] {
        let output = Server::new(move |_, _| answer.clone()).status(&args);
        let said = text(&output.stderr);
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(1), 0),
            "{words}: {said}"
        );
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let nobody = Command::new(TIMESHARD)
        .args(["status", "--server", "http://127.0.0.1:1"])
        .output()
        .unwrap();
    assert!(
        text(&nobody.stderr).contains("http://127.0.0.1:1/status: Connection refused"),
        "{}",
        text(&nobody.stderr)
    );
}

#[test]
fn arguments_that_make_no_sense_exit_with_2() {
    for (args, words) in [
        (["--server", "https://x"], "write http://HOST:PORT"),
        (["--timeout", "1m"], "--until-settled"),
        (["--system-namespace", "a/b"], "write a namespace's name"),
        (["a/b/c", "d"], "write NAME or NAMESPACE/NAME"),
    ] {
        let output = Command::new(TIMESHARD)
            .arg("status")
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            text(&output.stderr).contains(words),
            "{args:?}: {}",
            text(&output.stderr)
        );
    }
}
