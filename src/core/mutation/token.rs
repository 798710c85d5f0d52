//! Containers of ours without the token of the pod's ServiceAccount.
//!
//! The sidecar needs no API server, and its port is open to the pod network: what is taken over through it shall hold no rights. New
//! containers come with a mount in the token's place (`sidecar_spec::token_mount`). Here it is put back where it is missing: in pods that
//! were copied with a sidecar of an earlier version, and after other webhooks.

use super::super::names;
use super::super::patch::{Operation, Value};
use super::super::pod::{ContainerView, PodView};
use super::super::sidecar_spec::token_mount;
use super::eligible::is_injected;

/// Adds the operations for containers of ours that are there already.
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
        all.filter(|(_, _, container)| is_injected(container))
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
