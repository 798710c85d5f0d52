//! Every check: its stable id, its section and its message when it passes. `docs/checks.md` has an
//! entry for each.

use super::Section;

/// A check. The meaning of an id never changes: alerts and scripts use it.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// Also the anchor in `docs/checks.md`.
    pub id: &'static str,
    pub section: Section,
    /// The message when it passes.
    pub title: &'static str,
}

/// The checks' documentation, relative to the repository.
pub const DOCUMENT: &str = "docs/checks.md";

impl Check {
    #[must_use]
    pub fn url(&self) -> String {
        format!("{DOCUMENT}#{}", self.id)
    }
}

macro_rules! checks {
    ($($name:ident $section:ident $id:literal $title:literal;)*) => {
        $(#[doc = $title] pub const $name: Check = Check { id: $id, section: Section::$section, title: $title };)*
        /// Every check, in the order of the output.
        pub const ALL: &[&Check] = &[$(&$name),*];
    };
}

checks! {
    API_REACHABLE Api "api-reachable" "the API server answers";
    API_VERSION Api "api-version" "the version of Kubernetes is supported";
    API_CLOCK Api "api-clock" "clocks agree";
    API_PERMISSIONS Api "api-permissions" "you may read everything that is checked";
    NODE_KUBELETS Api "node-kubelets" "every kubelet supports native sidecars";
    INSTALL_PERMISSIONS Install "install-permissions" "you may install timeshard";
    INSTALL_NAMESPACE Install "install-namespace" "the server can run in the namespace";
    INSTALL_NAMES Install "install-names" "no name of an installed object is taken";
    INSTALL_CERT_MANAGER Install "install-cert-manager" "cert-manager can issue the certificate";
    SERVER_PERMISSIONS Server "server-permissions" "the server has the rights that it needs";
    SERVER_REPLICAS Server "server-replicas" "enough replicas of the server are ready";
    SERVER_VERSION Server "server-version" "server and command line have the same version";
    SERVER_STATUS Server "server-status" "the server reports no problem";
    SERVER_LEADER Server "server-leader" "one replica leads";
    CONFIG_VALID Configuration "config-valid" "the configuration can be read";
    CONFIG_SOUND Configuration "config-sound" "the configuration is sound";
    CONFIG_APPLIED Configuration "config-applied" "the server runs with the current configuration";
    WEBHOOK_REGISTERED Webhook "webhook-registered" "the webhook is registered once";
    WEBHOOK_SCOPE Webhook "webhook-scope" "it matches only store gateways of labelled namespaces";
    WEBHOOK_POLICY Webhook "webhook-policy" "failurePolicy, timeout and sideEffects are as recommended";
    WEBHOOK_SERVICE Webhook "webhook-service" "its Service leads to the server";
    WEBHOOK_CA Webhook "webhook-ca" "its caBundle is valid";
    WEBHOOK_CERTIFICATE Webhook "webhook-certificate" "the served certificate is trusted by it";
    WEBHOOK_ADMISSION Webhook "webhook-admission" "the API server calls it (a dry run)";
    WEBHOOK_OTHERS Webhook "webhook-others" "other webhooks do not interfere";
    NAMESPACE_LABELS Namespaces "namespace-labels" "namespaces are labelled";
    NAMESPACE_RIGHTS Namespaces "namespace-rights" "the server has rights in every labelled namespace";
    STATEFULSET_ELIGIBLE StatefulSets "statefulset-eligible" "the gateway is sharded";
    STATEFULSET_ANNOTATIONS StatefulSets "statefulset-annotations" "its annotations are valid";
    STATEFULSET_REPLICAS StatefulSets "statefulset-replicas" "its replicas fit the plan";
    STATEFULSET_OVERLAP StatefulSets "statefulset-overlap" "the overlap of shards is long enough";
    STATEFULSET_UPDATE StatefulSets "statefulset-update" "a rolling update keeps a replica of each shard";
    STATEFULSET_PROBES StatefulSets "statefulset-probes" "no liveness probe kills a long load";
    STATEFULSET_TEMPLATE StatefulSets "statefulset-template" "nothing in its pod template is ignored";
    STATEFULSET_BUDGETS StatefulSets "statefulset-budgets" "each pod has one PodDisruptionBudget";
    STATEFULSET_SERVICES StatefulSets "statefulset-services" "a headless Service names its ready pods";
    STATEFULSET_SHARD_SERVICES StatefulSets "statefulset-shard-services" "each shard has its Service";
    PODS_INJECTED StatefulSets "pods-injected" "every pod is injected";
    PODS_AGENTS StatefulSets "pods-agents" "every agent has the server's version";
    ROLLOUT_STATE Rollouts "rollout-state" "every pod serves its planned window";
    ROLLOUT_DRIFT Rollouts "rollout-drift" "pods serve what is published";
    ROLLOUT_COVERAGE Rollouts "rollout-coverage" "every instant is served by two pods or more";
    ROLLOUT_BLOCKS Rollouts "rollout-blocks" "every block within the retention is loaded";
    BUCKET_OUTSIDE Rollouts "bucket-outside" "no block of the bucket lies outside every window";
    QUERIER_INTERVAL Queriers "querier-interval" "queriers drop a pod before it restarts";
    DISCOVERY_PERIODS Queriers "discovery-periods" "drains and delay are longer than queriers take to notice a pod";
    QUERIER_ASKED Queriers "querier-asked" "timeshard can ask the querier which pods it uses";
    QUERIER_ENDPOINTS Queriers "querier-endpoints" "queriers learn which pods are ready";
}
