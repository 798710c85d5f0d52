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
    /// Annotation with the ports that are left alone.
    excluded: &'static str,
}

const MESHES: [Mesh; 2] = [
    Mesh {
        containers: ["istio-init", "istio-validation", "istio-proxy"],
        asks: (names::ISTIO_INJECT, &["true"]),
        excluded: names::ISTIO_EXCLUDED_PORTS,
    },
    Mesh {
        containers: ["linkerd-init", "linkerd-network-validator", "linkerd-proxy"],
        asks: (names::LINKERD_INJECT, &["enabled", "ingress"]),
        excluded: names::LINKERD_EXCLUDED_PORTS,
    },
];

/// What to tell about a mesh that takes the sidecar's port over.
pub(super) fn remark(pod: &PodView<'_>) -> Option<Remark> {
    let open = |mesh: &&Mesh| !pod.annotation(mesh.excluded).is_some_and(names_our_port);
    MESHES.iter().filter(open).find_map(|mesh| Some(Remark::MeshedPort { found: found(mesh, pod)?, exclude: mesh.excluded }))
}

fn found(mesh: &Mesh, pod: &PodView<'_>) -> Option<&'static str> {
    let there = |name: &&&str| pod.init_containers().iter().chain(pod.containers()).any(|container| container.name.0 == **name);
    let (key, words) = mesh.asks;
    let asked = [pod.label(key), pod.annotation(key)].into_iter().flatten().any(|value| words.contains(&value));
    mesh.containers.iter().find(there).copied().or(asked.then_some(key))
}

/// Ports with commas between them; Linkerd also takes ranges, such as `10900-10910`.
fn names_our_port(ports: &str) -> bool {
    ports.split(',').any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let port = |text: &str| text.trim().parse::<u16>();
        port(from).is_ok_and(|from| from <= names::SIDECAR_PORT) && port(to).is_ok_and(|to| names::SIDECAR_PORT <= to)
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
            for (list, name) in ["containers", "initContainers"].into_iter().flat_map(|list| mesh.containers.map(|name| (list, name))) {
                let said = remarked(&json!({"spec": {list: [{"name": "thanos"}, {"name": name}]}})).unwrap();
                assert!(said.contains(name) && said.contains(mesh.excluded), "{said}");
                assert!(said.chars().count() <= MAX_WARNING_CHARS, "{} characters: {said}", said.chars().count());
            }
            let (key, words) = mesh.asks;
            for (map, word) in ["labels", "annotations"].into_iter().flat_map(|map| words.iter().map(move |word| (map, word))) {
                let said = remarked(&json!({"metadata": {map: {key: word}}})).unwrap();
                assert!(said.contains(key) && said.contains(mesh.excluded), "{said}");
            }
            for word in ["false", "disabled", ""] {
                assert_eq!(remarked(&json!({"metadata": {"labels": {key: word}}})), None);
            }
        }
        assert_eq!(remarked(&json!({"spec": {"containers": [{"name": "thanos"}, {"name": "istio"}]}})), None);
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
            let pod =
                |key: &str| json!({"metadata": {"annotations": {key: ports}}, "spec": {"initContainers": [{"name": "linkerd-init"}]}});
            assert_eq!(remarked(&pod(names::LINKERD_EXCLUDED_PORTS)).is_none(), out, "{ports}");
            assert!(remarked(&pod(names::ISTIO_EXCLUDED_PORTS)).is_some(), "another mesh's word");
        }
    }
}
