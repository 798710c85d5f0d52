//! Every check: its stable id, its section, and what it says when all is well. `docs/checks.md` has an entry for each.

use super::Section;

/// One check. Its id never changes its meaning: alerts and scripts name it.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// Stable, and the anchor in `docs/checks.md`.
    pub id: &'static str,
    /// Where it is shown.
    pub section: Section,
    /// What holds when it passes.
    pub title: &'static str,
}

/// Where a check is explained, relative to the repository.
pub const DOCUMENT: &str = "docs/checks.md";

impl Check {
    /// Where it is explained.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{DOCUMENT}#{}", self.id)
    }
}

macro_rules! checks {
    ($($name:ident $section:ident $id:literal $title:literal;)*) => {
        $(#[doc = $title] pub const $name: Check = Check { id: $id, section: Section::$section, title: $title };)*
        /// All of them, in the order in which they are shown.
        pub const ALL: &[&Check] = &[$(&$name),*];
    };
}

checks! {
    API_REACHABLE Api "api-reachable" "the API server answers";
    API_VERSION Api "api-version" "the version of Kubernetes is supported";
    API_CLOCK Api "api-clock" "clocks agree";
    API_PERMISSIONS Api "api-permissions" "you may look at all that is checked";
    NODE_KUBELETS Api "node-kubelets" "every kubelet knows native sidecars";
    INSTALL_PERMISSIONS Install "install-permissions" "you may install";
    INSTALL_NAMESPACE Install "install-namespace" "the namespace takes the server";
    INSTALL_NAMES Install "install-names" "no object of ours is somebody else's";
    INSTALL_CERT_MANAGER Install "install-cert-manager" "cert-manager can issue the certificate";
    SERVER_PERMISSIONS Server "server-permissions" "the server has the rights that it uses";
    SERVER_REPLICAS Server "server-replicas" "enough replicas of the server are ready";
    SERVER_VERSION Server "server-version" "server and command line are of one version";
    SERVER_STATUS Server "server-status" "the server says that it is well";
    SERVER_LEADER Server "server-leader" "one replica leads";
    CONFIG_VALID Configuration "config-valid" "the configuration can be read";
    CONFIG_SOUND Configuration "config-sound" "the configuration makes sense";
    CONFIG_APPLIED Configuration "config-applied" "the server has taken up the configuration";
    WEBHOOK_REGISTERED Webhook "webhook-registered" "the webhook is registered once";
    WEBHOOK_SCOPE Webhook "webhook-scope" "only store gateways of labelled namespaces wait for it";
    WEBHOOK_POLICY Webhook "webhook-policy" "it fails, waits and is called again as it should";
    WEBHOOK_SERVICE Webhook "webhook-service" "its Service leads to the server";
    WEBHOOK_CA Webhook "webhook-ca" "its caBundle is valid";
    WEBHOOK_CERTIFICATE Webhook "webhook-certificate" "the served certificate is trusted by it";
    WEBHOOK_ADMISSION Webhook "webhook-admission" "the API server calls it (a dry run)";
    WEBHOOK_OTHERS Webhook "webhook-others" "other webhooks do not get in the way";
    NAMESPACE_LABELS Namespaces "namespace-labels" "namespaces are labelled";
    NAMESPACE_RIGHTS Namespaces "namespace-rights" "the server has rights in every labelled namespace";
    STATEFULSET_ELIGIBLE StatefulSets "statefulset-eligible" "the gateway is sharded";
    STATEFULSET_ANNOTATIONS StatefulSets "statefulset-annotations" "its annotations are valid";
    STATEFULSET_REPLICAS StatefulSets "statefulset-replicas" "its replicas fit the plan";
    STATEFULSET_OVERLAP StatefulSets "statefulset-overlap" "shards overlap for long enough";
    STATEFULSET_UPDATE StatefulSets "statefulset-update" "a rolling update leaves a replica of each shard";
    STATEFULSET_PROBES StatefulSets "statefulset-probes" "no liveness probe kills a long load";
    STATEFULSET_TEMPLATE StatefulSets "statefulset-template" "its pod template says nothing that is ignored";
    STATEFULSET_BUDGETS StatefulSets "statefulset-budgets" "one disruption budget for each pod";
    STATEFULSET_SERVICES StatefulSets "statefulset-services" "a headless Service names its ready pods";
    STATEFULSET_SHARD_SERVICES StatefulSets "statefulset-shard-services" "each shard has its Service";
    PODS_INJECTED StatefulSets "pods-injected" "every pod is injected";
    PODS_AGENTS StatefulSets "pods-agents" "every agent is of the server's version";
    ROLLOUT_STATE Rollouts "rollout-state" "every pod serves its planned window";
    ROLLOUT_DRIFT Rollouts "rollout-drift" "pods serve what is published";
    ROLLOUT_COVERAGE Rollouts "rollout-coverage" "every instant is served by two pods or more";
    ROLLOUT_BLOCKS Rollouts "rollout-blocks" "every block within the retention is loaded";
    BUCKET_OUTSIDE Rollouts "bucket-outside" "no block of the bucket lies outside every window";
    QUERIER_INTERVAL Queriers "querier-interval" "queriers let go of a pod before it restarts";
    DISCOVERY_PERIODS Queriers "discovery-periods" "drains and delay are longer than queriers take to learn of a pod";
    QUERIER_ENDPOINTS Queriers "querier-endpoints" "queriers learn which pods are ready";
}
