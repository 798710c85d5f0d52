# shellcheck shell=bash
# deploy/chart renders the objects of deploy/, refuses wrong values, and is installed, upgraded and removed by Helm
# stage: control-plane
chart=$CHECKOUT/deploy/chart ns=e2e-chart
export HELM_CACHE_HOME=$WORK/helm/cache HELM_CONFIG_HOME=$WORK/helm/config HELM_DATA_HOME=$WORK/helm/data
kubectl apply --server-side -f "$BIN/cert-manager.crds.yaml" -f "$BIN/prometheus-operator.crds.yaml" >/dev/null
established() { kubectl wait --for=condition=Established --timeout=5s crd/certificates.cert-manager.io crd/issuers.cert-manager.io crd/{podmonitors,servicemonitors,prometheusrules}.monitoring.coreos.com; }
eventually 30 "the CRDs of cert-manager and the Prometheus operator are established" established # a new one has no conditions to wait for yet
# As on a cluster with cert-manager: helm template does not ask the API server.
render() { helm template timeshard "$chart" --namespace "$SYSTEM" --api-versions cert-manager.io/v1 "$@"; }

# ---- the same objects ---------------------------------------------------------------------------------------------------
# as_json FILE: its YAML documents; kubectl reads them and sends nothing
as_json() { kubectl create --dry-run=client --validate=false -o json -f "$1" | jq -s '[.[] | (.items[]? // .)]'; }
# objects FILE: by kind and name, in one form for both renderers. Only the Namespace is left out: Helm keeps its record of the
# release in it, so it exists before (--create-namespace), and uninstalling must not delete other objects in it. The chart's standard
# labels and the objects of `helm test` have no counterpart in kustomize.
objects() {
  local all config
  all=$(as_json "$1")
  jq -r '.[] | select(.kind == "ConfigMap" and .metadata.name == "timeshard-config") | "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n" + .data["config.yaml"]' <<<"$all" >"$WORK/config-as-object.yaml"
  config=$(as_json "$WORK/config-as-object.yaml" | jq '.[0] | {operator, sharding, injection, guard}')
  jq -S --argjson config "$config" '[.[] | select(.kind != "Namespace" and (.metadata.annotations["helm.sh/hook"] | not))
    | del(.metadata.labels["helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/part-of"])
    | if .kind == "ConfigMap" and .metadata.name == "timeshard-config" then .data["config.yaml"] = $config else . end
    | {key: "\(.kind) \(.metadata.name)", value: .}] | from_entries' <<<"$all"
}
# same_objects WHAT DIR HELM-ARGUMENT…: compares the kustomization in DIR with the chart with these arguments
same_objects() {
  local what=$1 n
  kubectl kustomize "$2" >"$WORK/kustomize.yaml"
  shift 2
  render "$@" >"$WORK/chart.yaml"
  objects "$WORK/kustomize.yaml" >"$WORK/kustomize.json"
  objects "$WORK/chart.yaml" >"$WORK/chart.json"
  n=$(jq length "$WORK/chart.json")
  check "$what: the same $n objects" diff -U3 "$WORK/kustomize.json" "$WORK/chart.json"
}
# overlay NAME BASE: a kustomization on top of deploy/BASE, extended by standard input
overlay() {
  local folder=$E2E_DIR/overlays/$1 deploy
  mkdir -p "$folder"
  deploy=$(realpath --relative-to="$folder" "$CHECKOUT/deploy")
  { printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [%s]\n' "$deploy/$2"; sed "s#DEPLOY#$deploy#g"; } >"$folder/kustomization.yaml"
  echo "$folder"
}
same_objects "default values and deploy/cert-manager" "$CHECKOUT/deploy/cert-manager"
bundle=$(base64 -w0 "$WORK/tls/ca.crt")
own=(--set certManager.enabled=false --set tls.existingSecret=timeshard-tls --set "webhook.caBundle=$bundle")
folder=$(overlay own-certificate base <<Y
patches:
- target: {kind: (Mutating|Validating)WebhookConfiguration}
  patch: |-
    - {op: add, path: /webhooks/0/clientConfig/caBundle, value: "$bundle"}
Y
)
same_objects "certManager.enabled=false and deploy/base with that caBundle" "$folder" "${own[@]}"
same_objects "certManager.enabled=false with nothing else and deploy/self-signed" "$CHECKOUT/deploy/self-signed" --set certManager.enabled=false
folder=$(overlay components cert-manager <<<'components: [DEPLOY/components/egress, DEPLOY/components/monitoring]')
same_objects "certificates=self-signed is the same" "$CHECKOUT/deploy/self-signed" --set certificates=self-signed
certificates() { render_without_cluster "$@" | grep -o -- '--self-signed$\|--cert-dir=.*$'; }
render_without_cluster() { helm template timeshard "$chart" --namespace "$SYSTEM" "$@"; }
same "certificates=auto, and no cert-manager: the server makes its own" "--self-signed" certificates
same "and with cert-manager's API: it issues them" "--cert-dir=/etc/timeshard/tls" certificates --api-versions cert-manager.io/v1
same_objects "monitoring and egress, and deploy/components" "$folder" --set monitoring.enabled=true \
  --set monitoring.rules=true --set monitoring.dashboard=true --set networkPolicy.egress.enabled=true
folder=$(overlay policy cert-manager <<<'components: [DEPLOY/components/policy]')
same_objects "admissionPolicy.enabled and deploy/components/policy" "$folder" --set admissionPolicy.enabled=true
same_objects "rbac.scope=namespaces and deploy/examples/namespaced" "$CHECKOUT/deploy/examples/namespaced" --set rbac.scope=namespaces --set 'rbac.namespaces={team-a,team-b}'
folder=$(overlay image cert-manager <<'Y'
images: [{name: ghcr.io/thanos-timeshard/timeshard, newName: registry.example.com/timeshard, newTag: v9}]
replicas: [{name: timeshard, count: 5}]
patches:
- target: {kind: ConfigMap, name: timeshard-config}
  patch: |-
    - op: replace
      path: /data/config.yaml
      value: |
        operator: {update_interval: 300, namespace: monitoring, statefulset_name: thanos-store-gateway, configmap_name: thanos-store-config}
        sharding: {total_shards: 4, replicas_per_shard: 2, retention: 400d, shard_overlap_days: 1, future_buffer_hours: 24}
        injection: {agent_image: registry.example.com/timeshard:v9}
        guard: {mode: warn}
Y
)
same_objects "another image, for the sidecars too, replicas, split and a guard that warns" "$folder" --set image.repository=registry.example.com/timeshard \
  --set image.tag=v9 --set replicas=5 --set config.sharding.total_shards=4 --set config.sharding.retention=400d --set guard.mode=warn
folder=$(overlay no-guard cert-manager <<'Y'
patches:
- patch: |-
    $patch: delete
    apiVersion: admissionregistration.k8s.io/v1
    kind: ValidatingWebhookConfiguration
    metadata: {name: timeshard}
Y
)
same_objects "guard.enabled=false and deploy/cert-manager without the guard" "$folder" --set guard.enabled=false

# ---- every rendering is accepted ----------------------------------------------------------------------------------------
accepted() { # WHAT HELM-ARGUMENT…
  local what=$1
  shift
  check "$what: helm lint --strict" helm lint --strict --quiet "$chart" --namespace "$SYSTEM" "$@"
  # without the pod of `helm test`: its ServiceAccount exists only meanwhile
  render "$@" --no-hooks >"$WORK/chart.yaml"
  check "$what: every object passes strict validation" kubectl apply --dry-run=server --validate=strict --server-side --force-conflicts -f "$WORK/chart.yaml"
  warnings() { kubectl apply --dry-run=server --server-side --force-conflicts -f "$WORK/chart.yaml" 2>"$WORK/warnings" >/dev/null; cat "$WORK/warnings"; }
  same "$what: no warning (Pod Security restricted, deprecated fields)" "" warnings
  as_json "$WORK/chart.yaml" >"$WORK/chart.json"
  # with the value thanos-timeshard the server would read a ConfigMap as published windows
  same "$what: no object has the label managed-by" "" jq -r '.[] | select(.metadata.labels["app.kubernetes.io/managed-by"]) | .metadata.name' "$WORK/chart.json"
  jq -r '.[] | select(.kind == "ConfigMap") | .data["config.yaml"] // empty' "$WORK/chart.json" >"$WORK/chart-config.yaml"
  check "$what: the server reads its configuration" "$SERVER" plan --config "$WORK/chart-config.yaml"
}
accepted "default values"
for n in monitoring team-a thanos-global; do kubectl create namespace $n --dry-run=client -o yaml | kubectl apply -f - >/dev/null; done # of namespaces-values
for f in "$chart"/ci/*-values.yaml; do accepted "$(basename "$f" -values.yaml)" -f "$f"; done

render -f "$chart/ci/host-network.yaml" >"$WORK/chart.yaml"
check "the node's network: every object passes strict validation" kubectl apply --dry-run=server --validate=strict --server-side --force-conflicts -f "$WORK/chart.yaml"
rule() { render -f "$chart/ci/conventions-values.yaml" | sed -n "/alert: $1\$/,/team:/p" | grep -E 'for:|severity:|team:' | sed 's/^ *//' | sort | paste -sd' '; }
expression() { render -f "$chart/ci/conventions-values.yaml" | sed -n 's/^ *expr: .*(timeshard_drift_seconds) > //p'; }
same "an alert has the threshold, duration, severity and labels that were set" "for: 30m severity: info team: storage, above 1800" echo "$(rule TimeshardDrift), above $(expression)"
same "one that is switched off is left out" "" rule TimeshardNoLeader
repository() { render --set "$1" | sed -n 's/^ *\(agent_image\|image\): //p' | sort -u; }
same "another registry, for the sidecars too" "mirror.example.com/thanos-timeshard/timeshard:v0.1.0" repository image.registry=mirror.example.com
same "as a subchart's global value" "mirror.example.com/thanos-timeshard/timeshard:v0.1.0" repository global.imageRegistry=mirror.example.com

# ---- old clusters -------------------------------------------------------------------------------------------------------
at() { # VERSION: the values that depend on it
  render --kube-version "$1" >"$WORK/chart.yaml"
  sed -n -e 's/^apiVersion: \(policy.*\)/\1/p' -e 's/^ *failurePolicy: //p' -e 's/^  \(matchConditions\):/\1/p' -e 's/^  \(unhealthyPodEvictionPolicy\):.*/\1/p' -e 's/^ *\(native_sidecar: .*\)/\1/p' "$WORK/chart.yaml" | sort | paste -sd' '
}
same "for Kubernetes 1.21" "Ignore Ignore native_sidecar: false policy/v1" at 1.21.0
same "for 1.27" "Ignore Ignore native_sidecar: false policy/v1 unhealthyPodEvictionPolicy" at 1.27.3
same "for 1.28, as providers name it" "Fail Ignore matchConditions matchConditions native_sidecar: false policy/v1 unhealthyPodEvictionPolicy" at v1.28.5-gke.100
same "for 1.36" "Fail Ignore matchConditions matchConditions policy/v1 unhealthyPodEvictionPolicy" at 1.36.0
refused "1.20 is refused" "requires kubeVersion: >=1.21.0-0" render --kube-version 1.20.0
# Helm shows notes only for its own cluster, so for another version they are rendered like an object
rm -rf "$WORK/notes"
cp -r "$chart" "$WORK/notes"
{ echo '{{ define "notes" }}'; cat "$chart/templates/NOTES.txt"; printf '{{ end }}\nnotes: |\n  {{- include "notes" . | nindent 2 }}\n'; } >"$WORK/notes/templates/notes.yaml"
notes() { helm template timeshard "$WORK/notes" --show-only templates/notes.yaml "$@" | grep -o "$want"; }
want='failurePolicy is therefore Ignore' && same "the notes for 1.21 say why" "$want" notes --kube-version 1.21.0
want='failurePolicy is Fail as you set it' && same "and the effect of Fail" "$want" notes --kube-version 1.21.0 --set webhook.failurePolicy=Fail
want='kubectl label namespace monitoring thanos-timeshard.io/injection=enabled' && same "and those for 1.36 the next command" "$want" notes

# ---- wrong values -------------------------------------------------------------------------------------------------------
refused "a misspelt key is refused by its name" "'replica'" render --set replica=3
refused "and one of the configuration" "'total_shard'" render --set config.sharding.total_shard=4
refused "a wrong type" "/replicas" render --set-string replicas=two
refused "no replica" "/replicas" render --set replicas=0
refused "a word that is none of the choices" "/webhook/failurePolicy" render --set webhook.failurePolicy=Never
refused "a tag where a digest belongs" "/image/digest" render --set image.digest=v1
refused "a mode of the guard that there is not" "/guard/mode" render --set guard.mode=allow
refused "a drain of more than an hour" "/shutdownDrainSeconds" render --set shutdownDrainSeconds=4000
refused "a caBundle that is not base64" "/webhook/caBundle" render "${own[@]}" --set 'webhook.caBundle=-----BEGIN CERTIFICATE-----'
refused "your own certificate without its CA" "set webhook.caBundle to the CA that signed it" render --set certManager.enabled=false --set tls.existingSecret=x
refused "a CA without a certificate" "or set tls.existingSecret, too" render --set certManager.enabled=false --set webhook.caBundle=QUJD
refused "cert-manager and a caBundle" "leave tls.existingSecret and webhook.caBundle empty" render --set certificates=cert-manager --set webhook.caBundle=QUJD
refused "your own certificate, and none named" "name the Secret with your tls.crt and tls.key" render --set certificates=existing
refused "two answers about certificates" "leave certManager.enabled empty" render --set certificates=self-signed --set certManager.enabled=true
refused "a ServiceAccount of yours, and none named" "name it in serviceAccount.name" render --set serviceAccount.create=false
refused "an alert that there is not" "there is no such alert" render --set monitoring.rules=true --set monitoring.alerts.TimeshardDrifts.enabled=false
refused "a threshold of an alert that has none" "has no single threshold" render --set monitoring.rules=true --set monitoring.alerts.TimeshardSingleReplica.threshold=2
refused "a label that the server's pods are selected by" "app.kubernetes.io/name" render --set 'podLabels.app\.kubernetes\.io/name=x'
refused "rights in namespaces, and none named" "name the namespaces that gateways are in" render --set rbac.scope=namespaces
refused "namespaces, and rights in all" "set rbac.scope=namespaces" render --set 'rbac.namespaces={team-a}'
refused "a value that is no namespace" "/rbac/namespaces/0" render --set rbac.scope=namespaces --set 'rbac.namespaces={Team A}'
refused "policies before Kubernetes 1.30" "needs Kubernetes 1.30 or newer" render --set admissionPolicy.enabled=true --kube-version 1.29.0
refused "a duration without a unit" "/config/sharding/drain" render --set config.sharding.drain=60
refused "two keys with the same meaning" "config.sharding has both retention and data_retention_days" render --set config.sharding.retention=400d --set config.sharding.data_retention_days=90

# ---- install, upgrade, uninstall ----------------------------------------------------------------------------------------
back() { # in any case the next scenario finds this run's registration
  server_stop # first: without its rights the API server would refuse it
  helm uninstall timeshard --namespace "$SYSTEM" >/dev/null 2>&1 || true
  register control-plane
}
trap back EXIT
server_stop
kubectl kustomize "$CHECKOUT/deploy/base" >"$WORK/kustomize.yaml"
objects "$WORK/kustomize.yaml" | jq '.[] | {apiVersion, kind, metadata: {name: .metadata.name, namespace: .metadata.namespace}}' | kubectl delete -f - >/dev/null
left() { # objects of the release in the cluster
  kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles,clusterrolebindings -l app.kubernetes.io/name=thanos-timeshard -o name
  kubectl -n "$SYSTEM" get deployments,services,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets -l app.kubernetes.io/name=thanos-timeshard -o name
}
until_same 30 "before: no object of it exists" "" left
check "helm install" helm install timeshard "$chart" --namespace "$SYSTEM" "${own[@]}"
refused "a second release is refused" "cannot be imported into the current release" helm install other "$chart" --namespace "$SYSTEM" "${own[@]}"
label() { kubectl -n "$SYSTEM" get configmap timeshard-config -o 'jsonpath={.metadata.labels.app\.kubernetes\.io/managed-by}'; }
same "its ConfigMap is Helm's, and has no published windows" Helm label
host_endpoint
server_rights
server_start
eventually 30 "the server is ready with the rights that the chart gives" server_ready
namespace $ns "$ENABLED"
REPLICAS=6 POLICY=Parallel store_set $ns store
known $ns store store-3 "shard=1 ${shard_windows[1]}"
until_same 60 "gateways are injected" "$(planned store 6)" windows $ns store

# admissions while the release changes
member $ns store probe-1 | jq '{apiVersion: "v1", kind: "List", items: [range(10) as $i | .]}' >"$WORK/upgrade.pods"
stop=$WORK/upgrade-done answers=$WORK/upgrade-answers
rm -f "$stop" "$answers".*
load() { # one after the other, ten for each start of kubectl, which costs more than ten admissions
  until [ -e "$stop" ]; do
    kubectl -n $ns create --dry-run=server -o 'jsonpath=injected {.metadata.labels.thanos-timeshard\.io/shard}{"\n"}' -f "$WORK/upgrade.pods" 2>&1 || echo failed
  done >"$answers.$1"
}
loads=()
for i in 1 2 3 4; do
  load $i &
  loads+=($!)
done
release() {
  kubectl -n "$SYSTEM" get deployment timeshard -o 'jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image} {.spec.template.spec.terminationGracePeriodSeconds}{"\n"}'
  kubectl -n "$SYSTEM" get configmap timeshard-config -o 'jsonpath={.data.config\.yaml}' | grep -E 'agent_image|total_shards'
}
check "helm upgrade" helm upgrade timeshard "$chart" --namespace "$SYSTEM" "${own[@]}" --set image.tag=v0.1.1 --set replicas=3 \
  --set shutdownDrainSeconds=30 --set config.sharding.total_shards=4
same "brings image, replicas, drain and configuration" '3 ghcr.io/thanos-timeshard/timeshard:v0.1.1 50
  agent_image: ghcr.io/thanos-timeshard/timeshard:v0.1.1
  total_shards: 4' release
check "helm rollback" helm rollback timeshard 1 --namespace "$SYSTEM"
same "takes them back" '2 ghcr.io/thanos-timeshard/timeshard:v0.1.0 30
  total_shards: 3' release
: >"$stop"
wait "${loads[@]}"
same "not one of $(cat "$answers".* | wc -l) admissions meanwhile failed or was not injected" "injected 0" sort -u "$answers".1 "$answers".2 "$answers".3 "$answers".4

# the objects that a server leaves if it ends during a step: windows, and a closed PDB
publish $ns store store-1 $'shard: 0\nreplica: 1\nmin_time: -124d8h\nmax_time: 1d\n'
budget() { kubectl -n $ns get poddisruptionbudget store-shard-0; }
eventually 30 "its shard has a PDB" budget
server_stop
published() { kubectl -n $ns get configmap store-time-shards -o json | jq -S .data; }
kubectl -n $ns patch poddisruptionbudget store-shard-0 --type=merge -p '{"spec": {"minAvailable": null, "maxUnavailable": 0}}' >/dev/null
windows_before=$(published)
refused "no server answers: a gateway waits" "inject.thanos-timeshard.io" dry_window $ns store probe-0
uids() { pods $ns store | jq -r '.[] | "\(.metadata.name) \(.metadata.uid)"'; }
before=$(uids)
check "helm uninstall" helm uninstall timeshard --namespace "$SYSTEM"
until_same 30 "leaves nothing of the release" "" left
same "and no gateway is touched" "$before" uids
until_same 30 "a new one is created immediately, unchanged" "probe-0 untouched" dry_window $ns store probe-0
same "the windows of running gateways stay" "$windows_before" published
ours() { kubectl get pdb -A -l app.kubernetes.io/managed-by=thanos-timeshard -o name; }
check "a closed PDB is left" grep store-shard-0 <(ours)
check "and is deleted by the command of docs/install.md" kubectl delete pdb -A -l app.kubernetes.io/managed-by=thanos-timeshard
same "none is left" "" ours

# ---- no cert-manager, and nothing else ----------------------------------------------------------------------------------
check "helm install --set certManager.enabled=false" helm install timeshard "$chart" --namespace "$SYSTEM" --set certManager.enabled=false
own_certificate() { # the server makes it, and it is in the caBundle
  kubectl -n "$SYSTEM" get secret timeshard-self-signed >/dev/null && kubectl get mutatingwebhookconfiguration timeshard -o 'jsonpath={.webhooks[0].clientConfig.caBundle}' | grep -q .
}
host_endpoint
server_rights
CERTIFICATE=--self-signed server_start
eventually 30 "the server is ready with a certificate that it made" server_ready
eventually 60 "its Secret and the caBundle exist" own_certificate
until_same 60 "the API server trusts it, and gateways are injected" "probe-5 shard=2 ${shard_windows[2]}" dry_window $ns store probe-5
server_stop
check "helm uninstall again" helm uninstall timeshard --namespace "$SYSTEM"
until_same 30 "leaves nothing of this release either" "" left
kubectl -n "$SYSTEM" delete secret timeshard-self-signed >/dev/null

# ---- no values at all, with cert-manager --------------------------------------------------------------------------------
[ -e "$STATE/pids/cert-manager" ] || "$CHECKOUT/tests/e2e/cluster/cert-manager.sh" "$STAGE_FLAG"
kubectl -n "$SYSTEM" delete secret timeshard-tls timeshard-ca --ignore-not-found >/dev/null
check "helm install without values, on a cluster with cert-manager" helm install timeshard "$chart" --namespace "$SYSTEM"
check "the certificate is issued" kubectl -n "$SYSTEM" wait --for=condition=Ready certificate/timeshard-tls --timeout=240s
secret() { kubectl -n "$SYSTEM" get secret timeshard-tls -o "jsonpath={.data.$1}" | base64 -d; }
secret 'tls\.crt' >"$WORK/tls/tls.crt"
secret 'tls\.key' >"$WORK/tls/tls.key"
host_endpoint
server_rights
server_start
guard_bundle() { kubectl get validatingwebhookconfiguration timeshard -o 'jsonpath={.webhooks[0].clientConfig.caBundle}' | base64 -d | openssl x509 -noout -subject; }
eventually 60 "the guard is given the CA, too" guard_bundle
until_same 60 "the API server trusts the server that has it, and gateways are injected" "probe-5 shard=2 ${shard_windows[2]}" dry_window $ns store probe-5
