//! The operations: each part of the injection is added only where it is missing, so that a second pass adds nothing.

use std::borrow::Cow;

use serde::Serialize;

use super::super::config::{Reload, is_ours, sharding_key, unknown_annotation};
use super::super::duration::PromDuration;
use super::super::names;
use super::super::patch::{self, Operation, Value};
use super::super::plan::Assignment;
use super::super::pod::{ContainerView, PodView, Text};
use super::super::sidecar_spec::{
    ReloadIn, SidecarFacts, config_volume, install, launcher_command, shared_mount, shared_volume,
};
use super::super::store_args::{At, host_of, port_of};
use super::super::window::Window;
use super::eligible::{Candidate, annotated_command, is_our_sidecar};
use super::{Facts, Injection, Remark, Skip, Source, liveness, mesh, selection, token};

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE_SECONDS: i64 = 30;
/// Annotations without effect that are named, one warning each.
const MAX_ANNOTATION_REMARKS: usize = 4;

/// What the status annotation says.
#[derive(Serialize)]
struct Status<'a> {
    shard: u32,
    replica: u32,
    min_time: String,
    max_time: String,
    source: &'static str,
    agent: &'a str,
}

/// The patch for a pod that is ours.
///
/// # Errors
/// [`Skip`] when its user set time flags and did not let us replace them, or when nothing is missing.
pub fn inject<'a>(
    pod: &'a PodView<'a>,
    candidate: &Candidate<'a>,
    facts: &Facts<'a>,
) -> Result<Injection<'a>, Skip> {
    let ours = candidate.has_sidecar || candidate.store.launched;
    let replace =
        facts.replace_time_flags || pod.annotation(names::REPLACE_TIME_FLAGS) == Some("true");
    if let Some(flag) = candidate
        .store
        .time_flags
        .first()
        .filter(|_| !ours && !replace)
    {
        return Err(Skip::TimeFlags(
            if flag.is_min {
                "--min-time"
            } else {
                "--max-time"
            }
            .to_owned(),
        ));
    }
    let (assignment, window, source) = place(candidate, facts);
    let mut remarks = Vec::new();
    if !ours {
        remarks.extend(selection::look(pod, candidate)?);
    }
    let mut patch = Patch {
        pod,
        candidate,
        operations: Vec::with_capacity(12),
    };
    patch.volumes(facts);
    patch.sidecar(facts, &mut remarks);
    patch.mount();
    patch.command_and_args(facts, window, ours, &mut remarks);
    patch.grace(facts);
    patch.metadata(facts, assignment, window, source);
    remarks.extend(mesh::remark(pod));
    remarks.extend(annotation_remarks(pod));
    if patch.operations.is_empty() {
        return Err(Skip::AlreadyInjected);
    }
    Ok(Injection {
        operations: patch.operations,
        assignment,
        window,
        source,
        remarks,
    })
}

/// Names the first few annotations that have no effect, and counts the others. A body may hold a hundred thousand, and finding
/// out what each was meant to be is much work.
fn annotation_remarks(pod: &PodView<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut more = 0;
    for (key, _) in pod
        .metadata
        .annotations
        .iter()
        .flat_map(|ours| &ours.0)
        .filter(|(key, _)| key.starts_with(names::PREFIX) && !is_ours(key))
    {
        if remarks.len() >= MAX_ANNOTATION_REMARKS {
            more += 1;
        } else if sharding_key(key).is_some() {
            remarks.push(Remark::KeyOnPod(key.to_string()));
        } else {
            remarks.extend(unknown_annotation(key).map(Remark::UnknownAnnotation));
        }
    }
    remarks.extend((more > 0).then_some(Remark::MoreAnnotations(more)));
    remarks
}

/// The published entry if there is one, else the plan.
fn place(candidate: &Candidate<'_>, facts: &Facts<'_>) -> (Assignment, Window, Source) {
    if let Some(entry) = facts.published {
        return (
            Assignment {
                shard: entry.shard,
                replica: entry.replica,
                surplus: false,
            },
            entry.window,
            Source::Published,
        );
    }
    let assignment = facts
        .plan
        .assign(candidate.ordinal.saturating_sub(facts.ordinals_start));
    (
        assignment,
        facts.plan.window(assignment.shard, facts.now),
        Source::Plan,
    )
}

