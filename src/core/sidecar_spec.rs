//! The sidecar as Kubernetes objects: container, volumes, mounts, and the launcher's command.
//!
//! Fits Pod Security `restricted` with a read-only root, keeps a Guaranteed pod Guaranteed (requests equal limits), takes
//! nothing beyond the resources that a pod has for all its containers, gets no token of the pod's ServiceAccount, and
//! carries nothing that belongs to one pod except by the downward API, so that a copied template stays harmless.

#![allow(clippy::struct_field_names, reason = "the field names are Kubernetes'")]

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde_json::value::RawValue;

use super::config::{Injection, SECCOMP_PROFILE};
use super::duration::PromDuration;
use super::names;

/// How a running thanos takes over a window in this pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadIn {
    /// The launcher restarts thanos in place.
    Exec,
    /// The sidecar sends a signal.
    Signal,
    /// Not at all: the pod keeps the window it was admitted with.
    Off,
}

/// What of the pod decides how its sidecar looks.
#[derive(Clone, Debug)]
pub struct SidecarFacts<'a> {
    /// Image, resources, form.
    pub injection: &'a Injection,
    /// User of the sidecar; `None` leaves it to the image or the platform.
    pub run_as_user: Option<i64>,
    /// Where thanos answers HTTP.
    pub thanos_url: Cow<'a, str>,
    /// Where thanos answers gRPC.
    pub grpc_address: Cow<'a, str>,
    /// How long the sidecar drains before a change.
    pub drain: PromDuration,
    /// For how long it has thanos started again before the pod turns Ready when blocks are missing.
    pub load_retry: PromDuration,
    /// How a change reaches thanos.
    pub reload: ReloadIn,
    /// Whether the pod has resources of its own, which ours then share: Kubernetes refuses a pod that requests less than its
    /// containers do.
    pub shares_resources: bool,
}

/// The sidecar of a StatefulSet's pods, written once: its pods are alike, and writing it costs more than reading a pod.
#[derive(Clone, Debug, Default)]
pub struct RenderedSidecar(OnceLock<(Key, Arc<RawValue>)>);

/// What one sidecar may differ in from another under the same configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    run_as_user: Option<i64>,
    thanos_url: String,
    grpc_address: String,
    drain: PromDuration,
    load_retry: PromDuration,
    reload: ReloadIn,
    shares_resources: bool,
}

impl RenderedSidecar {
    /// The sidecar as JSON. Pods that differ from the first one get theirs written anew; `None` does not happen, since
    /// our own structs always serialise.
    #[must_use]
    pub fn get(&self, facts: &SidecarFacts<'_>) -> Option<Arc<RawValue>> {
        let render = || {
            serde_json::value::to_raw_value(&sidecar(facts))
                .ok()
                .map(Arc::from)
        };
        if let Some((key, json)) = self.0.get() {
            return if key.fits(facts) {
                Some(json.clone())
            } else {
                render()
            };
        }
        let json: Arc<RawValue> = render()?;
        // Another request may have been first; then its sidecar stays and this one is used once.
        let _ = self.0.set((Key::of(facts), json.clone()));
        Some(json)
    }
}

impl Key {
    fn of(facts: &SidecarFacts<'_>) -> Self {
        Self {
            run_as_user: facts.run_as_user,
            thanos_url: facts.thanos_url.clone().into_owned(),
            grpc_address: facts.grpc_address.clone().into_owned(),
            drain: facts.drain,
            load_retry: facts.load_retry,
            reload: facts.reload,
            shares_resources: facts.shares_resources,
        }
    }

    fn fits(&self, facts: &SidecarFacts<'_>) -> bool {
        self.run_as_user == facts.run_as_user
            && self.thanos_url == facts.thanos_url
            && self.grpc_address == facts.grpc_address
            && self.drain == facts.drain
            && self.load_retry == facts.load_retry
            && self.reload == facts.reload
            && self.shares_resources == facts.shares_resources
    }
}

