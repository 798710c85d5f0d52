//! Marks by which a StatefulSet's objects and injected containers are recognised, whichever type
//! they were read into.

use serde_json::Value;

use crate::core::model::names;

/// True for the StatefulSet of `apps/v1`, not for a kind of the same name in another API group.
#[must_use]
pub fn is_statefulset(api_version: &str, kind: &str) -> bool {
    kind == "StatefulSet" && api_version.starts_with("apps/")
}

/// True for the sidecar, given its name, command and arguments. Other tools prepend a program, and
/// move the original command to the arguments.
#[must_use]
pub fn is_sidecar<'a>(name: &str, args: impl IntoIterator<Item = &'a str>) -> bool {
    name == names::SIDECAR && runs_agent(args)
}

/// True for the sidecar, and for the init container of the classic form.
#[must_use]
pub fn is_injected<'a>(name: &str, args: impl IntoIterator<Item = &'a str>) -> bool {
    [names::SIDECAR, names::SIDECAR_INSTALL].contains(&name) && runs_agent(args)
}

fn runs_agent<'a>(args: impl IntoIterator<Item = &'a str>) -> bool {
    args.into_iter().any(|arg| arg == names::AGENT_IN_IMAGE)
}

/// The sidecar of a pod that timeshard has just injected, in either form.
#[must_use]
pub fn sidecar_of(pod: &Value) -> Option<&Value> {
    ["/spec/initContainers", "/spec/containers"]
        .into_iter()
        .filter_map(|list| pod.pointer(list)?.as_array())
        .flatten()
        .find(|container| container["name"] == names::SIDECAR)
}
