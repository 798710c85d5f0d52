//! Which pods are ours: owned by a StatefulSet, exactly one container that runs `thanos store`, not opted out.

use super::super::names;
use super::super::pod::{ContainerView, OwnerView, PodView};
use super::super::printable::cut;
use super::super::store_args::{Runs, Store, image_is_too_old, port_of, recognise};
use super::super::text::listed;
use super::Skip;

/// What is shown of a program, so that the sentence about it fits a warning. Characters.
const MAX_PROGRAM_CHARS: usize = 36;

/// A pod that will be injected, if its StatefulSet allows.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// Its StatefulSet.
    pub owner: &'a OwnerView<'a>,
    /// Its ordinal, as the name ends.
    pub ordinal: u32,
    /// Index of the thanos container.
    pub index: usize,
    /// The thanos container.
    pub container: &'a ContainerView<'a>,
    /// Its words.
    pub store: Store<'a>,
    /// Whether our sidecar is there already.
    pub has_sidecar: bool,
}

/// Finds out whether a pod is ours.
///
/// # Errors
/// [`Skip`] says why not.
pub fn eligible<'a>(pod: &'a PodView<'a>) -> Result<Candidate<'a>, Skip> {
    let owner = owner(pod).ok_or(Skip::NotStatefulSet)?;
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
        .any(is_our_sidecar);
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

fn owner<'a>(pod: &'a PodView<'a>) -> Option<&'a OwnerView<'a>> {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    owners
        .iter()
        .find(|owner| owner.kind.0 == "StatefulSet" && owner.api_version.0.starts_with("apps/"))
}

/// The one container that runs thanos store.
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
            Runs::Program(word, _) => Skip::Program(cut(word, MAX_PROGRAM_CHARS).into_owned()),
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
            Runs::Wrapper(word) => Skip::Wrapper(short(word)),
            Runs::ArgsFile(word) => Skip::ArgsFile(short(word)),
            Runs::UnknownImage => Skip::UnknownImage(short(&container.image.0)),
        };
        // Of several reasons the one that its user can do something about is told.
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
            if image_is_too_old(image) && !store.launched {
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

/// The ordinal: what the name has after the StatefulSet's, else the pod index label (which is the raw ordinal as well).
fn ordinal(pod: &PodView<'_>, statefulset: &str) -> Option<u32> {
    let by_name = pod
        .name()
        .strip_prefix(statefulset)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(number);
    by_name.or_else(|| pod.label(names::POD_INDEX_LABEL).and_then(number))
}

/// Plain digits only: `parse` would also take a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Other tools put programs before ours, and move what was the command to the arguments.
pub(super) fn is_our_sidecar(container: &ContainerView<'_>) -> bool {
    container.name.0 == names::SIDECAR && is_injected(container)
}

/// Whether a container is one that we inject, in either form.
pub(super) fn is_injected(container: &ContainerView<'_>) -> bool {
    let mut words = container.command().iter().chain(container.args());
    [names::SIDECAR, names::SIDECAR_INSTALL].contains(&container.name.0.as_ref())
        && words.any(|word| word.0 == names::AGENT_IN_IMAGE)
}

/// The words of the annotation that names the program, if the pod has it; an error where they are not a list of any.
pub(super) fn annotated_command(pod: &PodView<'_>) -> Option<Result<Vec<String>, ()>> {
    let text = pod.annotation(names::COMMAND_ANNOTATION)?;
    Some(
        serde_json::from_str::<Vec<String>>(text)
            .ok()
            .filter(|words| !words.is_empty())
            .ok_or(()),
    )
}

/// What is wrong with a pod that has our sidecar and no thanos store that could be launched.
fn undone(skip: Skip) -> Skip {
    match skip {
        Skip::Program(what)
        | Skip::Wrapper(what)
        | Skip::NoStore(what)
        | Skip::UnknownImage(what) => Skip::Undone(cut(&what, MAX_PROGRAM_CHARS).into_owned()),
        other => other,
    }
}

/// Refuses when a name or path of ours means something else in this pod.
fn check_names(
    pod: &PodView<'_>,
    container: &ContainerView<'_>,
    store: &Store<'_>,
    ours: bool,
) -> Result<(), Skip> {
    let all = || pod.init_containers().iter().chain(pod.containers());
    if all().any(|c| c.name.0 == names::SIDECAR && !is_our_sidecar(c)) {
        return Err(Skip::NameTaken(names::SIDECAR));
    }
    let volumes = pod.spec.volumes.as_deref().unwrap_or_default();
    for name in [names::SHARED_VOLUME, names::CONFIG_VOLUME] {
        // Without sidecar and launcher nothing of ours is here, so a volume of this name is someone else's.
        if !ours && volumes.iter().any(|volume| volume.name.0 == name) {
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
    // A port need not be declared.
    let listens = [store.http_address, store.grpc_address]
        .into_iter()
        .flatten()
        .any(|at| port_of(at) == Some(names::SIDECAR_PORT));
    if !ours && (listens || all().any(takes_port)) {
        return Err(Skip::NameTaken("port 10908"));
    }
    if !ours && all().any(|c| c.name.0 == names::SIDECAR_INSTALL) {
        return Err(Skip::NameTaken(names::SIDECAR_INSTALL));
    }
    Ok(())
}

/// The user's text, short enough for a warning (256 characters in all).
fn short(text: &str) -> String {
    const LONGEST: usize = 60;
    cut(text, LONGEST).into_owned()
}
