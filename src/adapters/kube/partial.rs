//! Objects of the cluster with only the fields that the server uses.
//!
//! The allocator keeps the memory that a page of a list took. Most of an object is managed fields,
//! volumes, probes and templates, which are skipped as the bytes are read. Fields that are not
//! named in this file have their defaults, whatever the type declares.

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

use crate::core::model::names;

/// An object with the fields that this file names, and whether even these were too large: then it
/// has only its name, UID and version. Never write it back.
#[derive(Clone, Debug)]
pub struct Partial<K>(pub K, pub bool);

/// A kind that can be read partially.
pub trait PartialKind: Resource<DynamicType = ()> + Clone + Debug + Send + 'static {
    type Fields: DeserializeOwned + Into<Self> + Marked;
}

/// Fields with a mark whether the object was reduced to its identity.
pub trait Marked {
    /// Whether [`crate::adapters::kube::trimming_client`] found the object too large.
    fn is_cut(&self) -> bool;
}

impl<'de, K: PartialKind> Deserialize<'de> for Partial<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::Fields::deserialize(deserializer).map(|fields| {
            let cut = fields.is_cut();
            Self(fields.into(), cut)
        })
    }
}

impl<K: PartialKind> Resource for Partial<K> {
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

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetaFields {
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

impl From<MetaFields> for ObjectMeta {
    fn from(meta: MetaFields) -> Self {
        let own = |mut all: BTreeMap<String, String>| {
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
            annotations: meta.annotations.map(own),
            owner_references: meta.owner_references,
            deletion_timestamp: meta.deletion_timestamp,
            ..Self::default()
        }
    }
}

#[derive(Debug, serde::Deserialize)]
pub struct Levels<Spec, Status> {
    #[serde(default)]
    metadata: MetaFields,
    spec: Option<Spec>,
    status: Option<Status>,
    /// [`crate::core::kube::json_trim::CUT`]
    #[serde(rename = "timeshardCut", default)]
    cut: bool,
}

impl<Spec, Status> Marked for Levels<Spec, Status> {
    fn is_cut(&self) -> bool {
        self.cut
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodFields {
    containers: Option<Vec<ContainerFields>>,
    init_containers: Option<Vec<ContainerFields>>,
    volumes: Option<Vec<VolumeFields>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeFields {
    name: String,
    config_map: Option<MapName>,
}

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

impl PartialKind for Pod {
    type Fields = Levels<PodFields, PodStatus>;
}

impl From<PodFields> for PodSpec {
    fn from(read: PodFields) -> Self {
        let containers =
            |read: Vec<ContainerFields>| read.into_iter().map(Container::from).collect::<Vec<_>>();
        Self {
            containers: read.containers.map(containers).unwrap_or_default(),
            init_containers: read.init_containers.map(containers),
            // Only timeshard's own volume is used.
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

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct TemplateFields {
    spec: Option<PodFields>,
}

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

impl PartialKind for StatefulSet {
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

#[derive(Debug, serde::Deserialize)]
pub struct MapFields {
    #[serde(default)]
    metadata: MetaFields,
    data: Option<BTreeMap<String, String>>,
    /// [`crate::core::kube::json_trim::CUT`]
    #[serde(rename = "timeshardCut", default)]
    cut: bool,
}

impl Marked for MapFields {
    fn is_cut(&self) -> bool {
        self.cut
    }
}

impl PartialKind for ConfigMap {
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

impl PartialKind for PodDisruptionBudget {
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

impl PartialKind for Service {
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
