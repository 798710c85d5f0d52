//! A pod as far as admission looks at it: borrowed from the request's bytes, everything else skipped.
//!
//! Building a full tree of a pod costs several times as much as skipping over it, and typed structs would drop fields
//! they do not know. So these structs only read; patches are built by hand and name what they add.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::config::{is_ours, sharding_key};
use super::names;

pub(super) mod bounded;
mod variables;
pub use variables::EnvView;

/// A JSON string, borrowed where it has no escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// What is read of a pod.
#[derive(Debug, Default, Deserialize)]
pub struct PodView<'a> {
    /// Names, labels, annotations, owners.
    #[serde(borrow, default)]
    pub metadata: MetaView<'a>,
    /// Containers, volumes and what decides about them.
    #[serde(borrow, default)]
    pub spec: SpecView<'a>,
}

/// What is read of `metadata`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaView<'a> {
    /// The pod's name; empty for pods that get one later (Deployments, Jobs).
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    /// Ours, and the few of others that matter.
    #[serde(borrow, default)]
    pub labels: Option<Ours<'a>>,
    /// Ours, and the few of others that matter.
    #[serde(borrow, default)]
    pub annotations: Option<Ours<'a>>,
    /// Who made the pod.
    #[serde(borrow, default, deserialize_with = "bounded::owners")]
    pub owner_references: Option<Vec<OwnerView<'a>>>,
}

/// What is read of an owner reference.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerView<'a> {
    /// `apps/v1` for a StatefulSet.
    #[serde(borrow, default)]
    pub api_version: Text<'a>,
    /// StatefulSet.
    #[serde(borrow, default)]
    pub kind: Text<'a>,
    /// Its name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// Its UID, for Events.
    #[serde(borrow, default)]
    pub uid: Text<'a>,
}

/// What is read of `spec`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecView<'a> {
    /// Containers, in order.
    #[serde(borrow, default, deserialize_with = "bounded::containers")]
    pub containers: Option<Vec<ContainerView<'a>>>,
    /// Init containers and native sidecars, in order.
    #[serde(borrow, default, deserialize_with = "bounded::containers")]
    pub init_containers: Option<Vec<ContainerView<'a>>>,
    /// Volumes, in order.
    #[serde(borrow, default, deserialize_with = "bounded::volumes")]
    pub volumes: Option<Vec<VolumeView<'a>>>,
    /// The pod's default user.
    #[serde(default)]
    pub security_context: Option<SecurityView>,
    /// Seconds; Kubernetes' default is 30.
    #[serde(default)]
    pub termination_grace_period_seconds: Option<i64>,
    /// Whether containers see each other's processes.
    #[serde(default)]
    pub share_process_namespace: Option<bool>,
    /// Whether containers see the node's processes.
    #[serde(rename = "hostPID", default)]
    pub host_pid: Option<bool>,
    /// What the containers share (Kubernetes 1.34 and newer).
    #[serde(default)]
    pub resources: Option<ResourcesView>,
    /// `windows` for Windows pods.
    #[serde(borrow, default)]
    pub os: Option<OsView<'a>>,
}

/// What is read of the pod's own resources: whether it has any.
#[derive(Debug, Default, Deserialize)]
pub struct ResourcesView {
    /// Amounts by name.
    #[serde(default)]
    pub requests: Option<Amounts>,
    /// Amounts by name.
    #[serde(default)]
    pub limits: Option<Amounts>,
}

/// How many amounts there are; none is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amounts(pub usize);

/// What is read of `spec.os`.
#[derive(Debug, Default, Deserialize)]
pub struct OsView<'a> {
    /// `linux` or `windows`.
    #[serde(borrow, default)]
    pub name: Text<'a>,
}

/// What is read of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView<'a> {
    /// Its name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// Its image.
    #[serde(borrow, default)]
    pub image: Text<'a>,
    /// Replaces the image's entry point.
    #[serde(borrow, default, deserialize_with = "bounded::words")]
    pub command: Option<Vec<Text<'a>>>,
    /// Arguments.
    #[serde(borrow, default, deserialize_with = "bounded::words")]
    pub args: Option<Vec<Text<'a>>>,
    /// Mounts.
    #[serde(borrow, default, deserialize_with = "bounded::mounts")]
    pub volume_mounts: Option<Vec<MountView<'a>>>,
    /// Ports, to resolve a probe's port name.
    #[serde(borrow, default, deserialize_with = "bounded::ports")]
    pub ports: Option<Vec<PortView<'a>>>,
    /// The probe that may kill.
    #[serde(borrow, default)]
    pub liveness_probe: Option<ProbeView<'a>>,
    /// Its user.
    #[serde(default)]
    pub security_context: Option<SecurityView>,
    /// `Always` makes an init container a native sidecar.
    #[serde(borrow, default)]
    pub restart_policy: Option<Text<'a>>,
    /// Its variables, unread until something asks (see [`ContainerView::variables`]).
    #[serde(borrow, default)]
    pub env: Option<&'a RawValue>,
}

/// What is read of a volume.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeView<'a> {
    /// Its name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// Whether it is made anew for each pod.
    #[serde(default)]
    pub empty_dir: Option<IgnoredAny>,
    /// Whether each pod has its own.
    #[serde(default)]
    pub persistent_volume_claim: Option<IgnoredAny>,
}

/// What is read of a volume mount.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountView<'a> {
    /// The volume's name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// Where.
    #[serde(borrow, default)]
    pub mount_path: Text<'a>,
    /// A part of the volume, by variables of the pod.
    #[serde(borrow, default)]
    pub sub_path_expr: Option<Text<'a>>,
}

