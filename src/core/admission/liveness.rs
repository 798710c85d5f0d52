//! Liveness probes that fail while thanos loads blocks: `/-/ready` and the gRPC port answer only
//! afterwards.
//!
//! A probe is classified by its target, no matter what probes: kubelet itself, a program in the container,
//! or a mesh's proxy on behalf of kubelet (Istio, Kuma). Unreadable probes count as harmless.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::core::pod::{ContainerView, ExecView, PodView, PortRef, ProbeView};

/// Path prefix of probes that Istio's agent answers, `/app-health/CONTAINER/livez`.
const ISTIO_PROBES: &str = "/app-health/";
/// Variable with the original probes, by path, as JSON.
const ISTIO_PROBERS: &str = "ISTIO_KUBE_APP_PROBERS";
/// A longer value is not read: each probe of 12 bytes in it takes hundreds. Bytes.
const MAX_PROBERS_BYTES: usize = 64 << 10;

/// Whether kubelet may kill this container while it loads blocks.
pub(super) fn kills(pod: &PodView<'_>, container: &ContainerView<'_>, grpc_port: u16) -> bool {
    let Some(probe) = &container.liveness_probe else {
        return false;
    };
    let path = probe
        .http_get
        .as_ref()
        .and_then(|get| get.path.as_ref())
        .map_or("", |path| &path.0);
    if path.starts_with(ISTIO_PROBES) {
        return rewritten(pod, path, |probe| {
            fails_while_loading(probe, container, grpc_port)
        });
    }
    fails_while_loading(probe, container, grpc_port)
}

/// Applies `asks` to the original of a probe that Istio rewrote.
fn rewritten(pod: &PodView<'_>, path: &str, asks: impl Fn(&ProbeView<'_>) -> bool) -> bool {
    let proxies = pod
        .containers()
        .iter()
        .chain(pod.init_containers())
        .filter(|container| container.name.0.starts_with("istio"));
    let variables = proxies
        .flat_map(ContainerView::variables)
        .filter(|variable| variable.name.0 == ISTIO_PROBERS);
    let values = variables.filter_map(|variable| variable.value);
    let mut probers = values.filter(|text| text.0.len() <= MAX_PROBERS_BYTES);
    probers.any(|text| {
        let all: Option<HashMap<Cow<'_, str>, ProbeView<'_>>> = serde_json::from_str(&text.0).ok();
        all.and_then(|all| all.get(path).map(&asks))
            .unwrap_or(false)
    })
}

fn fails_while_loading(
    probe: &ProbeView<'_>,
    container: &ContainerView<'_>,
    grpc_port: u16,
) -> bool {
    let is_grpc = |port: Option<&PortRef<'_>>| match port {
        Some(PortRef::Number(number)) => *number == i64::from(grpc_port),
        Some(PortRef::Name(name)) => container
            .ports
            .iter()
            .flatten()
            .any(|port| port.name.0 == *name && port.container_port == i64::from(grpc_port)),
        None => false,
    };
    probe
        .http_get
        .as_ref()
        .and_then(|get| get.path.as_ref())
        .is_some_and(|path| asks_readiness(&path.0, grpc_port))
        || probe.grpc.is_some()
        || probe
            .tcp_socket
            .as_ref()
            .is_some_and(|target| is_grpc(target.port.as_ref()))
        || probe
            .exec
            .as_ref()
            .is_some_and(|exec| runs_readiness(exec, grpc_port))
}

/// True for thanos' readiness path, perhaps behind a prefix of the user's or of Kuma's
/// (`/10902/-/ready`, `/tcp/10901`, `/grpc/10901`).
fn asks_readiness(path: &str, grpc_port: u16) -> bool {
    let path = path
        .split(['?', '#'])
        .next()
        .unwrap_or(path)
        .trim_end_matches('/');
    let port = |prefix: &str| {
        path.strip_prefix(prefix)
            .and_then(|rest| rest.split('/').next()?.parse::<u16>().ok())
    };
    path.ends_with("/-/ready") || port("/grpc/").is_some() || port("/tcp/") == Some(grpc_port)
}