struct Patch<'a, 'c> {
    pod: &'a PodView<'a>,
    candidate: &'c Candidate<'a>,
    operations: Vec<Operation<'a>>,
}

impl<'a> Patch<'a, '_> {
    fn volumes(&mut self, facts: &Facts<'a>) {
        let has = |name: &str| {
            self.pod
                .spec
                .volumes
                .iter()
                .flatten()
                .any(|volume| volume.name.0 == name)
        };
        let mut missing = Vec::with_capacity(2);
        if !has(names::SHARED_VOLUME) {
            missing.push(shared_volume());
        }
        if !has(names::CONFIG_VOLUME) {
            missing.push(config_volume(Cow::Owned(
                facts
                    .config
                    .operator
                    .configmap_of(facts.namespace, &self.candidate.owner.name.0),
            )));
        }
        if self.pod.spec.volumes.is_none() && !missing.is_empty() {
            self.operations
                .push(Operation::add("/spec/volumes", Value::Volumes(missing)));
        } else {
            self.operations.extend(
                missing
                    .into_iter()
                    .map(|volume| Operation::add("/spec/volumes/-", Value::Volume(volume))),
            );
        }
    }

    fn sidecar(&mut self, facts: &Facts<'a>, remarks: &mut Vec<Remark>) {
        token::keep_out(self.pod, &mut self.operations);
        if self.candidate.has_sidecar {
            return self.restart_policy();
        }
        let spec = self.sidecar_facts(facts, remarks);
        let there = self.pod.spec.init_containers.is_some();
        if !facts.config.injection.native_sidecar {
            self.operations.push(if there {
                Operation::add(
                    "/spec/initContainers/-",
                    Value::Container(Box::new(install(&spec))),
                )
            } else {
                Operation::add(
                    "/spec/initContainers",
                    Value::Containers(vec![install(&spec)]),
                )
            });
        }
        if let Some(sidecar) = facts.rendered.get(&spec) {
            self.operations
                .push(match (facts.config.injection.native_sidecar, there) {
                    (false, _) => Operation::add("/spec/containers/-", Value::Rendered(sidecar)),
                    (true, true) => {
                        Operation::add("/spec/initContainers/-", Value::Rendered(sidecar))
                    }
                    (true, false) => {
                        Operation::add("/spec/initContainers", Value::RenderedList(sidecar))
                    }
                });
        }
        if spec.reload == ReloadIn::Signal && self.pod.spec.share_process_namespace != Some(true) {
            self.operations.push(Operation::add(
                "/spec/shareProcessNamespace",
                Value::Truth(true),
            ));
        }
    }

    /// What does not know native sidecars drops the policy, and then an init container of ours would never end.
    fn restart_policy(&mut self) {
        let init = self.pod.init_containers();
        let Some(index) = init.iter().position(is_our_sidecar) else {
            return;
        };
        let put = match &init[index].restart_policy {
            Some(policy) if policy.0 == "Always" => return,
            Some(_) => Operation::replace,
            None => Operation::add,
        };
        let path = format!("/spec/initContainers/{index}/restartPolicy");
        self.operations
            .push(put(Cow::Owned(path), Value::Text(Cow::Borrowed("Always"))));
    }

    fn sidecar_facts(&self, facts: &Facts<'a>, remarks: &mut Vec<Remark>) -> SidecarFacts<'a> {
        let container = self.candidate.container;
        let user = |context: &Option<super::super::pod::SecurityView>| {
            context.as_ref().and_then(|context| context.run_as_user)
        };
        let run_as_user = match user(&container.security_context)
            .or_else(|| user(&self.pod.spec.security_context))
        {
            Some(0) => Some(names::NON_ROOT_UID),
            other => other,
        };
        let http = self.candidate.store.http_address.unwrap_or_default();
        let grpc = self.candidate.store.grpc_address.unwrap_or_default();
        if !http.is_empty() && port_of(http).is_none() {
            remarks.push(Remark::UnreadableAddress(http.chars().take(60).collect()));
        }
        let despite = facts.reload_despite_liveness
            || self.pod.annotation(names::RELOAD_DESPITE_LIVENESS) == Some("true");
        let grpc_port = self
            .candidate
            .store
            .grpc_port()
            .unwrap_or(names::THANOS_GRPC_PORT);
        let reload = match facts.sharding.reload() {
            _ if !despite && liveness::kills(self.pod, container, grpc_port) => {
                remarks.push(Remark::UnsafeLiveness(
                    container.name.0.chars().take(60).collect(),
                ));
                ReloadIn::Off
            }
            Reload::Exec => ReloadIn::Exec,
            // Kubernetes refuses both namespaces at once, and in the node's the sidecar may find another pod's thanos.
            Reload::Signal if self.pod.spec.host_pid == Some(true) => {
                remarks.push(Remark::HostPid);
                ReloadIn::Exec
            }
            Reload::Signal => ReloadIn::Signal,
        };
        SidecarFacts {
            injection: &facts.config.injection,
            run_as_user,
            thanos_url: Cow::Owned(format!("http://{}", reach(http, names::THANOS_HTTP_PORT))),
            grpc_address: Cow::Owned(reach(grpc, names::THANOS_GRPC_PORT)),
            drain: facts.sharding.drain(),
            load_retry: facts.sharding.load_retry(),
            reload,
            shares_resources: self.pod.spec.has_resources(),
        }
    }

    fn mount(&mut self) {
        let path = format!("/spec/containers/{}/volumeMounts", self.candidate.index);
        match &self.candidate.container.volume_mounts {
            Some(mounts)
                if mounts
                    .iter()
                    .any(|mount| mount.name.0 == names::SHARED_VOLUME) => {}
            Some(_) => self
                .operations
                .push(Operation::add(path + "/-", Value::Mount(shared_mount()))),
            None => self
                .operations
                .push(Operation::add(path, Value::Mounts(vec![shared_mount()]))),
        }
    }

    fn command_and_args(
        &mut self,
        facts: &Facts<'a>,
        window: Window,
        ours: bool,
        remarks: &mut Vec<Remark>,
    ) {
        let container = self.candidate.container;
        let mut args: Vec<Edit> = Vec::new();
        let mut command: Vec<Edit> = Vec::new();
        if !ours || self.candidate.store.time_flags.is_empty() {
            time_flag_edits(self.candidate, window, &mut command, &mut args);
        }
        if let (Some(At::Args(first)), false) =
            (self.candidate.store.wrapped, self.candidate.store.launched)
        {
            args.extend((0..first).map(|i| Edit {
                place: EditPlace::At(i),
                word: None,
            }));
        }
        let base = format!("/spec/containers/{}", self.candidate.index);
        let launched = self.candidate.store.launched;
        if !launched || !command.is_empty() {
            let mut words: Vec<Cow<'a, str>> = Vec::with_capacity(container.command().len() + 6);
            if !launched {
                words.extend(launcher_command(facts.sharding.termination_drain()));
            }
            words.extend(self.program(container, command, launched, remarks));
            let put = if container.command.is_some() {
                Operation::replace
            } else {
                Operation::add
            };
            self.operations.push(put(
                Cow::Owned(format!("{base}/command")),
                Value::Words(words),
            ));
        }
        self.args(&base, args);
    }

    /// The command that the launcher runs: the annotation's, else the container's own, else the image's `thanos`.
    fn program(
        &self,
        container: &'a ContainerView<'a>,
        edits: Vec<Edit>,
        launched: bool,
        remarks: &mut Vec<Remark>,
    ) -> Vec<Cow<'a, str>> {
        match annotated_command(self.pod).filter(|_| !launched) {
            Some(Ok(words)) => {
                // The annotation stands for the program only; words after it stay what they were.
                let program = match self.candidate.store.wrapped {
                    None => 1,
                    Some(At::Command(first)) => first,
                    Some(At::Args(_)) => container.command().len(),
                };
                let rest = container
                    .command()
                    .iter()
                    .skip(program)
                    .map(|word| word.0.clone());
                return words
                    .into_iter()
                    .map(Cow::Owned)
                    .chain(edited(rest.collect(), edits, program))
                    .collect();
            }
            Some(Err(())) => remarks.push(Remark::BadCommandAnnotation),
            None => {}
        }
        if container.command().is_empty() {
            return vec![Cow::Borrowed("thanos")];
        }
        edited(
            container
                .command()
                .iter()
                .map(|Text(word)| word.clone())
                .collect(),
            edits,
            0,
        )
    }

    fn args(&mut self, base: &str, mut edits: Vec<Edit>) {
        if self.candidate.container.args.is_none() {
            let words: Vec<_> = edits
                .into_iter()
                .map(|edit| Cow::Owned(edit.word.unwrap_or_default()))
                .collect();
            if !words.is_empty() {
                self.operations
                    .push(Operation::add(format!("{base}/args"), Value::Words(words)));
            }
            return;
        }
        // From the back, so that an insertion or removal moves no index that is still to come.
        edits.sort_by_key(|edit| std::cmp::Reverse(edit.index()));
        for edit in edits {
            let value = edit.word.map(|word| Value::Text(Cow::Owned(word)));
            self.operations.push(match (edit.place, value) {
                (EditPlace::End, Some(value)) => Operation::add(format!("{base}/args/-"), value),
                (EditPlace::Before(i), Some(value)) => {
                    Operation::add(format!("{base}/args/{i}"), value)
                }
                (EditPlace::At(i), Some(value)) => {
                    Operation::replace(format!("{base}/args/{i}"), value)
                }
                (EditPlace::At(i) | EditPlace::Before(i), None) => {
                    Operation::remove(format!("{base}/args/{i}"))
                }
                (EditPlace::End, None) => continue,
            });
        }
    }

    fn grace(&mut self, facts: &Facts<'a>) {
        let drain = facts.sharding.termination_drain();
        if self.candidate.store.launched
            || self.candidate.has_sidecar
            || drain == PromDuration::ZERO
        {
            return; // The second time around it was raised already.
        }
        let path = "/spec/terminationGracePeriodSeconds";
        let given = self.pod.spec.termination_grace_period_seconds;
        let seconds = given
            .unwrap_or(DEFAULT_GRACE_SECONDS)
            .saturating_add(drain.as_secs());
        let put = if given.is_some() {
            Operation::replace
        } else {
            Operation::add
        };
        self.operations
            .push(put(Cow::Borrowed(path), Value::Number(seconds)));
    }

    fn metadata(
        &mut self,
        facts: &Facts<'a>,
        assignment: Assignment,
        window: Window,
        source: Source,
    ) {
        let first = !self.candidate.store.launched && !self.candidate.has_sidecar;
        if first || self.pod.label(names::SHARD_LABEL).is_none() {
            let there = self.pod.metadata.labels.is_some();
            self.pair(
                there,
                "/metadata/labels",
                names::SHARD_LABEL,
                assignment.shard.to_string(),
            );
        }
        let mut there = self.pod.metadata.annotations.is_some();
        if first || self.pod.annotation(names::STATUS_ANNOTATION).is_none() {
            let status = Status {
                shard: assignment.shard,
                replica: assignment.replica,
                min_time: window.min.to_string(),
                max_time: window.max.to_string(),
                source: if source == Source::Published {
                    "published"
                } else {
                    "plan"
                },
                agent: &facts.config.injection.agent_image,
            };
            // Strings and numbers always serialise.
            let text = serde_json::to_string(&status).unwrap_or_default();
            self.pair(
                there,
                "/metadata/annotations",
                names::STATUS_ANNOTATION,
                text,
            );
            there = true;
        }
        // An emptyDir keeps the cluster-autoscaler from removing the node, and nothing in ours is missed.
        let volumes = self
            .pod
            .annotation(names::SAFE_TO_EVICT_VOLUMES)
            .unwrap_or_default();
        if !volumes
            .split(',')
            .any(|volume| volume == names::SHARED_VOLUME)
        {
            let comma = if volumes.is_empty() { "" } else { "," };
            let with_ours = format!("{volumes}{comma}{}", names::SHARED_VOLUME);
            self.pair(
                there,
                "/metadata/annotations",
                names::SAFE_TO_EVICT_VOLUMES,
                with_ours,
            );
        }
    }

    /// Sets one label or annotation, making the mapping first where there is none.
    fn pair(&mut self, there: bool, path: &'static str, key: &'static str, value: String) {
        self.operations.push(if there {
            Operation::add(
                format!("{path}/{}", patch::token(key)),
                Value::Text(Cow::Owned(value)),
            )
        } else {
            Operation::add(path, Value::Pair(key, Cow::Owned(value)))
        });
    }
}

