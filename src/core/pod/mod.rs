//! The fields of a pod that admission reads, borrowed from the request's bytes. All others are
//! skipped.
//!
//! Building a full tree of a pod costs several times as much as skipping over it, and typed structs
//! would drop fields they do not know. So these structs are read-only, and patches are built by
//! hand.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::core::config::{is_ours, sharding_key};
use crate::core::kube::recognise;
use crate::core::model::names;

pub(crate) mod bounded;
mod variables;
pub use variables::EnvView;

/// A JSON string, borrowed where it has no escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

#[derive(Debug, Default, Deserialize)]
pub struct PodView<'a> {
    #[serde(borrow, default)]
    pub metadata: MetaView<'a>,
    #[serde(borrow, default)]
    pub spec: SpecView<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaView<'a> {
    /// `None` for pods that are named later (Deployments, Jobs).
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub labels: Option<Relevant<'a>>,
    #[serde(borrow, default)]
    pub annotations: Option<Relevant<'a>>,
    #[serde(borrow, default, deserialize_with = "bounded::owners")]
    pub owner_references: Option<Vec<OwnerView<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerView<'a> {
    /// `apps/v1` for a StatefulSet.
    #[serde(borrow, default)]
    pub api_version: Text<'a>,
    #[serde(borrow, default)]
    pub kind: Text<'a>,
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// For Events.
    #[serde(borrow, default)]
    pub uid: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecView<'a> {
    #[serde(borrow, default, deserialize_with = "bounded::containers")]
    pub containers: Option<Vec<ContainerView<'a>>>,
    /// With native sidecars.
    #[serde(borrow, default, deserialize_with = "bounded::containers")]
    pub init_containers: Option<Vec<ContainerView<'a>>>,
    #[serde(borrow, default, deserialize_with = "bounded::volumes")]
    pub volumes: Option<Vec<VolumeView<'a>>>,
    /// With those of its ServiceAccount.
    #[serde(borrow, default, deserialize_with = "bounded::secrets")]
    pub image_pull_secrets: Option<Vec<SecretView<'a>>>,
    /// With the containers' default user.
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
    /// Resources that the containers share (Kubernetes 1.34 and newer).
    #[serde(default)]
    pub resources: Option<ResourcesView>,
    /// `windows` for Windows pods.
    #[serde(borrow, default)]
    pub os: Option<OsView<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub struct ResourcesView {
    #[serde(default)]
    pub requests: Option<ResourceAmounts>,
    #[serde(default)]
    pub limits: Option<ResourceAmounts>,
}

/// Number of amounts; the amounts are not read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceAmounts(pub usize);

#[derive(Debug, Default, Deserialize)]
pub struct OsView<'a> {
    /// `linux` or `windows`.
    #[serde(borrow, default)]
    pub name: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView<'a> {
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(borrow, default)]
    pub image: Text<'a>,
    /// Replaces the image's entry point.
    #[serde(borrow, default, deserialize_with = "bounded::arguments")]
    pub command: Option<Vec<Text<'a>>>,
    #[serde(borrow, default, deserialize_with = "bounded::arguments")]
    pub args: Option<Vec<Text<'a>>>,
    #[serde(borrow, default, deserialize_with = "bounded::mounts")]
    pub volume_mounts: Option<Vec<MountView<'a>>>,
    /// To resolve a probe's port name.
    #[serde(borrow, default, deserialize_with = "bounded::ports")]
    pub ports: Option<Vec<PortView<'a>>>,
    #[serde(borrow, default)]
    pub liveness_probe: Option<ProbeView<'a>>,
    #[serde(default)]
    pub security_context: Option<SecurityView>,
    /// `Always` makes an init container a native sidecar.
    #[serde(borrow, default)]
    pub restart_policy: Option<Text<'a>>,
    /// Parsed on demand: see [`ContainerView::variables`].
    #[serde(borrow, default)]
    pub env: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeView<'a> {
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// Set for a volume that each pod gets empty.
    #[serde(default)]
    pub empty_dir: Option<IgnoredAny>,
    /// Set for a volume that each pod has for itself.
    #[serde(default)]
    pub persistent_volume_claim: Option<IgnoredAny>,
}

