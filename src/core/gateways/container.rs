//! The sidecar as Kubernetes objects: container, volumes, mounts, and the launcher's command.
//!
//! Invariants: the sidecar satisfies Pod Security `restricted` with a read-only root; keeps a
//! Guaranteed pod Guaranteed (requests equal limits); takes nothing beyond pod-level resources;
//! gets no token of the pod's ServiceAccount; and has nothing specific to one pod except through
//! the downward API, so that a copied template stays harmless.

#![allow(clippy::struct_field_names, reason = "the field names are Kubernetes'")]

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::core::agent::handoff::ReloadMode;
use crate::core::config::{InjectionConfig, SECCOMP_PROFILE};
use crate::core::model::duration::PromDuration;
use crate::core::model::names;

/// Longest sidecar, as JSON, that is kept with its StatefulSet. Bytes.
const MAX_KEPT_BYTES: usize = 8 << 10;

/// Properties in which the sidecar of one pod may differ from another's under the same
/// configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarSpec {
    /// `None` leaves the user to the image or the platform.
    pub run_as_user: Option<i64>,
    /// Base of thanos' HTTP endpoints.
    pub thanos_url: String,
    /// `HOST:PORT`.
    pub grpc_address: String,
    /// How long the sidecar drains before a change.
    pub drain: PromDuration,
    /// How long the sidecar restarts a thanos that lacks blocks before the pod turns Ready.
    pub load_retry: PromDuration,
    pub reload: ReloadMode,
    /// Whether the pod has resources of its own, which the sidecar then shares: the API server
    /// rejects a pod that requests less than its containers do.
    pub shares_resources: bool,
}

/// A StatefulSet's sidecar as JSON, rendered once: its pods are alike, and rendering costs more
/// than reading a pod.
#[derive(Clone, Debug, Default)]
pub struct RenderedSidecar(OnceLock<(SidecarSpec, Arc<RawValue>)>);

impl RenderedSidecar {
    /// Returns the sidecar as JSON, rendered again for a pod that differs from the first one.
    /// `None` does not occur: these structs always serialise.
    #[must_use]
    pub fn get(&self, injection: &InjectionConfig, spec: &SidecarSpec) -> Option<Arc<RawValue>> {
        let render = || {
            serde_json::value::to_raw_value(&sidecar(injection, spec))
                .ok()
                .map(Arc::from)
        };
        match self.0.get() {
            Some((known, json)) if known == spec => Some(json.clone()),
            Some(_) => render(),
            None => {
                let json: Arc<RawValue> = render()?;
                // It stays as long as the StatefulSet, and a review's sender chooses parts of it. If
                // another request was first, its sidecar stays.
                if json.get().len() <= MAX_KEPT_BYTES {
                    let _ = self.0.set((spec.clone(), json.clone()));
                }
                Some(json)
            }
        }
    }
}