/// A change to one word.
struct Edit {
    place: EditPlace,
    /// `None` removes the word.
    word: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EditPlace {
    At(usize),
    Before(usize),
    End,
}

impl Edit {
    fn index(&self) -> usize {
        match self.place {
            EditPlace::At(i) | EditPlace::Before(i) => i,
            // The end is reached by appending, whose order is the order of the edits: handled last, see `args`.
            EditPlace::End => 0,
        }
    }
}

/// What has to happen to the words so that each time flag stands there once, with our value.
fn time_flag_edits(
    candidate: &Candidate<'_>,
    window: Window,
    command: &mut Vec<Edit>,
    args: &mut Vec<Edit>,
) {
    let mut put = |at: At, word: Option<String>| match at {
        At::Command(i) => command.push(Edit {
            place: EditPlace::At(i),
            word,
        }),
        At::Args(i) => args.push(Edit {
            place: EditPlace::At(i),
            word,
        }),
    };
    let mut missing = Vec::new();
    for (is_min, name, bound) in [
        (true, "--min-time", window.min),
        (false, "--max-time", window.max),
    ] {
        let mut found = false;
        for flag in candidate
            .store
            .time_flags
            .iter()
            .filter(|flag| flag.is_min == is_min)
        {
            if found {
                // thanos exits on a repeated flag, so the one that is left is ours.
                put(flag.flag, None);
                flag.value.into_iter().for_each(|at| put(at, None));
            } else if let Some(value) = flag.value {
                put(value, Some(bound.to_string()));
            } else {
                put(flag.flag, Some(format!("{name}={bound}")));
            }
            found = true;
        }
        if !found {
            missing.push(format!("{name}={bound}"));
        }
    }
    for word in missing {
        match candidate.store.end_of_flags {
            None => args.push(Edit {
                place: EditPlace::End,
                word: Some(word),
            }),
            Some(At::Args(i)) => args.push(Edit {
                place: EditPlace::Before(i),
                word: Some(word),
            }),
            Some(At::Command(i)) => command.push(Edit {
                place: EditPlace::Before(i),
                word: Some(word),
            }),
        }
    }
}

/// Applies edits to words, of which the first `offset` were taken away. Each word is moved once: removals in the middle of a
/// long list would move all that follow, each time.
fn edited(words: Vec<Cow<'_, str>>, mut edits: Vec<Edit>, offset: usize) -> Vec<Cow<'_, str>> {
    // Stable, and an insertion comes before what happens to the word there.
    edits.sort_by_key(|edit| {
        (
            edit.index().saturating_sub(offset),
            matches!(edit.place, EditPlace::At(_)),
        )
    });
    let at_end = edits
        .iter()
        .filter(|edit| edit.place == EditPlace::End)
        .count();
    let mut result = Vec::with_capacity(words.len() + edits.len());
    let mut appended = Vec::with_capacity(at_end);
    let mut edits = edits.into_iter().peekable();
    for (i, word) in words.into_iter().enumerate() {
        let mut kept = Some(word);
        while let Some(edit) = edits.next_if(|edit| {
            edit.place == EditPlace::End || edit.index().saturating_sub(offset) <= i
        }) {
            match (edit.place, edit.word) {
                (EditPlace::End, word) => appended.extend(word),
                (EditPlace::Before(_), word) => result.extend(word.map(Cow::Owned)),
                (EditPlace::At(_), word) => kept = word.map(Cow::Owned),
            }
        }
        result.extend(kept);
    }
    // What stands behind the last word, in the order in which it was asked for.
    appended.extend(edits.filter_map(|edit| edit.word));
    result.extend(appended.into_iter().map(Cow::Owned));
    result
}

/// How the sidecar reaches a listen address of thanos.
fn reach(address: &str, default_port: u16) -> String {
    let port = port_of(address).unwrap_or(default_port);
    match host_of(address) {
        _ if port_of(address).is_none() => format!("127.0.0.1:{port}"),
        // Whatever variable holds it, a listen address of a pod that is not a wildcard is the pod's own IP.
        host if host.contains("$(") => format!("$(POD_IP):{port}"),
        host => format!("{host}:{port}"),
    }
}
