//! Objects of the cluster, read without what nobody looks at.
//!
//! A list is read a page at a time, and what a page takes up stays with the process. Most of an object is managed fields,
//! volumes, probes and templates: here they are skipped as the bytes are read. What is not named in this file is not there
//! for anyone who watches, however it is declared in the type.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetOrdinals, StatefulSetSpec, StatefulSetStatus, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, Pod, PodSpec, PodStatus, PodTemplateSpec, Service,
    ServiceSpec, Volume,
};
use k8s_openapi::api::policy::v1::{
    PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, ObjectMeta, OwnerReference, Time,
};
use kube::Resource;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};

use crate::core::names;

/// An object with the fields that this file names, the others at their defaults, and whether even these were too large to be
/// read: then it is only its name, UID and version. To be read, never to be written.
#[derive(Clone, Debug)]
pub struct Lean<K>(pub K, pub bool);

/// A kind that can be read so.
pub trait Read: Resource<DynamicType = ()> + Clone + Debug + Send + 'static {
    /// The fields that are read.
    type Fields: DeserializeOwned + Into<Self> + Marked;
}

/// What is read says whether it was cut down to the object's identity.
pub trait Marked {
    /// Whether the client that trims objects found it too large ([`crate::adapters::trimmed`]).
    fn is_cut(&self) -> bool;
}

impl<'de, K: Read> Deserialize<'de> for Lean<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::Fields::deserialize(deserializer).map(|fields| {
            let cut = fields.is_cut();
            Self(fields.into(), cut)
        })
    }
}

impl<K: Read> Resource for Lean<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> std::borrow::Cow<'_, str> {
        K::kind(&())
    }
    fn group((): &()) -> std::borrow::Cow<'_, str> {
        K::group(&())
    }
    fn version((): &()) -> std::borrow::Cow<'_, str> {
        K::version(&())
    }
    fn plural((): &()) -> std::borrow::Cow<'_, str> {
        K::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// What is read of any object's metadata.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    deletion_timestamp: Option<Time>,
}

impl From<Meta> for ObjectMeta {
    fn from(meta: Meta) -> Self {
        let ours = |mut all: BTreeMap<String, String>| {
            all.retain(|key, _| key.starts_with(names::PREFIX));
            all
        };
        Self {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            resource_version: meta.resource_version,
            generation: meta.generation,
            labels: meta.labels,
            annotations: meta.annotations.map(ours),
            owner_references: meta.owner_references,
            deletion_timestamp: meta.deletion_timestamp,
            ..Self::default()
        }
    }
}

/// An object's levels.
#[derive(Debug, serde::Deserialize)]
pub struct Levels<Spec, Status> {
    #[serde(default)]
    metadata: Meta,
    spec: Option<Spec>,
    status: Option<Status>,
    /// [`crate::core::json_trim::CUT`]
    #[serde(rename = "timeshardCut", default)]
    cut: bool,
}

impl<Spec, Status> Marked for Levels<Spec, Status> {
    fn is_cut(&self) -> bool {
        self.cut
    }
}

/// What is read of a pod's spec.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodFields {
    containers: Option<Vec<ContainerFields>>,
    init_containers: Option<Vec<ContainerFields>>,
    volumes: Option<Vec<VolumeFields>>,
}

/// What is read of a volume.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeFields {
    name: String,
    config_map: Option<MapName>,
}

/// What is read of a ConfigMap's volume.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct MapName {
    name: String,
}

impl From<VolumeFields> for Volume {
    fn from(read: VolumeFields) -> Self {
        let config_map = read.config_map.map(|map| ConfigMapVolumeSource {
            name: map.name,
            ..ConfigMapVolumeSource::default()
        });
        Self {
            name: read.name,
            config_map,
            ..Self::default()
        }
    }
}

/// What is read of a container.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct ContainerFields {
    name: String,
    image: Option<String>,
    command: Option<Vec<String>>,
    args: Option<Vec<String>>,
}

impl From<ContainerFields> for Container {
    fn from(read: ContainerFields) -> Self {
        Self {
            name: read.name,
            image: read.image,
            command: read.command,
            args: read.args,
            ..Self::default()
        }
    }
}

