//! Kubernetes objects, as far as a check looks at them. Everything else is skipped as it is read.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer};
use serde_json::Value;

use crate::core::names;
use crate::core::observed::{BudgetFacts, Selector, ServiceFacts};

/// Go writes an empty list as null in some places.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

macro_rules! views {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $($(#[$field_doc])* #[serde(deserialize_with = "or_default")] pub $field: $kind,)* })*
    };
}

views! {
    /// What `/version` says.
    VersionInfo {
        /// `1`.
        major: String,
        /// `36`, or `36+`.
        minor: String,
        /// `v1.36.2`.
        git_version: String,
    }
    /// An owner.
    OwnerRef {
        /// `apps/v1` for a StatefulSet.
        api_version: String,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    }
    /// Metadata.
    Meta {
        /// Name.
        name: String,
        /// Namespace; none for objects of the cluster.
        namespace: String,
        /// UID.
        uid: String,
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
        /// Owners.
        owner_references: Vec<OwnerRef>,
        /// Whether it is being deleted.
        deletion_timestamp: Option<String>,
    }
    /// Any object, by its metadata.
    Object {
        /// Metadata.
        metadata: Meta,
    }
    /// A node.
    NodeView {
        /// Metadata.
        metadata: Meta,
        /// Status.
        status: NodeStatus,
    }
    /// A node's status.
    NodeStatus {
        /// What runs on it.
        node_info: NodeInfo,
    }
    /// What runs on a node.
    NodeInfo {
        /// `v1.36.2`.
        kubelet_version: String,
    }
    /// A container.
    ContainerWords {
        /// Its name.
        name: String,
        /// Its image.
        image: String,
        /// Its command.
        command: Vec<String>,
        /// Its arguments.
        args: Vec<String>,
        /// Its mounts.
        volume_mounts: Vec<Mount>,
    }
    /// A mount.
    Mount {
        /// The volume.
        name: String,
        /// Where.
        mount_path: String,
    }
    /// A volume.
    Volume {
        /// Its name.
        name: String,
        /// A ConfigMap.
        config_map: Option<Named>,
        /// A Secret.
        secret: Option<SecretVolume>,
    }
    /// Something by its name.
    Named {
        /// The name.
        name: String,
    }
    /// A Secret as a volume.
    SecretVolume {
        /// The Secret.
        secret_name: String,
    }
    /// A pod's spec.
    PodWords {
        /// Its containers.
        containers: Vec<ContainerWords>,
        /// Its volumes.
        volumes: Vec<Volume>,
        /// Whose rights it has.
        service_account_name: String,
    }
    /// A pod template.
    Template {
        /// Metadata.
        metadata: Meta,
        /// The pods' spec.
        spec: PodWords,
    }
    /// A Deployment or StatefulSet, by what it runs.
    Workload {
        /// Metadata.
        metadata: Meta,
        /// Spec.
        spec: WorkloadSpec,
    }
    /// What a workload runs.
    WorkloadSpec {
        /// Its pods.
        template: Template,
        /// How many.
        replicas: Option<i64>,
    }
    /// The server's Deployment.
    ServerDeployment {
        /// Metadata.
        metadata: Meta,
        /// Spec.
        spec: WorkloadSpec,
        /// Status.
        status: DeploymentStatus,
    }
    /// A Deployment's status.
    DeploymentStatus {
        /// Pods that are ready.
        ready_replicas: i64,
        /// Pods of the newest template.
        updated_replicas: i64,
    }
    /// A pod of the server.
    ServerPod {
        /// Metadata.
        metadata: Meta,
        /// Spec.
        spec: PodWords,
        /// Status.
        status: PodState,
    }
    /// A pod's status.
    PodState {
        /// Conditions.
        conditions: Vec<Condition>,
    }
    /// A condition.
    Condition {
        /// Which.
        r#type: String,
        /// `True` or not.
        status: String,
    }
    /// Where a Service leads.
    Endpoints {
        /// Addresses.
        endpoints: Vec<Endpoint>,
        /// Ports.
        ports: Vec<EndpointPort>,
    }
    /// One address.
    Endpoint {
        /// Its addresses; the first counts.
        addresses: Vec<String>,
        /// Its conditions.
        conditions: EndpointConditions,
    }
    /// Whether it is used.
    EndpointConditions {
        /// An absent one is ready.
        ready: Option<bool>,
    }
    /// A port.
    EndpointPort {
        /// Its number.
        port: Option<u16>,
    }
    /// A mutating webhook's configuration.
    WebhookConfiguration {
        /// Metadata.
        metadata: Meta,
        /// Webhooks, in order.
        webhooks: Vec<Webhook>,
    }
    /// One webhook.
    Webhook {
        /// Its name.
        name: String,
        /// Where it is.
        client_config: ClientConfig,
        /// What it is called for.
        rules: Vec<Rule>,
        /// `Fail` or `Ignore`.
        failure_policy: Option<String>,
        /// How long it may take.
        timeout_seconds: Option<i64>,
        /// `None`, `NoneOnDryRun`.
        side_effects: String,
        /// `Never` or `IfNeeded`.
        reinvocation_policy: Option<String>,
        /// In which namespaces.
        namespace_selector: SelectorView,
        /// For which objects.
        object_selector: SelectorView,
        /// What the API server asks before it calls.
        match_conditions: Vec<Named>,
    }
    /// Where a webhook is.
    ClientConfig {
        /// A Service.
        service: Option<ServiceRef>,
        /// Anywhere.
        url: Option<String>,
        /// PEM, base64.
        ca_bundle: Option<String>,
    }
    /// A Service that is called.
    ServiceRef {
        /// Where.
        namespace: String,
        /// Its name.
        name: String,
        /// The path.
        path: Option<String>,
        /// Its port; 443 if absent.
        port: Option<u16>,
    }
    /// What a webhook is called for.
    Rule {
        /// `CREATE`, `*`.
        operations: Vec<String>,
        /// Empty for the core group.
        api_groups: Vec<String>,
        /// `pods`, `*`.
        resources: Vec<String>,
    }
    /// A label selector.
    SelectorView {
        /// Labels that must have these values.
        match_labels: BTreeMap<String, String>,
        /// Further requirements.
        match_expressions: Vec<Requirement>,
    }
    /// A requirement of a label selector.
    Requirement {
        /// The label.
        key: String,
        /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
        operator: String,
        /// Its values.
        values: Vec<String>,
    }
    /// A budget.
    BudgetView {
        /// Metadata.
        metadata: Meta,
        /// Spec.
        spec: BudgetSpec,
    }
    /// A budget's spec.
    BudgetSpec {
        /// Absent selects nothing.
        selector: Option<SelectorView>,
        /// A number or a percentage.
        min_available: Value,
        /// A number or a percentage.
        max_unavailable: Value,
    }
    /// A Service.
    ServiceView {
        /// Metadata.
        metadata: Meta,
        /// Spec.
        spec: ServiceSpecView,
    }
    /// A Service's spec.
    ServiceSpecView {
        /// Empty selects nothing.
        selector: BTreeMap<String, String>,
        /// Also pods that are not ready.
        publish_not_ready_addresses: bool,
        /// `None` is headless.
        #[serde(rename = "clusterIP")]
        cluster_ip: String,
        /// Ports.
        ports: Vec<ServicePortView>,
    }
    /// A Service's port.
    ServicePortView {
        /// Its name.
        name: String,
        /// Its number.
        port: i32,
    }
    /// A ConfigMap.
    MapView {
        /// Metadata.
        metadata: Meta,
        /// Data.
        data: BTreeMap<String, String>,
    }
}

/// A configuration's text and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigText {
    /// For messages.
    pub source: String,
    /// The text.
    pub text: String,
    /// Whether it is the one that the server runs with.
    pub of_server: bool,
}

