//! Whether a liveness probe fails for as long as thanos loads blocks: `/-/ready` and the gRPC port answer only after.
//!
//! A probe is judged by what it asks, however it is written: by kubelet itself, by a program in the container, or through a
//! mesh's proxy that asks in kubelet's place (Istio, Kuma). What cannot be read is taken for harmless.

use std::borrow::Cow;
use std::collections::HashMap;

use super::super::pod::{ContainerView, ExecView, PodView, PortRef, ProbeView};

/// What Istio's agent answers probes under, `/app-health/CONTAINER/livez`.
const ISTIO_PROBES: &str = "/app-health/";
/// Where Istio's agent finds what each of them asks of the application, as JSON.
const ISTIO_PROBERS: &str = "ISTIO_KUBE_APP_PROBERS";

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
        return rewritten(pod, path, |probe| waits(probe, container, grpc_port));
    }
    waits(probe, container, grpc_port)
}

/// Asks about the probe that Istio's proxy passes on.
fn rewritten(pod: &PodView<'_>, path: &str, asks: impl Fn(&ProbeView<'_>) -> bool) -> bool {
    let proxies = pod
        .containers()
        .iter()
        .chain(pod.init_containers())
        .filter(|container| container.name.0.starts_with("istio"));
    let variables = proxies
        .flat_map(ContainerView::variables)
        .filter(|variable| variable.name.0 == ISTIO_PROBERS);
    let mut probers = variables.filter_map(|variable| variable.value);
    probers.any(|text| {
        let all: Option<HashMap<Cow<'_, str>, ProbeView<'_>>> = serde_json::from_str(&text.0).ok();
        all.and_then(|all| all.get(path).map(&asks))
            .unwrap_or(false)
    })
}

fn waits(probe: &ProbeView<'_>, container: &ContainerView<'_>, grpc_port: u16) -> bool {
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

/// A path of thanos, perhaps behind a prefix of the user's or of Kuma's (`/10902/-/ready`, `/tcp/10901`, `/grpc/10901`).
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

/// A program that asks the same, with its words apart or within a script.
fn runs_readiness(exec: &ExecView<'_>, grpc_port: u16) -> bool {
    let words = || {
        let between = |c: char| {
            c.is_whitespace() || matches!(c, '"' | '\'' | ';' | '&' | '|' | '(' | ')' | '<' | '>')
        };
        exec.command
            .iter()
            .flatten()
            .flat_map(move |word| word.0.split(between))
            .filter(|word| !word.is_empty())
    };
    let program = |names: &[&str]| {
        words().any(|word| names.contains(&word.rsplit('/').next().unwrap_or(word)))
    };
    let grpc = || {
        words().any(|word| {
            word.rsplit([':', '/'])
                .next()
                .and_then(|port| port.parse().ok())
                == Some(grpc_port)
        })
    };
    words().any(|word| asks_readiness(word, grpc_port) && word.contains("/-/"))
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
    fn a_program_is_judged_by_what_it_asks() {
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
    fn a_probe_that_istio_passes_on_is_judged_by_what_its_proxy_asks() {
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
    fn a_probe_that_kuma_passes_on_names_the_port_in_its_path() {
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