/// What is read of a container port.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortView<'a> {
    /// Its name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// Its number.
    #[serde(default)]
    pub container_port: i64,
}

/// What is read of a probe.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeView<'a> {
    /// By HTTP.
    #[serde(borrow, default)]
    pub http_get: Option<ProbeTarget<'a>>,
    /// By TCP.
    #[serde(borrow, default)]
    pub tcp_socket: Option<ProbeTarget<'a>>,
    /// By gRPC.
    #[serde(borrow, default)]
    pub grpc: Option<ProbeTarget<'a>>,
    /// By a program in the container.
    #[serde(borrow, default)]
    pub exec: Option<ExecView<'a>>,
}

/// What a probe runs.
#[derive(Debug, Default, Deserialize)]
pub struct ExecView<'a> {
    /// Its words.
    #[serde(borrow, default, deserialize_with = "bounded::words")]
    pub command: Option<Vec<Text<'a>>>,
}

/// Where a probe goes.
#[derive(Debug, Default, Deserialize)]
pub struct ProbeTarget<'a> {
    /// HTTP path.
    #[serde(borrow, default)]
    pub path: Option<Text<'a>>,
    /// Port number or name.
    #[serde(borrow, default)]
    pub port: Option<PortRef<'a>>,
}

/// A port by number or by name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum PortRef<'a> {
    /// By number.
    Number(i64),
    /// By the container port's name.
    Name(#[serde(borrow)] Cow<'a, str>),
}

/// What is read of a security context.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityView {
    /// The user.
    #[serde(default)]
    pub run_as_user: Option<i64>,
}

/// The few labels or annotations that matter to us; the others are skipped unread, however long they are. Of keys that only begin
/// with our prefix, and have no effect, no more than [`MAX_OURS`] are kept: a request has room for a hundred thousand.
#[derive(Debug, Default)]
pub struct Ours<'a>(pub Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// Labels, or annotations, that are kept of an object, but for those that have an effect.
pub const MAX_OURS: usize = 1_024;

/// Other people's keys that matter to us, in labels or annotations.
const OTHERS: [&str; 12] = [
    names::POD_INDEX_LABEL,
    names::SAFE_TO_EVICT_VOLUMES,
    names::ISTIO_INJECT,
    names::ISTIO_EXCLUDED_PORTS,
    names::LINKERD_INJECT,
    names::LINKERD_EXCLUDED_PORTS,
    names::ISTIO_REVISION,
    names::ISTIO_INCLUDED_PORTS,
    names::CONSUL_INJECT,
    names::CONSUL_EXCLUDED_PORTS,
    names::KUMA_INJECT,
    names::KUMA_EXCLUDED_PORTS,
];

impl Ours<'_> {
    /// The value of a key, if it is there.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_ref())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Ours<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OursVisitor)
    }
}

impl<'de> Deserialize<'de> for Amounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AmountsVisitor)
    }
}

struct AmountsVisitor;

impl<'de> Visitor<'de> for AmountsVisitor {
    type Value = Amounts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of resources to amounts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Amounts, A::Error> {
        let mut amounts = Amounts(0);
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            amounts.0 += 1;
        }
        Ok(amounts)
    }
}

struct OursVisitor;

impl<'de> Visitor<'de> for OursVisitor {
    type Value = Ours<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of labels or annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ours<'de>, A::Error> {
        let mut ours = Ours::default();
        while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
            let other = OTHERS.contains(&key.as_ref());
            let matters = || {
                (other || is_ours(&key) || sharding_key(&key).is_some()) && ours.get(&key).is_none()
            };
            if (other || key.starts_with(names::PREFIX)) && (ours.0.len() < MAX_OURS || matters()) {
                ours.0.push((key, map.next_value::<Text<'de>>()?.0));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(ours)
    }
}

impl<'a> PodView<'a> {
    /// Reads a pod's JSON.
    ///
    /// # Errors
    /// serde's error, with line and column, when it is not JSON or a field that we read has another type.
    pub fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Containers; none when the field is missing.
    #[must_use]
    pub fn containers(&self) -> &[ContainerView<'a>] {
        self.spec.containers.as_deref().unwrap_or_default()
    }

    /// Init containers; none when the field is missing.
    #[must_use]
    pub fn init_containers(&self) -> &[ContainerView<'a>] {
        self.spec.init_containers.as_deref().unwrap_or_default()
    }

    /// An annotation, if it is one that is read.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata
            .annotations
            .as_ref()
            .and_then(|ours| ours.get(key))
    }

    /// A label, if it is one that is read.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref().and_then(|ours| ours.get(key))
    }

    /// The name, or nothing.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_ref().map_or("", |name| &name.0)
    }
}

impl SpecView<'_> {
    /// Whether the pod has requests or limits of its own, beside those of its containers.
    #[must_use]
    pub fn has_resources(&self) -> bool {
        let given = self
            .resources
            .iter()
            .flat_map(|resources| [resources.requests, resources.limits])
            .flatten();
        given.into_iter().any(|amounts| amounts.0 > 0)
    }
}

impl ContainerView<'_> {
    /// Command words; none when the image's entry point is used.
    #[must_use]
    pub fn command(&self) -> &[Text<'_>] {
        self.command.as_deref().unwrap_or_default()
    }

    /// Argument words.
    #[must_use]
    pub fn args(&self) -> &[Text<'_>] {
        self.args.as_deref().unwrap_or_default()
    }
}