/// An injected container.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    name: &'static str,
    image: &'a str,
    image_pull_policy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_policy: Option<&'static str>,
    command: [&'static str; 2],
    args: Vec<Cow<'a, str>>,
    env: Vec<Env>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<[Port; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    startup_probe: Option<ContainerProbe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    readiness_probe: Option<ContainerProbe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources<'a>>,
    security_context: SecurityContext,
    volume_mounts: [Mount; 3],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Env {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_from: Option<ValueFrom>,
}

impl Env {
    const fn field(name: &'static str, field_path: &'static str) -> Self {
        Self {
            name,
            value: None,
            value_from: Some(ValueFrom {
                field_ref: SidecarFieldRef { field_path },
            }),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ValueFrom {
    field_ref: SidecarFieldRef,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SidecarFieldRef {
    field_path: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: &'static str,
    container_port: u16,
    protocol: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProbe {
    http_get: HttpGet,
    period_seconds: u32,
    timeout_seconds: u32,
    failure_threshold: u32,
}

#[derive(Debug, Serialize)]
struct HttpGet {
    path: &'static str,
    port: u16,
}

#[derive(Debug, Serialize)]
struct Resources<'a> {
    requests: Amounts<'a>,
    limits: Amounts<'a>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Amounts<'a> {
    cpu: &'a str,
    memory: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SecurityContext {
    allow_privilege_escalation: bool,
    capabilities: Capabilities,
    read_only_root_filesystem: bool,
    run_as_non_root: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_as_user: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seccomp_profile: Option<SeccompProfile>,
}

#[derive(Debug, Serialize)]
struct Capabilities {
    drop: [&'static str; 1],
}

#[derive(Debug, Serialize)]
struct SeccompProfile {
    r#type: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    name: &'static str,
    mount_path: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume<'a> {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    empty_dir: Option<EmptyDir>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_map: Option<ConfigMapSource<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EmptyDir {
    size_limit: &'static str,
}

#[derive(Debug, Serialize)]
struct ConfigMapSource<'a> {
    name: Cow<'a, str>,
    optional: bool,
}

/// Room for two agent binaries (installation copies, then renames) and the window files.
const SHARED_DIR_SIZE: &str = "32Mi";
/// How long kubelet's startup probe waits for the agent to be installed before kubelet restarts the
/// sidecar.
const STARTUP_SECONDS: u32 = 120;

/// The volume shared by sidecar and launcher.
#[must_use]
pub fn shared_volume() -> Volume<'static> {
    Volume {
        name: names::SHARED_VOLUME,
        empty_dir: Some(EmptyDir {
            size_limit: SHARED_DIR_SIZE,
        }),
        config_map: None,
    }
}

/// The volume with the windows. Optional, so that a missing ConfigMap never delays a start.
#[must_use]
pub fn config_volume(configmap: Cow<'_, str>) -> Volume<'_> {
    Volume {
        name: names::CONFIG_VOLUME,
        empty_dir: None,
        config_map: Some(ConfigMapSource {
            name: configmap,
            optional: true,
        }),
    }
}

#[must_use]
pub fn shared_mount() -> Mount {
    Mount {
        name: names::SHARED_VOLUME,
        mount_path: names::SHARED_DIR,
        read_only: false,
    }
}

/// Returns a mount that keeps the token of the pod's ServiceAccount out of an injected container:
/// the API server mounts the token into every container without a mount at this path, including
/// those that webhooks add. The mount shows the windows, which the container reads anyway: another
/// volume would be one more local volume, and some policies forbid `subPath`.
#[must_use]
pub fn token_mount() -> Mount {
    Mount {
        name: names::CONFIG_VOLUME,
        mount_path: names::TOKEN_DIR,
        read_only: true,
    }
}

/// The launcher's arguments, to put before the container's own command.
#[must_use]
pub fn launcher_command(termination_drain: PromDuration) -> [Cow<'static, str>; 5] {
    [
        Cow::Borrowed(names::AGENT_IN_SHARED_DIR),
        Cow::Borrowed("launch"),
        Cow::Owned(format!("--shared-dir={}", names::SHARED_DIR)),
        Cow::Owned(format!("--termination-drain={termination_drain}")),
        Cow::Borrowed("--"),
    ]
}

/// Builds the sidecar; in the classic form a plain container, after the init container of
/// [`install`].
#[must_use]
pub fn sidecar<'a>(injection: &'a InjectionConfig, spec: &SidecarSpec) -> Container<'a> {
    let native = injection.native_sidecar;
    let mut args = common_args();
    args.push(Cow::Owned(format!("--thanos-url={}", spec.thanos_url)));
    args.push(Cow::Owned(format!("--grpc-address={}", spec.grpc_address)));
    args.push(Cow::Owned(format!("--drain={}", spec.drain)));
    match spec.reload {
        ReloadMode::Exec => {}
        ReloadMode::Signal => args.push(Cow::Borrowed("--reload=signal")),
        ReloadMode::Off => args.push(Cow::Borrowed("--reload=off")),
    }
    args.push(Cow::Borrowed("--install"));
    let mut container = container(names::SIDECAR, injection, spec, args);
    // As variables, because the agent of an older image rejects unknown flags.
    container.env.extend([
        Env::field("TIMESHARD_NAMESPACE", "metadata.namespace"),
        Env::field("TIMESHARD_UID", "metadata.uid"),
        Env {
            name: "TIMESHARD_LOAD_RETRY",
            value: Some(spec.load_retry.to_string()),
            value_from: None,
        },
    ]);
    Container {
        restart_policy: native.then_some("Always"),
        ports: Some([Port {
            name: "timeshard",
            container_port: names::SIDECAR_PORT,
            protocol: "TCP",
        }]),
        startup_probe: native.then(|| probe("/livez", STARTUP_SECONDS)),
        readiness_probe: Some(probe("/readyz", 3)),
        ..container
    }
}

/// Builds the init container of the classic form: installs the agent, writes the first window and
/// exits.
#[must_use]
pub fn install<'a>(injection: &'a InjectionConfig, spec: &SidecarSpec) -> Container<'a> {
    let mut args = common_args();
    args.push(Cow::Borrowed("--install-only"));
    container(names::SIDECAR_INSTALL, injection, spec, args)
}

fn common_args<'a>() -> Vec<Cow<'a, str>> {
    let mut args = Vec::with_capacity(9);
    args.push(Cow::Borrowed("--pod=$(POD_NAME)"));
    args.push(Cow::Owned(format!("--config-dir={}", names::CONFIG_DIR)));
    args.push(Cow::Owned(format!("--shared-dir={}", names::SHARED_DIR)));
    args
}

fn container<'a>(
    name: &'static str,
    injection: &'a InjectionConfig,
    spec: &SidecarSpec,
    args: Vec<Cow<'a, str>>,
) -> Container<'a> {
    let mut env = Vec::with_capacity(5);
    env.extend([
        Env::field("POD_NAME", "metadata.name"),
        Env::field("POD_IP", "status.podIP"),
    ]);
    let amounts = Amounts {
        cpu: &injection.cpu,
        memory: &injection.memory,
    };
    Container {
        name,
        image: &injection.agent_image,
        image_pull_policy: &injection.image_pull_policy,
        restart_policy: None,
        command: [names::AGENT_IN_IMAGE, "sidecar"],
        args,
        env,
        ports: None,
        startup_probe: None,
        readiness_probe: None,
        resources: (!spec.shares_resources).then_some(Resources {
            requests: amounts,
            limits: amounts,
        }),
        security_context: SecurityContext {
            allow_privilege_escalation: false,
            capabilities: Capabilities { drop: ["ALL"] },
            read_only_root_filesystem: true,
            run_as_non_root: true,
            run_as_user: spec.run_as_user,
            seccomp_profile: injection.seccomp_profile.then_some(SeccompProfile {
                r#type: SECCOMP_PROFILE,
            }),
        },
        volume_mounts: [
            shared_mount(),
            Mount {
                name: names::CONFIG_VOLUME,
                mount_path: names::CONFIG_DIR,
                read_only: true,
            },
            token_mount(),
        ],
    }
}

fn probe(path: &'static str, failure_threshold: u32) -> ContainerProbe {
    ContainerProbe {
        http_get: HttpGet {
            path,
            port: names::SIDECAR_PORT,
        },
        period_seconds: 1,
        timeout_seconds: 1,
        failure_threshold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::Config;

    #[test]
    fn a_pod_that_differs_does_not_get_the_rendered_sidecar() {
        let injection = &Config::default().injection;
        let spec = SidecarSpec {
            run_as_user: None,
            thanos_url: "http://127.0.0.1:10902".to_owned(),
            grpc_address: "127.0.0.1:10901".to_owned(),
            drain: PromDuration::from_secs(60),
            load_retry: PromDuration::from_secs(120),
            reload: ReloadMode::Exec,
            shares_resources: false,
        };
        let changes: [fn(&mut SidecarSpec); 7] = [
            |spec| spec.run_as_user = Some(1),
            |spec| spec.thanos_url = "http://127.0.0.1:80".to_owned(),
            |spec| spec.grpc_address = "127.0.0.1:80".to_owned(),
            |spec| spec.drain = PromDuration::from_secs(1),
            |spec| spec.load_retry = PromDuration::from_secs(1),
            |spec| spec.reload = ReloadMode::Off,
            |spec| spec.shares_resources = true,
        ];
        let others = changes.map(|change| {
            let mut other = spec.clone();
            change(&mut other);
            other
        });
        let rendered = RenderedSidecar::default();
        for spec in others.iter().chain([&spec]).chain(&others) {
            let fresh = serde_json::to_string(&sidecar(injection, spec)).unwrap();
            assert_eq!(rendered.get(injection, spec).unwrap().get(), fresh);
        }
    }
}
