//! Eligibility: owned by a StatefulSet, exactly one container that runs `thanos store`, not opted
//! out.
//!
//! In: a pod. Out: a [`Candidate`], with the store's container and its recognised arguments, or why
//! it is none. Next for a review: `core/admission/mod.rs`.

use super::Skip;
use crate::core::model::names;
use crate::core::model::text::{listed, truncate};
use crate::core::pod::{ContainerView, OwnerView, PodView};
use crate::core::thanos::args::{Runs, Store, image_is_too_old, port_of, recognise};

/// Longest program name that is repeated, so that the message fits a warning. Characters.
const MAX_PROGRAM_CHARS: usize = 36;
/// Longest annotation that names the program. Bytes.
const MAX_COMMAND_BYTES: usize = 16 << 10;

/// A pod that will be injected if its StatefulSet allows it.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The StatefulSet.
    pub owner: &'a OwnerView<'a>,
    /// The number at the end of the pod's name, which counts from `spec.ordinals.start`.
    pub ordinal: u32,
    /// Index of the thanos container.
    pub index: usize,
    /// The thanos container.
    pub container: &'a ContainerView<'a>,
    /// Its command line.
    pub store: Store<'a>,
    /// Whether an earlier pass added the sidecar.
    pub has_sidecar: bool,
}

/// Checks whether a pod is a gateway to inject.
///
/// # Errors
/// [`Skip`] with the reason.
pub fn eligible<'a>(pod: &'a PodView<'a>) -> Result<Candidate<'a>, Skip> {
    let owner = pod.statefulset().ok_or(Skip::NotStatefulSet)?;
    if [pod.label(names::INJECT), pod.annotation(names::INJECT)].contains(&Some("false")) {
        return Err(Skip::OptedOut);
    }
    if pod
        .spec
        .os
        .as_ref()
        .is_some_and(|os| os.name.0 == "windows")
    {
        return Err(Skip::Windows);
    }
    let has_sidecar = pod
        .init_containers()
        .iter()
        .chain(pod.containers())
        .any(ContainerView::is_sidecar);
    let (index, store) =
        the_store(pod).map_err(|skip| if has_sidecar { undone(skip) } else { skip })?;
    let container = &pod.containers()[index];
    let ordinal = ordinal(pod, &owner.name.0).ok_or_else(|| Skip::NoOrdinal(short(pod.name())))?;
    check_names(pod, container, &store, has_sidecar || store.launched)?;
    Ok(Candidate {
        owner,
        ordinal,
        index,
        container,
        store,
        has_sidecar,
    })
}

/// Finds the container that runs thanos store.
fn the_store<'a>(pod: &'a PodView<'a>) -> Result<(usize, Store<'a>), Skip> {
    let vouched = [pod.label(names::INJECT), pod.annotation(names::INJECT)].contains(&Some("true"));
    let commanded = vouched && matches!(annotated_command(pod), Some(Ok(_)));
    let mut stores = Vec::new();
    let mut instead = None;
    for (index, container) in pod.containers().iter().enumerate() {
        let reason = match recognise(container, vouched) {
            Runs::Store(store) => {
                stores.push((index, store));
                continue;
            }
            Runs::Program(_, store) if commanded => {
                stores.push((index, store));
                continue;
            }
            Runs::Other => continue,
            Runs::Program(program, _) => {
                Skip::Program(truncate(program, MAX_PROGRAM_CHARS).into_owned())
            }
            Runs::TooManyArguments(count) => Skip::TooManyArguments(count),
            Runs::OtherThanos("") => Skip::NoStore(format!(
                "{} runs thanos without a command",
                short(&container.name.0)
            )),
            Runs::OtherThanos(what) => Skip::NoStore(format!(
                "{} runs thanos {}",
                short(&container.name.0),
                short(what)
            )),
            Runs::Wrapper(script) => Skip::Wrapper(short(script)),
            Runs::ArgsFile(arg) => Skip::ArgsFile(short(arg)),
            Runs::UnknownImage => Skip::UnknownImage(short(&container.image.0)),
        };
        // Of several reasons, reports one that the user can act on.
        if instead
            .as_ref()
            .is_none_or(|known: &Skip| !known.surprises() && reason.surprises())
        {
            instead = Some(reason);
        }
    }
    match stores.len() {
        1 => {
            let (index, store) = stores.pop().ok_or(Skip::SeveralStores(0))?;
            let image = &pod.containers()[index].image.0;
            // A user who vouches for the container may number images in any way.
            if image_is_too_old(image) && !store.launched && !vouched {
                Err(Skip::OldImage(short(image)))
            } else {
                Ok((index, store))
            }
        }
        0 => Err(instead.unwrap_or_else(|| {
            let names: Vec<String> = pod
                .containers()
                .iter()
                .map(|container| short(&container.name.0))
                .collect();
            Skip::NoStore(if names.is_empty() {
                "there are no containers".to_owned()
            } else {
                format!("containers: {}", listed(&names, 4))
            })
        })),
        n => Err(Skip::SeveralStores(n)),
    }
}

