//! Who is asked through an API server's proxy, and what that refuses.

use std::path::Path;

use super::*;

const LEASE: &str =
    "/apis/coordination.k8s.io/v1/namespaces/timeshard-system/leases/timeshard-refresher";
const PODS: &str = "/api/v1/namespaces/timeshard-system/pods?";

fn lease(holder: &str) -> String {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "timeshard-refresher"}, "spec": {"holderIdentity": holder}}).to_string()
}

fn pods() -> String {
    let pod = |name: &str, ready: &str| json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
    let items = [
        pod("timeshard-a", "True"),
        pod("timeshard-b", "False"),
        pod("timeshard-c", "True"),
    ];
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}).to_string()
}

fn refusal(code: u16, message: &str) -> (u16, String) {
    let reason = if code == 404 { "NotFound" } else { "Other" };
    (
        code,
        json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "reason": reason, "message": message, "code": code})
            .to_string(),
    )
}

/// What the command says with this API server.
fn in_cluster(
    answers: impl Fn(&str, usize) -> (u16, String) + Send + Sync + 'static,
) -> (Output, Vec<String>) {
    before_api_server(&["status", "-o", "json"], answers)
}

/// Runs a command against an API server with scripted answers, and returns its requests.
pub(crate) fn before_api_server(
    args: &[&str],
    answers: impl Fn(&str, usize) -> (u16, String) + Send + Sync + 'static,
) -> (Output, Vec<String>) {
    let server = Server::new(answers);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "clusters": [{"name": "x", "cluster": {"server": server.url()}}],
        "users": [{"name": "x", "user": {}}], "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    (
        with_kubeconfig(args, &path),
        server.asked.lock().unwrap().clone(),
    )
}

pub(crate) fn with_kubeconfig(args: &[&str], path: &Path) -> Output {
    Command::new(TIMESHARD)
        .args(args)
        .env("KUBECONFIG", path)
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .unwrap()
}

fn proxied(pod: &str) -> String {
    format!("/api/v1/namespaces/timeshard-system/pods/{pod}:8080/proxy/status")
}

#[test]
fn the_leader_is_asked_through_the_api_server() {
    let body = document(&[settled()]).to_string();
    let (output, asked) = in_cluster(move |path, _| {
        (
            200,
            if path == LEASE {
                lease("timeshard-c")
            } else {
                body.clone()
            },
        )
    });
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
    assert_eq!(asked, [LEASE.to_owned(), proxied("timeshard-c")]);
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["statefulsets"][0]["name"],
        "store"
    );
}

#[test]
fn without_a_leader_any_ready_replica_is_asked() {
    for (holder, words) in [
        ("", "no replica leads"),
        ("../x", "no replica leads"),
        ("timeshard-gone", "timeshard-gone holds the Lease"),
    ] {
        let body = document(&[settled()]).to_string();
        let (output, asked) = in_cluster(move |path, _| match path {
            LEASE if holder.is_empty() => refusal(404, "there is none"),
            LEASE => (200, lease(holder)),
            path if path.starts_with(PODS) => (200, pods()),
            path if path.contains("timeshard-c") => (200, body.clone()),
            _ => refusal(503, "error trying to reach service"),
        });
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
        assert!(
            asked.contains(&proxied("timeshard-a"))
                && asked.last() == Some(&proxied("timeshard-c")),
            "{asked:?}"
        );
    }
}

#[test]
fn what_the_api_server_refuses_is_a_sentence() {
    let forbidden = |verb: &'static str| {
        move |path: &str, _: usize| match path {
            LEASE if verb == "get leases" => refusal(403, "leases is forbidden"),
            LEASE if verb == "list pods" => (200, lease("")),
            LEASE => (200, lease("timeshard-a")),
            _ => refusal(403, "pods is forbidden: User \"jane\" cannot do that"),
        }
    };
    for verb in ["get leases", "list pods", "get pods/proxy"] {
        let (output, _) = in_cluster(forbidden(verb));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&format!(
                "you may not {verb} in namespace timeshard-system: "
            )) && said.contains("--server"),
            "{said}"
        );
    }
    let (output, _) = in_cluster(|path, _| {
        if path == LEASE {
            refusal(404, "x")
        } else {
            (
                200,
                json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []})
                    .to_string(),
            )
        }
    });
    assert!(
        text(&output.stderr)
            .contains("no ready pod of timeshard serve answers in namespace timeshard-system"),
        "{}",
        text(&output.stderr)
    );
    let none = with_kubeconfig(&["status", "-o", "json"], Path::new("/nonexistent"));
    assert_eq!(none.status.code(), Some(1));
    assert!(
        text(&none.stderr).contains("no cluster: ")
            && text(&none.stderr).contains("set KUBECONFIG"),
        "{}",
        text(&none.stderr)
    );
}
