//! A selection of blocks that differs from pod to pod: hash sharding by the pod's ordinal, or a
//! file that each pod writes.
//!
//! Windows divide blocks by time. If the pods of a shard also select different blocks, a block is
//! served only if the pod of its hash has the window of its time, so no pod serves most blocks.
//! Scripts are not searched: a store that a shell starts is skipped anyway.

use std::collections::HashSet;

use super::eligible::Candidate;
use super::{Remark, Skip};
use crate::core::model::text::truncate;
use crate::core::pod::{ContainerView, EnvView, PodView};

/// Longest reference that is repeated. Characters.
const MAX_REFERENCE_CHARS: usize = 24;
/// Longest path that is repeated. Characters.
const MAX_PATH_CHARS: usize = 50;

/// Checks the selection of a pod that would be injected.
///
/// # Errors
/// [`Skip::PerPodSelection`] if it certainly differs from pod to pod.
pub(super) fn check(pod: &PodView<'_>, candidate: &Candidate<'_>) -> Result<Option<Remark>, Skip> {
    let (store, container) = (&candidate.store, candidate.container);
    for text in [store.selector, store.selector_file].into_iter().flatten() {
        if let Some(name) = per_pod_reference(text, container) {
            return Err(Skip::PerPodSelection(format!(
                "$({})",
                truncate(&name, MAX_REFERENCE_CHARS)
            )));
        }
    }
    let own = store
        .selector_file
        .filter(|path| of_the_pod(path, pod, container));
    Ok(own.map(|path| Remark::SelectionFile(truncate(path, MAX_PATH_CHARS).into_owned())))
}

/// Returns the first variable in a text whose value differs from pod to pod.
fn per_pod_reference(text: &str, container: &ContainerView<'_>) -> Option<String> {
    references(text).next()?;
    let differing = differing(&container.variables());
    references(text)
        .find(|name| differing.contains(*name))
        .map(str::to_owned)
}

