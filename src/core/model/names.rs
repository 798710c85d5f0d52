//! Every name that users, dashboards and manifests depend on. A test compares `deploy/` with these.

/// Prefix of timeshard's labels and annotations.
pub const PREFIX: &str = "thanos-timeshard.io/";

/// Namespace label that switches injection on, with the value [`INJECTION_ENABLED`].
pub const NAMESPACE_LABEL: &str = "thanos-timeshard.io/injection";
pub const INJECTION_ENABLED: &str = "enabled";

/// Label or annotation on a pod: `"false"` opts out, `"true"` vouches that the image is Thanos.
pub const INJECT: &str = "thanos-timeshard.io/inject";
/// Label on injected pods: the shard's number, newest first.
pub const SHARD_LABEL: &str = "thanos-timeshard.io/shard";
/// Annotation on injected pods: what was injected and from which source, as JSON.
pub const STATUS_ANNOTATION: &str = "thanos-timeshard.io/status";
/// Annotation on a pod: JSON array, the command that the launcher runs instead of the detected one.
pub const COMMAND_ANNOTATION: &str = "thanos-timeshard.io/command";
/// Annotation on a StatefulSet or pod: `"true"` lets timeshard replace time flags that the user set.
pub const REPLACE_TIME_FLAGS: &str = "thanos-timeshard.io/replace-time-flags";
/// Annotation on a StatefulSet or pod: `"true"` reloads in place although a liveness probe may kill
/// a long load.
pub const RELOAD_DESPITE_LIVENESS: &str = "thanos-timeshard.io/reload-despite-liveness";
/// Annotation on a StatefulSet: plan for this many pods now, so that scaling down is safe later.
pub const TARGET_REPLICAS: &str = "thanos-timeshard.io/target-replicas";
/// Annotation on a StatefulSet: `"true"` pauses its rollout.
pub const PAUSE: &str = "thanos-timeshard.io/pause";
/// Annotation on a StatefulSet: `"false"` opts it out; its running pods keep their windows.
pub const MANAGED: &str = "thanos-timeshard.io/managed";
/// Annotation on a StatefulSet: `deny`, `warn` or `off`, instead of the guard's `guard.mode`.
pub const GUARD: &str = "thanos-timeshard.io/guard";
/// Annotation on a foreign ConfigMap: `"true"` lets timeshard adopt it and replace its data.
pub const ADOPT: &str = "thanos-timeshard.io/adopt";
/// Annotation on timeshard's ConfigMap: the blocks that one pod alone has loaded, as JSON
/// (`core/rollout/single_holders.rs`).
pub const SINGLE_HOLDERS: &str = "thanos-timeshard.io/single-holders";
/// Annotation that the leader sets on a pod after writing its entry, with the time, so that kubelet
/// syncs the pod's volumes immediately.
pub const HURRIED: &str = "thanos-timeshard.io/hurried";

/// Cluster-autoscaler's annotation on a pod: comma-separated volumes that do not keep its node.
pub const SAFE_TO_EVICT_VOLUMES: &str =
    "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// Istio's label or annotation that asks for its proxy in a pod: `"true"`.
pub const ISTIO_INJECT: &str = "sidecar.istio.io/inject";
/// Istio's annotation: inbound ports that its proxy skips, separated by commas.
pub const ISTIO_EXCLUDED_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
/// Istio's annotation: the only inbound ports that its proxy takes over; `*` is all.
pub const ISTIO_INCLUDED_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";
/// Istio's label that asks for the proxy of one of its revisions.
pub const ISTIO_REVISION: &str = "istio.io/rev";
/// Consul's annotation that asks for its proxy in a pod: `true`.
pub const CONSUL_INJECT: &str = "consul.hashicorp.com/connect-inject";
/// Consul's annotation: inbound ports that its proxy skips, separated by commas.
pub const CONSUL_EXCLUDED_PORTS: &str =
    "consul.hashicorp.com/transparent-proxy-exclude-inbound-ports";
/// Kuma's label or annotation that asks for its proxy in a pod: `enabled` or `true`.
pub const KUMA_INJECT: &str = "kuma.io/sidecar-injection";
/// Kuma's annotation: inbound ports that its proxy skips, separated by commas.
pub const KUMA_EXCLUDED_PORTS: &str = "traffic.kuma.io/exclude-inbound-ports";
/// Linkerd's annotation that asks for its proxy in a pod: `enabled` or `ingress`.
pub const LINKERD_INJECT: &str = "linkerd.io/inject";
/// Linkerd's annotation: inbound ports and ranges that its proxy skips, separated by commas.
pub const LINKERD_EXCLUDED_PORTS: &str = "config.linkerd.io/skip-inbound-ports";

/// Label on every object that timeshard manages.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
pub const MANAGED_BY: &str = "thanos-timeshard";
/// Label that the StatefulSet controller puts on pods (Kubernetes 1.28 and newer): the raw ordinal.
pub const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
/// Label that the StatefulSet controller puts on pods: their revision.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// Suffix of a ConfigMap's name, after the StatefulSet's, unless the configuration names it.
pub const CONFIGMAP_SUFFIX: &str = "-time-shards";