/// Reads the ordinal from the pod's name, or else from the pod index label, which is the raw
/// ordinal as well.
fn ordinal(pod: &PodView<'_>, statefulset: &str) -> Option<u32> {
    let by_name = pod
        .name()
        .strip_prefix(statefulset)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(number);
    by_name.or_else(|| pod.label(names::POD_INDEX_LABEL).and_then(number))
}

/// Parses digits only: `parse` would also accept a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Parses the annotation that names the program, if the pod has it; an error unless it is a
/// non-empty list.
pub(super) fn annotated_command(pod: &PodView<'_>) -> Option<Result<Vec<String>, ()>> {
    let text = pod.annotation(names::COMMAND_ANNOTATION)?;
    Some(
        Some(text)
            .filter(|text| text.len() <= MAX_COMMAND_BYTES)
            .and_then(|text| serde_json::from_str::<Vec<String>>(text).ok())
            .filter(|words| !words.is_empty())
            .ok_or(()),
    )
}

/// Turns the reason into [`Skip::Undone`] for a pod that has the sidecar but no thanos store to
/// launch.
fn undone(skip: Skip) -> Skip {
    match skip {
        Skip::Program(what)
        | Skip::Wrapper(what)
        | Skip::NoStore(what)
        | Skip::UnknownImage(what) => Skip::Undone(truncate(&what, MAX_PROGRAM_CHARS).into_owned()),
        other => other,
    }
}

/// Fails if the pod uses a name, path or port of timeshard's for something else.
fn check_names(
    pod: &PodView<'_>,
    container: &ContainerView<'_>,
    store: &Store<'_>,
    injected: bool,
) -> Result<(), Skip> {
    let all = || pod.init_containers().iter().chain(pod.containers());
    if all().any(|c| c.name.0 == names::SIDECAR && !c.is_sidecar()) {
        return Err(Skip::NameTaken(names::SIDECAR));
    }
    let volumes = pod.spec.volumes.as_deref().unwrap_or_default();
    for name in [names::SHARED_VOLUME, names::CONFIG_VOLUME] {
        // Without sidecar and launcher the pod is not injected, so the volume is someone else's.
        if !injected && volumes.iter().any(|volume| volume.name.0 == name) {
            return Err(Skip::NameTaken(name));
        }
    }
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    if mounts.iter().any(|mount| {
        mount.mount_path.0.trim_end_matches('/') == names::SHARED_DIR
            && mount.name.0 != names::SHARED_VOLUME
    }) {
        return Err(Skip::NameTaken(names::SHARED_DIR));
    }
    let takes_port = |c: &ContainerView<'_>| {
        c.ports
            .iter()
            .flatten()
            .any(|port| port.container_port == i64::from(names::SIDECAR_PORT))
    };
    // Ports need not be declared.
    let listens = [store.http_address, store.grpc_address]
        .into_iter()
        .flatten()
        .any(|at| port_of(at) == Some(names::SIDECAR_PORT));
    if !injected && (listens || all().any(takes_port)) {
        return Err(Skip::NameTaken("port 10908"));
    }
    if !injected && all().any(|c| c.name.0 == names::SIDECAR_INSTALL) {
        return Err(Skip::NameTaken(names::SIDECAR_INSTALL));
    }
    Ok(())
}

/// Cuts a user's text so that the message fits a warning (256 characters in all).
fn short(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    truncate(text, MAX_CHARS).into_owned()
}
