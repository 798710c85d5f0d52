//! Service meshes: whether a proxy will stand between the sidecar's port and those who ask it.
//!
//! Kubelet's startup probe and the server's `/status` request come in plain HTTP on [`names::SIDECAR_PORT`]. A proxy that is
//! an ordinary container starts only after the init containers, so it answers no probe of a native sidecar; one that wants
//! mTLS refuses both. A namespace's label is not seen here: its mesh shows by the containers that were injected before us.

use super::super::names;
use super::super::pod::PodView;
use super::Remark;

/// How a mesh shows in a pod, and how a port is kept out of it.
struct Mesh {
    containers: [&'static str; 3],
    /// Label or annotation that asks for a proxy, and with which words.
    asks: (&'static str, &'static [&'static str]),
    /// Label that asks for a proxy with any word, unless the other says no.
    asks_by_any: Option<&'static str>,
    /// Annotation with the ports that are left alone.
    excluded: &'static str,
    /// Annotation with the only ports that are not.
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

/// What to tell about a mesh that takes the sidecar's port over.
pub(super) fn remark(pod: &PodView<'_>) -> Option<Remark> {
    let taking = |mesh: &&Mesh| takes_our_port(mesh, pod);
    MESHES.iter().filter(taking).find_map(|mesh| {
        Some(Remark::MeshedPort {
            found: found(mesh, pod)?,
            exclude: mesh.excluded,
        })
    })
}

/// Ports that are named to be taken over are, whatever is excluded: Istio looks at those only where all ports are taken over.
fn takes_our_port(mesh: &Mesh, pod: &PodView<'_>) -> bool {
    match mesh
        .included
        .and_then(|key| pod.annotation(key))
        .map(str::trim)
    {
        None | Some("*") => !pod.annotation(mesh.excluded).is_some_and(names_our_port),
        Some(ports) => names_our_port(ports),
    }
}

fn found(mesh: &Mesh, pod: &PodView<'_>) -> Option<&'static str> {
    let there = |name: &&&str| {
        pod.init_containers()
            .iter()
            .chain(pod.containers())
            .any(|container| container.name.0 == **name)
    };
    let (key, words) = mesh.asks;
    let said: Vec<&str> = [pod.label(key), pod.annotation(key)]
        .into_iter()
        .flatten()
        .collect();
    let asked = said.iter().any(|value| words.contains(value));
    let by_any = mesh.asks_by_any.filter(|any| {
        said.is_empty() && pod.label(any).is_some_and(|revision| !revision.is_empty())
    });
    mesh.containers
        .iter()
        .find(there)
        .copied()
        .or(asked.then_some(key))
        .or(by_any)
}

/// Ports with commas between them; Linkerd also takes ranges, such as `10900-10910`.
fn names_our_port(ports: &str) -> bool {
    ports.split(',').any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let port = |text: &str| text.trim().parse::<u16>();
        port(from).is_ok_and(|from| from <= names::SIDECAR_PORT)
            && port(to).is_ok_and(|to| names::SIDECAR_PORT <= to)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::notice::MAX_WARNING_CHARS;
    use super::*;

    fn remarked(pod: &Value) -> Option<String> {
        let text = pod.to_string();
        remark(&PodView::parse(text.as_bytes()).unwrap()).map(|remark| {
            assert_eq!(remark.reason(), "MeshPort");
            remark.to_string()
        })
    }

    #[test]
    fn every_mesh_is_told_with_its_own_annotation_and_fits_a_warning() {
        for mesh in MESHES {
            for (list, name) in ["containers", "initContainers"]
                .into_iter()
                .flat_map(|list| mesh.containers.map(|name| (list, name)))
            {
                let said = remarked(&json!({"spec": {list: [{"name": "thanos"}, {"name": name}]}}))
                    .unwrap();
                assert!(
                    said.contains(name) && said.contains(mesh.excluded),
                    "{said}"
                );
                assert!(
                    said.chars().count() <= MAX_WARNING_CHARS,
                    "{} characters: {said}",
                    said.chars().count()
                );
            }
            let (key, words) = mesh.asks;
            for (map, word) in ["labels", "annotations"]
                .into_iter()
                .flat_map(|map| words.iter().map(move |word| (map, word)))
            {
                let said = remarked(&json!({"metadata": {map: {key: word}}})).unwrap();
                assert!(said.contains(key) && said.contains(mesh.excluded), "{said}");
                assert!(
                    said.chars().count() <= MAX_WARNING_CHARS,
                    "{} characters: {said}",
                    said.chars().count()
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
    fn istios_revision_asks_for_a_proxy_unless_the_other_label_says_no() {
        for (labels, told) in [
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
                told,
                "{labels}"
            );
        }
    }

    #[test]
    fn only_ports_that_are_named_to_be_taken_over_are() {
        for (annotations, told) in [
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
            assert_eq!(remarked(&pod).is_some(), told, "{annotations}");
        }
    }

    #[test]
    fn a_port_that_is_kept_out_is_nobodys_concern() {
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
            assert_eq!(names_our_port(ports), out, "{ports}");
            let pod = |key: &str| json!({"metadata": {"annotations": {key: ports}}, "spec": {"initContainers": [{"name": "linkerd-init"}]}});
            assert_eq!(
                remarked(&pod(names::LINKERD_EXCLUDED_PORTS)).is_none(),
                out,
                "{ports}"
            );
            assert!(
                remarked(&pod(names::ISTIO_EXCLUDED_PORTS)).is_some(),
                "another mesh's word"
            );
        }
    }
}
