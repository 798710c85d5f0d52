//! Mistakes on the command line: each answer names what is wrong, where, and what to type instead.

use std::process::Output;

use serde_json::{Value, json};

use crate::command_line::{text, timeshard};
use crate::status::{before_api_server, with_kubeconfig};
use cases::WITHOUT_A_CLUSTER;

mod cases;

/// Arguments, standard input, exit code, and what the answer contains.
type Mistake<'a> = (&'a str, &'a str, i32, &'a [&'a str]);

/// An answer is for people: no panic, no debug output, and not longer than a screen.
fn assert_answers(args: &str, output: &Output, (code, words): (i32, &[&str])) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args}: {said}");
    assert!(output.stdout.is_empty(), "{args}: {}", text(&output.stdout));
    for word in words {
        assert!(said.contains(word), "{args}: {word:?} is missing: {said}");
    }
    for bad in ["panicked", "Some(", "Err("] {
        assert!(!said.contains(bad), "{args}: {said}");
    }
    assert!(said.lines().count() <= 12, "{args}: {said}");
}

#[test]
fn mistakes_without_a_cluster() {
    for (args, input, code, words) in WITHOUT_A_CLUSTER {
        let argv: Vec<&str> = args.split(' ').collect();
        assert_answers(args, &timeshard(&argv, input), (*code, words));
    }
}

#[test]
fn files_and_folders_that_are_not_what_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.yaml"), "sharding: {}").unwrap();
    std::fs::create_dir(dir.path().join("docs")).unwrap();
    std::fs::write(dir.path().join("docs/README.md"), "text").unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (typo, folder, config) = (path("confg.yaml"), path("docs"), path("config.yaml"));
    let gone = path("gone/config.yaml");
    let meant = format!("did you mean {config}?");
    for (args, words) in [
        (
            vec!["plan", "--config", &typo],
            vec!["confg.yaml: cannot be read: No such file", &meant],
        ),
        (
            vec!["plan", "--config", &gone],
            vec!["gone/config.yaml: cannot be read", "there is no folder"],
        ),
        (
            vec!["inject", "-f", &folder],
            vec![
                "docs: contains no file that ends in .yaml, .yml or .json",
                "-R",
            ],
        ),
        (
            vec!["inject", "-f", &config],
            vec!["config.yaml: object 1 has no kind"],
        ),
        (
            vec!["status", "--kubeconfig", &typo],
            vec!["confg.yaml: cannot be read: No such file"],
        ),
        (vec!["status", "--kubeconfig", &config], vec!["config.yaml"]),
        (
            vec![
                "plan",
                "--from",
                &config,
                "--to",
                &config,
                "--status",
                "https://x",
            ],
            vec![
                "--status https://x: the admin port has no TLS",
                "port-forward",
            ],
        ),
        (
            vec!["plan", "--config", &folder],
            vec!["docs: cannot be read", "name a file in it"],
        ),
        (
            vec!["reshard", "store", "total-shards=4", "--config", &typo],
            vec!["confg.yaml: cannot be read", &meant],
        ),
    ] {
        let output = timeshard(&args, "");
        let code = output.status.code().unwrap();
        assert!(code == 1 || code == 2, "{args:?}");
        assert_answers(&args.join(" "), &output, (code, &words));
    }
}

/// An API server with StatefulSet monitoring/store of 6 pods, and a server that is not the leader's.
fn api(path: &str, _: usize) -> (u16, String) {
    let named = |name: &str| json!({"metadata": {"name": name}});
    let document: Value = match path.split('?').next().unwrap() {
        "/apis/apps/v1/namespaces/monitoring/statefulsets/store" => {
            let template = json!({"spec": {"containers": [{"name": "t", "image": "thanos", "args": ["store"]}]}});
            json!({"kind": "StatefulSet", "metadata": {"name": "store", "resourceVersion": "1"}, "spec": {"replicas": 6, "template": template}})
        }
        "/apis/apps/v1/namespaces/monitoring/statefulsets" => {
            json!({"items": [named("store"), named("prometheus")]})
        }
        "/apis/apps/v1/namespaces/default/statefulsets" => json!({"items": []}),
        "/api/v1/namespaces/elsewhere/pods" => {
            json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []})
        }
        "/api/v1/namespaces/monitoring" => named("monitoring"),
        path if path.starts_with("/apis/coordination.k8s.io/v1/namespaces/forbidden/") => {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 403, "reason": "Forbidden",
                "message": "leases \"timeshard-refresher\" is forbidden: User \"jane\" cannot get"});
            return (403, status.to_string());
        }
        _ => {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound", "message": "not found"});
            return (404, status.to_string());
        }
    };
    (200, document.to_string())
}