/// A reference to a Secret of the pod's namespace.
#[derive(Debug, Default, Deserialize)]
pub struct SecretView<'a> {
    #[serde(borrow, default)]
    pub name: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountView<'a> {
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(borrow, default)]
    pub mount_path: Text<'a>,
    /// Path within the volume, with variables of the pod.
    #[serde(borrow, default)]
    pub sub_path_expr: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortView<'a> {
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(default)]
    pub container_port: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeView<'a> {
    #[serde(borrow, default)]
    pub http_get: Option<ProbeTarget<'a>>,
    #[serde(borrow, default)]
    pub tcp_socket: Option<ProbeTarget<'a>>,
    #[serde(borrow, default)]
    pub grpc: Option<ProbeTarget<'a>>,
    /// A program in the container.
    #[serde(borrow, default)]
    pub exec: Option<ExecView<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub struct ExecView<'a> {
    #[serde(borrow, default, deserialize_with = "bounded::arguments")]
    pub command: Option<Vec<Text<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
pub struct ProbeTarget<'a> {
    #[serde(borrow, default)]
    pub path: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub port: Option<PortRef<'a>>,
}

/// A port by number or by name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum PortRef<'a> {
    Number(i64),
    /// The container port's name.
    Name(#[serde(borrow)] Cow<'a, str>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityView {
    #[serde(default)]
    pub run_as_user: Option<i64>,
}

/// The labels or annotations that admission reads; others are skipped, however long they are. Of
/// unknown keys with timeshard's prefix at most [`MAX_RELEVANT`] are kept: a request has room for a
/// hundred thousand.
#[derive(Debug, Default)]
pub struct Relevant<'a>(pub Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// Labels, or annotations, that are kept of an object, besides those that have an effect.
pub const MAX_RELEVANT: usize = 1_024;

/// Labels and annotations of other projects that admission reads.
const FOREIGN_KEYS: [&str; 12] = [
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

impl Relevant<'_> {
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_ref())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Relevant<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RelevantVisitor)
    }
}

impl<'de> Deserialize<'de> for ResourceAmounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AmountsVisitor)
    }
}

struct AmountsVisitor;

impl<'de> Visitor<'de> for AmountsVisitor {
    type Value = ResourceAmounts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of resources to amounts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ResourceAmounts, A::Error> {
        let mut amounts = ResourceAmounts(0);
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            amounts.0 += 1;
        }
        Ok(amounts)
    }
}

struct RelevantVisitor;

impl<'de> Visitor<'de> for RelevantVisitor {
    type Value = Relevant<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of labels or annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Relevant<'de>, A::Error> {
        let mut kept = Relevant::default();
        while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
            let other = FOREIGN_KEYS.contains(&key.as_ref());
            let matters = || {
                (other || is_ours(&key) || sharding_key(&key).is_some()) && kept.get(&key).is_none()
            };
            if (other || key.starts_with(names::PREFIX))
                && (kept.0.len() < MAX_RELEVANT || matters())
            {
                kept.0.push((key, map.next_value::<Text<'de>>()?.0));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(kept)
    }
}

impl<'a> PodView<'a> {
    /// # Errors
    /// serde's error, with line and column, if the bytes are not JSON or a field has another type.
    pub fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    #[must_use]
    pub fn containers(&self) -> &[ContainerView<'a>] {
        self.spec.containers.as_deref().unwrap_or_default()
    }

    #[must_use]
    pub fn init_containers(&self) -> &[ContainerView<'a>] {
        self.spec.init_containers.as_deref().unwrap_or_default()
    }

    /// The value of an annotation that admission reads.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata
            .annotations
            .as_ref()
            .and_then(|kept| kept.get(key))
    }

    /// The value of a label that admission reads.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref().and_then(|kept| kept.get(key))
    }

    /// The StatefulSet that owns the pod.
    #[must_use]
    pub fn statefulset(&self) -> Option<&OwnerView<'a>> {
        let owners = self.metadata.owner_references.as_deref()?;
        owners
            .iter()
            .find(|owner| recognise::is_statefulset(&owner.api_version.0, &owner.kind.0))
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_ref().map_or("", |name| &name.0)
    }
}

impl SpecView<'_> {
    /// Whether the pod has requests or limits of its own, besides those of its containers.
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
    /// Empty when the image's entry point is used.
    #[must_use]
    pub fn command(&self) -> &[Text<'_>] {
        self.command.as_deref().unwrap_or_default()
    }

    #[must_use]
    pub fn args(&self) -> &[Text<'_>] {
        self.args.as_deref().unwrap_or_default()
    }

    fn arguments(&self) -> impl Iterator<Item = &str> {
        let arguments = self.command().iter().chain(self.args());
        arguments.map(|argument| argument.0.as_ref())
    }

    #[must_use]
    pub fn is_sidecar(&self) -> bool {
        recognise::is_sidecar(&self.name.0, self.arguments())
    }

    #[must_use]
    pub fn is_injected(&self) -> bool {
        recognise::is_injected(&self.name.0, self.arguments())
    }
}
