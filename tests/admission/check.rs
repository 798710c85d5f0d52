//! `timeshard check`: exit codes, and API servers that refuse, break or answer nonsense.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::status::{before_api_server, with_kubeconfig};

const VERSION: &str = r#"{"major": "1", "minor": "36", "gitVersion": "v1.36.0"}"#;

fn refusal() -> (u16, String) {
    (403, json!({"kind": "Status", "message": "services is forbidden: User \"x\" cannot create resource", "code": 403}).to_string())
}

fn results(output: &Output) -> Vec<(String, String)> {
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let checks: Vec<_> = document["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| (text(check, "id"), text(check, "result")))
        .collect();
    let count = |result: &str| checks.iter().filter(|(_, one)| one == result).count();
    let summary = json!({"pass": count("pass"), "warn": count("warn"), "fail": count("fail"), "skipped": count("skipped")});
    assert_eq!(document["summary"], summary);
    checks
}

#[test]
fn who_may_nothing_gets_skipped_checks_and_the_list_of_rights() {
    let answers = |path: &str, _| {
        if path == "/version" {
            (200, VERSION.to_owned())
        } else {
            refusal()
        }
    };
    for args in [
        vec!["check", "-o", "json"],
        vec!["check", "-o", "json", "--namespace", "monitoring"],
        vec!["check", "-o", "json", "--pre"],
    ] {
        let (output, _) = before_api_server(&args, answers);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let results = results(&output);
        assert!(
            results
                .iter()
                .all(|(id, result)| result != "warn" || id == "api-permissions"),
            "{results:?}"
        );
        assert!(
            results.contains(&("api-permissions".to_owned(), "warn".to_owned())),
            "{results:?}"
        );
        assert!(
            results
                .iter()
                .filter(|(_, result)| result == "skipped")
                .count()
                > 3,
            "{results:?}"
        );
    }
}

#[test]
fn an_api_server_that_answers_nonsense_is_no_panic() {
    let bodies = [
        "",
        "[]",
        "null",
        "{\"items\": 3}",
        "{\"items\": [null]}",
        "<html>",
        "{\"items\": [{}]}",
    ];
    for body in bodies {
        let (output, _) = before_api_server(&["check", "-o", "json"], move |path, _| {
            (
                200,
                if path == "/version" { VERSION } else { body }.to_owned(),
            )
        });
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "{body}: {output:?}"
        );
        assert!(!results(&output).is_empty());
    }
    let (output, _) = before_api_server(&["check"], |path, _| {
        if path == "/version" {
            (200, VERSION.to_owned())
        } else {
            (500, "broken\u{1b}[31m".to_owned())
        }
    });
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("could not list namespaces: broken[31m (500)") && !text.contains('\u{1b}'),
        "{text}"
    );
}

#[test]
fn a_list_is_read_page_by_page() {
    let (_, asked) = before_api_server(&["check"], |path, _| match path {
        "/version" => (200, VERSION.to_owned()),
        "/api/v1/namespaces?limit=500" => (
            200,
            json!({"metadata": {"continue": "a/b="}, "items": []}).to_string(),
        ),
        _ => refusal(),
    });
    assert!(
        asked.contains(&"/api/v1/namespaces?limit=500&continue=a%2Fb%3D".to_owned()),
        "{asked:?}"
    );
}

#[test]
fn a_cluster_that_cannot_be_asked_is_exit_code_1() {
    let none = with_kubeconfig(&["check"], Path::new("/nonexistent"));
    assert_eq!(
        (none.status.code(), none.stdout.is_empty()),
        (Some(1), true)
    );
    assert!(String::from_utf8_lossy(&none.stderr).contains("set KUBECONFIG"));
    let (output, asked) =
        before_api_server(&["check", "-o", "json"], |_, _| (503, "later".to_owned()));
    assert_eq!(
        (output.status.code(), asked),
        (Some(1), vec!["/version".to_owned()])
    );
    assert_eq!(
        results(&output),
        [("api-reachable".to_owned(), "fail".to_owned())],
        "nothing else is known"
    );
    for args in [
        vec!["check"],
        vec!["check", "--pre"],
        vec!["check", "--no-color"],
    ] {
        let (output, asked) = before_api_server(&args, |_, _| (503, "later".to_owned()));
        assert_eq!(
            (output.status.code(), asked.len(), output.stdout.is_empty()),
            (Some(1), 1, true),
            "{args:?}: {output:?}"
        );
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("the API server at http://127.0.0.1:")
                && said.ends_with(" does not answer: later (503)\n"),
            "{said}"
        );
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}

#[test]
fn an_api_server_that_nobody_listens_for_is_told_with_url_and_cause() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\nusers: [{{name: a, user: {{}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\ncurrent-context: a\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let output = with_kubeconfig(&["check"], &kubeconfig);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.is_empty()),
        (Some(1), true),
        "{said}"
    );
    assert!(
        said.contains(&format!(
            "the API server at http://127.0.0.1:{port} (context a) does not answer: "
        )),
        "{said}"
    );
    assert!(said.contains("Connection refused"), "{said}");
}

#[test]
fn flags_are_checked_before_anything_is_asked() {
    for args in [
        vec!["check", "--wait", "0s"],
        vec!["check", "--wait", "soon"],
        vec!["check", "--namespace", "../x"],
        vec!["check", "--pre", "--namespace", "x"],
        vec!["check", "-o", "svg"],
        vec!["check", "--no-color=maybe"],
        vec!["check", "--config", "/nonexistent"],
    ] {
        let output = with_kubeconfig(&args, Path::new("/nonexistent"));
        assert_eq!(
            (output.status.code(), output.stdout.is_empty()),
            (Some(2), true),
            "{args:?}: {output:?}"
        );
    }
}
