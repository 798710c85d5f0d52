//! The fields of a StatefulSet, or of its `Scale`, that the guard reads: borrowed from the
//! request's bytes.

use std::borrow::Cow;

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::core::kube::max_unavailable::MaxUnavailable;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::names;
use crate::core::pod::{MetaView, OwnerView, PodView, Text, VolumeView, bounded};

#[derive(Debug, Default, Deserialize)]
pub struct SetView<'a> {
    #[serde(borrow, default)]
    metadata: MetaView<'a>,
    #[serde(borrow, default)]
    spec: SetSpecView<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SetSpecView<'a> {
    #[serde(default)]
    replicas: Option<i64>,
    #[serde(default)]
    ordinals: Option<OrdinalsView>,
    #[serde(default)]
    min_ready_seconds: Option<i64>,
    #[serde(borrow, default)]
    pod_management_policy: Option<Text<'a>>,
    /// Small enough to read completely.
    #[serde(default, deserialize_with = "bounded::small_value")]
    update_strategy: Option<Value>,
    #[serde(borrow, default)]
    template: Option<Template<'a>>,
    #[serde(borrow, default, deserialize_with = "bounded::volumes")]
    volume_claim_templates: Option<Vec<ClaimView<'a>>>,
}

/// A pod template, parsed and as text.
#[derive(Debug, Default)]
struct Template<'a> {
    pod: PodView<'a>,
    text: &'a str,
}

impl<'de: 'a, 'a> Deserialize<'de> for Template<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        Ok(Self {
            pod: serde_json::from_str(text).map_err(D::Error::custom)?,
            text,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
struct OrdinalsView {
    #[serde(default)]
    start: i64,
}

#[derive(Debug, Default, Deserialize)]
struct ClaimView<'a> {
    #[serde(borrow, default)]
    metadata: MetaView<'a>,
}

impl<'a> SetView<'a> {
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_ref().map_or("", |name| &name.0)
    }

    /// `spec.replicas` of a `Scale`, which omits a 0.
    #[must_use]
    pub fn scale(&self) -> u32 {
        self.spec.replicas.map_or(0, natural)
    }

    /// The facts that the server would observe, as far as a plan depends on them.
    #[must_use]
    pub fn facts(&self, namespace: &str) -> StatefulSetFacts {
        let annotations = self
            .metadata
            .annotations
            .iter()
            .flat_map(|ours| &ours.0)
            .filter(|(key, _)| key.starts_with(names::PREFIX));
        StatefulSetFacts {
            namespace: namespace.to_owned(),
            name: self.name().to_owned(),
            // Kubernetes' default is one replica.
            replicas: self.spec.replicas.map_or(1, natural),
            ordinals_start: self
                .spec
                .ordinals
                .as_ref()
                .map_or(0, |ordinals| natural(ordinals.start)),
            annotations: annotations
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            partition: self.partition(),
            max_unavailable: self
                .spec
                .update_strategy
                .as_ref()
                .and_then(MaxUnavailable::of_strategy),
            min_ready_seconds: self.spec.min_ready_seconds.map_or(0, natural),
            ..StatefulSetFacts::default()
        }
    }

    fn partition(&self) -> Option<u32> {
        let strategy = self.spec.update_strategy.as_ref();
        let replaces =
            strategy.and_then(|strategy| strategy.get("type")?.as_str()) != Some("OnDelete");
        let partition =
            strategy.and_then(|strategy| strategy.pointer("/rollingUpdate/partition")?.as_i64());
        replaces.then(|| partition.map_or(0, natural))
    }

    /// The text of the pod template. The API server writes equal templates alike.
    #[must_use]
    pub fn template(&self) -> Option<&'a str> {
        self.spec.template.as_ref().map(|template| template.text)
    }

    /// Whether the controller replaces pods regardless of whether others are ready.
    #[must_use]
    pub fn is_parallel(&self) -> bool {
        self.spec
            .pod_management_policy
            .as_ref()
            .is_some_and(|policy| policy.0 == "Parallel")
    }

    /// The first pod, as the StatefulSet controller would create it.
    #[must_use]
    pub fn into_first_pod(self) -> PodView<'a> {
        let start = self
            .spec
            .ordinals
            .as_ref()
            .map_or(0, |ordinals| natural(ordinals.start));
        let name = self.name().to_owned();
        let mut pod = self.spec.template.unwrap_or_default().pod;
        let text = |text: &'static str| Text(Cow::Borrowed(text));
        pod.metadata.name = Some(Text(Cow::Owned(format!("{name}-{start}"))));
        let owner = OwnerView {
            api_version: text("apps/v1"),
            kind: text("StatefulSet"),
            name: Text(Cow::Owned(name)),
            uid: text(""),
        };
        pod.metadata.owner_references = Some(vec![owner]);
        let claims = self
            .spec
            .volume_claim_templates
            .into_iter()
            .flatten()
            .filter_map(|claim| claim.metadata.name);
        let claims: Vec<VolumeView<'a>> = claims
            .map(|name| VolumeView {
                name,
                empty_dir: None,
                persistent_volume_claim: Some(IgnoredAny),
            })
            .collect();
        if !claims.is_empty() {
            pod.spec.volumes.get_or_insert_default().extend(claims);
        }
        pod
    }
}

/// Clamps at 0: the API server rejects negative numbers later.
fn natural(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}
