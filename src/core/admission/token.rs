//! Keeps the token of the pod's ServiceAccount out of injected containers.
//!
//! The sidecar does not call the API server, and its port is open to the pod network: an attacker
//! who takes it over must not gain rights. New containers come with a mount in the token's place
//! ([`token_mount`]). This module restores the mount where it is missing: in pods copied with the
//! sidecar of an earlier version, and after other webhooks.

use super::patch::{Operation, Value};
use crate::core::gateways::container::token_mount;
use crate::core::model::names;
use crate::core::pod::{ContainerView, PodView};

/// Adds the operations for containers that an earlier pass injected.
pub(super) fn keep_out(pod: &PodView<'_>, operations: &mut Vec<Operation<'_>>) {
    let init = pod
        .init_containers()
        .iter()
        .enumerate()
        .map(|(index, container)| ("initContainers", index, container));
    let all = init.chain(
        pod.containers()
            .iter()
            .enumerate()
            .map(|(index, container)| ("containers", index, container)),
    );
    operations.extend(
        all.filter(|(_, _, container)| container.is_injected())
            .filter_map(|(list, index, container)| one(list, index, container)),
    );
}

fn one<'a>(list: &str, index: usize, container: &ContainerView<'_>) -> Option<Operation<'a>> {
    let path = format!("/spec/{list}/{index}/volumeMounts");
    let Some(mounts) = &container.volume_mounts else {
        return Some(Operation::add(path, Value::Mounts(vec![token_mount()])));
    };
    match mounts
        .iter()
        .position(|mount| mount.mount_path.0 == names::TOKEN_DIR)
    {
        Some(at) if mounts[at].name.0 == names::CONFIG_VOLUME => None,
        Some(at) => Some(Operation::replace(
            format!("{path}/{at}"),
            Value::Mount(token_mount()),
        )),
        None => Some(Operation::add(path + "/-", Value::Mount(token_mount()))),
    }
}
