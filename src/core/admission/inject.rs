//! The operations. Each part of the injection is added only where it is missing, so that a second
//! pass adds nothing.
//!
//! In: a candidate and its facts. Out: the operations, and warnings for the user. Next for a
//! review: `core/admission/command_line.rs`.

use std::borrow::Cow;

use serde::Serialize;

use super::super::agent::handoff::ReloadMode;
use super::super::config::{is_ours, sharding_key, unknown_annotation};
use super::super::plan::Assignment;
use super::eligible::Candidate;
use super::patch::{self, Operation, Reference, Value};
use super::{ConfigSource, Facts, Injection, Remark, Skip, liveness, mesh, selection, token};
use crate::core::gateways::container::{
    SidecarSpec, config_volume, install, shared_mount, shared_volume,
};
use crate::core::model::duration::PromDuration;
use crate::core::model::names;
use crate::core::model::text::truncate;
use crate::core::model::window::Window;
use crate::core::pod::{ContainerView, PodView};
use crate::core::thanos::args::{host_of, port_of};

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE_SECONDS: i64 = 30;
/// Longest listen address that is read: a DNS name has 253 characters.
const MAX_ADDRESS_CHARS: usize = 260;
/// Annotations without effect that are named, one warning each.
const MAX_ANNOTATION_REMARKS: usize = 4;

/// Value of the status annotation.
#[derive(Serialize)]
struct StatusAnnotation<'a> {
    shard: u32,
    replica: u32,
    min_time: String,
    max_time: String,
    source: &'static str,
    agent: &'a str,
}

/// Builds the patch for a candidate.
///
/// # Errors
/// [`Skip`] when the user opted the StatefulSet out, or set time flags and did not allow their
/// replacement, or when nothing is missing.
pub fn inject<'a>(
    pod: &'a PodView<'a>,
    candidate: &Candidate<'a>,
    facts: &Facts<'a>,
) -> Result<Injection<'a>, Skip> {
    if facts.gateway.opted_out() {
        return Err(Skip::SetOptedOut);
    }
    let ours = candidate.has_sidecar || candidate.store.launched;
    let replace = facts.gateway.replace_time_flags
        || pod.annotation(names::REPLACE_TIME_FLAGS) == Some("true");
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
        remarks.extend(selection::check(pod, candidate)?);
    }
    let mut patch = Patch {
        pod,
        candidate,
        operations: Vec::with_capacity(12),
    };
    patch.volumes(facts);
    patch.sidecar(facts, &mut remarks);
    patch.pull_secrets(facts);
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

/// Names the first few annotations without effect and counts the others. A request may hold a
/// hundred thousand, and finding the nearest known key for each is expensive.
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

/// Returns the place in the published entry, or else in the plan.
fn place(candidate: &Candidate<'_>, facts: &Facts<'_>) -> (Assignment, Window, ConfigSource) {
    if let Some(entry) = facts.published {
        return (
            Assignment {
                shard: entry.shard,
                replica: entry.replica,
                surplus: false,
            },
            entry.window,
            ConfigSource::Published,
        );
    }
    let gateway = facts.gateway;
    let index = candidate.ordinal.saturating_sub(gateway.ordinals_start);
    let assignment = gateway.plan.assign(index);
    (
        assignment,
        gateway.plan.window(assignment.shard, facts.now),
        ConfigSource::Plan,
    )
}