/// Arguments, exit code, and what the answer contains.
const IN_A_CLUSTER: [(&str, i32, &[&str]); 11] = [
    (
        "status --context y",
        2,
        &["has no context y", "did you mean --context x?"],
    ),
    (
        "status --context production",
        2,
        &["has no context production", "its contexts are x"],
    ),
    (
        "pause stor -n monitoring",
        1,
        &[
            "http://127.0.0.1:",
            "(context x): no StatefulSet stor in namespace monitoring",
            "did you mean store?",
        ],
    ),
    (
        "pause gateway -n monitoring",
        1,
        &[
            "no StatefulSet gateway in namespace monitoring",
            "there are store, prometheus",
            "with -n",
        ],
    ),
    (
        "pause store",
        1,
        &[
            "no StatefulSet store in namespace default",
            "choose another one with -n",
        ],
    ),
    (
        "pause a/store -n b",
        2,
        &[
            "a/store: it is in namespace a, but -n is b",
            "write one of them",
        ],
    ),
    (
        "reshard store -n monitoring boundaries=[400d]",
        2,
        &[
            "StatefulSet monitoring/store is not changed: annotation thanos-timeshard.io/boundaries:1:1: boundaries: 400d is not younger",
            "within the retention",
        ],
    ),
    (
        "scale-down store -n monitoring --to 8",
        2,
        &[
            "--to 8: StatefulSet monitoring/store has 6 pods",
            "kubectl scale",
        ],
    ),
    (
        "status --system-namespace elsewhere",
        1,
        &[
            "http://127.0.0.1:",
            "no ready pod of timeshard serve answers in namespace elsewhere",
            "--system-namespace",
        ],
    ),
    (
        "dashboard --system-namespace elsewhere",
        1,
        &[
            "no ready pod of timeshard serve answers in namespace elsewhere",
            "--system-namespace",
        ],
    ),
    (
        "status --system-namespace forbidden",
        1,
        &[
            "(context x): you may not get leases in namespace forbidden",
            "you need a Role there with get on leases",
        ],
    ),
];

#[test]
fn mistakes_in_a_cluster() {
    for (args, code, words) in IN_A_CLUSTER {
        let argv: Vec<&str> = args.split(' ').collect();
        let (output, _) = before_api_server(&argv, api);
        assert_answers(args, &output, (code, words));
        // Failures are one line, so that they can be searched for and pasted; the rest are warnings.
        let said = text(&output.stderr);
        assert_eq!(
            said.lines()
                .filter(|line| line.starts_with("timeshard: "))
                .count(),
            1,
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{args}: {said}");
    }
}

#[test]
fn no_cluster_at_all_is_a_sentence_that_helps() {
    let nowhere = std::path::Path::new("/nonexistent/kubeconfig");
    for (args, words) in [
        ("status", "use an address: --server http://127.0.0.1:8080"),
        ("check", "set KUBECONFIG"),
        ("dashboard", "timeshard demo --page"),
        ("pause store", "timeshard plan --help"),
        ("reshard store total-shards=4", "timeshard plan --help"),
    ] {
        let argv: Vec<&str> = args.split(' ').collect();
        let output = with_kubeconfig(&argv, nowhere);
        let all = [
            "no cluster: /nonexistent/kubeconfig: No such file",
            "--kubeconfig",
            words,
        ];
        assert_answers(args, &output, (1, &all));
    }
    // The version of the program itself needs none.
    let output = with_kubeconfig(&["version"], nowhere);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stdout).starts_with(&format!("client      {}", env!("CARGO_PKG_VERSION")))
    );
    assert!(text(&output.stderr).contains("no cluster is asked: /nonexistent/kubeconfig"));
    let silent = with_kubeconfig(&["version", "--client", "-o", "json"], nowhere);
    let document: Value = serde_json::from_slice(&silent.stdout).unwrap();
    assert_eq!(
        (
            &document["kind"],
            &document["client"]["version"],
            silent.stderr.is_empty()
        ),
        (&json!("Version"), &json!(env!("CARGO_PKG_VERSION")), true)
    );
}

#[test]
fn an_api_server_that_does_not_answer_is_named_with_context_and_cause() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "prod",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "u", "user": {}}], "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(&path, config.to_string()).unwrap();
    let place = format!("http://127.0.0.1:{port} (context prod)");
    for args in [
        "status",
        "check",
        "dashboard",
        "pause store",
        "scale-down store --to 4",
    ] {
        let argv: Vec<&str> = args.split(' ').collect();
        let output = with_kubeconfig(&argv, &path);
        assert_answers(args, &output, (1, &[&place, "Connection refused"]));
        assert_eq!(text(&output.stderr).lines().count(), 1, "{output:?}");
    }
    let version = with_kubeconfig(&["version"], &path);
    assert_eq!(version.status.code(), Some(1));
    assert!(text(&version.stdout).starts_with("client "));
    assert!(text(&version.stderr).contains(&place), "{version:?}");
}
