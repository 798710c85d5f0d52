//! Service meshes: whether a proxy will intercept the sidecar's port.
//!
//! Kubelet's startup probe and the server's `/status` request are plain HTTP on
//! [`names::SIDECAR_PORT`]. A proxy that is an ordinary container starts only after the init
//! containers, so it answers no probe of a native sidecar; a proxy that requires mTLS rejects both.
//! The namespace's labels are not known here: its mesh shows in containers that were injected
//! earlier.

use super::Remark;
use crate::core::model::names;
use crate::core::pod::PodView;

/// How a mesh is recognised in a pod, and how a port is excluded from it.
struct Mesh {
    containers: [&'static str; 3],
    /// Label or annotation that requests a proxy, and the values that do.
    asks: (&'static str, &'static [&'static str]),
    /// Label that requests a proxy with any value, unless `asks` is set otherwise.
    asks_by_any: Option<&'static str>,
    /// Annotation with the ports that are not intercepted.
    excluded: &'static str,
    /// Annotation with the only ports that are intercepted.
    included: Option<&'static str>,
}

const MESHES: [Mesh; 4] = [
    Mesh {
        containers: ["istio-init", "istio-validation", "istio-proxy"],
        asks: (names::ISTIO_INJECT, &["true"]),
        asks_by_any: Some(names::ISTIO_REVISION),
        excluded: names::ISTIO_EXCLUDED_PORTS,
        included: Some(names::ISTIO_INCLUDED_PORTS),
    },
    Mesh {
        containers: ["linkerd-init", "linkerd-network-validator", "linkerd-proxy"],
        asks: (names::LINKERD_INJECT, &["enabled", "ingress"]),
        asks_by_any: None,
        excluded: names::LINKERD_EXCLUDED_PORTS,
        included: None,
    },
    Mesh {
        containers: [
            "consul-connect-inject-init",
            "consul-dataplane",
            "consul-sidecar",
        ],
        asks: (names::CONSUL_INJECT, &["true"]),
        asks_by_any: None,
        excluded: names::CONSUL_EXCLUDED_PORTS,
        included: None,
    },
    Mesh {
        containers: ["kuma-init", "kuma-validation", "kuma-sidecar"],
        asks: (names::KUMA_INJECT, &["enabled", "true"]),
        asks_by_any: None,
        excluded: names::KUMA_EXCLUDED_PORTS,
        included: None,
    },
];

/// Warns about a mesh that intercepts the sidecar's port.
pub(super) fn remark(pod: &PodView<'_>) -> Option<Remark> {
    let intercepts = |mesh: &&Mesh| intercepts_sidecar(mesh, pod);
    MESHES.iter().filter(intercepts).find_map(|mesh| {
        Some(Remark::MeshedPort {
            found: found(mesh, pod)?,
            exclude: mesh.excluded,
        })
    })
}

/// Whether the mesh intercepts the sidecar's port. Istio ignores excluded ports unless it
/// intercepts all ports.
fn intercepts_sidecar(mesh: &Mesh, pod: &PodView<'_>) -> bool {
    match mesh
        .included
        .and_then(|key| pod.annotation(key))
        .map(str::trim)
    {
        None | Some("*") => !pod
            .annotation(mesh.excluded)
            .is_some_and(includes_sidecar_port),
        Some(ports) => includes_sidecar_port(ports),
    }
}

fn found(mesh: &Mesh, pod: &PodView<'_>) -> Option<&'static str> {
    let there = |name: &&&str| {
        pod.init_containers()
            .iter()
            .chain(pod.containers())
            .any(|container| container.name.0 == **name)
    };
    let (key, values) = mesh.asks;
    let set: Vec<&str> = [pod.label(key), pod.annotation(key)]
        .into_iter()
        .flatten()
        .collect();
    let asked = set.iter().any(|value| values.contains(value));
    let by_any = mesh.asks_by_any.filter(|any| {
        set.is_empty() && pod.label(any).is_some_and(|revision| !revision.is_empty())
    });
    mesh.containers
        .iter()
        .find(there)
        .copied()
        .or(asked.then_some(key))
        .or(by_any)
}

/// Searches comma-separated ports for the sidecar's. Linkerd also accepts ranges, such as
/// `10900-10910`.
fn includes_sidecar_port(ports: &str) -> bool {
    ports.split(',').any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let port = |values: &str| values.trim().parse::<u16>();
        port(from).is_ok_and(|from| from <= names::SIDECAR_PORT)
            && port(to).is_ok_and(|to| names::SIDECAR_PORT <= to)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::admission::notice::MAX_WARNING_CHARS;

    fn remarked(pod: &Value) -> Option<String> {
        let text = pod.to_string();
        remark(&PodView::parse(text.as_bytes()).unwrap()).map(|remark| {
            assert_eq!(remark.reason(), "MeshPort");
            remark.to_string()
        })
    }

    #[test]
    fn every_mesh_is_reported_with_its_own_annotation_and_fits_a_warning() {
        for mesh in MESHES {
            for (list, name) in ["containers", "initContainers"]
                .into_iter()
                .flat_map(|list| mesh.containers.map(|name| (list, name)))
            {
                let text = remarked(&json!({"spec": {list: [{"name": "thanos"}, {"name": name}]}}))
                    .unwrap();
                assert!(
                    text.contains(name) && text.contains(mesh.excluded),
                    "{text}"
                );
                assert!(
                    text.chars().count() <= MAX_WARNING_CHARS,
                    "{} characters: {text}",
                    text.chars().count()
                );
            }
            let (key, values) = mesh.asks;
            for (map, value) in ["labels", "annotations"]
                .into_iter()
                .flat_map(|map| values.iter().map(move |value| (map, value)))
            {
                let text = remarked(&json!({"metadata": {map: {key: value}}})).unwrap();
                assert!(text.contains(key) && text.contains(mesh.excluded), "{text}");
                assert!(
                    text.chars().count() <= MAX_WARNING_CHARS,
                    "{} characters: {text}",
                    text.chars().count()
                );
            }
            for word in ["false", "disabled", ""] {
                assert_eq!(
                    remarked(&json!({"metadata": {"labels": {key: word}}})),
                    None
                );
            }
        }
        assert_eq!(
            remarked(&json!({"spec": {"containers": [{"name": "thanos"}, {"name": "istio"}]}})),
            None
        );
    }

    #[test]
    fn istios_revision_requests_a_proxy_unless_the_other_label_disables_it() {
        for (labels, reported) in [
            (json!({"istio.io/rev": "canary"}), true),
            (
                json!({"istio.io/rev": "default", "sidecar.istio.io/inject": "true"}),
                true,
            ),
            (
                json!({"istio.io/rev": "canary", "sidecar.istio.io/inject": "false"}),
                false,
            ),
            (json!({"istio.io/rev": ""}), false),
        ] {
            assert_eq!(
                remarked(&json!({"metadata": {"labels": labels}})).is_some(),
                reported,
                "{labels}"
            );
        }
    }

    #[test]
    fn only_included_ports_are_intercepted() {
        for (annotations, reported) in [
            (
                json!({"traffic.sidecar.istio.io/includeInboundPorts": "10901,10902"}),
                false,
            ),
            (
                json!({"traffic.sidecar.istio.io/includeInboundPorts": ""}),
                false,
            ),
            (
                json!({"traffic.sidecar.istio.io/includeInboundPorts": "10901, 10908"}),
                true,
            ),
            (
                json!({"traffic.sidecar.istio.io/includeInboundPorts": "*"}),
                true,
            ),
            (
                json!({"traffic.sidecar.istio.io/includeInboundPorts": "*", "traffic.sidecar.istio.io/excludeInboundPorts": "10908"}),
                false,
            ),
            (
                json!({"traffic.sidecar.istio.io/includeInboundPorts": "10908", "traffic.sidecar.istio.io/excludeInboundPorts": "10908"}),
                true,
            ),
        ] {
            let pod = json!({"metadata": {"annotations": annotations, "labels": {"sidecar.istio.io/inject": "true"}}});
            assert_eq!(remarked(&pod).is_some(), reported, "{annotations}");
        }
    }

    #[test]
    fn an_excluded_port_is_not_reported() {
        for (ports, out) in [
            ("10908", true),
            ("80, 10908 ,443", true),
            ("10900-10910", true),
            ("1-2,10908-10908", true),
            ("", false),
            ("1090", false),
            ("109080", false),
            ("10909-10920", false),
            ("10910-10900", false),
            ("10908-", false),
            ("x", false),
        ] {
            assert_eq!(includes_sidecar_port(ports), out, "{ports}");
            let pod = |key: &str| json!({"metadata": {"annotations": {key: ports}}, "spec": {"initContainers": [{"name": "linkerd-init"}]}});
            assert_eq!(
                remarked(&pod(names::LINKERD_EXCLUDED_PORTS)).is_none(),
                out,
                "{ports}"
            );
            assert!(
                remarked(&pod(names::ISTIO_EXCLUDED_PORTS)).is_some(),
                "another mesh's annotation"
            );
        }
    }
}