impl From<SelectorView> for Selector {
    fn from(view: SelectorView) -> Self {
        let expressions = view
            .match_expressions
            .into_iter()
            .map(|one| (one.key, one.operator, one.values))
            .collect();
        Self {
            labels: view.match_labels,
            expressions,
        }
    }
}

fn is_ours(meta: &Meta) -> bool {
    meta.labels
        .get(names::MANAGED_BY_LABEL)
        .is_some_and(|value| value == names::MANAGED_BY)
}

fn owner_uid(meta: &Meta) -> Option<String> {
    meta.statefulset().map(|owner| owner.uid.clone())
}

impl From<BudgetView> for BudgetFacts {
    fn from(view: BudgetView) -> Self {
        let number = |value: &Value| value.as_i64().and_then(|n| i32::try_from(n).ok());
        Self {
            ours: is_ours(&view.metadata),
            owner_uid: owner_uid(&view.metadata),
            name: view.metadata.name,
            selector: view.spec.selector.map(Selector::from),
            max_unavailable: number(&view.spec.max_unavailable),
            min_available: number(&view.spec.min_available),
            ..Self::default()
        }
    }
}

impl From<ServiceView> for ServiceFacts {
    fn from(view: ServiceView) -> Self {
        Self {
            ours: is_ours(&view.metadata),
            owner_uid: owner_uid(&view.metadata),
            name: view.metadata.name,
            selector: view.spec.selector,
            publishes_not_ready: view.spec.publish_not_ready_addresses,
            headless: view.spec.cluster_ip == "None",
            ports: view
                .spec
                .ports
                .into_iter()
                .map(|port| (port.name, port.port))
                .collect(),
            ..Self::default()
        }
    }
}

impl Meta {
    /// The StatefulSet that owns it, if one does.
    #[must_use]
    pub fn statefulset(&self) -> Option<&OwnerRef> {
        self.owner_references
            .iter()
            .find(|owner| owner.kind == "StatefulSet" && owner.api_version.starts_with("apps/"))
    }

    /// `namespace/name`.
    #[must_use]
    pub fn title(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

impl Webhook {
    /// Whether it is called when a pod is created.
    #[must_use]
    pub fn sees_pods(&self) -> bool {
        let has = |list: &[String], word: &str| {
            list.iter()
                .any(|one| one == word || one == "*" || one == "*/*")
        };
        self.rules.iter().any(|rule| {
            has(&rule.operations, "CREATE")
                && has(&rule.api_groups, "")
                && has(&rule.resources, "pods")
        })
    }
}
