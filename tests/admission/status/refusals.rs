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
            "no StatefulSet absent in the labelled namespace monitoring; there are: monitoring/store",
        ),
        (
            (200, healthy()),
            vec!["store", "-n", "other"],
            "kubectl label --overwrite namespace other thanos-timeshard.io/injection=enabled",
        ),
        (
            (200, healthy()),
            vec!["-n", "other"],
            "namespace other is not labelled",
        ),
        (
            (200, document(&[]).to_string()),
            vec!["-n", "monitoring"],
            "no StatefulSet in namespace monitoring; there are: none",
        ),
        (
            (200, document(&[late]).to_string()),
            vec![],
            "cannot read the report of monitoring/store",
        ),
        (
            (200, follower.to_string()),
            vec!["store"],
            "it is not the leader; the leader is timeshard-b",
        ),
        (
            (200, "<html>".to_owned()),
            vec![],
            "is not from timeshard serve",
        ),
        (
            (200, "[]".to_owned()),
            vec![],
            "it has no list statefulsets",
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
fn an_empty_list_says_what_to_do() {
    let mut unlabelled = document(&[]);
    unlabelled["namespaces"] = json!([]);
    for (answer, words) in [
        (unlabelled, "no namespace is labelled: "),
        (
            document(&[]),
            "no StatefulSet in the labelled namespace monitoring; to use another namespace: ",
        ),
    ] {
        let output = Server::of(&answer).status(&[]);
        let said = text(&output.stderr);
        let command =
            "kubectl label --overwrite namespace NAME thanos-timeshard.io/injection=enabled";
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains(&format!("{words}{command}")), "{said}");
    }
}

#[test]
fn a_statefulset_may_be_written_as_for_kubectl() {
    for name in ["sts/store", "statefulset/store", "statefulset.apps/store"] {
        let output = Server::of(&document(&[settled()])).status(&[name]);
        assert!(output.status.success(), "{name}: {output:?}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let unreachable = Command::new(TIMESHARD)
        .args(["status", "--server", "http://127.0.0.1:1"])
        .output()
        .unwrap();
    assert!(
        text(&unreachable.stderr).contains("http://127.0.0.1:1/status: Connection refused"),
        "{}",
        text(&unreachable.stderr)
    );
}

#[test]
fn arguments_that_make_no_sense_exit_with_2() {
    for (args, words) in [
        (["--server", "https://x"], "write http://HOST:PORT"),
        (["--timeout", "1m"], "--until-settled"),
        (["--system-namespace", "a/b"], "write a namespace's name"),
        (
            ["a/b/c", "d"],
            "write the StatefulSet as NAME, NAMESPACE/NAME or statefulset/NAME",
        ),
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