/// Returns the names of variables whose values differ from pod to pod.
fn differing(variables: &[EnvView<'_>]) -> HashSet<String> {
    let mut names = HashSet::new();
    for variable in variables {
        let field = variable
            .value_from
            .as_ref()
            .and_then(|from| from.field_ref.as_ref());
        let by_field = field.is_some_and(|field| differs(&field.field_path.0));
        let by_value = variable
            .value
            .as_ref()
            .is_some_and(|value| references(&value.0).any(|name| names.contains(name)));
        if by_field || by_value {
            names.insert(variable.name.0.to_string());
        }
    }
    names
}

/// Whether a field differs between the pods of a StatefulSet.
fn differs(field: &str) -> bool {
    let own_label = ["pod-index", "pod-name"]
        .iter()
        .any(|label| field.contains(label));
    match field {
        "metadata.namespace" | "spec.serviceAccountName" => false,
        _ if field.starts_with("metadata.labels") || field.starts_with("metadata.annotations") => {
            own_label
        }
        _ => true,
    }
}

/// The variables that kubelet would expand: `$(NAME)`, but not `$$(NAME)`.
fn references(text: &str) -> impl Iterator<Item = &str> {
    // The end of the last name: the text is searched once, however many beginnings it has.
    let mut end = Some(0);
    text.match_indices("$(")
        .map_while(move |(at, _)| {
            let from = at + 2;
            if end.is_some_and(|end| end < from) {
                end = text[from..].find(')').map(|length| from + length);
            }
            let end = end?;
            let escapes = text[..at]
                .bytes()
                .rev()
                .take_while(|byte| *byte == b'$')
                .count();
            Some((escapes % 2 == 0).then_some(&text[from..end]))
        })
        .flatten()
}

/// Whether a file is on a volume that each pod has for itself.
fn of_the_pod(path: &str, pod: &PodView<'_>, container: &ContainerView<'_>) -> bool {
    let below = |mount: &str| {
        let mount = mount.trim_end_matches('/');
        path.strip_prefix(mount)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    let mounts = container
        .volume_mounts
        .iter()
        .flatten()
        .filter(|mount| below(&mount.mount_path.0));
    let Some(mount) = mounts.max_by_key(|mount| mount.mount_path.0.len()) else {
        return false;
    };
    let volume = pod
        .spec
        .volumes
        .iter()
        .flatten()
        .find(|volume| volume.name.0 == mount.name.0);
    let own = volume.is_some_and(|volume| {
        volume.empty_dir.is_some() || volume.persistent_volume_claim.is_some()
    });
    own || mount
        .sub_path_expr
        .as_ref()
        .is_some_and(|expression| per_pod_reference(&expression.0, container).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::eligible;
    use super::*;

    fn checked(container: Value, volumes: &Value) -> Result<Option<Remark>, Skip> {
        let mut container = container;
        container["image"] = json!("thanos");
        let pod = json!({"metadata": {"name": "gw-0", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "gw"}]},
            "spec": {"containers": [container], "volumes": volumes}});
        let text = pod.to_string();
        let pod = PodView::parse(text.as_bytes()).unwrap();
        check(&pod, &eligible(&pod).unwrap())
    }

    #[test]
    fn a_selection_by_a_variable_of_the_pod_is_skipped() {
        let field = |path: &str| json!({"valueFrom": {"fieldRef": {"fieldPath": path}}});
        for (source, refused) in [
            (
                field("metadata.labels['apps.kubernetes.io/pod-index']"),
                true,
            ),
            (
                field("metadata.labels['statefulset.kubernetes.io/pod-name']"),
                true,
            ),
            (field("metadata.name"), true),
            (field("status.podIP"), true),
            (field("metadata.namespace"), false),
            (field("metadata.labels['app']"), false),
            (json!({"value": "3"}), false),
            (
                json!({"valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}),
                false,
            ),
        ] {
            let mut variable = source.clone();
            variable["name"] = json!("V");
            let env = json!([variable, {"name": "W", "value": "x-$(V)"}]);
            for (flag, by) in [
                (
                    json!([
                        "store",
                        "--selector.relabel-config=[{action: keep, source_labels: [shard], regex: \"$(V)\"}]"
                    ]),
                    "$(V)",
                ),
                (
                    json!(["store", "--selector.relabel-config", "regex: $(W)"]),
                    "$(W)",
                ),
                (
                    json!(["store", "--selector.relabel-config-file=/c/$(V).yaml"]),
                    "$(V)",
                ),
            ] {
                let skip = checked(json!({"args": flag, "env": env}), &json!([])).err();
                assert_eq!(
                    skip,
                    refused.then(|| Skip::PerPodSelection(by.to_owned())),
                    "{source} {flag}"
                );
            }
            assert!(
                checked(json!({"args": ["store", "--selector.relabel-config=$$(V)", "--data-dir=$(V)"], "env": env}), &json!([])).is_ok()
            );
        }
    }

    /// Each beginning used to search the rest of the text for an end: hours for a few MiB.
    #[test]
    fn a_text_of_beginnings_is_searched_once() {
        let beginnings = "$(".repeat(2 << 20);
        assert_eq!(references(&beginnings).next(), None);
        let ended = format!("{beginnings})");
        assert_eq!(references(&ended).last(), Some(""));
        assert_eq!(references(&ended).count(), 2 << 20);
        let several: Vec<&str> = references("$(A)$$(B) $(C $(D) x)$(E").collect();
        assert_eq!(several, ["A", "C $(D", "D"]);
        let variables: Vec<Value> = (0..4_000)
            .map(|i| json!({"name": format!("V{i}"), "value": "$(X)".repeat(250), "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}))
            .collect();
        let arg = format!("--selector.relabel-config={}", "$(Y)".repeat(100_000));
        assert!(
            checked(
                json!({"args": ["store", arg], "env": variables}),
                &json!([])
            )
            .is_ok()
        );
    }

    #[test]
    fn a_file_of_the_pod_alone_is_reported() {
        for (volume, reported) in [
            (json!({"emptyDir": {}}), true),
            (json!({"persistentVolumeClaim": {"claimName": "d"}}), true),
            (json!({"configMap": {"name": "c"}}), false),
            (json!({"secret": {"secretName": "c"}}), false),
        ] {
            let mut volume = volume;
            volume["name"] = json!("v");
            let container = |path: &str| json!({"args": ["store", format!("--selector.relabel-config-file={path}")], "volumeMounts": [{"name": "v", "mountPath": "/etc/gw/"}]});
            assert_eq!(
                checked(container("/etc/gw/hash.yaml"), &json!([volume]))
                    .unwrap()
                    .is_some(),
                reported,
                "{volume}"
            );
            assert_eq!(
                checked(container("/etc/gwx/hash.yaml"), &json!([volume])).unwrap(),
                None,
                "another folder"
            );
        }
        let by_pod = json!({"args": ["store", "--selector.relabel-config-file=/c/f"], "env": [{"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "volumeMounts": [{"name": "v", "mountPath": "/c", "subPathExpr": "$(P)"}]});
        assert!(
            checked(by_pod, &json!([{"name": "v", "configMap": {"name": "c"}}]))
                .unwrap()
                .is_some()
        );
    }
}