/// A container of ours.
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
    startup_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    readiness_probe: Option<Probe>,
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
                field_ref: FieldRef { field_path },
            }),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ValueFrom {
    field_ref: FieldRef,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FieldRef {
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
struct Probe {
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

/// A volume mount of ours.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    name: &'static str,
    mount_path: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
}

/// A volume of ours.
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

/// Room for the agent binary twice (installing is copy and rename) and the window files.
const SHARED_DIR_SIZE: &str = "32Mi";
/// The startup probe waits this many seconds for the agent to be installed before kubelet starts the sidecar again.
const STARTUP_SECONDS: u32 = 120;

/// The volume that sidecar and launcher share.
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

/// The volume with the windows. Optional: a missing ConfigMap never delays a start.
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

/// The mount of the shared volume.
#[must_use]
pub fn shared_mount() -> Mount {
    Mount {
        name: names::SHARED_VOLUME,
        mount_path: names::SHARED_DIR,
        read_only: false,
    }
}

/// A mount that keeps the token of the pod's ServiceAccount out of a container of ours: the API server mounts it into every container
/// that has nothing at this path, those that webhooks add included. What is mounted instead are the windows, which the container reads
/// anyway: a volume of its own would be one more local volume, and a `subPath` is refused by some policies.
#[must_use]
pub fn token_mount() -> Mount {
    Mount {
        name: names::CONFIG_VOLUME,
        mount_path: names::TOKEN_DIR,
        read_only: true,
    }
}

/// The launcher's words, to stand before the container's own command.
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

/// The sidecar; in the classic form a plain container, which the init container of [`install`] precedes.
#[must_use]
pub fn sidecar<'a>(facts: &SidecarFacts<'a>) -> Container<'a> {
    let native = facts.injection.native_sidecar;
    let mut args = common_args();
    args.push(Cow::Owned(format!("--thanos-url={}", facts.thanos_url)));
    args.push(Cow::Owned(format!("--grpc-address={}", facts.grpc_address)));
    args.push(Cow::Owned(format!("--drain={}", facts.drain)));
    match facts.reload {
        ReloadIn::Exec => {}
        ReloadIn::Signal => args.push(Cow::Borrowed("--reload=signal")),
        ReloadIn::Off => args.push(Cow::Borrowed("--reload=off")),
    }
    args.push(Cow::Borrowed("--install"));
    let mut container = container(names::SIDECAR, facts, args);
    // As variables, because an agent of an older image refuses flags that it does not know.
    container.env.extend([
        Env::field("TIMESHARD_NAMESPACE", "metadata.namespace"),
        Env::field("TIMESHARD_UID", "metadata.uid"),
        Env {
            name: "TIMESHARD_LOAD_RETRY",
            value: Some(facts.load_retry.to_string()),
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

/// The init container of the classic form: installs the agent, writes the first window, ends.
#[must_use]
pub fn install<'a>(facts: &SidecarFacts<'a>) -> Container<'a> {
    let mut args = common_args();
    args.push(Cow::Borrowed("--install-only"));
    container(names::SIDECAR_INSTALL, facts, args)
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
    facts: &SidecarFacts<'a>,
    args: Vec<Cow<'a, str>>,
) -> Container<'a> {
    let mut env = Vec::with_capacity(5);
    env.extend([
        Env::field("POD_NAME", "metadata.name"),
        Env::field("POD_IP", "status.podIP"),
    ]);
    let amounts = Amounts {
        cpu: &facts.injection.cpu,
        memory: &facts.injection.memory,
    };
    Container {
        name,
        image: &facts.injection.agent_image,
        image_pull_policy: &facts.injection.image_pull_policy,
        restart_policy: None,
        command: [names::AGENT_IN_IMAGE, "sidecar"],
        args,
        env,
        ports: None,
        startup_probe: None,
        readiness_probe: None,
        resources: (!facts.shares_resources).then_some(Resources {
            requests: amounts,
            limits: amounts,
        }),
        security_context: SecurityContext {
            allow_privilege_escalation: false,
            capabilities: Capabilities { drop: ["ALL"] },
            read_only_root_filesystem: true,
            run_as_non_root: true,
            run_as_user: facts.run_as_user,
            seccomp_profile: facts.injection.seccomp_profile.then_some(SeccompProfile {
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

fn probe(path: &'static str, failure_threshold: u32) -> Probe {
    Probe {
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
    use super::super::config::Config;
    use super::*;

    #[test]
    fn one_that_was_written_is_taken_for_none_that_differs() {
        let config = Config::default();
        let facts = SidecarFacts {
            injection: &config.injection,
            run_as_user: None,
            thanos_url: Cow::Borrowed("http://127.0.0.1:10902"),
            grpc_address: Cow::Borrowed("127.0.0.1:10901"),
            drain: PromDuration::from_secs(60),
            load_retry: PromDuration::from_secs(120),
            reload: ReloadIn::Exec,
            shares_resources: false,
        };
        let others = [
            SidecarFacts {
                run_as_user: Some(1),
                ..facts.clone()
            },
            SidecarFacts {
                thanos_url: Cow::Borrowed("http://127.0.0.1:80"),
                ..facts.clone()
            },
            SidecarFacts {
                grpc_address: Cow::Borrowed("127.0.0.1:80"),
                ..facts.clone()
            },
            SidecarFacts {
                drain: PromDuration::from_secs(1),
                ..facts.clone()
            },
            SidecarFacts {
                load_retry: PromDuration::from_secs(1),
                ..facts.clone()
            },
            SidecarFacts {
                reload: ReloadIn::Off,
                ..facts.clone()
            },
            SidecarFacts {
                shares_resources: true,
                ..facts.clone()
            },
        ];
        let rendered = RenderedSidecar::default();
        for facts in others.iter().chain([&facts]).chain(&others) {
            let fresh = serde_json::to_string(&sidecar(facts)).unwrap();
            assert_eq!(rendered.get(facts).unwrap().get(), fresh);
        }
    }
}
