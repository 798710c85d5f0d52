//! The fields of Kubernetes objects that the checks read.

use std::collections::BTreeMap;

use crate::core::kube::observed::{Selector, or_default};

macro_rules! views {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $($(#[$field_doc])* #[serde(deserialize_with = "or_default")] pub $field: $kind,)* })*
    };
}

views! {
    VersionInfo {
        major: String,
        /// `36`, or `36+`.
        minor: String,
        /// `v1.36.2`.
        git_version: String,
    }
    Meta {
        name: String,
        /// Empty for cluster-scoped objects.
        namespace: String,
        uid: String,
        labels: BTreeMap<String, String>,
        deletion_timestamp: Option<String>,
    }
    /// Any object, by its metadata.
    Object {
        metadata: Meta,
    }
    NodeView {
        metadata: Meta,
        status: NodeStatus,
    }
    NodeStatus {
        node_info: NodeInfo,
    }
    NodeInfo {
        /// `v1.36.2`.
        kubelet_version: String,
    }
    ContainerArgs {
        name: String,
        image: String,
        command: Vec<String>,
        args: Vec<String>,
        volume_mounts: Vec<Mount>,
    }
    Mount {
        name: String,
        mount_path: String,
    }
    Volume {
        name: String,
        config_map: Option<Named>,
        secret: Option<SecretVolume>,
    }
    Named {
        name: String,
    }
    SecretVolume {
        secret_name: String,
    }
    PodSpecView {
        containers: Vec<ContainerArgs>,
        volumes: Vec<Volume>,
        service_account_name: String,
    }
    Template {
        metadata: Meta,
        spec: PodSpecView,
    }
    /// A Deployment or StatefulSet.
    Workload {
        metadata: Meta,
        spec: WorkloadSpec,
        /// Of a Deployment.
        status: DeploymentStatus,
    }
    WorkloadSpec {
        template: Template,
        replicas: Option<i64>,
    }
    DeploymentStatus {
        ready_replicas: i64,
        updated_replicas: i64,
    }
    ServerPod {
        metadata: Meta,
        spec: PodSpecView,
        status: PodState,
    }
    PodState {
        conditions: Vec<Condition>,
    }
    Condition {
        r#type: String,
        status: String,
    }
    /// An `EndpointSlice`.
    Endpoints {
        endpoints: Vec<Endpoint>,
        ports: Vec<EndpointPort>,
    }
    Endpoint {
        /// Only the first is used.
        addresses: Vec<String>,
        conditions: EndpointConditions,
    }
    EndpointConditions {
        /// Absent means ready.
        ready: Option<bool>,
    }
    EndpointPort {
        port: Option<u16>,
    }
    WebhookConfiguration {
        metadata: Meta,
        webhooks: Vec<Webhook>,
    }
    Webhook {
        name: String,
        client_config: ClientConfig,
        rules: Vec<Rule>,
        /// `Fail` or `Ignore`.
        failure_policy: Option<String>,
        timeout_seconds: Option<i64>,
        /// `None`, `NoneOnDryRun`.
        side_effects: String,
        /// `Never` or `IfNeeded`.
        reinvocation_policy: Option<String>,
        namespace_selector: Selector,
        object_selector: Selector,
        match_conditions: Vec<Named>,
    }
    ClientConfig {
        service: Option<ServiceRef>,
        url: Option<String>,
        /// Base64 of PEM.
        ca_bundle: Option<String>,
    }
    ServiceRef {
        namespace: String,
        name: String,
        path: Option<String>,
        /// 443 if absent.
        port: Option<u16>,
    }
    Rule {
        /// `CREATE`, `*`.
        operations: Vec<String>,
        /// Empty for the core group.
        api_groups: Vec<String>,
        /// `pods`, `*`.
        resources: Vec<String>,
    }
}

/// The text of a configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigText {
    /// Its file or ConfigMap, for messages.
    pub source: String,
    pub text: String,
    /// Whether the server runs with it.
    pub of_server: bool,
}

impl Meta {
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
    /// Whether the API server calls it when a pod is created.
    #[must_use]
    pub fn sees_pods(&self) -> bool {
        let has = |list: &[String], wanted: &str| {
            list.iter()
                .any(|one| one == wanted || one == "*" || one == "*/*")
        };
        self.rules.iter().any(|rule| {
            has(&rule.operations, "CREATE")
                && has(&rule.api_groups, "")
                && has(&rule.resources, "pods")
        })
    }
}