impl Read for Pod {
    type Fields = Levels<PodFields, PodStatus>;
}

impl From<PodFields> for PodSpec {
    fn from(read: PodFields) -> Self {
        let containers =
            |read: Vec<ContainerFields>| read.into_iter().map(Container::from).collect::<Vec<_>>();
        Self {
            containers: read.containers.map(containers).unwrap_or_default(),
            init_containers: read.init_containers.map(containers),
            // Of all volumes ours is looked at.
            volumes: read.volumes.map(|all| {
                all.into_iter()
                    .filter(|volume| volume.name == names::CONFIG_VOLUME)
                    .map(Volume::from)
                    .collect()
            }),
            ..Self::default()
        }
    }
}

impl From<Levels<PodFields, PodStatus>> for Pod {
    fn from(read: Levels<PodFields, PodStatus>) -> Self {
        Self {
            metadata: read.metadata.into(),
            spec: read.spec.map(PodSpec::from),
            status: read.status,
        }
    }
}

/// What is read of a pod template.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct TemplateFields {
    spec: Option<PodFields>,
}

/// What is read of a StatefulSet's spec.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetFields {
    min_ready_seconds: Option<i32>,
    ordinals: Option<StatefulSetOrdinals>,
    pod_management_policy: Option<String>,
    replicas: Option<i32>,
    selector: LabelSelector,
    service_name: Option<String>,
    template: TemplateFields,
    update_strategy: Option<StatefulSetUpdateStrategy>,
}

impl Read for StatefulSet {
    type Fields = Levels<StatefulSetFields, StatefulSetStatus>;
}

impl From<Levels<StatefulSetFields, StatefulSetStatus>> for StatefulSet {
    fn from(read: Levels<StatefulSetFields, StatefulSetStatus>) -> Self {
        let spec = read.spec.map(|spec| StatefulSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            ordinals: spec.ordinals,
            pod_management_policy: spec.pod_management_policy,
            replicas: spec.replicas,
            selector: spec.selector,
            service_name: spec.service_name,
            template: PodTemplateSpec {
                spec: spec.template.spec.map(PodSpec::from),
                ..PodTemplateSpec::default()
            },
            update_strategy: spec.update_strategy,
            ..StatefulSetSpec::default()
        });
        Self {
            metadata: read.metadata.into(),
            spec,
            status: read.status,
        }
    }
}

/// What is read of a ConfigMap.
#[derive(Debug, serde::Deserialize)]
pub struct MapFields {
    #[serde(default)]
    metadata: Meta,
    data: Option<BTreeMap<String, String>>,
    /// [`crate::core::json_trim::CUT`]
    #[serde(rename = "timeshardCut", default)]
    cut: bool,
}

impl Marked for MapFields {
    fn is_cut(&self) -> bool {
        self.cut
    }
}

impl Read for ConfigMap {
    type Fields = MapFields;
}

impl From<MapFields> for ConfigMap {
    fn from(read: MapFields) -> Self {
        Self {
            metadata: read.metadata.into(),
            data: read.data,
            ..Self::default()
        }
    }
}

impl Read for PodDisruptionBudget {
    type Fields = Levels<PodDisruptionBudgetSpec, PodDisruptionBudgetStatus>;
}

impl From<Levels<PodDisruptionBudgetSpec, PodDisruptionBudgetStatus>> for PodDisruptionBudget {
    fn from(read: Levels<PodDisruptionBudgetSpec, PodDisruptionBudgetStatus>) -> Self {
        Self {
            metadata: read.metadata.into(),
            spec: read.spec,
            status: read.status,
        }
    }
}

impl Read for Service {
    type Fields = Levels<ServiceSpec, serde::de::IgnoredAny>;
}

impl From<Levels<ServiceSpec, serde::de::IgnoredAny>> for Service {
    fn from(read: Levels<ServiceSpec, serde::de::IgnoredAny>) -> Self {
        Self {
            metadata: read.metadata.into(),
            spec: read.spec,
            ..Self::default()
        }
    }
}