/// True for a program that probes readiness, as separate arguments or within a script.
fn runs_readiness(exec: &ExecView<'_>, grpc_port: u16) -> bool {
    let tokens = || {
        let between = |c: char| {
            c.is_whitespace() || matches!(c, '"' | '\'' | ';' | '&' | '|' | '(' | ')' | '<' | '>')
        };
        exec.command
            .iter()
            .flatten()
            .flat_map(move |token| token.0.split(between))
            .filter(|token| !token.is_empty())
    };
    let program = |names: &[&str]| {
        tokens().any(|token| names.contains(&token.rsplit('/').next().unwrap_or(token)))
    };
    let grpc = || {
        tokens().any(|token| {
            token
                .rsplit([':', '/'])
                .next()
                .and_then(|port| port.parse().ok())
                == Some(grpc_port)
        })
    };
    tokens().any(|token| asks_readiness(token, grpc_port) && token.contains("/-/"))
        || program(&[
            "grpc_health_probe",
            "grpc-health-probe",
            "grpcurl",
            "grpc-client-cli",
        ])
        || (program(&["nc", "ncat", "netcat", "bash"]) && grpc())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn killed(probe: &Value, more: &Value) -> bool {
        let pod = json!({"spec": {"containers": [{"name": "thanos", "livenessProbe": probe, "ports": [{"name": "grpc", "containerPort": 10901}]}, more]}});
        let text = pod.to_string();
        let pod = PodView::parse(text.as_bytes()).unwrap();
        kills(&pod, &pod.containers()[0], 10901)
    }

    #[test]
    fn rewritten_probes_of_any_number_are_not_read() {
        let path = "/app-health/thanos/livez";
        let probe = json!({"httpGet": {"path": path, "port": 15020}});
        let istio = |more: usize| {
            let original = format!(r#""{path}":{{"httpGet":{{"path":"/-/ready","port":10902}}}}"#);
            let others: String = (0..more).map(|i| format!(r#","a{i:06}":{{}}"#)).collect();
            json!({"name": "istio-proxy", "env": [{"name": ISTIO_PROBERS, "value": format!("{{{original}{others}}}")}]})
        };
        assert!(killed(&probe, &istio(100)));
        assert!(!killed(&probe, &istio(100_000)), "it counts as harmless");
    }

    #[test]
    fn a_program_is_classified_by_its_target() {
        for (command, kills) in [
            (
                json!(["/bin/wget", "-q", "-O-", "http://127.0.0.1:10902/-/ready"]),
                true,
            ),
            (
                json!(["curl", "-fsS", "localhost:10902/thanos/-/ready?x=1"]),
                true,
            ),
            (
                json!([
                    "sh",
                    "-c",
                    "curl -f 'http://127.0.0.1:10902/-/ready' || exit 1"
                ]),
                true,
            ),
            (json!(["/bin/grpc_health_probe", "-addr=:10901"]), true),
            (
                json!([
                    "sh",
                    "-c",
                    "exec /bin/grpc-health-probe -addr=127.0.0.1:10901"
                ]),
                true,
            ),
            (json!(["nc", "-z", "127.0.0.1", "10901"]), true),
            (
                json!(["bash", "-c", "echo > /dev/tcp/127.0.0.1/10901"]),
                true,
            ),
            (
                json!(["/bin/wget", "-q", "-O-", "http://127.0.0.1:10902/-/healthy"]),
                false,
            ),
            (
                json!(["sh", "-c", "curl -f http://127.0.0.1:10902/-/healthy"]),
                false,
            ),
            (json!(["nc", "-z", "127.0.0.1", "10902"]), false),
            (json!(["true"]), false),
            (json!([]), false),
        ] {
            assert_eq!(
                killed(
                    &json!({"exec": {"command": command}}),
                    &json!({"name": "x"})
                ),
                kills,
                "{command}"
            );
        }
    }

    #[test]
    fn a_probe_rewritten_by_istio_is_classified_by_the_original() {
        let probe = json!({"httpGet": {"path": "/app-health/thanos/livez", "port": 15020}});
        for (asked, kills) in [
            (
                json!({"httpGet": {"path": "/-/ready", "port": 10902}}),
                true,
            ),
            (json!({"grpc": {"port": 10901}}), true),
            (json!({"tcpSocket": {"port": 10901}}), true),
            (
                json!({"httpGet": {"path": "/-/healthy", "port": 10902}}),
                false,
            ),
            (json!({"tcpSocket": {"port": 10902}}), false),
        ] {
            let probers = json!({"/app-health/thanos/livez": asked, "/app-health/thanos/readyz": {"httpGet": {"path": "/-/ready"}}});
            let proxy = |text: &str| json!({"name": "istio-proxy", "env": [{"name": "A", "value": "x"}, {"name": ISTIO_PROBERS, "value": text}]});
            assert_eq!(
                killed(&probe, &proxy(&probers.to_string())),
                kills,
                "{asked}"
            );
            assert!(!killed(&probe, &proxy("{")), "unreadable is harmless");
        }
        assert!(!killed(&probe, &json!({"name": "istio-proxy"})));
    }

    #[test]
    fn a_probe_rewritten_by_kuma_has_the_port_in_its_path() {
        for (path, kills) in [
            ("/10902/-/ready", true),
            ("/tcp/10901", true),
            ("/grpc/10901", true),
            ("/10902/-/healthy", false),
            ("/tcp/10902", false),
        ] {
            assert_eq!(
                killed(
                    &json!({"httpGet": {"path": path, "port": 9001}}),
                    &json!({"name": "kuma-sidecar"})
                ),
                kills,
                "{path}"
            );
        }
    }
}