/// Container of the injected sidecar.
pub const SIDECAR: &str = "config-sidecar";
/// Init container that installs the agent in the classic form (clusters before 1.29).
pub const SIDECAR_INSTALL: &str = "config-sidecar-install";
/// Volume that sidecar and launcher share (emptyDir).
pub const SHARED_VOLUME: &str = "timeshard-shared";
/// Volume with the StatefulSet's windows (optional ConfigMap).
pub const CONFIG_VOLUME: &str = "timeshard-config";
/// Mount path of [`SHARED_VOLUME`] in both containers.
pub const SHARED_DIR: &str = "/run/timeshard";
/// Mount path of [`CONFIG_VOLUME`] in the sidecar.
pub const CONFIG_DIR: &str = "/etc/timeshard";
/// Mount path of the ServiceAccount's token, unless a container mounts another volume there.
pub const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// File name of the agent binary in the image (at `/`) and in the shared directory.
pub const AGENT: &str = "timeshard-agent";
/// The launcher's command: [`AGENT`] in [`SHARED_DIR`].
pub const AGENT_IN_SHARED_DIR: &str = "/run/timeshard/timeshard-agent";
/// [`AGENT`] in timeshard's image.
pub const AGENT_IN_IMAGE: &str = "/timeshard-agent";
/// Port of the sidecar's HTTP server.
pub const SIDECAR_PORT: u16 = 10908;
/// User of timeshard's image, and of the sidecar next to a thanos that runs as root.
pub const NON_ROOT_UID: i64 = 65532;

/// Thanos' default HTTP port (`--http-address`).
pub const THANOS_HTTP_PORT: u16 = 10902;
/// Thanos' default gRPC port (`--grpc-address`).
pub const THANOS_GRPC_PORT: u16 = 10901;

/// Name of the mutating webhook in its registration.
pub const WEBHOOK: &str = "inject.thanos-timeshard.io";
/// Path of the mutating webhook.
pub const MUTATE_PATH: &str = "/mutate";
/// Path of the validating webhook, the guard.
pub const GUARD_PATH: &str = "/guard";
/// Name of both webhook registrations.
pub const REGISTRATION: &str = "timeshard";
/// Port of the webhook (HTTPS).
pub const WEBHOOK_PORT: u16 = 8443;
/// Port of the server's own HTTP endpoints.
pub const ADMIN_PORT: u16 = 8080;
/// Port of the server's probes; the network policy does not open it.
pub const PROBE_PORT: u16 = 8081;
/// Lease of the leader, the one replica that writes.
pub const LEASE: &str = "timeshard-refresher";
/// Namespace of the server in the manifests.
pub const SYSTEM_NAMESPACE: &str = "timeshard-system";
/// Service that the API server calls.
pub const SERVICE: &str = "timeshard";
/// Object that registers the mutating webhook.
pub const WEBHOOK_CONFIGURATION: &str = "timeshard";
/// Secret with CA and certificate of `--self-signed`.
pub const SELF_SIGNED_SECRET: &str = "timeshard-self-signed";
/// Selects the server's pods.
pub const SERVER_PODS: &str =
    "app.kubernetes.io/name=thanos-timeshard,app.kubernetes.io/component=server";
/// Version of the agent's `/status` document and of the ConfigMap's entries. Since version 2 agents
/// report the blocks that thanos has loaded, and ignore entries older than the last accepted one.
pub const CONTRACT: u32 = 2;

/// Length of an RFC 1123 label.
pub const MAX_LABEL_CHARS: usize = 63;
/// Length of an RFC 1123 subdomain, such as the name of a pod, a StatefulSet or a Secret.
pub const MAX_SUBDOMAIN_CHARS: usize = 253;
/// Blocks of the configuration file.
pub const CONFIG_BLOCKS: [&str; 5] = ["operator", "sharding", "injection", "guard", "queriers"];

/// The command that labels a namespace for injection, whatever value the label has.
#[must_use]
pub fn label_command(namespace: &str) -> String {
    format!("kubectl label --overwrite namespace {namespace} {NAMESPACE_LABEL}={INJECTION_ENABLED}")
}

/// Whether this is an RFC 1123 name of at most `max_chars` characters: labels with dots between them
/// if that is more than a label's length, or else one label.
#[must_use]
pub fn is_name(text: &str, max_chars: usize) -> bool {
    let is_alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_label = |label: &str| {
        let edge = |b: Option<u8>| b.is_some_and(is_alphanumeric);
        edge(label.bytes().next())
            && edge(label.bytes().last())
            && label.bytes().all(|b| is_alphanumeric(b) || b == b'-')
    };
    text.len() <= max_chars
        && if max_chars > MAX_LABEL_CHARS {
            text.split('.').all(is_label)
        } else {
            is_label(text)
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kubernetes_accepts() {
        for (name, label, subdomain) in [
            ("store", true, true),
            ("0-store", true, true),
            ("reg.example.com", false, true),
            ("a..b", false, false),
            ("a.-b", false, false),
            ("a-.b", false, false),
            (".a", false, false),
            ("a.", false, false),
            ("-a", false, false),
            ("Store", false, false),
            ("a_b", false, false),
            ("", false, false),
        ] {
            assert_eq!(is_name(name, MAX_LABEL_CHARS), label, "{name:?}");
            assert_eq!(is_name(name, MAX_SUBDOMAIN_CHARS), subdomain, "{name:?}");
        }
        assert!(is_name(&"a".repeat(253), 253) && !is_name(&"a".repeat(254), 253));
    }
}
