//! Every name that users, dashboards and manifests depend on, in one place.
//!
//! A test compares `deploy/` with these; nothing else in the tree spells them out.

/// Prefix of every label and annotation of ours.
pub const PREFIX: &str = "thanos-timeshard.io/";

/// Namespace label that switches injection on, with the value [`INJECTION_ENABLED`].
pub const NAMESPACE_LABEL: &str = "thanos-timeshard.io/injection";
/// The one value of [`NAMESPACE_LABEL`] that switches injection on.
pub const INJECTION_ENABLED: &str = "enabled";

/// Label or annotation on a pod: `"false"` opts out, `"true"` vouches that the image is Thanos.
pub const INJECT: &str = "thanos-timeshard.io/inject";
/// Label on injected pods: the shard's number, newest first.
pub const SHARD_LABEL: &str = "thanos-timeshard.io/shard";
/// Annotation on injected pods: JSON that says what was injected and from which source.
pub const STATUS_ANNOTATION: &str = "thanos-timeshard.io/status";
/// Annotation on a pod: JSON array, the command the launcher runs instead of the one it would find.
pub const COMMAND_ANNOTATION: &str = "thanos-timeshard.io/command";
/// Annotation on a StatefulSet or pod: `"true"` lets us replace time flags that the user set.
pub const REPLACE_TIME_FLAGS: &str = "thanos-timeshard.io/replace-time-flags";
/// Annotation on a StatefulSet or pod: `"true"` reloads in place although a liveness probe may kill a long load.
pub const RELOAD_DESPITE_LIVENESS: &str = "thanos-timeshard.io/reload-despite-liveness";
/// Annotation on a StatefulSet: plan for this many pods now, so that scaling down to it becomes safe.
pub const TARGET_REPLICAS: &str = "thanos-timeshard.io/target-replicas";
/// Annotation on a StatefulSet: `"true"` holds its rollout where it is.
pub const PAUSE: &str = "thanos-timeshard.io/pause";
/// Annotation on a StatefulSet: what the guard does about it, instead of `guard.mode`: `deny`, `warn` or `off`.
pub const GUARD: &str = "thanos-timeshard.io/guard";
/// Annotation on a ConfigMap that is not ours: `"true"` lets us take it over, its data replaced by ours.
pub const ADOPT: &str = "thanos-timeshard.io/adopt";
/// Annotation on our ConfigMap: JSON that says which pods alone have loaded which blocks (`core/single_holders.rs`).
pub const SINGLE_HOLDERS: &str = "thanos-timeshard.io/single-holders";
/// Annotation that we put on a pod after its entry was written: when, so that kubelet syncs its volumes at once.
pub const HURRIED: &str = "thanos-timeshard.io/hurried";

/// Cluster-autoscaler's annotation on a pod: volumes, with commas between them, whose loss is no reason to keep its node.
pub const SAFE_TO_EVICT_VOLUMES: &str =
    "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// Istio's label or annotation that asks for its proxy in a pod: `"true"`.
pub const ISTIO_INJECT: &str = "sidecar.istio.io/inject";
/// Istio's annotation: inbound ports that its proxy leaves alone, with commas between them.
pub const ISTIO_EXCLUDED_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
/// Istio's annotation: the only inbound ports that its proxy takes over; `*` is all.
pub const ISTIO_INCLUDED_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";
/// Istio's label that asks for the proxy of one of its revisions.
pub const ISTIO_REVISION: &str = "istio.io/rev";
/// Consul's annotation that asks for its proxy in a pod: `true`.
pub const CONSUL_INJECT: &str = "consul.hashicorp.com/connect-inject";
/// Consul's annotation: inbound ports that its proxy leaves alone, with commas between them.
pub const CONSUL_EXCLUDED_PORTS: &str =
    "consul.hashicorp.com/transparent-proxy-exclude-inbound-ports";
/// Kuma's label or annotation that asks for its proxy in a pod: `enabled` or `true`.
pub const KUMA_INJECT: &str = "kuma.io/sidecar-injection";
/// Kuma's annotation: inbound ports that its proxy leaves alone, with commas between them.
pub const KUMA_EXCLUDED_PORTS: &str = "traffic.kuma.io/exclude-inbound-ports";
/// Linkerd's annotation that asks for its proxy in a pod: `enabled` or `ingress`.
pub const LINKERD_INJECT: &str = "linkerd.io/inject";
/// Linkerd's annotation: inbound ports that its proxy leaves alone, with commas between them, also ranges.
pub const LINKERD_EXCLUDED_PORTS: &str = "config.linkerd.io/skip-inbound-ports";

/// Label on every object that we own.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_LABEL`] on objects that we own.
pub const MANAGED_BY: &str = "thanos-timeshard";
/// Label that the StatefulSet controller puts on pods (Kubernetes 1.28 and newer): the raw ordinal.
pub const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
/// Label that the StatefulSet controller puts on pods: the revision that they were made from.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// What the name of a StatefulSet's ConfigMap ends in, unless the configuration names it.
pub const CONFIGMAP_SUFFIX: &str = "-time-shards";

/// Container name of the injected sidecar.
pub const SIDECAR: &str = "config-sidecar";
/// Init container that installs the agent in the classic form (clusters before 1.29).
pub const SIDECAR_INSTALL: &str = "config-sidecar-install";
/// Volume that sidecar and launcher share (emptyDir).
pub const SHARED_VOLUME: &str = "timeshard-shared";
/// Volume with the StatefulSet's windows (optional ConfigMap).
pub const CONFIG_VOLUME: &str = "timeshard-config";
/// Where [`SHARED_VOLUME`] is mounted, in both containers.
pub const SHARED_DIR: &str = "/run/timeshard";
/// Where [`CONFIG_VOLUME`] is mounted, in the sidecar only.
pub const CONFIG_DIR: &str = "/etc/timeshard";
/// Where Kubernetes mounts the token of a pod's ServiceAccount, in each container that mounts nothing there itself.
pub const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// File name of the agent binary, in the image (at `/`) and in the shared directory.
pub const AGENT: &str = "timeshard-agent";
/// The agent as the launcher's command: [`SHARED_DIR`] and [`AGENT`].
pub const AGENT_IN_SHARED_DIR: &str = "/run/timeshard/timeshard-agent";
/// The agent in our own image.
pub const AGENT_IN_IMAGE: &str = "/timeshard-agent";
/// Port of the sidecar's HTTP server.
pub const SIDECAR_PORT: u16 = 10908;
/// User of our image, and of the sidecar beside a thanos that runs as root.
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
/// Port of the server's probes, which the network policy does not open.
pub const PROBE_PORT: u16 = 8081;
/// Lease that names the one replica of the server that writes.
pub const LEASE: &str = "timeshard-refresher";
/// Namespace that the manifests put the server in.
pub const SYSTEM_NAMESPACE: &str = "timeshard-system";
/// Service that the API server calls.
pub const SERVICE: &str = "timeshard";
/// The object that registers the mutating webhook.
pub const WEBHOOK_CONFIGURATION: &str = "timeshard";
/// Secret that `--self-signed` keeps CA and certificate in.
pub const SELF_SIGNED_SECRET: &str = "timeshard-self-signed";
/// Selects the server's pods.
pub const SERVER_PODS: &str =
    "app.kubernetes.io/name=thanos-timeshard,app.kubernetes.io/component=server";
/// Version of the agent's `/status` document and of the ConfigMap's entries. Since 2 agents report the blocks that thanos has
/// loaded, and act only on entries that are newer than the one they remember.
pub const CONTRACT: u32 = 2;