pub(super) struct Patch<'a, 'c> {
    pub(super) pod: &'a PodView<'a>,
    pub(super) candidate: &'c Candidate<'a>,
    pub(super) operations: Vec<Operation<'a>>,
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
        let (injection, spec) = (&facts.config.injection, self.sidecar_spec(facts, remarks));
        let there = self.pod.spec.init_containers.is_some();
        if !injection.native_sidecar {
            self.operations.push(if there {
                Operation::add(
                    "/spec/initContainers/-",
                    Value::Container(Box::new(install(injection, &spec))),
                )
            } else {
                Operation::add(
                    "/spec/initContainers",
                    Value::Containers(vec![install(injection, &spec)]),
                )
            });
        }
        if let Some(sidecar) = facts.gateway.rendered.get(injection, &spec) {
            self.operations
                .push(match (injection.native_sidecar, there) {
                    (false, _) => Operation::add("/spec/containers/-", Value::Rendered(sidecar)),
                    (true, true) => {
                        Operation::add("/spec/initContainers/-", Value::Rendered(sidecar))
                    }
                    (true, false) => {
                        Operation::add("/spec/initContainers", Value::RenderedList(sidecar))
                    }
                });
        }
        if spec.reload == ReloadMode::Signal && self.pod.spec.share_process_namespace != Some(true)
        {
            self.operations.push(Operation::add(
                "/spec/shareProcessNamespace",
                Value::Truth(true),
            ));
        }
    }

    /// Adds the pull secrets of the sidecar's image behind the pod's own. Those of its
    /// ServiceAccount are in the pod already: the API server copies them before it calls webhooks.
    fn pull_secrets(&mut self, facts: &Facts<'a>) {
        let given = self.pod.spec.image_pull_secrets.as_deref();
        let is_missing = |name: &&'a str| {
            let mut given = given.unwrap_or_default().iter();
            !given.any(|secret| secret.name.0 == *name)
        };
        let wanted = facts.config.injection.image_pull_secrets.iter();
        let mut missing = wanted.map(String::as_str).filter(is_missing).peekable();
        if given.is_some() {
            self.operations.extend(missing.map(|name| {
                let value = Value::Pair("name", Cow::Borrowed(name));
                Operation::add("/spec/imagePullSecrets/-", value)
            }));
        } else if missing.peek().is_some() {
            let all = missing.map(|name| Reference { name }).collect();
            self.operations.push(Operation::add(
                "/spec/imagePullSecrets",
                Value::References(all),
            ));
        }
    }

    /// Restores the sidecar's restart policy. Tools that do not know native sidecars drop it, and
    /// then the sidecar would be an init container that never ends.
    fn restart_policy(&mut self) {
        let init = self.pod.init_containers();
        let Some(index) = init.iter().position(ContainerView::is_sidecar) else {
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

    fn sidecar_spec(&self, facts: &Facts<'a>, remarks: &mut Vec<Remark>) -> SidecarSpec {
        let sharding = &facts.gateway.sharding;
        let container = self.candidate.container;
        let user = |context: &Option<crate::core::pod::SecurityView>| {
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
            remarks.push(Remark::UnreadableAddress(truncate(http, 60).into_owned()));
        }
        let despite = facts.gateway.reload_despite_liveness
            || self.pod.annotation(names::RELOAD_DESPITE_LIVENESS) == Some("true");
        let grpc_port = self
            .candidate
            .store
            .grpc_port()
            .unwrap_or(names::THANOS_GRPC_PORT);
        let reload = match sharding.reload() {
            _ if !despite && liveness::kills(self.pod, container, grpc_port) => {
                remarks.push(Remark::UnsafeLiveness(
                    truncate(&container.name.0, 60).into_owned(),
                ));
                ReloadMode::Off
            }
            // Kubernetes rejects hostPID together with shareProcessNamespace, and among the node's
            // processes the sidecar may find another pod's thanos.
            ReloadMode::Signal if self.pod.spec.host_pid == Some(true) => {
                remarks.push(Remark::HostPid);
                ReloadMode::Exec
            }
            mode => mode,
        };
        SidecarSpec {
            run_as_user,
            thanos_url: format!("http://{}", reach(http, names::THANOS_HTTP_PORT)),
            grpc_address: reach(grpc, names::THANOS_GRPC_PORT),
            drain: sharding.drain(),
            load_retry: sharding.load_retry(),
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

    fn grace(&mut self, facts: &Facts<'a>) {
        let drain = facts.gateway.sharding.termination_drain();
        if self.candidate.store.launched
            || self.candidate.has_sidecar
            || drain == PromDuration::ZERO
        {
            return; // An earlier pass has raised it.
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
        source: ConfigSource,
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
            let status = StatusAnnotation {
                shard: assignment.shard,
                replica: assignment.replica,
                min_time: window.min.to_string(),
                max_time: window.max.to_string(),
                source: if source == ConfigSource::Published {
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
        // An emptyDir keeps the cluster-autoscaler from removing the node, and nothing in the
        // shared volume needs to survive.
        let volumes = self
            .pod
            .annotation(names::SAFE_TO_EVICT_VOLUMES)
            .unwrap_or_default();
        if !volumes
            .split(',')
            .any(|volume| volume == names::SHARED_VOLUME)
        {
            let comma = if volumes.is_empty() { "" } else { "," };
            let with_shared = format!("{volumes}{comma}{}", names::SHARED_VOLUME);
            self.pair(
                there,
                "/metadata/annotations",
                names::SAFE_TO_EVICT_VOLUMES,
                with_shared,
            );
        }
    }

    /// Sets a label or annotation, or adds the mapping with it where there is none.
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

/// Returns the address at which the sidecar reaches a listen address of thanos.
fn reach(address: &str, default_port: u16) -> String {
    let port = port_of(address).unwrap_or(default_port);
    match host_of(address) {
        // Longer than any name: it is kept with the StatefulSet's sidecar.
        _ if address.len() > MAX_ADDRESS_CHARS || port_of(address).is_none() => {
            format!("127.0.0.1:{port}")
        }
        // Whichever variable holds it, a pod's listen address that is not a wildcard is its own IP.
        host if host.contains("$(") => format!("$(POD_IP):{port}"),
        host => format!("{host}:{port}"),
    }
}
